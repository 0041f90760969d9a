"""Which answer does a trace imply? A command of the user's (eval.controls.implied_answer), for
tasks that know.

Where a trace was exchanged, it tells an answer that follows the new trace from one that keeps to
the old one. It reads one JSON object per line and writes one per line, in the same order:

    {"question_id": "q1", "question": "3+5*4", "check": {...}, "trace": "=1",
     "control": "continued"}                                                   (on one line)
    {"answer": "4"}

The trace may have only its first steps (control `continued`); the answer is what follows when the
other steps are done rightly. {"answer": null}: it cannot be told. `{run_dir}` in the command is the
folder of the run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .commands import ask_command, can_run, command_files, line_fault, parsed

KEY = "eval.controls.implied_answer"

ImpliedAnswers = Callable[[Sequence[Mapping[str, Any]]], list[str | None]]
"""From traces with their questions to the answer of each; None where it cannot be told."""


def implied_answer_fault(setting: str) -> str:
    """What is wrong with the command; empty when it can be run."""
    try:
        if can_run(setting):
            return ""
    except ValueError as error:
        return f"{KEY}: {setting!r} cannot be read ({error})"
    return f"{KEY}: {setting!r} is not a command that this machine has, such as python implied.py"


def implied_answer_files(setting: str) -> list[Path]:
    """The files that the command names; its answers depend on them."""
    return command_files(setting)


def open_implied_answers(setting: str, seconds: float, run_dir: str) -> ImpliedAnswers:
    """The command with the folder of the run filled in.

    Raises: when it is called, ValueError as `ask_command` does, and for a line without an answer.
    """
    command = setting.replace("{run_dir}", run_dir)

    def ask(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        lines = ask_command(KEY, command, seconds, rows)
        return [_answer(line, command) for line in lines]

    return ask


def _answer(line: str, command: str) -> str | None:
    """The answer on a line of the command.

    Raises: ValueError for a line without one.
    """
    found = parsed(line)
    if "answer" in found:
        answer = found["answer"]
        if answer is None or isinstance(answer, str):
            return answer
    example = json.dumps({"answer": "4"})
    raise line_fault(KEY, command, line, example)
