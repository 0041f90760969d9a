"""The arms of a run as one table: accuracy, tokens, and what is left of the accuracy when the trace
is exchanged (pipeline/controls/).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.evaluation import mean_and_error

COLUMNS = ("donor", "random", "shuffled", "replaced", "none", "chain")
FOLLOWS = "follows"
"""Answers that follow a trace which was changed in one token and continued, of those that tell."""
SAMPLED = "_sampled"
"""Ends the name of an arm's second evaluation, at sequence.sampled_at."""

REMEDY = "remove it and evaluate again"


def compare_arms(folders: Sequence[Path]) -> str:
    """A Markdown table over runs that differ in their seed; errors of one run are over questions.

    Raises: ValueError for a run without evaluations, and runs that have different ones.
    """
    names = [_names(folder) for folder in folders]
    if not names[0] or any(each != names[0] for each in names):
        listed = "; ".join(
            f"{folder}: {', '.join(each) or 'none'}"
            for folder, each in zip(folders, names, strict=True)
        )
        raise ValueError(f"runs are compared by the same evaluations; there are {listed}")
    rows = [[_figures(folder / "evals" / name) for folder in folders] for name in names[0]]
    is_sampled = any(f"accuracy{SAMPLED}" in each for row in rows for each in row)
    head = ["arm", "accuracy", *(["sampled"] if is_sampled else []), "tokens"]
    head += [*(f"{name} trace" for name in COLUMNS), FOLLOWS]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    order = sorted(zip(names[0], rows, strict=True), key=lambda row: row[1][0]["accuracy"])
    for name, figures in order:
        cells = [name, _with_error(figures, "")]
        if is_sampled:
            cells.append(_with_error(figures, SAMPLED))
        cells += [_cell([each[key] for each in figures]) for key in ("tokens", *COLUMNS, FOLLOWS)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += _oracle_lines(folders)
    return "\n".join(lines)


def _names(folder: Path) -> list[str]:
    found = (path.parent.name for path in (folder / "evals").glob("*/result.json"))
    return sorted(name for name in found if not name.endswith(SAMPLED))


def _figures(folder: Path) -> dict[str, Any]:
    """Accuracies in percent; tokens as they are; None where there are no controls."""
    result = read_json_object(folder / "result.json", REMEDY)
    figures = {"accuracy": 100 * result["avg"], "tokens": result["mean_tokens"]}
    path = folder / "controls.json"
    kinds = read_json_object(path, REMEDY)["kinds"] if path.is_file() else {}
    for name in COLUMNS:
        figures[name] = 100 * kinds[name]["accuracy"] if name in kinds else None
    follows = kinds.get("continued", {}).get(FOLLOWS)
    figures[FOLLOWS] = None if follows is None else 100 * follows
    figures["error"] = _percent(result["standard_error"])
    sampled = folder.with_name(folder.name + SAMPLED) / "result.json"
    if sampled.is_file():
        result = read_json_object(sampled, REMEDY)
        figures[f"accuracy{SAMPLED}"] = 100 * result["avg"]
        figures[f"error{SAMPLED}"] = _percent(result["standard_error"])
    return figures


def _oracle_lines(folders: Sequence[Path]) -> list[str]:
    """What the channel of the bottleneck carries (pipeline/oracle.py), a line per model."""
    paths = sorted((folders[0] / "evals").glob("*/oracle.json"))
    lines = []
    for path in paths:
        name = path.parent.name
        found = [folder / "evals" / name / path.name for folder in folders]
        results = [read_json_object(each, REMEDY) for each in found if each.is_file()]
        figures = [
            {"accuracy": 100 * each["accuracy"], "error": _percent(each["standard_error"])}
            for each in results
        ]
        lines.append(
            f"{name}: {_with_error(figures, '')} with the chain in view of the symbols alone"
        )
    return ["", *lines] if lines else []


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _with_error(figures: Sequence[dict[str, Any]], which: str) -> str:
    """Args: which: the ending of the figures' names."""
    means = [each[f"accuracy{which}"] for each in figures if f"accuracy{which}" in each]
    if not means:
        return ""
    if len(means) == 1:
        mean, error = means[0], figures[0][f"error{which}"]
    else:
        mean, error = mean_and_error(means)
    return f"{mean:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else ""
