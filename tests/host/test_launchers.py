"""Every launcher takes the same step: one SGD step through the real command, read back from the
saved weights.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import torch

from .conftest import ROWS
from .reference import relative_error, step_gradient

EXAMPLES = Path(__file__).parents[2] / "examples" / "variational_reasoning"
LEARNING_RATE = 100.0
TORCHRUN = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}


def taken_step(world, folder: str = "out") -> dict[str, torch.Tensor]:
    """The gradient that the run has used: (before - after) / learning rate."""
    before, after = world.weights(world.model), world.weights(world.root / folder)
    return {name: (before[name].double() - after[name].double()) / LEARNING_RATE for name in before}


def deepspeed_config(world, stage: int) -> str:
    """The configuration that the recipes name; SGD, by which the step is read back, needs a
    permission of its own.
    """
    path = world.root / f"zero{stage}.json"
    config = json.loads((EXAMPLES / "deepspeed" / path.name).read_text(encoding="utf-8"))
    assert config["zero_optimization"]["stage"] == stage
    path.write_text(json.dumps(config | {"zero_allow_untested_optimizer": True}), encoding="utf-8")
    return str(path)


def check_step(world, config, **run):
    result = world.cli(config, **run)
    if "terminate called without an active exception" in result.stderr:
        # Seen rarely on a busy machine, after the model was saved: a thread of gloo outlives the
        # interpreter's shutdown.
        result = world.cli(config, **run)
    assert result.returncode == 0, result.stderr[-4000:]
    assert relative_error(taken_step(world), step_gradient(world.model, ROWS, 50.0)) < 1e-5
    return result


def splits(batch: int, accumulation: int) -> dict[str, int]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def test_one_process(world):
    result = check_step(world, world.config(**splits(2, 4)))
    log = result.stdout + result.stderr
    assert "C = constant_loss_normalizer = 50 target tokens per row (as given)" in log
    assert (
        "8 rows" in log and "weights: count 8, mean 0.515625, min 0, max 1; dropped 0 rows" in log
    )
    assert "computed in chunks from hidden states" in log


def test_two_processes(world):
    # tests/host/test_steps.py has other splits of the step, in one start of torchrun.
    check_step(world, world.config(**splits(1, 4)), **TORCHRUN)


def test_zero_3(world):
    check_step(
        world, world.config(**splits(2, 2), deepspeed=deepspeed_config(world, 3)), **TORCHRUN
    )


def test_accelerate_launch(world):
    launcher = Path(importlib.util.find_spec("llamafactory").origin).parent / "launcher.py"
    options = (
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--main_process_port",
        "0",  # any free one, since another test's training may have the default
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    )
    words = ("accelerate", "launch", "--multi_gpu", *options, str(launcher))
    check_step(world, world.config(**splits(2, 2)), launcher=words)


def test_zero_2_on_two_nodes_under_the_slurm_script(world):
    """Slurm's two commands are stand-ins that start both "nodes" here; everything after them is
    real.
    """
    commands = {
        "scontrol": '[[ "$*" == "show hostnames here,there" ]] && echo 127.0.0.1 && echo there',
        "srun": 'shift # --kill-on-bad-exit=1\nSLURM_NODEID=1 "$@" & other=$!\nSLURM_NODEID=0 "$@" '
        '&& wait "$other"',
    }
    folder = world.root / "slurm"
    folder.mkdir()
    for name, body in commands.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "here,there",
        "SLURM_GPUS_ON_NODE": "1",
    }
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    config = world.config(**splits(2, 2), rows_per_step=8, deepspeed=deepspeed_config(world, 2))
    job = {"SLURM_JOB_ID": str(os.getpid()), "PATH": path}
    result = check_step(
        world, config, launcher=("bash", str(EXAMPLES / "slurm_train.sh")), **slurm, **job
    )
    log = result.stdout + result.stderr
    assert "num nodes: 2, node rank: 0" in log and "num nodes: 2, node rank: 1" in log


def test_a_stock_yaml_trains_to_the_bit_as_without_the_plugin(world):
    rows = [
        {"instruction": question, "output": f"{trace} {solution}"}
        for question, trace, solution, _ in ROWS
    ]
    world.add("stock", rows, columns={"prompt": "instruction", "response": "output"})
    config = world.config(
        dataset="stock",
        template="qwen",
        **splits(2, 2),
        max_steps=4,
        learning_rate=0.1,
        constant_loss_normalizer=None,
        prompt_kind=None,
        chat_format=None,
    )
    states = []
    for environment in ({}, {"VARIATIONAL_REASONING_DISABLE": "1"}):
        result = world.cli(config, **environment)
        assert result.returncode == 0, result.stderr[-4000:]
        state = json.loads((world.root / "out/trainer_state.json").read_text(encoding="utf-8"))
        losses = [(entry.get("loss"), entry.get("grad_norm")) for entry in state["log_history"]]
        states.append((losses, {name: tensor.clone() for name, tensor in world.weights().items()}))
        assert not (world.root / "out/variational_reasoning.json").exists()
    assert states[0][0] == states[1][0]
    assert all(torch.equal(states[0][1][name], states[1][1][name]) for name in states[0][1])


def test_switched_off_the_host_refuses_our_keys(world):
    result = world.cli(world.config(), VARIATIONAL_REASONING_DISABLE="1")
    assert result.returncode != 0
    assert "constant_loss_normalizer" in result.stderr
