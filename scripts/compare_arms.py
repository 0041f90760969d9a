"""One table of a run's arms, or of several seeds: accuracy, tokens, controls (docs/abstract.md)."""

from variational_reasoning.pipeline.commands import read_folders, run_command
from variational_reasoning.report.arms import compare_arms

USAGE = """usage: python scripts/compare_arms.py RUN [RUN ...]
Prints the arms of a run as a Markdown table: accuracy, tokens per question, and the accuracy after other traces.
Several runs are seeds of one experiment: mean and standard error over them.
reads RUN/evals; writes RUN/arms.md of the first"""


def main() -> None:
    folders, _ = read_folders(USAGE, ())
    table = compare_arms(folders)
    (folders[0] / "arms.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    run_command(main)
