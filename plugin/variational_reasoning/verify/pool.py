"""Verdicts on many answers, each under a hard limit of time and memory (stage 7, evaluation).

This process decides cheap checks itself. Persistent worker processes decide the others. There is
one kind of worker for math, one for reasoning-gym and one for programs. They read and write lines
of JSON. An example with one worker and three jobs:

    this process                               worker
    takes job 1 (exact): decided here
    takes job 2 (math): starts a worker  -->   imports Math-Verify
                                         <--   "ready"
    [golds, solution] of job 2           -->   compares
                                         <--   ["correct", "math-verify"]
    takes job 3 (math): sends it         -->   hangs in C code
    its deadline passes: kills the worker, the verdict is `timeout`

The parent measures the time and kills a worker that does not reply in time. This also stops C code.
The parent uses no signals and no threads. Results come in any order, so every result has its job's
id. The verdicts are the same for any number of workers.
"""

import importlib.util
import json
import os
import selectors
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from .checks import check_inline, gold_answers
from .sandbox.sandbox import Limits
from .verdicts import Result, Verdict

_STARVED_FACTOR = 3
"""The wall limit is multiplied by this for a comparison that gets no processor time."""

_MODULES = {
    "math": ".mathematics.worker",
    "reasoning_gym": ".gym.worker",
    "program": ".programs.worker",
}
"""Kind of worker to its module."""

_PACKAGES = {
    "math": ("math_verify", "math-verify==0.9.0"),
    "reasoning_gym": ("reasoning_gym", "reasoning-gym==0.1.25"),
}
"""Kind of worker to the module that it imports and what to install for it."""

START_SECONDS = 120.0
"""How long a fresh worker may take to import sympy on a busy machine."""

PROGRAM_SLACK_SECONDS = 60.0
"""A worker limits its programs itself. One that replies this much later is broken."""


class Job(NamedTuple):
    """One answer to check.

    id: the result has the same. check: without faults. solution: None for an answer without one.
    """

    id: Any  # hashable
    check: dict[str, Any]
    solution: str | None

    @property
    def worker_kind(self) -> str:
        """The kind of worker that decides this job if this process cannot."""
        kind = self.check["kind"]
        return kind if kind in _MODULES else "math"


@dataclass(frozen=True)
class ProgramSettings:
    """How programs run.

    tier: the one that was probed. limits: of one test. total_seconds: wall limit of all tests of a
    program. python: the interpreter; None for this one.
    """

    tier: int
    limits: Limits = field(default_factory=Limits)
    total_seconds: float = 60.0
    python: str | None = None


@dataclass
class _Worker:
    """A worker process. job: what it works on. It gets its first one when it is ready."""

    kind: str
    process: subprocess.Popen[bytes]
    deadline: float
    job: Job | None
    folder: str | None = None
    started: float = 0.0
    cpu_at_start: float = 0.0
    is_ready: bool = False
    buffer: bytes = b""

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout


class VerifierPool:
    """Worker processes that live as long as the pool, which is a context manager.

    A worker is started when a job first needs it.

    Args:
        num_workers: the most processes at a time.
        seconds: wall limit of one comparison. Above it the verdict is `timeout`.
        memory_mib: address space of one worker. Above it the verdict is `memory_limit`.
        programs: needed for checks of kind program, which have their own limits.

    Raises: ValueError for a limit that is not positive.
    """

    def __init__(
        self,
        num_workers: int = 1,
        seconds: float = 5.0,
        memory_mib: int = 2048,
        programs: ProgramSettings | None = None,
    ) -> None:
        limits = {"num_workers": num_workers, "seconds": seconds, "memory_mib": memory_mib}
        faults = []
        for name, value in limits.items():
            if not value > 0:
                faults.append(f"{name} is {value}; it must be above 0")
        if faults:
            raise ValueError("; ".join(faults))
        self.num_workers = num_workers
        self.seconds = seconds
        self.memory_mib = memory_mib
        self.programs = programs
        self.num_replaced = 0
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all worker processes."""
        for worker in list(self._workers):
            self._end(worker)

    def check(self, jobs: Iterable[Job]) -> Iterator[tuple[Any, Result]]:
        """(id, result) of every job, in any order. A job is taken when a worker is free for it.

        Raises: RuntimeError when Math-Verify or reasoning-gym is needed and not installed, or when
        workers do not start. ValueError for a program without settings for programs.
        """
        waiting = iter(jobs)
        is_exhausted = False
        while True:
            # Fill the free workers. A cheap check is decided on the way and leaves its place free.
            while not is_exhausted and len(self._busy()) < self.num_workers:
                job = next(waiting, None)
                if job is None:
                    is_exhausted = True
                    break
                start = time.monotonic()
                result = check_inline(job.check, job.solution)
                if result is None:
                    self._assign(job)
                else:
                    yield job.id, result._replace(seconds=time.monotonic() - start)
            if not self._busy():
                return
            yield from self._collect()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job is not None]

    def _assign(self, job: Job) -> None:
        """Give a job to an idle worker of its kind, or to a new one."""
        for worker in self._workers:
            if worker.job is None and worker.kind == job.worker_kind:
                self._send(worker, job)
                return
        self._start(job)

    def _start(self, job: Job) -> None:
        """Start a worker. It gets the job when it is ready."""
        folder = None
        if job.worker_kind == "program":
            if self.programs is None:
                raise ValueError("checks of kind program need ProgramSettings with a probed tier")
            folder = tempfile.mkdtemp(prefix="vr-verify-")
            # Programs run as another user, who must be able to enter the boxes in it.
            Path(folder).chmod(0o711)
            options = [json.dumps(asdict(self.programs)), folder]
        else:
            needed, package = _PACKAGES[job.worker_kind]
            if importlib.util.find_spec(needed) is None:
                raise RuntimeError(
                    f"checks of kind {job.worker_kind} need {needed.replace('_', '-')}: "
                    f"pip install {package}"
                )
            options = [str(self.memory_mib), str(self.seconds)]
        module = _MODULES[job.worker_kind]
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}{module}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
        )
        deadline = time.monotonic() + START_SECONDS
        worker = _Worker(job.worker_kind, process, deadline, job, folder)
        self._workers.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _send(self, worker: _Worker, job: Job) -> None:
        """Give a job to a worker that is ready."""
        worker.job = job
        worker.started = time.monotonic()
        if self.programs is not None and worker.kind == "program":
            worker.deadline = worker.started + self.programs.total_seconds + PROGRAM_SLACK_SECONDS
            question: Any = job.check
        else:
            worker.deadline = worker.started + self.seconds
            worker.cpu_at_start = _cpu_seconds(worker.process.pid)
            question = job.check
            if worker.kind == "math":
                question = gold_answers(job.check)
        line = json.dumps([question, job.solution]) + "\n"
        try:
            worker.stdin.write(line.encode())
            worker.stdin.flush()
        except BrokenPipeError:
            return  # it died, and `_collect` will see that its output is closed

    def _end(self, worker: _Worker) -> int:
        """Kill a worker; returns its exit code."""
        self._selector.unregister(worker.stdout)
        self._workers.remove(worker)
        worker.process.kill()
        code = worker.process.wait()
        worker.stdout.close()
        if worker.folder is not None and Path(worker.folder).is_dir():
            # Its last program may still be writing there, so some files may not be removable.
            shutil.rmtree(worker.folder, ignore_errors=True)
        try:
            worker.stdin.close()
        except BrokenPipeError:
            return code  # the process is dead, so what was still buffered for it is lost
        return code

    def _collect(self) -> Iterator[tuple[Any, Result]]:
        """Wait for the next reply, death or deadline, and yield what it decides."""
        first_deadline = min(worker.deadline for worker in self._busy())
        wait = max(0.0, first_deadline - time.monotonic())
        for key, _ in self._selector.select(wait):
            worker: _Worker = key.data
            data = os.read(worker.stdout.fileno(), 65536)
            worker.buffer += data
            if not data:
                yield from self._replace_dead(worker)
                continue
            # A read may end in the middle of a line; the rest stays for the next read.
            while b"\n" in worker.buffer:
                line, _, worker.buffer = worker.buffer.partition(b"\n")
                yield from self._reply(worker, json.loads(line))
        now = time.monotonic()
        for worker in self._busy():
            if worker.deadline > now:
                continue
            if self._is_starved(worker, now):
                # It is asked again after this; _STARVED_FACTOR ends it in any case.
                worker.deadline = now + self.seconds / 2
            else:
                yield from self._replace_late(worker, now)

    def _is_starved(self, worker: _Worker, now: float) -> bool:
        """Whether a comparison has had less than an eighth of its time on a processor.

        The machine is busy then, and the wall limit does not show that the comparison is slow.
        """
        if worker.kind == "program" or not worker.is_ready:
            return False
        if now - worker.started >= _STARVED_FACTOR * self.seconds:
            return False
        used = _cpu_seconds(worker.process.pid) - worker.cpu_at_start
        return used < self.seconds / 8

    def _reply(self, worker: _Worker, reply: Any) -> Iterator[tuple[Any, Result]]:
        """The result that a worker's line holds; nothing for its first line, `ready`."""
        job = worker.job
        assert job is not None
        if not worker.is_ready:
            worker.is_ready = True
            self._send(worker, job)
            return
        worker.job = None
        verdict, reason, *tier = reply  # only programs have a tier
        seconds = time.monotonic() - worker.started
        yield job.id, Result(Verdict(verdict), reason, seconds, *tier)

    def _replace_late(self, worker: _Worker, now: float) -> Iterator[tuple[Any, Result]]:
        """Kill a worker that has passed its deadline, and give its job a verdict."""
        job = worker.job
        seconds = now - worker.started
        assert job is not None
        self._end(worker)
        if not worker.is_ready:
            raise RuntimeError(f"a verifier process did not start within {START_SECONDS:.0f} s")
        self.num_replaced += 1
        if self.programs is not None and worker.kind == "program":
            reason = f"the worker did not end a program within {seconds:.0f} s"
            result = Result(Verdict.CHECKER_ERROR, reason, seconds, f"T{self.programs.tier}")
        else:
            result = Result(Verdict.TIMEOUT, f"above {self.seconds:g} s", seconds)
        yield job.id, result

    def _replace_dead(self, worker: _Worker) -> Iterator[tuple[Any, Result]]:
        """Give a verdict to the job of a worker that ended by itself.

        After the verdict `memory_limit` a worker ends without a job, which is expected.
        """
        code = self._end(worker)
        if not worker.is_ready:
            command = " ".join(map(shlex.quote, worker.process.args))  # type: ignore[arg-type]
            raise RuntimeError(
                f"a verifier process ended with code {code} before its first job; to see why, run "
                f"`{command}`"
            )
        self.num_replaced += 1
        if worker.job is not None:
            reason = f"the checker's process ended with code {code}"
            seconds = time.monotonic() - worker.started
            yield worker.job.id, Result(Verdict.CHECKER_ERROR, reason, seconds)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process that has not been waited for."""
    # `7 (name) S 1 ...`: the name may hold spaces, and 11 and 12 after it are user and system time.
    _, _, after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
    fields = after_name.split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
