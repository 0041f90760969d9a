"""Stages 4 and 5: log-likelihoods of the traces under the reasoner and under the posterior."""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.score import score_traces
from variational_reasoning.pipeline.work.summary import describe_table
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/score_traces.py CONFIG.yaml model=reasoner|posterior [key=value ...]
Sums log p over each trace's ids, and for the reasoner over the reference solution's.
reads run_dir/questions, run_dir/traces and the model's folder; writes run_dir/trace_logps/<model>"""


def main() -> None:
    config, own = read_command(USAGE, own=("model",))
    with timed(config.run_dir, config.stage_name(f"score_traces_{own['model']}")) as timing:
        summary = score_traces(config, own["model"])
        timing.did_something = bool(summary.sampled)
    print(describe_table(summary))


if __name__ == "__main__":
    run_command(main)
