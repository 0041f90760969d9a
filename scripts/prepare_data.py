"""Stage 0: questions, traces and solutions into our tables; train files for the reasoner and the
posterior.
"""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.questions.prepare import describe_preparation, prepare_data
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/prepare_data.py CONFIG.yaml [key=value ...]
reads data.train and data.test, and the tokenizer of base; writes run_dir/questions and run_dir/train"""


def main() -> None:
    config, _ = read_command(USAGE)
    with timed(config.run_dir, "prepare_data") as timing:
        summary = prepare_data(config)
        timing.did_something = summary.did_something
    print(describe_preparation(summary))


if __name__ == "__main__":
    run_command(main)
