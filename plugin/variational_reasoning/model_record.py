"""What a training writes next to a model: which prompt it was trained on, and from what.

The stages that follow read it. Standard library only, since `host` and `pipeline` share it.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object, write_json

RECORD_NAME = "variational_reasoning.json"
_SETTINGS_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

_WHOLE_BYTES = 256 * 2**20
"""Size up to which a file's bytes all go into its fingerprint."""
_NUM_BLOCKS = 1024
"""Of a larger file."""
_BLOCK_BYTES = 64 * 2**10
"""Of each."""

SECRET_KEY = re.compile(
    r"(token|api_?key|access_?key|secret|secret_?key|password|passwd|credentials?|webhook_url)$",
    re.IGNORECASE,
)
"""Names of keys whose text is never written: hf_hub_token, swanlab_api_key, swanlab_lark_secret."""


def masked(value: Any) -> Any:
    """A copy in which the text of every secret-like key is `<NAME OF THE KEY>`, at any depth.

    {"hub_token": "hf_abc", "lr": 1} becomes {"hub_token": "<HUB_TOKEN>", "lr": 1}. The host masks
    its own logs in the same way. Only text is masked: `max_token: 3` stays.
    """
    if isinstance(value, Mapping):
        return {key: _masked_entry(str(key), entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [masked(entry) for entry in value]
    return value


def _masked_entry(key: str, value: Any) -> Any:
    if isinstance(value, str) and value and SECRET_KEY.search(key):
        return f"<{key.upper()}>"
    return masked(value)


def masked_word(word: str) -> str:
    """A word of a command line, `key=value` or `--key=value`, without the value of a secret."""
    key, equals, value = word.partition("=")
    if equals and value and SECRET_KEY.search(key):
        return f"{key}=<{key.removeprefix('--').upper()}>"
    return word


def write_record(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write the record atomically, with secrets masked.

    Keys: see `host.trainer`. The sampler checks `prompt_kind` and `chat_format`.
    """
    write_json(Path(folder) / RECORD_NAME, masked(record))


def read_record(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a model folder, or None for a model that was not trained with this plugin.

    Raises: ValueError when the file is there but is not a JSON object.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        return None
    return read_json_object(path, "train the model again or delete the file")


def model_identity(folder: str | os.PathLike) -> dict[str, str]:
    """{"path", "fingerprint", "settings_fingerprint"} of a local model folder.

    The fingerprint is a sha256 over the names, sizes and contents of configuration, tokenizer and
    weights. Of a weight file above 256 MiB only 1,024 evenly spread blocks of 64 KiB are read. Any
    training changes nearly every value, so that is enough to tell two models apart, at a hundredth
    of the time.

    The settings' fingerprint is over the files that say where a text ends and how it is cut into
    tokens. It is a value of its own, so that what an earlier release recorded, which lacks it,
    still fits.

    Raises: ValueError for a folder that is missing or holds no model.
    """
    folder = Path(folder)
    names = ("config.json", "adapter_config.json", "tokenizer.json")
    files = [folder / name for name in names if (folder / name).is_file()]
    patterns = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
    weights = sorted(set().union(*map(folder.glob, patterns)))
    if not files or not weights:
        state = "has no config.json or no weights" if folder.is_dir() else "does not exist"
        raise ValueError(
            f"the model folder {folder} {state}; train the model first, or set models.* to "
            "another folder"
        )
    settings = [folder / name for name in _SETTINGS_FILES if (folder / name).is_file()]
    return {
        "path": str(folder),
        "fingerprint": _fingerprint(files + weights),
        "settings_fingerprint": _fingerprint(settings),
    }


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as stream:
            if size <= _WHOLE_BYTES:
                digest.update(stream.read())
                continue
            # The first block begins at 0, and the last one ends with the file.
            last_start = size - _BLOCK_BYTES
            for block in range(_NUM_BLOCKS):
                stream.seek(last_start * block // (_NUM_BLOCKS - 1))
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()
