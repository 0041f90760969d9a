"""One program in a sandbox, run on many inputs, each run in a fresh process (stage 7).

A `Program` is one process of `inside.program`, confined once and forked for every run. Input, output, errors and result are memory
files: this process empties them between runs, and a run sees only its own. The surprising thing: the program is opened
anew, with another folder, after every run that has touched its folder or left a process, so that no run meets what another
has left.
"""

import contextlib
import json
import os
import select
import socket
import tempfile
import time
from typing import Any

from .processes import descendants, kill_descendants, memory_mib, remove_folder
from .sandbox import End, Limits, Outcome, Sandbox, SandboxError, resource_limits

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 10
_MAX_FILES = 1024
_STDERR_KEPT = 4096


def run_once(sandbox: Sandbox, source: str, limits: Limits, stdin: bytes = b"") -> Outcome:
    """Run a script on one input.

    Raises: SandboxError when the sandbox failed.
    """
    with Program(sandbox, source, limits) as program:
        return program.run(stdin)


class Program:
    """A program, opened when it is first run; a context manager. Only one of a sandbox may be open.

    Args:
        function: the name of the function that a run calls; None runs the program as a script.
    """

    def __init__(
        self, sandbox: Sandbox, source: str, limits: Limits, function: str | None = None
    ) -> None:
        self._sandbox, self._limits, self._function = sandbox, limits, function
        self._source = source.encode(errors="surrogatepass")
        self._most = int(limits.output_mib * 2**20)
        self._channel: socket.socket | None = None
        self._files: list[int] = []
        self._box: str | None = None
        self._has_left_nothing = False

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, given: bytes | list[Any], wall_seconds: float | None = None) -> Outcome:
        """Run it once.

        Args:
            given: standard input, or the arguments of the function.
            wall_seconds: instead of the wall limit that it was made with.

        Raises: SandboxError when the sandbox failed, which ends it; the next run starts a new one.
        """
        data = given if isinstance(given, bytes) else json.dumps(given).encode()
        wall_seconds = self._limits.wall_seconds if wall_seconds is None else wall_seconds
        started = time.monotonic()
        self._has_left_nothing = False
        try:
            if self._channel is None:
                end = self._open(data, wall_seconds) or self._wait(wall_seconds)
            else:
                self._ask(data, wall_seconds)
                end = self._wait(wall_seconds)
            if not end.was_set_up:
                raise SandboxError(
                    f"{self._errors().strip()[-300:] or 'a run could not be confined'}"
                )
            self._has_left_nothing = end.is_fresh
            if not end.is_fresh:
                self._end()
        except (OSError, SandboxError) as error:
            self._sandbox.close()
            self.close()
            raise SandboxError(f"tier {self._sandbox.tier}: {error}") from error
        limit = "output" if end.limit is None and self._num_written() > self._most else end.limit
        output, result = (
            os.pread(file, self._most, 0) for file in (self._files[1], self._files[3])
        )
        seconds = time.monotonic() - started
        outcome = Outcome(
            end.code, output, result, self._errors(), limit, seconds, end.cpu_seconds, end.rss_mib
        )
        if not end.is_fresh:
            self.close()
        return outcome

    def close(self) -> None:
        """End its process and forget its files."""
        self._sandbox.is_box_clean = self._has_left_nothing
        self._end()
        for file in self._files:
            os.close(file)
        self._files = []
        if self._box is not None:
            remove_folder(self._box)
            self._box = None

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            if self._sandbox.tier < 3 and self._sandbox.is_running():
                kill_descendants(self._sandbox.pid)

    def _open(self, given: bytes, wall_seconds: float) -> End | None:
        """Start its process and ask for its first run; returns how the process ended where it ends, or uses up the time, before
        that."""
        sandbox = self._sandbox
        sandbox.revive()
        if sandbox.tier < 3:
            self._box = tempfile.mkdtemp(prefix="vr-box-", dir=sandbox.folder)
            if os.getuid() == 0:
                os.chown(self._box, sandbox.uid, sandbox.uid)
        request = {
            "box": self._box,
            "box_mib": None if sandbox.is_box_clean else self._limits.file_mib,
            "limits": resource_limits(self._limits, sandbox.tier, sandbox.uid),
            "function": self._function,
        }
        self._files = [os.memfd_create("run", os.MFD_CLOEXEC) for _ in range(4)]
        text = os.memfd_create("program", os.MFD_CLOEXEC)
        _write(text, self._source)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = mine
        mine.settimeout(wall_seconds)
        self._ask(given, wall_seconds)
        ends = [_reopened(text, os.O_RDONLY), _reopened(self._files[0], os.O_RDONLY)]
        ends += [*(_reopened(file, os.O_WRONLY) for file in self._files[1:]), theirs.detach()]
        sandbox.is_box_clean = False  # until this program has run and left it so
        try:
            sandbox.fork(request, ends)
        finally:
            for descriptor in (text, *ends):
                os.close(descriptor)
        limit = None
        try:
            message = mine.recv(4096)
        except TimeoutError:
            message, limit = b"", "wall"
        if not message:
            return sandbox.end_of_fork()._replace(limit=limit)
        if message != b"ready":
            raise SandboxError(message.decode(errors="replace").removeprefix("fault "))
        return None

    def _ask(self, given: bytes, wall_seconds: float) -> None:
        for file in self._files:
            os.ftruncate(file, 0)
        _write(self._files[0], given)
        self._channel.send(b"%f" % wall_seconds)

    def _wait(self, wall_seconds: float) -> End:
        """How the run that was asked for has ended; it is killed when it passes a limit."""
        deadline = time.monotonic() + wall_seconds + _GRACE_SECONDS
        is_killed = False
        while not select.select([self._channel], [], [], _LOOK_SECONDS)[0]:
            if time.monotonic() > deadline:
                raise SandboxError("a run that was killed does not end")
            limit = None if is_killed else self._exceeded()
            if limit is not None:
                self._channel.send(limit.encode())
                is_killed = True
        message = self._channel.recv(4096)
        if not message:
            raise SandboxError("the program's process has ended")
        return End.read(message)

    def _num_written(self) -> int:
        return sum(os.fstat(file).st_size for file in self._files[1:])

    def _errors(self) -> str:
        size = os.fstat(self._files[2]).st_size
        return os.pread(self._files[2], _STDERR_KEPT, max(0, size - _STDERR_KEPT)).decode(
            errors="replace"
        )

    def _exceeded(self) -> str | None:
        """The limit that a run has passed and that no kernel limit holds: all of its output, below tier 3 all of its files,
        and below tier 2 the memory of all of its processes."""
        if self._num_written() > self._most:
            return "output"
        if self._box is not None and _holds_too_much(self._box, 4 * self._limits.file_mib * 2**20):
            return "files"
        if (
            self._sandbox.tier < 2
            and memory_mib(descendants(self._sandbox.pid)) > self._limits.memory_mib
        ):
            return "memory"
        return None


def _holds_too_much(box: str, most: int) -> bool:
    num_files = num_bytes = 0
    for folder, _, names in os.walk(box):
        for name in names:
            num_files += 1
            with contextlib.suppress(OSError):
                num_bytes += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
            if num_files > _MAX_FILES or num_bytes > most:
                return True
    return False


def _reopened(file: int, flags: int) -> int:
    """Another descriptor of a memory file, with a position and rights of its own."""
    return os.open(f"/proc/self/fd/{file}", flags | os.O_CLOEXEC)


def _write(file: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        position += os.pwrite(file, data[position : position + (1 << 24)], position)
