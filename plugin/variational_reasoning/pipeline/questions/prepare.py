"""Stage 0: questions, expert traces and solutions from any file or data set into the questions
table and two train files.

Rows that cannot be used are dropped with a reason, listed by id and counted; what is wrong with the
file as a whole (a missing column, a wrong type, an id that is there twice) is an error with the
row's number. Lengths are counted with the base model's tokenizer exactly as training counts them,
so that sampling, filtering and training agree on one cutoff_len. With data.question_ids the
questions table, and so stages 3 to 8, has the listed questions only; the two train files have all
of them, or with data.hold_out all others; and a third, <name>_chosen, has the listed rows, for SFT
on these alone. A prompt family of abstract traces has no such files: it trains on symbols, and the
data's traces are words (scripts/build_arms.py writes its first train files).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.files import file_digest, write_json
from variational_reasoning.pipeline.config import Config, DataConfig, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.questions.checks import CHECK_KINDS, QuestionChecks
from variational_reasoning.pipeline.questions.decontaminate import (
    contamination_report,
    find_matches,
)
from variational_reasoning.pipeline.questions.gym import gym_faults, gym_rows, is_gym
from variational_reasoning.pipeline.questions.sources import (
    LAYOUTS,
    OPTIONAL_COLUMNS,
    Stream,
    is_of_split,
    join_sources,
    no_file,
    raise_listed,
    read_source,
    to_columns,
)
from variational_reasoning.pipeline.questions.subsets import read_ids
from variational_reasoning.pipeline.questions.usable_rows import Dropped, fitting_rows, usable_rows
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import MANIFEST, Identity, write_table
from variational_reasoning.pipeline.tables import TABLES
from variational_reasoning.pipeline.train_files import register_datasets, write_file_once

CONTAMINATION = "decontamination.json"
_KEYS_OF_ROWS = (
    "data.format",
    "data.columns",
    "data.ids",
    "data.check_kind",
    "data.check_kinds",
    "data.max_train_questions",
    "data.max_test_questions",
    "data.hold_out",
)
"""The settings of `data` that decide what the rows are."""


class PrepareSummary(NamedTuple):
    """Rows of the questions table by split, dropped rows as {split: {reason: count}}, and what else
    was found.

    num_expert_rows: rows with a trace, which are those of the two train files.
    unusable_tests: source to reason.
    contamination: see `decontaminate.contamination_report`, or None.
    """

    folder: Path
    num_rows: dict[str, int]
    num_expert_rows: int
    dropped: dict[str, dict[str, int]]
    check_kinds: dict[str, int]
    unusable_tests: dict[str, str]
    contamination: dict[str, Any] | None
    train_files: list[Path]
    did_something: bool


def prepare_data(config: Config) -> PrepareSummary:
    """Stage 0: fill run_dir/questions, run_dir/train/<name>_{reasoner,posterior}.parquet and
    train/dataset_info.json.

    With data.question_ids also <name>_chosen.parquet. No train file in a prompt family of abstract
    traces.

    Raises: ValueError for settings and files that do not fit, all faults of one file together;
    FileNotFoundError for a file that is not there.
    """
    _check_settings(config)
    raw, inputs = _read_rows(config)
    checks = QuestionChecks(config.data)
    benchmarks, benchmark_digests = _read_benchmarks(config)
    listed = _read_listed(config, inputs)
    inputs |= checks.digests
    inputs |= benchmark_digests
    identity = _identity(config, inputs, raw)
    kept, dropped = _usable(raw, checks, config)
    contamination = None
    if benchmarks:
        contamination = _decontaminate(kept, benchmarks, dropped["train"], config)
    experts = kept["train"]
    chosen: list[dict[str, Any]] = []
    if listed is not None:
        kept["train"], experts = _subset(kept["train"], listed, dropped["train"], config)
        chosen = [row for row in kept["train"] if row["trace"]]
    experts = [row for row in experts if row["trace"]]
    if not experts and config.posterior == "trained":
        raise ValueError(
            f"{config.data.train}: no row has a trace, so stages 1 and 2 have nothing to train on; "
            "set posterior: prompted or own_traces, with models.reasoner (docs/own_questions.md)"
        )

    folder = config.folder("questions")
    was_there = (folder / MANIFEST).is_file()
    questions = [row for rows in kept.values() for row in rows]
    counts = {split: _counts(reasons) for split, reasons in dropped.items()}
    facts: dict[str, Any] = {
        "dropped_counts": counts,
        "dropped_ids": dropped,
        "num_expert_rows": len(experts),
        "unusable_tests": checks.unusable,
    }
    write_table(folder, "questions", questions, identity, **facts)
    if not was_there:
        # Writes the summary now, once, and not in every process of stage 3.
        _ = TableReader(folder, "questions").summary
    if contamination and not (was_there and (folder / CONTAMINATION).is_file()):
        write_json(folder / CONTAMINATION, contamination)
    train_files, has_written = _write_train_files(experts, chosen, identity, config)
    check_kinds = Counter(json.loads(row["check"])["kind"] for row in questions)
    return PrepareSummary(
        folder=folder,
        num_rows={split: len(rows) for split, rows in kept.items()},
        num_expert_rows=len(experts),
        dropped=counts,
        check_kinds=dict(check_kinds),
        unusable_tests=checks.unusable,
        contamination=contamination,
        train_files=train_files,
        did_something=has_written or not was_there,
    )


def _write_train_files(
    experts: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    identity: Identity,
    config: Config,
) -> tuple[list[Path], bool]:
    """The train files that have rows, and their entries in train/dataset_info.json. None for a
    family of abstract traces, whose traces are symbols and not the data's words.

    Args:
        experts: rows of <name>_reasoner and <name>_posterior.
        chosen: rows of <name>_chosen.

    Returns: their paths, and whether one was written now.
    """
    if config.renderer.is_abstract:
        return [], False
    name = config.data.name
    files = {
        f"{name}_reasoner": experts,
        f"{name}_posterior": experts,
        f"{name}_chosen": chosen,
    }
    columns = TABLES["reasoning"].columns.names
    paths = {}
    has_written = False
    for file_name, rows in files.items():
        if not rows:
            continue
        paths[file_name] = config.folder("train", f"{file_name}.parquet")
        train_rows = [_with_columns(row, columns) for row in rows]
        has_written |= write_file_once(paths[file_name], "reasoning", train_rows, identity)
    register_datasets(config.folder("train"), dict.fromkeys(paths, "reasoning"))
    return list(paths.values()), has_written


def _with_columns(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {column: row[column] for column in columns}


def describe_preparation(summary: PrepareSummary) -> str:
    """The lines that the command prints at its end."""
    lines = []
    for split, count in summary.num_rows.items():
        reasons = [f"{count} {reason}" for reason, count in summary.dropped[split].items()]
        about_dropped = f"dropped: {', '.join(reasons)}" if reasons else "none dropped"
        lines.append(f"{split}: {count} questions; {about_dropped}")
    if not summary.num_expert_rows:
        lines.append("no row has a trace, so there is no train file for stages 1 and 2")
    elif not summary.train_files:
        lines.append(
            f"{summary.num_expert_rows} rows have a verbal chain; scripts/build_arms.py makes "
            "train files of symbols"
        )
    else:
        lines.append(f"stages 1 and 2 train on {summary.num_expert_rows} rows")
    kinds = [f"{kind} {count}" for kind, count in sorted(summary.check_kinds.items())]
    lines.append(f"checks: {', '.join(kinds)}")
    if summary.check_kinds.get("none"):
        lines.append(
            "checks of kind none: no gold is known there, so stage 7 cannot verify answers to them"
        )
    if summary.unusable_tests:
        source, reason = next(iter(summary.unusable_tests.items()))
        lines.append(
            f"tests that cannot be used: {len(summary.unusable_tests)}, such as {source}: {reason}"
        )
    if summary.contamination:
        words = summary.contamination["ngram_words"]
        lines.append(
            f"train questions that share {words} words in a row with a benchmark "
            f"({summary.folder / CONTAMINATION}):"
        )
        for name, counts in summary.contamination["benchmarks"].items():
            found = f"{counts['questions_found_in_train']} of its {counts['questions']} questions"
            lines.append(f"  {name}: {counts['train_questions']} ({found})")
    if not summary.did_something:
        lines.append("nothing to do: everything was finished before")
    files = [summary.folder, *summary.train_files]
    lines.append(f"files: {', '.join(map(str, files))}")
    return "\n".join(lines)


def _check_settings(config: Config) -> None:
    """Raises: ValueError that lists all settings that do not fit."""
    faults = _faults_of_data(config) + _faults_of_lists(config.data)
    if faults:
        faults += _absent_files(config.data)  # alone, it is found when the file is opened
        raise ValueError("\n".join(faults))


def _faults_of_data(config: Config) -> list[str]:
    """What is wrong with the data sets, the base model and the layout."""
    data = config.data
    faults = []
    if not data.train:
        faults.append(
            "data.train is empty; name a .jsonl, .json or .parquet file, a folder, or a data set "
            "on the hub"
        )
    base = _base(config)
    if not base:
        faults.append("base is not set; name the model folder that both trainings start from")
    elif not Path(base).is_dir():
        name = "base" if config.base else "models.reasoner"
        fault = f"{name}: there is no model folder {base}"
        if re.fullmatch(r"[\w.-]+/[\w.-]+", base):  # as the hub names models
            fault += f"; a model of the hub becomes one by base=$(hf download --quiet {base})"
        faults.append(fault)
    if config.traces_are_optional and data.format != "columns":
        faults.append(
            f"data.format: {data.format!r} takes question and trace out of one text, so each row "
            "has a trace; set data.traces: required, or data.format: columns"
        )
    for source in (data.train, data.test):
        if is_gym(source):
            faults += gym_faults(str(source), data.gym)
    if is_gym(data.train) and not config.traces_are_optional:
        faults.append(
            f"data.train: {data.train!r} has questions without traces; set posterior: prompted or "
            "own_traces, with models.reasoner (docs/own_questions.md)"
        )
    return faults


def _faults_of_lists(data: DataConfig) -> list[str]:
    """What is wrong with the columns, the kinds of checks and the further files."""
    faults = []
    names: list[str] = []
    for columns in LAYOUTS.values():
        names += columns
    names = list(dict.fromkeys([*names, *OPTIONAL_COLUMNS]))
    unknown = sorted(data.columns.keys() - set(names))
    if unknown:
        faults.append(
            f"data.columns: {unknown} are not columns of ours; allowed are {', '.join(names)}"
        )
    for source, kind in data.check_kinds.items():
        if kind not in CHECK_KINDS:
            faults.append(
                f"data.check_kinds.{source}: {kind!r} is not one of {', '.join(CHECK_KINDS)}"
            )
    if data.hold_out and not data.question_ids:
        faults.append("data.hold_out is true, but data.question_ids names no questions to hold out")
    tests = [(each.source, each.file) for each in data.tests]
    faults += _faults_of_files("data.tests", tests)
    benchmarks = [(each.name, each.file) for each in data.decontaminate.benchmarks]
    faults += _faults_of_files("data.decontaminate.benchmarks", benchmarks)
    return faults


def _absent_files(data: DataConfig) -> list[str]:
    """Files of questions that are not there."""
    faults = []
    for source in (data.train, data.test):
        is_file = source and not is_gym(source) and not data.allow_hub
        if is_file and not Path(str(source)).exists():
            faults.append(no_file(str(source)))
    return faults


def _faults_of_files(section: str, names_and_files: Sequence[tuple[str, str]]) -> list[str]:
    """Entries of a list of the configuration without a name or a file, and names used twice."""
    faults = []
    uses: Counter[str] = Counter()
    for number, (name, file) in enumerate(names_and_files):
        uses[name] += 1
        if not name or not file:
            faults.append(f"{section}.{number}: needs a name and a file")
    for name in sorted(uses):
        if name and uses[name] > 1:
            faults.append(f"{section}: {name!r} is there twice")
    return faults


def _base(config: Config) -> str | None:
    """The model whose tokenizer counts lengths: the base, or the model that the run starts from."""
    return config.base or config.models.reasoner


def _read_rows(config: Config) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Rows as they are by split, with their sources, and the digests of what was read."""
    data = config.data
    train_rows, digest = _read_split(data.train, "train", data)
    inputs = {"train": digest}
    print(f"reads {len(train_rows)} train rows from {data.train}")
    if data.sources:
        sources, digest = read_source(data.sources, data.train_split, data.allow_hub)
        inputs["sources"] = digest
        print(f"reads {len(sources)} sources from {data.sources}")
        column = data.columns.get("source", "source")
        train_rows = join_sources(train_rows, data.train, sources, data.sources, column)
    rows = {"train": train_rows}
    if data.test:
        rows["test"], inputs["test"] = _read_split(data.test, "test", data)
        print(f"reads {len(rows['test'])} test rows from {data.test}")
    return rows, inputs


def _read_split(source: str, split: str, data: DataConfig) -> tuple[list[dict[str, Any]], str]:
    """(rows, sha256) of a file, a data set or a task of reasoning-gym."""
    if is_gym(source):
        return gym_rows(source, split, data.gym)
    hub_split = data.train_split if split == "train" else data.test_split
    stream = None
    if split == "train" and data.stream_rows is not None:
        stream = Stream(data.stream_rows, data.stream_buffer, data.stream_seed)
    return read_source(source, hub_split, data.allow_hub, stream)


def _read_benchmarks(config: Config) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Questions of the benchmarks by name, and digests.

    Raises: ValueError for rows without text in their column.
    """
    texts = {}
    digests = {}
    for benchmark in config.data.decontaminate.benchmarks:
        name = benchmark.name
        column = benchmark.column
        rows, digest = read_source(benchmark.file, benchmark.split, config.data.allow_hub)
        faults = []
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get(column), str):
                columns = ", ".join(row)
                faults.append(f"row {number}: no text in the column {column!r}; it has {columns}")
        raise_listed(benchmark.file, faults)
        texts[name] = [row[column] for row in rows]
        digests[f"benchmark.{name}"] = digest
        print(f"reads {len(rows)} questions of the benchmark {name} from {benchmark.file}")
    return texts, digests


def _read_listed(config: Config, inputs: dict[str, str]) -> list[str] | None:
    """The ids of data.question_ids, whose digest goes into `inputs`; None without a file."""
    if not config.data.question_ids:
        return None
    ids = read_ids(Path(config.data.question_ids))
    inputs["question_ids"] = file_digest(config.data.question_ids)
    return ids


def _identity(
    config: Config, inputs: Mapping[str, str], raw: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Identity:
    """What the rows depend on; files are known by their digests, not by their paths."""
    data = config.data
    keys = ("cutoff_len", "posterior_prompt", *_KEYS_OF_ROWS)
    settings = resolved(config, *keys)
    settings |= config.renderer.to_record()
    settings["data.tests"] = {tests.source: tests.column for tests in data.tests}
    if data.decontaminate.benchmarks:
        settings |= resolved(config, "data.decontaminate.ngram_words", "data.decontaminate.mode")
        settings["data.decontaminate.benchmarks"] = {
            part.name: part.column for part in data.decontaminate.benchmarks
        }
    if config.traces_are_optional:
        settings["data.traces"] = "optional"
    for name in ("min_chain", "min_answer"):
        # Named only where it is not the default, so that tables written before stay valid.
        if getattr(data, name) != getattr(DataConfig, name):
            settings |= resolved(config, f"data.{name}")
    column = data.columns.get("split", "split")
    for split, rows in raw.items():
        wanted = resolved(config, f"data.{split}_split")
        # Named only where it decides, so that tables written before the column counted stay valid.
        if any(not is_of_split(row.get(column), *wanted.values()) for row in rows):
            settings |= wanted
    return Identity(inputs=inputs, config=settings)


def _usable(
    raw: Mapping[str, Sequence[Mapping[str, Any]]], checks: QuestionChecks, config: Config
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Dropped]]:
    """Rows of the questions table and dropped rows, by split.

    Raises: ValueError when a split has no usable row.
    """
    data = config.data
    renderer = config.renderer
    base = _base(config)
    assert base is not None  # _check_settings refuses a configuration without it
    encode, decode = text_codec(load_tokenizer(base))
    renderer.check_codec(encode, decode, base)
    kept: dict[str, list[dict[str, Any]]] = {}
    dropped: dict[str, Dropped] = {}
    seen_questions: dict[str, str] = {}
    for split, rows in raw.items():
        where = data.train if split == "train" else str(data.test)
        layout = data
        needs_no_trace = config.traces_are_optional
        if is_gym(where):  # its rows have our columns, and no traces
            layout = replace(data, columns={}, format="columns")
            needs_no_trace = True
        table = to_columns(rows, where, renderer, layout, needs_no_trace)
        usable, unusable = usable_rows(table, where, split, seen_questions, checks, config)
        if split == "train":
            usable = fitting_rows(usable, renderer, encode, config, unusable)
        if not usable:
            raise ValueError(
                f"{where}: no usable {split} row remains; dropped: {_counts(unusable)}"
            )
        kept[split] = usable
        dropped[split] = unusable
    checks.refuse_unused()
    _refuse_repeated_ids(kept)
    return kept, dropped


def _decontaminate(
    kept: dict[str, list[dict[str, Any]]],
    benchmarks: Mapping[str, Sequence[str]],
    dropped: Dropped,
    config: Config,
) -> dict[str, Any]:
    """The report; with mode drop, matching questions go from kept["train"] to `dropped`, under
    their first benchmark.

    Raises: ValueError when nothing remains.
    """
    settings = config.data.decontaminate
    words = settings.ngram_words
    questions = {row["question_id"]: row["question"] for row in kept["train"]}
    matches = find_matches(questions, benchmarks, words)
    report = contamination_report(matches, len(questions), benchmarks, words)
    if settings.mode == "drop":
        first_benchmark: dict[str, str] = {}
        for match in matches:
            first_benchmark.setdefault(match.question_id, match.benchmark)
        remaining = []
        for row in kept["train"]:
            question_id = row["question_id"]
            if question_id in first_benchmark:
                reason = f"in the benchmark {first_benchmark[question_id]}"
                dropped.setdefault(reason, []).append(question_id)
            else:
                remaining.append(row)
        if not remaining:
            raise ValueError(
                f"data.decontaminate: every one of the {len(questions)} train questions is in a "
                "benchmark"
            )
        kept["train"] = remaining
    return {"mode": settings.mode} | report


def _subset(
    rows: list[dict[str, Any]], listed: Sequence[str], dropped: Dropped, config: Config
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows of the listed questions, rows of the two train files).

    Raises: ValueError for listed ids that no train row has, and when nothing remains on either
    side.
    """
    where = f"{config.data.question_ids} (data.question_ids)"
    wanted = set(listed)
    chosen: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row in rows:
        side = chosen if row["question_id"] in wanted else others
        side.append(row)
    reason_of = {}
    for reason, ids in dropped.items():
        reason_of.update(dict.fromkeys(ids, reason))
    there = {row["question_id"] for row in rows}
    lost: Counter[str] = Counter()
    unknown = []
    for question_id in listed:
        if question_id in there:
            continue
        if question_id in reason_of:
            lost[reason_of[question_id]] += 1
        else:
            unknown.append(question_id)
    if unknown:
        raise ValueError(
            f"{where}: {len(unknown)} of its {len(listed)} ids are none of {config.data.train}, "
            f"such as {unknown[:3]}; ids there are such as {rows[0]['question_id']!r} "
            f"(data.ids: {config.data.ids})"
        )
    about_lost = f"; dropped: {dict(lost)}" if lost else ""
    print(f"takes {len(chosen)} of the {len(listed)} questions of {where}{about_lost}")
    experts = others if config.data.hold_out else rows
    if not chosen:
        raise ValueError(f"{where}: none of its questions is usable")
    if not experts:
        raise ValueError(f"{where}: with data.hold_out no row remains for stages 1 and 2")
    return chosen, experts


def _counts(dropped: Dropped) -> dict[str, int]:
    return {reason: len(ids) for reason, ids in dropped.items()}


def _refuse_repeated_ids(kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises: ValueError for an id that two rows have, in one split or in two."""
    uses: Counter[str] = Counter()
    for rows in kept.values():
        uses.update(row["question_id"] for row in rows)
    repeated = [question_id for question_id, count in uses.items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated)} question ids are there more than once, such as {repeated[0]!r}; "
            "correct the column, or map question_id to another in data.columns"
        )
