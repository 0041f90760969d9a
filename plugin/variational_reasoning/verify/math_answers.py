r"""Is a final answer equal to the gold answer? (stage 7, check kind `math`)

Plain texts and numbers are compared here, exactly. Everything else goes to Math-Verify, which uses sympy: it may run
for ever or eat all memory on a short text such as `9^{9^{9^9}}`, so `compare_symbolically` is only to be called inside
a worker process that somebody else kills (`pool`). Math-Verify's own alarms are off: they need signals and do not stop
C code.
"""

import re
from fractions import Fraction

from .boxes import last_boxed
from .verdicts import Result, Verdict

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(rf"([+-]?)\s*({_INTEGER}(?:\.\d+)?|\.\d+)")
_FRACTION = re.compile(r"([+-]?)\s*(?:\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}|(\d+)\s*/\s*(\d+))")
_MAX_DIGITS = 2000


def compare_plainly(golds: list[str], solution: str) -> Result | None:
    r"""The verdict where no symbolic algebra is needed, or None.

    Args:
        golds: accepted answers, without a box.
        solution: the solution part of an answer; its last complete box counts.
    """
    answer = last_boxed(solution)
    if answer is None:
        return Result(Verdict.NO_ANSWER, "no complete \\boxed{...} with content")
    if any(_squeezed(answer) == _squeezed(gold) for gold in golds):
        return Result(Verdict.CORRECT, "same text")
    value = exact_number(answer)
    values = [exact_number(gold) for gold in golds]
    if value is None or None in values:
        return None
    if value in values:
        return Result(Verdict.CORRECT, "same number")
    return Result(Verdict.WRONG, "another number")


def exact_number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal or fraction of integers (`1,000` is a thousand, `1,2` no number), or
    None."""
    text = text.strip().strip("$").strip()
    if len(text) > _MAX_DIGITS:
        return None
    if match := _NUMBER.fullmatch(text):
        value = Fraction(match[2].replace(",", ""))
        return -value if match[1] == "-" else value
    if match := _FRACTION.fullmatch(text):
        numerator, denominator = int(match[2] or match[4]), int(match[3] or match[5])
        if denominator == 0:
            return None
        value = Fraction(numerator, denominator)
        return -value if match[1] == "-" else value
    return None


def compare_symbolically(golds: list[str], solution: str) -> Result:
    """The verdict of Math-Verify. Without bounds: only inside a worker process.

    Returns: unverifiable when Math-Verify can read none of the golds, so that no comparison took place.
    """
    import math_verify

    answer = last_boxed(solution)
    parsed_answer = math_verify.parse(f"\\boxed{{{answer}}}", parsing_timeout=None, raise_on_error=True)
    num_compared = 0
    for gold in golds:
        parsed_gold = math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None, raise_on_error=True)
        if not parsed_gold:
            continue
        num_compared += 1
        if parsed_answer and math_verify.verify(parsed_gold, parsed_answer, timeout_seconds=None, raise_on_error=True):
            return Result(Verdict.CORRECT, "math-verify")
    if not num_compared:
        return Result(Verdict.UNVERIFIABLE, "math-verify cannot read the gold answer")
    return Result(Verdict.WRONG, "math-verify" if parsed_answer else "math-verify cannot read the answer")


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().strip("$").strip())
