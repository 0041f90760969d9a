"""Stage 0: questions, expert traces and solutions from any file or data set into the questions table and two train
files.

Reads JSONL, JSON, Parquet or (only when data.allow_hub says so) a data set on the hub, in one of three layouts:
columns, Bespoke-Stratos conversations, or whole chat texts. Rows that cannot be used are dropped with a reason and
counted; what is wrong with the file as a whole (a missing column, a wrong type, an id that is there twice) is an
error with the row's number. Lengths are counted with the base model's tokenizer exactly as training counts them, so
that sampling, filtering and training agree on one cutoff_len.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from variational_reasoning.method.prompts import (
    PROMPT_KINDS,
    SOLUTION_CLOSE,
    SOLUTION_OPEN,
    ChatFormat,
    chat_format_to_dict,
    encode_target,
    load_chat_format,
    render,
    split_response,
    thought_close,
    thought_open,
)
from variational_reasoning.model_record import read_json_object
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.rows import (
    Identity,
    file_digest,
    write_file,
    write_json,
    write_table,
)
from variational_reasoning.verify.boxes import last_boxed
from variational_reasoning.verify.checks import check_faults

NEEDED_COLUMNS = ("question", "trace", "solution")
OPTIONAL_COLUMNS = ("question_id", "source", "gold", "check", "split")
DATASET_INFO = "dataset_info.json"
_NUM_LISTED = 10


class PrepareSummary(NamedTuple):
    """Rows per split, dropped rows as {split: {reason: count}}, the train files, and whether anything was written."""

    folder: Path
    num_rows: dict[str, int]
    dropped: dict[str, dict[str, int]]
    check_kinds: dict[str, int]
    train_files: list[Path]
    did_something: bool


def prepare_data(config: Config) -> PrepareSummary:
    """Stage 0: fill run_dir/questions, run_dir/train/<name>_{reasoner,posterior}.parquet and train/dataset_info.json.

    Raises: ValueError for settings and files that do not fit, all faults of one file together; FileNotFoundError for a
    file that is not there.
    """
    _check_settings(config)
    chat_format = load_chat_format(config.chat_format)
    folder = config.folder("questions")
    sources = {"train": (config.data.train, config.data.train_split)}
    if config.data.test:
        sources["test"] = (config.data.test, config.data.test_split)
    inputs, raw = {}, {}
    for split, (source, hub_split) in sources.items():
        raw[split], inputs[split] = read_source(source, hub_split, config.data.allow_hub)
        print(f"reads {len(raw[split])} {split} rows from {source}")
    identity = Identity(
        inputs=inputs,
        config={
            "chat_format": chat_format_to_dict(chat_format),
            **resolved(config, "cutoff_len", "posterior_prompt", "data.format", "data.columns", "data.check_kind"),
            **resolved(config, "data.max_train_questions", "data.max_test_questions"),
        },
    )
    encode, _ = text_codec(load_tokenizer(config.base))
    limits = {"train": config.data.max_train_questions, "test": config.data.max_test_questions}
    kept: dict[str, list[dict[str, Any]]] = {}
    dropped: dict[str, dict[str, int]] = {}
    seen_questions: dict[str, str] = {}
    for split, rows in raw.items():
        where = sources[split][0]
        table = _to_columns(rows, where, chat_format, config)
        kept[split], dropped[split] = _usable_rows(table, where, split, seen_questions, limits[split], config)
        if split == "train":
            kept[split] = _fitting(kept[split], chat_format, encode, config, dropped[split])
        if not kept[split]:
            raise ValueError(f"{where}: no usable {split} row remains; dropped: {dropped[split]}")
    questions = [row for rows in kept.values() for row in rows]
    _refuse_repeated_ids(questions)
    was_there = (folder / "manifest.json").is_file()
    write_table(folder, "questions", questions, identity, dropped_counts=dropped)
    columns = ("question_id", "question", "trace", "solution", "source")
    train_rows = [{name: row[name] for name in columns} for row in kept["train"]]
    names = [f"{config.data.name}_{role}" for role in ("reasoner", "posterior")]
    paths = [config.folder("train", f"{name}.parquet") for name in names]
    written = [write_file_once(path, "reasoning", train_rows, identity) for path in paths]
    register_datasets(config.folder("train"), dict.fromkeys(names, "reasoning"))
    kinds = Counter(json.loads(row["check"])["kind"] for row in questions)
    num_rows = {split: len(rows) for split, rows in kept.items()}
    did_something = not was_there or any(written)
    return PrepareSummary(folder, num_rows, dropped, dict(kinds), paths, did_something)


def describe(summary: PrepareSummary) -> str:
    """The lines that the command prints at its end."""
    lines = []
    for split, count in summary.num_rows.items():
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary.dropped[split].items())
        lines.append(f"{split}: {count} questions" + (f"; dropped: {reasons}" if reasons else "; none dropped"))
    lines.append("checks: " + ", ".join(f"{kind} {count}" for kind, count in sorted(summary.check_kinds.items())))
    if summary.check_kinds.get("none"):
        lines.append("checks of kind none: no gold was found there, so stage 7 cannot verify answers to them")
    if not summary.did_something:
        lines.append("nothing to do: everything was finished before")
    lines.append(f"files: {summary.folder}, " + ", ".join(str(path) for path in summary.train_files))
    return "\n".join(lines)


def read_source(source: str, hub_split: str, allow_hub: bool) -> tuple[list[dict[str, Any]], str]:
    """(rows, sha256 of the file or of the rows) of a local .jsonl, .json or .parquet file, or of a hub data set.

    Raises: FileNotFoundError for a file that is not there while data.allow_hub is false; ValueError for one that cannot
    be read, with the line's number.
    """
    path = Path(source)
    if path.is_file():
        rows = _read_file(path)
        digest = file_digest(path)
    elif allow_hub and not path.suffix:
        import datasets

        rows = [dict(row) for row in datasets.load_dataset(source, split=hub_split)]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
    else:
        hint = "" if allow_hub else "; for the hub's data set of this name set data.allow_hub: true"
        raise FileNotFoundError(f"there is no file {source} (data.train, data.test){hint}")
    if not rows:
        raise ValueError(f"{source} has no row")
    return rows, digest


def current_manifest(path: Path, identity: Identity) -> dict[str, Any] | None:
    """The manifest of a train file that is there, unchanged, and made from the same; None when it must be written."""
    manifest_path = path.with_suffix(".manifest.json")
    if not (path.is_file() and manifest_path.is_file()):
        return None
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    is_same = all(manifest.get(name) == value for name, value in identity.to_dict().items())
    return manifest if is_same and manifest["shards"][0]["sha256"] == file_digest(path) else None


def write_file_once(path: Path, table: str, rows: Sequence[Mapping[str, Any]], identity: Identity) -> bool:
    """`rows.write_file`, unless `current_manifest` finds it done. Returns whether it was written.

    A train file that is left alone keeps its time stamp, so what was trained from it stays up to date.
    """
    if current_manifest(path, identity) is not None:
        return False
    write_file(path, table, rows, identity)
    return True


def register_datasets(folder: Path, formats: Mapping[str, str]) -> None:
    """Add data set names to folder/dataset_info.json, each as <name>.parquet beside it; other entries stay.

    Args:
        formats: data set name to `reasoning` or `weighted_sft`.

    Raises: ValueError for a dataset_info.json that is not a JSON object.
    """
    path = folder / DATASET_INFO
    entries = read_json_object(path, "correct or remove it") if path.is_file() else {}
    new = {name: {"file_name": f"{name}.parquet", "formatting": formatting} for name, formatting in formats.items()}
    if any(entries.get(name) != entry for name, entry in new.items()):
        write_json(path, entries | new)


def overlong_by(kind: str, chat_format: ChatFormat, row: Mapping[str, Any], encode: Any, cutoff_len: int) -> int:
    """Tokens by which a training example of this row exceeds cutoff_len; zero or less when it fits."""
    prompt, response = render(kind, chat_format, row["question"], row["trace"], row["solution"])
    return len(encode(prompt)) + len(encode_target(chat_format, response, encode)) - cutoff_len


def _check_settings(config: Config) -> None:
    faults = []
    if not config.data.train:
        faults.append("data.train is empty; name a .jsonl, .json or .parquet file, or a data set on the hub")
    if not config.base:
        faults.append("base is not set; name the model folder that both trainings start from")
    elif not Path(config.base).is_dir():
        faults.append(f"base: there is no model folder {config.base}")
    unknown = sorted(config.data.columns.keys() - set(NEEDED_COLUMNS) - set(OPTIONAL_COLUMNS) - {"text", "conversations"})
    if unknown:
        allowed = ", ".join((*NEEDED_COLUMNS, *OPTIONAL_COLUMNS, "text", "conversations"))
        faults.append(f"data.columns: {unknown} are not columns of ours; allowed are {allowed}")
    if faults:
        raise ValueError("\n".join(faults))


def _read_file(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a Parquet file ({error})") from error
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not valid JSON ({error})") from error
        if not isinstance(rows, list):
            raise ValueError(f"{path} holds {type(rows).__name__}; a .json file is a list of rows")
        numbered = list(enumerate(rows, 1))
    elif path.suffix == ".jsonl":
        numbered, faults = [], []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    numbered.append((number, json.loads(line)))
                except json.JSONDecodeError as error:
                    faults.append(f"line {number} is not valid JSON ({error})")
        _raise_listed(str(path), faults)
    else:
        raise ValueError(f"{path}: files of type {path.suffix or 'no suffix'!r} are not read; use .jsonl, .json or .parquet")
    _raise_listed(str(path), [f"row {n} is no object: {row!r:.60}" for n, row in numbered if not isinstance(row, dict)])
    return [row for _, row in numbered]


def _to_columns(rows: Sequence[Mapping[str, Any]], where: str, chat_format: ChatFormat, config: Config) -> list[dict[str, Any]]:
    """Rows under our names. A row of conversations or text that cannot be taken apart gets None as its trace."""
    columns, layout = config.data.columns, config.data.format
    needed = {"columns": NEEDED_COLUMNS, "conversations": ("conversations",), "text": ("text",)}[layout]
    present = {name for row in rows for name in row}
    absent = [(name, columns.get(name, name)) for name in needed if columns.get(name, name) not in present]
    absent += [(ours, theirs) for ours, theirs in columns.items() if ours not in needed and theirs not in present]
    if absent:
        listed = ", ".join(f"{theirs!r} ({ours})" for ours, theirs in absent)
        raise ValueError(
            f"{where} lacks the columns {listed}; it has {', '.join(sorted(present))}. "
            "Name them in data.columns, or set data.format"
        )
    table = []
    for number, row in enumerate(rows, 1):
        picked = {name: row.get(columns.get(name, name)) for name in (*NEEDED_COLUMNS, *OPTIONAL_COLUMNS)}
        if picked["question_id"] is None and "question_id" not in columns:
            picked["question_id"] = row.get("id")
        if layout != "columns":
            picked |= dict.fromkeys(NEEDED_COLUMNS)
            value = row.get(columns.get(layout, layout))
            parts = (_from_conversation if layout == "conversations" else _from_text)(value, chat_format)
            picked |= dict(zip(NEEDED_COLUMNS, parts, strict=True)) if parts else {}
        table.append(picked | {"number": number})
    return table


def _from_conversation(turns: Any, chat_format: ChatFormat) -> tuple[str, str, str] | None:
    """(question, trace, solution) of [{from: user, value}, {from: assistant, value}], or None."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return None
    speakers = [turn.get("from", turn.get("role")) for turn in turns]
    texts = [turn.get("value", turn.get("content")) for turn in turns]
    if speakers[:1] == ["system"]:
        speakers, texts = speakers[1:], texts[1:]
    if speakers not in (["user", "assistant"], ["human", "gpt"]) or not all(isinstance(text, str) for text in texts):
        return None
    parts = split_response(texts[1])  # published with two newlines, whatever our own chat format writes
    return (texts[0], *parts) if parts else None


def _from_text(text: Any, chat_format: ChatFormat) -> tuple[str, str, str] | None:
    """(question, trace, solution) of a whole chat in this chat format, or None."""
    if not isinstance(text, str):
        return None
    opening, closing = chat_format.user.split("{question}")
    _, found, rest = text.partition(opening)
    question, found_end, response = rest.partition(closing + chat_format.assistant + thought_open("reasoner"))
    parts = split_response(thought_open("reasoner") + response, chat_format.separator)
    return (question, *parts) if found and found_end and parts else None


def _usable_rows(
    table: Iterable[Mapping[str, Any]],
    where: str,
    split: str,
    seen_questions: dict[str, str],
    limit: int | None,
    config: Config,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows of the questions table and counts of dropped rows by reason. Raises: ValueError listing ill-typed rows."""
    rows, dropped, faults = [], Counter(), []
    tags = [tag(kind) for tag in (thought_open, thought_close) for kind in PROMPT_KINDS]
    tags += [SOLUTION_OPEN, SOLUTION_CLOSE, load_chat_format(config.chat_format).end_of_turn]
    for row in table:
        place = f"row {row['number']}"
        texts = {name: row[name] for name in NEEDED_COLUMNS}
        if split == "test":  # a test question may come without a trace or solution
            texts |= {name: texts[name] if texts[name] is not None else "" for name in ("trace", "solution")}
        elif config.data.format != "columns" and texts["question"] is None:
            dropped["not one question and one answer with all four tags"] += 1
            continue
        wrong = [f"{name} is {type(text).__name__}" for name, text in texts.items() if not isinstance(text, str)]
        if wrong:
            faults.append(f"{place}: {', '.join(wrong)}; text is needed")
            continue
        empty = [name for name in (NEEDED_COLUMNS if split == "train" else ("question",)) if not texts[name].strip()]
        tagged = [name for name, text in texts.items() if any(tag in text for tag in tags)]
        if empty:
            dropped[f"empty {empty[0]}"] += 1
            continue
        if tagged:
            dropped[f"tags in the {tagged[0]}"] += 1
            continue
        check, fault = _check_of(row, texts["solution"], config.data.check_kind)
        if fault:
            faults.append(f"{place}: {fault}")
            continue
        if texts["question"] in seen_questions:
            same = seen_questions[texts["question"]] == split
            dropped["duplicate question" if same else f"question of the {seen_questions[texts['question']]} split"] += 1
            continue
        if limit is not None and len(rows) >= limit:
            dropped[f"beyond data.max_{split}_questions"] += 1
            continue
        seen_questions[texts["question"]] = split
        given = row["question_id"]
        digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
        ids = {"question_id": digest if given is None else str(given)}
        source = "" if row["source"] is None else str(row["source"])
        rows.append(ids | texts | {"source": source, "check": json.dumps(check, ensure_ascii=False), "split": split})
    _raise_listed(where, faults)
    return rows, dict(dropped)


def _check_of(row: Mapping[str, Any], solution: str, default_kind: str) -> tuple[dict[str, Any], str | None]:
    """(check, fault) of a row: its own `check`, else its `gold`, else what the reference solution says."""
    if row["check"] is not None:
        check = row["check"]
        if isinstance(check, str):
            try:
                check = json.loads(check)
            except json.JSONDecodeError as error:
                return {}, f"check is not valid JSON ({error})"
        if isinstance(check, dict):  # Parquet gives every row the keys of all kinds
            check = {name: value for name, value in check.items() if value is not None}
        return check, "; ".join(check_faults(check)) or None
    gold = row["gold"]
    if gold is None and default_kind != "none":
        gold = last_boxed(solution) if default_kind == "math" else solution.strip() or None
    if gold is None or default_kind == "none":
        return {"kind": "none"}, None
    check = {"kind": default_kind, "gold": gold if isinstance(gold, list) else str(gold)}
    return check, "; ".join(check_faults(check)) or None


def _fitting(
    rows: list[dict[str, Any]], chat_format: ChatFormat, encode: Any, config: Config, dropped: dict[str, int]
) -> list[dict[str, Any]]:
    """Rows whose reasoner and posterior examples both fit cutoff_len; the others are counted in `dropped`."""
    kinds = ("reasoner", config.posterior_prompt)
    fitting = []
    for row in tqdm(rows, unit="row", desc="lengths"):
        if any(overlong_by(kind, chat_format, row, encode, config.cutoff_len) > 0 for kind in kinds):
            reason = f"longer than cutoff_len {config.cutoff_len}"
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            fitting.append(row)
    return fitting


def _refuse_repeated_ids(rows: Sequence[Mapping[str, Any]]) -> None:
    repeated = [name for name, count in Counter(row["question_id"] for row in rows).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated)} question ids are there more than once, such as {repeated[0]!r}; correct the column, or map "
            "question_id to another in data.columns"
        )


def _raise_listed(where: str, faults: Sequence[str]) -> None:
    if faults:
        more = [f"  and {len(faults) - _NUM_LISTED} more"] if len(faults) > _NUM_LISTED else []
        lines = [f"  {fault}" for fault in faults[:_NUM_LISTED]]
        raise ValueError("\n".join([f"{where}: {len(faults)} rows cannot be read:", *lines, *more]))
