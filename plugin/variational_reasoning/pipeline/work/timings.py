"""How long each stage took: run_dir/timings.jsonl.

Each command that did something appends a line {"stage": ..., "seconds": ...}. The seconds of a
stage are summed over its lines, because an interrupted and resumed stage needed them all. A command
that finds its work done appends nothing. A command that times a training appends the same line.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from variational_reasoning.files import read_json_lines

TIMINGS = "timings.jsonl"


@dataclass
class Timing:
    """What `timed` yields; set `did_something` to False when the stage was finished before."""

    did_something: bool = True


@contextmanager
def timed(run_dir: str | os.PathLike, stage: str) -> Iterator[Timing]:
    """Append the wall seconds of the enclosed block under `stage`.

    Nothing is appended when the block raises, or did nothing.
    """
    timing = Timing()
    start = time.monotonic()
    yield timing
    if timing.did_something:
        record(run_dir, stage, time.monotonic() - start)


def record(run_dir: str | os.PathLike, stage: str, seconds: float) -> None:
    """Append one line. It is a single write, so that two processes cannot mix their lines."""
    path = Path(run_dir, TIMINGS)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"stage": stage, "seconds": round(seconds, 3)})
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def read_timings(run_dir: str | os.PathLike) -> dict[str, float]:
    """Stage to summed seconds, in the order of first appearance; empty without a file.

    Raises: ValueError for a line that is not of this form, with its number.
    """
    path = Path(run_dir, TIMINGS)
    seconds: dict[str, float] = {}
    if not path.is_file():
        return seconds
    for number, entry in read_json_lines(path):
        try:
            seconds[entry["stage"]] = seconds.get(entry["stage"], 0.0) + float(entry["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not {{'stage': ..., 'seconds': ...}}: {entry!r:.80}"
            ) from error
    return seconds
