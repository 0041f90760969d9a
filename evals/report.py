"""The report of evaluations: Avg@k with errors, Pass@k, what the answers look like, the paper's figures, two models compared.

Everything is computed from the verdicts that evals/run.py left beside each result.json. The surprising thing: errors are over
questions, and a comparison is paired by question, so two models whose errors overlap may still differ clearly."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plots import plot_pass_curves, plot_scores
from variational_reasoning.method.evaluation import (
    BENCHMARKS,
    Estimate,
    Interval,
    PaperResult,
    bootstrap_interval,
    mean_and_error,
    paired_differences,
    paper_results,
    pass_at_k,
)
from variational_reasoning.pipeline.commands import read_folders, run_command
from variational_reasoning.report.page import Section, Table, to_markdown
from variational_reasoning.report.runs import Evaluation, read_evaluations
from variational_reasoning.report.scores import benchmark_name
from variational_reasoning.verify.verdicts import UNDECIDED

USAGE = """usage: python evals/report.py RESULTS [RESULTS ...] [baseline=MODEL] [paper=TEXT,...] [output=FOLDER]
RESULTS is a folder that evals/run.py filled: results, results/NAME-seed0, or RUN_DIR/evals. Prints the report and writes
report.md, report.csv, scores.png and pass_at_k.png into output, which is RESULTS, or the folder above where there are several.
baseline: what the other models are compared with (the first model). paper: rows of the paper's tables whose model or backbone
holds one of these texts, such as paper=4B (all rows in the table, none in the plot)."""

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


class Results(NamedTuple):
    """Evaluations by task and model, tasks by label in the paper's order; models in the order of the folders."""

    by_task: dict[str, dict[str, Evaluation]]
    models: list[str]


def read_results(folders: Sequence[Path]) -> Results:
    """Read all evaluations below the folders; a model that was evaluated under several seeds gets a name for each.

    Raises: ValueError for a folder without results, and for two results of one model, seed and task.
    """
    found: dict[tuple[str, int, str], tuple[Path, Evaluation]] = {}
    for folder in folders:
        evaluations = read_evaluations(folder)
        if not evaluations:
            raise ValueError(
                f"{folder} holds no result.json; is it a folder that evals/run.py wrote, and is it finished?"
            )
        for name, evaluation in evaluations.items():
            result = evaluation.result
            key = (result["name"], result["seed"], task_label(result["task"]))
            if key in found:
                raise ValueError(
                    f"{found[key][0]} and {folder / name} both hold {key[0]}, seed {key[1]}, {key[2]}"
                )
            found[key] = folder / name, evaluation
    seeds = {name: {seed for other, seed, _ in found if other == name} for name, _, _ in found}
    by_task: dict[str, dict[str, Evaluation]] = {}
    models: dict[str, None] = {}
    order = list(LABELS.values())
    for name, seed, task in sorted(
        found, key=lambda key: order.index(key[2]) if key[2] in order else len(order)
    ):
        model = name if len(seeds[name]) == 1 else f"{name} seed {seed}"
        by_task.setdefault(task, {})[model] = found[name, seed, task][1]
    for name, seed, _ in found:
        models[name if len(seeds[name]) == 1 else f"{name} seed {seed}"] = None
    return Results(by_task, list(models))


def task_label(task: str) -> str:
    """How the report calls a task: as the paper does, or by its own name."""
    return LABELS.get(benchmark_name(task) or "", task or "own questions")


def score(evaluation: Evaluation) -> Estimate:
    """Avg@k in [0, 1]."""
    return mean_and_error(list(evaluation.shares.values()))


def pass_curve(evaluation: Evaluation) -> list[Estimate]:
    """Pass@1 .. Pass@n over questions, n being the fewest samples of a question."""
    counts = list(evaluation.counts.values())
    fewest = min(samples for _, samples in counts)
    return [
        mean_and_error([pass_at_k(samples, correct, k) for correct, samples in counts])
        for k in range(1, fewest + 1)
    ]


def scores_section(results: Results, paper: Sequence[PaperResult]) -> Section:
    """Avg@k, a row per model, with the averages of the paper's two groups where a model has all of a group."""
    names = {LABELS[name]: name for name in LABELS}
    groups = {
        GROUP_LABELS[group]: [LABELS[name] for name in members]
        for group, members in BENCHMARKS.items()
    }
    groups = {
        label: members
        for label, members in groups.items()
        if all(task in results.by_task for task in members)
    }
    columns = list(results.by_task)
    rows = []
    for model in results.models:
        found = {
            task: score(by_model[model])
            for task, by_model in results.by_task.items()
            if model in by_model
        }
        cells = [points(found[task]) if task in found else "" for task in columns]
        for members in groups.values():
            is_whole = all(task in found for task in members)
            cells.append(
                f"{100 * sum(found[task].mean for task in members) / len(members):.1f}"
                if is_whole
                else ""
            )
        rows.append([model, *cells])
    for row in paper if any(task in names for task in columns) else ():
        cells = [f"{row.scores[names[task]]:.1f}" if task in names else "" for task in columns]
        cells += [
            f"{sum(row.scores[names[task]] for task in members) / len(members):.1f}"
            for members in groups.values()
        ]
        rows.append([f"{row.model} (paper)", *cells])
    heads = [f"{task} Avg@{_ks(by_model)}" for task, by_model in results.by_task.items()]
    return Section(
        "Scores",
        tables=[Table(["model", *heads, *groups], rows)],
        notes=[
            "Percent; ± is the standard error over questions. The paper (arXiv 2509.22637) gives none."
        ],
    )


def details_section(results: Results) -> Section:
    """Per task and model what the answers look like."""
    columns = ["task", "model", "k", "questions", "mean tokens", "truncated", "no answer", "Pass@k"]
    table, warnings = Table(columns, []), []
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result, curve = evaluation.result, pass_curve(evaluation)
            shown = [k for k in (2**i for i in range(len(curve).bit_length())) if k <= len(curve)]
            passes = ", ".join(
                f"@{k} {points(curve[k - 1])}" for k in dict.fromkeys([*shown, len(curve)])
            )
            shares = [f"{result['truncated']:.1%}", f"{result['no_answer']:.1%}"]
            counts = [
                str(result["num_samples"]),
                str(result["num_questions"]),
                f"{result['mean_tokens']:,.0f}",
            ]
            table.rows.append([task, model, *counts, *shares, passes])
            warnings += [f"{task}, {model}: {text}" for text in _doubts(result)]
    notes = [
        "Truncated: the answer met its length limit. No answer: no complete pair of solution tags; counted as wrong."
    ]
    return Section("Answers", tables=[table], notes=notes, warnings=warnings)


def comparison_section(results: Results, baseline: str) -> Section:
    """Every other model minus the baseline on the same questions, with the bootstrap's interval.

    Raises: ValueError for a baseline that was not evaluated.
    """
    if baseline not in results.models:
        raise ValueError(f"baseline={baseline!r} is not one of {', '.join(results.models)}")
    table, warnings = Table(["model", "task", f"against {baseline}", "95 % interval"], []), []
    for model in results.models:
        groups = []
        for task, by_model in results.by_task.items():
            if model == baseline or not {model, baseline} <= by_model.keys():
                continue
            ours, theirs = by_model[model], by_model[baseline]
            differing = _differences(ours.result, theirs.result)
            if differing:
                warnings.append(f"{task}: {model} and {baseline} differ in {', '.join(differing)}")
            if "questions" in differing:
                continue
            groups.append(
                paired_differences(
                    ours.shares, theirs.shares, where=f"{task}: {model} against {baseline}"
                )
            )
            table.rows.append([model, task, *_interval(bootstrap_interval(groups[-1:]))])
        if len(groups) > 1:
            table.rows.append(
                [model, f"mean of {len(groups)} tasks", *_interval(bootstrap_interval(groups))]
            )
    if not table.rows:
        return Section(
            "Comparison",
            absent="There are no two models with a task in common, so nothing is compared.",
        )
    note = (
        "Points of a percent, paired by question. The interval is the percentile bootstrap's over questions, 10,000 resamples, "
        "seed 0; for a mean of tasks each task is resampled by itself."
    )
    return Section(
        "Comparison", tables=[table], notes=[note], warnings=list(dict.fromkeys(warnings))
    )


def origin_section(results: Results) -> Section:
    """How the answers were made: settings and versions of every model, and each task's prompt as the model got it."""
    columns, rows, prompts = ["model", "task", "settings", "engine and versions"], [], {}
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result = evaluation.result
            settings = {"seed": result["seed"], **result["settings"]}
            versions = [
                ", ".join(f"{name} {version}" for name, version in each.items())
                for each in result["versions"]
            ]
            execution = ", ".join(f"{name} {value}" for name, value in result["execution"].items())
            listed = ", ".join(f"{name} {value}" for name, value in settings.items())
            rows.append([model, task, listed, f"{execution}; {' and '.join(versions)}"])
            prompts.setdefault(result["prompt"], []).append(f"{task}, {model}")
    fence = "~" * 8
    notes = [
        f"The first prompt of {'; '.join(where)}:\n\n{fence}text\n{text}\n{fence}"
        for text, where in prompts.items()
    ]
    return Section("How the answers were made", tables=[Table(columns, rows)], notes=notes)


def csv_rows(results: Results, paper: Sequence[PaperResult]) -> list[dict[str, Any]]:
    """A row per task and model, the paper's too; shares are in [0, 1]."""
    rows = []
    for task, by_model in results.by_task.items():
        for model, evaluation in by_model.items():
            result, average = evaluation.result, score(evaluation)
            row = {"source": "measured", "model": model, "task": task, "avg": average.mean}
            row |= {"standard_error": average.standard_error, "seed": result["seed"]}
            row |= {
                name: result[name]
                for name in (
                    "num_questions",
                    "num_samples",
                    "mean_tokens",
                    "truncated",
                    "no_answer",
                )
            }
            row |= {
                f"pass@{k}": estimate.mean
                for k, estimate in enumerate(pass_curve(evaluation), start=1)
            }
            rows.append(row)
        for name in (name for name, label in LABELS.items() if label == task):
            rows += [
                {
                    "source": "paper",
                    "model": each.model,
                    "task": task,
                    "avg": each.scores[name] / 100,
                }
                for each in paper
            ]
    return rows


def write_report(
    folders: Sequence[Path], output: Path, baseline: str | None, paper: str | None
) -> str:
    """Write all files into `output` and return the Markdown.

    Raises: ValueError as the parts do, and for a `paper` that fits no row.
    """
    results = read_results(folders)
    chosen = choose_paper_rows(paper)
    tasks = {
        task: {m: score(e) for m, e in by_model.items()}
        for task, by_model in results.by_task.items()
    }
    by_model = {
        m: {t: found[m] for t, found in tasks.items() if m in found} for m in results.models
    }
    names = {label: name for name, label in LABELS.items()}
    beside = {
        f"{row.model} (paper)": {
            task: row.scores[names[task]] / 100 for task in tasks if task in names
        }
        for row in (chosen if paper else ())
    }
    pictures = {"scores.png": plot_scores(list(tasks), by_model, beside)}
    curves = {
        task: {m: pass_curve(e) for m, e in found.items()}
        for task, found in results.by_task.items()
    }
    if curves := {
        task: found for task, found in curves.items() if max(map(len, found.values())) > 1
    }:
        pictures["pass_at_k.png"] = plot_pass_curves(curves)
    sections = [
        scores_section(results, chosen),
        details_section(results),
        comparison_section(results, baseline or results.models[0]),
        origin_section(results),
    ]
    sections[1].notes += [f"![{name.removesuffix('.png')} by task]({name})" for name in pictures]
    parts = [to_markdown(section.title, [section], level=2) for section in sections]
    text = "\n".join([f"# Evaluations in {', '.join(map(str, folders))}\n", *parts])
    output.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (output / name).write_bytes(png)
    (output / "report.md").write_text(text, encoding="utf-8")
    rows = csv_rows(results, chosen)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (output / "report.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return text


def choose_paper_rows(texts: str | None) -> list[PaperResult]:
    """The rows that `paper=` asks for, all without it. Raises: ValueError for a text that fits none."""
    rows = paper_results()
    if not texts:
        return rows
    wanted = texts.split(",")
    for text in wanted:
        if not any(text in row.model or text in row.backbone for row in rows):
            raise ValueError(
                f"paper={text!r} fits no model or backbone of {', '.join(row.model for row in rows)}"
            )
    return [
        row for row in rows if any(text in row.model or text in row.backbone for text in wanted)
    ]


def points(estimate: Estimate) -> str:
    """A share as percent, with its error."""
    error = "" if estimate.standard_error is None else f" ± {100 * estimate.standard_error:.1f}"
    return f"{100 * estimate.mean:.1f}{error}"


def _interval(interval: Interval) -> list[str]:
    return [
        f"{100 * interval.mean:+.1f}",
        f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}",
    ]


def _ks(by_model: Mapping[str, Evaluation]) -> str:
    return "/".join(
        map(
            str, dict.fromkeys(evaluation.result["num_samples"] for evaluation in by_model.values())
        )
    )


def _doubts(result: Mapping[str, Any]) -> list[str]:
    doubts = []
    if result["truncated"] > TRUNCATION_TO_WARN:
        doubts.append(
            f"{result['truncated']:.0%} of the answers are truncated, so the length limit is part of the score"
        )
    if result["dropped"]:
        doubts.append(
            f"{result['dropped']} questions are left out, because their prompts fill the context"
        )
    if result["failed"]:
        doubts.append(f"{result['failed']} samples failed in the engine and do not count")
    undecided = sum(result["verdicts"].get(verdict.value, 0) for verdict in UNDECIDED)
    if undecided:
        doubts.append(f"no checker decides {undecided} answers; they count as wrong")
    return doubts


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What of two evaluations of a task is not the same, besides the model."""
    names = [
        name for name in ours["settings"] if ours["settings"][name] != theirs["settings"].get(name)
    ]
    names += [name for name in ("questions", "prompt", "versions") if ours[name] != theirs[name]]
    return names


def main() -> None:
    folders, options = read_folders(USAGE, ("baseline", "paper", "output"))
    output = Path(options.get("output", folders[0] if len(folders) == 1 else folders[0].parent))
    print(write_report(folders, output, options.get("baseline"), options.get("paper")))
    print(f"wrote report.md, report.csv, scores.png and pass_at_k.png to {output}")


if __name__ == "__main__":
    run_command(main)
