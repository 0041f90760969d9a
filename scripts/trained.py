"""Whether a training is done: `python scripts/trained.py TRAIN.yaml key=value ...`.

    exit code 0    output_dir holds a finished model of this YAML, these data and this base model
    exit code 1    it does not
    exit code 2    it holds a finished model of another training; prints each difference, and what
                   to do

Another split of the same rows_per_step over GPUs and accumulation is the same training, because the
gradient of a step is the same.
"""

from variational_reasoning.pipeline.commands import read_words, run_command
from variational_reasoning.pipeline.trainings import is_trained

USAGE = """usage: python scripts/trained.py TRAIN.yaml [key=value ...]
Exit code 0: the training is done; 1: it is not; 2: output_dir holds another training's model."""


def main() -> None:
    places, overrides = read_words(USAGE)
    if len(places) != 1:
        raise ValueError(f"one training YAML is needed, not {len(places)}\n{USAGE}")
    raise SystemExit(0 if is_trained(places[0], overrides) else 1)


if __name__ == "__main__":
    run_command(main)
