"""Does every equation of a trace hold? A `verify.trace_check` for smollm2_135m.

The model often writes a wrong equation and makes up for it in the next one. The last number is
right, and so is the answer:

    5 + 9 = 16
    16 - 3 = 11

It does not see whether the numbers are those of the question.

    python examples/variational_reasoning/smollm2_135m/check_trace.py < traces.jsonl

Reads and writes one JSON object per line (docs/own_questions.md).
"""

import json
import re
import sys

STEP = re.compile(r"(-?\d+(?: [+-] -?\d+)+) = (-?\d+)")
"""Two numbers or more, and what they make: 9 + 7 - 5 = 11."""


def total(terms: str) -> int:
    """The value of `9 + 7 - 5`."""
    first, *rest = terms.split()
    value = int(first)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        value += int(number) if sign == "+" else -int(number)
    return value


def why_wrong(trace: str) -> str:
    """The first line that is not an equation, or that does not hold; nothing for a right trace."""
    lines = trace.strip().splitlines()
    if not lines:
        return "no step"
    for line in lines:
        step = STEP.fullmatch(line.strip())
        if step is None:
            return f"{line!r} is not an equation"
        terms, written = step.groups()
        value = total(terms)
        if value != int(written):
            return f"{terms} is {value}, not {written}"
    return ""


def main() -> None:
    for line in sys.stdin:
        row = json.loads(line)
        reason = why_wrong(row["trace"])
        print(json.dumps({"accepted": not reason, "reason": reason}))


if __name__ == "__main__":
    main()
