"""The controls of a model as tables: for the terminal, the report and the model's card."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from variational_reasoning.pipeline.controls.exchange import KINDS

Figures = Mapping[str, Any]
"""What controls.json says of a kind."""


class Cells(NamedTuple):
    """A table of texts."""

    columns: list[str]
    rows: list[list[str]]

    def to_markdown(self) -> str:
        """The table in Markdown."""
        rule = ["---"] * len(self.columns)
        lines = []
        for cells in (self.columns, rule, *self.rows):
            line = " | ".join(cells)
            lines.append(f"| {line} |")
        return "\n".join(lines)


def control_cells(result: Mapping[str, Any]) -> Cells:
    """A row per kind; shares in percent, 95 % intervals in brackets."""
    length = "symbols" if result.get("is_abstract") else "trace tokens"
    columns = [
        "trace",
        "accuracy",
        "minus own",
        "answers that change",
        "not answered",
        length,
        "answer tokens",
        "total tokens",
    ]
    rows = []
    for kind, figures in _in_order(result):
        row = [kind]
        for name in ("accuracy", "difference", "changed", "unanswered"):
            row.append(share_cell(figures, name))
        for name in ("symbols", "answer_tokens", "total_tokens"):
            row.append(_cell(figures, name, 1.0))
        rows.append(row)
    return Cells(columns, rows)


def _in_order(result: Mapping[str, Any]) -> list[tuple[str, Figures]]:
    """The kinds with their figures, in the order of KINDS; a file has them by name."""
    kinds = result["kinds"]
    ordered = []
    for kind in KINDS:
        if kind in kinds:
            ordered.append((kind, kinds[kind]))
    return ordered


def following_cells(result: Mapping[str, Any]) -> Cells | None:
    """Whether answers follow an exchanged trace; None where no command tells what traces imply."""
    rows = []
    for kind, figures in _in_order(result):
        if "follows" in figures:
            row = [kind, str(figures["num_told"])]
            for name in ("follows", "keeps", "neither"):
                row.append(share_cell(figures, name))
            rows.append(row)
    if not rows:
        return None
    columns = [
        "trace",
        "answers",
        "follows the trace",
        "keeps the own answer",
        "neither",
    ]
    return Cells(columns, rows)


def share_cell(figures: Figures, name: str) -> str:
    """A share in percent with its interval, as 16.8 (13.6 to 20.2); empty where it is not known."""
    return _cell(figures, name, 100.0)


def _cell(figures: Figures, name: str, factor: float) -> str:
    """A figure times `factor`, with its interval unless that is one number, as 7.0."""
    if name not in figures:
        return ""
    mean = f"{factor * figures[name]:.1f}"
    intervals = figures.get("intervals", {})
    if name not in intervals:
        return mean
    bounds = [f"{factor * bound:.1f}" for bound in intervals[name]]
    if bounds == [mean, mean]:
        return mean
    low, high = bounds
    return f"{mean} ({low} to {high})"


def control_notes(result: Mapping[str, Any]) -> list[str]:
    """What has to be said of a table of controls."""
    counts = (
        f"{result['num_questions']} questions, {result['num_without_trace']} samples without a "
        f"closed trace, {result['num_without_room']} without room for an answer"
    )
    return [counts]


def describe_controls(name: str, result: Mapping[str, Any]) -> str:
    """The lines that the command prints."""
    parts = [f"{name}: {'; '.join(control_notes(result))}"]
    if not result["kinds"]:
        parts.append(
            "Fewer than two questions have a closed trace, so there is nothing to exchange."
        )
        return "\n\n".join(parts)
    parts.append(control_cells(result).to_markdown())
    if following := following_cells(result):
        parts.append(following.to_markdown())
    parts.append(verdict(result))
    return "\n\n".join(parts)


def verdict(result: Mapping[str, Any]) -> str:
    """What the figures say of the question in one sentence, from the intervals of the differences.

    donor -60 (-65 to -55)     uses it: below zero
    donor  +1 (-2 to +4)       not shown
    """
    donor = result["kinds"].get("donor", {})
    if "difference" not in donor:
        return "There is no donor trace, so nothing is said of the model's use of its trace."
    difference = 100 * donor["difference"]
    low, high = [100 * bound for bound in donor["intervals"]["difference"]]
    shown = f"{difference:+.1f} points ({low:+.1f} to {high:+.1f})"
    changed = f"{share_cell(donor, 'changed')} % of the answers change"
    if high < 0:
        return (
            f"The model uses its trace: with another question's its accuracy changes by {shown}, "
            f"and {changed}."
        )
    return (
        f"Nothing shows that the model's accuracy depends on its trace: with another question's it "
        f"changes by {shown}, and {changed}."
    )
