"""Hint leakage: how early and how literally the hint's final answer appears in a trace.

The posterior sees the solution, so it may copy the answer instead of deriving it.

The final answer is the last box of the reference solution, or the gold of the check
(`hints.final_answer`); questions without either (programs, long texts) are left out and counted.
A trace has it

    literally     as it is written in the hint, with no letter or digit touching it
    normalized    only after blanks, dollar signs and LaTeX spacing are taken out of both texts,
                  with no digit touching it
    not           otherwise; an answer of letters and digits alone has no other way to be written

and it is early where it first appears after a small fraction of the trace's characters. A short
answer is in most traces by chance, so traces written without any hint are measured alike: the
training traces, and the reasoner's own.
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

_SPACING = ("\\,", "\\;", "\\:", "\\!", "\\ ", "\\left", "\\right", "$")


class Leakage(NamedTuple):
    """Where the final answer first appears in the traces of one kind.

    fractions: [number of traces with it], each in [0, 1): characters before it, as a share of the
        trace's.
    num_traces, num_literal, num_normalized: all traces searched, and those that have it, by how.
    """

    fractions: np.ndarray
    num_traces: int
    num_literal: int
    num_normalized: int

    def share_by(self, fraction: float) -> float:
        """The share of all traces in which the answer has appeared by this fraction of the "
        "trace."""
        return float((self.fractions <= fraction).sum()) / self.num_traces


class Appearance(NamedTuple):
    """The first place of an answer in a text, as a fraction of its length, and whether it is there
    there literally.
    """

    fraction: float
    is_literal: bool


def first_appearance(trace: str, answer: str) -> Appearance | None:
    """Where `answer` is first in `trace` as a word of its own; None where it does not."""
    place = _find_word(trace, answer, str.isalnum)
    if place >= 0:
        return Appearance(place / len(trace), is_literal=True)
    if answer.isalnum():
        return None
    plain = _without_spacing(trace)
    place = _find_word(plain, _without_spacing(answer), str.isdigit)
    return Appearance(place / len(plain), is_literal=False) if place >= 0 else None


def measure_leakage(traces: Iterable[tuple[str, str]], answers: Mapping[str, str]) -> Leakage:
    """Search every trace for its question's answer.

    Args:
        traces: (question_id, text); those without an answer, and empty ones, are passed over.
        answers: final answer by question_id.
    """
    fractions, num_traces, num_literal = [], 0, 0
    for question_id, text in traces:
        if question_id in answers and text:
            num_traces += 1
            if found := first_appearance(text, answers[question_id]):
                fractions.append(found.fraction)
                num_literal += found.is_literal
    return Leakage(np.array(fractions), num_traces, num_literal, len(fractions) - num_literal)


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
    found = {
        "posterior": measure_leakage(well_formed_traces(folder / "traces"), answers),
        "training traces": measure_leakage(_training_traces(folder), answers),
        "reasoner": measure_leakage(well_formed_traces(folder / "from_reasoner/traces"), answers),
    }
    splits = TableReader(folder / "questions", "questions").summary["split"].to_pylist()
    num_without = splits.count("train") - len(answers)
    return {kind: leakage for kind, leakage in found.items() if leakage.num_traces}, num_without


def final_answers(folder: Path) -> dict[str, str]:
    """The final answer of each training question of a run that has one."""
    answers = {}
    for row in _training_rows(folder, ["solution", "check"]):
        answer = final_answer(row["solution"], json.loads(row["check"]))
        if answer is not None:
            answers[row["question_id"]] = answer
    return answers


def well_formed_traces(folder: Path) -> Iterator[tuple[str, str]]:
    """(question_id, text) of the well-formed traces of a table, a shard in memory at a time; none
    without the table.
    """
    if not (folder / MANIFEST).is_file():
        return
    columns = ["question_id", "text", "is_well_formed"]
    for shard in TableReader(folder, "traces").scan(columns):
        table = shard.filter(shard["is_well_formed"])
        yield from zip(table["question_id"].to_pylist(), table["text"].to_pylist(), strict=True)


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
    """The first place of `word` where no character for which `joins` is true touches another one,
    or -1.

    A point between digits belongs to the number, so 5 does not stand in 2.5.
    """
    place = text.find(word) if word else -1
    while place >= 0:
        before, after = (
            text[max(place - 2, 0) : place],
            text[place + len(word) : place + len(word) + 2],
        )
        if not (_touch(before[::-1], word[0], joins) or _touch(after, word[-1], joins)):
            return place
        place = text.find(word, place + 1)
    return -1


def _touch(outside: str, edge: str, joins: Callable[[str], bool]) -> bool:
    """Whether the text outside, read away from the word, goes on with what the word's character at
    the edge began.
    """
    if outside[:1] == "." and edge.isdigit():
        return outside[1:].isdigit()
    return joins(edge) and joins(outside[:1])
