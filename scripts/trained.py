"""Whether a training is already done: `python scripts/trained.py TRAIN.yaml key=value ...` (between the stages, for run.sh).

Exit code 0: output_dir holds a finished model of exactly this YAML, these data and this base model. 1: it does not.
2: it holds a finished model of something else; each difference is printed, and what to do.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from variational_reasoning.model_record import file_digest, model_identity, read_record

# What changes neither the data nor the model.
NEUTRAL = {"overwrite_output_dir", "overwrite_cache", "report_to", "run_name", "logging_steps", "plot_loss", "logging_dir"}


def main() -> int:
    """Compare the YAML with the record that the plugin wrote beside the model."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for override in sys.argv[2:]:
        key, _, value = override.partition("=")
        config[key] = yaml.safe_load(value)
    folder = Path(config["output_dir"])
    if not (folder / "train_results.json").is_file():
        return 1
    record = read_record(folder)
    if record is None:
        print(f"{folder}: is trained already, without our keys and formats, so there is no record to compare with")
        return 0
    differences = _differences(config, record)
    if not differences:
        print(f"{folder}: is trained already")
        return 0
    listing = "".join(f"\n  {difference}" for difference in differences)
    print(f"{folder} holds another training; remove the folder or change output_dir:{listing}", file=sys.stderr)
    return 2


def _differences(config: dict[str, Any], record: dict[str, Any]) -> list[str]:
    then = record.get("yaml", {})
    names = sorted((set(config) | set(then)) - NEUTRAL)
    found = [
        f"{name}: was {then.get(name)!r}, is {config.get(name)!r}"
        for name in names
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


if __name__ == "__main__":
    sys.exit(main())
