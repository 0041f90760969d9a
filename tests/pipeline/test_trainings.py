"""Whether a training is done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.pipeline.trainings import is_trained

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(tmp_path):
    """A training YAML and what the trainer wrote next to its model: 96 rows per step."""
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
