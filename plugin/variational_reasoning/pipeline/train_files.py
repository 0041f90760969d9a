"""Train files, one Parquet file each, as LLaMA-Factory reads them: `<run_dir>/train` (stages 0 and
8).

A train file depends on nothing but its inputs. `<name>.manifest.json` names them, and
dataset_info.json tells LLaMA-Factory how to read the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from variational_reasoning.files import (
    atomic_file,
    file_digest,
    read_json_object,
    write_json,
)
from variational_reasoning.pipeline.rows import (
    Identity,
    check_shard,
    checked_rows,
    file_metadata,
    installed_versions,
)
from variational_reasoning.pipeline.tables import TABLES

DATASET_INFO = "dataset_info.json"


def write_file(
    path: str | os.PathLike,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    identity: Identity,
    **extra: Any,
) -> dict[str, Any]:
    """Write one train file, and `<name>.manifest.json` next to it. An existing file is replaced.

    Raises: ValueError as `Stage.write_shard` does; also for no rows.
    """
    path = Path(path)
    with open_file(path, table, identity, **extra) as file:
        file.write(rows)
    return read_json_object(path.with_suffix(".manifest.json"), "run the stage again")


class TrainFile:
    """A train file that is being written, some rows at a time; made by `open_file`."""

    def __init__(self, path: Path, table: str, writer: pq.ParquetWriter) -> None:
        self.path = path
        self.table = table
        self.num_rows = 0
        self._writer = writer

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows. Those of one key have to be in one call.

        Raises: ValueError as `Stage.write_shard` does.
        """
        if rows:
            self._writer.write_table(checked_rows(rows, self.table, str(self.path)))
            self.num_rows += len(rows)


@contextmanager
def open_file(path: Path, table: str, identity: Identity, **extra: Any) -> Iterator[TrainFile]:
    """`write_file` for rows that are not in memory together. The file and its manifest are there
    when the block ends without an error.

    Raises: as `write_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest_path = path.with_suffix(".manifest.json")
    metadata = file_metadata({"counts": {}, "dropped": []})
    schema = TABLES[table].columns.with_metadata(metadata)
    with atomic_file(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            file = TrainFile(path, table, writer)
            yield file
        if not file.num_rows:
            raise ValueError(f"{path}: the table {table} would have no row")
        manifest_path.unlink(missing_ok=True)  # never a manifest next to the rows of another run
    only_shard = {
        "name": path.name,
        "rows": file.num_rows,
        "sha256": file_digest(path),
    }
    manifest = {
        "table": table,
        "rows": file.num_rows,
        "columns": TABLES[table].columns.names,
        "shards": [only_shard],
        **identity.to_dict(),
        "versions": [installed_versions()],
        **extra,
    }
    write_json(manifest_path, manifest)


def current_manifest(path: Path, identity: Identity) -> dict[str, Any] | None:
    """The manifest of a train file that is there, unchanged, and made from the same; None when it
    must be written.
    """
    manifest_path = path.with_suffix(".manifest.json")
    if not (path.is_file() and manifest_path.is_file()):
        return None
    manifest = read_json_object(manifest_path, "remove it and run the stage again")
    for name, value in identity.to_dict().items():
        if manifest.get(name) != value:
            return None
    [shard] = manifest["shards"]
    if shard["sha256"] != file_digest(path):
        return None
    return manifest


def check_file(path: Path) -> None:
    """Compare a train file with its manifest, if it has one.

    Raises: ValueError for a file that was changed after it was written.
    """
    manifest_path = path.with_suffix(".manifest.json")
    if manifest_path.is_file():
        manifest = read_json_object(manifest_path, "remove it and run the stage again")
        [shard] = manifest["shards"]
        check_shard(path, shard["sha256"])


def write_file_once(
    path: Path, table: str, rows: Sequence[Mapping[str, Any]], identity: Identity
) -> bool:
    """`write_file`, unless `current_manifest` finds it done. Returns whether it was written.

    A train file that is left alone keeps its time stamp, so what was trained from it stays up to
    date.
    """
    if current_manifest(path, identity) is not None:
        return False
    write_file(path, table, rows, identity)
    return True


def register_datasets(folder: Path, formats: Mapping[str, str]) -> None:
    """Add data set names to folder/dataset_info.json, each as <name>.parquet next to it; other
    entries stay.

    Args:
        formats: data set name to `reasoning` or `weighted_sft`.

    Raises: ValueError for a dataset_info.json that is not a JSON object.
    """
    path = folder / DATASET_INFO
    entries = {}
    if path.is_file():
        entries = read_json_object(path, "correct or remove it")
    wanted = dict(entries)
    for name, formatting in formats.items():
        wanted[name] = {"file_name": f"{name}.parquet", "formatting": formatting}
    if wanted != entries:
        write_json(path, wanted)
