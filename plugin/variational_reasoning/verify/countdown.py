"""Countdown: make a target from given numbers with + - * / (stage 7, check kind `countdown`).

The answer is text that a model wrote, so it is never evaluated as code. It is
parsed into a syntax tree of at most a few nodes, whose literals must be among the given numbers
before anything is computed, exactly.
"""

import ast
import re
from collections import Counter
from fractions import Fraction
from typing import Any

from .mathematics.boxes import last_boxed
from .verdicts import Result, Verdict

MAX_CHARACTERS = 400
"""Longer expressions are refused unread; six numbers need fewer than a hundred characters."""

_SPELLINGS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "÷": "/", "−": "-"}
_ALLOWED = re.compile(r"[0-9+\-*/() ]+")


def check_countdown(
    numbers: list[int], target: int, solution: str, use_all: bool = False
) -> Result:
    """Whether the solution's expression uses each number at most once and equals the target.

    Args:
        solution: the answer; the last complete box when there is one, else the whole text. The
            equation `... = target` is also read.
        use_all: every number must be used.

    Returns: correct or wrong; no_answer for an empty text; malformed for anything else.
    """
    text = last_boxed(solution) or solution
    text = text.strip().strip("$").strip()
    if not text:
        return Result(Verdict.NO_ANSWER, "the solution is empty")
    expression, equals, right = text.partition("=")
    right = right.strip()
    if equals and right != str(target):
        reason = f"the right-hand side {right[:40]!r} is not the target {target}"
        return Result(Verdict.WRONG, reason)
    expression = _with_plain_operators(expression)
    if len(expression) > MAX_CHARACTERS:
        reason = f"the expression has {len(expression)} characters, above {MAX_CHARACTERS}"
        return Result(Verdict.MALFORMED, reason)
    if not _ALLOWED.fullmatch(expression):
        reason = "the expression holds more than integers, + - * / and parentheses"
        return Result(Verdict.MALFORMED, reason)
    try:
        tree = ast.parse(expression, mode="eval").body
        # Before anything is computed, so that only the given numbers can be asked for.
        given = Counter(numbers)
        used = _integers(tree)
        excess = used - given
        if excess:
            return Result(Verdict.WRONG, f"uses {min(excess)} more often than it is given")
        unused = given - used
        if use_all and unused:
            return Result(Verdict.WRONG, f"does not use {min(unused)}")
        value = _value(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Result(Verdict.MALFORMED, "the expression cannot be parsed")
    except ZeroDivisionError:
        return Result(Verdict.WRONG, "divides by zero")
    if value == target:
        return Result(Verdict.CORRECT)
    return Result(Verdict.WRONG, f"equals {value}, not {target}")


def _with_plain_operators(expression: str) -> str:
    """`3 \\times 4` as `3 * 4`."""
    for spelling, operator in _SPELLINGS.items():
        expression = expression.replace(spelling, operator)
    return expression.strip()


def countdown_faults(check: dict[str, Any]) -> list[str]:
    """What is wrong with the numbers, the target and use_all of a check."""
    faults = []
    numbers = check["numbers"]
    target = check["target"]
    is_list = isinstance(numbers, list) and len(numbers) > 0
    if not is_list or not all(map(_is_natural, numbers)):
        faults.append(
            f"numbers is {numbers!r}; it must be a list of integers that are not negative"
        )
    if type(target) is not int:
        faults.append(f"target is {target!r}; it must be an integer")
    if not isinstance(check.get("use_all", False), bool):
        faults.append(f"use_all is {check['use_all']!r}; it must be true or false")
    return faults


def _is_natural(number: Any) -> bool:
    """Whether a JSON value is an integer of 0 or more; true is not one."""
    return type(number) is int and number >= 0


def _integers(tree: ast.expr) -> Counter[int]:
    """How often each integer is in an expression."""
    used: Counter[int] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            used[node.value] += 1
    return used


def _value(node: ast.expr) -> Fraction:
    """The value of an expression. Raises: ValueError for anything but integers and + - * /."""
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise ValueError(f"{type(node).__name__} is not one of + - * /")
