"""The report of evaluations: Markdown for the terminal, CSV, and two plots."""

from pathlib import Path

from variational_reasoning.pipeline.commands import read_folders, run_command
from variational_reasoning.report.suites import write_suite_report

USAGE = """usage: python evals/report.py RESULTS [RESULTS ...] [baseline=MODEL] [paper=TEXT,...]
       [output=FOLDER]
RESULTS is a folder that evals/run.py filled: results, results/NAME-seed0, or RUN_DIR/evals.
Prints the report and writes report.md, report.csv, scores.png and pass_at_k.png into output, which
is RESULTS, or the folder above where there are several.
baseline: what the other models are compared with (the first model).
paper: rows of the paper's tables whose model or backbone holds one of these texts, such as paper=4B
(all rows in the table, none in the plot)."""


def main() -> None:
    folders, options = read_folders(USAGE, ("baseline", "paper", "output"))
    output = Path(options.get("output", folders[0] if len(folders) == 1 else folders[0].parent))
    baseline, paper = options.get("baseline"), options.get("paper")
    text, files = write_suite_report(folders, output, baseline, paper)
    print(text)
    print(f"wrote {', '.join(file.name for file in files)} to {output}")


if __name__ == "__main__":
    run_command(main)
