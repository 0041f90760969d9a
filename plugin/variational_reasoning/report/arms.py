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
    is_sampled = any(_has_sampled(figures) for figures in by_arm.values())
    head = ["arm", "accuracy"]
    if is_sampled:
        head.append("sampled")
    head += ["tokens", *(f"{name} trace" for name in COLUMNS), FOLLOWS]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in sorted(names, key=lambda name: by_arm[name][0]["accuracy"]):
        figures = by_arm[name]
        cells = [name, _with_error(figures, "")]
        if is_sampled:
            cells.append(_with_error(figures, SAMPLED))
        for key in ("tokens", *COLUMNS, FOLLOWS):
            cells.append(_cell([each[key] for each in figures]))
        lines.append(f"| {' | '.join(cells)} |")
    lines += _oracle_lines(folders)
    return "\n".join(lines)


def _common_names(folders: Sequence[Path]) -> list[str]:
    """The evaluations that all runs have. Raises: ValueError where they have different ones."""
    by_folder = {folder: _names(folder) for folder in folders}
    first = by_folder[folders[0]]
    if not first or any(names != first for names in by_folder.values()):
        listed = []
        for folder, names in by_folder.items():
            listed.append(f"{folder}: {', '.join(names) or 'none'}")
        raise ValueError(
            f"runs are compared by the same evaluations; there are {'; '.join(listed)}"
        )
    return first


def _has_sampled(figures: Sequence[dict[str, Any]]) -> bool:
    """Whether an arm has a second evaluation, in a run at least."""
    return any(f"accuracy{SAMPLED}" in each for each in figures)


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
        figures = []
        for each in results:
            error = _percent(each["standard_error"])
            figures.append({"accuracy": 100 * each["accuracy"], "error": error})
        mean = _with_error(figures, "")
        lines.append(f"{name}: {mean} with the chain in view of the symbols alone")
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
    return f"{mean:.1f}" if error is None else f"{mean:.1f} ± {error:.1f}"


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else ""
