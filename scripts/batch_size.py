"""How a recipe's batch fits a machine: `python scripts/batch_size.py TRAIN.yaml gpus=4 [per_device=2]` (stages 1, 2, 9).

Prints the overrides that keep the data rows of one optimizer step, which the YAML states as `rows_per_step`:

    llamafactory-cli train TRAIN.yaml $(python scripts/batch_size.py TRAIN.yaml gpus=4)

    gradient_accumulation_steps = rows_per_step / (gpus x per_device)

gpus counts those of all nodes together. per_device is the rows in one forward pass, a matter of memory and speed only, and the
YAML's own unless it is given. rows_per_step=N asks for another batch than the recipe's, and is printed too.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

USAGE = "usage: python scripts/batch_size.py TRAIN.yaml gpus=N [per_device=N] [rows_per_step=N]"
KEYS = {"gpus", "per_device", "rows_per_step"}


def accumulation_steps(rows: int, gpus: int, per_device: int) -> int:
    """rows / (gpus x per_device).

    Raises: ValueError where that is no whole number, with the nearest numbers of GPUs and of rows per device that fit.
    """
    steps, rest = divmod(rows, gpus * per_device)
    if rest == 0:
        return steps
    choices = [f"gpus={n} per_device={per_device}" for n in _nearest(rows, per_device, gpus)]
    choices += [f"gpus={gpus} per_device={n}" for n in _nearest(rows, gpus, per_device)]
    fitting = f"nearest that do: {', '.join(choices)}" if choices else "change both numbers"
    raise ValueError(f"{rows} rows per step do not divide into {gpus} GPU(s) x {per_device} row(s); {fitting}")


def _nearest(rows: int, fixed: int, wanted: int) -> list[int]:
    """The next numbers below and above `wanted` that divide `rows` together with `fixed`."""
    fitting = [n for n in range(1, rows // fixed + 1) if rows % (fixed * n) == 0]
    return [*[n for n in fitting if n < wanted][-1:], *[n for n in fitting if n > wanted][:1]]


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) == 0:
        raise ValueError(f"{name}: {value!r} is not a whole number above zero")
    return int(str(value))


def batch_settings(recipe: str | Path, given: Mapping[str, str]) -> dict[str, int]:
    """The keys of a training YAML to override, with their values.

    Args:
        given: gpus, and perhaps per_device and rows_per_step.

    Raises: ValueError for numbers that are missing, are none, or do not divide; OSError for a file that is not there.
    """
    numbers = {name: _whole_number(name, value) for name, value in given.items()}
    try:
        config = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{recipe} is not valid YAML: {error}") from error
    if not isinstance(config, dict) or "rows_per_step" not in config | numbers:
        raise ValueError(f"{recipe} has no key rows_per_step, the data rows of one optimizer step; give rows_per_step=N")
    rows = numbers.get("rows_per_step") or _whole_number("rows_per_step", config["rows_per_step"])
    per_device = numbers.get("per_device") or _whole_number(
        "per_device_train_batch_size", config.get("per_device_train_batch_size", 1)
    )
    steps = accumulation_steps(rows, numbers["gpus"], per_device)
    settings = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": steps}
    return settings | ({"rows_per_step": rows} if "rows_per_step" in numbers else {})


def main() -> int:
    """Print the overrides on stdout, and their product on stderr."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    path, *pairs = arguments
    given = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        if given.keys() - KEYS or "gpus" not in given:
            raise ValueError(f"{' '.join(pairs) or 'no gpus=N'}: does not fit\n{USAGE}")
        settings = batch_settings(path, given)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    per_device, steps, gpus = *list(settings.values())[:2], int(given["gpus"])
    print(f"{per_device} x {steps} x {gpus} GPU(s) = {per_device * steps * gpus} rows per step", file=sys.stderr)
    print(" ".join(f"{key}={value}" for key, value in settings.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
