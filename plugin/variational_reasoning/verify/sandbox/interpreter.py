"""The files that an interpreter needs, so that a sandbox can show only those (stage 7)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class InterpreterError(ValueError):
    """The interpreter that was named does not run."""


_FOUND = """
import site, sys, sysconfig
packages = site.getsitepackages([sys.prefix, sys.base_prefix])
found = {
    "standard": [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")],
    "dynamic": sysconfig.get_config_var("DESTSHARED") or "",
    "packages": [path for path in packages if path in sys.path],
    "prefix": sys.base_prefix,
    "version": sys.version.split()[0],
}
"""
"""Run in the interpreter in question. What .pth files add to sys.path is left out, because it may
be anybody's source."""

OLDEST = (3, 11)
"""The first version with the option not to import from the current folder (-P)."""

PRELOADABLE = ("numpy",)
"""Modules that many programs use and that import slowly. A sandbox may load them once."""

_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
)
_SYSTEM_PREFIXES = ("/usr", "/usr/local", "/")
"""Prefixes of interpreters whose libraries are in _LIBRARIES."""


class Interpreter(NamedTuple):
    """The files that an interpreter needs, and what it offers.

    read_only: files and folders that it reads. sys_path: where it imports from. closed: the folders
    of sys_path that other users cannot enter. preloadable: which of PRELOADABLE it has.
    """

    python: str
    version: str
    read_only: list[str]
    sys_path: list[str]
    closed: list[str]
    preloadable: list[str]

    def describe(self) -> str:
        """A few words for a person, such as `/usr/bin/python3 (3.11.2, without numpy)`."""
        numpy = "with numpy" if "numpy" in self.preloadable else "without numpy"
        return f"{self.python} ({self.version}, {numpy})"


def find_interpreter(python: str) -> Interpreter:
    """Look at an interpreter. It is run, unless it is the current one.

    Raises: InterpreterError for one that does not run.
    """
    found = _facts(python)
    version = found["version"]
    prefix = found["prefix"]
    major, minor = map(int, version.split(".")[:2])
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InterpreterError(
            f"program_python is {python}, which is Python {version}; programs need {oldest} or "
            "newer"
        )
    base_lib = str(Path(prefix, "lib"))
    stdlib = found["standard"][0]
    if not Path(stdlib).is_dir():
        stdlib = base_lib
    dynamic = found["dynamic"] or str(Path(stdlib, "lib-dynload"))
    candidates = [stdlib, *found["standard"], dynamic, *found["packages"]]
    folders = [str(Path(path).resolve()) for path in candidates if Path(path).is_dir()]
    sys_path = _without_repeats(folders)
    system = [*_LIBRARIES, *_FILES]
    if prefix not in _SYSTEM_PREFIXES:
        system.append(base_lib)
    # Libraries name each other by links such as /lib, so these are needed next to their targets.
    read_only = [path for path in _LIBRARIES if Path(path).is_symlink()]
    for path in (*sys_path, *system):
        if Path(path).exists():
            read_only.append(str(Path(path).resolve()))
    closed = []
    for path in _outermost(sys_path):
        if not _is_open_to_others(Path(path)):
            closed.append(path)
    return Interpreter(
        python=python,
        version=version,
        read_only=_outermost(_without_repeats(read_only)),
        sys_path=sys_path,
        closed=closed,
        preloadable=[name for name in PRELOADABLE if _is_package(name, sys_path)],
    )


def _without_repeats(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _is_package(name: str, sys_path: list[str]) -> bool:
    """Whether a package can be imported from one of these folders."""
    return any(Path(path, name, "__init__.py").is_file() for path in sys_path)


def _facts(python: str) -> dict[str, Any]:
    """The values of _FOUND."""
    if python == sys.executable:
        names: dict[str, Any] = {}
        exec(_FOUND, names)
        return names["found"]
    command = [python, "-I", "-c", _FOUND + "import json; print(json.dumps(found))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return json.loads(done.stdout)
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        detail = errors[-1]
    except (OSError, subprocess.SubprocessError) as error:
        detail = str(error)
    except json.JSONDecodeError:
        detail = f"it answers {done.stdout[:60]!r}"
    raise InterpreterError(
        f"program_python is {python}, which does not run as a Python interpreter: {detail}"
    )


def _outermost(paths: list[str]) -> list[str]:
    """The paths that are not inside another one: /usr of /usr and /usr/lib."""
    folders = tuple(f"{path}/" for path in paths)
    return [path for path in paths if not path.startswith(folders)]


def _is_open_to_others(folder: Path) -> bool:
    """Whether everybody may list a folder and enter all folders above it."""
    if folder.stat().st_mode & 0o5 != 0o5:
        return False
    return all(parent.stat().st_mode & 0o1 for parent in folder.parents)
