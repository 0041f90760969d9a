"""What a training YAML says before it is trained: whether its model is there already, and its batch on other machines.

The trainings themselves are `llamafactory-cli train`; nothing of the host is imported here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from variational_reasoning.files import file_digest
from variational_reasoning.model_record import model_identity, read_record

NEUTRAL = {
    "overwrite_output_dir",
    "overwrite_cache",
    "report_to",
    "run_name",
    "logging_steps",
    "plot_loss",
    "logging_dir",
}
"""Keys that change neither the data nor the model."""

SPLIT_OF_A_STEP = {"per_device_train_batch_size", "gradient_accumulation_steps"}
"""Keys that change neither where both trainings have the same rows_per_step: no other product of them is trained."""


def is_trained(recipe: str | Path, overrides: Sequence[str]) -> bool:
    """Whether output_dir holds the finished model of this YAML, these data and this base model; says so when it does.

    Args:
        recipe: a training YAML. overrides: key=value.

    Raises: ValueError for a finished model of something else, with each difference, and for a file that is no YAML.
    """
    config = _read_recipe(recipe)
    for override in overrides:
        key, _, value = override.partition("=")
        config[key] = yaml.safe_load(value)
    folder = Path(config["output_dir"])
    if not (folder / "train_results.json").is_file():
        return False
    record = read_record(folder)
    if record is None:
        print(
            f"{folder}: is trained already, without our keys and formats, so there is no record to compare with",
            flush=True,
        )
        return True
    if differences := _differences(config, record):
        listing = "".join(f"\n  {difference}" for difference in differences)
        raise ValueError(
            f"{folder} holds another training; remove the folder or change output_dir:{listing}"
        )
    print(f"{folder}: is trained already", flush=True)
    return True


def batch_settings(recipe: str | Path, numbers: Mapping[str, str]) -> dict[str, int]:
    """The keys of a training YAML that keep its rows_per_step on another machine, with their values.

    Args:
        numbers: gpus (of all nodes together), and perhaps per_device and rows_per_step in place of the YAML's.

    Raises: ValueError for what is no whole number, for numbers that do not divide, and for a YAML without rows_per_step.
    """
    given = {name: _whole_number(name, value) for name, value in numbers.items()}
    config = _read_recipe(recipe)
    if "rows_per_step" not in config | given:
        raise ValueError(
            f"{recipe} has no key rows_per_step, the data rows of one optimizer step; give rows_per_step=N"
        )
    rows = given.get("rows_per_step") or _whole_number("rows_per_step", config["rows_per_step"])
    key = "per_device_train_batch_size"
    per_device = given.get("per_device") or _whole_number(key, config.get(key, 1))
    settings = {
        key: per_device,
        "gradient_accumulation_steps": accumulation_steps(rows, given["gpus"], per_device),
    }
    return settings | ({"rows_per_step": rows} if "rows_per_step" in given else {})


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
    raise ValueError(
        f"{rows} rows per step do not divide into {gpus} GPU(s) x {per_device} row(s); {fitting}"
    )


def _nearest(rows: int, fixed: int, wanted: int) -> list[int]:
    """The next numbers below and above `wanted` that divide `rows` together with `fixed`."""
    fitting = [n for n in range(1, rows // fixed + 1) if rows % (fixed * n) == 0]
    return [*[n for n in fitting if n < wanted][-1:], *[n for n in fitting if n > wanted][:1]]


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) == 0:
        raise ValueError(f"{name}: {value!r} is not a whole number above zero")
    return int(str(value))


def _read_recipe(path: str | Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{path} holds {type(config).__name__}; a training YAML is a mapping of keys to values"
        )
    return config


def _differences(config: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    then = record.get("yaml", {})
    is_same_step = "rows_per_step" in then and _is_same(
        then["rows_per_step"], config.get("rows_per_step")
    )
    names = sorted(
        (set(config) | set(then)) - NEUTRAL - (SPLIT_OF_A_STEP if is_same_step else set())
    )
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
