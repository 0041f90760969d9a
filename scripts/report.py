"""The report of one or several runs: Markdown for the terminal, and one HTML page with its plots."""

from pathlib import Path

from variational_reasoning.pipeline.commands import read_folders, run_command
from variational_reasoning.report.report import write_report

USAGE = """usage: python scripts/report.py RUN_DIR [RUN_DIR ...] [baseline=reasoner] [output=PATH.md]
Prints and writes a page of Markdown; writes next to it an HTML page of the same name, which needs no network, and the page's
plots in <name>_figures/. Several run folders are taken as seeds of one experiment; RUN_DIR/round2, ... are further parts.
output is RUN_DIR/report.md for one run, and report.md next to the run folders for several"""


def main() -> None:
    folders, options = read_folders(USAGE, ("baseline", "output"))
    default = folders[0] / "report.md" if len(folders) == 1 else folders[0].parent / "report.md"
    output = Path(options.get("output", default))
    if output.suffix != ".md":
        raise ValueError(f"output={output} must end in .md; the page and the plots take its name")
    written = write_report(folders, output, options.get("baseline", "reasoner"))
    print(written.markdown)
    print(
        f"wrote {output}, {written.page} and {len(written.pictures)} plots in "
        f"{output.stem}_figures/"
    )


if __name__ == "__main__":
    run_command(main)
