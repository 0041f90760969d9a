"""The report as documents: tables and figures with their explanations, to Markdown and to one HTML
file.

The HTML file holds its figures and its style, loads nothing and runs nothing, so it can be mailed
and printed.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_FIGURE = re.compile(r"([-+]?[\d,]+(\.\d+)?( ?%)?( ± [\d.]+)?)?")
TEMPLATE = Path(__file__).with_name("page.html")


class Table(NamedTuple):
    """A table of texts; every row is as long as `columns`."""

    columns: list[str]
    rows: list[list[str]]

    @property
    def alignments(self) -> list[str]:
        """`figures` for the columns that hold nothing but numbers, else `words`."""
        cells = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return [
            "figures" if any(column) and all(map(_FIGURE.fullmatch, column)) else "words"
            for column in cells
        ]


class Picture(NamedTuple):
    """A figure: the name of its file without suffix, and the bytes of the PNG."""

    name: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture as the `src` of an HTML image."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass
class Section:
    """One thing that the report shows. `explanation` is one sentence on what is seen; `absent`
    says why nothing is.
    """

    title: str
    explanation: str = ""
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    absent: str = ""


class Part(NamedTuple):
    """A run, one of its rounds, or what several runs have in common; `prefix` begins the names of
    its plots' files.
    """

    title: str
    sections: list[Section]
    prefix: str = ""


def to_markdown(title: str, sections: Sequence[Section], level: int = 1) -> str:
    """Tables, notes and warnings of the sections as Markdown; explanations and pictures are the
    HTML page's.
    """
    parts = [f"{'#' * level} {title}"]
    for section in sections:
        if section.absent:
            parts.append(section.absent)
        for table in section.tables:
            lines = [table.columns, ["---"] * len(table.columns), *table.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts += section.notes
        parts += [f"**Warning** {warning}" for warning in section.warnings]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, parts: Sequence[Part]) -> str:
    """The page as one file; all texts are escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title, parts=parts
    )
