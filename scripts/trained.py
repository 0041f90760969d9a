"""Whether a training is already done: `python scripts/trained.py TRAIN.yaml key=value ...` (between
the stages).

Exit code 0: output_dir holds a finished model of exactly this YAML, these data and this base model.
1: it does not.
2: it holds a finished model of something else; each difference is printed, and what to do. Another
split of the same
rows_per_step over GPUs and accumulation is the same training: the step's gradient is the same.
"""

import sys

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.trainings import is_trained


def main() -> None:
    if len(sys.argv) < 2 or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    raise SystemExit(0 if is_trained(sys.argv[1], sys.argv[2:]) else 1)


if __name__ == "__main__":
    run_command(main)
