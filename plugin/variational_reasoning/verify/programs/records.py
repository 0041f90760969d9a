r"""The tests of a program check, read from the records of public data sets (stage 7).

APPS, TACO: columns
    {"inputs": ["3\n"], "outputs": ["6\n"]}                      a script: text in, text out
    {"fn_name": "f", "inputs": [[3]], "outputs": [6]}            a function: arguments in, value out
LiveCodeBench: a list
    [{"input": "3\n", "output": "6\n", "testtype": "stdin"}]     a script
    [{"input": "3", "output": "6", "testtype": "functional"}]    a function that the check names as
                                                                 fn_name; an argument a line
"""

import json
from typing import Any, NamedTuple

from .compare import JUDGES, MAX_DIGITS, TOLERANCE


class Case(NamedTuple):
    """One test: what goes in (text, or the arguments of the function) and what must come out."""

    given: Any
    expected: Any


class Tests(NamedTuple):
    """The tests of a record.

    function: the one to call; None for programs that read standard input. judge: the default for
    records of this form.
    """

    cases: list[Case]
    function: str | None
    judge: str = "tokens"


def read_tests(check: dict[str, Any]) -> Tests:
    """The tests of a check of kind program.

    Raises: ValueError that says which field of the record is at fault.
    """
    tests = check.get("tests")
    if isinstance(tests, str):
        try:
            tests = read_json(tests)
        except (json.JSONDecodeError, RecursionError) as error:
            shown = repr(check["tests"][:60])
            raise ValueError(f"tests is not valid JSON ({error}): {shown}") from error
    function = check.get("fn_name")
    if isinstance(tests, list):
        return _read_list(tests, function)
    if isinstance(tests, dict):
        return _read_columns(tests, function)
    raise ValueError(
        f"tests is {repr(tests)[:60]}; it must be an object with inputs and outputs, or a list of "
        "tests"
    )


def _read_columns(tests: dict[str, Any], function: Any) -> Tests:
    """As APPS and TACO have them."""
    missing = []
    for name in ("inputs", "outputs"):
        if not isinstance(tests.get(name), list):
            missing.append(f"the list {name!r}")
    if missing:
        raise ValueError(f"tests lacks {' and '.join(missing)}")
    inputs = tests["inputs"]
    outputs = tests["outputs"]
    if len(inputs) != len(outputs):
        raise ValueError(f"tests has {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise ValueError("tests has no test: inputs is empty")
    function = tests.get("fn_name") or function
    cases = []
    pairs = zip(inputs, outputs, strict=True)
    for number, (given, expected) in enumerate(pairs):
        if function is None:
            given = _text(given, f"inputs[{number}]")
            expected = _text(expected, f"outputs[{number}]")
        elif not isinstance(given, list):
            raise ValueError(
                f"inputs[{number}] is {repr(given)[:60]}; with fn_name it must be the list of "
                "arguments"
            )
        cases.append(Case(given, expected))
    return Tests(cases, _name(function))


def _read_list(tests: list[Any], function: Any) -> Tests:
    """As LiveCodeBench has them."""
    if not tests:
        raise ValueError("tests has no test: the list is empty")
    usual_kind = "stdin" if function is None else "functional"
    cases = []
    kinds = set()
    for number, test in enumerate(tests):
        if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
            raise ValueError(
                f"tests[{number}] is {repr(test)[:60]}; it must be an object with input and output"
            )
        kind = test.get("testtype", usual_kind)
        if kind not in ("stdin", "functional"):
            raise ValueError(f"tests[{number}].testtype is {kind!r}, not stdin or functional")
        kinds.add(kind)
        given = _text(test["input"], f"tests[{number}].input")
        expected = _text(test["output"], f"tests[{number}].output")
        case = Case(given, expected)
        if kind == "functional":
            case = _functional(case, number)
        cases.append(case)
    if len(kinds) > 1:
        raise ValueError("tests mixes stdin and functional tests")
    if kinds == {"stdin"}:
        return Tests(cases, None, "lines_by_value")
    if function is None:
        raise ValueError("tests is functional and the check lacks 'fn_name', the function to call")
    return Tests(cases, _name(function))


def _functional(case: Case, number: int) -> Case:
    """Arguments and result from their JSON texts: an argument a line."""
    arguments = []
    try:
        for line in case.given.split("\n"):
            if line.strip():
                arguments.append(read_json(line))
        return Case(arguments, read_json(case.expected))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"tests[{number}] is functional and not JSON line by line ({error})"
        ) from error


def _name(function: Any) -> str | None:
    """The name of a function, or None. Raises: ValueError for anything else."""
    if function is None or (isinstance(function, str) and function.isidentifier()):
        return function
    raise ValueError(f"fn_name is {function!r}; it must be the name of a function")


def _text(value: Any, field: str) -> str:
    """A text, or a list of lines as one text."""
    text = value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        text = "\n".join(value)
    if not isinstance(text, str):
        raise ValueError(f"{field} is {repr(value)[:60]}; a test of standard input needs text")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{field} holds half of a surrogate pair, which is not text")
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
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not is_number or not 0 <= tolerance < 1:
        faults.append(f"tolerance is {tolerance!r}; it must be a number of at least 0 and below 1")
    solutions = check.get("solution", [])
    listed = [solutions]
    if isinstance(solutions, list):
        listed = solutions
    if not all(isinstance(solution, str) for solution in listed):
        faults.append(
            f"solution is {repr(solutions)[:60]}; it must be a program's text, or a list of such"
        )
    return faults


def read_json(text: str | bytes) -> Any:
    """A JSON value. An integer that is too long to be read quickly becomes a tuple of its text.

    No other JSON value is a tuple, so it only equals the same text.

    Raises: ValueError for what is not JSON; RecursionError for what is nested too deeply.
    """
    return json.loads(text, parse_int=_integer)


def _integer(text: str) -> int | tuple[str]:
    if len(text) > MAX_DIGITS:
        return (text,)
    return int(text)
