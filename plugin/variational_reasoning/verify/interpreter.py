"""What of the file system an interpreter needs, so that a sandbox can show that and nothing else (stage 7)."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any


class InterpreterError(RuntimeError):
    """The interpreter that was named does not run."""


def interpreter_paths(python: str) -> dict[str, Any]:
    """What of the file system an interpreter needs: read_only (files and folders), sys_path, closed (those folders of
    sys_path that a user who owns nothing cannot enter), and installed (modules that may be preloaded).

    Raises: InterpreterError for one that does not run.
    """
    if python == sys.executable:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        found = {"paths": [sysconfig.get_path(n) for n in names], "prefix": sys.base_prefix, "dynamic": ""}
        found["dynamic"] = sysconfig.get_config_var("DESTSHARED") or ""
    else:
        code = (
            "import json,sys,sysconfig;print(json.dumps({'paths':[sysconfig.get_path(n) for n in "
            "('stdlib','platstdlib','purelib','platlib')],'prefix':sys.base_prefix,"
            "'dynamic':sysconfig.get_config_var('DESTSHARED') or ''}))"
        )
        try:
            done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise InterpreterError(f"the interpreter {python} does not run: {error}") from error
        found = json.loads(done.stdout)
    stdlib, platstdlib, purelib, platlib = found["paths"]
    base_lib = str(Path(found["prefix"], "lib"))
    sys_path = [base_lib if not Path(stdlib).is_dir() else stdlib]
    dynamic = found["dynamic"] or str(Path(stdlib, "lib-dynload"))
    for path in (platstdlib, dynamic, purelib, platlib):
        if Path(path).is_dir() and path not in sys_path:
            sys_path.append(path)
    wanted = [*sys_path, "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    if found["prefix"] not in ("/usr", "/usr/local", "/"):
        wanted.append(base_lib)
    wanted += ["/dev/null", "/dev/zero", "/dev/urandom", "/usr/share/zoneinfo"]
    read_only: list[str] = []
    for path in wanted:
        if not Path(path).exists():
            continue
        if Path(path).is_symlink() and path in ("/lib", "/lib64", "/usr/lib64"):
            read_only.append(path)
            path = str(Path(path).resolve())
        else:
            path = str(Path(path).resolve())
        if path not in read_only:
            read_only.append(path)
    installed = [name for name in ("numpy",) if any(Path(path, name, "__init__.py").is_file() for path in (purelib, platlib))]
    sys_path = [str(Path(path).resolve()) for path in sys_path]
    return {
        "read_only": _outermost(read_only),
        "sys_path": sys_path,
        "closed": [path for path in _outermost(sys_path) if not _is_open_to_others(Path(path))],
        "installed": installed,
    }


def _outermost(paths: list[str]) -> list[str]:
    """Without those that lie in another of them."""
    return [path for path in paths if not any(path.startswith(other + "/") for other in paths)]


def _is_open_to_others(folder: Path) -> bool:
    return folder.stat().st_mode & 0o5 == 0o5 and all(parent.stat().st_mode & 0o1 for parent in folder.parents)
