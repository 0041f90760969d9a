"""Stage 6: M answers per trace from the reasoner (the Acc estimator needs them)."""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.sample import sample_answers
from variational_reasoning.pipeline.work.summary import describe_table
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/sample_answers.py CONFIG.yaml [key=value ...]
Samples sampling.num_answers answers after each well-formed trace.
reads run_dir/questions, run_dir/traces and the reasoner's folder; writes run_dir/answers"""


def main() -> None:
    config, _ = read_command(USAGE)
    with timed(config.run_dir, config.stage_name("sample_answers")) as timing:
        summary = sample_answers(config)
        timing.did_something = bool(summary.sampled)
    print(describe_table(summary))


if __name__ == "__main__":
    run_command(main)
