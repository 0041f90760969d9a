"""What a training YAML says before it is trained: whether its model is there already.

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
    """Whether output_dir holds the finished model of this YAML, these data and this base model;
    says so when it does.

    Args:
        recipe: a training YAML. overrides: key=value.

    Raises: ValueError for a finished model of something else, with each difference, and for a file
    that is not YAML.
    """
    config = read_recipe(recipe)
    for override in overrides:
        key, _, value = override.partition("=")
        config[key] = yaml.safe_load(value)
    folder = Path(config["output_dir"])
    if not (folder / "train_results.json").is_file():
        return False
    record = read_record(folder)
    if record is None:
        ours = [key for key in OUR_KEYS if key in config]
        if ours:
            raise ValueError(
                f"{folder} holds a model that was trained without the plugin: there is no record "
                f"next to it, but the YAML has {', '.join(ours)}; remove the folder or change "
                "output_dir"
            )
        print(
            f"{folder}: is trained already, without our keys and formats, so there is no record "
            "to compare with",
            flush=True,
        )
        return True
    found = differences(record, _planned(config, record))
    if found:
        listing = "".join(f"\n  {difference}" for difference in found)
        raise ValueError(
            f"{folder} holds another training; remove the folder or change output_dir:{listing}"
        )
    print(f"{folder}: is trained already", flush=True)
    return True


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The keys of a training YAML.

    Raises: ValueError for a file that is not a mapping.
    """
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
    """What the record of this YAML's training would say, for the inputs that the old record
    names.
    """
    planned: dict[str, Any] = {"yaml": config, "files": files_of_keys(config)}
    folder = config.get("dataset_dir", "data")
    if not isinstance(folder, str):
        folder = "."
    info_path = Path(folder) / "dataset_info.json"
    info = {}
    if info_path.is_file():
        info = read_json_object(info_path, "correct it")
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
    planned["adapters"] = []
    for adapter in record.get("adapters", []):
        if "fingerprint" in adapter:
            planned["adapters"].append(model_identity(adapter["path"]))
    return planned
