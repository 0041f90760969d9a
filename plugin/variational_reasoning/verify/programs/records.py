"""The tests of a program check, read from the records of public data sets (stage 7).

APPS, TACO      {"inputs": ["3\\n"], "outputs": ["6\\n"]}                         a script: text in, text out
                {"fn_name": "f", "inputs": [[3]], "outputs": [6]}                a function: arguments in, value out
LiveCodeBench   [{"input": "3\\n", "output": "6\\n", "testtype": "stdin"}]        with "fn_name" in the check for functions
"""

import json
from typing import Any, NamedTuple

from .compare import JUDGES, MAX_DIGITS, TOLERANCE


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
            tests = read_json(tests)
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
                given = [read_json(line) for line in given.split("\n") if line.strip()]
                expected = read_json(expected)
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


def read_json(text: str | bytes) -> Any:
    """A JSON value. An integer too long to be read quickly stays text, in a form that no other JSON value has: a tuple.

    Raises: ValueError for what is not JSON; RecursionError for what is nested too deeply.
    """
    return json.loads(text, parse_int=_integer)


def _integer(text: str) -> int | tuple[str]:
    """An integer; one too long to be read quickly stays text, in a form that no other JSON value has."""
    return int(text) if len(text) <= MAX_DIGITS else (text,)
