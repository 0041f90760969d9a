"""Whether a model fits what it is asked: the prompt, the length, the vocabulary of the traces.

Each check refuses before any weight is loaded, except the vocabulary, which needs the tokenizer.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.model_record import RECORD_NAME, read_record
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines.base import context_length
from variational_reasoning.pipeline.rows import read_manifest


def check_prompt_kind(folder: Path, kind: str, renderer: Renderer, config: Config) -> None:
    """Refuse a model that was trained on another prompt than the one it is about to be given.

    Raises: ValueError that names both; also for a model without a record, unless
    models.allow_unrecorded is true.
    """
    if not folder.is_dir():
        raise ValueError(
            f"the model folder {folder} does not exist; train the model first, or set models.*"
        )
    record = read_record(folder) or {}
    faults = _faults_of_prompt(record, kind, renderer)
    if faults:
        raise ValueError(f"model {folder}: {'; '.join(faults)}")
    silent = [name for name in ("prompt_kind", "chat_format") if record.get(name) is None]
    if silent and not config.models.allow_unrecorded:
        raise ValueError(
            f"{folder / RECORD_NAME} does not say the model's {' and '.join(silent)}, so nothing "
            f"shows that it was trained on the prompt {kind!r}; set them in the training YAML, or, "
            "if you know it, set models.allow_unrecorded: true"
        )


def _faults_of_prompt(record: Mapping[str, Any], kind: str, renderer: Renderer) -> list[str]:
    """What a model's record says of another prompt than this one."""
    faults = []
    # Phase A teaches to write symbols, and its model is asked for them with and without the chain.
    fitting_kinds = (None, kind, renderer.family.bottleneck)
    if record.get("prompt_kind") not in fitting_kinds:
        faults.append(
            f"it was trained on the prompt {record['prompt_kind']!r}, but would be given {kind!r} "
            "(posterior_prompt in the pipeline.yaml, prompt_kind in the training YAML)"
        )
    wanted = renderer.to_record()
    if record.get("chat_format") not in (None, wanted["chat_format"]):
        faults.append(
            f"its chat format was {record['chat_format']}, but it would be given "
            f"{renderer.chat_format}"
        )
    family = record.get("prompt_family")
    if record.get("chat_format") is not None and family != wanted.get("prompt_family"):
        name = "paper" if family is None else family.get("name")
        faults.append(
            f"its prompt family was {name!r} or another one of this name, but it would be given "
            f"{renderer.family.name!r} (prompt_family in the pipeline.yaml and in the training "
            "YAML)"
        )
    return faults


def check_context(folder: Path, config: Config) -> None:
    """Raises: ValueError when cutoff_len admits texts that the model has no positions for."""
    path = folder / "config.json"
    if not path.is_file():  # the model's fingerprint says so
        return
    settings = read_json_object(path, "train the model again or choose another folder")
    positions = context_length(settings)
    if positions and config.cutoff_len > positions:
        raise ValueError(
            f"cutoff_len is {config.cutoff_len}, but {folder} has positions for {positions} "
            "tokens (max_position_embeddings in its config.json); lower cutoff_len here and in the "
            "training YAMLs, or choose a model with a longer context"
        )


def vocabulary_digest(tokenizer: Any) -> str:
    """sha256 over a tokenizer's pieces and their ids: equal for two copies of one tokenizer,
    no matter who saved them.
    """
    pieces = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()


def check_vocabulary(config: Config, tokenizer: Any, model_folder: Path) -> None:
    """Raises: ValueError when this tokenizer's ids are not the ids of the traces."""
    traces = config.folder("traces")
    sampled_with = read_manifest(traces, "traces").get("vocabulary")
    if vocabulary_digest(tokenizer) != sampled_with:
        raise ValueError(
            f"the tokenizer of {model_folder} is not the one that the traces in {traces} were "
            "sampled with, so their ids mean other text; reasoner and posterior must start from "
            "one base model"
        )
