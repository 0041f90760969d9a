"""What of the file system an interpreter needs, so that a sandbox can show that and nothing else (stage 7)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class InterpreterError(ValueError):
    """The interpreter that was named does not run."""


_FOUND = """
import site, sys, sysconfig
found = {
    "standard": [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")],
    "dynamic": sysconfig.get_config_var("DESTSHARED") or "",
    "packages": [path for path in site.getsitepackages([sys.prefix, sys.base_prefix]) if path in sys.path],
    "prefix": sys.base_prefix,
    "version": sys.version.split()[0],
}
"""
"""Run in the interpreter in question. What .pth files add to sys.path is left out: it may be anybody's source."""


class Interpreter(NamedTuple):
    """What of the file system an interpreter needs, and what it offers.

    read_only: files and folders that it reads. sys_path: where it imports from. closed: the folders of sys_path that a user
    who owns nothing cannot enter. preloadable: which of PRELOADABLE it has.
    """

    python: str
    version: str
    read_only: list[str]
    sys_path: list[str]
    closed: list[str]
    preloadable: list[str]

    def describe(self) -> str:
        """A few words for a person, such as `/usr/bin/python3 (3.11.2, without numpy)`."""
        return f"{self.python} ({self.version}, {'with' if 'numpy' in self.preloadable else 'without'} numpy)"


OLDEST = (3, 11)
"""The first version whose interpreter can be told to import nothing from the current folder (-P)."""

PRELOADABLE = ("numpy",)
"""Modules that so many programs use, and that take so long to import, that a sandbox may load them once for all."""


def find_interpreter(python: str) -> Interpreter:
    """Look at an interpreter, by running it where it is not this one.

    Raises: InterpreterError for one that does not run.
    """
    if python == sys.executable:
        names: dict[str, Any] = {}
        exec(_FOUND, names)
        found = names["found"]
    else:
        found = _ask(python)
    if tuple(map(int, found["version"].split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InterpreterError(
            f"program_python is {python}, which is Python {found['version']}; programs need {oldest} or newer"
        )
    base_lib = str(Path(found["prefix"], "lib"))
    stdlib = found["standard"][0] if Path(found["standard"][0]).is_dir() else base_lib
    dynamic = found["dynamic"] or str(Path(stdlib, "lib-dynload"))
    candidates = [stdlib, *found["standard"], dynamic, *found["packages"]]
    sys_path = list(
        dict.fromkeys(str(Path(path).resolve()) for path in candidates if Path(path).is_dir())
    )
    system = [
        *_LIBRARIES,
        *_FILES,
        *([] if found["prefix"] in ("/usr", "/usr/local", "/") else [base_lib]),
    ]
    links = [
        path for path in _LIBRARIES if Path(path).is_symlink()
    ]  # by which libraries name each other
    targets = [str(Path(path).resolve()) for path in (*sys_path, *system) if Path(path).exists()]
    return Interpreter(
        python=python,
        version=found["version"],
        read_only=_outermost(list(dict.fromkeys([*links, *targets]))),
        sys_path=sys_path,
        closed=[path for path in _outermost(sys_path) if not _is_open_to_others(Path(path))],
        preloadable=[
            name
            for name in PRELOADABLE
            if any(Path(path, name, "__init__.py").is_file() for path in sys_path)
        ],
    )


def _ask(python: str) -> dict[str, Any]:
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


_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
)


def _outermost(paths: list[str]) -> list[str]:
    """Without those that lie in another of them."""
    return [path for path in paths if not any(path.startswith(other + "/") for other in paths)]


def _is_open_to_others(folder: Path) -> bool:
    return folder.stat().st_mode & 0o5 == 0o5 and all(
        parent.stat().st_mode & 0o1 for parent in folder.parents
    )
