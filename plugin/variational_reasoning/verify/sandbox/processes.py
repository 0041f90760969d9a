"""Processes and folders of a sandbox, seen from outside: descendants, tasks, removal (stage 7).

A program may change what it owns at any time. So it is not an error when a process or a file has
disappeared. Standard library only.
"""

import contextlib
import os
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import Any


def descendants(pid: int) -> list[int]:
    """Living descendants of a process, without zombies."""
    # (pid, state) of the children of each process. /proc/7/stat is `7 (name) S 3 ...`: the state
    # and the parent come after the name, which may itself hold parentheses.
    children: dict[int, list[tuple[int, str]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            _, _, after_name = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")
            state, parent = after_name.split()[:2]
            children.setdefault(int(parent), []).append((int(name), state.decode()))
    found = []
    waiting = [pid]
    while waiting:
        for child, child_state in children.get(waiting.pop(), ()):
            waiting.append(child)
            if child_state not in "ZX":  # zombies and the dead; their children may live
                found.append(child)
    return found


def num_tasks(uid: int) -> int:
    """Threads of a user's processes now."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:  # noqa: PTH116
                    count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count


def kill_descendants(pid: int) -> None:
    """Kill all descendants of a process, until none is left."""
    for _ in range(200):
        found = descendants(pid)
        if not found:
            return
        # Stopped first, so that none can fork while others are killed.
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, sign)
        time.sleep(0.005)


def memory_mib(pids: list[int]) -> float:
    """Resident memory of some processes together. Shared memory counts for each of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            _, resident, *_ = Path(f"/proc/{pid}/statm").read_text().split()
            total += int(resident)
    num_bytes = total * os.sysconf("SC_PAGE_SIZE")
    return num_bytes / 2**20


def remove_folder(folder: str) -> None:
    """Remove a box, even if its owner has changed its permissions. Links are not followed."""

    def open_up(function: Any, path: str, error: Any) -> None:
        parent = os.path.dirname(path)  # noqa: PTH120
        for place in (parent, path):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, 0o700)  # noqa: PTH101
        if function in (os.unlink, os.rmdir):
            function(path)
        else:
            shutil.rmtree(path)

    shutil.rmtree(folder, onerror=open_up)
