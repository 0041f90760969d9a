"""Activation: what an interpreter pays, what happens with a host that does not fit, other
launchers, install and uninstall.
"""

import os
import subprocess
import sys
import types
import venv
from pathlib import Path

import pytest

from variational_reasoning.model_record import read_record

ROOT = Path(__file__).parents[2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_interpreter_loads_only_the_hook():
    code = "import sys; print(*sorted(m for m in sys.modules if m.partition('.')[0] in {pkgs}))"
    pkgs = {
        "variational_reasoning",
        "llamafactory",
        "torch",
        "transformers",
        "yaml",
        "json",
        "dataclasses",
        "typing",
    }
    result = run_python(code.format(pkgs=pkgs))
    ours = "variational_reasoning variational_reasoning.autoload"
    assert result.stdout.split() == ours.split(), result.stderr


def test_the_hook_is_placed_once_and_can_be_switched_off():
    code = "import sys; print([getattr(f, '__name__', '') for f in sys.meta_path].count('_PostImportFinder'))"
    assert (
        run_python(
            "import variational_reasoning.autoload as a; a.install(); " + code
        ).stdout.strip()
        == "1"
    )
    assert run_python(code, VARIATIONAL_REASONING_DISABLE="1").stdout.strip() == "0"


def test_all_seams_fit_and_are_replaced_once_the_host_is_imported():
    code = (
        "from variational_reasoning.host import seams\n"
        "import llamafactory.train.tuner\n"
        "for seam in seams.REPLACED: print(seam.find()[2].__code__.co_name)\n"
        "print(seams.faults((*seams.REPLACED, *seams.USED)))"
    )
    *names, faults = run_python(code).stdout.splitlines()[-12:]
    assert names == [
        "parse_train_args",
        "refuse_our_features",
        "refuse_our_features",
        "check_parsed_arguments",
        "enter_run_sft",
        "export_with_record",
        "join_columns",
        "align_rows",
        "row_processor",
        "preprocess_and_count",
        "choose_trainer",
    ]
    assert faults == "[]"


MISFIT = """
import sys
import llamafactory.data.loader as loader
original = loader.align_dataset
loader.align_dataset = lambda *args, **kwargs: original(*args, **kwargs)  # a host with another signature
from llamafactory.train.tuner import run_exp
run_exp({config!r})
"""


def test_a_host_that_does_not_fit_refuses_our_yamls_and_trains_all_others(world):
    result = run_python(MISFIT.format(config=world.config()))
    assert result.returncode != 0
    assert (
        "HostMismatchError: variational_reasoning: LLaMA-Factory 0.9.5 does not fit this plugin"
        in result.stderr
    )
    assert (
        "llamafactory.data.loader.align_dataset has no parameter dataset, dataset_attr, data_args"
        in result.stderr
    )
    assert not (world.root / "out").exists()
    world.add(
        "stock",
        [{"instruction": "a", "output": "b"}] * 8,
        columns={"prompt": "instruction", "response": "output"},
    )
    stock = world.config(
        dataset="stock",
        template="qwen",
        constant_loss_normalizer=None,
        prompt_kind=None,
        chat_format=None,
    )
    result = run_python(MISFIT.format(config=stock))
    assert result.returncode == 0, result.stderr[-2000:]
    assert (world.root / "out/train_results.json").exists()


@pytest.mark.parametrize("variable", ["USE_V1", "USE_RAY"])
def test_other_launchers_are_refused_by_name(world, variable):
    result = world.cli(world.config(), **{variable: "1"})
    assert result.returncode != 0
    assert (
        f"{variable}=1" in result.stderr
        and "is not supported with our keys and formats" in result.stderr
    )
    assert not (world.root / "out").exists()


def test_megatron_is_refused_by_name(world):
    from llamafactory.hparams import parser
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    with pytest.raises(
        ValueError, match=r"USE_MCA=1 \(Megatron\) is not supported with our keys and formats"
    ):
        parser._parse_train_mca_args(world.config())


def test_a_launcher_that_we_do_not_know_is_refused_when_it_parses_by_itself(
    world, run_exp, monkeypatch
):
    from llamafactory.hparams import parser

    def parse_by_itself(args):
        ours = ("constant_loss_normalizer", "prompt_kind", "chat_format")
        host_parser = parser.HfArgumentParser(parser._TRAIN_ARGS)
        return host_parser.parse_dict({key: args[key] for key in args if key not in ours})

    monkeypatch.setattr(parser, "_parse_train_mca_args", parse_by_itself)
    monkeypatch.setenv("USE_MCA", "1")
    monkeypatch.setenv("USE_SOMETHING_NEW", "1")
    with pytest.raises(ValueError, match=r"unset USE_MCA=1, USE_SOMETHING_NEW=1"):
        run_exp(world.config())
    assert not (world.root / "out").exists()


def test_a_launcher_that_refuses_our_keys_is_refused_by_name(world, run_exp, monkeypatch):
    from llamafactory.hparams import parser

    def is_not_installed(args):
        raise ImportError("megatron-bridge is required when USE_MEGATRON_BRIDGE=1.")

    monkeypatch.setattr(parser, "_parse_train_mca_args", is_not_installed)
    monkeypatch.setenv("USE_MCA", "1")
    with pytest.raises(ValueError, match="this launcher reads other arguments than LLaMA-Factory"):
        run_exp(world.config())


def test_a_workflow_that_we_do_not_know_is_refused_when_it_reads_the_data(
    world, run_exp, monkeypatch
):
    """The host's dispatch after the arguments: here its HyperParallel, as if we did not know it."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner

    def run_sft(model_args, data_args, training_args, finetuning_args, *args):
        module = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
        get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
        raise AssertionError("the data was read")

    def with_hyper_parallel(args):
        parsed = checked(args)
        parsed[3].use_hyper_parallel = True
        return parsed

    checked = tuner.get_train_args
    workflow = types.ModuleType("llamafactory.train.hyper_parallel")
    workflow.run_sft = run_sft
    monkeypatch.setitem(sys.modules, workflow.__name__, workflow)
    monkeypatch.setattr(tuner, "get_train_args", with_hyper_parallel)
    monkeypatch.setattr(tuner, "is_hyper_parallel_available", lambda: True)
    with pytest.raises(ValueError, match="this launcher reads data in another place than LLaMA-F"):
        run_exp(world.config())


def test_a_merged_adapter_keeps_its_record(world):
    result = world.cli(world.config(finetuning_type="lora", lora_rank=2))
    assert result.returncode == 0, result.stderr[-2000:]
    export = {
        "model_name_or_path": world.model,
        "adapter_name_or_path": str(world.root / "out"),
        "template": "empty",
        "finetuning_type": "lora",
        "export_dir": str(world.root / "merged"),
    }
    result = world.cli(export, launcher=("llamafactory-cli", "export"))
    assert result.returncode == 0, result.stderr[-2000:]
    record = read_record(world.root / "merged")
    assert record["prompt_kind"] == "reasoner" and record["exported_from"] == str(
        world.root / "out"
    )


def test_a_wheel_installs_the_hook_and_uninstalling_leaves_nothing(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = str(tmp_path / "env/bin/python")
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (site / "neighbour.py").touch()
    before = sorted(site.iterdir())
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", str(wheel)], check=True, timeout=300
    )
    assert (site / "variational_reasoning.pth").is_file()
    code = "import sys; print('variational_reasoning.autoload' in sys.modules)"
    assert (
        subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "True"
    )
    subprocess.run(
        [*pip, "--python", python, "uninstall", "--yes", "variational-reasoning"],
        check=True,
        timeout=300,
    )
    assert sorted(site.iterdir()) == before
    assert (
        subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
