"""The batch of a recipe on other machines, in hand numbers; whether a training is done."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.trainings import is_trained

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples/variational_reasoning/qwen3_4b/1_train_reasoner.yaml"  # 96 rows per step

SPEC = importlib.util.spec_from_file_location("batch_size", ROOT / "scripts/batch_size.py")
batch_size = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(batch_size)


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["batch_size.py", *map(str, arguments)])
        code = 0
        try:
            run_command(batch_size.main)
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ["gpus=8"],
            "per_device_train_batch_size=1 gradient_accumulation_steps=12\n",
        ),  # 1 x 12 x 8
        (["gpus=4"], "per_device_train_batch_size=1 gradient_accumulation_steps=24\n"),
        (
            ["gpus=4", "per_device=2"],
            "per_device_train_batch_size=2 gradient_accumulation_steps=12\n",
        ),
        (["gpus=96"], "per_device_train_batch_size=1 gradient_accumulation_steps=1\n"),
        # 16 x K with K = 32: 512 = 4 x 8 x 16
        (
            ["gpus=16", "per_device=4", "rows_per_step=512"],
            "per_device_train_batch_size=4 gradient_accumulation_steps=8 rows_per_step=512\n",
        ),
    ],
)
def test_the_setting_that_keeps_the_batch(command, given, expected):
    code, out, _ = command(RECIPE, *given)
    assert (code, out) == (0, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # 96 / 5 is no whole number; 96 / 4 and 96 / 6 are
        (
            ["gpus=5"],
            "do not divide into 5 GPU(s) x 1 row(s); nearest that do: gpus=4 per_device=1, gpus=6 per_device=1",
        ),
        # 96 / (12 x 5): with 12 GPUs 4 and 8 rows fit; with 5 rows no number of GPUs does
        (
            ["gpus=12", "per_device=5"],
            "nearest that do: gpus=12 per_device=4, gpus=12 per_device=8",
        ),
        (["gpus=7", "per_device=5"], "change both numbers"),
        (["gpus=97"], "nearest that do: gpus=96 per_device=1"),
        (["gpus=0"], "gpus: '0' is not a whole number above zero"),
        (["gpus=2.5"], "gpus: '2.5' is not"),
        ([], "no gpus=N: does not fit"),
        (["gpus=8", "nodes=2"], "gpus=8 nodes=2: does not fit"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(command, given, expected):
    code, out, err = command(RECIPE, *given)
    assert code == 2 and not out and expected in err


def test_a_yaml_without_the_key_or_without_a_file(command, tmp_path):
    (tmp_path / "train.yaml").write_text("per_device_train_batch_size: 2\n", encoding="utf-8")
    assert "has no key rows_per_step" in command(tmp_path / "train.yaml", "gpus=2")[2]
    assert command(tmp_path / "train.yaml", "gpus=2", "rows_per_step=8")[1].startswith(
        "per_device_train_batch_size=2 gradient_accumulation_steps=2 "
    )
    assert "No such file" in command(tmp_path / "none.yaml", "gpus=2")[2]


@pytest.fixture
def trained(tmp_path):
    """A training YAML and what the trainer wrote beside its model: 96 rows per step."""
    recipe, model = tmp_path / "train.yaml", tmp_path / "model"
    recipe.write_text(
        f"output_dir: {model}\nlearning_rate: 1.0e-5\nper_device_train_batch_size: 1\n"
        "gradient_accumulation_steps: 12\nrows_per_step: 96\n",
        encoding="utf-8",
    )
    model.mkdir()
    (model / "train_results.json").write_text("{}", encoding="utf-8")
    settings = {
        "learning_rate": 1e-5,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 12,
    }
    record = {"yaml": settings | {"output_dir": str(model), "rows_per_step": 96}}
    (model / "variational_reasoning.json").write_text(json.dumps(record), encoding="utf-8")

    return lambda *overrides: is_trained(recipe, overrides)


def test_a_finished_training_is_known_again(trained, tmp_path):
    assert trained() and not trained(f"output_dir={tmp_path}/other")
    with pytest.raises(
        ValueError, match=r"holds another training.*\n  learning_rate: was 1e-05, is "
    ):
        trained("learning_rate=2e-5")


def test_the_split_of_a_step_is_no_other_training(trained):
    split = (
        "per_device_train_batch_size=2",
        "gradient_accumulation_steps=24",
    )  # on 2 GPUs in place of 8
    assert trained(*split)
    with pytest.raises(
        ValueError,
        match=r"gradient_accumulation_steps: was 12, is 24\n.*\n  rows_per_step: was 96, is 192",
    ):
        trained(*split, "rows_per_step=192")


@pytest.mark.parametrize(("text", "code"), [("output_dir: none\n", 1), ("- no mapping\n", 2)])
def test_the_command_says_it_by_its_exit_code(tmp_path, text, code):
    recipe = tmp_path / "train.yaml"
    recipe.write_text(text, encoding="utf-8")
    command = [sys.executable, "scripts/trained.py", str(recipe)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code and "Traceback" not in done.stderr
