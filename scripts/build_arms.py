"""Train files with given traces: first traces of symbols, and their controls (docs/abstract.md)."""

from pathlib import Path

from variational_reasoning.pipeline.arms import build_arms, describe_arms
from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/build_arms.py CONFIG.yaml model=FOLDER [names=NAME,...] [key=value ...]
Writes a train file for every entry of `arms`: one row per training question, whose trace is its clusters'
symbols, random symbols, the verbal chain, the values of its steps, or empty. model has the symbols.
reads run_dir/questions and run_dir/step_clusters; writes run_dir/first_traces and run_dir/train"""


def main() -> None:
    config, own = read_command(USAGE, own=("model",), optional=("names",))
    names = [name for name in own.get("names", "").split(",") if name]
    with timed(config.run_dir, "build_arms"):
        arms = build_arms(config, Path(own["model"]), names)
    print(describe_arms(arms))


if __name__ == "__main__":
    run_command(main)
