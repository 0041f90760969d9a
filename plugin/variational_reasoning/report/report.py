"""The report of a run, or of runs that only differ in their seed: Markdown, an HTML page, plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from variational_reasoning.report import controls, scores
from variational_reasoning.report.diagnostics import diagnose
from variational_reasoning.report.page import Part, Section, to_html, to_markdown
from variational_reasoning.report.runs import Run, read_later_rounds, read_run


class Written(NamedTuple):
    """The Markdown, and the files that were written."""

    markdown: str
    page: Path
    pictures: list[Path]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of these folders.

    Raises: ValueError for folders that cannot be read, and for repeated ones.
    """
    different = {folder.resolve() for folder in folders}
    if not folders or len(different) != len(folders):
        raise ValueError("name at least one run folder, and none of them twice")
    return [read_run(folder) for folder in folders]


def summary(runs: Sequence[Run], baseline: str = "reasoner") -> str:
    """Scores, health, train files, times and folders as Markdown, also of later rounds.

    Args:
        runs: several are seeds of one experiment.
        baseline: the name in evals/ that the others are compared with.

    Raises: ValueError for runs whose evaluations differ in k or in their questions.
    """
    sections = _compared(runs, baseline)
    sections.append(scores.files(runs))
    texts = [to_markdown(_title(runs), sections)]
    for run in runs:
        for later in read_later_rounds(run):
            sections = _compared([later], baseline)
            texts.append(to_markdown(str(later.folder), sections, level=2))
    return "\n".join(texts)


def write_report(
    folders: Sequence[Path],
    output: Path,
    baseline: str = "reasoner",
) -> Written:
    """Write `output` (Markdown), the HTML page with the same name, and the plots.

    report.md gives report.html next to it, and plots in report_figures/.

    Raises: ValueError as `read_runs` and `summary` do, and for tables that are unfinished or were
    changed.
    """
    runs = read_runs(folders)
    markdown = summary(runs, baseline)
    overview = [
        scores.scores(runs, baseline),
        scores.pass_curves(runs, baseline),
        scores.benchmarks(runs),
        scores.health(runs),
        scores.train_files(runs),
        scores.times(runs),
        scores.files(runs),
    ]
    parts = [Part("Overview", overview)]
    for number, run in enumerate(runs, 1):
        prefix = f"run{number}_" if len(runs) > 1 else ""
        parts += _parts_of(run, prefix, baseline)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(markdown, encoding="utf-8")
    page = output.with_suffix(".html")
    html = to_html(_title(runs), parts)
    page.write_text(html, encoding="utf-8")
    pictures = _write_pictures(parts, output.with_name(f"{output.stem}_figures"))
    return Written(markdown, page, pictures)


def _parts_of(run: Run, prefix: str, baseline: str) -> list[Part]:
    """A part of the page for each round of a run.

    prefix: of the names of its pictures, so that those of two runs differ.
    """
    sections = [
        scores.counts(run),
        *diagnose(run.folder),
        controls.trace_use([run.folder]),
        controls.symbol_use(run.folder),
    ]
    parts = [Part(str(run.folder), sections, prefix)]
    for later in read_later_rounds(run):
        sections = [
            *_compared([later], baseline),
            scores.counts(later),
            *diagnose(later.folder),
        ]
        prefix_of_round = f"{prefix}{later.folder.name}_"
        parts.append(Part(str(later.folder), sections, prefix_of_round))
    return parts


def _compared(runs: Sequence[Run], baseline: str) -> list[Section]:
    """Scores, and what there is of health, train files and times."""
    folders = [run.folder for run in runs]
    sections = [scores.scores(runs, baseline)]
    others = [
        scores.health(runs),
        scores.train_files(runs),
        scores.times(runs),
        controls.trace_use(folders),
    ]
    for section in others:
        if not section.absent:
            sections.append(section)
    return sections


def _write_pictures(parts: Sequence[Part], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    written = []
    for part in parts:
        for section in part.sections:
            for picture in section.pictures:
                path = folder / f"{part.prefix}{picture.name}.png"
                path.write_bytes(picture.png)
                written.append(path)
    return written


def _title(runs: Sequence[Run]) -> str:
    folders = [str(run.folder) for run in runs]
    if len(folders) == 1:
        return folders[0]
    return f"{len(folders)} runs: {', '.join(folders)}"
