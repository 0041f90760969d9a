"""Checks of traces: the named one on sentences, and the protocol of a command with its faults."""

import sys

import pytest

from variational_reasoning.verify.traces import (
    no_mention_of_hint,
    open_trace_check,
    trace_check_fault,
    trace_check_files,
)

SCRIPT = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    is_short = len(row["trace"]) < 5
    print(json.dumps({"accepted": not is_short, "reason": f"{row['question_id']} is short"}))
"""


@pytest.mark.parametrize(
    ("trace", "is_accepted"),
    [
        ("First, 3 + 4 = 7, so the answer is 7.", True),
        ("A solution is 7, since the solution of the equation is unique.", True),
        ("As the given solution says, it is 7.", False),
        ("According to the answer, it is 7.", False),
        ("The hint says 7.", False),
        ("The Reference Answer is 7.", False),
    ],
)
def test_mentions_of_the_hint(trace, is_accepted):
    assert (no_mention_of_hint({"trace": trace}) == "") is is_accepted


def rows(*traces):
    return [{"question_id": f"q{i}", "trace": trace} for i, trace in enumerate(traces)]


def command_of(tmp_path, script):
    path = tmp_path / "check.py"
    path.write_text(script)
    return f"{sys.executable} {path}"


def test_a_command_reads_and_writes_a_line_per_trace(tmp_path):
    command = command_of(tmp_path, SCRIPT)
    assert trace_check_fault(command) == ""
    assert tmp_path / "check.py" in trace_check_files(command)
    check = open_trace_check(command, seconds=60)
    assert check(rows("long enough", "no", "a\nline\nbreak")) == ["", "q1 is short", ""]
    assert check([]) == []


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("import sys; sys.exit('no such file')", "failed with exit code 1: no such file"),
        ("print('{}')", "wrote '{}'; a line such as {\"accepted\": true} is needed"),
        ("pass", "wrote 0 lines for 1 traces"),
        ("import time; time.sleep(600)", "took longer than 0.2 s for 1 traces"),
    ],
)
def test_a_command_that_does_not_answer_is_named(tmp_path, script, fault):
    seconds = 0.2 if "sleep" in script else 60
    check = open_trace_check(command_of(tmp_path, script), seconds)
    with pytest.raises(ValueError, match="verify.trace_check") as error:
        check(rows("x"))
    assert fault in str(error.value)


def test_settings_that_cannot_be_run_are_named():
    assert trace_check_fault("no_mention_of_hint") == ""
    assert "neither one of no_mention_of_hint nor a command" in trace_check_fault("no_such_check")
    assert "cannot be read" in trace_check_fault("python 'x")
    assert trace_check_fault("") != ""
