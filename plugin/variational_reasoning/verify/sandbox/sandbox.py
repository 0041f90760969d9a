"""Where a program that a model wrote runs, isolated in tiers (stage 7).

    T3  new namespaces (files, network, processes, IPC) and all of T2
    T2  Landlock, seccomp, an unprivileged user, and all of T1
    T1  resource limits, its own session, a scrubbed environment
    T0  only the limit of wall time

A `Sandbox` is one process of `inside.fork_server`. It has loaded its modules and serves many
programs, one after another. `runner.Program` is a program in it, and each test is a fresh process.
No program ends the fork server. It is only started again when something has killed it.
"""

import json
import os
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .interpreter import find_interpreter
from .processes import descendants, kill_descendants, memory_mib, num_tasks

TIERS = {
    3: "namespaces, Landlock, seccomp, rlimits",
    2: "Landlock, seccomp, rlimits, unprivileged user",
    1: "rlimits, own session, scrubbed environment",
    0: "nothing but a wall limit",
}
FORK_SERVER = (
    # hooks of modules that run after each fork would take a fifth of a run
    "import os; os.register_at_fork = lambda **_: None; "
    "from variational_reasoning.verify.sandbox.inside import fork_server; fork_server.main()"
)

_FIRST_UID = 1_600_000_000
"""Programs of root's worker run as the user with this number plus the worker's pid.

Nobody else is this user.
"""

_REPLY_SECONDS = 60
_MIB = 2**20
_STACK_BYTES = 256 * _MIB


def wall_limit(cpu_seconds: float) -> float:
    """The wall seconds of a test that may use so much processor time.

    It may wait as long as it computes, plus one second.
    """
    return 2 * cpu_seconds + 1


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use."""

    cpu_seconds: float = 4.0
    wall_seconds: float = wall_limit(4.0)
    memory_mib: int = 1024
    output_mib: float = 8.0
    file_mib: int = 16
    num_files: int = 64
    num_processes: int = 32


class Outcome(NamedTuple):
    """How a run ended.

    code: exit code, or minus the signal. result: what the function returned, as JSON. stderr: the
    end of the errors. limit: `wall`, `output`, `memory` or `files` where the run was killed for it,
    else None.
    """

    code: int
    stdout: bytes
    result: bytes
    stderr: str
    limit: str | None
    wall_seconds: float
    cpu_seconds: float
    rss_mib: float


class End(NamedTuple):
    """How a process of the sandbox ended, as `inside.program` and `inside.fork_server` report it.

    code: exit code, or minus the signal. limit: why it was killed, or None. was_set_up: whether it
    had given up its powers. is_fresh: whether another run may follow in the same process.
    """

    code: int
    cpu_seconds: float
    rss_mib: float
    limit: str | None = None
    was_set_up: bool = True
    is_fresh: bool = False

    @classmethod
    def read(cls, message: bytes) -> "End":
        """From the words of a message: three of a program, six of a test.

        -9 0.350112 11.4                   killed after 0.35 s of processor time, with 11.4 MiB
        -9 0.350112 11.4 output 1 0        for its output; it was confined and has left a file
        """
        code, cpu_seconds, rss_mib, *more = message.decode().split()
        end = cls(int(code), float(cpu_seconds), float(rss_mib))
        if not more:
            return end
        limit, was_set_up, is_fresh = more
        return end._replace(
            limit=None if limit == "-" else limit,
            was_set_up=was_set_up == "1",
            is_fresh=is_fresh == "1",
        )


class SandboxError(RuntimeError):
    """The sandbox itself failed; this says nothing about the program."""


class Sandbox:
    """A place for programs at one tier; a context manager.

    Args:
        tier: one of TIERS.
        python: the interpreter that runs programs; None takes this one.
        preload: modules to load once, such as numpy.
        folder: where boxes are made below tier 3; None takes the machine's temporary folder. Other
            users must be able to enter it.

    Raises: SandboxError where this machine does not allow the tier. InterpreterError (a ValueError)
        for an interpreter that does not run.
    """

    def __init__(
        self,
        tier: int,
        python: str | None = None,
        preload: tuple[str, ...] = (),
        folder: str | None = None,
    ) -> None:
        self.tier = tier
        self.python = python or sys.executable
        self.preload = preload
        self.folder = folder
        self.num_restarts = -1
        self._is_closed = True
        # tier 3: there is a box, and the last program has left it as it was
        self.is_box_clean = False
        self.uid = _FIRST_UID + os.getpid() if os.getuid() == 0 else os.getuid()
        self.interpreter = find_interpreter(self.python)
        self._start()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and all processes in it."""
        if self._is_closed:
            return
        self._is_closed = True
        kill_descendants(self._process.pid)
        self._control.close()
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process that everything in the sandbox descends from."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether its process is alive."""
        return not self._is_closed and self._process.poll() is None

    def memory_mib(self) -> float:
        """Resident memory of the sandbox's own processes."""
        return memory_mib(self._own)

    def survivors(self) -> list[int]:
        """Living processes below the sandbox that are not its own."""
        return [pid for pid in descendants(self.pid) if pid not in self._own]

    def revive(self) -> None:
        """Start its process again if something has ended it.

        Raises: SandboxError where that fails.
        """
        if not self.is_running():
            self._start()

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Start a process that holds a program, with these descriptors. Only `runner` calls this.

        Raises: OSError when the sandbox has failed.
        """
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    def end_of_fork(self) -> End:
        """Kill the process that was started last, if it still runs, and say how it ended."""
        self._control.send(b'{"end": true}')
        message = self._control.recv(4096)
        if not message:
            raise SandboxError(f"tier {self.tier}: the sandbox ended")
        return End.read(message)

    def _start(self) -> None:
        self.num_restarts += 1
        self.is_box_clean = False
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                self._command(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                preexec_fn=_room_for_the_stack,
            )
        mine.settimeout(_REPLY_SECONDS)
        try:
            is_ready = mine.recv(4096) == b"ready"
        except OSError:
            is_ready = False
        assert process.stderr is not None
        with process.stderr:
            if not is_ready:
                mine.close()
                process.kill()
                errors = process.stderr.read().decode(errors="replace").strip().splitlines()
                process.wait()
                reason = errors[-1] if errors else "the sandbox did not start"
                raise SandboxError(f"tier {self.tier}: {reason}")
        self._is_closed = False
        self._control = mine
        self._process = process
        self._own = [process.pid, *descendants(process.pid)]

    def _command(self) -> list[str]:
        """The fork server's command. Its last word is JSON with the facts of the sandbox."""
        is_root = os.getuid() == 0
        interpreter = self.interpreter
        spec = {
            "tier": self.tier,
            "uid": self.uid,
            "gid": self.uid if is_root else os.getgid(),
            "read_only": interpreter.read_only,
            "sys_path": interpreter.sys_path,
            "closed": interpreter.closed if is_root and self.tier < 3 else [],
            "preload": [name for name in self.preload if name in interpreter.preloadable],
        }
        package_folder = str(Path(__file__).resolve().parents[3])
        path = [package_folder, *interpreter.sys_path]
        script = f"import sys; sys.path[:0] = {path!r}; {FORK_SERVER}"
        return [self.python, "-S", "-s", "-P", "-B", "-c", script, json.dumps(spec)]


_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "HOME": "/box",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""All of the environment that programs get."""


def resource_limits(limits: Limits, tier: int, uid: int) -> list[tuple[str, int, int]]:
    """(name, soft, hard) of the limits that the kernel enforces on a program."""
    if tier < 1:
        return []
    memory = limits.memory_mib * _MIB
    largest = max(limits.file_mib, int(limits.output_mib) + 1) * _MIB  # its outputs are files, too
    cpu = max(1, int(limits.cpu_seconds + 0.999))
    soft_stack, hard_stack = _stack_limits()
    is_alone = tier >= 3 or os.getuid() == 0  # no other process of this user counts
    processes = limits.num_processes + (4 if is_alone else num_tasks(uid))
    return [
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_CPU", cpu, cpu),  # a program cannot mask the signal of the hard limit
        ("RLIMIT_AS", memory, memory),
        ("RLIMIT_FSIZE", largest, largest),
        ("RLIMIT_NOFILE", limits.num_files, limits.num_files),
        ("RLIMIT_STACK", soft_stack, hard_stack),
        ("RLIMIT_MEMLOCK", 0, 0),
        ("RLIMIT_MSGQUEUE", 0, 0),
        ("RLIMIT_NPROC", processes, processes),
    ]


def _stack_limits() -> tuple[int, int]:
    """(soft, hard) in bytes: as much as programs get, or what this process itself may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard == resource.RLIM_INFINITY:
        return _STACK_BYTES, hard
    return min(_STACK_BYTES, hard), hard


def _room_for_the_stack() -> None:
    """Set the limit before a program starts, because the kernel then lays out memory by it."""
    resource.setrlimit(resource.RLIMIT_STACK, _stack_limits())
