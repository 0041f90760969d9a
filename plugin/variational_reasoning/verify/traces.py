"""Is a trace itself acceptable? A check of traces whose answer is right (verify.trace_check).

A hint makes right answers for wrong reasons likely: a posterior that sees the solution can copy it
next to steps that do not lead there, and neither the answer nor rho shows that. A check is the name
of one of NAMED, or a command of the user's. Stage 7 starts the command once per shard. It reads one
JSON object per line and writes one per line, in the same order:

    {"question_id": "q1", "question": "...", "trace": "...", "solution": "...", "check": {...}}
    {"accepted": false, "reason": "step 3 has another term"}

It is the user's own program and runs without the sandbox, which is for programs that a model wrote.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    return f"mentions the hint: {found.group()!r}" if found else ""


NAMED: dict[str, Callable[[Mapping[str, Any]], str]] = {"no_mention_of_hint": no_mention_of_hint}
"""Checks by name: from a trace with its question to the reason of a refusal."""


def trace_check_fault(setting: str) -> str:
    """What is wrong with verify.trace_check; empty when it can be run."""
    if setting in NAMED:
        return ""
    try:
        words = shlex.split(setting)
    except ValueError as error:
        return f"verify.trace_check: {setting!r} cannot be read ({error})"
    if words and shutil.which(words[0]):
        return ""
    return (
        f"verify.trace_check: {setting!r} is neither one of {', '.join(NAMED)} nor a command that "
        "this machine has, such as python my_check.py"
    )


def trace_check_files(setting: str) -> list[Path]:
    """The files that a command names; its verdicts depend on them."""
    if setting in NAMED:
        return []
    return [Path(word) for word in shlex.split(setting) if Path(word).is_file()]


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
    return lambda rows: _run_command(setting, seconds, rows)


def _run_command(setting: str, seconds: float, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    where = f"verify.trace_check: {setting!r}"
    try:
        done = subprocess.run(
            shlex.split(setting),
            input=lines,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{where} took longer than {seconds:g} s for {len(rows)} traces; make it faster, or "
            "raise verify.trace_check_seconds"
        ) from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed no error"]
        raise ValueError(f"{where} failed with exit code {done.returncode}: {last[0]}")
    answers = done.stdout.splitlines()
    if len(answers) != len(rows):
        raise ValueError(
            f"{where} wrote {len(answers)} lines for {len(rows)} traces; one is needed"
        )
    return [_reason(answer, where) for answer in answers]


def _reason(answer: str, where: str) -> str:
    """The reason of a refusal in a line of a command, empty for an accepted trace."""
    try:
        found = json.loads(answer)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("accepted"), bool):
        raise ValueError(
            f'{where} wrote {answer!r:.80}; a line such as {{"accepted": true}} is needed'
        )
    return "" if found["accepted"] else str(found.get("reason") or "refused")
