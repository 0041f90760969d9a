"""What a training is made from, and by which of it two trainings differ.

Two questions need the same answer: may a checkpoint be resumed by this run (`host`), and is the
model of a YAML already there (`pipeline`)? Both compare the record of a model folder with the
record that the run would write. Standard library only, since `host` and `pipeline` share it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from variational_reasoning.files import path_digest
from variational_reasoning.model_record import SECRET_KEY

NEUTRAL_KEYS = frozenset(
    [
        "output_dir",
        "overwrite_output_dir",
        "overwrite_cache",
        "resume_from_checkpoint",
        "cache_dir",
        "report_to",
        "run_name",
        "project",
        "plot_loss",
        "disable_tqdm",
        "push_to_hub",
        "full_determinism",
        "include_num_input_tokens_seen",
        "include_tokens_per_second",
        "print_param_status",
        "skip_memory_metrics",
        "enable_torch_profiler",
        "profile_modules",
        "use_swanlab",
        "preprocessing_num_workers",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "ddp_timeout",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "low_cpu_mem_usage",
        "offload_folder",
        "flash_attn",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "use_reentrant_gc",
        "disable_gradient_checkpointing",
        "use_unsloth_gc",
        "torch_empty_cache_steps",
    ]
)
"""Keys that change neither the data nor the model, but for rounding (flash_attn, checkpointing)."""

NEUTRAL_PREFIXES = (
    "logging_",
    "log_",
    "hub_",
    "push_to_hub_",
    "swanlab_",
    "trackio_",
    "torch_profiler_",
)

EVALUATION_KEYS = frozenset(
    [
        "do_eval",
        "do_predict",
        "eval_dataset",
        "eval_on_each_dataset",
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "eval_accumulation_steps",
        "eval_num_beams",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "per_device_eval_batch_size",
        "batch_eval_metrics",
        "prediction_loss_only",
        "compute_accuracy",
        "metric_for_best_model",
        "greater_is_better",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "save_on_each_node",
        "save_safetensors",
    ]
)
"""Keys that change the model only where an evaluation chooses it or the learning rate."""

SPLIT_OF_A_STEP = frozenset(
    ("per_device_train_batch_size", "gradient_accumulation_steps", "tokens_per_micro_batch")
)
"""Keys that change nothing where both trainings have the same rows_per_step."""


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """By what two trainings differ, a line each, such as "learning_rate: was 1e-05, is 2e-05".

    Args:
        then: a record. now: the record that this run would write. What one of them does not have is
            not compared, except for keys of the YAML.
        defaults: values of YAML keys that are not given.
    """
    found = _yaml_differences(then.get("yaml", {}), now.get("yaml", {}), defaults or {})
    found += _file_differences("data set ", then.get("sources", {}), now.get("sources", {}))
    found += _file_differences("", then.get("files", {}), now.get("files", {}))
    old_entries, new_entries = then.get("dataset_info", {}), now.get("dataset_info", {})
    for name, entry in old_entries.items():
        if name in new_entries and new_entries[name] != entry:
            found.append(
                f"data set {name}: its entry in dataset_info.json was {entry}, is "
                f"{new_entries[name]}"
            )
    found += _model_differences("base model", then.get("model"), now.get("model"))
    old_adapters, new_adapters = then.get("adapters", []), now.get("adapters", [])
    for old, new in zip(old_adapters, new_adapters, strict=False):
        found += _model_differences("adapter", old, new)
    for name in ("chat_format", "prompt_family", "processes"):
        if name in then and name in now and then[name] != now[name]:
            found.append(f"{name}: was {then[name]}, is {now[name]}")
    return found


def file_identity(path: str | Path) -> dict[str, str]:
    """{"file", "sha256"} of a file, or of a folder with its files; no "sha256" if it is gone."""
    identity = {"file": str(path)}
    if Path(path).exists():
        identity["sha256"] = path_digest(path)
    return identity


def dataset_entries(info: Mapping[str, Any], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What dataset_info.json says of data sets, but for the file, which `sources` has."""
    entries = {}
    for name in names:
        entry = dict(info.get(name) or {})
        entry.pop("file_name", None)
        entries[name] = entry
    return entries


def files_of_keys(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The identity of each file that a key of a YAML names, such as `deepspeed`."""
    found = {}
    for key, value in config.items():
        is_name = isinstance(value, str) and 0 < len(value) < 1024 and "\n" not in value
        if is_name and not _is_neutral(key) and Path(value).is_file():
            found[key] = file_identity(value)
    return found


def _is_neutral(key: str) -> bool:
    return (
        key in NEUTRAL_KEYS
        or key.startswith(NEUTRAL_PREFIXES)
        or SECRET_KEY.search(key) is not None
    )


def _yaml_differences(
    then: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    def is_set(key: str) -> bool:
        return any(_normal(config.get(key)) not in ("none", "false", "0") for config in (then, now))

    ignored: set[str] = set()
    rows_per_step = then.get("rows_per_step"), now.get("rows_per_step")
    if None not in rows_per_step and _is_same(*rows_per_step):
        ignored |= SPLIT_OF_A_STEP
    schedulers = {str(config.get("lr_scheduler_type")) for config in (then, now)}
    evaluation_decides = (
        is_set("load_best_model_at_end")
        or is_set("early_stopping_steps")
        or "reduce_lr_on_plateau" in schedulers
    )
    if not evaluation_decides:
        ignored |= EVALUATION_KEYS
    compared = set()
    if is_set("packing") or is_set("neat_packing"):
        # Rows are packed within the part of the data that one worker maps.
        compared |= {"preprocessing_num_workers"}
    if is_set("streaming"):
        compared |= {"dataloader_num_workers"}
    found = []
    for key in sorted(set(then) | set(now)):
        if key in ignored or (_is_neutral(key) and key not in compared):
            continue
        old, new = then.get(key, defaults.get(key)), now.get(key, defaults.get(key))
        if not _is_same(old, new):
            found.append(f"{key}: was {old!r}, is {new!r}")
    return found


def _is_same(then: Any, now: Any) -> bool:
    try:
        return float(then) == float(now)  # 1e-5, 0.00001 and "1e-5" are one number
    except (TypeError, ValueError):
        return _normal(then) == _normal(now)


def _normal(value: Any) -> str:
    """One spelling of a value: `True` and "true" are the same, `[a, b]` and "a,b" too."""
    if isinstance(value, list | tuple):
        return ",".join(_normal(entry) for entry in value)
    text = str(value).strip()
    if "," in text:
        text = ",".join(part.strip() for part in text.split(","))
    return text.lower() if text.lower() in ("true", "false", "none") else text


def _file_differences(
    what: str, then: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[str]:
    found = []
    for name, old in then.items():
        new = now.get(name, {})
        if "sha256" not in old or "file" not in new:
            continue
        if "sha256" not in new:
            found.append(f"{what}{name}: {new['file']} is gone")
        elif new["sha256"] != old["sha256"] and new["file"] == old["file"]:
            found.append(f"{what}{name}: the contents of {new['file']} have changed")
        elif new["sha256"] != old["sha256"]:
            found.append(f"{what}{name}: was {old['file']}, is {new['file']} of other contents")
    return found


def _model_differences(
    what: str, then: Mapping[str, str] | None, now: Mapping[str, str] | None
) -> list[str]:
    if not then or not now or "fingerprint" not in then or "fingerprint" not in now:
        return []  # of the hub, whose name is a key of the YAML
    names = ("fingerprint", "settings_fingerprint")
    if all(then[name] == now[name] for name in names if name in then and name in now):
        return []
    if then["path"] == now["path"]:
        return [f"{what}: the contents of {now['path']} have changed"]
    return [f"{what}: was {then['path']}, is {now['path']} of other contents"]
