"""Going on from a checkpoint: the same training does, exactly; another one is refused, naming the
differences.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.host.conftest import ROWS
from variational_reasoning.host.formats import FORMATS


@pytest.fixture
def parse(monkeypatch):
    """`get_train_args` as the host's training calls it, which settles the checkpoint."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from llamafactory.train import tuner

    return lambda config: tuner.get_train_args(config)[2].resume_from_checkpoint


def config_of(world, **overrides):
    """Four steps of two rows, a checkpoint after each of the first three."""
    values = {
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "linear",
        "overwrite_output_dir": False,
        "disable_shuffling": False,
    }
    return world.config(**(values | overrides))


def killed_after(world, step: int, run_exp, **overrides) -> Path:
    """Train, and leave what a kill after `step` leaves: the checkpoints up to it, and nothing else."""
    run_exp(config_of(world, **overrides))
    out = world.root / "out"
    for path in out.iterdir():
        is_later = path.name.startswith("checkpoint-") and int(path.name[11:]) > step
        if path.is_dir() and is_later:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    return out / f"checkpoint-{step}"


def refused(parse, config) -> str:
    with pytest.raises(ValueError, match="variational_reasoning") as caught:
        parse(config)
    return str(caught.value)


@pytest.mark.parametrize("keys", [{}, {"finetuning_type": "lora", "lora_rank": 2}])
def test_the_same_training_goes_on_exactly(world, run_exp, keys, parse):
    checkpoint = killed_after(world, 2, run_exp, **keys)
    name = "adapter_model.safetensors" if keys else "model.safetensors"
    undisturbed = config_of(world, output_dir=str(world.root / "undisturbed"), **keys)
    run_exp(undisturbed)
    assert parse(config_of(world, **keys)) == str(checkpoint)
    run_exp(config_of(world, **keys))
    from safetensors.torch import load_file

    resumed = load_file(world.root / "out" / name)
    expected = load_file(world.root / "undisturbed" / name)
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_another_training_is_refused_with_all_differences(world, run_exp, parse):
    checkpoint = killed_after(world, 2, run_exp)
    before = sorted(path for path in (world.root / "out").rglob("*"))
    for change, expected in (
        ({"learning_rate": 0.2}, "learning_rate: was 0.1, is 0.2"),
        ({"weight_decay": 0.1}, "weight_decay: was 0.0, is 0.1"),
        ({"max_steps": 8}, "max_steps: was 4, is 8"),
        ({"seed": 1}, "seed: was 42, is 1"),
        ({"cutoff_len": 900}, "cutoff_len: was 1024, is 900"),
        ({"constant_loss_normalizer": "auto"}, "constant_loss_normalizer: was 50.0, is 'auto'"),
        ({"prompt_kind": "posterior_a"}, "prompt_kind: was 'reasoner', is 'posterior_a'"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size: was 2, is 4"),
    ):
        message = refused(parse, config_of(world, **change))
        assert f"{checkpoint} is a checkpoint of another training" in message
        assert f"1. {expected}\n" in message and "2. " not in message
    assert sorted(path for path in (world.root / "out").rglob("*")) == before


def test_changed_files_and_models_are_refused(world, run_exp, parse, tmp_path):
    model = tmp_path / "base"
    shutil.copytree(world.model, model)
    chat_format = tmp_path / "format.json"
    chat_format.write_text(json.dumps(dict.fromkeys(("name",), "x")), encoding="utf-8")
    keys = {"model_name_or_path": str(model)}
    killed_after(world, 1, run_exp, **keys)
    assert parse(config_of(world, **keys))

    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    message = refused(parse, config_of(world, **keys))
    assert f"1. base model: the contents of {model} have changed" in message
    shutil.copy(Path(world.model) / "config.json", model / "config.json")

    world.add_rows("rows", [*ROWS[:-1], ROWS[0]])
    message = refused(parse, config_of(world, **keys))
    assert f"1. data set rows: the contents of {world.data}/rows.jsonl have changed" in message
    world.add_rows("rows", ROWS)
    assert parse(config_of(world, **keys))

    world.info["rows"]["columns"] = dict.fromkeys(FORMATS["reasoning"], "question")
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    assert "data set rows: its entry in dataset_info.json was" in refused(
        parse, config_of(world, **keys)
    )


def test_keys_that_change_nothing_may_differ(world, run_exp, parse):
    checkpoint = killed_after(world, 2, run_exp)
    changed = config_of(
        world,
        logging_steps=3,
        save_steps=2,
        save_total_limit=1,
        report_to="tensorboard",
        run_name="x",
        preprocessing_num_workers=2,
        dataloader_num_workers=1,
        disable_gradient_checkpointing=True,
        flash_attn="sdpa",
        weight_decay=0.0,
        learning_rate="1.0e-1",
        hf_hub_token="hf_abc",
    )
    assert parse(changed) == str(checkpoint)


def test_the_split_of_a_step_may_differ_under_rows_per_step(world, run_exp, parse):
    keys = {"rows_per_step": 4, "gradient_accumulation_steps": 2}
    checkpoint = killed_after(world, 1, run_exp, **keys)
    split = keys | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    assert parse(config_of(world, **split)) == str(checkpoint)
    record = json.loads((checkpoint / "variational_reasoning.json").read_text())
    (checkpoint / "variational_reasoning.json").write_text(json.dumps(record | {"processes": 2}))
    assert "1. processes: was 2, is 1" in refused(parse, config_of(world, **keys))


def test_a_checkpoint_given_by_hand_is_compared_too(world, run_exp, parse):
    checkpoint = killed_after(world, 2, run_exp)
    given = {"output_dir": str(world.root / "other"), "resume_from_checkpoint": str(checkpoint)}
    assert parse(config_of(world, **given)) == str(checkpoint)
    message = refused(parse, config_of(world, learning_rate=0.2, **given))
    assert "learning_rate: was 0.1, is 0.2" in message
    assert f"set `model_name_or_path` (for LoRA `adapter_name_or_path`) to {checkpoint}" in message
    newest = config_of(world, resume_from_checkpoint=True, learning_rate=0.2)
    assert "learning_rate: was 0.1, is 0.2" in refused(parse, newest)


def test_a_checkpoint_that_is_not_whole(world, run_exp, parse):
    checkpoint = killed_after(world, 3, run_exp)
    (checkpoint / "trainer_state.json").unlink()
    before = checkpoint.with_name("checkpoint-2")
    assert parse(config_of(world)) == str(before)  # the saving of checkpoint-3 was interrupted
    (before / "optimizer.pt").unlink()
    assert "holds no state of the optimizer" in refused(parse, config_of(world))
    (before / "variational_reasoning.json").unlink()
    assert "so nothing shows which training it belongs to" in refused(parse, config_of(world))
    assert not parse(config_of(world, overwrite_output_dir=True))
