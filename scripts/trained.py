"""Whether a training is already done: `python scripts/trained.py TRAIN.yaml key=value ...` (between
the stages).

Exit code 0: output_dir holds a finished model of exactly this YAML, these data and this base model.
1: it does not.
2: it holds a finished model of something else; each difference is printed, and what to do. Another
split of the same
rows_per_step over GPUs and accumulation is the same training: the step's gradient is the same.
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
