"""What of the file system an interpreter needs, so that a sandbox can show that and nothing else
(stage 7)."""

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
"""Run in the interpreter in question. What .pth files add to sys.path is left out: it may be
anybody's source."""

OLDEST = (3, 11)
"""The first version that can be told to import nothing from the current folder (-P)."""

PRELOADABLE = ("numpy",)
"""Modules that so many programs use, and that take so long to import, that a sandbox may load them
once for all."""

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
"""Where _LIBRARIES already have the libraries of an interpreter."""


class Interpreter(NamedTuple):
    """What of the file system an interpreter needs, and what it offers.

    read_only: files and folders that it reads. sys_path: where it imports from. closed: the folders
    of sys_path that a user who owns nothing cannot enter. preloadable: which of PRELOADABLE it has.
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
    """Look at an interpreter, by running it where it is not this one.

    Raises: InterpreterError for one that does not run.
    """
    found = _facts(python)
    version, prefix = found["version"], found["prefix"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
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
    sys_path = list(dict.fromkeys(folders))
    system = [*_LIBRARIES, *_FILES]
    if prefix not in _SYSTEM_PREFIXES:
        system.append(base_lib)
    # Libraries name each other by links such as /lib.
    links = [path for path in _LIBRARIES if Path(path).is_symlink()]
    targets = [str(Path(path).resolve()) for path in (*sys_path, *system) if Path(path).exists()]
    preloadable = [
        name
        for name in PRELOADABLE
        if any(Path(path, name, "__init__.py").is_file() for path in sys_path)
    ]
    return Interpreter(
        python=python,
        version=version,
        read_only=_outermost(list(dict.fromkeys([*links, *targets]))),
        sys_path=sys_path,
        closed=[path for path in _outermost(sys_path) if not _is_open_to_others(Path(path))],
        preloadable=preloadable,
    )


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
        detail = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.SubprocessError) as error:
        detail = str(error)
    except json.JSONDecodeError:
        detail = f"it answers {done.stdout[:60]!r}"
    raise InterpreterError(
        f"program_python is {python}, which does not run as a Python interpreter: {detail}"
    )


def _outermost(paths: list[str]) -> list[str]:
    """Without those that are inside another of them."""
    return [path for path in paths if not any(path.startswith(other + "/") for other in paths)]


def _is_open_to_others(folder: Path) -> bool:
    """Whether everybody may list a folder and enter all folders above it."""
    if folder.stat().st_mode & 0o5 != 0o5:
        return False
    return all(parent.stat().st_mode & 0o1 for parent in folder.parents)
