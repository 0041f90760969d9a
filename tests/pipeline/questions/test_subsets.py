"""The published list of ids, and what is refused of such lists."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.pipeline.questions.subsets import IdChooser, choose_ids, read_ids
from variational_reasoning.pipeline.rows import read_rows

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "examples/variational_reasoning/question_ids_1k.txt"


def choose(*arguments):
    command = [sys.executable, "scripts/choose_questions.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_published_list_is_what_its_command_writes(tmp_path):
    done = choose("rows=16710", "count=1000", "seed=0", f"to={tmp_path / 'ids.txt'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ids.txt").read_bytes() == PUBLISHED.read_bytes()
    ids = read_ids(PUBLISHED)
    assert len(set(ids)) == 1000 and all(0 <= int(name) < 16710 for name in ids)
    again = choose("rows=16710", "count=1000", "seed=0", f"to={tmp_path / 'ids.txt'}")
    assert again.returncode == 2 and "Traceback" not in again.stderr and "ids.txt" in again.stderr


def test_the_rule_is_the_smallest_hashes():
    ids = [f"q{i}" for i in range(50)]
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"7 {name}".encode()).hexdigest())
    assert choose_ids(ids, 10, seed=7) == [name for name in ids if name in ranked[:10]]
    assert set(choose_ids(ids[::-1], 10, seed=7)) == set(ranked[:10])
    assert choose_ids(ids, 10, seed=8) != choose_ids(ids, 10, seed=7)


@pytest.mark.parametrize("trial", range(20))
def test_ids_that_come_one_after_another_are_chosen_by_the_same_rule(trial):
    rng = random.Random(trial)
    came = [f"q{rng.randrange(40)}" for _ in range(rng.randrange(1, 120))]
    different = list(dict.fromkeys(came))
    chooser = IdChooser(at_most=12, seed=trial, count_up_to=30)
    for name in came:
        chooser.add(name)
    count = rng.randint(1, min(12, len(different)))
    chosen = chooser.chosen(count)
    assert set(chosen) == set(choose_ids(different, count, trial))
    assert all(came.count(name) == times for name, times in chosen.items())
    assert chooser.num_different == min(30, len(different))


def test_ids_of_a_run_are_chosen_among_its_train_questions(tmp_path, make_run):
    config = make_run(num_questions=5, num_test=3)
    run = config.parent / "run"
    done = choose(run, "count=4", "seed=1", f"to={tmp_path / 'ids.txt'}")
    assert done.returncode == 0, done.stderr
    train = {
        row["question_id"]
        for row in read_rows(run / "questions", "questions")
        if row["split"] == "train"
    }
    assert len(set(read_ids(tmp_path / "ids.txt")) & train) == 4


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [(["a", "a"], 1, "1 of the 2 ids"), (["a"], 2, "there are 1 ids"), (["a"], 0, "count is 0")],
)
def test_choices_that_cannot_be_made(ids, count, message):
    with pytest.raises(ValueError, match=message):
        choose_ids(ids, count, seed=0)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("rows=10",),
        ("rows=x", "count=1", "seed=0", "to=y"),
        ("rows=9", "count=1", "seed=0", "too=y"),
        ("nowhere", "count=1"),
    ],
)
def test_commands_that_do_not_fit(arguments):
    done = choose(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no id"),
        ("# only\n\n", "has no id"),
        ("a\nb\na\n", "1 ids are there more than once, such as 'a'"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ids(tmp_path / "ids.txt")
    with pytest.raises(FileNotFoundError, match=r"data\.question_ids"):
        read_ids(tmp_path / "none.txt")
