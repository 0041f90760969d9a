"""The sections that compare runs and models: scores, Pass@k, the paper, health, files, times.

A model is compared with the baseline on the same questions. With one run, the difference is paired
over questions, and its standard error is over questions. With several runs, each run gives one such
mean difference. The standard error is then over runs, and shows the effect of another seed. A run
without evaluations still has times and health.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from variational_reasoning.method.evaluation import (
    BENCHMARKS,
    Estimate,
    PaperResult,
    mean_and_error,
    paper_results,
)
from variational_reasoning.model_record import read_record
from variational_reasoning.report.evaluations import (
    compare,
    left_out_warning,
    pass_curve,
    unfinished_warning,
)
from variational_reasoning.report.page import Picture, Section, Table
from variational_reasoning.report.runs import Run
from variational_reasoning.report.training import training_folders

_BENCHMARK_NAMES = tuple(itertools.chain(*BENCHMARKS.values()))

BASE = "base"
"""The evaluation of the model before any training. It comes before the baseline."""


def scores(runs: Sequence[Run], baseline: str) -> Section:
    """Avg@k of the models on the run's own questions.

    Raises: ValueError for evaluations that differ in k or in their questions.
    """
    section = Section(
        "Scores",
        "Avg@k: the mean over questions of the share of correct samples, and its standard error.",
    )
    for run in runs:
        for name, state in run.unfinished.items():
            section.warnings.append(unfinished_warning(f"{run.folder}: {name}", state))
    names = _own_names(runs, baseline)
    if not names:
        section.absent = (
            "No model is evaluated yet: `python evals/run.py CONFIG.yaml model=NAME name=NAME`."
        )
        return section
    heads = [f"Avg@{_common_k(runs, names)}", f"against {baseline}"]
    columns = ["model", *heads, "tokens", "truncated", "no answer", "runs"]
    table = Table(columns, [])
    for name in names:
        found = [run.evaluations[name] for run in runs if name in run.evaluations]
        results = [evaluation.result for evaluation in found]
        if len(runs) == 1:
            score = found[0].score
        else:
            score = mean_and_error([result["avg"] for result in results])
        gains = []
        if name != baseline:
            gains = _gains(runs, name, baseline, section.warnings)
        gain = ""
        if gains:
            gain = percent(_over_runs(gains, len(runs)), "+")
        row = [
            name,
            percent(score),
            gain,
            f"{_mean_of(results, 'mean_tokens'):.1f}",
            f"{_mean_of(results, 'truncated'):.1%}",
            f"{_mean_of(results, 'no_answer'):.1%}",
            str(len(found)),
        ]
        table.rows.append(row)
    over = "questions" if len(runs) == 1 else "runs"
    note = f"Percent; ± is the standard error over {over}. Differences are paired over questions."
    if baseline not in names:
        note += f" There is no evaluation named {baseline}, so nothing is compared."
    section.tables.append(table)
    section.notes.append(note)
    return section


def _mean_of(results: Sequence[Mapping[str, Any]], key: str) -> float:
    total = math.fsum(result[key] for result in results)
    return total / len(results)


def pass_curves(runs: Sequence[Run], baseline: str) -> Section:
    """Pass@1 .. Pass@n of every model on the run's own questions, the mean over runs (Fig. 2)."""
    section = Section(
        "Pass@k",
        "The chance that at least one of k samples is right, by the unbiased estimator "
        "1 - C(n-c, k) / C(n, k) (the paper's Fig. 2). A curve that starts higher but ends level "
        "has made answers more reliable, but has not made more questions solvable.",
    )
    curves = {}
    for name in _own_names(runs, baseline):
        found = [pass_curve(run.evaluations[name]) for run in runs if name in run.evaluations]
        # Runs have curves of different lengths where samples failed in the engine. zip cuts them.
        columns = zip(*found, strict=False)
        curves[name] = [_over_runs(estimates, len(runs)) for estimates in columns]
    if not curves:
        section.absent = "There are no evaluations (evals/)."
        return section
    from variational_reasoning.report.figures import plot_pass_curves

    section.pictures.append(Picture("pass_at_k", plot_pass_curves({"": curves})))
    return section


def benchmarks(runs: Sequence[Run]) -> Section:
    """Scores on the paper's benchmarks next to the paper's figures.

    The paper's rows are those of the same backbone, or all rows where the paper has no such one.
    """
    section = Section(
        "The paper's benchmarks",
        "Avg@k in percent, next to the figures of arXiv 2509.22637, tables 1 to 3, 5 and 6.",
    )
    found: dict[str, dict[str, list[Estimate]]] = {}
    for run in runs:
        for name, evaluation in run.evaluations.items():
            model, _, task = name.partition("/")
            benchmark = benchmark_name(task or str(evaluation.result.get("task") or ""))
            if benchmark:
                by_benchmark = found.setdefault(model, {})
                estimates = by_benchmark.setdefault(benchmark, [])
                estimates.append(evaluation.score)
    if not found:
        section.absent = (
            "No evaluation here is of one of the paper's benchmarks "
            "(docs/evaluation.md says how to run them)."
        )
        return section
    measured = set().union(*found.values())
    columns = [name for name in _BENCHMARK_NAMES if name in measured]
    table = Table(["model", *columns], [])
    for model, by_benchmark in found.items():
        cells = []
        for name in columns:
            if name not in by_benchmark:
                cells.append("")
                continue
            estimates = by_benchmark[name]
            cells.append(percent(_over_runs(estimates, len(estimates))))
        table.rows.append([f"{model} (this run)", *cells])
    for result in _paper_rows(runs):
        cells = [f"{result.scores[name]:.1f}" for name in columns]
        table.rows.append([f"{result.model} (paper)", *cells])
    section.tables.append(table)
    section.notes.append(
        "± is the standard error over questions, or over runs where there are several. "
        "The paper gives none."
    )
    return section


def benchmark_name(task: str) -> str | None:
    """The paper's benchmark of a task, such as `math500` for `vr_MATH500`; None for another."""
    plain = "".join(filter(str.isalnum, task.lower().removeprefix("vr_")))
    for name in _BENCHMARK_NAMES:
        if name.replace("_", "") == plain:
            return name
    return None


def health(runs: Sequence[Run]) -> Section:
    """The posterior's health, as stage 8 measured it."""
    section = Section(
        "The posterior's health",
        "Whether the posterior was trained too short, too long, or just enough.",
    )
    columns = [
        "posterior of",
        "malformed",
        "copies of the training trace",
        "coverage",
        "effective sample size",
        "no weights",
    ]
    table = Table(columns, [])
    extremes = []
    for run in runs:
        if run.health is None:
            continue
        size = run.health["mean_effective_sample_size"]
        shown_size = "none" if size is None else f"{size:.2f}"
        row = [
            str(run.folder),
            f"{run.health['malformed_share']:.1%}",
            _share(run.health["copies_share"]),
            _share(run.health["coverage"]),
            f"{shown_size} of {run.health['num_traces_per_question']}",
            str(run.health["num_questions_without_weights"]),
        ]
        table.rows.append(row)
        for warning in run.health["warnings"]:
            section.warnings.append(f"({run.folder}): {warning}")
        never = run.health.get("num_questions_never_right")
        if never is not None:
            always = run.health["num_questions_always_right"]
            extremes.append(
                f"{run.folder}: of {run.health['num_questions']:,} questions {never:,} are never "
                f"and {always:,} always answered right (build.question_accuracy leaves them out)."
            )
    if not table.rows:
        section.absent = "The posterior's health is not known: stage 8 has not run."
        return section
    section.tables.append(table)
    section.notes += extremes
    section.notes.append(
        "Coverage: questions with an accepted answer after at least one trace. "
        "No weights: questions whose rho are all 0."
    )
    return section


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def train_files(runs: Sequence[Run]) -> Section:
    """What stage 8 built, with counts."""
    section = Section(
        "Train files",
        "The rows that the final models train on, and why questions or traces are not among them.",
    )
    rows = []
    for run in runs:
        for name, figures in run.train_files.items():
            if "mean_weight" not in figures:
                continue
            row = [
                name,
                str(run.folder),
                f"{figures['rows']:,}",
                f"{figures['mean_weight']:.3f}",
                f"{figures['mean_tokens']:.1f}",
                listed(figures["counts"]),
            ]
            rows.append(row)
    if not rows:
        section.absent = "There are no train files of stage 8."
        return section
    columns = ["train file", "run", "rows", "mean weight", "mean response tokens", "counts"]
    section.tables.append(Table(columns, rows))
    return section


def times(runs: Sequence[Run]) -> Section:
    """Seconds and tokens of every stage, means over runs."""
    section = Section("Stages", "What every command took and did.")
    stages: dict[str, None] = {}
    for run in runs:
        stages |= dict.fromkeys(run.seconds)
    if not stages:
        section.absent = "There are no times (timings.jsonl)."
        return section
    rows = []
    for stage in stages:
        seconds = [run.seconds[stage] for run in runs if stage in run.seconds]
        mean_seconds = math.fsum(seconds) / len(seconds)
        tokens = []
        for run in runs:
            count = _tokens_of(run, stage)
            if count is not None:
                tokens.append(count)
        amount = ""
        if tokens:
            mean_tokens = sum(tokens) / len(tokens)
            amount = f"{mean_tokens:,.0f}"
        rows.append([stage, f"{mean_seconds:.1f}", amount])
    totals = [math.fsum(run.seconds.values()) for run in runs]
    mean_total = math.fsum(totals) / len(runs)
    rows.append(["all", f"{mean_total:.1f}", ""])
    over = " (mean over runs)" if len(runs) > 1 else ""
    section.tables.append(Table(["stage", f"seconds{over}", f"tokens{over}"], rows))
    section.notes.append(
        "Seconds of each command, summed over resumed ones; commands that ran at the same time "
        "count in full. Tokens: sampled, scored, or for a training the targets of all epochs."
    )
    return section


def _tokens_of(run: Run, stage: str) -> int | None:
    """Tokens of a command of timings.jsonl; None where one of its parts does not know them.

    One command evaluates all tasks of a suite: `evaluate_final` has the stages
    evaluate_final/aime24 and evaluate_final/math500.
    """
    total = None
    for name, facts in run.stages.items():
        command, _, _ = name.partition("/")
        if command != stage:
            continue
        if facts.tokens is None:
            return None
        total = (total or 0) + facts.tokens
    return total


def counts(run: Run) -> Section:
    """Rows into and out of every stage of one run, with the reasons."""
    section = Section(
        "Counts",
        "Rows into and out of every stage, with the reasons of the others and further counts.",
    )
    timed = [stage for stage in run.seconds if stage in run.stages]
    rows = []
    for stage in dict.fromkeys([*timed, *run.stages]):
        facts = run.stages[stage]
        row = [
            stage,
            _number(facts.num_in),
            _number(facts.num_out),
            listed(facts.reasons),
        ]
        rows.append(row)
    if not rows:
        section.absent = "There are no tables with manifests."
        return section
    section.tables.append(Table(["stage", "in", "out", "of these"], rows))
    return section


def files(runs: Sequence[Run]) -> Section:
    """Where everything is."""
    rows = []
    for run in runs:
        found = []
        for name in ("models", "train", "traces", "verdicts", "evals"):
            if (run.folder / name).is_dir():
                found.append(f"{name}/")
        rows.append([str(run.folder), ", ".join(found) or "nothing yet"])
    return Section("Files", tables=[Table(["run", "files"], rows)])


def listed(counts: Mapping[str, int]) -> str:
    """Counts as text, such as `malformed 3, stop 5`."""
    texts = []
    for name, count in sorted(counts.items()):
        words = name.replace("_", " ")
        texts.append(f"{words} {count:,}")
    return ", ".join(texts)


def percent(estimate: Estimate, sign: str = "") -> str:
    """A share as percent with its error, such as `50.0 ± 2.1`; `sign` is + to show a plus."""
    mean = f"{100 * estimate.mean:{sign}.1f}"
    if estimate.standard_error is None:
        return mean
    return f"{mean} ± {100 * estimate.standard_error:.1f}"


def _common_k(runs: Sequence[Run], names: Sequence[str]) -> int:
    """The samples per question of all these evaluations."""
    found: dict[int, list[str]] = {}
    for run in runs:
        for name in names:
            if name in run.evaluations:
                k = run.evaluations[name].num_samples
                those = found.setdefault(k, [])
                those.append(f"{run.folder.name}/{name}")
    if len(found) == 1:
        [k] = found
        return k
    where = []
    for k, those in sorted(found.items()):
        where.append(f"{k}: {', '.join(those)}")
    raise ValueError(
        f"the evaluations have different numbers of samples per question: {sorted(found)} "
        f"({'; '.join(where)}); evaluate again under other names, with one eval.num_samples for all"
    )


def _gains(
    runs: Sequence[Run],
    name: str,
    baseline: str,
    warnings: list[str],
) -> list[Estimate]:
    """For each run that has both models, the mean difference over questions."""
    gains = []
    for run in runs:
        if name not in run.evaluations or baseline not in run.evaluations:
            continue
        pair = run.evaluations[name], run.evaluations[baseline]
        comparison = compare(*pair, where=f"{run.folder} {name}")
        if comparison.num_left_out:
            where = f"{run.folder}: {name} and {baseline}"
            warnings.append(left_out_warning(where, comparison.num_left_out))
        if comparison.differences:
            gains.append(mean_and_error(comparison.differences))
    return gains


def _over_runs(estimates: Sequence[Estimate], num_runs: int) -> Estimate:
    """The estimate of one run, with its error over questions; for several, the error over runs."""
    if num_runs == 1:
        return estimates[0]
    return mean_and_error([estimate.mean for estimate in estimates])


def _own_names(runs: Sequence[Run], baseline: str) -> list[str]:
    """Names of the evaluations on the runs' own questions; the base and the baseline first."""
    names: dict[str, None] = {}
    for run in runs:
        names |= dict.fromkeys(run.evaluations)
    own = [name for name in names if "/" not in name]
    first = [name for name in (BASE, baseline) if name in own]
    others = [name for name in own if name not in first]
    return first + others


def _paper_rows(runs: Sequence[Run]) -> list[PaperResult]:
    bases = set()
    for run in runs:
        for folder in training_folders(run.folder).values():
            record = read_record(folder) or {}
            path = str(record.get("model", {}).get("path", ""))
            bases.add(path.rpartition("/")[2])
    results = paper_results()
    return [result for result in results if result.backbone in bases] or results


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
