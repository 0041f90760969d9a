"""How a program starts and ends: as a script, or as a call of one of its functions (stage 7).

This runs in the child that `program` has forked for one test, after it has given up its powers, and imitates what the
interpreter does around a script. Descriptors: 0 input (the arguments as JSON, for a function), 1 output, 2 errors, 3 the
function's result. The surprising thing: nothing here judges. Whatever a program does to this module, only what it writes
and its exit code leave the process. Standard library only.
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

FILE = "program.py"
"""What tracebacks call the program."""

COMPILE_EXIT = 121
"""Exit code of a program that does not compile."""

PRELUDE = (
    "import bisect, collections, copy, functools, heapq, itertools, json, math, operator, random, re, string, sys, time\n"
    "from bisect import bisect_left, bisect_right, insort\n"
    "from collections import ChainMap, Counter, OrderedDict, defaultdict, deque\n"
    "from functools import cache, cmp_to_key, lru_cache, reduce\n"
    "from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest\n"
    "from itertools import accumulate, chain, combinations, permutations, product\n"
    "from math import ceil, comb, cos, exp, factorial, floor, gcd, inf, log, log2, sin, sqrt, tan\n"
    "from typing import *\n"
)
"""Names that function records take for granted, as the sites that they come from provide them."""

GRANTED = {"array", "cmath", "datetime", "fractions", "statistics"}
"""Modules that function records take for granted, too, but seldom use."""

RARER = GRANTED | {"contextlib", "dataclasses", "decimal", "enum", "numbers", "queue"}
"""Modules that are loaded once for all tests of a program that names them."""

_prelude: dict[str, object] = {}


def load_prelude() -> None:
    """Make the names of PRELUDE once, for all programs."""
    exec(PRELUDE, _prelude)


def open_streams() -> None:
    """The standard streams, as a script has them when they are no terminal; once, for all programs."""
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def make_main(program: types.CodeType | BaseException, function: str | None) -> types.ModuleType:
    """The main module of one program: empty for a script; the names that a function takes for granted."""
    module = types.ModuleType("__main__")
    module.__file__ = FILE
    named = RARER & _names_in(program)
    modules = {name: importlib.import_module(name) for name in named}
    if function is not None:
        module.__dict__.update(_prelude)
        module.__dict__.update({name: modules[name] for name in named & GRANTED})
    sys.modules["__main__"] = module
    return module


def _names_in(program: types.CodeType | BaseException) -> set[str]:
    """All names of modules, variables and attributes in a program's code."""
    names, left = set(), [program]
    while left:
        code = left.pop()
        if isinstance(code, types.CodeType):
            names.update(code.co_names)
            left += code.co_consts
    return names


def run(
    program: types.CodeType | BaseException, module: types.ModuleType, function: str | None
) -> NoReturn:
    """Run the program as a script, or call its function; ends the process. A program that is an exception does not
    compile."""
    if isinstance(program, BaseException):
        sys.excepthook(type(program), program, program.__traceback__)
        _leave(COMPILE_EXIT)
    arguments = None
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
        if _thread._count():  # else there is nothing to wait for
            threading._shutdown()
        atexit._run_exitfuncs()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        code = code or 1
    _leave(code & 0xFF)


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _leave(code: int) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        os._exit(code)


def _call(name: str, arguments: list[object], module: types.ModuleType) -> None:
    holder = getattr(module, "Solution", None)
    if holder is not None and hasattr(holder, name):
        function = getattr(holder() if isinstance(holder, type) else holder, name)
    else:
        function = getattr(module, name)
    value = function(*[_with_integer_keys(argument) for argument in arguments])
    data = memoryview(json.dumps(_plain(value)).encode())
    while data:
        data = data[os.write(3, data) :]


def _with_integer_keys(value: object) -> object:
    """JSON has only text keys; the records mean integers where all keys are."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdigit() for key in value):
        return {int(key): part for key, part in value.items()}
    return value


def _plain(value: object) -> object:
    """Builtin values only; tuples become lists, and arrays and numbers of numpy become those of Python."""
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
