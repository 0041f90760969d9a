"""What a training writes beside a model, and what the stages after it read: which prompt it was trained on, and from what.

The one file that `host` and `pipeline` share. Standard library only.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

RECORD_NAME = "variational_reasoning.json"


def write_record(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write the record atomically. Keys: see `host.trainer`; `prompt_kind` and `chat_format` are what the sampler checks."""
    path = Path(folder) / RECORD_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_record(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a model folder, or None for a model that was not trained with this plugin.

    Raises: ValueError when the file is there but is not a JSON object.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); train the model again or delete the file") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds {type(record).__name__}, not an object; train the model again or delete the file")
    return record


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
