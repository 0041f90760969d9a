"""The sections that compare runs and models: scores, Pass@k, the paper's figures, posterior's health, train files, times.

A model is compared with the baseline on the same questions: with one run the difference is paired over questions and its
standard error is over questions; with several runs the difference of each run is such a mean, and the standard error is
over runs, which is what another seed would change. A run without evaluations still gives times and health.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from variational_reasoning.method.evaluation import (
    BENCHMARKS,
    Estimate,
    PaperResult,
    mean_and_error,
    paired_differences,
    paper_results,
    pass_at_k,
)
from variational_reasoning.model_record import read_record
from variational_reasoning.report.page import Picture, Section, Table
from variational_reasoning.report.runs import Evaluation, Run
from variational_reasoning.report.training import training_folders

BASE = "base"
"""The evaluation of the model that was never trained on the task; it is listed before the baseline."""


def scores(runs: Sequence[Run], baseline: str) -> Section:
    """Avg@k of the models on the run's own questions.

    Raises: ValueError for evaluations that differ in k or in their questions.
    """
    section = Section(
        "Scores",
        "Avg@k: the mean over questions of the share of correct samples, and its standard error.",
    )
    names = _ordered(
        (name for run in runs for name in run.evaluations if "/" not in name), baseline
    )
    if not names:
        section.absent = (
            "No model is evaluated yet: `python evals/run.py CONFIG.yaml model=NAME name=NAME`."
        )
        return section
    ks = {
        run.evaluations[name].result["num_samples"]
        for run in runs
        for name in names
        if name in run.evaluations
    }
    if len(ks) > 1:
        raise ValueError(
            f"the evaluations have different numbers of samples per question: {sorted(ks)}; evaluate again"
        )
    table = Table(
        [
            "model",
            f"Avg@{ks.pop()}",
            f"against {baseline}",
            "tokens",
            "truncated",
            "no answer",
            "runs",
        ],
        [],
    )
    for name in names:
        found = [run for run in runs if name in run.evaluations]
        results = [run.evaluations[name].result for run in found]
        if len(runs) == 1:
            score = mean_and_error(list(found[0].evaluations[name].shares.values()))
        else:
            score = mean_and_error([result["avg"] for result in results])
        both = [run for run in found if baseline in run.evaluations and name != baseline]
        gains = [_gain(run, name, baseline) for run in both]
        gain = (
            ""
            if not gains
            else _points(
                gains[0] if len(runs) == 1 else mean_and_error([g.mean for g in gains]), "+"
            )
        )
        tokens, truncated, no_answer = (
            math.fsum(result[key] for result in results) / len(results)
            for key in ("mean_tokens", "truncated", "no_answer")
        )
        row = [
            name,
            _points(score),
            gain,
            f"{tokens:.1f}",
            f"{truncated:.1%}",
            f"{no_answer:.1%}",
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


def pass_curves(runs: Sequence[Run], baseline: str) -> Section:
    """Pass@1 .. Pass@n of every model on the run's own questions, the mean over runs (Fig. 2)."""
    section = Section(
        "Pass@k",
        "The chance that at least one of k samples is right, by the unbiased estimator 1 - C(n-c, k) / C(n, k) (the paper's "
        "Fig. 2): a curve that starts higher but ends level has made answers surer, not more questions solvable.",
    )
    curves = {}
    for name in _ordered(
        (name for run in runs for name in run.evaluations if "/" not in name), baseline
    ):
        found = [pass_curve(run.evaluations[name]) for run in runs if name in run.evaluations]
        curves[name] = [math.fsum(values) / len(values) for values in zip(*found, strict=True)]
    if not curves:
        section.absent = "There are no evaluations (evals/)."
        return section
    from variational_reasoning.report.figures import plot_pass_at_k

    section.pictures.append(Picture("pass_at_k", plot_pass_at_k(curves)))
    return section


def pass_curve(evaluation: Evaluation) -> list[float]:
    """Pass@k for k = 1 .. n, n the fewest samples of a question; the mean over questions, in [0, 1].

    Source: arXiv 2509.22637, Fig. 2.
    """
    kinds = Counter(
        evaluation.counts.values()
    )  # questions with the same counts have the same value
    fewest = min(samples for _, samples in kinds)
    return [
        math.fsum(
            count * pass_at_k(samples, correct, k) for (correct, samples), count in kinds.items()
        )
        / kinds.total()
        for k in range(1, fewest + 1)
    ]


def benchmarks(runs: Sequence[Run]) -> Section:
    """Scores on the paper's benchmarks beside the paper's figures.

    The paper's rows are those of the same backbone, or all where the backbone is none of the paper's.
    """
    section = Section(
        "The paper's benchmarks",
        "Avg@k in percent beside the figures of arXiv 2509.22637, tables 1 to 3, 5 and 6.",
    )
    found: dict[str, dict[str, list[Estimate]]] = {}
    for run in runs:
        for name, evaluation in run.evaluations.items():
            model, _, task = name.partition("/")
            benchmark = benchmark_name(task or str(evaluation.result.get("task") or ""))
            if benchmark:
                score = mean_and_error(list(evaluation.shares.values()))
                found.setdefault(model, {}).setdefault(benchmark, []).append(score)
    if not found:
        section.absent = "No evaluation here is of one of the paper's benchmarks (docs/evaluation.md says how to run them)."
        return section
    columns = [
        name
        for group in BENCHMARKS.values()
        for name in group
        if any(name in scores for scores in found.values())
    ]
    table = Table(["model", *columns], [])
    for model, by_benchmark in found.items():
        cells = []
        for name in columns:
            estimates = by_benchmark.get(name, [])
            # a single run: the error is over questions; several: over runs
            several = (
                mean_and_error([estimate.mean for estimate in estimates])
                if len(estimates) > 1
                else None
            )
            cells.append(_points(several or estimates[0]) if estimates else "")
        table.rows.append([f"{model} (this run)", *cells])
    for result in _paper_rows(runs):
        table.rows.append(
            [f"{result.model} (paper)", *(f"{result.scores[name]:.1f}" for name in columns)]
        )
    section.tables.append(table)
    section.notes.append(
        "± is the standard error over questions, or over runs where there are several. The paper gives none."
    )
    return section


def benchmark_name(task: str) -> str | None:
    """The paper's benchmark that a task's name stands for, such as `math500` for `vr_MATH500`; None for another task."""
    plain = "".join(
        character for character in task.lower().removeprefix("vr_") if character.isalnum()
    )
    names = [name for group in BENCHMARKS.values() for name in group]
    return next((name for name in names if name.replace("_", "") == plain), None)


def health(runs: Sequence[Run]) -> Section:
    """The posterior's health, as stage 8 measured it."""
    section = Section(
        "The posterior's health",
        "Whether the posterior was trained too short, too long, or just enough.",
    )
    table = Table(
        [
            "posterior of",
            "malformed",
            "copies of the training trace",
            "coverage",
            "effective sample size",
            "no weights",
        ],
        [],
    )
    for run in runs:
        if run.health is None:
            continue
        size, coverage = run.health["mean_effective_sample_size"], run.health["coverage"]
        table.rows.append(
            [
                str(run.folder),
                f"{run.health['malformed_share']:.1%}",
                f"{run.health['copies_share']:.1%}",
                "not measured" if coverage is None else f"{coverage:.1%}",
                ("none" if size is None else f"{size:.2f}")
                + f" of {run.health['num_traces_per_question']}",
                str(run.health["num_questions_without_weights"]),
            ]
        )
        section.warnings += [f"({run.folder}): {warning}" for warning in run.health["warnings"]]
    if not table.rows:
        section.absent = "The posterior's health is not known: stage 8 has not run."
        return section
    section.tables.append(table)
    section.notes.append(
        "Coverage: questions with an accepted answer after at least one trace. No weights: questions whose rho are all 0."
    )
    return section


def train_files(runs: Sequence[Run]) -> Section:
    """What stage 8 built, with counts."""
    section = Section(
        "Train files",
        "The rows that the final models train on, and why questions or traces are not among them.",
    )
    rows = [
        [
            name,
            str(run.folder),
            f"{figures['rows']:,}",
            f"{figures['mean_weight']:.3f}",
            f"{figures['mean_tokens']:.1f}",
            listed(figures["counts"]),
        ]
        for run in runs
        for name, figures in run.train_files.items()
        if "mean_weight" in figures
    ]
    if not rows:
        section.absent = "There are no train files of stage 8."
        return section
    columns = ["train file", "run", "rows", "mean weight", "mean response tokens", "counts"]
    section.tables.append(Table(columns, rows))
    return section


def times(runs: Sequence[Run]) -> Section:
    """Seconds and tokens of every stage, means over runs."""
    section = Section("Stages", "What every command took and did.")
    stages = list(dict.fromkeys(stage for run in runs for stage in run.seconds))
    if not stages:
        section.absent = "There are no times (timings.jsonl)."
        return section
    rows = []
    for stage in stages:
        values = [run.seconds[stage] for run in runs if stage in run.seconds]
        tokens = [count for run in runs if (count := _tokens_of(run, stage)) is not None]
        amount = f"{sum(tokens) / len(tokens):,.0f}" if tokens else ""
        rows.append([stage, f"{math.fsum(values) / len(values):.1f}", amount])
    total = math.fsum(value for run in runs for value in run.seconds.values()) / len(runs)
    over = " (mean over runs)" if len(runs) > 1 else ""
    section.tables.append(
        Table(["stage", f"seconds{over}", f"tokens{over}"], [*rows, ["all", f"{total:.1f}", ""]])
    )
    section.notes.append(
        "Seconds of each command, summed over resumed ones; commands that ran side by side count in full. Tokens: sampled, "
        "scored, or for a training the targets of all epochs."
    )
    return section


def _tokens_of(run: Run, stage: str) -> int | None:
    """Tokens of a command of timings.jsonl; the evaluation of a suite is one command for all its tasks."""
    found = [facts.tokens for name, facts in run.stages.items() if name.partition("/")[0] == stage]
    return sum(found) if found and None not in found else None


def counts(run: Run) -> Section:
    """Rows into and out of every stage of one run, with the reasons."""
    section = Section(
        "Counts",
        "Rows into and out of every stage, and what became of the others or was counted on the way.",
    )
    order = [stage for stage in run.seconds if stage in run.stages]
    rows = [
        [
            stage,
            _number(run.stages[stage].num_in),
            _number(run.stages[stage].num_out),
            listed(run.stages[stage].reasons),
        ]
        for stage in [*order, *(stage for stage in run.stages if stage not in order)]
    ]
    if not rows:
        section.absent = "There are no tables with manifests."
        return section
    section.tables.append(Table(["stage", "in", "out", "of these"], rows))
    return section


def files(runs: Sequence[Run]) -> Section:
    """Where everything is."""
    rows = []
    for run in runs:
        found = [
            name
            for name in ("models", "train", "traces", "verdicts", "evals")
            if (run.folder / name).is_dir()
        ]
        rows.append([str(run.folder), ", ".join(f"{name}/" for name in found) or "nothing yet"])
    return Section("Files", tables=[Table(["run", "files"], rows)])


def listed(counts: Mapping[str, int]) -> str:
    """Counts as text, such as `malformed 3, stop 5`."""
    return ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(counts.items())
    )


def _gain(run: Run, name: str, baseline: str) -> Estimate:
    shares = (run.evaluations[name].shares, run.evaluations[baseline].shares)
    return mean_and_error(paired_differences(*shares, where=f"{run.folder} {name}"))


def _ordered(names, baseline: str) -> list[str]:
    """Each name once; the base and the baseline first."""
    once = list(dict.fromkeys(names))
    first = [name for name in (BASE, baseline) if name in once]
    return first + [name for name in once if name not in first]


def _paper_rows(runs: Sequence[Run]) -> list[PaperResult]:
    records = [
        read_record(folder) or {}
        for run in runs
        for folder in training_folders(run.folder).values()
    ]
    bases = {str(record.get("model", {}).get("path", "")).rpartition("/")[2] for record in records}
    return [result for result in paper_results() if result.backbone in bases] or paper_results()


def _points(estimate: Estimate, sign: str = "") -> str:
    error = "" if estimate.standard_error is None else f" ± {100 * estimate.standard_error:.1f}"
    return f"{100 * estimate.mean:{sign}.1f}{error}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
