"""Verdicts per second and core, compared with SkyThought's checkers on the same rows.

    python benchmarks/verify.py [rows=200] [workers=1] [skythought=CHECKOUT] [skythought_python=PYTHON] [leaks=10000]

Rows are made here: math answers as models write them, and programs with five tests each. With
`skythought` the checkers of a local checkout are run on the same rows, in the way in which that
project runs them: a process for every comparison of math, a process and a Manager for every
program. `skythought_python` is an interpreter with their dependencies (for math
latex2sympy2==1.9.1, regex, word2number; for programs numpy). Programs run in the highest tier of
this machine. leaks=N runs N programs in one sandbox and prints what they leave behind.

Each figure is printed in wall time and in the processor time of all processes that took part (their
start left out). Other work on the machine disturbs the latter less.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.sandbox.probe import probe
from variational_reasoning.verify.sandbox.runner import run_once
from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox

MATH = [
    ("42", "42"),
    ("42", "43"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("(1,2)", "(2,1)"),
    (r"[0,\infty)", r"x \ge 0"),
    ("10", r"10\text{ cm}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
    ("2^{10}", "1024"),
]
PROGRAMS = [
    "n = int(input())\nprint(n * (n + 1) // 2)",
    "import sys\nn = int(sys.stdin.read())\nprint(sum(range(n + 1)))",
    "n = int(input())\nprint(n * n)",
    "def main():\n    n = int(input())\n    total = 0\n    for i in range(n + 1): total += i\n    "
    "print(total)\nmain()",
]
TESTS = {
    "inputs": [f"{n}\n" for n in (1, 5, 10, 100, 1000)],
    "outputs": ["1\n", "15\n", "55\n", "5050\n", "500500\n"],
}

SKYTHOUGHT_MATH = """
import json, multiprocessing, resource, sys, time
sys.path.insert(0, sys.argv[1] + "/skythought/evals/util")
from math_parsing_util import math_equal, strip_answer_string
def one(queue, gold, answer):
    queue.put(bool(math_equal(strip_answer_string(answer), strip_answer_string(gold))))
def processor_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
rows = json.load(sys.stdin)
start, processor = time.perf_counter(), processor_seconds()
for gold, answer in rows:
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=one, args=(queue, gold, answer))
    process.start(); process.join(5)
    if process.is_alive(): process.kill()
print("seconds", time.perf_counter() - start, processor_seconds() - processor)
"""
SKYTHOUGHT_PROGRAMS = """
import gc, json, multiprocessing, resource, sys, time, types
sys.path.insert(0, sys.argv[1])
for name in ("skythought", "skythought.evals", "skythought.evals.scoring", "skythought.evals.scoring.apps"):
    module = types.ModuleType(name)  # the packages' own __init__ files ask for far more than the checker needs
    module.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
    sys.modules[name] = module
from skythought.evals.scoring.apps.apps_util import run_test
def one(tests, program, result):
    result.append(run_test(tests, test=program, debug=False))
def processor_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
rows = json.load(sys.stdin)
start, processor = time.perf_counter(), processor_seconds()
for tests, program in rows:
    manager = multiprocessing.Manager()
    result = manager.list()
    process = multiprocessing.Process(target=one, args=(tests, program, result))
    process.start(); process.join(11)
    if process.is_alive(): process.kill()
del manager, result
gc.collect()  # ends the last manager
print("seconds", time.perf_counter() - start, processor_seconds() - processor)
"""


def main() -> None:
    options = {
        "rows": "200",
        "workers": "1",
        "skythought": "",
        "skythought_python": sys.executable,
        "leaks": "0",
    }
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if name not in options:
            raise SystemExit(f"error: {argument!r} is not one of {', '.join(options)}")
        options[name] = value
    num_rows, workers = int(options["rows"]), int(options["workers"])
    # every row is another text, as answers of a model are
    math = [
        (gold, f"{answer}{' ' * (i // len(MATH))}")
        for i, (gold, answer) in zip(range(num_rows), MATH * num_rows, strict=False)
    ]
    programs = [f"{PROGRAMS[i % len(PROGRAMS)]}\n# {i}" for i in range(num_rows)]
    found = probe()
    print(found.describe())
    if int(options["leaks"]):
        leaks(found.tier, int(options["leaks"]))
    settings = ProgramSettings(found.tier)
    with VerifierPool(workers, programs=settings) as pool:
        list(
            pool.check(
                [Job(i, {"kind": "math", "gold": "x+1"}, r"\boxed{1+x}") for i in range(workers)]
            )
        )  # start them
        jobs = [
            Job(i, {"kind": "math", "gold": gold}, f"\\boxed{{{answer}}}")
            for i, (gold, answer) in enumerate(math)
        ]
        ours_math = run("math", pool, jobs, workers)
        check = {"kind": "program", "tests": TESTS}
        list(pool.check([Job(i, check, f"```python\n{programs[0]}\n```") for i in range(workers)]))
        jobs = [Job(i, check, f"```python\n{program}\n```") for i, program in enumerate(programs)]
        ours_programs = run(
            f"programs (T{found.tier}, {len(TESTS['inputs'])} tests)", pool, jobs, workers
        )
    if options["skythought"]:
        for name, script, rows, ours in (
            ("math", SKYTHOUGHT_MATH, math, ours_math),
            (
                "programs",
                SKYTHOUGHT_PROGRAMS,
                [(TESTS, program) for program in programs],
                ours_programs,
            ),
        ):
            command = [options["skythought_python"], "-c", script, options["skythought"]]
            done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True)
            if done.returncode:
                print(
                    f"SkyThought {name}: does not run here: {done.stderr.strip().splitlines()[-1]}"
                )
                continue
            seconds, processor = map(float, done.stdout.split()[-2:])
            theirs = Cost(seconds / len(rows), processor / len(rows))
            print(
                f"SkyThought {name}: {theirs}; ours is {theirs.seconds / ours.seconds:.1f} times "
                f"as fast by the clock and "
                f"{theirs.processor_seconds / ours.processor_seconds:.1f} times by processor time"
            )
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def leaks(tier: int, num_runs: int) -> None:
    """Run programs in one sandbox, and print how its processes, descriptors, folders and memory
    have changed.
    """

    def left() -> tuple[int, int, int, float]:
        boxes, descriptors = (
            len(list(Path(place).iterdir())) for place in (folder, "/proc/self/fd")
        )
        return len(sandbox.survivors()), descriptors, boxes, sandbox.memory_mib()

    with (
        tempfile.TemporaryDirectory(prefix="vr-leaks-") as folder,
        Sandbox(tier, folder=folder) as sandbox,
    ):
        Path(folder).chmod(0o711)  # programs of another user must be able to enter the boxes in it
        run_once(sandbox, PROGRAMS[0], Limits(), b"3")
        time.sleep(0.5)  # the process of the last program is just ending
        before, start = left(), time.perf_counter()
        num_right = sum(
            run_once(sandbox, PROGRAMS[0], Limits(), b"3").stdout == b"6\n" for _ in range(num_runs)
        )
        seconds = time.perf_counter() - start
        time.sleep(0.5)
        names = ("processes", "descriptors", "folders", "MiB of resident memory")
        changes = [
            f"{after - was:+.1f} {name}"
            for name, was, after in zip(names, before, left(), strict=True)
        ]
    print(
        f"{num_runs} programs in one sandbox in {seconds:.0f} s: {num_right} right; "
        f"{', '.join(changes)}"
    )


class Cost(NamedTuple):
    """What one verdict costs on one worker, in seconds."""

    seconds: float
    processor_seconds: float

    def __str__(self) -> str:
        return f"{1 / self.seconds:.1f} verdicts/s and worker, {1e3 * self.processor_seconds:.1f} ms of processor time each"


def run(name: str, pool: VerifierPool, jobs: list[Job], workers: int) -> Cost:
    """What a verdict costs; prints it."""
    start, processor = time.perf_counter(), processor_seconds()
    counts = Counter(result.verdict.value for _, result in pool.check(jobs))
    seconds = time.perf_counter() - start
    cost = Cost(seconds * workers / len(jobs), (processor_seconds() - processor) / len(jobs))
    print(f"{name}: {len(jobs)} verdicts in {seconds:.2f} s, {cost}; {dict(counts)}")
    return cost


def processor_seconds() -> float:
    """Of this process and all that descend from it, those that have ended included."""
    stats = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = place.read_text().rpartition(")")[2].split()
            stats[int(place.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in stats.items() if parent in family} - family:
        family |= more
    return sum(stats[pid][1] for pid in family) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
