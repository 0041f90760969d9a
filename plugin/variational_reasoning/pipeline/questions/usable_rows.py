"""Which rows can be used, under which id, with which check (stage 0).

A row that cannot be used is dropped with a reason and listed under its id; a value of a wrong type
is an error.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

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
    limit = config.data.max_train_questions if split == "train" else config.data.max_test_questions
    wanted_split = config.data.train_split if split == "train" else config.data.test_split
    rows: list[dict[str, Any]] = []
    dropped: Dropped = {}
    faults: list[str] = []
    tags = config.renderer.tags
    needs_traces = split == "train" and not config.traces_are_optional
    for row in table:
        place = f"row {row['number']}"
        texts = {name: row[name] for name in NEEDED_COLUMNS}
        if not needs_traces:
            for name in ("trace", "solution"):
                if texts[name] is None:
                    texts[name] = ""
        question_id = _question_id(row, texts, split, config.data.ids)
        if not is_of_split(row["split"], wanted_split):
            reason = f"of the split {row['split']!r}, not {wanted_split}"
            dropped.setdefault(reason, []).append(question_id or place)
            continue
        if split == "train" and config.data.format != "columns" and texts["question"] is None:
            dropped.setdefault(NOT_LAID_OUT[config.data.format], []).append(question_id or place)
            continue
        wrong = []
        for name, text in texts.items():
            if not isinstance(text, str):
                wrong.append(f"{name} is {type(text).__name__}")
        if wrong:
            faults.append(f"{place}: {', '.join(wrong)}; text is needed")
            continue
        needed = NEEDED_COLUMNS if needs_traces else ("question",)
        unusable = _unusable_text(texts, needed, tags)
        if unusable is None:
            check, fault = checks.of(row, texts["solution"])
            if fault:
                faults.append(f"{place}: {fault}")
                continue
            if split == "train" and not needs_traces:
                texts |= _completed(texts, check)
                if not texts["solution"] and check["kind"] == "none":
                    unusable = "no solution, answer, check or tests"
            earlier_split = seen_questions.get(texts["question"])
            if unusable is None and earlier_split == split:
                unusable = "duplicate question"
            elif unusable is None and earlier_split is not None:
                unusable = f"question of the {earlier_split} split"
            elif unusable is None and limit is not None and len(rows) >= limit:
                unusable = f"beyond data.max_{split}_questions"
        if unusable is not None:
            dropped.setdefault(unusable, []).append(question_id or place)
            continue
        seen_questions[texts["question"]] = split
        source = "" if row["source"] is None else str(row["source"])
        check_text = json.dumps(check, ensure_ascii=False)
        facts = {"source": source, "check": check_text, "split": split}
        rows.append({"question_id": question_id} | texts | facts)
    raise_listed(where, faults)
    return rows, dropped


def _unusable_text(
    texts: Mapping[str, str], needed: Sequence[str], tags: Iterable[str]
) -> str | None:
    """Why a row's texts cannot be used, or None.

    A needed one is empty, or one holds a tag of the prompt family, so that a reader could not tell
    where its part of a prompt ends.
    """
    for name in needed:
        if not texts[name].strip():
            return f"empty {name}"
    for name, text in texts.items():
        if any(tag in text for tag in tags):
            return f"tags in the {name}"
    return None


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
    fitting = []
    for row in tqdm(rows, unit="row", desc="lengths"):
        lengths = {kind: example_tokens(kind, renderer, row, encode) for kind in kinds}
        if any(sum(parts) > config.cutoff_len for parts in lengths.values()):
            dropped.setdefault(f"longer than cutoff_len {config.cutoff_len}", []).append(
                row["question_id"]
            )
        else:
            names = ("prompt_tokens", "trace_tokens", "solution_tokens")
            fitting.append(row | dict(zip(names, lengths["reasoner"], strict=True)))
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
    question, solution = row["question"], row["solution"]
    prompt, response = renderer.render_parts(kind, question, trace, solution, chain)
    head, *rest = renderer.target_parts(response)
    num_rest = sum(len(encode(part)) for part in rest if part)
    return len(prompt.encode(encode)), len(encode(head)), num_rest


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
    return hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
