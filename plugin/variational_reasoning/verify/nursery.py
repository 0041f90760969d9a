"""The process that programs under test are forked from: a warm interpreter inside the sandbox (stage 7).

`sandbox` starts it as `python -S -s -P -c ... SPEC` with its end of a socket as standard input. Each request brings file
descriptors; the child that is forked for it reads the program and one test's input from them, gives up its powers in
the order below, and runs the program. The surprising thing: neither this process nor its children ever hold an expected
output, so that nothing in reach of a program is worth reading. Standard library only.
"""

import array
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import types

from . import confine

BOX = "/box"
"""Where a program's own folder is in tier 3."""

COMPILE_EXIT = 121
"""Exit code of a program that does not compile."""

MODULES = (
    "array", "ast", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "io", "itertools", "json", "linecache",
    "math", "numbers", "operator", "pprint", "queue", "random", "re", "statistics", "string", "textwrap",
    "threading", "time", "traceback", "typing",
)  # fmt: skip
"""Loaded once, so that no program waits for them."""

PRELUDE = (
    "import array, bisect, cmath, collections, copy, datetime, fractions, functools, heapq, itertools, json, math, operator, "
    "random, re, statistics, string, sys, time\n"
    "from bisect import bisect_left, bisect_right, insort\n"
    "from collections import ChainMap, Counter, OrderedDict, defaultdict, deque\n"
    "from functools import cache, cmp_to_key, lru_cache, reduce\n"
    "from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest\n"
    "from itertools import accumulate, chain, combinations, permutations, product\n"
    "from math import ceil, comb, cos, exp, factorial, floor, gcd, inf, log, log2, sin, sqrt, tan\n"
    "from typing import *\n"
)
"""Names that function records take for granted, as the sites that they come from provide them."""


def main() -> None:
    """Serve requests until the other end of the socket closes."""
    spec = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(quiet, 1)
    confine.die_with_parent()
    confine.adopt_orphans()
    threading.stack_size(16 * 2**20)  # the default would be RLIMIT_STACK for each thread
    sys.set_int_max_str_digits(0)
    for name in [*MODULES, *spec["preload"]]:
        __import__(name)
    import site

    site.setquit()
    if spec["tier"] >= 3:
        uid, gid = os.getuid(), os.getgid()
        spaces = confine.CLONE_NEWNS | confine.CLONE_NEWNET | confine.CLONE_NEWIPC | confine.CLONE_NEWUTS
        confine.unshare(spaces | (0 if uid == 0 else confine.CLONE_NEWUSER))
        if uid != 0:
            confine.map_user(uid, gid)
        confine.new_root(spec["read_only"], BOX)
        confine.prepare_seccomp(1)  # a program is the first process of its namespace
    for name in [name for name in sys.modules if name.startswith("variational_reasoning")]:
        del sys.modules[name]
    sys.argv = ["program.py"]
    sys.path = [path for path in spec["sys_path"] if path]
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    control.send(b'{"ready": true}')
    while True:
        message, descriptors = _receive(control)
        if not message:
            return
        if spec["tier"] >= 3:
            middle = os.fork()
            if middle == 0:
                _serve(spec, control, json.loads(message), descriptors)
                os._exit(0)
            _close(descriptors)  # not waited for: it has reported before it ends, and its namespaces take time to go
        else:
            _serve(spec, control, json.loads(message), descriptors)
            _close(descriptors)
        _reap()


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    message, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(8 * 4))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    return message, list(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _reap() -> None:
    """Forget the orphans that have ended; `sandbox` kills those that have not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _serve(spec: dict, control: socket.socket, request: dict, descriptors: list[int]) -> None:
    """Fork the program, report its pid, wait for its end, report that."""
    if spec["tier"] >= 3:
        confine.die_with_parent()
        confine.unshare(confine.CLONE_NEWPID | confine.CLONE_NEWNS)
        confine.mount_box(BOX, request["box_mib"], spec["uid"], spec["gid"])
    is_set_up, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become_program(spec, request, descriptors, tell)
        except BaseException as error:  # noqa: BLE001  nothing of this process's own code may run on in the child
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode()[:500])
        os._exit(120)
    os.close(tell)
    handle = os.pidfd_open(child)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", handle))]
    control.sendmsg([json.dumps({"pid": child}).encode()], rights)
    os.close(handle)
    _, status, usage = os.wait4(child, 0)
    was_set_up = os.read(is_set_up, 1) == b"1"
    os.close(is_set_up)
    end = {
        "code": os.waitstatus_to_exitcode(status),
        "was_set_up": was_set_up,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "rss_mib": usage.ru_maxrss / 1024,
    }
    control.send(json.dumps(end).encode())


def _become_program(spec: dict, request: dict, descriptors: list[int], tell: int) -> None:
    """Give up everything, then run the program. Never returns."""
    os.setsid()
    box = BOX if spec["tier"] >= 3 else request["box"]
    with os.fdopen(os.dup(descriptors[3]), "rb") as stream:
        job = json.loads(stream.read())
    for number, descriptor in enumerate((*descriptors[:3], descriptors[4], tell)):
        descriptors[number] = os.dup2(os.dup(descriptor) if descriptor < 5 else descriptor, 100 + number)
    for number in range(5):
        os.dup2(100 + number, number)  # 0 input, 1 output, 2 errors, 3 result, 4 tell
    os.closerange(5, 4096)
    os.chdir(box)
    limits = request["limits"]
    for name, soft, hard in limits:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if spec["tier"] >= 1 and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    confine.die_with_parent()
    if spec["tier"] >= 1:
        confine.no_new_privileges()
    if spec["tier"] >= 2:
        confine.landlock(spec["read_only"], box)
        confine.drop_capabilities()
        confine.seccomp()
    os.write(4, b"1")
    os.close(4)
    _run(job)


def _run(job: dict) -> None:
    """Run the program as a script, or call its function; ends the process."""
    if job["function"] is None:
        os.close(3)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = types.ModuleType("__main__")
    module.__file__ = "program.py"
    sys.modules["__main__"] = module
    code = 0
    try:
        program = compile(job["source"], "program.py", "exec", dont_inherit=True)
    except BaseException:  # noqa: BLE001  whatever the compiler says, this program does not compile
        sys.excepthook(*sys.exc_info())
        _leave(COMPILE_EXIT)
    try:
        if job["function"] is None:
            exec(program, module.__dict__)
        else:
            exec(PRELUDE, module.__dict__)
            exec(program, module.__dict__)
            _call(job, module)
    except SystemExit as error:
        code = error.code
        if code is None:
            code = 0
        elif not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001  as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        threading._shutdown()
        import atexit

        atexit._run_exitfuncs()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        code = code or 1
    _leave(code & 0xFF)


def _leave(code: int) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        os._exit(code)


def _call(job: dict, module: types.ModuleType) -> None:
    name = job["function"]
    holder = getattr(module, "Solution", None)
    if holder is not None and hasattr(holder, name):
        function = getattr(holder() if isinstance(holder, type) else holder, name)
    else:
        function = getattr(module, name)
    value = function(*[_with_integer_keys(argument) for argument in job["arguments"]])
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
