"""Hint leakage: how early and how literally the hint's final answer appears in a trace.

The posterior sees the solution, so it may copy the answer instead of deriving it.

The final answer is the last box of the reference solution, or the gold of the check
(`hints.final_answer`). Questions without either (programs, long texts) are left out and counted.
A trace has it

    literally     as it is written in the hint, with no letter or digit touching it
    normalized    only after blanks, dollar signs and LaTeX spacing are taken out of both texts,
                  with no digit touching it
    not           otherwise; an answer of letters and digits alone has no other way to be written

Example, with the answer `\\frac{1}{2}`:

    "so x = \\frac{1}{2}."      literally, at 7 of 19 characters: fraction 0.37
    "so x = \\frac{1} {2}."     normalized, at 4 of the 16 characters that are left: fraction 0.25
    "so x = 0.5."               not: values are not computed here

The answer is early where it first appears after a small fraction of the trace's characters. A short
answer is in most traces by chance. So traces that were written without a hint are measured in the
same way: the training traces, and the reasoner's own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from variational_reasoning.pipeline.questions.hints import final_answer
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import MANIFEST

EARLY = 0.1
"""The fraction of a trace up to which an appearance is called early."""

_SPACING = (
    "\\,",
    "\\;",
    "\\:",
    "\\!",
    "\\ ",
    "\\left",
    "\\right",
    "$",
)
"""What is taken out of a text in addition to its blanks."""


class Leakage(NamedTuple):
    """Where the final answer first appears in the traces of one kind.

    fractions: [number of traces with it], each in [0, 1): characters before it, as a share of the
        trace's.
    num_traces: all traces that were searched.
    num_literal, num_normalized: those that have it, by how it is written.
    """

    fractions: np.ndarray
    num_traces: int
    num_literal: int
    num_normalized: int

    def share_by(self, fraction: float) -> float:
        """The share of all traces in which the answer has appeared by this fraction of them."""
        num_early = int((self.fractions <= fraction).sum())
        return num_early / self.num_traces


class Appearance(NamedTuple):
    """The first place of an answer in a text, as a fraction of its length, and whether the answer
    is there literally.
    """

    fraction: float
    is_literal: bool


def first_appearance(trace: str, answer: str) -> Appearance | None:
    """Where `answer` first appears in `trace` as a word of its own, or None."""
    place = _find_word(trace, answer, str.isalnum)
    if place >= 0:
        return Appearance(place / len(trace), is_literal=True)
    if answer.isalnum():
        return None
    plain = _without_spacing(trace)
    place = _find_word(plain, _without_spacing(answer), str.isdigit)
    if place < 0:
        return None
    return Appearance(place / len(plain), is_literal=False)


def measure_leakage(
    traces: Iterable[tuple[str, str]],
    answers: Mapping[str, str],
) -> Leakage:
    """Search every trace for its question's answer.

    Args:
        traces: (question_id, text); those without an answer, and empty ones, are passed over.
        answers: final answer by question_id.
    """
    fractions = []
    num_traces = 0
    num_literal = 0
    for question_id, text in traces:
        if question_id not in answers or not text:
            continue
        num_traces += 1
        found = first_appearance(text, answers[question_id])
        if found is not None:
            fractions.append(found.fraction)
            num_literal += found.is_literal
    num_normalized = len(fractions) - num_literal
    return Leakage(np.array(fractions), num_traces, num_literal, num_normalized)


def read_leakage(folder: Path) -> tuple[dict[str, Leakage], int]:
    """Leakage of the posterior's, the training and, where there are any, the reasoner's traces of a
    run folder.

    Returns: by kind of trace, and the number of questions without a final answer; kinds without a
    trace are left out.
    Raises: ValueError for an unfinished or changed table.
    """
    if not (folder / "questions" / MANIFEST).is_file():
        return {}, 0
    answers = final_answers(folder)
    traces = {
        "posterior": well_formed_traces(folder / "traces"),
        "training traces": _training_traces(folder),
        "reasoner": well_formed_traces(folder / "from_reasoner/traces"),
    }
    found = {}
    for kind, texts in traces.items():
        leakage = measure_leakage(texts, answers)
        if leakage.num_traces:
            found[kind] = leakage
    questions = TableReader(folder / "questions", "questions").summary
    num_train = questions["split"].to_pylist().count("train")
    return found, num_train - len(answers)


def final_answers(folder: Path) -> dict[str, str]:
    """The final answer of each training question of a run that has one."""
    answers = {}
    for row in _training_rows(folder, ["solution", "check"]):
        check = json.loads(row["check"])
        answer = final_answer(row["solution"], check)
        if answer is not None:
            answers[row["question_id"]] = answer
    return answers


def well_formed_traces(folder: Path) -> Iterator[tuple[str, str]]:
    """(question_id, text) of the well-formed traces of a table; none without the table.

    One shard is in memory at a time.
    """
    if not (folder / MANIFEST).is_file():
        return
    columns = ["question_id", "text", "is_well_formed"]
    for shard in TableReader(folder, "traces").scan(columns):
        table = shard.filter(shard["is_well_formed"])
        ids = table["question_id"].to_pylist()
        texts = table["text"].to_pylist()
        yield from zip(ids, texts, strict=True)


def _training_traces(folder: Path) -> Iterator[tuple[str, str]]:
    for row in _training_rows(folder, ["trace"]):
        yield row["question_id"], row["trace"]


def _training_rows(folder: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Rows of the training questions, a shard in memory at a time."""
    reader = TableReader(folder / "questions", "questions")
    for shard in reader.scan(["question_id", "split", *columns]):
        for row in shard.to_pylist():
            if row["split"] == "train":
                yield row


def _without_spacing(text: str) -> str:
    for spacing in _SPACING:
        text = text.replace(spacing, "")
    return "".join(text.split())


def _find_word(text: str, word: str, joins: Callable[[str], bool]) -> int:
    """The first place of `word` in `text` as a word of its own, or -1.

    It is not a word of its own where it goes on to the left or to the right: where two characters
    touch for which `joins` is true. A point between digits belongs to the number.

        word 5, text "15 + 2.5 = 17.5"    -1: a digit touches every 5, or a point between digits
        word 5, text "so 5."               3: no digit comes after the point
    """
    if not word:
        return -1
    place = text.find(word)
    while place >= 0:
        end = place + len(word)
        before = text[max(place - 2, 0) : place]
        after = text[end : end + 2]
        # To the left the text is read backwards: of "2.5", `.2` is outside the 5.
        goes_on_left = _touch(before[::-1], word[0], joins)
        goes_on_right = _touch(after, word[-1], joins)
        if not goes_on_left and not goes_on_right:
            return place
        place = text.find(word, place + 1)
    return -1


def _touch(outside: str, edge: str, joins: Callable[[str], bool]) -> bool:
    """Whether the text outside goes on with what the word's last character began.

    Args:
        outside: the two characters next to the word, the nearer one first.
        edge: the word's character there.
    """
    nearest = outside[:1]
    if nearest == "." and edge.isdigit():
        return outside[1:].isdigit()
    return joins(edge) and joins(nearest)
