"""A fixed subset of questions: chosen by a seed, kept as a list of ids, read back (stage 0; the
paper's 1K settings).

The chosen ids are those with the smallest sha256 of "<seed> <id>". Unlike a shuffle this depends on
no library's random numbers and on no order of the rows, and a few more rows change a few of the
chosen only.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

COMMENT = "#"


def choose_ids(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of these ids, in their order. Raises: ValueError for repeated ids and for fewer than
    `count`.
    """
    if len(set(ids)) != len(ids):
        raise ValueError(
            f"{len(ids) - len(set(ids))} of the {len(ids)} ids to choose from are repeated"
        )
    if not 1 <= count <= len(ids):
        raise ValueError(f"count is {count}; there are {len(ids)} ids to choose from")
    chosen = set(
        sorted(ids, key=lambda name: (hashlib.sha256(f"{seed} {name}".encode()).digest(), name))[
            :count
        ]
    )
    return [name for name in ids if name in chosen]


def format_ids(ids: Iterable[str], header: Sequence[str]) -> str:
    """The text of a list of ids: a comment line per header line, then an id per line."""
    return "".join([f"{COMMENT} {line}\n" for line in header] + [f"{name}\n" for name in ids])


def read_ids(path: Path) -> list[str]:
    """The ids of a file with one per line; empty lines and lines that begin with # do not count.

    Raises: FileNotFoundError; ValueError for a file without an id and for repeated ids.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (data.question_ids)")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
    ids = [line for line in lines if line and not line.startswith(COMMENT)]
    if not ids:
        raise ValueError(f"{path} (data.question_ids) has no id; it needs one per line")
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path} (data.question_ids): {len(repeated)} ids are there more than once, such as "
            f"{repeated[0]!r}"
        )
    return ids
