"""What a training YAML says before it is trained: whether its model is there already, and its batch on other machines.

The trainings themselves are `llamafactory-cli train`; nothing of the host is imported here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from variational_reasoning.files import read_json_object
from variational_reasoning.model_record import model_identity, read_record
from variational_reasoning.training_identity import (
    dataset_entries,
    differences,
    file_identity,
    files_of_keys,
)

OUR_KEYS = ("constant_loss_normalizer", "prompt_kind", "chat_format")
"""A YAML that has one of these leaves a record next to its model."""


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
    if record is None and (ours := [key for key in OUR_KEYS if key in config]):
        raise ValueError(
            f"{folder} holds a model that was trained without the plugin: there is no record next to "
            f"it, but the YAML has {', '.join(ours)}; remove the folder or change output_dir"
        )
    if record is None:
        print(
            f"{folder}: is trained already, without our keys and formats, so there is no record to compare with",
            flush=True,
        )
        return True
    if found := differences(record, _planned(config, record)):
        listing = "".join(f"\n  {difference}" for difference in found)
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


def _planned(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of this YAML's training would say, for the inputs that the old record names."""
    planned: dict[str, Any] = {"yaml": config, "files": files_of_keys(config)}
    folder = config.get("dataset_dir", "data")
    info_path = Path(folder if isinstance(folder, str) else ".") / "dataset_info.json"
    info = read_json_object(info_path, "correct it") if info_path.is_file() else {}
    planned["sources"] = {}
    for name, source in record.get("sources", {}).items():
        if "file" not in source:
            continue
        listed = info.get(name, {}).get("file_name")
        path = source["file"] if listed is None else info_path.parent / listed
        planned["sources"][name] = file_identity(path)
    planned["dataset_info"] = dataset_entries(info, planned["sources"])
    base = record.get("model", {})
    if "fingerprint" in base:
        planned["model"] = model_identity(base["path"])
    planned["adapters"] = [
        model_identity(adapter["path"])
        for adapter in record.get("adapters", [])
        if "fingerprint" in adapter
    ]
    return planned
