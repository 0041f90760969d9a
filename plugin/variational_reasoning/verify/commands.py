"""A command of the user's that answers JSON lines: one object per line in, one per line out, in the
same order. It is the user's own program and runs without the sandbox, which is for programs that a
model wrote.
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def can_run(command: str) -> bool:
    """Whether this machine has the program that a command begins with.

    Raises: ValueError for quotes that are not closed.
    """
    words = shlex.split(command)
    return bool(words) and shutil.which(words[0]) is not None


def command_files(command: str) -> list[Path]:
    """The files that a command names; what it answers depends on them."""
    paths = map(Path, shlex.split(command))
    return [path for path in paths if path.is_file()]


def ask_command(
    key: str, command: str, seconds: float, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The line that the command answers to each row.

    Args:
        key: of the configuration, for the errors.
        seconds: the wall time that it may take.

    Raises: ValueError for a command that fails, takes longer, or does not answer every line.
    """
    if not rows:
        return []
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    where = f"{key}: {command!r}"
    try:
        done = subprocess.run(
            shlex.split(command),
            input="".join(lines),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{where} took longer than {seconds:g} s for {len(rows)} traces; make it faster, or "
            f"raise {key}_seconds"
        ) from error
    if done.returncode != 0:
        errors = done.stderr.strip().splitlines() or ["it printed no error"]
        raise ValueError(f"{where} failed with exit code {done.returncode}: {errors[-1]}")
    answers = done.stdout.splitlines()
    if len(answers) != len(rows):
        raise ValueError(
            f"{where} wrote {len(answers)} lines for {len(rows)} traces; one is needed"
        )
    return answers


def parsed(line: str) -> dict[str, Any]:
    """The object on a line of a command; empty for anything else."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def line_fault(key: str, command: str, line: str, example: str) -> ValueError:
    """The error for a line that is not of the form that the example shows."""
    return ValueError(f"{key}: {command!r} wrote {line!r:.80}; a line such as {example} is needed")
