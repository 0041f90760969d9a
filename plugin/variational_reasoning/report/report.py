"""The report of one run, or of several that differ only in their seed: Markdown, one HTML page,
and its plots as files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from variational_reasoning.report import scores
from variational_reasoning.report.diagnostics import diagnose
from variational_reasoning.report.page import Part, Section, to_html, to_markdown
from variational_reasoning.report.runs import Run, read_rounds, read_run


class Written(NamedTuple):
    """The Markdown, and the files that were written."""

    markdown: str
    page: Path
    pictures: list[Path]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of these folders. Raises: ValueError for folders that cannot be read, and repeated
    ones.
    """
    if len({folder.resolve() for folder in folders}) != len(folders) or not folders:
        raise ValueError("name at least one run folder, and none of them twice")
    return [read_run(folder) for folder in folders]


def summary(runs: Sequence[Run], baseline: str = "reasoner") -> str:
    """Scores, health, train files, times and places as Markdown, and the same for the later rounds
    of each run.

    Args:
        runs: several are taken as seeds of one experiment.
        baseline: the name in evals/ that the others are compared with.

    Raises: ValueError for runs whose evaluations differ in k or in their questions.
    """
    texts = [to_markdown(_title(runs), [*_compared(runs, baseline), scores.files(runs)])]
    for run in runs:
        for later in read_rounds(run.folder)[1:]:
            texts.append(to_markdown(str(later.folder), _compared([later], baseline), level=2))
    return "\n".join(texts)


def write_report(folders: Sequence[Path], output: Path, baseline: str = "reasoner") -> Written:
    """Write `output` (Markdown), the HTML page of the same name next to it, and its plots into
    <name>_figures/.

    Raises: ValueError as `read_runs` and `summary` do, and for tables that are unfinished or were
    changed.
    """
    runs = read_runs(folders)
    markdown = summary(runs, baseline)
    first = [
        scores.scores(runs, baseline),
        scores.pass_curves(runs, baseline),
        scores.benchmarks(runs),
    ]
    first += [scores.health(runs), scores.train_files(runs), scores.times(runs), scores.files(runs)]
    parts = [Part("Overview", first)]
    for number, folder in enumerate(folders, 1):
        prefix = f"run{number}_" if len(folders) > 1 else ""
        first_round, *later = read_rounds(folder)
        parts.append(Part(str(folder), [scores.counts(first_round), *diagnose(folder)], prefix))
        for run in later:
            sections = [*_compared([run], baseline), scores.counts(run), *diagnose(run.folder)]
            parts.append(Part(str(run.folder), sections, f"{prefix}{run.folder.name}_"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(markdown, encoding="utf-8")
    page = output.with_suffix(".html")
    page.write_text(to_html(_title(runs), parts), encoding="utf-8")
    return Written(
        markdown, page, _write_pictures(parts, output.with_name(f"{output.stem}_figures"))
    )


def _compared(runs: Sequence[Run], baseline: str) -> list[Section]:
    """Scores, and what there is of health, train files and times."""
    others = (scores.health(runs), scores.train_files(runs), scores.times(runs))
    return [scores.scores(runs, baseline), *(section for section in others if not section.absent)]


def _write_pictures(parts: Sequence[Part], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    written = []
    for part in parts:
        for section in part.sections:
            for picture in section.pictures:
                written.append(folder / f"{part.prefix}{picture.name}.png")
                written[-1].write_bytes(picture.png)
    return written


def _title(runs: Sequence[Run]) -> str:
    return (
        str(runs[0].folder)
        if len(runs) == 1
        else f"{len(runs)} runs: {', '.join(str(run.folder) for run in runs)}"
    )
