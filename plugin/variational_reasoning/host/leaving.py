"""A rank ends only when the threads of gloo (collectives on CPUs) hold nothing of Python's.

The thread that ran a collective drops the collective's tensors after the call has returned, and to
drop a Python tensor it needs the interpreter's lock. If the main thread ends within milliseconds
of its last collective, the interpreter keeps the lock for good, and ends the waiting thread inside
a destructor. A rank whose work is done and saved then dies with "terminate called without an active
exception" (exit code -6):

    main thread     all_gather returns ... last line, atexit ... interpreter ends, keeps the lock
    gloo's thread         drops the tensors: waits for the lock ............................ abort

`destroy_process_group` joins these threads only if nothing else refers to the group. Any module
that is imported once the group exists may do so (`def all_gather(tensor, group=group.WORLD)`), and
several are.

So the last thing that such a process does is to sleep, which frees the lock, until gloo's threads
are idle. Only Linux tells; elsewhere nothing is waited for. NCCL has no such threads.
"""

import atexit
import time
from pathlib import Path

INTERVAL = 0.02
"""Seconds between two looks; more than the 5 ms after which a thread asks for the lock again."""

LONGEST_WAIT = 30.0
"""Seconds; a thread that is still busy then waits for a rank that will never come."""


def wait_for_gloo_at_exit() -> None:
    """Register `wait_for_gloo` to run before the interpreter ends; once, however often called."""
    atexit.unregister(wait_for_gloo)
    atexit.register(wait_for_gloo)


def wait_for_gloo() -> None:
    """Sleep until gloo's threads are idle; returns at once where there are none.

    An idle thread sleeps until the next collective, so between two looks it never gives up a
    processor. A thread that waits for the lock wakes every 5 ms, and one that waits for a
    processor is not asleep.
    """
    end = time.monotonic() + LONGEST_WAIT
    before = _gloo_threads()
    while before and time.monotonic() < end:
        time.sleep(INTERVAL)
        after = _gloo_threads()
        is_asleep = all(state == "S" for state, _ in after.values())
        if is_asleep and after == before:
            return
        before = after


def _gloo_threads() -> dict[str, tuple[str, str]]:
    """Thread id to (state, how often it has given up its processor), for each of gloo's threads."""
    threads = {}
    for folder in Path("/proc/self/task").glob("*"):
        try:
            lines = (folder / "status").read_text(encoding="utf-8").splitlines()
        except OSError:  # it has ended since
            continue
        status = dict(line.split(":\t", 1) for line in lines)
        if status["Name"] == "pt_gloo_runloop":
            threads[folder.name] = status["State"][0], status["voluntary_ctxt_switches"]
    return threads
