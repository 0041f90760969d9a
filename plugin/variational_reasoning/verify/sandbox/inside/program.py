"""The process that holds one program, and is forked for each of its tests (stage 7).

    fork_server    forks this process
    this process   gives up its powers, compiles the program (which runs nothing), says "ready"
    runner         writes the input of a test into a file, and sends the wall limit
    this process   forks a child
    the child      gives up the power to start processes, and runs the program
    this process   waits for its end, and sends how it ended

`runner` shows all messages. It empties the files of output between tests. No test sees a folder
that another test has touched: this process reports it, and `runner` opens the program again.

Every page of memory that Python touches after a fork is copied, which takes most of the time of a
test. So what a test needs is made before the fork, and messages are plain text. Standard library
only.
"""

import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import time
import types
from collections.abc import Callable
from typing import NoReturn

from . import confine, entry

BOX = "/box"
"""Where a program's own folder is in tier 3."""

CHANNEL = 4
"""The descriptor of the socket, after 0 input, 1 output, 2 errors, 3 result.

The folders of the interpreter that `fork_server` holds open follow.
"""


def main(
    spec: dict, request: dict, descriptors: list[int], rules: confine.FileRules | None
) -> NoReturn:
    """Hold a program and serve its tests.

    Args:
        descriptors: the program's text, input, output, errors, result, and the socket to serve
            until that closes.
        rules: the files that a program may see; from tier 2 on.
    """
    try:
        _serve(spec, request, descriptors, rules)
        os._exit(0)
    finally:  # no code of the fork server may continue in this process
        os._exit(1)


def _serve(
    spec: dict, request: dict, descriptors: list[int], rules: confine.FileRules | None
) -> None:
    # Of the descriptors, say 7 to 12, the first is read here, and the others become 0 to 4: input,
    # output, errors, result, channel. All have higher numbers than these, so none is lost.
    with os.fdopen(descriptors[0], "rb") as stream:
        text = stream.read().decode(errors="surrogatepass")
    for number, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, number)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, CHANNEL)
    try:
        _give_up_powers(spec, request, rules)
    except OSError as error:
        channel.send(f"fault {type(error).__name__}: {error}"[:1000].encode())
        return
    # Close what else the fork server holds: its own socket, the files of Landlock's rules.
    os.closerange(CHANNEL + 1 + len(spec["closed"]), 4096)
    function = request["function"]
    program = _compile(text)
    module = entry.make_main(program, function)
    tests = _Tests(
        spec["tier"],
        CHANNEL + len(spec["closed"]),
        channel,
        lambda: entry.run(program, module, function),
    )
    channel.send(b"ready")
    while message := channel.recv(100):
        wall_seconds = float(message)
        end = tests.run(wall_seconds)
        channel.send(end.encode())


def _give_up_powers(spec: dict, request: dict, rules: confine.FileRules | None) -> None:
    """The order matters: each step needs powers that the later ones remove."""
    os.setsid()
    box = BOX if spec["tier"] >= 3 else request["box"]
    os.chdir(box)
    for name, soft, hard in request["limits"]:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if spec["tier"] >= 1 and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    confine.die_with_parent()  # again, since a change of user has cleared it
    # A file that is made in the folder changes its time, and a program cannot set that.
    os.utime(".", ns=(0, 0))
    if spec["tier"] >= 1:
        confine.no_new_privileges()
    if rules is not None:
        rules.restrict(box)
        confine.drop_capabilities()
        confine.allow_known_calls()


def _compile(text: str) -> types.CodeType | BaseException:
    """A program's code, or the error that it gives in place of running."""
    try:
        return compile(text, entry.FILE, "exec", dont_inherit=True)
    except BaseException as error:  # noqa: BLE001  any error means that it does not compile
        return error


class _Tests:
    """The tests of one program.

    Args:
        last: the highest descriptor that a test may hold.
        channel: the socket on which a test's end may be asked for.
        start: runs the program and ends the process.
    """

    def __init__(
        self, tier: int, last: int, channel: socket.socket, start: Callable[[], NoReturn]
    ) -> None:
        self._tier = tier
        self._last = last
        self._channel = channel
        self._start = start
        # One byte that is shared with the test, until the test closes it and runs the program.
        self._is_set_up = mmap.mmap(-1, 1)
        limit, _ = resource.getrlimit(resource.RLIMIT_CPU)
        self._old_age = float("inf")
        if limit != resource.RLIM_INFINITY:
            self._old_age = limit / 2

    def run(self, wall_seconds: float) -> str:
        """Fork a test, and wait for its end, its wall limit, or a message that asks to kill it.

        Returns: how it ended, in the words that `sandbox.End` reads.
        """
        # The last test may have moved, changed or locked the shared descriptors.
        for descriptor in range(CHANNEL):
            os.lseek(descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        self._is_set_up[0] = 0
        child = os.fork()
        if child == 0:
            try:
                self._become_test()
                self._start()
            except BaseException as error:  # noqa: BLE001  our code must not continue in the child
                os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode()[:500])
            os._exit(120)
        limit = self._wait(child, wall_seconds)
        _, status, usage = os.wait4(child, 0)
        end = end_message(status, usage)
        return f"{end} {limit or '-'} {self._is_set_up[0]} {self._is_fresh():d}"

    def _become_test(self) -> None:
        """Keep only the descriptors of the test, and give up the power to start processes."""
        os.closerange(CHANNEL, CHANNEL + 1)
        os.closerange(self._last + 1, 4096)
        if self._tier < 3:  # in tier 3 it ends with its namespace
            confine.die_with_parent()
        if self._tier >= 2:
            confine.forbid_processes()
        else:
            os.setsid()  # from tier 2 on it cannot send signals to others
        self._is_set_up[0] = 1
        self._is_set_up.close()

    def _wait(self, child: int, wall_seconds: float) -> str | None:
        """Why the child was killed, or None where it ended by itself. The caller reaps it."""
        handle = os.pidfd_open(child)
        try:
            sources: list[int] = [handle, self._channel.fileno()]
            ready, _, _ = select.select(sources, [], [], wall_seconds)
            if handle in ready:
                return None
            limit = "wall"
            if ready:
                limit = self._channel.recv(100).decode()
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return limit
        finally:
            os.close(handle)

    def _is_fresh(self) -> bool:
        """Whether another test may follow.

        The last one must not have touched the folder, not even with a file that it has removed.
        This process must be far from its own limit of processor time.
        """
        if self._tier < 2:
            return False  # a test may have left a process
        is_untouched = os.stat(".").st_mtime_ns == 0  # noqa: PTH116  pathlib is not loaded here
        return is_untouched and time.process_time() < self._old_age


def end_message(status: int, usage: resource.struct_rusage) -> str:
    """How a process ended: exit code, processor seconds and resident MiB, for `sandbox.End`."""
    seconds = usage.ru_utime + usage.ru_stime
    mib = usage.ru_maxrss / 1024
    return f"{os.waitstatus_to_exitcode(status)} {seconds:.6f} {mib:.1f}"
