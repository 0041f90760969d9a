"""Whether a program that a model wrote passes its tests (stage 7, check kind `program`).

Each test runs in a fresh process in the sandbox, which only gets the input. Outputs are compared
here, after it has ended. A program that crashes after writing the right output has not passed.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from ..sandbox.inside.entry import COMPILE_EXIT
from ..sandbox.runner import Program
from ..sandbox.sandbox import Limits, Outcome, Sandbox, SandboxError
from ..verdicts import Result, Verdict
from .blocks import extract_program
from .compare import TOLERANCE, compare_output, same_value
from .records import Case, read_json, read_tests

_SHORTEST_WALL_SECONDS = 0.05

_CPU_SIGNALS = (-9, -24)
"""SIGKILL and SIGXCPU: how the kernel ends a program that has used up its processor time."""


def check_program(
    check: dict[str, Any],
    solution: str,
    sandbox: Sandbox | Callable[[str], Sandbox],
    limits: Limits,
    total_seconds: float,
) -> Result:
    """Run a solution's program on its tests, up to the first that it fails.

    Args:
        solution: the solution part of an answer.
        sandbox: where it runs, or a function that gives the sandbox for a program's text.
        limits: of each test. A program that passes the wall limit with processor time left is
            tried once more.
        total_seconds: wall limit of all tests together.

    Returns: correct only when every test has passed, and there is at least one.

    Raises: SandboxError when the sandbox fails twice in a row on the same test.
    """
    cases, function, usual_judge = read_tests(check)
    program = extract_program(solution, function)
    if program is None:
        return Result(Verdict.NO_ANSWER, "no complete fenced block of Python")
    if function is None and not any(case.expected.strip() for case in cases):
        return Result(Verdict.UNVERIFIABLE, "no test expects any output")
    judging = _Judging(
        function,
        check.get("judge", usual_judge),
        check.get("tolerance", TOLERANCE),
        limits,
    )
    place = sandbox
    if not isinstance(place, Sandbox):
        place = place(program)
    left = total_seconds
    with Program(place, program, limits, function) as opened:
        for number, case in enumerate(cases, 1):
            verdict, reason, seconds, _ = _run_case(case, opened, judging, left)
            left -= seconds
            if verdict is not Verdict.CORRECT:
                reason = f"test {number} of {len(cases)}: {reason}"
                return Result(verdict, reason, total_seconds - left)
            if left <= 0 and number < len(cases):
                reason = f"above {total_seconds:g} s after {number} of {len(cases)} tests"
                return Result(Verdict.TIMEOUT, reason, total_seconds)
    return Result(Verdict.CORRECT, f"{len(cases)} tests", total_seconds - left)


class _Judging(NamedTuple):
    """The settings for every test of a program."""

    function: str | None
    judge: str
    tolerance: float
    limits: Limits


def _run_case(case: Case, program: Program, judging: _Judging, left: float) -> Result:
    """The verdict on one test, within `left` seconds."""
    wall_seconds = min(judging.limits.wall_seconds, left)
    wall_seconds = max(wall_seconds, _SHORTEST_WALL_SECONDS)
    limits = replace(judging.limits, wall_seconds=wall_seconds)
    given = case.given
    if judging.function is None:
        given = given.encode()
    outcome, seconds = _run_patiently(given, program, limits, left)
    verdict, reason = _failure(outcome, limits) or _compare(case.expected, outcome, judging)
    return Result(verdict, reason, seconds)


def _run_patiently(
    given: bytes | list[Any], program: Program, limits: Limits, left: float
) -> tuple[Outcome, float]:
    """How a test ended, and the wall seconds that it took in all.

    A sandbox that fails gets a second try. So does a program that passes the wall limit while it
    computes, because the machine may be busy. With limits of 9 s wall time and 4 s processor time:

        processor time    the program     second try
        below 1.8 s       sleeps          no
        1.8 to 3.6 s      had to wait     yes
        above 3.6 s       is too slow     no
    """
    seconds = 0.0
    has_failed = False
    has_waited = False
    while True:
        try:
            outcome = program.run(given, limits.wall_seconds)
        except SandboxError:
            if has_failed:
                raise
            has_failed = True
            continue
        seconds += outcome.wall_seconds
        computes = outcome.cpu_seconds > 0.2 * limits.wall_seconds
        is_starved = computes and outcome.cpu_seconds < 0.9 * limits.cpu_seconds
        if outcome.limit != "wall" or not is_starved or has_waited or seconds >= left:
            return outcome, seconds
        has_waited = True


def _failure(outcome: Outcome, limits: Limits) -> tuple[Verdict, str] | None:
    """The verdict on a program that did not end by itself with exit code 0, else None."""
    lines = outcome.stderr.strip().splitlines()
    last = ""
    if lines:
        last = lines[-1][:200]
    if outcome.limit == "wall":
        return Verdict.TIMEOUT, f"above {limits.wall_seconds:g} s"
    if outcome.limit == "output":
        return Verdict.OUTPUT_LIMIT, f"above {limits.output_mib:g} MiB of output"
    if outcome.limit == "files":
        return Verdict.OUTPUT_LIMIT, "above the room for files"
    if outcome.code == COMPILE_EXIT and not outcome.stdout and not outcome.result:
        return Verdict.COMPILE_ERROR, last
    ran_out = outcome.code != 0 and re.match(r"(\w+\.)*_?\w*MemoryError\b", last)
    if outcome.limit == "memory" or ran_out:
        return Verdict.MEMORY_LIMIT, f"above {limits.memory_mib} MiB"
    # The kernel counts whole ticks. On a busy virtual machine they are more than the time used.
    if outcome.code in _CPU_SIGNALS and outcome.cpu_seconds >= 0.5 * limits.cpu_seconds:
        return Verdict.TIMEOUT, f"above {limits.cpu_seconds:g} s of processor time"
    if outcome.code == 0:
        return None
    how = f"exit code {outcome.code}"
    if outcome.code < 0:
        how = f"ended by signal {-outcome.code}"
    if last:
        how = f"{how}; {last}"
    return Verdict.RUNTIME_ERROR, how


def _compare(expected: Any, outcome: Outcome, judging: _Judging) -> tuple[Verdict, str]:
    """The verdict on what a program wrote, or on what its function returned."""
    if judging.function is None:
        fault = compare_output(expected, outcome.stdout, judging.judge, judging.tolerance)
        if fault:
            return Verdict.WRONG, fault
        return Verdict.CORRECT, ""
    if not outcome.result:
        return Verdict.RUNTIME_ERROR, f"{judging.function} gave no result"
    try:
        value = read_json(outcome.result)
    except (ValueError, RecursionError):
        return Verdict.RUNTIME_ERROR, "what it wrote as its result is not a JSON value"
    accepted = [expected]
    if isinstance(expected, list) and len(expected) == 1:
        accepted.append(expected[0])  # APPS wraps the one result of a function into a list
    for one in accepted:
        if same_value(one, value, judging.tolerance):
            return Verdict.CORRECT, ""
    return Verdict.WRONG, "another result"
