"""Does a program that a model wrote pass its tests? (stage 7, check kind `program`)

Takes the records of APPS and TACO (`inputs`, `outputs`, optional `fn_name`) and the test lists of LiveCodeBench
(`input`, `output`, `testtype`). Each test is one fresh process in the sandbox, which gets the input only; outputs are
compared here, after it has ended. The surprising thing: a program whose output is right and whose exit code is not 0 has
not passed, because a crash after the last line is a crash.
"""

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

from .entry import COMPILE_EXIT
from .runner import Program
from .sandbox import Limits, Outcome, Sandbox, SandboxError
from .verdicts import Result, Verdict

JUDGES = ("tokens", "tokens_across_lines", "lines_in_any_order")
"""tokens: the same tokens in the same order in each line. tokens_across_lines: where lines break does not count.
lines_in_any_order: the same lines, each compared token by token, in any order."""

TOLERANCE = 1e-6
"""Absolute or relative error of a float, unless the check says another `tolerance`."""

LANGUAGES = ("", "python", "python3", "py", "py3")

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")
_FLOAT = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_MAX_DIGITS = 4000


class Test(NamedTuple):
    """One test: what goes in (text, or the arguments of the function) and what must come out."""

    given: Any
    expected: Any


class Tests(NamedTuple):
    """The tests of a record; function is None for programs that read standard input."""

    cases: list[Test]
    function: str | None


def read_tests(check: dict[str, Any]) -> Tests:
    """The tests of a check of kind program.

    Raises: ValueError that says which field of the record is at fault.
    """
    tests = check.get("tests")
    if isinstance(tests, str):
        try:
            tests = json.loads(tests, parse_int=_integer)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"tests is not valid JSON ({error}): {check['tests'][:60]!r}"
            ) from error
    function = check.get("fn_name")
    if isinstance(tests, list):
        return _read_test_list(tests, function)
    if not isinstance(tests, dict):
        raise ValueError(
            f"tests is {repr(tests)[:60]}; it must be an object with inputs and outputs, or a list of tests"
        )
    missing = [name for name in ("inputs", "outputs") if not isinstance(tests.get(name), list)]
    if missing:
        raise ValueError("tests lacks " + " and ".join(f"the list {name!r}" for name in missing))
    inputs, outputs = tests["inputs"], tests["outputs"]
    if len(inputs) != len(outputs):
        raise ValueError(f"tests has {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise ValueError("tests has no test: inputs is empty")
    function = tests.get("fn_name") or function
    if function is None:
        cases = [
            Test(_text(given, f"inputs[{i}]"), _text(outputs[i], f"outputs[{i}]"))
            for i, given in enumerate(inputs)
        ]
    else:
        for number, given in enumerate(inputs):
            if not isinstance(given, list):
                raise ValueError(
                    f"inputs[{number}] is {repr(given)[:60]}; with fn_name it must be the list of arguments"
                )
        cases = [Test(given, expected) for given, expected in zip(inputs, outputs, strict=True)]
    return Tests(cases, _name(function))


def _read_test_list(tests: list[Any], function: str | None) -> Tests:
    if not tests:
        raise ValueError("tests has no test: the list is empty")
    cases = []
    kinds = set()
    for number, test in enumerate(tests):
        if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
            raise ValueError(
                f"tests[{number}] is {repr(test)[:60]}; it must be an object with input and output"
            )
        kind = test.get("testtype", "stdin" if function is None else "functional")
        if kind not in ("stdin", "functional"):
            raise ValueError(f"tests[{number}].testtype is {kind!r}, not stdin or functional")
        kinds.add(kind)
        given = _text(test["input"], f"tests[{number}].input")
        expected = _text(test["output"], f"tests[{number}].output")
        if kind == "functional":
            try:
                given = [
                    json.loads(line, parse_int=_integer)
                    for line in given.split("\n")
                    if line.strip()
                ]
                expected = json.loads(expected, parse_int=_integer)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(
                    f"tests[{number}] is functional and not JSON line by line ({error})"
                ) from error
        cases.append(Test(given, expected))
    if len(kinds) > 1:
        raise ValueError("tests mixes stdin and functional tests")
    if kinds == {"functional"} and function is None:
        raise ValueError("tests is functional and the check lacks 'fn_name', the function to call")
    return Tests(cases, _name(function) if kinds == {"functional"} else None)


def _name(function: Any) -> str | None:
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(f"fn_name is {function!r}; it must be the name of a function")
    return function


def _text(value: Any, field: str) -> str:
    text = (
        "\n".join(value)
        if isinstance(value, list) and all(isinstance(line, str) for line in value)
        else value
    )
    if not isinstance(text, str):
        raise ValueError(f"{field} is {repr(value)[:60]}; a test of standard input needs text")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{field} holds half of a surrogate pair, which is no text")
    return text


def program_faults(check: dict[str, Any]) -> list[str]:
    """What is wrong with a check of kind program, apart from unknown keys."""
    faults = []
    try:
        read_tests(check)
    except ValueError as error:
        faults.append(str(error))
    if check.get("judge", "tokens") not in JUDGES:
        faults.append(f"judge is {check['judge']!r}, not one of {', '.join(JUDGES)}")
    tolerance = check.get("tolerance", TOLERANCE)
    if (
        isinstance(tolerance, bool)
        or not isinstance(tolerance, int | float)
        or not 0 <= tolerance < 1
    ):
        faults.append(f"tolerance is {tolerance!r}; it must be a number of at least 0 and below 1")
    solutions = check.get("solution", [])
    if not isinstance(solutions, str) and not (
        isinstance(solutions, list) and all(isinstance(s, str) for s in solutions)
    ):
        faults.append(
            f"solution is {repr(solutions)[:60]}; it must be a program's text, or a list of such"
        )
    return faults


def extract_program(text: str) -> str | None:
    """The last complete fenced block whose language is Python or not named; None where there is none.

    Blocks of other languages are skipped, whatever their place. A fence closes at one of the same sign that is at least
    as long, so that a program may hold a text with shorter fences.
    """
    program, fence, language, lines = None, "", "", []
    for line in text.replace("\r\n", "\n").split(
        "\n"
    ):  # splitlines would also cut at U+2028 or a form feed in a program
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, language, lines = match[1], match[2].lower(), []
        elif (
            match
            and not match[2]
            and line.strip()[0] == fence[0]
            and len(match[1]) >= len(fence)
            and _is_bare(line)
        ):
            if language.strip("{}.") in LANGUAGES and any(part.strip() for part in lines):
                program = "\n".join(lines) + "\n"
            fence = ""
        else:
            lines.append(line)
    return program


def _is_bare(line: str) -> bool:
    return not line.strip().strip("`~")


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
        value = json.loads(outcome.result, parse_int=_integer)
    except (ValueError, RecursionError):
        return Verdict.RUNTIME_ERROR, "what it wrote as its result is no JSON value"
    is_same = same_value(expected, value, judging.tolerance) or (
        # APPS wraps the one result of a function into a list
        isinstance(expected, list)
        and len(expected) == 1
        and same_value(expected[0], value, judging.tolerance)
    )
    return (Verdict.CORRECT, "") if is_same else (Verdict.WRONG, "another result")


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
    return max(len(want), len(found)) <= _MAX_DIGITS and _close(
        float(want), float(found), tolerance
    )


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


def _integer(text: str) -> int | tuple[str]:
    """An integer; one too long to be read quickly stays text, in a form that no other JSON value has."""
    return int(text) if len(text) <= _MAX_DIGITS else (text,)
