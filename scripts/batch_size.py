"""How a recipe's batch fits a machine: `python scripts/batch_size.py TRAIN.yaml gpus=4 [per_device=2]` (stages 1, 2, 9).

Prints the overrides that keep the data rows of one optimizer step, which the YAML states as `rows_per_step`:

    llamafactory-cli train TRAIN.yaml $(python scripts/batch_size.py TRAIN.yaml gpus=4)

    gradient_accumulation_steps = rows_per_step / (gpus x per_device)

gpus counts those of all nodes together. per_device is the rows in one forward pass, a matter of memory and speed only, and the
YAML's own unless it is given. rows_per_step=N asks for another batch than the recipe's, and is printed too.
"""

import sys

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.trainings import batch_settings

USAGE = "usage: python scripts/batch_size.py TRAIN.yaml gpus=N [per_device=N] [rows_per_step=N]"
KEYS = {"gpus", "per_device", "rows_per_step"}


def main() -> None:
    """Print the overrides on stdout, and their product on stderr."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        raise SystemExit(0 if arguments else 2)
    recipe, *pairs = arguments
    numbers = dict(pair.partition("=")[::2] for pair in pairs)
    if numbers.keys() - KEYS or "gpus" not in numbers:
        raise ValueError(f"{' '.join(pairs) or 'no gpus=N'}: does not fit\n{USAGE}")
    settings = batch_settings(recipe, numbers)
    per_device, steps, *_ = settings.values()
    product = per_device * steps * int(numbers["gpus"])
    print(
        f"{per_device} x {steps} x {numbers['gpus']} GPU(s) = {product} rows per step",
        file=sys.stderr,
    )
    print(" ".join(f"{key}={value}" for key, value in settings.items()))


if __name__ == "__main__":
    run_command(main)
