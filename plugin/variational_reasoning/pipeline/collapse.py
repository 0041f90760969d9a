"""Whether abstract traces have collapsed: how different they are, how long, which symbols they use.

A seed that all requests share is enough to make them alike, and so is training on one's own samples
for some rounds. What a collapsed trace says of its question is nothing, whatever the accuracy.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from variational_reasoning.method.steps import entropy
from variational_reasoning.pipeline.config import CollapseConfig, Config
from variational_reasoning.pipeline.reading import TableReader

FEWEST_QUESTIONS = 20
"""Of fewer questions a share of different traces says little, so nothing is stopped."""


class TraceVariety(NamedTuple):
    """What a table of abstract traces holds.

    num_questions: with a trace. distinct: different traces among the first ones of the questions,
    as a share of the questions. per_question: different traces of a question as a share of its
    traces, the mean. lengths: 10th, 50th and 90th percentile of the number of symbols. entropy:
    bits per symbol, over all traces. num_symbols: how many different ones occur.
    """

    num_questions: int
    distinct: float
    per_question: float
    lengths: tuple[float, float, float]
    entropy: float
    num_symbols: int

    def describe(self) -> str:
        """A line for the end of the stage."""
        low, middle, high = self.lengths
        return (
            f"symbols: {self.num_symbols} in use, {self.entropy:.2f} bits each; length {low:g} / "
            f"{middle:g} / {high:g} (10th, 50th, 90th percentile); different traces: "
            f"{self.distinct:.0%} over questions, {self.per_question:.0%} of a question's own"
        )


def variety(rows: Iterable[Mapping[str, Any]]) -> TraceVariety | None:
    """The figures of traces; None without any.

    Args:
        rows: question_id, trace_id and token_ids, whose last one is the end.

    Example: a: (1 2), (1 2), b: (1 2), (1 3). Of the first traces (1 2) and (1 2) one is different,
    so distinct is 1/2; a has 1 of 2 and b 2 of 2, so per_question is 3/4; the symbol 1 occurs 4
    times, 2 three times and 3 once.
    """
    by_question: dict[str, list[tuple[int, ...]]] = {}
    symbols: list[int] = []
    lengths: list[int] = []
    for row in sorted(rows, key=lambda row: (row["question_id"], row["trace_id"])):
        trace = tuple(row["token_ids"][:-1])
        by_question.setdefault(row["question_id"], []).append(trace)
        symbols += trace
        lengths.append(len(trace))
    if not by_question:
        return None
    first = {traces[0] for traces in by_question.values()}
    shares = [len(set(traces)) / len(traces) for traces in by_question.values()]
    low, middle, high = np.percentile(lengths, [10, 50, 90])
    return TraceVariety(
        num_questions=len(by_question),
        distinct=len(first) / len(by_question),
        per_question=math.fsum(shares) / len(shares),
        lengths=(float(low), float(middle), float(high)),
        entropy=entropy(symbols),
        num_symbols=len(set(symbols)),
    )


def collapse_faults(found: TraceVariety, limits: CollapseConfig) -> list[str]:
    """What is outside the limits; nothing where there are too few questions to tell."""
    if found.num_questions < FEWEST_QUESTIONS:
        return []
    shortest, _, longest = found.lengths
    bits = f"a symbol has {found.entropy:.2f} bits"
    measured = {
        "distinct_at_least": (
            found.distinct,
            f"{found.distinct:.1%} of the questions' first traces are different",
        ),
        "per_question_at_least": (
            found.per_question,
            f"{found.per_question:.1%} of a question's own traces are different",
        ),
        "entropy_at_least": (found.entropy, bits),
        "entropy_at_most": (found.entropy, bits),
        "length_at_least": (shortest, f"a trace in ten has {shortest:g} symbols or fewer"),
        "length_at_most": (longest, f"a trace in ten has {longest:g} symbols or more"),
        "symbols_at_least": (found.num_symbols, f"{found.num_symbols} symbols are in use"),
    }
    faults = []
    for key, (value, text) in measured.items():
        limit = getattr(limits, key)
        if limit is None:
            continue
        is_outside = value > limit
        if key.endswith("_at_least"):
            is_outside = value < limit
        if is_outside:
            faults.append(f"{text} (sampling.collapse.{key} {limit})")
    return faults


def report_variety(config: Config) -> None:
    """Print the variety of run_dir/traces, and whether it is outside the limits.

    Raises: ValueError for collapsed traces with sampling.collapse.mode stop; the table is kept.
    """
    folder = config.folder("traces")
    limits = config.sampling.collapse
    table = TableReader(folder, "traces")
    parts = table.scan(["question_id", "trace_id", "token_ids"])
    found = variety(row for part in parts for row in part.to_pylist())
    if found is None:
        return
    print(found.describe())
    faults = collapse_faults(found, limits)
    if not faults:
        return
    message = f"the traces in {folder} have collapsed: {'; '.join(faults)}"
    if limits.mode == "stop":
        raise ValueError(
            f"{message}. Look at them, train the model that wrote them otherwise and remove the "
            "folder, or set sampling.collapse.mode: report to go on with them"
        )
    print(f"warning: {message}")
