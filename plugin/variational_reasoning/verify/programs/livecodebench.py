"""Rows of LiveCodeBench as checks of kind `program` (evaluation).

    public_test_cases     JSON text
    private_test_cases    JSON text, or base64 of zlib of a pickled JSON text
    metadata              JSON text, with `func_name` for functions

A program must pass the public and the private tests, as in LiveCodeBench itself. SkyThought's task
only runs the private ones.

Nothing is unpickled, because a pickle can run code. It is read as a list of operations, and only
the operations of one pickled text are accepted.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from .records import read_tests

MAX_BYTES = 1 << 30
"""Private tests that would be larger than this when decompressed are refused."""

_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_AROUND_A_TEXT = {"PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"}


def livecodebench_check(row: Mapping[str, Any]) -> dict[str, Any]:
    """The check of one row of the published schema.

    Returns: {"kind": "program", "tests": [...]}, and "fn_name" for functions.

    Raises: ValueError that names the question and the field at fault.
    """
    name = f"LiveCodeBench question {row.get('question_id', '(without question_id)')}"
    needed = ("public_test_cases", "private_test_cases", "metadata")
    missing = [field for field in needed if field not in row]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    try:
        tests = read_test_cases(row["public_test_cases"], "public_test_cases")
        tests += read_test_cases(row["private_test_cases"], "private_test_cases")
        metadata = _json(row["metadata"], "metadata")
        if not isinstance(metadata, dict):
            raise ValueError(f"metadata is {row['metadata'][:60]!r}, not a JSON object")
        check = {"kind": "program", "tests": tests}
        if metadata.get("func_name") is not None:
            check["fn_name"] = metadata["func_name"]
        read_tests(check)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return check


def read_test_cases(text: str, field: str = "test cases") -> list[dict[str, Any]]:
    """The tests of one field: JSON text, or base64 of zlib of a pickled JSON text.

    Raises: ValueError that names the field and the step that failed.
    """
    if not isinstance(text, str):
        raise ValueError(f"{field} is {str(text)[:60]!r}; it must be text")
    if not text.lstrip().startswith("["):  # base64 has no bracket
        text = _decoded(text, field)
    tests = _json(text, field)
    if not isinstance(tests, list):
        raise ValueError(f"{field} is {text[:60]!r}, not a JSON list")
    return tests


def _decoded(text: str, field: str) -> str:
    """The JSON text inside base64, zlib and a pickle. Raises: ValueError that names the step."""
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(
            f"{field} is neither a JSON list nor base64 ({error}): {text[:60]!r}"
        ) from error
    reader = zlib.decompressobj()
    try:
        pickled = reader.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(
            f"{field} is base64 of something that is not zlib data ({error})"
        ) from error
    if reader.unconsumed_tail:
        raise ValueError(f"{field} decompresses to more than {MAX_BYTES} bytes")
    if not reader.eof or reader.unused_data:
        raise ValueError(f"{field} is zlib data that is cut short or has something after it")
    return unpickled_text(pickled, field)


def unpickled_text(data: bytes, field: str = "the pickle") -> str:
    """The text that a pickle consists of, without unpickling.

    Raises: ValueError that names the operation, for a pickle of anything but one text.
    """
    found: list[str] = []
    try:
        for operation, argument, position in pickletools.genops(data):
            if operation.name in _TEXTS:
                found.append(str(argument))
            elif operation.name not in _AROUND_A_TEXT:
                raise ValueError(
                    f"operation {operation.name} at byte {position} is not part of a pickled text"
                )
    except ValueError as error:
        raise ValueError(f"{field} is refused as a pickle: {error}") from error
    if len(found) != 1 or position != len(data) - 1:
        raise ValueError(
            f"{field} is refused as a pickle: it holds {len(found)} texts and something more or "
            "less than one"
        )
    return found[0]


def _json(text: Any, field: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{field} is not valid JSON ({error}): {str(text)[:60]!r}") from error
