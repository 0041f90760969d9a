"""A finished table as its readers need it: what all rows say in a few bytes, and the rows of some
questions.

A stage plans with every row of its input (which units are there, how long are they) and works on a
few units at a time. At the paper's scale the table of traces has 133,680 rows of 6,000 ids and
their text, 6 GB, and its summary has 2 MB:

    reader = TableReader(folder, "traces")
    reader.summary       question_id  trace_id  finish_reason  is_well_formed     num_tokens  shard
                         q0           0         stop           true                 5213        0
                         q0           1         length         false                16000       0
    reader.rows_of(["q0"], ["token_ids"])       reads shard 0 and nothing else

The summary is kept in `summary.parquet` next to the shards, with the digest of the table it belongs
to. Whoever finishes the table makes it, or the first reader of a table that has none.

A shard is compared with the manifest's digest when it is read, once per process. Where the summary
is read in place of the shards, hashing them all would cost more than the work. So
`shard_states.json` keeps each shard's size and time of change, as they were when its digest was
right. It is a file of its own, because a table's other files have the same bytes in every run.

    shard         kept           on disk        what a reader of the summary does
    shard-00000   12 MB, 10:00   12 MB, 10:00   nothing
    shard-00001   12 MB, 10:01   12 MB, 11:30   hashes it: a copy, and the new time is kept
    shard-00002   12 MB, 10:02   11 MB, 11:31   hashes it: changed, and refused by name
    shard-00003   12 MB, 10:03                  refused by name: it is missing
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variational_reasoning.files import file_state, write_atomically
from variational_reasoning.pipeline.rows import (
    check_shard,
    digest_of,
    group_by,
    read_manifest,
    read_parquet,
)
from variational_reasoning.pipeline.tables import TABLES

SUMMARY = "summary.parquet"
STATES = "shard_states.json"
LARGE_COLUMNS = frozenset(
    (
        "text",
        "token_ids",
        "trace_token_logps",
        "answer_token_logps",
        "reason",
        "question",
        "trace",
        "solution",
        "check",
        "prompt",
        "response",
    )
)
"""Columns that grow with the length of a text. A summary has the number of `token_ids` in their
place.
"""

_DIGEST = b"variational_reasoning.digest"

States = Mapping[str, list[int] | None]
"""Shard to its `file_state`."""


class TableReader:
    """A finished table.

    manifest: what the writer said of it. digest: that of `rows.table_digest`.
    """

    def __init__(self, folder: Path, table: str, checked: States | None = None) -> None:
        """
        Args:
            checked: the states of shards that the caller has just compared with the digests.

        Raises: ValueError for a table that is not finished, or is another one.
        """
        self.folder = folder
        self.table = table
        self._schema = TABLES[table]
        self.manifest = read_manifest(folder, table)
        self.digest = digest_of(self.manifest)
        self._checked = dict(checked or {})
        """Shard to its state when its digest was right."""
        self._last: tuple[tuple[str, tuple[str, ...]], pa.Table] | None = None

    @cached_property
    def summary(self) -> pa.Table:
        """All rows in the table's order: every column but the large ones, `num_tokens`, and the
        `shard`'s number.

        Raises: ValueError for a shard that is missing or was changed.
        """
        kept = self._kept_summary()
        if kept is None:
            summary = self._summarized_shards()
            self._keep_summary(summary)
            self._keep_states(self._checked)
            return summary
        self._check_states()
        return kept

    def columns_of_summary(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of `summary`, without the memory that the others take: a table of ten
        million verdicts has 250 MB of them.

        A column that the table of an earlier release does not have is left out.

        Raises: ValueError for a shard that is missing or was changed.
        """
        found = self._kept_summary(columns)
        if found is not None:
            self._check_states()
            return found
        wanted = [name for name in columns if name in self.summary.column_names]
        return self.summary.select(wanted)

    def _check_states(self) -> None:
        """Hash the shards that are not as they were when their digests were right."""
        states = self._kept_states()
        current = {}
        for shard in self.manifest["shards"]:
            name = shard["name"]
            state = file_state(self.folder / name)
            current[name] = state
            if state is None or state != states.get(name):
                self._check(shard)
        # Every shard was as it is kept, or has just been hashed, so all states are right now.
        if current != states:
            self._keep_states(current)

    def _kept_summary(self, columns: Sequence[str] | None = None) -> pa.Table | None:
        """The summary on disk, or these columns of it; None without one of this table."""
        path = self.folder / SUMMARY
        if not path.is_file():
            return None
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                found = file.read(columns)
        except (pa.ArrowException, OSError):  # damaged; the shards have all that it says
            return None
        metadata = found.schema.metadata or {}
        if metadata.get(_DIGEST) != self.digest.encode():
            return None
        return found.replace_schema_metadata(None)

    def _kept_states(self) -> States:
        """The states on disk; {} without those of this table, and every shard is hashed."""
        path = self.folder / STATES
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # damaged
            return {}
        return found["shards"] if found["table"] == self.digest else {}

    def _summarized_shards(self) -> pa.Table:
        """The summary, from the shards themselves."""
        names = self._schema.columns.names
        wanted = [name for name in names if name not in LARGE_COLUMNS]
        if "token_ids" in names:
            wanted.append("token_ids")
        parts = []
        for number, shard in enumerate(self.manifest["shards"]):
            part = _summarized(self._read_shard(shard, wanted))
            numbers = pa.array([number] * part.num_rows, pa.int32())
            parts.append(part.append_column("shard", numbers))
        self._last = None
        return pa.concat_tables(parts, promote_options="default")

    def _keep_summary(self, summary: pa.Table) -> None:
        if not os.access(self.folder, os.W_OK):
            return  # every process makes it for itself
        marked = summary.replace_schema_metadata({_DIGEST: self.digest.encode()})
        write_atomically(
            self.folder / SUMMARY,
            lambda temporary: pq.write_table(marked, temporary, write_page_checksum=True),
        )

    def _keep_states(self, states: States) -> None:
        """Write the states in which the shards had their digests."""
        if not os.access(self.folder, os.W_OK):
            return
        text = json.dumps({"table": self.digest, "shards": states})
        write_atomically(
            self.folder / STATES,
            lambda temporary: temporary.write_text(text, encoding="utf-8"),
        )

    @cached_property
    def _shards_of(self) -> dict[str, list[int]]:
        """question_id to the numbers of the shards that hold its rows."""
        columns = ["question_id", "shard"]
        pairs = self.columns_of_summary(columns)
        distinct = pairs.group_by(columns, use_threads=False).aggregate([])
        shards: dict[str, list[int]] = {}
        for row in distinct.to_pylist():
            shards.setdefault(row["question_id"], []).append(row["shard"])
        return shards

    def question_ids(self) -> list[str]:
        """The questions that have rows, in the table's order."""
        return list(self._shards_of)

    def rows_of(
        self, question_ids: Sequence[str], columns: Sequence[str]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """Rows of these questions by question_id, each in the table's order; questions without rows
        are left out.

        Reads the shards that hold them and no other. `columns` are read with the key's.

        Raises: ValueError for a shard that is missing or was changed.
        """
        table = self.table_of(question_ids, columns)
        return group_by(table.to_pylist(), "question_id")

    def table_of(self, question_ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """The same rows as one table, in the table's order.

        Raises: ValueError for a shard that is missing or was changed.
        """
        wanted = []
        numbers: set[int] = set()
        for question_id in question_ids:
            if question_id in self._shards_of:
                wanted.append(question_id)
                numbers.update(self._shards_of[question_id])
        names = list(dict.fromkeys([*self._schema.key, *columns]))
        # The empty table gives the columns their types where no shard is read.
        parts = [self._schema.columns.empty_table().select(names)]
        wanted_ids = pa.array(wanted, pa.string())
        for number in sorted(numbers):
            part = self._read_shard(self.manifest["shards"][number], names)
            is_wanted = pc.is_in(part["question_id"], value_set=wanted_ids)
            parts.append(part.filter(is_wanted))
        return pa.concat_tables(parts, promote_options="permissive")

    def scan(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The table shard by shard.

        Raises: ValueError for a shard that is missing or was changed.
        """
        for shard in self.manifest["shards"]:
            yield self._read_shard(shard, columns)

    def _read_shard(self, shard: dict[str, Any], columns: Sequence[str]) -> pa.Table:
        """A shard, from memory where it was the last one that was read: blocks of questions follow
        each other, and a shard may hold those of many.
        """
        asked = (shard["name"], tuple(columns))
        if self._last is not None:
            last_asked, last_part = self._last
            if last_asked == asked:
                return last_part
        self._check(shard)
        path = self.folder / shard["name"]
        part = read_parquet(path, self.table, columns)
        part = part.replace_schema_metadata(None)
        self._last = (asked, part)
        return part

    def _check(self, shard: dict[str, Any]) -> None:
        """Compare a shard with its digest, unless it still is as it was when it had it."""
        path = self.folder / shard["name"]
        state = file_state(path)  # before the digest, so that a change while it is read is seen
        if state is None or self._checked.get(path.name) != state:
            check_shard(path, shard["sha256"])
            self._checked[path.name] = state


def _summarized(part: pa.Table) -> pa.Table:
    """A shard's rows without the large columns, with the number of their `token_ids`."""
    if "token_ids" in part.column_names:
        lengths = pc.list_value_length(part["token_ids"])
        part = part.append_column("num_tokens", lengths)
    small = [name for name in part.column_names if name not in LARGE_COLUMNS]
    return part.select(small)
