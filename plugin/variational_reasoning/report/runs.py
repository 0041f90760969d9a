"""What a run folder holds for the report: evaluations, stages, health, train files.

A run is a folder. Its rounds are run_dir/round<t> with the same layout, each a part of the report.
Everything here is read from result files, manifests and timings; only the shares of evaluations are
computed from rows.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.files import read_json_object
from variational_reasoning.model_record import read_record
from variational_reasoning.pipeline.build.health import HEALTH
from variational_reasoning.pipeline.rows import MANIFEST
from variational_reasoning.pipeline.work.timings import read_timings
from variational_reasoning.report.evaluations import (
    REMEDY,
    Evaluation,
    read_evaluations,
    read_unfinished,
)
from variational_reasoning.report.training import training_folders


class StageFacts(NamedTuple):
    """What one command did. None where it is not known, or has no such number.

    num_in, num_out: rows; of a training, rows per epoch.
    tokens: sampled, scored or trained on (targets of all epochs).
    reasons: what became of the rows that are not in the output, and what else was counted.
    """

    num_in: int | None
    num_out: int | None
    tokens: int | None
    reasons: dict[str, int]


class Run(NamedTuple):
    """One run folder, or one round of it; evaluations by name, seconds and facts by stage.

    unfinished: how far the evaluations are that have no result yet, by name.
    """

    folder: Path
    evaluations: dict[str, Evaluation]
    unfinished: dict[str, str]
    seconds: dict[str, float]
    health: dict[str, Any] | None
    train_files: dict[str, dict[str, Any]]
    stages: dict[str, StageFacts]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises: ValueError for a folder that is not there or holds nothing to report.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no run folder {folder}")
    evaluations = read_evaluations(folder / "evals")
    unfinished = read_unfinished(folder / "evals")
    health = _read_if_there(folder / HEALTH)
    train_files = _read_train_files(folder)
    seconds = read_timings(folder)
    if not (evaluations or unfinished or seconds or health or train_files):
        raise ValueError(f"{folder} holds no evaluation, timing or train file; is it a run folder?")
    return Run(
        folder,
        evaluations,
        unfinished,
        seconds,
        health,
        train_files,
        stages=read_stages(folder, evaluations),
    )


def _read_train_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows and figures of the train files of a run, by name."""
    found = {}
    for path in sorted(folder.glob("train/*.manifest.json")):
        manifest = read_json_object(path, REMEDY)
        name = path.name.removesuffix(".manifest.json")
        figures = manifest.get("figures", {})
        found[name] = {"rows": manifest["rows"]} | figures
    return found


def rounds_in(folder: Path) -> list[Path]:
    """The folders round1, round2, ... in a folder, in order."""
    by_number = {}
    for path in folder.glob("round*"):
        number = path.name.removeprefix("round")
        if number.isdigit():
            by_number[int(number)] = path
    return [by_number[number] for number in sorted(by_number)]


def read_later_rounds(run: Run) -> list[Run]:
    """Rounds 2, 3, ... of a run, in order; the run's folder itself is round 1."""
    return [read_run(path) for path in rounds_in(run.folder)]


def read_stages(folder: Path, evaluations: Mapping[str, Evaluation]) -> dict[str, StageFacts]:
    """Facts by stage, under the names of timings.jsonl, from the manifests that are there.

    They are in the order in which a run goes through its stages.
    """
    stages: dict[str, StageFacts] = {}
    manifest = _read_if_there(folder / "questions" / MANIFEST)
    if manifest is not None:
        stages["prepare_data"] = _prepared(manifest)
    trainings = {}
    for name, trained in training_folders(folder).items():
        record = read_record(trained)
        if record and "rows" in record:
            trainings[f"train {name}"] = _training(trained, record)
    for name in ("train reasoner", "train posterior"):
        if name in trainings:
            stages[name] = trainings.pop(name)
    stages |= _tables_of(folder, suffix="")
    hints = sorted(path.name for path in folder.glob("hint_*"))
    for name in ("from_reasoner", *hints):
        stages |= _tables_of(folder / name, suffix=f"_{name}")
    stages |= trainings
    for name, evaluation in evaluations.items():
        stages[f"evaluate_{name}"] = _evaluated(evaluation.result)
    return stages


_TABLES = {
    "sample_traces": "traces",
    "score_traces_reasoner": "trace_logps/reasoner",
    "score_traces_posterior": "trace_logps/posterior",
    "sample_answers": "answers",
    "verify_answers": "verdicts",
}


def _prepared(manifest: Mapping[str, Any]) -> StageFacts:
    """Stage 0, from the manifest of its questions."""
    num_out = manifest["rows"]
    dropped: Counter[str] = Counter()
    for reasons in manifest.get("dropped_counts", {}).values():
        dropped.update(reasons)
    return StageFacts(
        num_in=num_out + dropped.total(),
        num_out=num_out,
        tokens=None,
        reasons=dict(dropped),
    )


def _tables_of(folder: Path, suffix: str) -> dict[str, StageFacts]:
    """Stages 3 to 7 of a run, or of a folder inside it that has the same tables."""
    stages = {}
    for stage, table in _TABLES.items():
        manifest = _read_if_there(folder / table / MANIFEST)
        if manifest is not None:
            stages[stage + suffix] = _sampled(stage, manifest)
    return stages


def _sampled(stage: str, manifest: Mapping[str, Any]) -> StageFacts:
    """One of stages 3 to 7, from its table's manifest.

    Example, stage 6 with two answers per trace:

        manifest  rows 90, counts: malformed 3, no_room 2, length 7, stop 83
        facts     90 rows of 100 (two for each of the 5 traces without answers);
                  reasons: malformed 3, length 7, and the reasons of the rows that were dropped
    """
    counts = dict(manifest["counts"])
    tokens = counts.pop("tokens", None)
    num_traces = counts.pop("traces", None)
    if stage in ("sample_traces", "sample_answers"):
        counts.pop("stop", None)
    reasons: Counter[str] = Counter()
    for name, count in counts.items():
        if count and name not in ("dropped", "failed", "no_room"):
            reasons[name] = count
    for kind in ("dropped", "failed"):
        for row in manifest.get(kind, ()):
            reasons[row["reason"]] += 1
    num_out = manifest["rows"]
    num_in = num_out + counts.get("dropped", 0) + counts.get("failed", 0)
    if stage.startswith("score"):
        num_in = num_traces
    elif stage == "sample_answers":
        without_answers = counts["malformed"] + counts["no_room"]
        num_in += without_answers * manifest["config"]["sampling.num_answers"]
    return StageFacts(num_in, num_out, tokens, dict(reasons))


def _training(model: Path, record: Mapping[str, Any]) -> StageFacts:
    """One training, from the record next to its model."""
    rows = record["rows"]
    dropped = rows.get("dropped_longer_than_cutoff_len", 0)
    reasons = {"longer than cutoff_len": dropped} if dropped else {}
    tokens = None
    results = model / "train_results.json"
    if results.is_file():
        epochs = read_json_object(results, "train the model again").get("epoch")
        if epochs is not None:
            tokens_per_epoch = rows["count"] * rows["mean_target_tokens"]
            tokens = math.floor(tokens_per_epoch * epochs)
    return StageFacts(
        num_in=rows["count"] + dropped,
        num_out=rows["count"],
        tokens=tokens,
        reasons=reasons,
    )


def _evaluated(result: Mapping[str, Any]) -> StageFacts:
    """One evaluation, from its result.json; results of other programs count no answers."""
    num_answers = result.get("num_answers")
    tokens = None
    if num_answers is not None:
        tokens = round(result["mean_tokens"] * num_answers)
    return StageFacts(
        num_in=num_answers,
        num_out=num_answers,
        tokens=tokens,
        reasons=result.get("verdicts", {}),
    )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return read_json_object(path, REMEDY)
