"""Which answer does a trace imply? `eval.controls.implied_answer` of tiny_abstract.

A trace says the running value after each step: a symbol by the cluster that it names, a verbal step
by what follows its equals sign. The last value is the answer. Of a trace that was cut after some
steps, the other steps of the question are done from its last value:

    question 3+5*4, trace =1         4: 1 * 4 modulo 7
    question 3+5*4, trace +5=1*4=4   4

    python examples/variational_reasoning/tiny_abstract/implied_answer.py RUN < traces.jsonl

Reads and writes one JSON object per line, as verify/implied.py says. RUN is the folder of the run,
whose clusters say which value a symbol names; without clusters only verbal traces have an answer.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from variational_reasoning.method.abstract import symbol_names
from variational_reasoning.pipeline.rows import MANIFEST, read_rows

MODULUS = 7
PURE = 0.9
"""A symbol names a value where this share of its steps has it."""

OPERATION = re.compile(r"[-+*]\d")
VERBAL = re.compile(r"(?:[-+*]\d=\d)+|(?:=\d)+")
SYMBOLS = re.compile(r"(?:<TOKEN_[A-Z]+>)+")

Meanings = Mapping[tuple[int, str], int]
"""(place in the trace, symbol) to the value that it names."""


def read_meanings(run: Path) -> dict[tuple[int, str], int]:
    """What the symbols name, from the steps that became their clusters."""
    if not (run / "step_clusters" / MANIFEST).is_file():
        return {}
    columns = ["question_id", "step", "value"]
    steps = read_rows(run / "steps", "steps", columns)
    values = {(row["question_id"], row["step"]): row["value"] for row in steps}
    counts: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for row in read_rows(run / "step_clusters", "step_clusters"):
        counts[row["step"], row["cluster"]][values[row["question_id"], row["step"]]] += 1
    names = symbol_names(1 + max(cluster for _, cluster in counts))
    meanings = {}
    for (place, cluster), found in counts.items():
        [(value, count)] = found.most_common(1)
        if count >= PURE * found.total():
            meanings[place, names[cluster]] = int(value)
    return meanings


def values_of(trace: str, meanings: Meanings) -> list[int] | None:
    """The running values that a trace names; None where one cannot be told."""
    if VERBAL.fullmatch(trace):
        return [int(value) for value in re.findall(r"=(\d)", trace)]
    if not SYMBOLS.fullmatch(trace):
        return None
    symbols = re.findall("<TOKEN_[A-Z]+>", trace)
    if any(place not in meanings for place in enumerate(symbols)):
        return None
    return [meanings[place] for place in enumerate(symbols)]


def implied_answer(question: str, trace: str, is_cut: bool, meanings: Meanings) -> str | None:
    """The answer, or None where it cannot be told."""
    values, steps = values_of(trace, meanings), OPERATION.findall(question)
    if not values or len(values) > len(steps):
        return None
    if not is_cut and len(values) < len(steps):
        return None  # a whole trace that leaves out steps names no result
    value = values[-1]
    for step in steps[len(values) :]:
        operand = int(step[1])
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[step[0]]
        value %= MODULUS
    return str(value)


def main() -> None:
    meanings = read_meanings(Path(sys.argv[1]))
    for line in sys.stdin:
        row = json.loads(line)
        is_cut = row["control"] == "continued"
        answer = implied_answer(row["question"], row["trace"], is_cut, meanings)
        print(json.dumps({"answer": answer}))


if __name__ == "__main__":
    main()
