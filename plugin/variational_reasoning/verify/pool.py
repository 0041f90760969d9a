"""Verdicts on many answers, each under a hard limit of wall time and memory (stage 7, and the evaluation).

Cheap checks are decided here; the others go to persistent worker processes, one kind for math and one for programs. The
parent holds the clock: a worker that does not reply in time is killed and replaced, whatever C code it hangs in. No
signals and no threads in the parent.
Every result carries its job's id, because results come in any order; the verdicts are the same for any number of
workers.
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
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .checks import check_inline, gold_answers
from .sandbox.sandbox import Limits
from .verdicts import Result, Verdict

_STARVED_FACTOR = 3
"""A comparison that a busy machine keeps from computing gets so many times its wall limit."""

START_SECONDS = 120.0
"""How long a fresh worker may take to import sympy on a busy machine."""


class Job(NamedTuple):
    """One answer to be checked: an id that comes back with the result, a check without faults, the solution or None."""

    id: Hashable
    check: dict[str, Any]
    solution: str | None


@dataclass(frozen=True)
class ProgramSettings:
    """How programs run: the tier that was probed, the limits of one test and of all together, the interpreter."""

    tier: int
    limits: Limits = field(default_factory=Limits)
    total_seconds: float = 60.0
    python: str | None = None


PROGRAM_SLACK_SECONDS = 60.0
"""A worker bounds its programs itself; one that is so much later is broken."""


@dataclass
class _Worker:
    kind: str
    process: subprocess.Popen
    deadline: float
    folder: str | None = None
    job: Job | None = None
    started: float = 0.0
    cpu_at_start: float = 0.0
    is_ready: bool = False
    buffer: bytes = b""


class VerifierPool:
    """Worker processes that live as long as the pool, which is a context manager; none is started before it is needed.

    Args:
        num_workers: processes at most.
        seconds: wall limit of one comparison; beyond it the verdict is `timeout`.
        memory_mib: address space of one worker; beyond it the verdict is `memory_limit`.
        programs: needed for checks of kind program; the three limits above are not theirs.

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
        faults = [
            f"{name} is {value}; it must be above 0"
            for name, value in limits.items()
            if not value > 0
        ]
        if faults:
            raise ValueError("; ".join(faults))
        self.num_workers, self.seconds, self.memory_mib = num_workers, seconds, memory_mib
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

    def check(self, jobs: Iterable[Job]) -> Iterator[tuple[Hashable, Result]]:
        """(id, result) of every job, in any order. Jobs are taken from the iterable only as they are needed.

        Raises: RuntimeError when Math-Verify is needed and not installed, or when workers do not start; ValueError for a
        program without settings for programs.
        """
        jobs = iter(jobs)
        is_exhausted = False
        while True:
            while not is_exhausted:
                if sum(worker.job is not None for worker in self._workers) >= self.num_workers:
                    break
                job = next(jobs, None)
                if job is None:
                    is_exhausted = True
                    break
                start = time.monotonic()
                result = check_inline(job.check, job.solution)
                if result is not None:
                    yield job.id, result._replace(seconds=time.monotonic() - start)
                    continue
                kind = "program" if job.check["kind"] == "program" else "math"
                idle = next(
                    (
                        worker
                        for worker in self._workers
                        if worker.job is None and worker.kind == kind
                    ),
                    None,
                )
                if idle is not None:
                    self._send(idle, job)
                else:
                    self._start(kind, job)
            if not any(worker.job for worker in self._workers):
                return
            yield from self._collect()

    def _start(self, kind: str, job: Job) -> None:
        folder = None
        if kind == "program":
            if self.programs is None:
                raise ValueError("checks of kind program need ProgramSettings with a probed tier")
            folder = tempfile.mkdtemp(prefix="vr-verify-")
            Path(folder).chmod(
                0o711
            )  # programs of another user must be able to enter the boxes in it
            command = [
                sys.executable,
                "-m",
                __package__ + ".programs.worker",
                json.dumps(asdict(self.programs)),
                folder,
            ]
        else:
            if importlib.util.find_spec("math_verify") is None:
                raise RuntimeError(
                    "checks of kind math need math-verify: pip install math-verify==0.9.0"
                )
            command = [
                sys.executable,
                "-m",
                __package__ + ".mathematics.worker",
                str(self.memory_mib),
                str(self.seconds),
            ]
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
        )
        worker = _Worker(
            kind, process, deadline=time.monotonic() + START_SECONDS, folder=folder, job=job
        )
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)

    def _send(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        worker.started = time.monotonic()
        if worker.kind == "program":
            worker.deadline = worker.started + self.programs.total_seconds + PROGRAM_SLACK_SECONDS
            line = json.dumps([job.check, job.solution]) + "\n"
        else:
            worker.deadline = worker.started + self.seconds
            worker.cpu_at_start = _cpu_seconds(worker.process.pid)
            line = json.dumps([gold_answers(job.check), job.solution]) + "\n"
        try:
            worker.process.stdin.write(line.encode())
            worker.process.stdin.flush()
        except BrokenPipeError:
            return  # it died; its closed output tells `_collect`

    def _end(self, worker: _Worker) -> int:
        self._selector.unregister(worker.process.stdout)
        self._workers.remove(worker)
        worker.process.kill()
        code = worker.process.wait()
        worker.process.stdout.close()
        if worker.folder is not None and Path(worker.folder).is_dir():
            shutil.rmtree(
                worker.folder, ignore_errors=True
            )  # what its last program may just be writing goes with it
        try:
            worker.process.stdin.close()
        except BrokenPipeError:
            return code  # what was still buffered for a dead process is of no use
        return code

    def _collect(self) -> Iterator[tuple[Hashable, Result]]:
        """Wait for the next reply, death or deadline, and yield what it decides."""
        busy = [worker for worker in self._workers if worker.job]
        wait = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        for key, _ in self._selector.select(wait):
            worker: _Worker = key.data
            data = os.read(worker.process.stdout.fileno(), 65536)
            worker.buffer += data
            if not data:
                yield from self._replace_dead(worker)
                continue
            while b"\n" in worker.buffer:
                line, _, worker.buffer = worker.buffer.partition(b"\n")
                yield from self._reply(worker, json.loads(line))
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.job and worker.deadline <= now]:
            if self._is_starved(worker, now):
                worker.deadline = now + self.seconds / 2
                continue
            job = worker.job
            self._end(worker)
            if not worker.is_ready:
                raise RuntimeError(f"a verifier process did not start within {START_SECONDS:.0f} s")
            self.num_replaced += 1
            if worker.kind == "program":
                reason = f"the worker did not end a program within {now - worker.started:.0f} s"
                yield (
                    job.id,
                    Result(
                        Verdict.CHECKER_ERROR,
                        reason,
                        now - worker.started,
                        f"T{self.programs.tier}",
                    ),
                )
            else:
                yield (
                    job.id,
                    Result(Verdict.TIMEOUT, f"above {self.seconds:g} s", now - worker.started),
                )

    def _is_starved(self, worker: _Worker, now: float) -> bool:
        """Has a comparison had less than an eighth of its time on a processor? Then its wall limit says nothing yet."""
        if (
            worker.kind != "math"
            or not worker.is_ready
            or now - worker.started >= _STARVED_FACTOR * self.seconds
        ):
            return False
        return _cpu_seconds(worker.process.pid) - worker.cpu_at_start < self.seconds / 8

    def _reply(self, worker: _Worker, reply: Any) -> Iterator[tuple[Hashable, Result]]:
        if not worker.is_ready:
            worker.is_ready = True
            self._send(worker, worker.job)
            return
        job, worker.job = worker.job, None
        verdict, reason, *tier = reply
        yield job.id, Result(Verdict(verdict), reason, time.monotonic() - worker.started, *tier)

    def _replace_dead(self, worker: _Worker) -> Iterator[tuple[Hashable, Result]]:
        """A worker ended by itself: after `memory_limit` that is expected, in the middle of a job it is a verdict."""
        code = self._end(worker)
        if not worker.is_ready:
            raise RuntimeError(
                f"a verifier process ended with code {code} before its first job; to see why, run "
                f"`{' '.join(map(shlex.quote, worker.process.args))}`"
            )
        self.num_replaced += 1
        if worker.job is not None:
            reason = f"the checker's process ended with code {code}"
            yield (
                worker.job.id,
                Result(Verdict.CHECKER_ERROR, reason, time.monotonic() - worker.started),
            )


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process that is not yet waited for."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
