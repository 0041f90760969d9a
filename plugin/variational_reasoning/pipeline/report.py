"""The report of one run, or of several that differ only in their seed: scores, stage times, posterior's health, files.

Scores come from evals/*/result.json and the tables beside them. A model is compared with the baseline on the same
questions: with one run the difference is paired over questions and its standard error is over questions; with several
runs the difference of each run is such a mean, and the standard error is over runs, which is what another seed would
change. A run without evaluations still gives times and health.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.model_record import read_json_object
from variational_reasoning.pipeline.build import HEALTH
from variational_reasoning.pipeline.rows import group_by, read_rows
from variational_reasoning.pipeline.timings import read_timings
from variational_reasoning.verify.verdicts import Verdict

RESULT = "result.json"
REMEDY = "run the command that wrote it again"
BASE = "base"
"""The evaluation of the model that was never trained on the task; it is listed before the baseline."""


class Estimate(NamedTuple):
    """A mean and its standard error; None for the error where there is a single value."""

    mean: float
    standard_error: float | None


class Evaluation(NamedTuple):
    """One model of one run: result.json, and the share of correct samples by question_id, in [0, 1]."""

    result: dict[str, Any]
    shares: dict[str, float]


class Run(NamedTuple):
    """What a run folder holds for the report; evaluations by name."""

    folder: Path
    evaluations: dict[str, Evaluation]
    seconds: dict[str, float]
    health: dict[str, Any] | None
    train_files: dict[str, dict[str, Any]]


def mean_and_error(values: Sequence[float]) -> Estimate:
    """Mean, and sample standard deviation over the square root of n.

    Raises: ValueError for no values.
    """
    if not values:
        raise ValueError("there are no values to take a mean of")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Estimate(mean, math.sqrt(variance / len(values)))


def paired_difference(model: Mapping[str, float], baseline: Mapping[str, float], where: str) -> Estimate:
    """Mean over questions of model minus baseline, with its standard error over questions.

    Raises: ValueError when the two were not asked the same questions.
    """
    if model.keys() != baseline.keys():
        only = sorted(model.keys() ^ baseline.keys())
        raise ValueError(f"{where}: {len(only)} questions were asked of one model only, such as {only[:3]}; evaluate again")
    return mean_and_error([model[question_id] - baseline[question_id] for question_id in model])


def read_run(folder: Path) -> Run:
    """Read one run folder. Raises: ValueError for a folder that is not there or holds nothing to report."""
    if not folder.is_dir():
        raise ValueError(f"there is no run folder {folder}")
    evaluations = {}
    for path in sorted(folder.glob(f"evals/*/{RESULT}")):
        rows = read_rows(path.parent, "evals", ["question_id", "answer_id", "verdict"])
        shares = {
            question_id: sum(row["verdict"] == Verdict.CORRECT.value for row in group) / len(group)
            for question_id, group in group_by(rows, "question_id").items()
        }
        evaluations[path.parent.name] = Evaluation(read_json_object(path, REMEDY), shares)
    health_path = folder / HEALTH
    health = read_json_object(health_path, REMEDY) if health_path.is_file() else None
    train_files = {}
    for path in sorted(folder.glob("train/*.manifest.json")):
        manifest = read_json_object(path, REMEDY)
        train_files[path.name.removesuffix(".manifest.json")] = {"rows": manifest["rows"]} | manifest.get("figures", {})
    seconds = read_timings(folder)
    if not (evaluations or seconds or health or train_files):
        raise ValueError(f"{folder} holds no evaluation, timing or train file; is it a run folder?")
    return Run(folder, evaluations, seconds, health, train_files)


def report(folders: Sequence[Path], baseline: str = "reasoner") -> str:
    """The report as Markdown.

    Args:
        folders: run folders; several are taken as seeds of one experiment.
        baseline: the name in evals/ that the others are compared with.

    Raises: ValueError for folders that cannot be read, repeated ones, and runs whose evaluations differ in k.
    """
    if len({folder.resolve() for folder in folders}) != len(folders) or not folders:
        raise ValueError("name at least one run folder, and none of them twice")
    runs = [read_run(folder) for folder in folders]
    title = f"# {folders[0]}" if len(runs) == 1 else f"# {len(runs)} runs: {', '.join(map(str, folders))}"
    parts = [title, _scores(runs, baseline), _health(runs), _data(runs), _times(runs), _files(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(runs: Sequence[Run], baseline: str) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    if not names:
        return "No model is evaluated yet: `python evals/run.py CONFIG.yaml model=NAME name=NAME`."
    first = [name for name in (BASE, baseline) if name in names]
    ks = {run.evaluations[name].result["num_samples"] for run in runs for name in run.evaluations}
    if len(ks) > 1:
        raise ValueError(f"the evaluations have different numbers of samples per question: {sorted(ks)}; evaluate again")
    lines = [
        f"| model | Avg@{ks.pop()} | against {baseline} | tokens | truncated | no answer | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in first + [name for name in names if name not in first]:
        found = [run for run in runs if name in run.evaluations]
        results = [run.evaluations[name].result for run in found]
        if len(runs) == 1:
            score = mean_and_error(list(found[0].evaluations[name].shares.values()))
        else:
            score = mean_and_error([result["avg"] for result in results])
        both = [run for run in found if baseline in run.evaluations and name != baseline]
        gains = [
            paired_difference(run.evaluations[name].shares, run.evaluations[baseline].shares, f"{run.folder} {name}")
            for run in both
        ]
        gain = "" if not gains else _points(gains[0] if len(runs) == 1 else mean_and_error([g.mean for g in gains]), "+")
        tokens, truncated, no_answer = (
            math.fsum(result[key] for result in results) / len(results) for key in ("mean_tokens", "truncated", "no_answer")
        )
        lines.append(
            f"| {name} | {_points(score)} | {gain} | {tokens:.1f} | {truncated:.1%} | {no_answer:.1%} | {len(found)} |"
        )
    over = "questions" if len(runs) == 1 else "runs"
    note = f"Percent; ± is the standard error over {over}. Differences are paired over questions."
    if baseline not in names:
        note += f" There is no evaluation named {baseline}, so nothing is compared."
    return "\n".join([*lines, "", note])


def _health(runs: Sequence[Run]) -> str:
    lines, warnings = [], []
    for run in runs:
        if run.health is None:
            continue
        size = run.health["mean_effective_sample_size"]
        coverage = run.health["coverage"]
        lines.append(
            f"| {run.folder} | {run.health['malformed_share']:.1%} | {run.health['copies_share']:.1%} | "
            + ("not measured" if coverage is None else f"{coverage:.1%}")
            + " | "
            + ("none" if size is None else f"{size:.2f}")
            + f" of {run.health['num_traces_per_question']} | {run.health['num_questions_without_weights']} |"
        )
        warnings += [f"**Warning** ({run.folder}): {warning}" for warning in run.health["warnings"]]
    if not lines:
        return ""
    head = [
        "| posterior of | malformed | copies of the training trace | coverage | effective sample size | no weights |",
        "|---|---|---|---|---|---|",
    ]
    note = "Coverage: questions with an accepted answer after at least one trace. No weights: questions whose rho are all 0."
    return "\n".join([*head, *lines, "", note, *(["", *warnings] if warnings else [])])


def _data(runs: Sequence[Run]) -> str:
    lines = [
        f"| {name} | {run.folder} | {figures['rows']} | {figures['mean_weight']:.3f} | {figures['mean_tokens']:.1f} | "
        + ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in sorted(figures["counts"].items()))
        + " |"
        for run in runs
        for name, figures in run.train_files.items()
        if "mean_weight" in figures
    ]
    head = ["| train file | run | rows | mean weight | mean response tokens | counts |", "|---|---|---|---|---|---|"]
    return "\n".join(head + lines) if lines else ""


def _times(runs: Sequence[Run]) -> str:
    stages = list(dict.fromkeys(stage for run in runs for stage in run.seconds))
    if not stages:
        return ""
    lines = []
    for stage in stages:
        values = [run.seconds[stage] for run in runs if stage in run.seconds]
        lines.append(f"| {stage} | {math.fsum(values) / len(values):.1f} |")
    total = math.fsum(value for run in runs for value in run.seconds.values()) / len(runs)
    head = [f"| stage | seconds{' (mean over runs)' if len(runs) > 1 else ''} |", "|---|---|"]
    note = "Seconds of each command, summed over resumed ones; commands that ran side by side count in full."
    return "\n".join([*head, *lines, f"| all | {total:.1f} |", "", note])


def _files(runs: Sequence[Run]) -> str:
    lines = ["Files:"]
    for run in runs:
        found = [name for name in ("models", "train", "traces", "verdicts", "evals") if (run.folder / name).is_dir()]
        lines.append(f"- {run.folder}: " + (", ".join(f"{name}/" for name in found) or "nothing yet"))
    return "\n".join(lines)


def _points(estimate: Estimate, sign: str = "") -> str:
    error = "" if estimate.standard_error is None else f" ± {100 * estimate.standard_error:.1f}"
    return f"{100 * estimate.mean:{sign}.1f}{error}"
