"""Every launcher takes the same step: one SGD step through the real command, read back from the saved weights."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from .conftest import ROWS
from .reference import relative_error, step_gradient

LEARNING_RATE = 100.0
TORCHRUN = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}


def taken_step(world) -> dict[str, torch.Tensor]:
    """The gradient that the run has used: (before - after) / learning rate."""
    before, after = world.weights(world.model), world.weights()
    return {name: (before[name].double() - after[name].double()) / LEARNING_RATE for name in before}


def deepspeed_config(world, stage: int) -> str:
    path = world.root / f"zero{stage}.json"
    config = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def check_step(world, config, **run):
    result = world.cli(config, **run)
    if "terminate called without an active exception" in result.stderr:
        # Seen rarely on a busy machine, after the model was saved: a thread of gloo outlives the interpreter's shutdown.
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
    assert "8 rows" in log and "weights: count 8, mean 0.515625, min 0, max 1; dropped 0 rows" in log
    assert "computed in chunks from hidden states" in log


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (1, 4)])
def test_two_processes(world, batch, accumulation):
    check_step(world, world.config(**splits(batch, accumulation)), **TORCHRUN)


def test_two_processes_packed(world):
    check_step(world, world.config(**splits(1, 2), cutoff_len=1000, neat_packing=True), **TORCHRUN)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(world, stage):
    check_step(world, world.config(**splits(2, 2), deepspeed=deepspeed_config(world, stage)), **TORCHRUN)


def test_accelerate_launch(world):
    launcher = Path(importlib.util.find_spec("llamafactory").origin).parent / "launcher.py"
    options = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    words = ("accelerate", "launch", "--multi_gpu", *options, str(launcher))
    check_step(world, world.config(**splits(2, 2)), launcher=words)


def test_a_stock_yaml_trains_to_the_bit_as_without_the_plugin(world):
    rows = [{"instruction": question, "output": f"{trace} {solution}"} for question, trace, solution, _ in ROWS]
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
