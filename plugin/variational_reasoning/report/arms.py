"""The arms of a run as one table: accuracy, tokens, and what is left of the accuracy when the trace
is exchanged (pipeline/controls.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.evaluation import mean_and_error

COLUMNS = ("donor", "random", "shuffled", "replaced", "none")
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
    head = ["arm", "accuracy", "tokens", *(f"{name} trace" for name in COLUMNS)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    rows = [[_figures(folder / "evals" / name) for folder in folders] for name in names[0]]
    order = sorted(zip(names[0], rows, strict=True), key=lambda row: row[1][0]["accuracy"])
    for name, figures in order:
        cells = [name, _with_error(figures)]
        cells += [_cell([each[key] for each in figures]) for key in ("tokens", *COLUMNS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "evals").glob("*/result.json"))


def _figures(folder: Path) -> dict[str, Any]:
    """Accuracies in percent; tokens as they are; None where there are no controls."""
    result = read_json_object(folder / "result.json", REMEDY)
    figures = {"accuracy": 100 * result["avg"], "tokens": result["mean_tokens"]}
    path = folder / "controls.json"
    kinds = read_json_object(path, REMEDY)["kinds"] if path.is_file() else {}
    for name in COLUMNS:
        figures[name] = 100 * kinds[name]["accuracy"] if name in kinds else None
    error = result["standard_error"]
    return figures | {"error": None if error is None else 100 * error}


def _with_error(figures: Sequence[dict[str, Any]]) -> str:
    if len(figures) == 1:
        mean, error = figures[0]["accuracy"], figures[0]["error"]
    else:
        mean, error = mean_and_error([each["accuracy"] for each in figures])
    return f"{mean:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else ""
