"""The command that says which answer a trace implies."""

import shlex
import sys

import pytest

from variational_reasoning.verify.implied import (
    implied_answer_fault,
    implied_answer_files,
    open_implied_answers,
)

ROWS = [{"question_id": "a", "trace": "=1"}, {"question_id": "b", "trace": "é"}]


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_an_answer_per_line_and_the_folder_of_the_run():
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    trace = json.loads(line)['trace']\n"
        "    print(json.dumps({'answer': sys.argv[1] if trace == 'é' else None}))"
    )
    setting = command(code) + " {run_dir}"
    assert open_implied_answers(setting, 60, "runs/x")(ROWS) == [None, "runs/x"]
    assert open_implied_answers(setting, 60, "runs/x")([]) == []


@pytest.mark.parametrize(
    "code, fault",
    [
        ("print('{}'); print('{}')", 'a line such as {"answer": "4"} is needed'),
        ("print('{\"answer\": 4}'); print()", "a line such as"),
        ("pass", "wrote 0 lines for 2 traces"),
        ("import sys; sys.exit('no run')", "failed with exit code 1: no run"),
    ],
)
def test_commands_that_do_not_answer(code, fault):
    with pytest.raises(ValueError, match=r"^eval\.controls\.implied_answer: ") as error:
        open_implied_answers(command(code), 60, "")(ROWS)
    assert fault in str(error.value)


def test_what_cannot_be_run_is_a_fault(tmp_path):
    assert implied_answer_fault("'open") == (
        'eval.controls.implied_answer: "\'open" cannot be read (No closing quotation)'
    )
    assert "is not a command that this machine has" in implied_answer_fault("no_such_program x")
    assert implied_answer_fault(command("pass")) == ""
    (tmp_path / "a.py").write_text("")
    assert implied_answer_files(f"python {tmp_path}/a.py") == [tmp_path / "a.py"]
