"""Rows of LiveCodeBench's published schema, and pickles that must not be unpickled."""

import base64
import json
import os
import pickle
import zlib

import pytest

from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.programs import livecodebench
from variational_reasoning.verify.programs.livecodebench import livecodebench_check, unpickled_text
from variational_reasoning.verify.programs.records import read_tests

STDIN = [{"input": "3\n", "output": "6\n", "testtype": "stdin"}]
PRIVATE = [{"input": "4\n", "output": "8\n", "testtype": "stdin"}]


def packed(value, protocol=4):
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


PACKED = packed(json.dumps(PRIVATE))


def row(public=STDIN, private=PACKED, metadata=None):
    return {
        "question_id": "q7",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps(metadata or {}),
    }


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_public_and_private_tests_become_one_check(protocol):
    check = livecodebench_check(row(private=packed(json.dumps(PRIVATE), protocol)))
    assert check == {"kind": "program", "tests": STDIN + PRIVATE}
    assert check_faults(check) == []
    assert read_tests(check).cases == [("3\n", "6\n"), ("4\n", "8\n")]


def test_private_tests_may_be_plain_json():
    assert livecodebench_check(row(private=json.dumps(PRIVATE)))["tests"] == STDIN + PRIVATE


def test_functions_are_named_by_the_metadata():
    tests = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
    check = livecodebench_check(row(tests, packed(json.dumps(tests)), {"func_name": "total"}))
    assert check["fn_name"] == "total"
    assert read_tests(check).cases == [([[1, 2], 3], 6)] * 2


@pytest.mark.parametrize("text", ["", "a", "é\ud800", "x" * 300, "x" * 200_000])
@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_text_is_read_without_unpickling(text, protocol):
    assert unpickled_text(pickle.dumps(text, protocol)) == text


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(Evil()), "STACK_GLOBAL|REDUCE"),
        (pickle.dumps(Evil(), 2), "GLOBAL"),
        (pickle.dumps(["[]"]), "EMPTY_LIST"),
        (pickle.dumps(b"[]"), "SHORT_BINBYTES"),
        (pickle.dumps(7), "BININT1"),
        (pickle.dumps("[]", 0), "UNICODE"),
        (pickle.dumps("[]") + pickle.dumps(Evil()), "holds 1 texts"),
        (pickle.dumps("[]")[:-1], "pickle exhausted"),
        (b"\x80\x04.", "holds 0 texts"),
        (b"\x80\x04\x8c\x02[]\x8c\x02[].", "holds 2 texts"),
        (b"", "pickle exhausted"),
        (b"\xff", "unknown"),
    ],
)
def test_any_other_pickle_is_refused_and_not_run(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    private = base64.b64encode(zlib.compress(data)).decode()
    with pytest.raises(
        ValueError,
        match=f"(?s)question q7: private_test_cases is refused as a pickle: .*({message})",
    ):
        livecodebench_check(row(private=private))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"private_test_cases": "###"}, "neither a JSON list nor base64"),
        ({"private_test_cases": base64.b64encode(b"no zlib").decode()}, "not zlib data"),
        (
            {"private_test_cases": base64.b64encode(zlib.compress(b"x" * 99)[:-2]).decode()},
            "cut short",
        ),
        ({"private_test_cases": packed("{}")}, "private_test_cases is '{}', not a JSON list"),
        ({"private_test_cases": packed("[")}, "private_test_cases is not valid JSON"),
        ({"private_test_cases": 5}, "private_test_cases is '5'; it must be text"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "tests has no test"),
        ({"metadata": "[]"}, "metadata is '\\[\\]', not a JSON object"),
        ({"metadata": "{"}, "metadata is not valid JSON"),
        ({"private_test_cases": '[{"input": "1"}]'}, r"tests\[1\] is .*input and output"),
        (
            {"public_test_cases": '[{"input": "1", "output": "1", "testtype": "functional"}]'},
            "mixes stdin and functional",
        ),
    ],
)
def test_rows_that_cannot_be_right_are_refused_by_question_and_field(change, message):
    with pytest.raises(ValueError, match=f"LiveCodeBench question q7: .*{message}"):
        livecodebench_check(row() | change)


def test_a_row_without_a_field_is_refused():
    with pytest.raises(ValueError, match="question q7 lacks metadata"):
        livecodebench_check({key: value for key, value in row().items() if key != "metadata"})


def test_data_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(livecodebench, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="decompresses to more than 1000 bytes"):
        livecodebench_check(row(private=packed(json.dumps([{"input": "x" * 5000}]))))
