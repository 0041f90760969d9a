"""Stage 8: weights, and the train files of the final models."""

from variational_reasoning.pipeline.build.datasets import build_datasets, describe_files
from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/build_dataset.py CONFIG.yaml [key=value ...]
reads run_dir/{questions,traces,trace_logps,answers,verdicts}; writes a train file per build.outputs entry into
run_dir/train, its name into run_dir/train/dataset_info.json, and run_dir/health.json"""


def main() -> None:
    config, _ = read_command(USAGE)
    with timed(config.run_dir, config.stage_name("build_dataset")) as timing:
        summary = build_datasets(config)
        timing.did_something = any(file.was_written for file in summary.files)
    print(describe_files(summary))


if __name__ == "__main__":
    run_command(main)
