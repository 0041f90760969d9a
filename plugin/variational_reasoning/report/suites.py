"""The report of evaluations (evals/report.py): Avg@k, Pass@k, the answers, the paper, comparisons.

Everything is computed from the verdicts next to each result.json. Errors are over questions, and a
comparison is paired by question. So two models may differ clearly even if their errors overlap.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.method.evaluation import (
    BENCHMARKS,
    Estimate,
    Interval,
    PaperResult,
    bootstrap_interval,
    paper_results,
)
from variational_reasoning.report.evaluations import (
    Evaluation,
    compare,
    left_out_warning,
    pass_curve,
    read_evaluations,
    read_unfinished,
    unfinished_warning,
)
from variational_reasoning.report.page import Section, Table, to_markdown
from variational_reasoning.report.scores import benchmark_name, percent
from variational_reasoning.verify.verdicts import UNDECIDED

LABELS = {
    "math500": "MATH500",
    "aime24": "AIME24",
    "aime25": "AIME25",
    "amc23": "AMC23",
    "olympiadbench": "Olympiad",
    "gpqa_diamond": "GPQA-D",
    "livecodebench_easy": "LCB-E",
    "livecodebench_medium": "LCB-M",
    "livecodebench_hard": "LCB-H",
    "mmlu_pro": "MMLU-Pro",
}
"""The paper's benchmarks as its tables call them."""

GROUP_LABELS = {"math": "Avg math", "general": "Avg general"}
TRUNCATION_TO_WARN = 0.1
"""Share of truncated answers above which the length limit is part of the score."""

OWN_QUESTIONS = "own questions"


class Results(NamedTuple):
    """Evaluations by task and model: tasks in the paper's order, models in the folders' order.

    unfinished: a warning for each evaluation that has begun and has no result yet.
    """

    by_task: dict[str, dict[str, Evaluation]]
    models: list[str]
    unfinished: list[str]


def read_results(folders: Sequence[Path]) -> Results:
    """All evaluations of the folders. A model with several seeds gets a name for each.

    Raises: ValueError for a folder without results, and for two of one model, seed and task.
    """
    found: dict[_Key, Evaluation] = {}
    places: dict[_Key, Path] = {}
    unfinished: list[str] = []
    for folder in folders:
        evaluations = read_evaluations(folder)
        begun = read_unfinished(folder)
        if not evaluations:
            raise ValueError(_nothing_to_report(folder, begun))
        for name, state in begun.items():
            unfinished.append(unfinished_warning(name, state))
        for name, evaluation in evaluations.items():
            result = evaluation.result
            key = _Key(result["name"], result["seed"], task_label(result["task"]))
            place = folder / name
            if key in places:
                raise ValueError(
                    f"{places[key]} and {place} both hold {key.name}, seed {key.seed}, "
                    f"{key.task}; name only one of them"
                )
            places[key] = place
            found[key] = evaluation
    model_of = _model_names(found)
    by_task: dict[str, dict[str, Evaluation]] = {}
    for key in sorted(found, key=lambda key: _place_of(key.task)):
        by_model = by_task.setdefault(key.task, {})
        by_model[model_of[key]] = found[key]
    models = list(dict.fromkeys(model_of.values()))
    return Results(by_task, models, unfinished)


class _Key(NamedTuple):
    """What tells evaluations apart."""

    name: str
    seed: int
    task: str


def _model_names(keys: Iterable[_Key]) -> dict[_Key, str]:
    """How the report calls the model of each evaluation: by its name, and its seed if it has more
    than one.
    """
    keys = list(keys)
    seeds: dict[str, set[int]] = {}
    for key in keys:
        of_model = seeds.setdefault(key.name, set())
        of_model.add(key.seed)
    names = {}
    for key in keys:
        names[key] = key.name
        if len(seeds[key.name]) > 1:
            names[key] = f"{key.name} seed {key.seed}"
    return names


def task_label(task: str) -> str:
    """How the report calls a task: as the paper does, or by its own name."""
    return LABELS.get(benchmark_name(task) or "", task or OWN_QUESTIONS)


def scores_section(results: Results, paper: Sequence[PaperResult]) -> Section:
    """Avg@k, a row per model, with the averages of the paper's groups that are complete."""
    groups = {}
    for group, members in BENCHMARKS.items():
        labels = [LABELS[name] for name in members]
        if results.by_task.keys() >= set(labels):
            groups[GROUP_LABELS[group]] = labels
    tasks = list(results.by_task)
    rows = []
    for model in results.models:
        cells = []
        means = {}
        for task, by_model in results.by_task.items():
            if model not in by_model:
                cells.append("")
                continue
            score = by_model[model].score
            cells.append(percent(score))
            means[task] = 100 * score.mean
        rows.append([model, *cells, *_group_means(means, groups)])
    has_paper_tasks = not results.by_task.keys().isdisjoint(LABELS.values())
    if has_paper_tasks:
        for row in paper:
            published = {label: row.scores[name] for name, label in LABELS.items()}
            cells = [f"{published[task]:.1f}" if task in published else "" for task in tasks]
            rows.append([f"{row.model} (paper)", *cells, *_group_means(published, groups)])
    heads = [f"{task} Avg@{_ks(by_model)}" for task, by_model in results.by_task.items()]
    note = (
        "Percent; ± is the standard error over questions. The paper (arXiv 2509.22637) gives none."
    )
    return Section(
        "Scores",
        tables=[Table(["model", *heads, *groups], rows)],
        notes=[note],
        warnings=list(results.unfinished),
    )


def _group_means(
    by_task: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
) -> list[str]:
    """The mean of each group in percent, empty where one of its tasks is missing."""
    cells = []
    for labels in groups.values():
        if not by_task.keys() >= set(labels):
            cells.append("")
            continue
        total = sum(by_task[label] for label in labels)
        cells.append(f"{total / len(labels):.1f}")
    return cells


def details_section(results: Results) -> Section:
    """Lengths and missing answers, by task and model."""
    columns = ["task", "model", "k", "questions", "mean tokens", "truncated", "no answer", "Pass@k"]
    table = Table(columns, [])
    warnings = []
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result = evaluation.result
            row = [
                task,
                model,
                str(evaluation.num_samples),
                str(result["num_questions"]),
                f"{result['mean_tokens']:,.0f}",
                f"{result['truncated']:.1%}",
                f"{result['no_answer']:.1%}",
                _curve_cell(pass_curve(evaluation)),
            ]
            table.rows.append(row)
            for doubt in _doubts(result):
                warnings.append(f"{task}, {model}: {doubt}")
    note = (
        "Truncated: the answer reached its length limit. No answer: no complete pair of solution "
        "tags; it counts as wrong."
    )
    return Section("Answers", tables=[table], notes=[note], warnings=warnings)


def _curve_cell(curve: Sequence[Estimate]) -> str:
    """Pass@k at the powers of two and at the end: a curve of 6 at 1, 2, 4 and 6."""
    powers = [2**i for i in range(len(curve).bit_length())]
    shown = dict.fromkeys([*powers, len(curve)])
    return ", ".join(f"@{k} {percent(curve[k - 1])}" for k in shown)


def comparison_section(results: Results, baseline: str) -> Section:
    """Every other model minus the baseline on the same questions, with the bootstrap's interval.

    Raises: ValueError for a baseline that was not evaluated.
    """
    if baseline not in results.models:
        raise ValueError(f"baseline={baseline!r} is not one of {', '.join(results.models)}")
    table = Table(["model", "task", f"minus {baseline}", "95 % interval"], [])
    warnings: list[str] = []
    for model in results.models:
        groups = []
        for task, by_model in results.by_task.items():
            if model == baseline or model not in by_model or baseline not in by_model:
                continue
            where = f"{task}: {model} and {baseline}"
            ours, theirs = by_model[model], by_model[baseline]
            differing = _differences(ours, theirs)
            if differing:
                warnings.append(f"{where} differ in {', '.join(differing)}")
            if "questions" in differing:
                continue
            comparison = compare(ours, theirs, where)
            if comparison.num_left_out:
                warnings.append(left_out_warning(where, comparison.num_left_out))
            if not comparison.differences:
                continue
            groups.append(comparison.differences)
            of_task = bootstrap_interval([comparison.differences])
            table.rows.append([model, task, *_interval(of_task)])
        if len(groups) > 1:
            of_all = bootstrap_interval(groups)
            table.rows.append([model, f"mean of {len(groups)} tasks", *_interval(of_all)])
    if not table.rows:
        absent = "There are no two models with a task in common, so nothing is compared."
        return Section("Comparison", absent=absent, warnings=warnings)
    note = (
        "Percentage points, paired by question. The interval is the percentile bootstrap's over "
        "questions, 10,000 resamples, seed 0; for a mean of tasks each task is resampled by itself."
    )
    return Section("Comparison", tables=[table], notes=[note], warnings=warnings)


def origin_section(results: Results) -> Section:
    """How the answers were made: settings and versions by model, and each task's prompt."""
    columns = ["model", "task", "settings", "engine and versions"]
    rows: list[list[str]] = []
    prompts: dict[str, list[str]] = {}
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result = evaluation.result
            settings = _pairs({"seed": result["seed"], **result["settings"]})
            execution = _pairs(result["execution"])
            versions = " and ".join(map(_pairs, result["versions"]))
            rows.append([model, task, settings, f"{execution}; {versions}"])
            where = prompts.setdefault(result["prompt"], [])
            where.append(f"{task}, {model}")
    fence = "~" * 8
    notes = []
    for text, where in prompts.items():
        listed = "; ".join(where)
        notes.append(f"The first prompt of {listed}:\n\n{fence}text\n{text}\n{fence}")
    return Section(
        "How the answers were made",
        tables=[Table(columns, rows)],
        notes=notes,
    )


def csv_rows(results: Results, paper: Sequence[PaperResult]) -> list[dict[str, Any]]:
    """A row per task and model, the paper's too; shares are in [0, 1]."""
    rows: list[dict[str, Any]] = []
    copied = ("num_questions", "num_samples", "mean_tokens", "truncated", "no_answer")
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result = evaluation.result
            average = evaluation.score
            row: dict[str, Any] = {
                "source": "measured",
                "model": model,
                "task": task,
                "avg": average.mean,
                "standard_error": average.standard_error,
                "seed": result["seed"],
            }
            for name in copied:
                row[name] = result[name]
            for k, estimate in enumerate(pass_curve(evaluation), start=1):
                row[f"pass@{k}"] = estimate.mean
            rows.append(row)
        benchmark = _benchmark_of(task)
        if benchmark is None:
            continue
        for each in paper:
            row = {
                "source": "paper",
                "model": each.model,
                "task": task,
                "avg": each.scores[benchmark] / 100,
            }
            rows.append(row)
    return rows


def write_suite_report(
    folders: Sequence[Path],
    output: Path,
    baseline: str | None,
    paper: str | None,
) -> tuple[str, list[Path]]:
    """Write report.md, report.csv and the plots into `output`.

    Returns: the Markdown, and the files.
    Raises: ValueError as the parts do, and for a `paper` that fits no row.
    """
    results = read_results(folders)
    chosen = choose_paper_rows(paper)
    answers = details_section(results)
    sections = [
        scores_section(results, chosen),
        answers,
        comparison_section(results, baseline or results.models[0]),
        origin_section(results),
    ]
    pictures = _plots(results, chosen if paper else [])
    for name in pictures:
        title = name.removesuffix(".png")
        answers.notes.append(f"![{title} by task]({name})")
    parts = [to_markdown(section.title, [section], level=2) for section in sections]
    title = f"# Evaluations in {', '.join(map(str, folders))}\n"
    text = "\n".join([title, *parts])
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(text, encoding="utf-8")
    _write_csv(output / "report.csv", csv_rows(results, chosen))
    for name, png in pictures.items():
        (output / name).write_bytes(png)
    files = ("report.md", "report.csv", *pictures)
    return text, [output / name for name in files]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the columns of all of them, in the order in which they come up."""
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def choose_paper_rows(texts: str | None) -> list[PaperResult]:
    """The rows that `paper=` asks for; all without it.

    Raises: ValueError for a text that fits no row.
    """
    rows = paper_results()
    if not texts:
        return rows
    chosen = set()
    for text in texts.split(","):
        fitting = [place for place, row in enumerate(rows) if _fits(row, text)]
        if not fitting:
            models = ", ".join(row.model for row in rows)
            raise ValueError(f"paper={text!r} fits no model or backbone of {models}")
        chosen.update(fitting)
    return [rows[place] for place in sorted(chosen)]


def _plots(results: Results, paper: Sequence[PaperResult]) -> dict[str, bytes]:
    """PNG bytes by file name."""
    from variational_reasoning.report.figures import plot_pass_curves, plot_scores

    scores: dict[str, dict[str, Estimate]] = {}
    for model in results.models:
        scores[model] = {}
    published: dict[str, dict[str, float]] = {}
    for row in paper:
        published[f"{row.model} (paper)"] = {}
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            scores[model][task] = evaluation.score
        name = _benchmark_of(task)
        if name is not None:
            for row in paper:
                published[f"{row.model} (paper)"][task] = row.scores[name] / 100
    tasks = list(results.by_task)
    pictures = {"scores.png": plot_scores(tasks, scores, published)}
    curves = {}
    for task, by_model in results.by_task.items():
        found = {model: pass_curve(evaluation) for model, evaluation in by_model.items()}
        longest = max(map(len, found.values()))
        if longest > 1:
            curves[task] = found
    if curves:
        pictures["pass_at_k.png"] = plot_pass_curves(curves)
    return pictures


def _nothing_to_report(folder: Path, begun: Mapping[str, str]) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if begun:
        lines = [f"{folder} holds no finished evaluation (result.json):"]
        for name, state in begun.items():
            lines.append(f"  {unfinished_warning(name, state)}")
        return "\n".join(lines)
    return (
        f"{folder} holds no result.json, neither in itself nor in its folders or theirs; name a "
        "folder that evals/run.py wrote: results, results/NAME-seed0, or RUN_DIR/evals"
    )


def _benchmark_of(task: str) -> str | None:
    """The paper's benchmark with this label: math500 of MATH500."""
    for name, label in LABELS.items():
        if label == task:
            return name
    return None


def _place_of(task: str) -> int:
    """The task's place in the paper's tables; other tasks come last."""
    order = list(LABELS.values())
    return order.index(task) if task in order else len(order)


def _fits(row: PaperResult, text: str) -> bool:
    return text in row.model or text in row.backbone


def _interval(interval: Interval) -> list[str]:
    low = f"{100 * interval.low:+.1f}"
    high = f"{100 * interval.high:+.1f}"
    return [f"{100 * interval.mean:+.1f}", f"{low} to {high}"]


def _ks(by_model: Mapping[str, Evaluation]) -> str:
    ks = dict.fromkeys(evaluation.num_samples for evaluation in by_model.values())
    return "/".join(map(str, ks))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _doubts(result: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing a score."""
    doubts = []
    if result["truncated"] > TRUNCATION_TO_WARN:
        doubts.append(
            f"{result['truncated']:.0%} of the answers are truncated, "
            "so the length limit is part of the score"
        )
    if result["dropped"]:
        doubts.append(
            f"{result['dropped']} questions are left out, because their prompts fill the context"
        )
    if result["failed"]:
        doubts.append(f"{result['failed']} samples failed in the engine and do not count")
    counts = result["verdicts"]
    undecided = sum(counts.get(verdict.value, 0) for verdict in UNDECIDED)
    if undecided:
        doubts.append(f"no checker decides {undecided} answers; they count as wrong")
    return doubts


def _differences(ours: Evaluation, theirs: Evaluation) -> list[str]:
    """What is not the same in two evaluations of a task, apart from the model."""
    mine, other = ours.result, theirs.result
    my_settings, other_settings = mine["settings"], other["settings"]
    names = []
    for name in {**my_settings, **other_settings}:
        if my_settings.get(name) != other_settings.get(name):
            names.append(name)
    for name in ("questions", "prompt", "versions"):
        if mine[name] != other[name]:
            names.append(name)
    return names
