"""Stage 6: M answers per trace from the reasoner (the Acc estimator needs them)."""

from variational_reasoning.pipeline.config import read_command, run_command
from variational_reasoning.pipeline.sample import describe, sample_answers

USAGE = """usage: python scripts/sample_answers.py CONFIG.yaml [key=value ...]
Samples sampling.num_answers answers after each well-formed trace.
reads run_dir/questions, run_dir/traces and the reasoner's folder; writes run_dir/answers"""


def main() -> None:
    config, _ = read_command(USAGE)
    print(describe(sample_answers(config)))


if __name__ == "__main__":
    run_command(main)
