"""Stage 3: K traces per question from the posterior, or from the reasoner (sampling.traces_from)."""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.sample import sample_traces
from variational_reasoning.pipeline.work.summary import describe_table
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/sample_traces.py CONFIG.yaml [key=value ...]
Samples sampling.num_traces traces for each training question.
reads run_dir/questions and the posterior's folder; writes run_dir/traces"""


def main() -> None:
    config, _ = read_command(USAGE)
    with timed(config.run_dir, config.stage_name("sample_traces")) as timing:
        summary = sample_traces(config)
        timing.did_something = bool(summary.sampled)
    print(describe_table(summary))


if __name__ == "__main__":
    run_command(main)
