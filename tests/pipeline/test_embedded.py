"""What the embedded tasks share: the files of a base and of a seed, to the byte."""

import hashlib
import importlib.util
import json
import random
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from variational_reasoning.pipeline import embedded


def load_task(profile):
    path = ROOT / "examples/variational_reasoning" / profile / "make_task.py"
    spec = importlib.util.spec_from_file_location(f"make_task_of_{profile}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("profile", "documents", "recipe", "train", "test"),
    [
        ("tiny", "a66e457a5dd370b8", "4ecd084f50930511", "d3cd5ff1e0a85f85", "186309b49e718626"),
        (
            "tiny_questions",
            "afd4438187d403a0",
            "899a7e1f87f74140",
            "a9e67f44ea9a29a1",
            "3a21be4fa64c7bbe",
        ),
    ],
)
def test_a_seed_gives_the_bytes_that_it_always_gave(profile, documents, recipe, train, test):
    # A run that was begun before goes on, and its figures can be compared with later ones. The
    # digests are of files that the scripts wrote before they shared this module.
    make_task = load_task(profile)
    rng = random.Random(f"{make_task.TASK.stream} {embedded.BASE_SEED}")
    texts = [make_task.TASK.document(rng) + "\n" for _ in range(200)]
    assert digest("".join(texts)) == documents
    assert digest(json.dumps(make_task.TASK.recipe, indent=2) + "\n") == recipe
    rows = make_task.task_rows(3)
    found = {
        split: digest("".join(json.dumps(row) + "\n" for row in those))
        for split, those in rows.items()
    }
    assert found == {"train": train, "test": test}


@pytest.mark.slow
def test_a_base_is_written_once_and_one_of_another_recipe_is_refused(tmp_path, capsys):
    task = replace(load_task("tiny").TASK, num_tokens=100, recipe={"tokens": 100})
    embedded.write_base(task, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"init", "pretrain.jsonl", "dataset_info.json", "recipe.json"}
    assert "1000 pretraining documents" in capsys.readouterr().out
    embedded.write_base(task, tmp_path)
    assert capsys.readouterr().out == f"base: {tmp_path} is there\n"
    with pytest.raises(ValueError, match="belongs to another base"):
        embedded.write_base(replace(task, recipe={"tokens": 200}), tmp_path)


def test_words_are_refused_together():
    defaults = {"run": "runs/a", "seed": "0"}
    assert embedded.read_task_words(defaults, ["seed=3"]) == {"run": "runs/a", "seed": "3"}
    with pytest.raises(SystemExit) as refused:
        embedded.read_task_words(defaults, ["sead=1", "seed=-1"])
    text = str(refused.value)
    assert "unknown key 'sead'; allowed: run, seed" in text
    assert "seed must be a whole number of zero or more, not '-1'" in text
