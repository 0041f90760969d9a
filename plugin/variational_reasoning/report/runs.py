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

    num_in, num_out: rows, or for a training rows per epoch.
    tokens: sampled, scored or trained on (targets of all epochs).
    reasons: what became of the difference, and what else was counted.
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
    health_path = folder / HEALTH
    health = read_json_object(health_path, REMEDY) if health_path.is_file() else None
    train_files = {}
    for path in sorted(folder.glob("train/*.manifest.json")):
        manifest = read_json_object(path, REMEDY)
        train_files[path.name.removesuffix(".manifest.json")] = {
            "rows": manifest["rows"]
        } | manifest.get("figures", {})
    seconds = read_timings(folder)
    if not (evaluations or unfinished or seconds or health or train_files):
        raise ValueError(f"{folder} holds no evaluation, timing or train file; is it a run folder?")
    stages = read_stages(folder, evaluations)
    return Run(folder, evaluations, unfinished, seconds, health, train_files, stages)


def read_rounds(folder: Path) -> list[Run]:
    """The run folder itself, which is round 1, and its rounds 2, 3, ... in order."""
    rounds = [path for path in folder.glob("round*") if path.name.removeprefix("round").isdigit()]
    return [
        read_run(path)
        for path in [folder, *sorted(rounds, key=lambda path: int(path.name.removeprefix("round")))]
    ]


def read_stages(folder: Path, evaluations: Mapping[str, Evaluation]) -> dict[str, StageFacts]:
    """Facts by stage, under the names of timings.jsonl, from the manifests that are there."""
    stages: dict[str, StageFacts] = {}
    if manifest := _manifest(folder / "questions"):
        dropped: Counter[str] = Counter()
        for reasons in manifest.get("dropped_counts", {}).values():
            dropped.update(reasons)
        stages["prepare_data"] = StageFacts(
            manifest["rows"] + dropped.total(), manifest["rows"], None, dict(dropped)
        )
    trainings = {}
    for name, trained in training_folders(folder).items():
        record = read_record(trained)
        if record and "rows" in record:
            trainings[f"train {name}"] = _training(trained, record)
    stages |= {
        name: trainings.pop(name)
        for name in ("train reasoner", "train posterior")
        if name in trainings
    }
    inner = ["from_reasoner", *sorted(path.name for path in folder.glob("hint_*"))]
    places = [(folder, ""), *((folder / name, f"_{name}") for name in inner)]
    for place, suffix in places:
        for stage, table in _TABLES.items():
            if manifest := _manifest(place / table):
                stages[stage + suffix] = _sampled(stage, manifest)
    stages |= trainings
    for name, evaluation in evaluations.items():
        result = evaluation.result
        tokens = (
            round(result["mean_tokens"] * result["num_answers"])
            if "num_answers" in result
            else None
        )
        num_answers = result.get("num_answers")
        stages[f"evaluate_{name}"] = StageFacts(
            num_answers, num_answers, tokens, result.get("verdicts", {})
        )
    return stages


_TABLES = {
    "sample_traces": "traces",
    "score_traces_reasoner": "trace_logps/reasoner",
    "score_traces_posterior": "trace_logps/posterior",
    "sample_answers": "answers",
    "verify_answers": "verdicts",
}


def _sampled(stage: str, manifest: Mapping[str, Any]) -> StageFacts:
    counts = dict(manifest["counts"])
    tokens, num_traces = counts.pop("tokens", None), counts.pop("traces", None)
    if stage in ("sample_traces", "sample_answers"):
        counts.pop("stop", None)
    reasons = {
        name: count
        for name, count in counts.items()
        if count and name not in ("dropped", "failed", "no_room")
    }
    for row in [*manifest.get("dropped", ()), *manifest.get("failed", ())]:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    num_in = manifest["rows"] + counts.get("dropped", 0) + counts.get("failed", 0)
    if stage.startswith("score"):
        num_in = num_traces
    elif stage == "sample_answers":
        num_in += (counts["malformed"] + counts["no_room"]) * manifest["config"][
            "sampling.num_answers"
        ]
    return StageFacts(num_in, manifest["rows"], tokens, reasons)


def _training(model: Path, record: Mapping[str, Any]) -> StageFacts:
    rows = record["rows"]
    dropped = rows.get("dropped_longer_than_cutoff_len", 0)
    results = model / "train_results.json"
    epochs = (
        read_json_object(results, "train the model again").get("epoch")
        if results.is_file()
        else None
    )
    tokens = (
        None if epochs is None else math.floor(rows["count"] * rows["mean_target_tokens"] * epochs)
    )
    reasons = {"longer than cutoff_len": dropped} if dropped else {}
    return StageFacts(rows["count"] + dropped, rows["count"], tokens, reasons)


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    return read_json_object(path, REMEDY) if path.is_file() else None
