"""Whether an output, or the result of a function, is the expected one (stage 7).

expected     output        tokens    lines_by_value
YES NO       YES  NO       same      same             white space around tokens does not count
0.5          .5000001      same      same             a float is expected, so 1e-6 off is allowed
15           15.0          another   same             an integer is expected
50000000000000003  50000000000000004.0  another  another   values are compared exactly
"""

import decimal
import itertools
import math
import re
from collections import Counter
from typing import Any

JUDGES = ("tokens", "tokens_across_lines", "lines_in_any_order", "lines_by_value")
"""
tokens: the same tokens in the same order in each line.
tokens_across_lines: the same tokens in the same order, wherever lines break.
lines_in_any_order: the same lines in any order, each compared token by token.
lines_by_value: like tokens, but for a line of numbers only the values count. LiveCodeBench compares
    in this way, so this is the default for its tests.
"""

TOLERANCE = 1e-6
"""Default of a check's `tolerance`: the absolute or relative error of a float."""

MAX_DIGITS = 4000
"""Longer numbers are compared as text: the time to read one grows with the square of its length."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?", re.ASCII)

Line = list[str]
"""The tokens of a line."""


def compare_output(
    expected: str, output: bytes, judge: str = "tokens", tolerance: float = TOLERANCE
) -> str | None:
    """Why an output is not the expected one, or None where it is.

    White space around tokens and empty lines do not count. Two tokens are compared as floats only
    where the expected token is written as one (with a point or an exponent).

    Args:
        judge: one of JUDGES.
        tolerance: absolute or relative.
    """
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return "the output is not UTF-8"
    want = _lines(expected)
    found = _lines(text)
    if judge == "lines_in_any_order":
        return _compare_in_any_order(want, found, tolerance)
    if judge == "tokens_across_lines":
        want = [list(itertools.chain(*want))]
        found = [list(itertools.chain(*found))]
    if len(want) != len(found):
        return f"{len(found)} lines, not {len(want)}"
    pairs = zip(want, found, strict=True)
    for number, (wanted, line) in enumerate(pairs, 1):
        if judge == "lines_by_value" and _same_numbers(wanted, line):
            continue
        fault = _compare_tokens(wanted, line, tolerance)
        if fault and len(want) > 1:
            return f"line {number}: {fault}"
        if fault:
            return fault
    return None


def _lines(text: str) -> list[Line]:
    lines = [line.split() for line in text.split("\n")]
    return [tokens for tokens in lines if tokens]


def _compare_tokens(want: Line, found: Line, tolerance: float) -> str | None:
    """What is the first difference of a line from the expected one, or None."""
    if len(want) != len(found):
        return f"{len(found)} tokens, not {len(want)}"
    pairs = zip(want, found, strict=True)
    for number, (wanted, token) in enumerate(pairs, 1):
        if wanted != token and not _same_float(wanted, token, tolerance):
            return f"token {number} is {token[:40]!r}, not what is expected"
    return None


def _is_number(token: str) -> bool:
    return len(token) <= MAX_DIGITS and _NUMBER.fullmatch(token) is not None


def _same_float(want: str, found: str, tolerance: float) -> bool:
    """Whether the expected token is written as a float, and the other is one of about its value."""
    is_written_as_float = any(sign in want for sign in ".eE")
    if not is_written_as_float:
        return False
    if not _is_number(want) or not _is_number(found):
        return False
    return _is_close(float(want), float(found), tolerance)


def _is_close(want: float, found: float, tolerance: float) -> bool:
    """Absolutely for a value below 1, relatively above."""
    if math.isinf(want) or math.isinf(found):
        return want == found
    allowed = tolerance * max(1.0, abs(want))
    return abs(want - found) <= allowed


def _same_numbers(want: Line, found: Line) -> bool:
    """Whether two lines consist of numbers with the same values, exactly: `15.0 2` is `15 2e0`."""
    if len(want) != len(found):
        return False
    if not all(map(_is_number, want)) or not all(map(_is_number, found)):
        return False
    try:
        wanted_values = [decimal.Decimal(token) for token in want]
        found_values = [decimal.Decimal(token) for token in found]
    except decimal.InvalidOperation:  # an exponent of twenty digits
        return False
    return wanted_values == found_values


def _compare_in_any_order(want: list[Line], found: list[Line], tolerance: float) -> str | None:
    """Pair every expected line with one of the output; None where that is possible."""
    if len(want) != len(found):
        return f"{len(found)} lines, not {len(want)}"
    # Equal lines are paired first. With thousands of lines, only few are left to try in pairs.
    wanted_lines = Counter(map(tuple, want))
    found_lines = Counter(map(tuple, found))
    rest = sorted((found_lines - wanted_lines).elements())
    missing = sorted((wanted_lines - found_lines).elements())
    for wanted in missing:
        for line in rest:
            if _compare_tokens(list(wanted), list(line), tolerance) is None:
                rest.remove(line)
                break
        else:
            return "a line is missing"
    return None


def same_value(want: Any, found: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether two JSON values are equal.

    true is not 1, and 1 is 1.0. The tolerance only applies where a float is expected.
    """
    try:
        return _same(want, found, tolerance)
    except RecursionError:
        return False


def _same(want: Any, found: Any, tolerance: float) -> bool:
    if isinstance(want, bool) or isinstance(found, bool):
        return want is found
    if want is None or found is None:
        return want is found
    if isinstance(want, float) and isinstance(found, int | float):
        if abs(found) >= 1e300:
            return want == found  # an integer may be too large to be a float
        return _is_close(want, float(found), tolerance)
    if isinstance(want, int) and isinstance(found, int | float):
        return want == found
    if type(want) is not type(found):
        return False
    if isinstance(want, list):
        if len(want) != len(found):
            return False
        pairs = zip(want, found, strict=True)
        return all(_same(wanted, value, tolerance) for wanted, value in pairs)
    if isinstance(want, dict):
        if want.keys() != found.keys():
            return False
        return all(_same(want[key], found[key], tolerance) for key in want)
    return bool(want == found)
