"""How many rows of a table may fail before its stage ends with an error (stages 3 to 7,
evaluation).

The failed rows of all shards on disk count, whichever process wrote them. If each process only
counted its own rows, a second try or more processes could pass the limit unnoticed:

    limit 1 of 100 rows, two failed rows in each of shard 0 and shard 1
    counted per process    run 1 stops at shard 1; run 2 finds shard 0 done and starts from zero
    counted on disk        run 2 finds the failures of shard 0, and stops as run 1 did

The limit is checked before a shard is written, before the manifest is written, and when a finished
table is opened.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from variational_reasoning.faults import list_names
from variational_reasoning.pipeline.rows import MANIFEST, Stage, shard_name

_NUM_LISTED = 20


@dataclass(frozen=True)
class FailureLimit:
    """A fraction of a table's rows that may fail.

    setting: the configuration's key. total: how many rows of the whole table can fail.
    message: of the error, with {count} and {total}.
    is_failure: whether a row on disk counts as failed, from its `columns`. By default only the rows
    count that the engine could not compute (`Stage.write_shard`, failed).
    may_fail: whether a shard can have such rows, from its counts. A shard of another process is
    read only then.
    at_end: whether the limit is only checked with the last shard, so that all shards are kept.
    """

    setting: str
    fraction: float
    total: Callable[[], int]
    message: str = "{count} of {total} rows failed"
    columns: tuple[str, ...] = ()
    is_failure: Callable[[Mapping[str, Any]], bool] | None = None
    may_fail: Callable[[Mapping[str, int]], bool] = lambda counts: True
    at_end: bool = False


class FailureCount:
    """The failed rows of a table that is being filled: how many each shard has, and their reasons,
    but not the rows.
    """

    def __init__(self, stage: Stage, limit: FailureLimit) -> None:
        self.stage = stage
        self.limit = limit
        self._on_disk: dict[int, int] = {}
        """Shard to the number of its failed rows."""
        self._reasons: Counter[str] = Counter()
        self._example: Mapping[str, Any] = {}
        """The first failed row."""

    def check_shard(
        self, rows: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]
    ) -> None:
        """Raises: ValueError when a shard that is about to be written passes the limit."""
        if not self.limit.at_end:
            self._check(self._failures(rows, failed))

    def check(self) -> None:
        """Raises: ValueError when the shards on disk pass the limit."""
        if not self.limit.at_end or not any(self.stage.pending()):
            self._check([])

    def _check(self, more: Sequence[Mapping[str, Any]]) -> None:
        """Raises: ValueError when the shards on disk and `more` failed rows pass the limit."""
        self._read_new_shards()
        num_on_disk = sum(self._on_disk.values())
        count = len(more) + num_on_disk
        if count == 0:
            return
        total = self.limit.total()
        allowed = self.limit.fraction * total
        if count <= allowed:
            return
        reasons = self._reasons.copy()
        reasons.update(str(row["reason"]) for row in more)
        most_common = dict(reasons.most_common(5))
        first = self._example
        if more:
            first = more[0]
        example = {name: value for name, value in first.items() if name.endswith("_id")}
        message = self.limit.message.format(count=count, total=total)
        raise ValueError(
            f"{self.stage.folder}: {message}, above {self.limit.setting} {self.limit.fraction}; "
            f"reasons: {most_common}, for example {example}. {self._remedy()}"
        )

    def _read_new_shards(self) -> None:
        """Count the failed rows of the shards that have come to the disk since the last time."""
        # One listing of the folder, where asking for every shard would be thousands of calls.
        there = {path.name for path in self.stage.folder.glob("shard-*.parquet")}
        for index in range(len(self.stage.shards)):
            is_new = index not in self._on_disk and shard_name(index) in there
            if not is_new:
                continue
            statistics = self.stage.statistics(index)
            rows: Sequence[Mapping[str, Any]] = []
            columns = self.limit.columns
            if columns and self.limit.may_fail(statistics["counts"]):
                rows = self.stage.read_shard(index, columns)
            failures = self._failures(rows, statistics["failed"])
            self._on_disk[index] = len(failures)
            self._reasons.update(str(row["reason"]) for row in failures)
            if failures and not self._example:
                self._example = failures[0]

    def _failures(
        self, rows: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """The failed rows of a shard.

        Args:
            rows: what the engine computed, of which some may count as failed.
            failed: what it could not compute.
        """
        failures = list(failed)
        if self.limit.is_failure is not None:
            failures += filter(self.limit.is_failure, rows)
        return failures

    def _remedy(self) -> str:
        """What to do: which files to remove, where there are any."""
        files = [shard_name(index) for index, count in self._on_disk.items() if count]
        if not files:
            return f"Nothing of it was written; fix the cause, or raise {self.limit.setting}"
        if (self.stage.folder / MANIFEST).is_file():
            files.insert(0, MANIFEST)
        listed = list_names(files, _NUM_LISTED)
        return (
            f"To try these rows again, remove from {self.stage.folder}: {listed}. "
            f"To keep them as they are, raise {self.limit.setting}. All other shards stay valid"
        )
