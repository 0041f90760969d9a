"""Where a program that a model wrote runs: one fresh process for each run, isolated in tiers (stage 7).

    T3  new namespaces (files, network, processes, IPC) and all of T2
    T2  Landlock, seccomp, an unprivileged user, and all of T1
    T1  resource limits, a session of its own, a scrubbed environment
    T0  nothing but the limit of wall time

`probe` finds the highest tier by running a program that tries what it must not do. The surprising thing: a sandbox
counts only when that program has failed at everything; a kernel that accepts the calls and enforces nothing is no T2.
"""

import contextlib
import json
import os
import resource
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

TIERS = {
    3: "namespaces, Landlock, seccomp, rlimits",
    2: "Landlock, seccomp, rlimits, unprivileged user",
    1: "rlimits, own session, scrubbed environment",
    0: "nothing but a wall limit",
}
MINIMUM_TIER = 2
NURSERY = "from variational_reasoning.verify import nursery; nursery.main()"
SETTING = "allow_unsandboxed_code"
"""The setting that accepts a tier below the minimum."""

_FIRST_UID = 1_600_000_000
"""Programs of a root user's worker run under this number plus the worker's pid: a user that nobody else is."""

_STDERR_KEPT = 4096


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use."""

    cpu_seconds: float = 4.0
    wall_seconds: float = 9.0
    memory_mib: int = 1024
    output_mib: float = 8.0
    file_mib: int = 16
    num_files: int = 64
    num_processes: int = 32


class Outcome(NamedTuple):
    """How a run ended: exit code (minus the signal), output, the function's result as bytes, the last of the errors.

    limit is `wall`, `output`, `memory` or `files` where the run was killed for it, else None.
    """

    code: int
    stdout: bytes
    result: bytes
    stderr: str
    limit: str | None
    wall_seconds: float
    cpu_seconds: float
    rss_mib: float


class SandboxError(RuntimeError):
    """The sandbox itself failed; this says nothing about the program."""


class Sandbox:
    """Runs programs at one tier, one at a time; a context manager.

    Args:
        tier: one of TIERS.
        python: the interpreter that runs programs; None takes this one.
        preload: modules to load once, such as numpy.
        folder: where boxes are made below tier 3; None takes the machine's temporary folder. Others must be able to
            enter it.

    Raises: SandboxError where this machine does not allow the tier.
    """

    def __init__(self, tier: int, python: str | None = None, preload: tuple[str, ...] = (), folder: str | None = None) -> None:
        self.tier, self.python, self.preload, self.folder = tier, python or sys.executable, preload, folder
        self.num_restarts = -1
        self._process: subprocess.Popen | None = None
        self._paths = interpreter_paths(self.python)
        self._start()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and whatever is left in it."""
        process, self._process = self._process, None
        if process is not None:
            self._kill_descendants(process.pid)
            self._control.close()
            process.kill()
            process.wait()

    def memory_mib(self) -> float:
        """Resident memory of the sandbox's own process."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def run(
        self,
        source: str,
        limits: Limits,
        stdin: bytes = b"",
        function: str | None = None,
        arguments: list[Any] | None = None,
    ) -> Outcome:
        """Run `source` as a script on `stdin`, or call its `function` with `arguments`.

        Raises: SandboxError when the sandbox failed, which ends it; the next run starts a new one.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        job = json.dumps({"source": source, "function": function, "arguments": arguments}).encode()
        box = tempfile.mkdtemp(prefix="vr-box-", dir=self.folder) if self.tier < 3 else None
        mine: list[int] = []
        try:
            if box and os.getuid() == 0:
                os.chown(box, self._uid, self._uid)
            theirs = [_read_only_memory(stdin), 0, 0, _read_only_memory(job), 0]
            for place in (1, 2, 4):
                end, theirs[place] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                os.set_blocking(theirs[place], True)
                mine.append(end)
            request = {"box": box, "box_mib": limits.file_mib, "limits": self._resource_limits(limits)}
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], theirs)
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            return self._watch(limits, mine, box)
        except (OSError, SandboxError) as error:
            self.close()
            if isinstance(error, SandboxError):
                raise
            raise SandboxError(f"tier {self.tier}: {error}") from error
        finally:
            for descriptor in mine:
                os.close(descriptor)
            if box:
                _remove(box)

    def _start(self) -> None:
        self.num_restarts += 1
        self._uid = _FIRST_UID + os.getpid() if os.getuid() == 0 else os.getuid()
        is_root = os.getuid() == 0
        spec = {
            "tier": self.tier,
            "uid": self._uid,
            "gid": self._uid if is_root else os.getgid(),
            "read_only": self._paths["read_only"],
            "sys_path": self._paths["sys_path"],
            "preload": [name for name in self.preload if name in self._paths["installed"]],
        }
        here = str(Path(__file__).resolve().parents[2])
        script = f"import sys; sys.path[:0] = [{here!r}] + {self._paths['sys_path']!r}; {NURSERY}"
        command = [self.python, "-S", "-s", "-P", "-B", "-c", script, json.dumps(spec)]
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "HOME": "/box",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
                preexec_fn=_room_for_the_stack,
            )
        self._control = mine
        mine.settimeout(60)
        try:
            is_ready = mine.recv(4096) == b'{"ready": true}'
        except OSError:
            is_ready = False
        if not is_ready:
            mine.close()
            process.kill()
            errors = process.stderr.read().decode(errors="replace").strip().splitlines()
            process.stderr.close()
            process.wait()
            raise SandboxError(f"tier {self.tier}: {errors[-1] if errors else 'the sandbox did not start'}")
        process.stderr.close()
        self._process = process

    def _resource_limits(self, limits: Limits) -> list[tuple[str, int, int]]:
        if self.tier < 1:
            return []
        mib = 2**20
        cpu = max(1, int(limits.cpu_seconds + 0.999))
        _, stack = resource.getrlimit(resource.RLIMIT_STACK)
        found = [
            ("RLIMIT_CORE", 0, 0),
            ("RLIMIT_CPU", cpu, cpu),  # beyond the hard limit it is killed, whatever signals it masks
            ("RLIMIT_AS", limits.memory_mib * mib, limits.memory_mib * mib),
            ("RLIMIT_FSIZE", limits.file_mib * mib, limits.file_mib * mib),
            ("RLIMIT_NOFILE", limits.num_files, limits.num_files),
            ("RLIMIT_STACK", 256 * mib if stack == resource.RLIM_INFINITY else min(stack, 256 * mib), stack),
            ("RLIMIT_MEMLOCK", 0, 0),
            ("RLIMIT_MSGQUEUE", 0, 0),
        ]
        own = self.tier >= 3 or os.getuid() == 0
        processes = limits.num_processes + (4 if own else _num_tasks(self._uid))
        return [*found, ("RLIMIT_NPROC", processes, processes)]

    def _watch(self, limits: Limits, pipes: list[int], box: str | None) -> Outcome:
        """Read what the run writes until it has ended, within the limits."""
        started = time.monotonic()
        deadline = started + limits.wall_seconds
        most = int(limits.output_mib * 2**20)
        kept = {pipe: bytearray() for pipe in pipes}
        num_read, limit, end, handle, pid = 0, None, None, None, None
        check_at = started + 0.1
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe, selectors.EVENT_READ)
            selector.register(self._control, selectors.EVENT_READ)
            try:
                while end is None or (self.tier >= 2 and len(selector.get_map()) > 1):
                    now = time.monotonic()
                    if now >= deadline:
                        if limit is not None or end is not None or handle is None:
                            raise SandboxError(f"tier {self.tier}: a killed run did not end")
                        limit, deadline = "wall", now + 10
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    until = deadline if self.tier >= 2 and box is None else min(deadline, check_at)
                    for key, _ in selector.select(max(0.0, until - now)):
                        if key.fileobj is self._control:
                            message, descriptors, _, _ = socket.recv_fds(self._control, 65536, 4)
                            if not message:
                                raise SandboxError(f"tier {self.tier}: the sandbox ended")
                            report = json.loads(message)
                            if "pid" in report:
                                (handle,), pid = descriptors, report["pid"]
                            else:
                                end = report
                                selector.unregister(self._control)
                                if self.tier < 2:
                                    self._kill_descendants(self._process.pid)
                                deadline = time.monotonic() + 10
                            continue
                        data = os.read(key.fd, 1 << 16)
                        if not data:
                            selector.unregister(key.fd)
                            continue
                        num_read += len(data)
                        if num_read <= most:
                            kept[key.fd] += data
                            if key.fd == pipes[1] and len(kept[key.fd]) > 2 * _STDERR_KEPT:
                                del kept[key.fd][:-_STDERR_KEPT]
                        elif limit is None and handle is not None and end is None:
                            limit, deadline = "output", time.monotonic() + 10
                            signal.pidfd_send_signal(handle, signal.SIGKILL)
                    if box is not None and limit is None and end is None and handle is not None:
                        now = time.monotonic()
                        if now >= check_at:
                            check_at = now + 0.1
                            limit = self._over_limit(limits, box, pid)
                            if limit is not None:
                                deadline = now + 10
                                signal.pidfd_send_signal(handle, signal.SIGKILL)
                if self.tier < 2:
                    self._drain(pipes, kept, most)
            finally:
                if handle is not None:
                    os.close(handle)
                if self.tier < 3 and self._process is not None:
                    self._kill_descendants(self._process.pid)
        errors = kept[pipes[1]][-_STDERR_KEPT:].decode(errors="replace")
        if not end["was_set_up"] and limit is None:
            raise SandboxError(f"tier {self.tier}: {errors.strip()[-300:] or 'the process could not be confined'}")
        if limit is None and num_read > most:
            limit = "output"
        wall = time.monotonic() - started
        return Outcome(
            end["code"],
            bytes(kept[pipes[0]]),
            bytes(kept[pipes[2]]),
            errors,
            limit,
            wall,
            end["cpu_seconds"],
            end["rss_mib"],
        )

    def _drain(self, pipes: list[int], kept: dict[int, bytearray], most: int) -> None:
        """What is still in the pipes. A survivor may hold them open, so the end of file is not waited for."""
        for pipe in pipes:
            with contextlib.suppress(BlockingIOError):
                while len(kept[pipe]) <= most and (data := os.read(pipe, 1 << 16)):
                    kept[pipe] += data

    def _over_limit(self, limits: Limits, box: str, pid: int) -> str | None:
        """Below tier 3 no kernel limit holds for all files, and in tier 1 none for all processes: so look."""
        num_files = num_bytes = 0
        for folder, _, names in os.walk(box):
            for name in names:
                num_files += 1
                with contextlib.suppress(OSError):
                    num_bytes += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
                if num_files > 1024 or num_bytes > 4 * limits.file_mib * 2**20:
                    return "files"
        if self.tier < 2:
            page = os.sysconf("SC_PAGE_SIZE")
            total = 0
            for process in {pid, *_descendants(self._process.pid)}:
                with contextlib.suppress(OSError):
                    total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
            if total > limits.memory_mib * 2**20:
                return "memory"
        return None

    def _kill_descendants(self, pid: int) -> None:
        """Kill whatever the sandbox's process is the ancestor of, until nothing is left."""
        for _ in range(200):
            found = _descendants(pid)
            if not found:
                return
            for sign in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none can fork while others are killed
                for process in found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, sign)
            time.sleep(0.005)


def _room_for_the_stack() -> None:
    """The kernel lays out memory by this limit when a program starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    size = 256 * 2**20
    resource.setrlimit(resource.RLIMIT_STACK, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _read_only_memory(data: bytes) -> int:
    """A descriptor from which `data` can be read as from a file, and not written."""
    handle = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _descendants(pid: int) -> list[int]:
    """Living descendants of a process (zombies are none)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append((int(name), fields[0].decode()))
    found, waiting = [], [pid]
    while waiting:
        for child, state in children.get(waiting.pop(), ()):
            waiting.append(child)
            if state not in "ZX":
                found.append(child)
    return found


def _num_tasks(uid: int) -> int:
    """Threads of a user's processes now."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:  # noqa: PTH116
                    count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count


def _remove(folder: str) -> None:
    """Remove a box whatever its owner has done to its permissions; links are removed, not followed."""

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


def interpreter_paths(python: str) -> dict[str, Any]:
    """What of the file system an interpreter needs: read_only (files and folders), sys_path, and installed (modules that
    may be preloaded)."""
    if python == sys.executable:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        found = {"paths": [sysconfig.get_path(n) for n in names], "prefix": sys.base_prefix, "dynamic": ""}
        found["dynamic"] = sysconfig.get_config_var("DESTSHARED") or ""
    else:
        code = (
            "import json,sys,sysconfig;print(json.dumps({'paths':[sysconfig.get_path(n) for n in "
            "('stdlib','platstdlib','purelib','platlib')],'prefix':sys.base_prefix,"
            "'dynamic':sysconfig.get_config_var('DESTSHARED') or ''}))"
        )
        try:
            done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"the interpreter {python} does not run: {error}") from error
        found = json.loads(done.stdout)
    stdlib, platstdlib, purelib, platlib = found["paths"]
    base_lib = str(Path(found["prefix"], "lib"))
    sys_path = [base_lib if not Path(stdlib).is_dir() else stdlib]
    dynamic = found["dynamic"] or str(Path(stdlib, "lib-dynload"))
    for path in (platstdlib, dynamic, purelib, platlib):
        if Path(path).is_dir() and path not in sys_path:
            sys_path.append(path)
    wanted = [*sys_path, "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    if found["prefix"] not in ("/usr", "/usr/local", "/"):
        wanted.append(base_lib)
    wanted += ["/dev/null", "/dev/zero", "/dev/urandom", "/usr/share/zoneinfo"]
    read_only: list[str] = []
    for path in wanted:
        if not Path(path).exists():
            continue
        if Path(path).is_symlink() and path in ("/lib", "/lib64", "/usr/lib64"):
            read_only.append(path)
            path = str(Path(path).resolve())
        else:
            path = str(Path(path).resolve())
        if path not in read_only:
            read_only.append(path)
    installed = [name for name in ("numpy",) if any(Path(path, name, "__init__.py").is_file() for path in (purelib, platlib))]
    return {"read_only": read_only, "sys_path": [str(Path(p).resolve()) for p in sys_path], "installed": installed}


class Probe(NamedTuple):
    """The highest tier of this machine, and why each higher one is not there."""

    tier: int
    missing: dict[int, str]

    def describe(self) -> str:
        """The line that commands print."""
        lines = [f"programs run in tier T{self.tier} ({TIERS[self.tier]})"]
        lines += [f"  T{tier} is not there: {reason}" for tier, reason in sorted(self.missing.items(), reverse=True)]
        return "\n".join(lines)

    def check(self, is_accepted: bool, setting: str = f"verify.{SETTING}") -> None:
        """Raises: ValueError for a tier below the minimum, unless the risk is accepted; it names the setting that does."""
        if self.tier < MINIMUM_TIER and not is_accepted:
            raise ValueError(
                f"programs that a model wrote would run in tier T{self.tier} ({TIERS[self.tier]}), below "
                f"T{MINIMUM_TIER}:\n{self.describe()}\nTo accept that risk on this machine, set {setting} to true"
            )


def probe(python: str | None = None, highest: int = 3) -> Probe:
    """Find the highest tier at which a program can do its work and nothing of what it must not do.

    Args:
        highest: look no higher; for tests and for comparing tiers.
    """
    missing: dict[int, str] = {}
    if sys.platform != "linux":
        return Probe(0, dict.fromkeys((3, 2, 1), f"this is {sys.platform}, and isolation here is built for Linux"))
    for tier in range(highest, 0, -1):
        try:
            with Sandbox(tier, python) as sandbox:
                found = _try_out(sandbox)
        except SandboxError as error:
            missing[tier] = str(error).removeprefix(f"tier {tier}: ")
            if "Permission denied" in missing[tier] or "ModuleNotFoundError" in missing[tier]:
                missing[tier] += (
                    f"; an unprivileged user must be able to read the interpreter {python or sys.executable}: install it "
                    "elsewhere, or name another in verify.program_python"
                )
            continue
        if not found:
            return Probe(tier, missing)
        missing[tier] = "the program under test could " + ", ".join(found)
    return Probe(0, missing)


_PROBE = """
import os, socket, sys
import xml.dom, wave  # not loaded before: the standard library must be readable
found = []
def attempt(name, action):
    try:
        action()
    except OSError:
        return
    found.append(name)
attempt("read /etc/passwd", lambda: open("/etc/passwd").read())
attempt("list %(here)s", lambda: os.listdir(%(here)r))
attempt("write outside its folder", lambda: open(%(outside)r, "w").close())
attempt("open a socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("signal its parent", lambda: os.kill(os.getppid() or 1, 0))
attempt("start a process", lambda: os.fork() or os._exit(0))
attempt("become root", lambda: os.setuid(0))
open("own", "w").write("x")
print(",".join(found))
"""


def _try_out(sandbox: Sandbox) -> list[str]:
    """What a program could do that this tier promises to prevent; empty when the tier holds."""
    folder = tempfile.mkdtemp(prefix="vr-probe-")
    Path(folder).chmod(0o777)
    source = _PROBE % {"here": str(Path(__file__).resolve().parent), "outside": str(Path(folder, "written"))}
    try:
        outcome = sandbox.run(source, Limits())
        if outcome.code != 0:
            lines = outcome.stderr.strip().splitlines() or [f"exit code {outcome.code}"]
            raise SandboxError(f"tier {sandbox.tier}: a program cannot work there ({lines[-1][:200]})")
        return [name for name in outcome.stdout.decode().strip().split(",") if name] if sandbox.tier >= 2 else []
    finally:
        _remove(folder)
