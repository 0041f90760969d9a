"""What must be the same with the plugin: the host's loss, its trainings, a resumed training."""

import json
import os
import subprocess
import sys

import pytest
import torch

from .conftest import ROWS, make_model
from .test_gradient import GradientCapture
from .test_resume import config_of, killed_after

FAMILIES = [
    ("qwen3", {}),
    ("qwen2", {}),
    ("llama", {}),
    ("mistral", {"sliding_window": None}),
    ("phi3", {}),
    ("gemma", {}),
    ("gemma2", {"query_pre_attn_scalar": 8, "sliding_window": 1024}),
    ("olmo2", {}),
    ("granite", {"logits_scaling": 4.0}),
    ("cohere", {"logit_scale": 0.25}),
    ("stablelm", {}),
    ("starcoder2", {}),
]
ROW = ("Say x.", "x", "x", 1.0)


def one_row(world, **overrides):
    """One step on one row of weight 1."""
    world.add_rows("one", [ROW])
    return world.config(dataset="one", per_device_train_batch_size=1, **overrides)


def targets_of(world) -> int:
    from transformers import AutoTokenizer

    from .reference import row_ids

    return len(row_ids(AutoTokenizer.from_pretrained(world.model), *ROW[:3])[1])


def check_same_loss(world, run_exp, **overrides) -> None:
    """Weight 1 and C equal to the row's length: sum CE / C is the mean that the host computes."""
    captures = []
    for constant in (None, float(targets_of(world))):
        captures.append(GradientCapture(torch.float32))
        keys = {"constant_loss_normalizer": constant}
        run_exp(one_row(world, **overrides) | keys, callbacks=[captures[-1]])
    host, ours = captures
    assert ours.history[0]["loss"] == pytest.approx(host.history[0]["loss"], rel=1e-4)
    assert host.gradients and set(ours.gradients) == set(host.gradients)
    size = torch.stack([gradient.norm() for gradient in host.gradients.values()]).norm()
    for name, gradient in host.gradients.items():
        assert (ours.gradients[name] - gradient).norm() <= 1e-5 * size, name


@pytest.mark.parametrize(("family", "values"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_the_hosts_loss_over_architectures(world, run_exp, tmp_path, family, values):
    from transformers import AutoTokenizer

    folder = tmp_path / family
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(folder)
    make_model(folder, len(tokenizer), family, **values)
    check_same_loss(world, run_exp, model_name_or_path=str(folder))


LORA = {"finetuning_type": "lora", "lora_rank": 2}
TRAININGS = {
    "lora": LORA,
    "rslora": LORA | {"use_rslora": True},
    "dora": LORA | {"use_dora": True},
    "lora+": LORA | {"loraplus_lr_ratio": 16.0},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "adamw": {"optim": "adamw_torch", "learning_rate": 0.01},
    "adafactor": {"optim": "adafactor", "learning_rate": 0.01},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_hosts_loss_over_adapters_and_optimizers(world, run_exp, name):
    check_same_loss(world, run_exp, **TRAININGS[name])


STOCK_ROWS = {
    "sft": [{"instruction": row[0], "output": row[1]} for row in ROWS],
    "pt": [{"instruction": row[1]} for row in ROWS],
    "dpo": [{"instruction": row[0], "chosen": row[1], "rejected": row[2]} for row in ROWS],
    "kto": [
        {"instruction": row[0], "output": row[1], "tag": bool(i % 2)} for i, row in enumerate(ROWS)
    ],
}
STOCK_ROWS["rm"] = STOCK_ROWS["dpo"]
PAIR = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
ENTRIES = {
    "sft": {"columns": {"prompt": "instruction", "response": "output"}},
    "pt": {"columns": {"prompt": "instruction"}},
    "dpo": {"ranking": True, "columns": PAIR},
    "rm": {"ranking": True, "columns": PAIR},
    "kto": {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "tag"}},
}
TRAIN = """
import json, sys
from llamafactory.train.tuner import run_exp
for config in json.load(open(sys.argv[1])): run_exp(config)
"""


@pytest.mark.slow
def test_stock_trainings_are_the_same_to_the_bit(world, tmp_path):
    from transformers import AutoTokenizer

    # The host cannot save a reward model whose embeddings are tied.
    untied = tmp_path / "untied"
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(untied)
    make_model(untied, len(tokenizer), tie_word_embeddings=False)
    # One process per arm runs all five stages, since starting a process is most of the time.
    finals = []
    for arm, environment in (("with", {}), ("without", {"VARIATIONAL_REASONING_DISABLE": "1"})):
        configs = []
        for stage, rows in STOCK_ROWS.items():
            world.add(f"stock_{stage}", rows, **ENTRIES[stage])
            values = world.config(
                model_name_or_path=str(untied),
                stage=stage,
                dataset=f"stock_{stage}",
                template="qwen",
                cutoff_len=64,
                per_device_train_batch_size=2,
                max_steps=3,
                learning_rate=0.01,
                output_dir=str(world.root / arm / stage),
                constant_loss_normalizer=None,
                prompt_kind=None,
                chat_format=None,
            )
            configs.append(values)
        path = world.root / f"{arm}.json"
        path.write_text(json.dumps(configs), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", TRAIN, str(path)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=world.root,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-4000:]
        finals.append({stage: final_of(world, arm, stage) for stage in STOCK_ROWS})
    assert finals[0] == finals[1]


def final_of(world, arm: str, stage: str) -> tuple:
    """The log and the bytes of the weights of a finished training."""
    folder = world.root / arm / stage
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [(entry.get("loss"), entry.get("grad_norm")) for entry in state["log_history"]]
    assert losses and not (folder / "variational_reasoning.json").exists()
    return losses, {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


RESUMED = {
    "packed": {"packing": True, "cutoff_len": 1000, "per_device_train_batch_size": 1},
    "dora and lora+": LORA | {"use_dora": True, "loraplus_lr_ratio": 16.0},
    "neftune": {"neftune_noise_alpha": 5.0},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "bf16": {"bf16": True, "use_cpu": True},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_training_that_is_resumed_in_the_middle_is_exact(world, run_exp, name):
    from safetensors.torch import load_file

    keys = RESUMED[name]
    killed_after(world, 2, run_exp, **keys)
    run_exp(config_of(world, output_dir=str(world.root / "undisturbed"), **keys))
    run_exp(config_of(world, **keys))
    (resumed,) = (world.root / "out").glob("*model.safetensors")
    expected = load_file(world.root / "undisturbed" / resumed.name)
    found = load_file(resumed)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
