"""Rows of any data set under our names: where they come from, and the layouts they come in (stage
0).

A data set is a JSONL, JSON or Parquet file, a folder that holds a copy of a hub data set, or (only
when data.allow_hub says so) the hub's own. Its layout is one of five: columns, Bespoke-Stratos
conversations, whole examples as text, the same as prompt and response, or messages whose answer
begins with a <think> block. What is wrong with a file as a whole is an error that names the row. A
row that cannot be taken apart is left to the caller, who drops and counts it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.faults import list_faults
from variational_reasoning.files import file_digest, read_json_lines, row_faults
from variational_reasoning.method.chat_formats import CHAT_FORMATS
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.config import DataConfig

NEEDED_COLUMNS = ("question", "trace", "solution")
OPTIONAL_COLUMNS = ("question_id", "source", "gold", "check", "split")
LAYOUTS = {
    "columns": NEEDED_COLUMNS,
    "conversations": ("conversations",),
    "text": ("text",),
    "prompt_response": ("prompt", "response"),
    "think_messages": ("messages",),
}
"""data.format to the columns that it reads; the question, trace and solution of a row are made from
them.
"""

_FILE_TYPES = (".jsonl", ".json", ".parquet")
_ROWS_AT_ONCE = 1024


class Stream(NamedTuple):
    """The first `rows` of a stream that is shuffled among `buffer` rows."""

    rows: int
    buffer: int
    seed: int


def read_source(
    source: str, hub_split: str, allow_hub: bool, stream: Stream | None = None
) -> tuple[list[dict[str, Any]], str]:
    """(rows, sha256 of the file or of the rows) of a local file, a local folder, or a data set on
    the hub.

    Args:
        source: a .jsonl, .json or .parquet file, a folder or a hub name, which `datasets` loads.
        hub_split: the split to take of a folder or hub data set.
        stream: read a part of a folder or hub data set; a single file is always read whole.

    Raises: FileNotFoundError for a file that is not there while data.allow_hub is false; ValueError
    for one that cannot be read, with the line's number.
    """
    path = Path(source)
    rows = list(stream_source(source, hub_split, allow_hub, stream))
    if path.is_file():
        return rows, file_digest(path)
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update(json.dumps(row, sort_keys=True, default=str).encode())
    return rows, hashed.hexdigest()


def no_file(source: str, allow_hub: bool = False) -> str:
    """What is said of a file that is not there."""
    fault = f"there is no file {source} (named in the section data)"
    if not Path(source).is_absolute():
        fault += f" in {Path.cwd()}"
    if not allow_hub:
        fault += (
            "; for the hub's data set of this name set data.allow_hub: true (for new_profile.py: "
            "allow_hub=true)"
        )
    return fault


def stream_source(
    source: str, hub_split: str, allow_hub: bool, stream: Stream | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of `read_source` one after another, so that a data set may be larger than memory; a
    .json file is read whole.

    Args and raises: as `read_source`, whose ValueError comes after the last row.
    """
    path = Path(source)
    if path.is_file():
        rows = _file_rows(path)
    elif path.is_dir() or (allow_hub and path.suffix not in _FILE_TYPES):
        rows = _dataset_rows(source, hub_split, stream)
    else:
        raise FileNotFoundError(no_file(source, allow_hub))
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        raise ValueError(f"{source} has no row")


def to_columns(
    rows: Sequence[Mapping[str, Any]],
    where: str,
    renderer: Renderer,
    data: DataConfig,
    traces_are_optional: bool = False,
) -> list[dict[str, Any]]:
    """Rows under our names, each with its `number`, from 1.

    A row of another layout than columns that cannot be taken apart gets None as its question, trace
    and solution.

    Args:
        where: the data set's name, for messages.
        traces_are_optional: the columns trace and solution need not be there.

    Raises: ValueError for columns that are not there.
    """
    needed = LAYOUTS[data.format]
    if traces_are_optional and data.format == "columns":
        needed = ("question",)
    _refuse_absent_columns(rows, where, needed, data.columns)
    ours = [*NEEDED_COLUMNS, *OPTIONAL_COLUMNS]
    table = []
    for number, row in enumerate(rows, 1):
        picked = _picked(row, ours, data.columns)
        if picked["question_id"] is None and "question_id" not in data.columns:
            picked["question_id"] = row.get("id")
        if data.format != "columns":
            values = _picked(row, needed, data.columns).values()
            parts = _take_apart(list(values), data, renderer) or (None, None, None)
            picked |= dict(zip(NEEDED_COLUMNS, parts, strict=True))
        picked["number"] = number
        table.append(picked)
    return table


def _picked(
    row: Mapping[str, Any], names: Sequence[str], columns: Mapping[str, str]
) -> dict[str, Any]:
    """A row's values under our names; None where it has no such column.

    Args:
        columns: data.columns: our name to the data set's, where the two differ.
    """
    return {name: row.get(columns.get(name, name)) for name in names}


def _refuse_absent_columns(
    rows: Sequence[Mapping[str, Any]], where: str, needed: Sequence[str], columns: Mapping[str, str]
) -> None:
    """Raises: ValueError for columns that no row has: needed ones, and those that data.columns
    names.
    """
    present: set[str] = set()
    for row in rows:
        present.update(row)
    theirs_of = {name: columns.get(name, name) for name in needed}
    absent = []
    for ours, theirs in (theirs_of | dict(columns)).items():
        if theirs not in present:
            absent.append(f"{theirs!r} ({ours})")
    if absent:
        raise ValueError(
            f"{where} lacks the columns {', '.join(absent)}; it has {', '.join(sorted(present))}. "
            "Name them in data.columns, or set data.format"
        )


def is_of_split(own: Any, wanted: str) -> bool:
    """Whether a row belongs to a split by its own column `split`; a row without one does.

    Args:
        own: the row's value, or None. wanted: data.train_split or data.test_split, in the spelling
            of `datasets`: "train", "train[:100]", "train+validation".
    """
    if own is None:
        return True
    names = [part.partition("[")[0].strip() for part in wanted.split("+")]
    return str(own) in names


def join_sources(
    rows: Sequence[Mapping[str, Any]],
    where: str,
    sources: Sequence[Mapping[str, Any]],
    sources_where: str,
    column: str,
) -> list[dict[str, Any]]:
    """Rows with the column `source` of another data set, joined by row, as the published data sets
    are.

    A join by position cannot see a shifted row; therefore the counts must be equal, and so must
    every other column that both have.

    Args:
        sources: rows with `source`, the first for the first of `rows`.
        column: the name of the new column of `rows`.

    Raises: ValueError that names the first row that disagrees.
    """
    if len(rows) != len(sources):
        raise ValueError(
            f"data.sources: {sources_where} has {len(sources)} rows, {where} has {len(rows)}; they "
            f"join row by row"
        )
    joined = []
    for number, (row, other) in enumerate(zip(rows, sources, strict=True), 1):
        if not isinstance(other.get("source"), str):
            raise ValueError(
                f"data.sources: {sources_where}: row {number} has no text in the column 'source': "
                f"{other!r:.80}"
            )
        if row.get(column) is not None:
            raise ValueError(
                f"data.sources: {where}: row {number} has a {column!r} of its own: "
                f"{row[column]!r:.60}"
            )
        for name in sorted(row.keys() & other.keys() - {"source"}):
            if row[name] != other[name]:
                raise ValueError(
                    f"data.sources: row {number} of {sources_where} differs from that of {where}: "
                    f"{name!r} is {other[name]!r:.60}, not {row[name]!r:.60}"
                )
        joined.append({**row, column: other["source"]})
    return joined


def raise_listed(where: str, faults: Sequence[str]) -> None:
    """Raise ValueError with the first of these faults, one per line, when there are any."""
    if faults:
        raise ValueError(list_faults(f"{where}: {len(faults)} rows cannot be read", faults))


def _file_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a single file, by its suffix."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    if path.suffix not in _FILE_TYPES:
        raise ValueError(
            f"{path}: files of type {path.suffix or 'no suffix'!r} are not read; use .jsonl, .json "
            f"or .parquet"
        )
    faults: list[str] = []
    if path.suffix == ".jsonl":
        for _, row in read_json_lines(path, faults):
            yield row
    else:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON ({error})") from error
        if not isinstance(rows, list):
            raise ValueError(f"{path} holds {type(rows).__name__}; a .json file is a list of rows")
        faults = row_faults(rows)
        if not faults:
            yield from rows
    raise_listed(str(path), faults)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({error})") from error


def _dataset_rows(source: str, split: str, stream: Stream | None) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        if stream is not None:
            whole = datasets.load_dataset(source, split=split, streaming=True)
            shuffled = whole.shuffle(seed=stream.seed, buffer_size=stream.buffer)
            yield from shuffled.take(stream.rows)
            return
        tables = datasets.load_dataset(source, split=split).with_format("arrow")
        for table in tables.iter(_ROWS_AT_ONCE):
            yield from table.to_pylist()
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        # ValueError: an unknown split, or a broken file
        raise ValueError(f"{source}: `datasets` cannot read its split {split} ({error})") from error


def _take_apart(
    values: Sequence[Any], data: DataConfig, renderer: Renderer
) -> tuple[str, str, str] | None:
    """(question, trace, solution) of a row's columns in its layout, or None."""
    if data.format == "conversations":
        return _from_conversation(values[0], renderer)
    if data.format == "think_messages":
        return _from_think_messages(values[0], data.min_chain, data.min_answer)
    if not all(isinstance(value, str) for value in values):
        return None
    return renderer.split_example("".join(values))


def _from_think_messages(
    messages: Any, min_chain: int, min_answer: int
) -> tuple[str, str, str] | None:
    """(question, chain, answer) of [{role: user, content}, {role: assistant, content}], or None.

    A system message before them is left out: a run has its own. The assistant writes

        <think>\nFirst, ...\n</think>\n\nThe answer is 7.

    None where there are more turns, not one block at the beginning, or a block or an answer of
    fewer characters than `min_chain` and `min_answer`: a template without a thought.
    """
    if not isinstance(messages, list):
        return None
    roles = []
    texts = []
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            return None
        roles.append(turn.get("role"))
        texts.append(turn["content"])
    if roles[:1] == ["system"]:
        roles, texts = roles[1:], texts[1:]
    if roles != ["user", "assistant"]:
        return None
    question, text = texts
    before, opened, rest = text.partition("<think>")
    chain, closed, answer = rest.partition("</think>")
    has_one_block = opened and closed and "think>" not in chain + answer
    if before.strip() or not has_one_block:
        return None
    chain = chain.strip()
    answer = answer.strip()
    if len(chain) < min_chain or len(answer) < min_answer:
        return None
    return question, chain, answer


def _from_conversation(turns: Any, renderer: Renderer) -> tuple[str, str, str] | None:
    """(question, trace, solution) of [{from: user, value}, {from: assistant, value}], or None."""
    if not isinstance(turns, list):
        return None
    speakers = []
    texts = []
    for turn in turns:
        if not isinstance(turn, dict):
            return None
        speakers.append(turn.get("from", turn.get("role")))
        texts.append(turn.get("value", turn.get("content")))
    if speakers[:1] == ["system"]:
        speakers, texts = speakers[1:], texts[1:]
    if speakers not in (["user", "assistant"], ["human", "gpt"]):
        return None
    question, text = texts
    if not isinstance(question, str) or not isinstance(text, str):
        return None
    # published with two newlines, whatever our own chat format writes
    published = Renderer(renderer.family, CHAT_FORMATS["chatml"])
    parts = published.split_response(text)
    if parts is None:
        return None
    return question, *parts
