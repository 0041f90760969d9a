"""Clusters of the verbal chain's steps: the symbols of first traces (docs/abstract.md)."""

from pathlib import Path

from variational_reasoning.pipeline.clusters import cluster_steps, describe_clusters
from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/cluster_steps.py CONFIG.yaml model=FOLDER [key=value ...]
Every step of a training question's chain becomes the index of its cluster: k-means on the mean of
the step's hidden states in the model. Prints what the symbols tell about the steps' values, where
steps.pattern has the group `value`, and about the answers.
reads run_dir/questions and the model; writes run_dir/steps and run_dir/step_clusters, whose
clusters.json is what `extend_vocabulary init=steps` reads. Run again, it goes on."""


def main() -> None:
    config, own = read_command(USAGE, own=("model",))
    with timed(config.run_dir, "cluster_steps"):
        figures = cluster_steps(config, Path(own["model"]))
    print(describe_clusters(figures))


if __name__ == "__main__":
    run_command(main)
