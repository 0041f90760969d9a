"""Which rows can be used, under which id, with which check (stage 0).

A row that cannot be used is dropped with a reason and listed under its id; a value of a wrong type
is an error.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.questions.checks import QuestionChecks
from variational_reasoning.pipeline.questions.sources import (
    NEEDED_COLUMNS,
    is_of_split,
    raise_listed,
)
from variational_reasoning.verify.checks import gold_answers

Dropped = dict[str, list[str]]
"""Reason to the dropped rows' ids, or `row N` where a row has none."""

NOT_LAID_OUT = {
    "conversations": "not one question and one answer with all four tags",
    "text": "not one whole example of this chat_format",
    "prompt_response": "not one whole example of this chat_format",
    "think_messages": "not one question and one answer with a long enough <think> block",
}
"""data.format to the reason of a row that cannot be taken apart."""


def usable_rows(
    table: Iterable[Mapping[str, Any]],
    where: str,
    split: str,
    seen_questions: dict[str, str],
    checks: QuestionChecks,
    config: Config,
) -> tuple[list[dict[str, Any]], Dropped]:
    """Rows of the questions table, and the dropped ones.

    Args:
        table: rows of `sources.to_columns`. where: the data set's name, for messages.
        split: train or test; a test question needs no trace and no solution, and with
            traces that are optional a train question needs only something to verify against.
        seen_questions: question to its split, of the rows that were taken before; those taken here
            are added.

    Raises: ValueError that lists rows with values of a wrong type and checks that cannot be used.
    """
    taker = _RowTaker(split, seen_questions, checks, config)
    dropped: Dropped = {}
    faults: list[str] = []
    for row in table:
        place = f"row {row['number']}"
        texts = taker.texts_of(row)
        question_id = _question_id(row, texts, split, config.data.ids)
        try:
            reason = taker.take(row, texts, question_id)
        except _RowFault as fault:
            faults.append(f"{place}: {fault}")
            continue
        if reason is not None:
            dropped.setdefault(reason, []).append(question_id or place)
    raise_listed(where, faults)
    return taker.rows, dropped


class _RowFault(Exception):
    """A value of a wrong type, or a check that cannot be used; the message says which."""


class _RowTaker:
    """Takes the rows of one split one after another; see `usable_rows`."""

    def __init__(
        self, split: str, seen_questions: dict[str, str], checks: QuestionChecks, config: Config
    ) -> None:
        data = config.data
        is_train = split == "train"
        self.split = split
        self.seen_questions = seen_questions
        self.checks = checks
        self.config = config
        self.wanted_split = data.train_split if is_train else data.test_split
        self.limit = data.max_train_questions if is_train else data.max_test_questions
        self.needs_traces = is_train and not config.traces_are_optional
        self.may_lack_traces = is_train and config.traces_are_optional
        self.is_taken_apart = is_train and data.format != "columns"
        self.tags = config.renderer.tags
        self.rows: list[dict[str, Any]] = []

    def texts_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The needed columns, empty in place of null where a row may lack them."""
        texts = {name: row[name] for name in NEEDED_COLUMNS}
        if not self.needs_traces:
            for name in ("trace", "solution"):
                if texts[name] is None:
                    texts[name] = ""
        return texts

    def take(
        self, row: Mapping[str, Any], texts: dict[str, Any], question_id: str | None
    ) -> str | None:
        """Add a row to `rows`; the reason where it is dropped.

        Raises: _RowFault.
        """
        if not is_of_split(row["split"], self.wanted_split):
            return f"of the split {row['split']!r}, not {self.wanted_split}"
        if self.is_taken_apart and texts["question"] is None:
            return NOT_LAID_OUT[self.config.data.format]
        _refuse_other_types(texts)
        reason = self._unusable_text(texts)
        if reason is not None:
            return reason
        check, fault = self.checks.of(row, texts["solution"])
        if fault:
            raise _RowFault(fault)
        if self.may_lack_traces:
            texts |= _completed(texts, check)
            if not texts["solution"] and check["kind"] == "none":
                return "no solution, answer, check or tests"
        earlier_split = self.seen_questions.get(texts["question"])
        if earlier_split == self.split:
            return "duplicate question"
        if earlier_split is not None:
            return f"question of the {earlier_split} split"
        if self.limit is not None and len(self.rows) >= self.limit:
            return f"beyond data.max_{self.split}_questions"
        self.seen_questions[texts["question"]] = self.split
        self.rows.append(
            {
                "question_id": question_id,
                **texts,
                "source": "" if row["source"] is None else str(row["source"]),
                "check": json.dumps(check, ensure_ascii=False),
                "split": self.split,
            }
        )
        return None

    def _unusable_text(self, texts: Mapping[str, str]) -> str | None:
        """Why a row's texts cannot be used, or None.

        A needed one is empty, or one holds a tag of the prompt family, so that a reader could not
        tell where its part of a prompt ends.
        """
        needed = NEEDED_COLUMNS if self.needs_traces else ("question",)
        for name in needed:
            if not texts[name].strip():
                return f"empty {name}"
        for name, text in texts.items():
            if any(tag in text for tag in self.tags):
                return f"tags in the {name}"
        return None


def _refuse_other_types(texts: Mapping[str, Any]) -> None:
    """Raises: _RowFault for values that are not text."""
    wrong = []
    for name, text in texts.items():
        if not isinstance(text, str):
            wrong.append(f"{name} is {type(text).__name__}")
    if wrong:
        raise _RowFault(f"{', '.join(wrong)}; text is needed")


def _completed(texts: Mapping[str, str], check: Mapping[str, Any]) -> dict[str, str]:
    """Trace and solution of a question whose data may lack them.

    The answer of a question without a solution is its solution: what the posterior's prompt shows
    as the hint, and what GML scores. A question with tests only has none.
    """
    trace = texts["trace"] if texts["trace"].strip() else ""
    solution = texts["solution"] if texts["solution"].strip() else ""
    if not solution:
        golds = gold_answers(dict(check))
        solution = golds[0] if golds else ""
    return {"trace": trace, "solution": solution}


def fitting_rows(
    rows: list[dict[str, Any]],
    renderer: Renderer,
    encode: Any,
    config: Config,
    dropped: Dropped,
) -> list[dict[str, Any]]:
    """Rows whose examples fit cutoff_len, the reasoner's, the posterior's and those that show the
    chain and answer; the others go to `dropped`.
    """
    answering = [kind for kind in renderer.kinds if renderer.answers(kind)]
    kinds = (*answering, config.posterior_prompt)
    too_long = f"longer than cutoff_len {config.cutoff_len}"
    fitting = []
    for row in tqdm(rows, unit="row", desc="lengths"):
        lengths = {kind: example_tokens(kind, renderer, row, encode) for kind in kinds}
        longest = max(sum(parts) for parts in lengths.values())
        if longest > config.cutoff_len:
            dropped.setdefault(too_long, []).append(row["question_id"])
            continue
        prompt_tokens, trace_tokens, solution_tokens = lengths[REASONER]
        fitting.append(
            {
                **row,
                "prompt_tokens": prompt_tokens,
                "trace_tokens": trace_tokens,
                "solution_tokens": solution_tokens,
            }
        )
    return fitting


def example_tokens(
    kind: str, renderer: Renderer, row: Mapping[str, Any], encode: Any
) -> tuple[int, int, int]:
    """Tokens of a row's training example: of the prompt, of the trace with its boundary, and of
    what follows, end of turn included.

    The symbols of an abstract trace are not known yet and not counted. Its prompts may show the
    row's own trace, the verbal chain.
    """
    chain = row["trace"]
    trace = "" if renderer.family.is_abstract else chain
    prompt, response = renderer.render_parts(kind, row["question"], trace, row["solution"], chain)
    head, *rest = renderer.target_parts(response)
    prompt_tokens = len(prompt.encode(encode))
    trace_tokens = len(encode(head))
    rest_tokens = sum(len(encode(part)) for part in rest if part)
    return prompt_tokens, trace_tokens, rest_tokens


def _question_id(
    row: Mapping[str, Any], texts: Mapping[str, Any], split: str, ids: str
) -> str | None:
    """The row's own id, else its number from 0 or a hash of its texts, as data.ids says; None where
    that cannot be.
    """
    if row["question_id"] is not None:
        return str(row["question_id"])
    if ids == "row" and split == "train":
        return str(row["number"] - 1)
    if not all(isinstance(text, str) for text in texts.values()):
        return None
    hashed = hashlib.sha256("\0".join(texts.values()).encode())
    return hashed.hexdigest()[:16]
