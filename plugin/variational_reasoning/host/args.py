"""Our YAML keys, and every check that can be made before a tokenizer, a model or a data set is loaded.

All faults of a YAML are collected and raised together; each says what is wrong, with which value, and where to change it.
"""

import difflib
import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variational_reasoning.host import formats
from variational_reasoning.method.families import FAMILIES
from variational_reasoning.method.prompts import Renderer, make_renderer

if TYPE_CHECKING:
    from variational_reasoning.host.dataset import RowFacts

OVERLONG_POLICIES = ("drop", "truncate", "error")


@dataclass
class VariationalArguments:
    """The keys under `### variational` in a training YAML."""

    constant_loss_normalizer: str | None = field(
        default=None,
        metadata={
            "help": "Switches weighted Dr. SFT on. C in target tokens per row, or `auto`: "
            "mean weight x mean target tokens of the training set."
        },
    )
    prompt_kind: str | None = field(
        default=None,
        metadata={
            "help": "What the rows of our data formats are rendered as, or were: a prompt kind of the family, "
            "reasoner, posterior_a or posterior_b in the family paper."
        },
    )
    chat_format: str | None = field(
        default=None,
        metadata={
            "help": "How our data formats write turns: chatml, llama3, gemma, mistral, or a .json file."
        },
    )
    prompt_family: str = field(
        default="paper",
        metadata={
            "help": "What prompts say, and how thought and solution are marked: paper, think, or a .yaml file."
        },
    )
    overlong: str = field(
        default="drop",
        metadata={
            "help": f"Rows of our data formats longer than cutoff_len: one of {', '.join(OVERLONG_POLICIES)}."
        },
    )
    rows_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Data rows of one optimizer step; a run whose per_device_train_batch_size x gradient_accumulation_steps x "
            "processes is another number is refused."
        },
    )


@dataclass
class VariationalConfig:
    """The checked keys, as the host's argument objects carry them in the attribute `variational`.

    Part of the cache key of tokenized data, so it holds nothing that tokenization does not depend on but C.
    """

    constant_loss_normalizer: float | str | None
    prompt_kind: str | None
    renderer: Renderer | None
    overlong: str


@dataclass
class VariationalRun:
    """What one training keeps from its YAML to its record.

    The host's argument objects carry it in the attribute `variational`: `finetuning_args` and
    `training_args` the whole, `data_args` only the `config`, since the host hashes that object.

    config: our keys, checked. yaml: all keys as given, the host's too.
    constant_loss_normalizer: C in target tokens per row; None for the host's own loss. A number once
        the training set is tokenized.
    facts: of the training set; None before it is tokenized, for a stream and for an evaluation alone.
    sources: data set name -> where its rows come from.
    expects_run_sft: whether the host's training has begun, but not yet its `run_sft`, the one workflow
        that our loss is in.
    inputs: what the record says of the data, the models and the files that the training starts from.
    """

    config: VariationalConfig
    yaml: dict[str, Any]
    constant_loss_normalizer: float | None = None
    facts: "RowFacts | None" = None
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    expects_run_sft: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)


OUR_KEYS = tuple(f.name for f in fields(VariationalArguments))


def split_arguments(
    raw: dict[str, Any] | list[str], host_keys: set[str]
) -> tuple[dict[str, Any], Any, list[str]]:
    """Separate our keys from the host's.

    Args:
        raw: the host's arguments, a mapping (YAML) or command-line words.
        host_keys: names that the host knows, so that a misspelt key of ours can be told from one of the host's.

    Returns: (our keys, the rest in the form it came in, faults). A key that nobody knows but resembles one of ours is a
        fault and is left out of the rest, so that the host does not stop before the other faults are found.
    """
    if isinstance(raw, dict):
        ours = {key: value for key, value in raw.items() if key in OUR_KEYS}
        rest, faults = {}, []
        for key, value in raw.items():
            near = difflib.get_close_matches(key, OUR_KEYS, n=1, cutoff=0.75)
            if key not in OUR_KEYS and key not in host_keys and near:
                faults.append(f"unknown key `{key}`; did you mean `{near[0]}`?")
            elif key not in OUR_KEYS:
                rest[key] = value
        return ours, rest, faults
    ours, rest, words = {}, [], iter(raw)
    for word in words:
        name, equals, value = word.removeprefix("--").replace("-", "_").partition("=")
        if word.startswith("--") and name in OUR_KEYS:
            ours[name] = word.partition("=")[2] if equals else next(words, "")
        else:
            rest.append(word)
    return ours, rest, []


def data_formats(dataset_names: list[str], dataset_dir: Any) -> dict[str, str]:
    """Name -> formatting of the data sets that `dataset_info.json` knows; unknown names are left out."""
    info, _ = formats.read_dataset_info(dataset_dir)
    return {name: info[name].get("formatting", "alpaca") for name in dataset_names if name in info}


def as_mapping(raw: dict[str, Any] | list[str]) -> dict[str, Any]:
    """The host's arguments as a mapping; of command-line words, `--key value` and `--key=value`."""
    if isinstance(raw, dict):
        return raw
    found = {}
    for position, word in enumerate(raw):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            found[key.replace("-", "_")] = (
                value if equals else next(iter(raw[position + 1 : position + 2]), "")
            )
    return found


def uses_our_features(raw: dict[str, Any] | list[str]) -> bool:
    """Whether a YAML, or words of a command line, set one of our keys or name a data set in one of our formats.

    Needs nothing of the host, so that it can also judge for a host that does not fit.
    """
    raw = as_mapping(raw)
    if any(key in raw for key in OUR_KEYS):
        return True
    names = [*_names(raw.get("dataset")), *_names(raw.get("eval_dataset"))]
    return any(
        f in formats.FORMATS for f in data_formats(names, raw.get("dataset_dir", "data")).values()
    )


def check(
    ours: dict[str, Any], faults: list[str], model_args, data_args, training_args, finetuning_args
) -> VariationalConfig:
    """Check our keys against each other and against the host's arguments.

    Args:
        ours: our keys as the YAML gives them. faults: faults found so far.
        model_args, data_args, training_args, finetuning_args: the host's parsed arguments.

    Raises: ValueError with all faults, one per line.
    """
    faults = list(faults)
    normalizer = _check_constant_loss_normalizer(ours.get("constant_loss_normalizer"), faults)
    prompt_kind, overlong = ours.get("prompt_kind"), ours.get("overlong", "drop")
    if overlong not in OVERLONG_POLICIES:
        faults.append(f"overlong: {overlong!r} is not one of {', '.join(OVERLONG_POLICIES)}")
    renderer = None
    try:
        # Without a chat format the family is checked all the same.
        made = make_renderer(
            str(ours.get("chat_format", "chatml")), str(ours.get("prompt_family", "paper"))
        )
    except ValueError as error:
        faults += str(error).splitlines()
    else:
        renderer = made if "chat_format" in ours else None
        if prompt_kind is not None and prompt_kind not in made.kinds:
            faults.append(
                f"prompt_kind: {prompt_kind!r} is not one of {', '.join(made.kinds)} "
                f"(prompt_family {made.family.name!r})"
            )
    _check_rows_per_step(ours.get("rows_per_step"), data_args, training_args, faults)
    _check_datasets(ours, renderer, data_args, faults)
    _check_host_flags(normalizer, model_args, data_args, training_args, finetuning_args, faults)
    _check_model_path(model_args.model_name_or_path, faults)
    if faults:
        listing = "".join(f"\n  {number}. {fault}" for number, fault in enumerate(faults, 1))
        raise ValueError(
            f"variational_reasoning: this training is refused, nothing was loaded or written.{listing}"
        )
    return VariationalConfig(normalizer, prompt_kind, renderer, overlong)


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else list(value)


def _check_constant_loss_normalizer(value: Any, faults: list[str]) -> float | str | None:
    if value is None or value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not (number > 0 and math.isfinite(number)):
        faults.append(
            f"constant_loss_normalizer: {value!r} is neither `auto` nor a number above zero "
            "(target tokens per row; `python scripts/compute_normalizer.py TRAIN.yaml` prints it)"
        )
    return number


def _check_rows_per_step(rows: Any, data_args, training_args, faults: list[str]) -> None:
    """A recipe's batch must not change silently with the number of GPUs."""
    if rows is None:
        return
    if isinstance(rows, bool) or not re.fullmatch(r"[1-9]\d*", str(rows)):
        faults.append(f"rows_per_step: {rows!r} is not a whole number of data rows above zero")
        return
    if not training_args.do_train:
        return
    if data_args.packing or data_args.neat_packing:
        faults.append(
            "rows_per_step: the number of rows in a pack is not known beforehand; remove the key or `packing`"
        )
        return
    per_device, steps = (
        training_args.per_device_train_batch_size,
        training_args.gradient_accumulation_steps,
    )
    processes = training_args.world_size
    if per_device * steps * processes != int(rows):
        faults.append(
            f"rows_per_step: {rows}, but per_device_train_batch_size {per_device} x gradient_accumulation_steps {steps} x "
            f"{processes} process(es) = {per_device * steps * processes}; `python scripts/batch_size.py TRAIN.yaml "
            f"gpus={processes}` prints the setting that keeps the batch (for another batch change or remove rows_per_step)"
        )


def _check_datasets(
    ours: dict[str, Any], renderer: Renderer | None, data_args, faults: list[str]
) -> None:
    names = [*_names(data_args.dataset), *_names(data_args.eval_dataset)]
    info, where = formats.read_dataset_info(data_args.dataset_dir)
    local = isinstance(data_args.dataset_dir, dict) or not re.match(
        r"ONLINE$|REMOTE:", str(data_args.dataset_dir)
    )
    if local and names and not info:
        faults.append(
            f"dataset_dir: {where} does not exist or is empty; set `dataset_dir` to the folder that holds it"
        )
    for name in names if local and info else []:
        if name not in info:
            near = difflib.get_close_matches(name, info, n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"it knows {', '.join(sorted(info)) or 'nothing'}"
            )
            faults.append(f"dataset: {name!r} is not in {where}; {hint}")
    used = {info[name].get("formatting", "alpaca") for name in names if name in info}
    our_formats = used & set(formats.FORMATS)
    for key in ("prompt_kind", "chat_format", "prompt_family", "overlong"):
        if key in ours and not our_formats and not faults:
            faults.append(
                f"{key}: has no effect, because no data set of this run is {' or '.join(formats.FORMATS)}"
            )
    if our_formats and "chat_format" not in ours:
        faults.append(
            "chat_format: is missing; data sets in our formats need it (chatml, llama3, gemma, mistral, or a .json file)"
        )
    if "reasoning" in our_formats and "prompt_kind" not in ours:
        faults.append(
            "prompt_kind: is missing; `reasoning` rows are rendered as one of "
            + ", ".join((renderer.family if renderer else FAMILIES["paper"]).kinds)
        )
    if our_formats and our_formats == used and data_args.template not in (None, "empty"):
        faults.append(
            f"template: {data_args.template!r} would wrap texts that `chat_format` already renders; "
            "remove the key (it only serves data sets in the host's own formats)"
        )
    for name in names:
        if name in info and info[name].get("formatting") in formats.FORMATS:
            faults += formats.check_source(
                name, info[name], data_args.dataset_dir, ours.get("prompt_kind"), renderer
            )


def _check_host_flags(
    normalizer: float | str | None,
    model_args,
    data_args,
    training_args,
    finetuning_args,
    faults: list[str],
) -> None:
    """Whatever of the host would bypass our loss or our formats is refused by name, never ignored."""
    key = (
        "constant_loss_normalizer"
        if normalizer is not None
        else "the formats weighted_sft and reasoning"
    )
    if finetuning_args.stage != "sft":
        faults.append(f"stage: {finetuning_args.stage!r} does not fit {key}; only `sft` does")
    refused = {
        "USE_MCA=1 (Megatron)": finetuning_args.use_mca
        or os.environ.get("USE_MCA", "0").lower() in ("1", "true", "y"),
        "use_kt (KTransformers)": model_args.use_kt,
        "use_hyper_parallel": finetuning_args.use_hyper_parallel,
        "predict_with_generate (sampling is a stage of its own)": training_args.predict_with_generate,
        "train_on_prompt (the loss is on responses only)": data_args.train_on_prompt,
        "tokenized_path (the host would ignore a changed weight; the data sets cache already keeps tokenized rows)": (
            data_args.tokenized_path is not None
        ),
    }
    if normalizer is not None:
        refused |= {
            "use_dft_loss": finetuning_args.use_dft_loss,
            "use_eaft_loss": finetuning_args.use_eaft_loss,
            "use_asft_loss": finetuning_args.use_asft_loss,
            "label_smoothing_factor": training_args.label_smoothing_factor != 0,
            "enable_liger_kernel (its fused loss would bypass ours, which needs as little memory)": (
                model_args.enable_liger_kernel
            ),
            "use_unsloth (its fused loss would bypass ours)": model_args.use_unsloth,
        }
    faults += [
        f"{name}: is not supported together with {key}; remove it"
        for name, is_set in refused.items()
        if is_set
    ]
    if normalizer == "auto" and not training_args.do_train:
        faults.append(
            "constant_loss_normalizer: `auto` needs a training set; give the number for an evaluation alone"
        )
    if normalizer == "auto" and data_args.streaming:
        faults.append(
            "constant_loss_normalizer: `auto` cannot see all rows of a stream; give the number that "
            "`python scripts/compute_normalizer.py TRAIN.yaml` prints"
        )


def _check_model_path(model: str | None, faults: list[str]) -> None:
    """A hub id is `name` or `owner/name`; anything else must be a folder on this machine."""
    if model is None:
        faults.append("model_name_or_path: is missing")
        return
    is_hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith(".")
    is_local = Path(model).exists()
    parent_is_local = "/" in model and Path(model).parent.is_dir()
    if not is_local and (not is_hub_id or parent_is_local):
        faults.append(
            f"model_name_or_path: the folder {model!r} does not exist; train or download the model first"
        )
