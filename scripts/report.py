"""The report of one or several runs: scores, posterior's health, stage times, files."""

import sys
from pathlib import Path

from variational_reasoning.pipeline.config import run_command
from variational_reasoning.pipeline.report import report

USAGE = """usage: python scripts/report.py RUN_DIR [RUN_DIR ...] [baseline=reasoner] [output=PATH]
Prints and writes a page of Markdown; several run folders are taken as seeds of one experiment.
output is RUN_DIR/report.md for one run, and report.md beside the run folders for several"""


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    folders = [Path(argument) for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    unknown = sorted(options.keys() - {"baseline", "output"})
    if unknown or not folders:
        fault = f"unknown options {unknown}" if unknown else "no run folder is named"
        raise ValueError(f"{fault}\n{USAGE}")
    text = report(folders, options.get("baseline", "reasoner"))
    default = folders[0] / "report.md" if len(folders) == 1 else folders[0].parent / "report.md"
    output = Path(options.get("output", default))
    output.write_text(text, encoding="utf-8")
    print(text)
    print(f"wrote {output}")


if __name__ == "__main__":
    run_command(main)
