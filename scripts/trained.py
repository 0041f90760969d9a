"""Whether a training is already done: `python scripts/trained.py TRAIN.yaml key=value ...` (between the stages).

Exit code 0: output_dir holds a finished model of exactly this YAML, these data and this base model. 1: it does not.
2: it holds a finished model of something else; each difference is printed, and what to do.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from variational_reasoning.model_record import file_digest, model_identity, read_record

# What changes neither the data nor the model.
NEUTRAL = {"overwrite_output_dir", "overwrite_cache", "report_to", "run_name", "logging_steps", "plot_loss", "logging_dir"}
# What changes neither where both trainings have the same rows_per_step: the plugin lets no other product of them train.
SPLIT_OF_A_STEP = {"per_device_train_batch_size", "gradient_accumulation_steps"}


def is_trained(recipe: str | Path, overrides: Sequence[str]) -> bool:
    """Compare a training YAML with the record that the plugin wrote beside the model in its output_dir.

    Raises: ValueError for a finished model of something else, with each difference.
    """
    config = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    for override in overrides:
        key, _, value = override.partition("=")
        config[key] = yaml.safe_load(value)
    folder = Path(config["output_dir"])
    if not (folder / "train_results.json").is_file():
        return False
    record = read_record(folder)
    if record is None:
        print(f"{folder}: is trained already, without our keys and formats, so there is no record to compare with", flush=True)
        return True
    if differences := _differences(config, record):
        listing = "".join(f"\n  {difference}" for difference in differences)
        raise ValueError(f"{folder} holds another training; remove the folder or change output_dir:{listing}")
    print(f"{folder}: is trained already", flush=True)
    return True


def _differences(config: dict[str, Any], record: dict[str, Any]) -> list[str]:
    then = record.get("yaml", {})
    names = set(config) | set(then)
    is_same_step = "rows_per_step" in then and _is_same(then["rows_per_step"], config.get("rows_per_step"))
    neutral = NEUTRAL | (SPLIT_OF_A_STEP if is_same_step else set())
    found = [
        f"{name}: was {then.get(name)!r}, is {config.get(name)!r}"
        for name in sorted(names - neutral)
        if not _is_same(then.get(name), config.get(name))
    ]
    for name, source in record.get("sources", {}).items():
        if "sha256" in source and not Path(source["file"]).is_file():
            found.append(f"data set {name}: {source['file']} is gone")
        elif "sha256" in source and file_digest(source["file"]) != source["sha256"]:
            found.append(f"data set {name}: the contents of {source['file']} have changed")
    base = record.get("model", {})
    if "fingerprint" in base and model_identity(base["path"])["fingerprint"] != base["fingerprint"]:
        found.append(f"base model: the contents of {base['path']} have changed")
    return found


def _is_same(then: Any, now: Any) -> bool:
    try:
        return float(then) == float(now)  # 1e-5, 0.00001 and "1e-5" are one number
    except (TypeError, ValueError):
        return str(then) == str(now)


def main() -> int:
    if len(sys.argv) < 2 or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0 if len(sys.argv) > 1 else 2
    try:
        return 0 if is_trained(sys.argv[1], sys.argv[2:]) else 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
