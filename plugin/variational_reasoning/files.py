"""Files that are whole or absent: JSON and YAML, atomic replacement, digests.

`host` and `pipeline` never meet; what both need of files is here.
"""

import errno
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ABANDONED_SECONDS = 24 * 3600
"""Age at which a temporary file of another machine is taken for that of a killed process."""

_WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system that has no links answers to `os.link`."""

_MAY_HOLD_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""What the bytes of a JSON line have if one of its texts holds half of a surrogate pair.

An escape from \\ud800 to \\udfff, or the same code point in the pattern of UTF-8."""


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a file or folder, and leads nowhere else."""
    leads_elsewhere = name.startswith(".") or bool({"/", "\\", "\0"} & set(name))
    return bool(name.strip()) and not leads_elsewhere


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON atomically. Raises: OSError as `write_atomically`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any], replace: bool = True) -> None:
    """Let `write` fill a temporary file, sync it, and rename it: the file is whole or not there.

    Args:
        replace: whether a file that is there already is replaced; otherwise it stays, and the new
            one is thrown away.

    Raises: OSError that names the file, for a full disk.
    """
    with atomic_file(path, replace) as temporary:
        write(temporary)


@contextmanager
def atomic_file(path: Path, replace: bool = True) -> Iterator[Path]:
    """The temporary file of `write_atomically`, which gets its name at the end of the block.

    Raises: as `write_atomically`.
    """
    temporary = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        _give_name(temporary, path, replace)
        # The rename itself must survive a power cut before the next file counts on it.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error}); finished files are valid: make room and run "
            "the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)  # its space may be all that the next attempt lacks


def is_abandoned(temporary: Path) -> bool:
    """Whether a temporary file of `write_atomically` can be removed, because its writer is gone.

    shard-00003.parquet.node7.4711.tmp is of process 4711 on node7. On this machine the process is
    looked for; a file of another machine is abandoned after a day without a write.
    """
    *_, process, _ = temporary.name.split(".")
    is_of_this_machine = temporary.name.endswith(f".{platform.node()}.{process}.tmp")
    if is_of_this_machine and process.isdecimal():
        return not _is_alive(int(process))
    try:
        return time.time() - temporary.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    """Whether a process of this machine can still write.

    One that was killed keeps its number until its parent has asked for its end (state Z).
    """
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # it is gone by now, or this system has no /proc
        return not Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _give_name(temporary: Path, path: Path, replace: bool) -> None:
    """Rename a temporary file; without `replace`, a file that is there already stays."""
    if not replace:
        try:
            os.link(temporary, path)  # unlike a rename, it never takes another's place
            return
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
        if path.exists():
            return
    temporary.replace(path)


def read_yaml_object(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises: ValueError that names the file and ends in `remedy`.
    """
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {type(value).__name__}, not a mapping; {remedy}")
    return value


def read_json_object(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises: ValueError that names the file and ends in `remedy`.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {type(value).__name__}, not an object; {remedy}")
    return value


def read_json_lines(
    path: str | os.PathLike, faults: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of each line of a file of JSON objects; empty lines are skipped.

    A line ends at \\n alone: U+2028 and its like may be inside a text.

    Args:
        faults: takes what is wrong with a line, which is then left out; without it the first fault
            is raised.

    Raises: ValueError that names the file and the line.
    """
    with Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                fault = _row_fault(value, f"line {number}", bool(_MAY_HOLD_HALF.search(line)))
            except UnicodeDecodeError as error:
                fault = f"line {number} is not UTF-8 ({error})"
            except (ValueError, RecursionError) as error:
                # A ValueError that is not a JSONDecodeError: an integer of more than 4,300 digits.
                fault = f"line {number} is not valid JSON ({error})"
            if fault is None:
                yield number, value
            elif faults is None:
                raise ValueError(f"{path}, {fault}")
            else:
                faults.append(fault)


def row_faults(rows: list[Any]) -> list[str]:
    """What is wrong with the rows of a JSON array: not an object, or half of a surrogate pair."""
    faults = [_row_fault(row, f"row {number}", True) for number, row in enumerate(rows, 1)]
    return [fault for fault in faults if fault]


def _row_fault(value: Any, where: str, may_hold_half: bool) -> str | None:
    """What is wrong with a row, or None. Only rows that may hold half of a pair are searched."""
    if not isinstance(value, dict):
        return f"{where} is not an object: {value!r:.60}"
    if not may_hold_half:
        return None
    for name, part in value.items():
        try:
            json.dumps([name, part], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            return (
                f"{where}, column {name!a} holds {half}, half of a surrogate pair, which no "
                "tokenizer can read; remove it from the text"
            )
    return None


def file_state(path: str | os.PathLike) -> list[int] | None:
    """[size in bytes, time of the last change in ns] of a file; None where there is none.

    Whoever writes a file changes its state, so a digest that was right for a state need not be
    computed again. A copy may have another state and the same bytes.
    """
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns]


def file_digest(path: str | os.PathLike) -> str:
    """sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def path_digest(path: str | os.PathLike) -> str:
    """sha256 of a file's bytes, or of the names and bytes of all files in a folder, in hex."""
    root = Path(path)
    if not root.is_dir():
        return file_digest(root)
    digest = hashlib.sha256()
    for file in sorted(found for found in root.rglob("*") if found.is_file()):
        digest.update(f"{file.relative_to(root)} {file_digest(file)}\n".encode())
    return digest.hexdigest()
