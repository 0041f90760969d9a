"""The user's own test questions (`test=FILE`): do they have the data's columns, and are they others
than the training questions?
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from variational_reasoning.pipeline.profiles.choices import Choices

Row = Mapping[str, Any]


def check_test_file(choices: Choices, first: Sequence[Row], test: Iterable[Row]) -> set[str]:
    """The test's questions. A column that the data has and the test has not becomes a fault.

    Args:
        first: the first rows of the test. test: all of them.
    """
    present: set[str] = set()
    for row in first:
        present.update(row)
    missing = []
    for ours in ("question", "gold"):
        name = choices.columns.get(ours)
        if name is not None and name not in present:
            missing.append(repr(name))
    if missing:
        choices.faults.append(
            f"test={choices.options.test}: it has no column {', '.join(missing)} as the data has; "
            f"it has {', '.join(sorted(present))}. Rename its columns as in the data"
        )
        return set()
    questions: set[str] = set()
    for row in test:
        questions.add(_question(choices, row))
    return questions


def note_shared_questions(choices: Choices, questions: set[str], train: Iterable[Row]) -> None:
    """Stage 0 leaves out a test question that is a training question, too: say how many.

    Args:
        questions: the test's questions. train: all training rows.
    """
    shared: set[str] = set()
    for row in train:
        question = _question(choices, row)
        if question in questions:
            shared.add(question)
    if not shared:
        return
    source = choices.options.test
    found = f"test={source}: {len(shared)} of its {len(questions)} questions are training questions"
    if len(shared) < len(questions):
        choices.notes.append(f"{found}, too; they are left out of the test")
        return
    choices.faults.append(
        f"{found}, too, so nothing is left to evaluate on; name a file of others, or leave test "
        "out: then some of the data's questions are kept for it"
    )


def _question(choices: Choices, row: Row) -> str:
    return str(row.get(choices.columns["question"]))
