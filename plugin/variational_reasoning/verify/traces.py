"""Is a trace itself acceptable? A check of traces whose answer is right (verify.trace_check).

A hint makes right answers for wrong reasons likely: a posterior that sees the solution can copy it
next to steps that do not lead there, and neither the answer nor rho shows that. A check is the name
of one of NAMED, or a command of the user's. Stage 7 starts the command once per shard. It reads one
JSON object per line and writes one per line, in the same order:

    {"question_id": "q1", "question": "...", "trace": "...", "solution": "...", "check": {...}}
    {"accepted": false, "reason": "step 3 has another term"}

It runs without the sandbox (commands.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .commands import ask_command, can_run, command_files, line_fault, parsed

KEY = "verify.trace_check"

TraceCheck = Callable[[Sequence[Mapping[str, Any]]], list[str]]
"""From traces with their questions to a reason each; empty for a trace that is accepted."""

_MENTIONS = re.compile(
    r"\b(?:given|provided|reference|correct|known)\s+(?:solution|answer)\b"
    r"|\b(?:the|a)\s+hint\b"
    r"|\b(?:solution|answer)\s+(?:is|was)\s+(?:already\s+)?(?:given|provided)\b"
    r"|\baccording to the (?:solution|answer)\b",
    re.IGNORECASE,
)


def no_mention_of_hint(row: Mapping[str, Any]) -> str:
    """Why a trace is refused that says where it has its answer from, in English."""
    found = _MENTIONS.search(row["trace"])
    if found is None:
        return ""
    return f"mentions the hint: {found.group()!r}"


NAMED: dict[str, Callable[[Mapping[str, Any]], str]] = {"no_mention_of_hint": no_mention_of_hint}
"""Checks by name: from a trace with its question to the reason of a refusal."""


def trace_check_fault(setting: str) -> str:
    """What is wrong with verify.trace_check; empty when it can be run."""
    if setting in NAMED:
        return ""
    try:
        if can_run(setting):
            return ""
    except ValueError as error:
        return f"{KEY}: {setting!r} cannot be read ({error})"
    return (
        f"{KEY}: {setting!r} is neither one of {', '.join(NAMED)} nor a command that "
        "this machine has, such as python my_check.py"
    )


def trace_check_files(setting: str) -> list[Path]:
    """The files that a command names; its verdicts depend on them."""
    if setting in NAMED:
        return []
    return command_files(setting)


def open_trace_check(setting: str, seconds: float) -> TraceCheck:
    """The check of this setting.

    Args:
        seconds: the wall time of a command for the traces of one call.

    Raises: when it is called, ValueError for a command that fails, takes longer, or does not
    answer every line.
    """
    if setting in NAMED:
        named = NAMED[setting]
        return lambda rows: [named(row) for row in rows]

    def check(rows: Sequence[Mapping[str, Any]]) -> list[str]:
        lines = ask_command(KEY, setting, seconds, rows)
        return [_reason(line, setting) for line in lines]

    return check


def _reason(line: str, setting: str) -> str:
    """The reason of a refusal in a line of a command, empty for an accepted trace."""
    found = parsed(line)
    if not isinstance(found.get("accepted"), bool):
        raise line_fault(KEY, setting, line, '{"accepted": true}')
    if found["accepted"]:
        return ""
    return str(found.get("reason") or "refused")
