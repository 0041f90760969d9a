"""Is an output, or the result of a function, the expected one? (stage 7)"""

import itertools
import math
import re
from collections import Counter
from typing import Any

JUDGES = ("tokens", "tokens_across_lines", "lines_in_any_order")
"""tokens: the same tokens in the same order in each line. tokens_across_lines: where lines break does not count.
lines_in_any_order: the same lines, each compared token by token, in any order."""

TOLERANCE = 1e-6
"""Absolute or relative error of a float, unless the check says another `tolerance`."""

_FLOAT = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?", re.ASCII)
MAX_DIGITS = 4000
"""Longer numbers are compared as text: reading them takes time that grows with the square of their length."""


def compare_output(
    expected: str, output: bytes, judge: str = "tokens", tolerance: float = TOLERANCE
) -> str | None:
    """Why an output is not the expected one, or None where it is.

    White space around tokens and empty lines do not count. A token is compared as a
    float only where the expected token is written as one (with a point or an exponent).
    """
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return "the output is not UTF-8"
    want, found = _lines(expected), _lines(text)
    if judge == "lines_in_any_order":
        return _compare_in_any_order(want, found, tolerance)
    if judge == "tokens_across_lines":
        want, found = [list(itertools.chain(*want))], [list(itertools.chain(*found))]
    if len(want) != len(found):
        return f"{len(found)} lines, not {len(want)}"
    for number, (left, right) in enumerate(zip(want, found, strict=True), 1):
        fault = _compare_tokens(left, right, tolerance)
        if fault:
            return f"line {number}: {fault}" if len(want) > 1 else fault
    return None


def _lines(text: str) -> list[list[str]]:
    return [tokens for line in text.split("\n") if (tokens := line.split())]


def _compare_tokens(want: list[str], found: list[str], tolerance: float) -> str | None:
    if len(want) != len(found):
        return f"{len(found)} tokens, not {len(want)}"
    for number, (left, right) in enumerate(zip(want, found, strict=True), 1):
        if left != right and not _same_float(left, right, tolerance):
            return f"token {number} is {right[:40]!r}, not what is expected"
    return None


def _same_float(want: str, found: str, tolerance: float) -> bool:
    if (
        not any(sign in want for sign in ".eE")
        or not _FLOAT.fullmatch(want)
        or not _FLOAT.fullmatch(found)
    ):
        return False
    return max(len(want), len(found)) <= MAX_DIGITS and _close(float(want), float(found), tolerance)


def _close(want: float, found: float, tolerance: float) -> bool:
    if math.isinf(want) or math.isinf(found):
        return want == found
    return abs(want - found) <= tolerance * max(1.0, abs(want))


def _compare_in_any_order(
    want: list[list[str]], found: list[list[str]], tolerance: float
) -> str | None:
    if len(want) != len(found):
        return f"{len(found)} lines, not {len(want)}"
    left, right = Counter(map(tuple, want)), Counter(map(tuple, found))
    rest = sorted((right - left).elements())
    missing = sorted((left - right).elements())
    for wanted in missing:
        match = next(
            (line for line in rest if _compare_tokens(list(wanted), list(line), tolerance) is None),
            None,
        )
        if match is None:
            return "a line is missing"
        rest.remove(match)
    return None


def same_value(want: Any, found: Any, tolerance: float = TOLERANCE) -> bool:
    """Equality of two JSON values: true is not 1, 1 is 1.0, and a tolerance holds only where a float is expected."""
    try:
        return _same(want, found, tolerance)
    except RecursionError:
        return False


def _same(want: Any, found: Any, tolerance: float) -> bool:
    if isinstance(want, bool) or isinstance(found, bool) or want is None or found is None:
        return want is found
    if isinstance(want, float) and isinstance(found, int | float):
        return _close(want, float(found), tolerance) if abs(found) < 1e300 else want == found
    if isinstance(want, int) and isinstance(found, int | float):
        return want == found
    if type(want) is not type(found):
        return False
    if isinstance(want, list):
        return len(want) == len(found) and all(
            _same(a, b, tolerance) for a, b in zip(want, found, strict=True)
        )
    if isinstance(want, dict):
        return want.keys() == found.keys() and all(
            _same(want[key], found[key], tolerance) for key in want
        )
    return want == found
