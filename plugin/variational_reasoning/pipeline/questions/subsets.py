"""A fixed subset of questions: chosen by a seed, kept as a list of ids, read back (stage 0; the
paper's 1K settings).

The chosen ids are those with the smallest sha256 of "<seed> <id>". Unlike a shuffle this depends on
no library's random numbers and on no order of the rows, and a few more rows change a few of the
chosen only.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

COMMENT = "#"


def choose_ids(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of these ids, in their order.

    Raises: ValueError for repeated ids and for fewer than `count`.
    """
    num_repeated = len(ids) - len(set(ids))
    if num_repeated:
        raise ValueError(f"{num_repeated} of the {len(ids)} ids to choose from are repeated")
    if not 1 <= count <= len(ids):
        raise ValueError(f"count is {count}; there are {len(ids)} ids to choose from")
    ranked = sorted(ids, key=lambda name: (_rank(name, seed), name))
    chosen = set(ranked[:count])
    return [name for name in ids if name in chosen]


def _rank(name: str, seed: int) -> int:
    """The ids of the smallest ranks are chosen."""
    hashed = hashlib.sha256(f"{seed} {name}".encode())
    return int.from_bytes(hashed.digest(), "big")


class IdChooser:
    """`choose_ids` for ids that come one after another, repeated or not, without keeping them.

    With at_most=2 and ids whose ranks are 50, 20, 70, 10 the two smallest so far are kept:

        {50}    {20, 50}    {20, 50}    {10, 20}

    An id that was dropped never comes back, since the largest rank that is kept only falls. So the
    occurrences of those that remain are counted exactly.
    """

    def __init__(self, at_most: int, seed: int, count_up_to: int) -> None:
        """Args: count_up_to: different ids beyond this number are not told apart."""
        self._at_most = at_most
        self._seed = seed
        self._count_up_to = count_up_to
        self._largest_first: list[tuple[int, str]] = []
        """A heap of (-rank, id): `heapq` pops the smallest entry, which is the largest rank."""
        self._occurrences: dict[str, int] = {}
        self._ranks: set[int] = set()

    @property
    def num_different(self) -> int:
        """How many different ids came, or count_up_to where there were more."""
        return len(self._ranks)

    def add(self, name: str) -> None:
        """Take the next id."""
        if name in self._occurrences:
            self._occurrences[name] += 1
            return
        rank = _rank(name, self._seed)
        if len(self._ranks) < self._count_up_to:
            self._ranks.add(rank)
        heapq.heappush(self._largest_first, (-rank, name))
        self._occurrences[name] = 1
        if len(self._largest_first) > self._at_most:
            _, dropped = heapq.heappop(self._largest_first)
            del self._occurrences[dropped]

    def chosen(self, count: int) -> dict[str, int]:
        """The `count` ids of the smallest ranks, and how often each came."""
        # (-10, a), (-20, b): descending entries are ascending ranks.
        smallest_first = sorted(self._largest_first, reverse=True)
        return {name: self._occurrences[name] for _, name in smallest_first[:count]}


def format_ids(ids: Iterable[str], header: Sequence[str]) -> str:
    """The text of a list of ids: a comment line per header line, then an id per line."""
    lines = [f"{COMMENT} {line}" for line in header]
    lines += ids
    return "".join(f"{line}\n" for line in lines)


def read_ids(path: Path) -> list[str]:
    """The ids of a file with one per line; empty lines and lines that begin with # do not count.

    Raises: FileNotFoundError; ValueError for a file without an id and for repeated ids.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (data.question_ids)")
    ids = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        name = line.strip()
        if name and not name.startswith(COMMENT):
            ids.append(name)
    if not ids:
        raise ValueError(f"{path} (data.question_ids) has no id; it needs one per line")
    uses = Counter(ids)
    repeated = [name for name, count in uses.items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path} (data.question_ids): {len(repeated)} ids are there more than once, such as "
            f"{repeated[0]!r}"
        )
    return ids
