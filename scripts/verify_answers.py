"""Stage 7: a verdict for every sampled answer."""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.verify import describe_verdicts, verify_answers
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/verify_answers.py CONFIG.yaml [key=value ...]
reads run_dir/questions and run_dir/answers; writes run_dir/verdicts"""


def main() -> None:
    config, _ = read_command(USAGE)
    with timed(config.run_dir, config.stage_name("verify_answers")) as timing:
        summary = verify_answers(config)
        timing.did_something = summary.did_something
    print(describe_verdicts(summary))


if __name__ == "__main__":
    run_command(main)
