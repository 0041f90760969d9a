"""The paper's published data sets train as they are, under the names that data/dataset_info.json
gives them.
"""

import json
from pathlib import Path

import pytest

from variational_reasoning.method.prompts import make_renderer

from ..hub import ACCOUNT, client_environment, published_rows, serve, write_repository

DATA = Path(__file__).parents[2] / "data"
INFO = json.loads((DATA / "dataset_info.json").read_text(encoding="utf-8"))
NAMES = [name for name, entry in INFO.items() if "hf_hub_url" in entry]
CHATML = make_renderer("chatml")


def fixture_of(name: str) -> str:
    """One fixture stands for the mixes of every size: their schema is the same."""
    return f"Variational-Posterior-4B-{name.split('-')[-2]}-mix" if name.endswith("-mix") else name


def kind_of(name: str) -> str:
    return {"PA": "posterior_a", "PB": "posterior_b"}.get(name.split("-")[-1], "reasoner")


@pytest.fixture
def hub_folder(tmp_path):
    root = tmp_path / "hub"
    for name in NAMES:
        write_repository(root, name, published_rows(fixture_of(name)))
    return root


def test_every_published_data_set_has_an_entry():
    sizes = ("4B", "8B", "PA-7B", "PB-7B", "32B")
    mixes = {
        f"Variational-Posterior-{size}-{estimator}-mix"
        for size in sizes
        for estimator in ("Acc", "GML")
    }
    assert set(NAMES) == mixes | {
        f"Bespoke-Stratos-17k-{end}"
        for end in ("Reformatted", "Train-Posterior-PA", "Train-Posterior-PB")
    }
    assert {INFO[name]["hf_hub_url"] for name in NAMES} == {f"{ACCOUNT}/{name}" for name in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if fixture_of(name) == name])
def test_rows_become_the_texts_that_were_published(world, hub_folder, monkeypatch, name):
    # `datasets` takes a folder of the working directory for the hub's data set of the same name.
    monkeypatch.chdir(hub_folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    config = world.config(
        dataset=name, dataset_dir=str(DATA), prompt_kind=kind_of(name), cutoff_len=4096
    )
    model_args, data_args, training_args, _, _ = get_train_args(config)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    dataset = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)[
        "train_dataset"
    ]
    expected = []
    for row in published_rows(fixture_of(name)):
        if "prompt" in row:
            expected.append(row["prompt"] + row["response"])
        else:
            texts = (row[f"{part}_content"] for part in ("question", "think", "solution"))
            expected.append("".join(CHATML.render("reasoner", *texts)))
    decoded = [module["tokenizer"].decode(example["input_ids"]) for example in dataset]
    assert decoded == [text + CHATML.chat_format.end_of_turn for text in expected]
    assert {weight for example in dataset for weight in example["row_weights"]} == {1.0}


def test_training_by_the_hub_name(world, hub_folder):
    name = "Variational-Posterior-4B-Acc-mix"
    config = world.config(
        dataset=name,
        dataset_dir=str(DATA),
        cutoff_len=4096,
        per_device_train_batch_size=5,
        max_steps=2,
    )
    config |= {"constant_loss_normalizer": "auto", "learning_rate": 0.01}
    with serve(hub_folder) as endpoint:
        done = world.cli(config, **client_environment(endpoint, world.root / "hf"))
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((world.root / "out/variational_reasoning.json").read_text(encoding="utf-8"))
    assert record["prompt_kind"] == "reasoner"
    assert record["rows"]["count"] == 10
    assert record["sources"] == {name: {"name": f"{ACCOUNT}/{name}"}}
