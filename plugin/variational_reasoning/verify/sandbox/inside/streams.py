"""The standard streams of a program, and the paths by which it may name them (stage 7).

Programs open `/dev/stdin` or `/proc/self/fd/0` to read their input. Tier 3 has neither, because
`/proc` shows much more. So `open`, `io.open` and `os.open` know these paths in every tier. They
return a duplicate of the descriptor that the program has anyway. A duplicate shares its position
with the descriptor, as with a pipe. Standard library only.
"""

import builtins
import contextlib
import io
import os
import sys
import weakref
from typing import Any

_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}
_PATHS: dict[str, int] = {}
"""Path to descriptor."""
for _descriptor, _name in _NAMES.items():
    _PATHS[f"/dev/{_name}"] = _descriptor
    _PATHS[f"/dev/fd/{_descriptor}"] = _descriptor
    _PATHS[f"/proc/self/fd/{_descriptor}"] = _descriptor

_open = io.open
_os_open = os.open
_writers: list[weakref.ref] = []
"""Other files that write to the standard output."""

has_writers = False


def open_streams() -> None:
    """Open the standard streams as in a script without a terminal. Once, for all programs."""
    for descriptor, name in _NAMES.items():
        errors = "backslashreplace" if name == "stderr" else "strict"
        mode = "r" if name == "stdin" else "w"
        stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def open_by_path() -> None:
    """Make the paths of the standard streams known to `open`. Once, for all programs."""
    os.supports_dir_fd.add(_open_descriptor)  # where shutil looks for what it may use
    builtins.open = io.open = _open_file
    os.open = _open_descriptor


def flush_others() -> None:
    """Flush the first standard output and other files on its descriptor, as Python does at exit."""
    others = [writer() for writer in _writers]  # None for one that was collected
    for stream in (sys.__stdout__, *others):
        if stream is not None:
            with contextlib.suppress(Exception):  # the interpreter ignores it as well
                stream.flush()


def _descriptor_of(path: Any) -> int | None:
    """The descriptor that a path names, or None."""
    try:
        return _PATHS.get(os.fsdecode(path))
    except TypeError:  # it is a descriptor itself
        return None


def _open_file(file, mode="r", *args, **options):  # type: ignore[no-untyped-def]
    descriptor = _descriptor_of(file)
    if descriptor is None:
        opened = _open(file, mode, *args, **options)
    else:
        opened = _open(os.dup(descriptor), mode, *args, **options)
    if descriptor == 1 or (isinstance(file, int) and file == 1):
        global has_writers
        has_writers = True
        _writers.append(weakref.ref(opened))
    return opened


def _open_descriptor(path, flags, mode=0o777, *, dir_fd=None):  # type: ignore[no-untyped-def]
    descriptor = _descriptor_of(path)
    if descriptor is None:
        return _os_open(path, flags, mode, dir_fd=dir_fd)
    return os.dup(descriptor)
