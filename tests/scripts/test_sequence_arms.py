"""A loop of a profile with arms that is killed between two commands (inside one:
tests/examples/test_tiny_abstract.py)."""

import importlib
from pathlib import Path

import pytest

from tests.conftest import ROOT


class Killed(BaseException):
    """The end of the process, wherever it is."""


@pytest.fixture
def run_until(monkeypatch, tmp_path):
    """A function that runs tiny_abstract's published loop up to a number of commands.

    A command writes the files that say it is done, as the real one does last, and one whose files
    are there has nothing to do.
    """
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.chdir(ROOT)
    sequence = importlib.import_module("sequence")
    arms = importlib.import_module("sequence_arms")
    done = importlib.import_module("sequence_done")

    def is_trained(recipe: Path, settings: list[str]) -> bool:
        return done.is_done(["llamafactory-cli", "train", str(recipe), *settings])

    monkeypatch.setattr(sequence, "is_trained", is_trained)

    def run(folder: Path, limit: int | None = None) -> list[str]:
        ran: list[str] = []

        def execute(plan, command, log=None, is_shown=True) -> None:
            files = done.last_files(command)
            if not files or done.is_done(command):
                return
            if len(ran) == limit:
                raise Killed
            ran.append(sequence.shown(command))
            for path in files:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("", encoding="utf-8")

        monkeypatch.setattr(sequence, "execute", execute)
        monkeypatch.setattr(arms, "execute", execute)
        words = [f"run={folder}", "finals=published,published_a", "rounds=2"]
        plan = sequence.read_plan(["tiny_abstract", *words, "sequence.at_once=1"])
        try:
            arms.run_arms(plan)
        except Killed:
            assert limit is not None
        return ran

    return run


def test_a_loop_that_was_killed_does_the_rest_and_nothing_twice(run_until, tmp_path):
    whole = run_until(tmp_path / "whole")
    trained = [command for command in whole if "9_train_" in command]
    assert len(trained) == 4
    # In round 1 between sampling and phase B's train file, in round 2 before phase A's training.
    for limit in (whole.index(trained[1]) - 1, whole.index(trained[2])):
        folder = tmp_path / str(limit)
        before = run_until(folder, limit)
        after = run_until(folder)
        both = "\n".join([*before, *after])
        assert len(before) == limit
        assert both.replace(str(folder), str(tmp_path / "whole")) == "\n".join(whole)
        assert run_until(folder) == []
