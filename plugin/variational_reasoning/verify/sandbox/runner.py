"""One program in a sandbox, run on many inputs, each run in a fresh process (stage 7)."""

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

# A process of `inside.program` holds the program; it is confined once and forked for every run.
# Here is a program that is run three times, with a wall limit of 9 s:
#
#     this process                                the process that holds the program
#
#     open: text, four files, a socket       -->  is forked from the fork server,
#                                                 gives up its powers, compiles
#     run 1: writes input 1; "9.000000"      -->
#                                            <--  "ready"
#                                                 forks a child, which runs the program
#                                            <--  "0 0.021 11.3 - 1 1"
#     exit code 0; the folder is as it was
#     run 2: writes input 2; "9.000000"      -->  forks a child, which writes 9 MiB
#     "output"                               -->  kills the child
#                                            <--  "-9 0.350 11.4 output 1 0"
#     killed for its output, and it has left a file in its folder: closes the socket
#
#     run 3: opens the program again, in another folder
#
# Input, output, errors and result are files in memory, which this process empties between runs.
# After a run that has touched its folder or left a process, the program is opened again. So no run
# finds what another one has left. `sandbox.End` reads the six words.

_LOOK_SECONDS = 0.1
"""How often a run is checked for the limits that the kernel does not enforce."""

_GRACE_SECONDS = 10
"""The sandbox has failed when a run still exists so long after its wall limit."""

_MAX_FILES = 1024
_STDERR_KEPT = 4096
_WRITE_BYTES = 1 << 24
"""How much is written into a memory file at a time."""


def run_once(sandbox: Sandbox, source: str, limits: Limits, stdin: bytes = b"") -> Outcome:
    """Run a script on one input.

    Raises: SandboxError when the sandbox failed.
    """
    with Program(sandbox, source, limits) as program:
        return program.run(stdin)


class Program:
    """A program. It is a context manager, and is opened when it is first run.

    Only one program of a sandbox may be open.

    Args:
        function: the name of the function that a run calls; None runs the program as a script.
    """

    def __init__(
        self, sandbox: Sandbox, source: str, limits: Limits, function: str | None = None
    ) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._function = function
        self._source = source.encode(errors="surrogatepass")
        self._holder: _Holder | None = None
        self._has_left_nothing = False

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether a process holds the program, so that the next run is quick."""
        return self._holder is not None

    def run(self, given: bytes | list[Any], wall_seconds: float | None = None) -> Outcome:
        """Run it once.

        Args:
            given: standard input, or the arguments of the function.
            wall_seconds: replaces the wall limit of the program.

        Raises: SandboxError when the sandbox failed. That ends it, and the next run starts a new
            one.
        """
        data = given if isinstance(given, bytes) else json.dumps(given).encode()
        seconds = self._limits.wall_seconds
        if wall_seconds is not None:
            seconds = wall_seconds
        started = time.monotonic()
        self._has_left_nothing = False
        try:
            if self._holder is None:
                self._holder = _Holder(self._sandbox, self._limits)
                self._holder.start(self._source, self._function, data, seconds)
            else:
                self._holder.ask(data, seconds)
            end = self._holder.wait(seconds)
            if not end.is_fresh:
                self._holder.end()  # before its files are read, so that nothing still writes there
        except (OSError, SandboxError) as error:
            self._sandbox.close()
            self.close()
            raise SandboxError(f"tier {self._sandbox.tier}: {error}") from error
        self._has_left_nothing = end.is_fresh
        took = time.monotonic() - started
        outcome = self._holder.outcome(end, took)
        if not end.is_fresh:
            self.close()
        return outcome

    def close(self) -> None:
        """End its process and forget its files."""
        self._sandbox.is_box_clean = self._has_left_nothing
        holder = self._holder
        self._holder = None  # also where closing fails
        if holder is not None:
            holder.close()


class _Holder:
    """The process that holds a program, with its files, and its folder (`box`) below tier 3."""

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._most = int(limits.output_mib * 2**20)
        """Bytes of output that are allowed, and kept."""
        self._files = _Files()
        self._channel: socket.socket | None = None
        self._box: str | None = None
        self._early_end: End | None = None

    def start(self, source: bytes, function: str | None, given: bytes, wall_seconds: float) -> None:
        """Start it and ask for its first run.

        Raises: SandboxError, or OSError, when it cannot be confined.
        """
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
            "function": function,
        }
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = channel
        channel.settimeout(wall_seconds)
        self.ask(given, wall_seconds)
        sandbox.is_box_clean = False  # until this program has run and left it so
        with contextlib.ExitStack() as given_away:
            given_away.callback(theirs.close)
            text = _memory_file("program")
            given_away.callback(os.close, text)
            _write(text, source)
            descriptors = [_reopened(text, os.O_RDONLY), *self._files.reopened()]
            for descriptor in descriptors:
                given_away.callback(os.close, descriptor)
            sandbox.fork(request, [*descriptors, theirs.fileno()])
        message = b""
        limit = None
        try:
            message = channel.recv(4096)
        except TimeoutError:
            limit = "wall"
        if not message:  # it ended, or used up the time, before it could be asked
            self._early_end = sandbox.end_of_fork()._replace(limit=limit)
        elif message != b"ready":
            raise SandboxError(message.decode(errors="replace").removeprefix("fault "))

    def ask(self, given: bytes, wall_seconds: float) -> None:
        """Ask for a run."""
        assert self._channel is not None
        self._files.refill(given)
        self._channel.send(b"%f" % wall_seconds)

    def wait(self, wall_seconds: float) -> End:
        """How the run has ended. It is killed when it passes a limit.

        Raises: SandboxError, or OSError, when the run was not confined, or its end is not reported.
        """
        end = self._early_end or self._read_end(wall_seconds)
        if not end.was_set_up:
            errors = self._files.errors().strip()[-300:]
            raise SandboxError(errors or "a run could not be confined")
        return end

    def _read_end(self, wall_seconds: float) -> End:
        """The end of a run as its process reports it. A limit that only we see is sent to it."""
        channel = self._channel
        assert channel is not None
        deadline = time.monotonic() + wall_seconds + _GRACE_SECONDS
        is_killed = False
        while True:
            readable, _, _ = select.select([channel], [], [], _LOOK_SECONDS)
            if readable:
                break
            if time.monotonic() > deadline:
                raise SandboxError("a run that was killed does not end")
            if is_killed:
                continue
            limit = self._passed_limit()
            if limit is not None:
                channel.send(limit.encode())
                is_killed = True
        message = channel.recv(4096)
        if not message:
            raise SandboxError("the program's process has ended")
        return End.read(message)

    def _passed_limit(self) -> str | None:
        """The limit that a run has passed, of those that the kernel does not enforce.

        They are the size of all output, below tier 3 the size of all files, and below tier 2 the
        memory of all processes.
        """
        if self._files.num_written() > self._most:
            return "output"
        if self._box is not None:
            most_in_files = 4 * self._limits.file_mib * 2**20
            if _holds_too_much(self._box, most_in_files):
                return "files"
        if self._sandbox.tier < 2:
            used = memory_mib(descendants(self._sandbox.pid))
            if used > self._limits.memory_mib:
                return "memory"
        return None

    def outcome(self, end: End, seconds: float) -> Outcome:
        """The end of a run, with what it has written into the files."""
        limit = end.limit
        if limit is None and self._files.num_written() > self._most:
            limit = "output"
        return Outcome(
            code=end.code,
            stdout=self._files.output(self._most),
            result=self._files.result(self._most),
            stderr=self._files.errors(),
            limit=limit,
            wall_seconds=seconds,
            cpu_seconds=end.cpu_seconds,
            rss_mib=end.rss_mib,
        )

    def end(self) -> None:
        """End the process. In tier 3 this also ends what it has started, with its namespace."""
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        if self._sandbox.tier < 3 and self._sandbox.is_running():
            kill_descendants(self._sandbox.pid)

    def close(self) -> None:
        """End the process, and remove its files and its folder."""
        self.end()
        self._files.close()
        if self._box is not None:
            remove_folder(self._box)
            self._box = None


class _Files:
    """The four files of a program, in memory: input, output, errors, result.

    Both processes have them open, each with its own position.
    """

    def __init__(self) -> None:
        self._all = [_memory_file("run") for _ in range(4)]
        self._input, self._output, self._errors, self._result = self._all

    def reopened(self) -> list[int]:
        """Descriptors for the program, which reads the first and writes to the others."""
        written = (self._output, self._errors, self._result)
        descriptors = [_reopened(self._input, os.O_RDONLY)]
        descriptors += [_reopened(file, os.O_WRONLY) for file in written]
        return descriptors

    def refill(self, given: bytes) -> None:
        """Empty them all, then write the input."""
        for file in self._all:
            os.ftruncate(file, 0)
        _write(self._input, given)

    def num_written(self) -> int:
        """Bytes that the program has written."""
        written = (self._output, self._errors, self._result)
        return sum(os.fstat(file).st_size for file in written)

    def output(self, most: int) -> bytes:
        return os.pread(self._output, most, 0)

    def result(self, most: int) -> bytes:
        return os.pread(self._result, most, 0)

    def errors(self) -> str:
        """The end of the errors."""
        size = os.fstat(self._errors).st_size
        start = max(0, size - _STDERR_KEPT)
        data = os.pread(self._errors, _STDERR_KEPT, start)
        return data.decode(errors="replace")

    def close(self) -> None:
        for file in self._all:
            os.close(file)
        self._all = []


def _holds_too_much(box: str, most: int) -> bool:
    """Whether a folder holds more files than _MAX_FILES, or more than `most` bytes."""
    num_files = 0
    num_bytes = 0
    for folder, _, names in os.walk(box):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            num_files += 1
            with contextlib.suppress(OSError):  # it has just been removed
                num_bytes += os.lstat(path).st_size
            if num_files > _MAX_FILES or num_bytes > most:
                return True
    return False


def _memory_file(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


def _reopened(file: int, flags: int) -> int:
    """Another descriptor of a memory file, with its own position and rights."""
    return os.open(f"/proc/self/fd/{file}", flags | os.O_CLOEXEC)


def _write(file: int, data: bytes) -> None:
    """Write all of it; a single call may write less."""
    position = 0
    while position < len(data):
        piece = data[position : position + _WRITE_BYTES]
        position += os.pwrite(file, piece, position)
