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
    names = _common_names(folders)
    by_arm = {}
    for name in names:
        by_arm[name] = [_figures(folder / "evals" / name) for folder in folders]
    keys = ["tokens", *COLUMNS, FOLLOWS]
    head = ["tokens", *(f"{name} trace" for name in COLUMNS), FOLLOWS]
    is_sampled = any(_has_sampled(figures) for figures in by_arm.values())
    if is_sampled:
        head.insert(0, "sampled")
    head = ["arm", "accuracy", *head]
    lines = [_line(head), "|" + "---|" * len(head)]
    for name in sorted(names, key=lambda name: by_arm[name][0]["accuracy"]):
        figures = by_arm[name]
        cells = [name, _with_error(figures)]
        if is_sampled:
            cells.append(_with_error(figures, SAMPLED))
        for key in keys:
            cells.append(_mean_cell([each[key] for each in figures]))
        lines.append(_line(cells))
    lines += _oracle_lines(folders)
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _common_names(folders: Sequence[Path]) -> list[str]:
    """The evaluations that all runs have. Raises: ValueError where they have different ones."""
    by_folder = {folder: _names(folder) for folder in folders}
    first = by_folder[folders[0]]
    is_same = all(names == first for names in by_folder.values())
    if first and is_same:
        return first
    listed = []
    for folder, names in by_folder.items():
        shown = ", ".join(names) or "none"
        listed.append(f"{folder}: {shown}")
    raise ValueError(f"runs are compared by the same evaluations; there are {'; '.join(listed)}")


def _has_sampled(figures: Sequence[dict[str, Any]]) -> bool:
    """Whether an arm has a second evaluation, in a run at least."""
    return any(f"accuracy{SAMPLED}" in each for each in figures)


def _names(folder: Path) -> list[str]:
    names = []
    for path in folder.glob("evals/*/result.json"):
        name = path.parent.name
        if not name.endswith(SAMPLED):
            names.append(name)
    return sorted(names)


def _figures(folder: Path) -> dict[str, Any]:
    """Accuracies in percent; tokens as they are; None where there are no controls."""
    result = read_json_object(folder / "result.json", REMEDY)
    figures = {
        "accuracy": _percent(result["avg"]),
        "error": _percent(result["standard_error"]),
        "tokens": result["mean_tokens"],
    }
    path = folder / "controls.json"
    kinds = {}
    if path.is_file():
        kinds = read_json_object(path, REMEDY)["kinds"]
    for name in COLUMNS:
        control = kinds.get(name, {})
        figures[name] = _percent(control.get("accuracy"))
    continued = kinds.get("continued", {})
    figures[FOLLOWS] = _percent(continued.get(FOLLOWS))
    sampled = folder.with_name(folder.name + SAMPLED) / "result.json"
    if sampled.is_file():
        result = read_json_object(sampled, REMEDY)
        figures[f"accuracy{SAMPLED}"] = _percent(result["avg"])
        figures[f"error{SAMPLED}"] = _percent(result["standard_error"])
    return figures


def _oracle_lines(folders: Sequence[Path]) -> list[str]:
    """What the channel of the bottleneck carries (pipeline/oracle.py), a line per model.

    A model that only some of the runs have measured gets a line over these runs.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        for path in sorted(folder.glob("evals/*/oracle.json")):
            result = read_json_object(path, REMEDY)
            figures = {
                "accuracy": _percent(result["accuracy"]),
                "error": _percent(result["standard_error"]),
            }
            by_name.setdefault(path.parent.name, []).append(figures)
    lines = []
    for name in sorted(by_name):
        mean = _with_error(by_name[name])
        lines.append(f"{name}: {mean} with the chain in view of the symbols alone")
    return ["", *lines] if lines else []


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _with_error(figures: Sequence[dict[str, Any]], which: str = "") -> str:
    """The mean accuracy of the runs that have one, as 90.0 ± 1.3; empty without any.

    Args:
        which: the ending of the figures' names.
    """
    measured = [each for each in figures if f"accuracy{which}" in each]
    if not measured:
        return ""
    if len(measured) == 1:
        mean = measured[0][f"accuracy{which}"]
        error = measured[0][f"error{which}"]
    else:
        mean, error = mean_and_error([each[f"accuracy{which}"] for each in measured])
    if error is None:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {error:.1f}"


def _mean_cell(values: Sequence[float | None]) -> str:
    """The mean over the runs that have a value; empty without any."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = sum(known) / len(known)
    return f"{mean:.1f}"
