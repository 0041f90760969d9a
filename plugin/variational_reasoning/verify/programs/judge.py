"""Does a program that a model wrote pass its tests? (stage 7, check kind `program`)

Takes the records of APPS and TACO (`inputs`, `outputs`, optional `fn_name`) and the test lists of LiveCodeBench
(`input`, `output`, `testtype`). Each test is one fresh process in the sandbox, which gets the input only; outputs are
compared here, after it has ended. The surprising thing: a program whose output is right and whose exit code is not 0 has
not passed, because a crash after the last line is a crash.
"""

import re
from dataclasses import replace
from typing import Any, NamedTuple

from ..sandbox.inside.entry import COMPILE_EXIT
from ..sandbox.runner import Program
from ..sandbox.sandbox import Limits, Outcome, Sandbox, SandboxError
from ..verdicts import Result, Verdict
from .blocks import extract_program
from .compare import TOLERANCE, compare_output, same_value
from .records import Test, read_json, read_tests


def check_program(
    check: dict[str, Any], solution: str, sandbox: Sandbox, limits: Limits, total_seconds: float
) -> Result:
    """Run a solution's program on its tests, up to the first that it fails.

    Args:
        solution: the solution part of an answer.
        limits: of each test; a wall limit that strikes a program with processor time left is tried once more.
        total_seconds: wall limit of all tests together.

    Returns: correct only when every test has passed, and there is at least one.

    Raises: SandboxError when the sandbox fails twice in a row on the same test.
    """
    program = extract_program(solution)
    if program is None:
        return Result(Verdict.NO_ANSWER, "no complete fenced block of Python")
    tests = read_tests(check)
    if tests.function is None and not any(test.expected.strip() for test in tests.cases):
        return Result(Verdict.UNVERIFIABLE, "no test expects any output")
    judging = _Judging(
        tests.function, check.get("judge", "tokens"), check.get("tolerance", TOLERANCE), limits
    )
    num_tests, left = len(tests.cases), total_seconds
    with Program(sandbox, program, limits, tests.function) as opened:
        for number, test in enumerate(tests.cases, 1):
            verdict, reason, seconds, _ = _check_test(test, opened, judging, left)
            left -= seconds
            if verdict is not Verdict.CORRECT:
                return Result(
                    verdict, f"test {number} of {num_tests}: {reason}", total_seconds - left
                )
            if left <= 0 and number < num_tests:
                return Result(
                    Verdict.TIMEOUT,
                    f"above {total_seconds:g} s after {number} of {num_tests} tests",
                    total_seconds,
                )
    return Result(Verdict.CORRECT, f"{num_tests} tests", total_seconds - left)


class _Judging(NamedTuple):
    """What holds for every test of a program."""

    function: str | None
    judge: str
    tolerance: float
    limits: Limits


def _check_test(test: Test, program: Program, judging: _Judging, left: float) -> Result:
    limits = replace(judging.limits, wall_seconds=max(0.05, min(judging.limits.wall_seconds, left)))
    given = test.given.encode() if judging.function is None else test.given
    outcome, seconds = _run_test(given, program, limits, left)
    verdict, reason = _failure(outcome, limits) or _compare(test.expected, outcome, judging)
    return Result(verdict, reason, seconds)


def _run_test(given: Any, program: Program, limits: Limits, left: float) -> tuple[Outcome, float]:
    """How a test ended, and the wall seconds that it took in all. A wall limit that struck a program with processor time
    left is tried once more: it may sleep, or the machine may be busy."""
    seconds, has_failed, has_waited = 0.0, False, False
    while True:
        try:
            outcome = program.run(given, limits.wall_seconds)
        except SandboxError:
            if has_failed:
                raise
            has_failed = True
            continue
        seconds += outcome.wall_seconds
        is_starved = (
            outcome.limit == "wall"
            and 0.2 * limits.wall_seconds < outcome.cpu_seconds < 0.9 * limits.cpu_seconds
        )
        if not is_starved or has_waited or seconds >= left:
            return outcome, seconds
        has_waited = True


def _failure(outcome: Outcome, limits: Limits) -> tuple[Verdict, str] | None:
    """The verdict on a program that did not end by itself with exit code 0, else None."""
    last = (outcome.stderr.strip().splitlines() or [""])[-1][:200]
    if outcome.limit == "wall":
        return Verdict.TIMEOUT, f"above {limits.wall_seconds:g} s"
    if outcome.limit == "output":
        return Verdict.OUTPUT_LIMIT, f"above {limits.output_mib:g} MiB of output"
    if outcome.limit == "files":
        return Verdict.OUTPUT_LIMIT, "above the room for files"
    if outcome.code == COMPILE_EXIT and not outcome.stdout and not outcome.result:
        return Verdict.COMPILE_ERROR, last
    if outcome.limit == "memory" or (
        outcome.code != 0 and re.match(r"(\w+\.)*_?\w*MemoryError\b", last)
    ):
        return Verdict.MEMORY_LIMIT, f"above {limits.memory_mib} MiB"
    # the kernel's limit counts whole ticks, which on a busy virtual machine are well above the time that was really used
    if outcome.code in (-24, -9) and outcome.cpu_seconds >= 0.5 * limits.cpu_seconds:
        return Verdict.TIMEOUT, f"above {limits.cpu_seconds:g} s of processor time"
    if outcome.code != 0:
        how = (
            f"ended by signal {-outcome.code}" if outcome.code < 0 else f"exit code {outcome.code}"
        )
        return Verdict.RUNTIME_ERROR, f"{how}; {last}" if last else how
    return None


def _compare(expected: Any, outcome: Outcome, judging: _Judging) -> tuple[Verdict, str]:
    """The verdict on what a program wrote, or on what its function returned."""
    if judging.function is None:
        fault = compare_output(expected, outcome.stdout, judging.judge, judging.tolerance)
        return (Verdict.WRONG, fault) if fault else (Verdict.CORRECT, "")
    if not outcome.result:
        return Verdict.RUNTIME_ERROR, f"{judging.function} gave no result"
    try:
        value = read_json(outcome.result)
    except (ValueError, RecursionError):
        return Verdict.RUNTIME_ERROR, "what it wrote as its result is no JSON value"
    is_same = same_value(expected, value, judging.tolerance) or (
        # APPS wraps the one result of a function into a list
        isinstance(expected, list)
        and len(expected) == 1
        and same_value(expected[0], value, judging.tolerance)
    )
    return (Verdict.CORRECT, "") if is_same else (Verdict.WRONG, "another result")
