"""Records as the data sets hold them."""

import json
import re

import pytest

from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.programs.records import read_tests

from ..conftest import DOUBLE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": "[1"}, "tests is not valid JSON"),
        ({"tests": []}, "the list is empty"),
        ({"tests": {"inputs": ["1"]}}, "lacks the list 'outputs'"),
        ({"tests": {"inputs": [5], "outputs": ["1"]}}, r"inputs\[0\] is 5;"),
        (
            {"tests": {"inputs": ["1"], "outputs": ["1"], "fn_name": "f"}},
            r"inputs\[0\] is '1'; with fn_name",
        ),
        ({"tests": {"inputs": [[1]], "outputs": [1], "fn_name": "f()"}}, "fn_name is"),
        ({"tests": [{"input": "1"}]}, r"tests\[0\]"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "lacks 'fn_name'"),
        ({"judge": "sets"}, "judge is 'sets', not one of tokens"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"solution": 5}, "solution is 5;"),
        ({"tset": 1}, r"unknown keys \['tset'\]"),
    ],
)
def test_records_that_cannot_be_right_are_refused(change, message):
    faults = check_faults({"kind": "program", "tests": DOUBLE} | change)
    assert faults
    assert re.search(message, "; ".join(faults))


def test_lists_of_lines_and_json_text_are_records_too():
    check = {"kind": "program", "tests": json.dumps({"inputs": [["1", "2"]], "outputs": [["3"]]})}
    assert read_tests(check).cases == [("1\n2", "3")]
    assert check_faults(check) == []


def test_tests_of_livecodebench_are_compared_by_value_unless_the_check_says_otherwise():
    test = {"input": "3\n", "output": "6\n", "testtype": "stdin"}
    assert read_tests({"tests": [test]}).judge == "lines_by_value"
    assert read_tests({"tests": {"inputs": ["3"], "outputs": ["6"]}}).judge == "tokens"
