"""The inputs of a training, and whether it may continue from a checkpoint.

The host resumes from the last checkpoint in output_dir, even if the YAML has changed. The model
would then belong to neither the old nor the new training. So the checkpoint's record is compared
with the one that this run would write, before the model is loaded.
"""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from llamafactory.extras import logging
from transformers.trainer_utils import get_last_checkpoint

from variational_reasoning.host.args import VariationalArguments, VariationalRun
from variational_reasoning.host.dataset import LOGGER, source_hashes
from variational_reasoning.host.formats import read_dataset_info
from variational_reasoning.model_record import RECORD_NAME, model_identity, read_record
from variational_reasoning.training_identity import (
    dataset_entries,
    differences,
    files_of_keys,
)

logger = logging.get_logger(LOGGER)

STATE = "trainer_state.json"
"""The last file of a checkpoint that the host writes; without it the checkpoint is not whole."""

OPTIMIZER_STATES = ("optimizer*", "global_step*", "*fsdp*")
"""Files or folders of a checkpoint that hold the optimizer: of one process, DeepSpeed, FSDP."""


def settle_inputs(run: VariationalRun, data_args: Any, processes: int) -> dict[str, Any]:
    """What the record says about a training's inputs. The first call fingerprints them.

    Raises: ValueError for a base model or adapter whose folder holds no model.
    """
    if run.inputs:
        return run.inputs
    run.sources = run.sources or source_hashes(data_args)
    renderer = run.config.renderer
    info, _ = read_dataset_info(data_args.dataset_dir)
    adapters = run.yaml.get("adapter_name_or_path") or []
    names = adapters.split(",") if isinstance(adapters, str) else adapters
    run.inputs = {
        "prompt_kind": run.config.prompt_kind,
        **({"chat_format": None} if renderer is None else renderer.to_record()),
        "model": _identity(str(run.yaml.get("model_name_or_path", ""))),
        "adapters": [_identity(str(name).strip()) for name in names],
        "sources": run.sources,
        "dataset_info": dataset_entries(info, run.sources),
        "files": files_of_keys(run.yaml),
        "processes": processes,
        "yaml": run.yaml,
    }
    return run.inputs


def check_resume(run: VariationalRun, arguments: Sequence[Any]) -> None:
    """Choose the checkpoint that the training continues from, and refuse one of another training.

    If saving a checkpoint was interrupted, the one before it is used. A checkpoint that the YAML
    names is not replaced.

    Args:
        arguments: the host's five argument objects, the second of the data, the third of the
            training.

    Raises: ValueError for a checkpoint without a record, without the optimizer's state, or of
        another training, with all differences.
    """
    _, data_args, training_args, *_ = arguments
    is_given = bool(run.yaml.get("resume_from_checkpoint"))
    checkpoint = training_args.resume_from_checkpoint
    if checkpoint is True or str(checkpoint).lower() == "true":
        checkpoint = get_last_checkpoint(training_args.output_dir)
    elif checkpoint and not is_given:
        checkpoint = training_args.resume_from_checkpoint = _last_whole(Path(checkpoint))
    if not checkpoint or not Path(checkpoint).is_dir() or not training_args.do_train:
        return  # the host refuses a path that does not exist
    folder = Path(checkpoint)
    record = read_record(folder)
    if record is None:
        raise ValueError(
            f"variational_reasoning: {folder} has no {RECORD_NAME}, so nothing shows which "
            f"training it belongs to; it was written without the plugin. "
            f"{_remedy(folder, is_given)}"
        )
    if not any(next(folder.glob(pattern), None) for pattern in OPTIMIZER_STATES):
        raise ValueError(
            f"variational_reasoning: {folder} holds no state of the optimizer "
            f"(save_only_model), so the training would not go on as it was. "
            f"{_remedy(folder, is_given)}"
        )
    now = settle_inputs(run, data_args, training_args.world_size)
    defaults = {}
    for group in (*map(type, arguments), VariationalArguments):
        for each in fields(group):
            if each.default is not MISSING:
                defaults[each.name] = each.default
    found = differences(record, now, defaults)
    if found:
        listing = "".join(f"\n  {number}. {fault}" for number, fault in enumerate(found, 1))
        raise ValueError(
            f"variational_reasoning: {folder} is a checkpoint of another training, and going "
            f"on from it would give a model of neither. Nothing was loaded or written.{listing}\n"
            f"To finish that training, take the changes back. {_remedy(folder, is_given)}"
        )


def _remedy(folder: Path, is_given: bool) -> str:
    if is_given:
        return (
            "To train from these weights instead, set `model_name_or_path` (for LoRA "
            f"`adapter_name_or_path`) to {folder} and remove `resume_from_checkpoint`."
        )
    return f"To start over, remove the checkpoints in {folder.parent}, or change `output_dir`."


def _last_whole(newest: Path) -> str | None:
    """The newest complete checkpoint in the folder of `newest`, which may be `newest` itself."""
    by_step = {}
    for path in newest.parent.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal():
            by_step[int(step)] = path
    for _, folder in sorted(by_step.items(), reverse=True):
        if (folder / STATE).is_file():
            return str(folder)
        logger.warning_rank0(
            f"variational_reasoning: {folder} is passed over: it has no {STATE}, so its saving was "
            "interrupted"
        )
    return None


def _identity(model: str) -> dict[str, str]:
    return model_identity(model) if Path(model).is_dir() else {"path": model}
