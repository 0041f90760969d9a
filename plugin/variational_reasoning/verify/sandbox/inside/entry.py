"""How a program starts and ends: as a script, or as a call of one of its functions (stage 7).

This runs in the child that `program` has forked for one test, after the child has given up its
powers. It imitates what the interpreter does around a script. The descriptors are

    0 input (for a function: the arguments as JSON)    1 output    2 errors    3 function's result

Nothing here judges. Only the output and the exit code leave the process, so a program gains nothing
by changing this module. Standard library only.
"""

import _thread
import atexit
import importlib
import json
import os
import sys
import threading
import types
from typing import NoReturn

from . import names, streams

FILE = "program.py"
"""What tracebacks call the program."""

COMPILE_EXIT = 121
"""Exit code of a program that does not compile."""

LOADED_ONCE = names.RARER_MODULES | {
    "contextlib",
    "dataclasses",
    "decimal",
    "enum",
    "numbers",
    "queue",
}
"""Modules that are loaded once for all tests of a program that names them."""


def make_main(program: types.CodeType | BaseException, function: str | None) -> types.ModuleType:
    """The module that a program runs in, empty for a script.

    A function's program is not the main module, as on the sites that call functions. Code under
    `if __name__ == "__main__"` does not run. The module has the names of `names`, which such
    programs do not import.
    """
    used = names.used_in(program)
    for name in LOADED_ONCE & used:
        importlib.import_module(name)
    module = types.ModuleType("__main__" if function is None else "program")
    module.__file__ = FILE
    if function is not None:
        module.__dict__.update(names.provided(used))
        sys.modules[module.__name__] = module
    sys.modules["__main__"] = module
    return module


def run(
    program: types.CodeType | BaseException, module: types.ModuleType, function: str | None
) -> NoReturn:
    """Run the program as a script, or call its function. This ends the process.

    Args:
        program: its code, or why it does not compile.
    """
    if isinstance(program, BaseException):
        sys.excepthook(type(program), program, program.__traceback__)
        _leave(COMPILE_EXIT)
    arguments: list[object] = []
    if function is None:
        os.close(3)
    else:
        with open(0, "rb", closefd=False) as stream:
            arguments = json.loads(stream.read())
    code = 0
    try:
        exec(program, module.__dict__)
        if function is not None:
            _call(function, arguments, module)
    except SystemExit as error:
        code = _code_of(error)
    except BaseException:  # noqa: BLE001  as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        if _thread._count():  # without threads there is nothing to wait for
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        output = sys.stdout
        if output is not None:
            try:
                output.flush()
            except ValueError:
                if not output.closed:  # a program may close its output
                    raise
        if output is not sys.__stdout__ or streams.has_writers:
            streams.flush_others()
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        code = code or 1
    _leave(code & 0xFF)


def _code_of(error: SystemExit) -> int:
    """The exit code of `sys.exit(...)`; a text is printed, and is 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)
    return 1


def _leave(code: int) -> NoReturn:
    """End the process at once, without what the interpreter does at its end."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        os._exit(code)


def _call(name: str, arguments: list[object], module: types.ModuleType) -> None:
    """Call the function, or the method of `Solution`, and write its result as JSON."""
    holder = getattr(module, "Solution", None)
    if holder is None or not hasattr(holder, name):
        function = getattr(module, name)
    elif isinstance(holder, type):
        function = getattr(holder(), name)
    else:
        function = getattr(holder, name)
    value = function(*map(_with_integer_keys, arguments))
    data = memoryview(json.dumps(_plain(value)).encode())
    while data:
        num_written = os.write(3, data)
        data = data[num_written:]


def _with_integer_keys(value: object) -> object:
    """{"1": 2} as {1: 2}: JSON only has text keys, and the records mean integers."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdigit() for key in value):
        return {int(key): part for key, part in value.items()}
    return value


def _plain(value: object) -> object:
    """Builtin values only.

    Tuples become lists. Arrays and numbers of numpy become those of Python.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"the function returned {type(value).__name__}, which JSON cannot hold")
