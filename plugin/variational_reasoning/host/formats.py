"""The two data formats that `dataset_info.json` may name besides the host's: their columns, and their rows as texts.

    weighted_sft   prompt, response [, weight, ids]            the text is taken as it is, rendered by nobody else
    reasoning      question, trace, solution [, weight, ids]   rendered at load time as the YAML's `prompt_kind`

`"columns": {"prompt": "name in the file"}` maps names that differ. Rows are counted from 1 in messages, as lines are.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.prompts import Renderer

FORMATS = {"weighted_sft": ("prompt", "response"), "reasoning": ("question", "trace", "solution")}
ID_COLUMNS = ("question_id", "trace_id", "answer_id")
OPTIONAL_COLUMNS = ("weight", *ID_COLUMNS)


def read_dataset_info(dataset_dir: Any) -> tuple[dict[str, Any], str]:
    """(contents, path) of the dataset_info.json in force; empty for a mapping's path, hub-only modes and missing files.

    Raises: ValueError for a file that is not a JSON object.
    """
    if isinstance(dataset_dir, dict):
        return dataset_dir, ""
    path = Path(str(dataset_dir)) / "dataset_info.json"
    return (
        read_json_object(path, "correct it, or set dataset_dir to another folder")
        if path.is_file()
        else {}
    ), str(path)


def map_columns(
    source: str, formatting: str, mapping: dict[str, str], present: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Which column of the file serves which role.

    Args:
        source: the data set's name, for messages. mapping: `columns` of its entry. present: columns of the file.

    Returns: ({role: column}, faults). An optional role is left out where the file has no such column.
    """
    roles = (*FORMATS[formatting], *OPTIONAL_COLUMNS)
    faults = [
        f"dataset {source!r}: `columns` maps {role!r}, which {formatting} does not have; it has {', '.join(roles)}"
        for role in mapping
        if role not in roles
    ]
    columns = {role: mapping.get(role, role) for role in roles}
    for role in roles:
        if columns[role] in present:
            continue
        if role in FORMATS[formatting] or role in mapping:
            faults.append(
                f"dataset {source!r}: column {columns[role]!r} ({role}) is missing; the file has {', '.join(present)}. "
                'Map the names with "columns" in dataset_info.json'
            )
        del columns[role]
    return columns, faults


@dataclass
class RowRenderer:
    """Turns rows of one data set into texts; raises on the first row that does not fit."""

    source: str
    formatting: str
    columns: dict[str, str]
    prompt_kind: str | None
    renderer: Renderer

    def __call__(self, example: dict[str, Any], index: int) -> dict[str, Any]:
        """Render one row.

        Returns: prompt, response, weight (1.0 where the data set has no such column), ids as text or None.
        Raises: ValueError that names data set, row and column for wrong types, empty texts, bad weights, and prompts of
            another kind than the YAML says.
        """
        texts = [self._text(example, index, role) for role in FORMATS[self.formatting]]
        if self.formatting == "reasoning":
            prompt, response = self.renderer.render(self.prompt_kind, *texts)
        else:
            prompt, response = texts
            found = self.renderer.detect_kind(prompt)
            if self.prompt_kind is not None and found != self.prompt_kind:
                raise ValueError(
                    f"{self._where(index, 'prompt')}: is laid out for {found or 'no kind that we know'}, but the YAML says "
                    f"`prompt_kind: {self.prompt_kind}`; choose the data set or the key that fits"
                )
        ids = {role: self._id(example, role) for role in ID_COLUMNS}
        return {
            "prompt": prompt,
            "response": response,
            "weight": self._weight(example, index),
            **ids,
        }

    def _where(self, index: int, role: str) -> str:
        return f"data set {self.source!r}, row {index + 1}, column {self.columns.get(role, role)!r}"

    def _text(self, example: dict[str, Any], index: int, role: str) -> str:
        value = example[self.columns[role]]
        if not isinstance(value, str):
            raise ValueError(
                f"{self._where(index, role)}: needs text, holds {type(value).__name__} {value!r:.60}"
            )
        if not value.strip():
            raise ValueError(f"{self._where(index, role)}: is empty")
        return value

    def _weight(self, example: dict[str, Any], index: int) -> float:
        if "weight" not in self.columns:
            return 1.0
        value = example[self.columns["weight"]]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"{self._where(index, 'weight')}: needs a number, holds {type(value).__name__} {value!r:.60}"
            )
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(
                f"{self._where(index, 'weight')}: {value} is not a finite number of zero or more"
            )
        return float(value)

    def _id(self, example: dict[str, Any], role: str) -> str | None:
        value = example[self.columns[role]] if role in self.columns else None
        return None if value is None else str(value)


def check_source(
    source: str,
    entry: dict[str, Any],
    dataset_dir: Any,
    prompt_kind: str | None,
    renderer: Renderer | None,
) -> list[str]:
    """Faults of a local data set that its first row already shows; a hub data set is checked when it is loaded."""
    if "file_name" not in entry or (
        isinstance(dataset_dir, dict) and not Path(entry["file_name"]).exists()
    ):
        return []
    path = (
        Path(entry["file_name"])
        if isinstance(dataset_dir, dict)
        else Path(str(dataset_dir)) / entry["file_name"]
    )
    if not path.exists():
        return [
            f"dataset {source!r}: the file {str(path)!r} does not exist; run the stage that writes it first"
        ]
    try:
        first = _first_row(sorted(path.iterdir())[0] if path.is_dir() else path)
    except (ValueError, OSError, StopIteration) as error:
        return [f"dataset {source!r}: {str(path)!r} cannot be read ({error or 'no rows'})"]
    columns, faults = map_columns(
        source, entry["formatting"], entry.get("columns", {}), list(first)
    )
    if (
        not faults
        and renderer is not None
        and (prompt_kind is not None or entry["formatting"] == "weighted_sft")
    ):
        try:
            RowRenderer(source, entry["formatting"], columns, prompt_kind, renderer)(first, 0)
        except ValueError as error:
            faults.append(str(error))
    return faults


def _first_row(path: Path) -> dict[str, Any]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        return next(parquet.ParquetFile(path).iter_batches(batch_size=1)).to_pylist()[0]
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            row = json.loads(next(line for line in lines if line.strip()))
    elif path.suffix == ".json":
        row = next(iter(json.loads(path.read_text(encoding="utf-8"))))
    else:
        raise ValueError(f"file type {path.suffix!r} is not .json, .jsonl or .parquet")
    if not isinstance(row, dict):
        raise ValueError("the first row is not an object")
    return row
