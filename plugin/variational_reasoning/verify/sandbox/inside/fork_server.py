"""The fork server: an interpreter in the sandbox that has loaded its modules (stage 7).

Programs are forked from it. `sandbox` starts it as `python -S -s -P -c ... SPEC`, with one end of a
socket as standard input. In tier 3 it is the first process of its own namespaces. The messages:

    start                                  "ready", once
    {"box": ..., "limits": ...,            forks a process for a program (`program`); with the
     "function": ...}                      message come its text, four files and a socket, which
                                           that process serves from then on
    {"end": true}                          kills that process, and says how it ended: "-9 0.01 9.8"

Neither this process nor what it forks ever holds an expected output. So a program can find none.
Standard library only.
"""

import gc
import importlib
import json
import os
import random
import signal
import site
import socket
import sys
import threading

from . import confine, entry, names, program, streams

MODULES = (*names.STARS, "threading", "time")
"""Loaded once, so that no program waits for them. `entry.LOADED_ONCE` has the rest. Every page of
memory makes each fork slower, so there are no more."""


def main() -> None:
    """Serve requests until the other end of the socket closes."""
    spec = json.loads(sys.argv[1])
    # Standard input is the socket. It moves, and 0 and 1 become /dev/null for libraries that print.
    control = socket.socket(fileno=os.dup(0))
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(quiet, 1)
    ways = _hold_open(spec["closed"])
    confine.die_with_parent()
    confine.adopt_orphans()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.stack_size(16 * 2**20)  # the default would be RLIMIT_STACK for each thread
    sys.set_int_max_str_digits(0)
    for name in [*MODULES, *spec["preload"]]:
        importlib.import_module(name)
    random.seed(0)  # the same numbers in every run, so that a verdict can be repeated
    site.setquit()
    streams.open_streams()
    if spec["tier"] >= 3:
        _enter_namespaces(spec)
    # Rules and filters are made while files can still be opened, and before every fork.
    rules = None
    if spec["tier"] >= 2:
        rules = confine.FileRules(spec["read_only"])
        confine.prepare_filters()
    # From here on programs find what their own interpreter has, and nothing of this package.
    for name in list(sys.modules):
        if name.startswith("variational_reasoning"):
            del sys.modules[name]
    sys.argv = [entry.FILE]
    sys.path = [_way_to(path, ways) for path in spec["sys_path"]]
    for module in list(sys.modules.values()):
        package_path = getattr(module, "__path__", None)
        if isinstance(package_path, list):
            package_path[:] = [_way_to(folder, ways) for folder in package_path]
    names.load()
    streams.open_by_path()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    control.send(b"ready")
    _serve(spec, control, rules)


def _hold_open(closed: list[str]) -> dict[str, str]:
    """Open folders of the interpreter that a program's own user cannot reach by name.

    An interpreter below /root has such folders. The descriptors are those that follow
    `program.CHANNEL`. They give no right to open files, and Landlock also applies to what is
    reached through them.

    Returns: for each folder the path by which a process with its descriptor reaches it.
    """
    ways = {}
    for number, folder in enumerate(closed, program.CHANNEL + 1):
        handle = os.open(folder, os.O_PATH)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        ways[folder] = f"/proc/self/fd/{number}"
    return ways


def _way_to(path: str, ways: dict[str, str]) -> str:
    """The path through a folder that is held open, if it is in one."""
    # With /root/env held open at 5, /root/env/lib/x is /proc/self/fd/5/lib/x.
    for folder, way in ways.items():
        if path == folder or path.startswith(folder + "/"):
            return way + path[len(folder) :]
    return path


def _enter_namespaces(spec: dict) -> None:
    """Continue as the first process of new namespaces, which only hold what programs may see."""
    uid, gid = os.getuid(), os.getgid()
    spaces = (
        confine.CLONE_NEWNS
        | confine.CLONE_NEWNET
        | confine.CLONE_NEWIPC
        | confine.CLONE_NEWUTS
        | confine.CLONE_NEWPID
    )
    if uid == 0:
        confine.unshare(spaces)
    else:  # other users may only do this inside a namespace of users
        confine.unshare(spaces | confine.CLONE_NEWUSER)
        confine.map_user(uid, gid)
    child = os.fork()  # only a child is inside the new namespace of processes
    if child:
        os.waitpid(child, 0)
        os._exit(1)
    confine.die_with_parent()
    confine.new_root(spec["read_only"], program.BOX)


def _serve(spec: dict, control: socket.socket, rules: confine.FileRules | None) -> None:
    """Answer messages until the other end of the socket closes."""
    child = 0
    has_box = False
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 6)
        if not message:
            return
        request = json.loads(message)
        if "end" in request:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            control.send(program.end_message(status, usage).encode())
            continue
        _reap()
        if spec["tier"] >= 3 and request["box_mib"] is not None:  # else the last box is clean
            if has_box:
                confine.unmount(program.BOX)
            confine.mount_box(program.BOX, request["box_mib"], spec["uid"], spec["gid"])
            has_box = True
        child = _fork_program(spec, request, descriptors, rules)


def _fork_program(
    spec: dict, request: dict, descriptors: list[int], rules: confine.FileRules | None
) -> int:
    """The pid of a process that holds the program.

    In tier 3 it is the first process of its own namespace of processes, inside this one.
    """
    if spec["tier"] >= 3:
        confine.unshare(confine.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        program.main(spec, request, descriptors, rules)
    if spec["tier"] >= 3:
        confine.return_to_own_processes()
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def _reap() -> None:
    """Collect the children and orphans that have ended. `sandbox` kills those that have not."""
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:  # those that are left still run
                return
    except ChildProcessError:  # none is left
        return
