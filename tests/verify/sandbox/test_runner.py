# ruff: noqa: PTH208  (programs in one line)
"""A run of a program meets nothing of the runs before it, and leaves nothing."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

from variational_reasoning.verify.programs.judge import check_program
from variational_reasoning.verify.sandbox.runner import Program
from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox
from variational_reasoning.verify.verdicts import Verdict

from ..conftest import LIMITS, need_tier, program

NO_TRACES = {
    "files": "import os\nprint(os.listdir('.'), os.stat('.').st_mtime_ns)\nopen('f', 'w').close()",
    "files that are gone": (
        "import os\nprint(os.listdir('.'), os.stat('.').st_mtime_ns)\n"
        "open('f', 'w').close(); os.remove('f')"
    ),
    "files that never had a name": (
        "import os\nprint(os.listdir('.'))\n"
        "try: os.write(os.open('.', os.O_TMPFILE | os.O_RDWR), b'x' * 99)\n"
        "except OSError: pass"
    ),
    "flags and places of descriptors": (
        "import fcntl, os\n"
        "for n in (0, 1): fcntl.fcntl(n, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)\n"
        "os.lseek(0, 0, 2)\nprint('x' * 99)\nos.lseek(1, 0, 0); os.ftruncate(1, 0)"
    ),
    "flags seen": (
        "import fcntl, os\nf = fcntl.fcntl(1, fcntl.F_GETFL); print(f & os.O_APPEND)\n"
        "fcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND)"
    ),
    "locks": (
        "import fcntl, os\ntry:\n    other = os.open('/proc/self/fd/1', os.O_RDWR)\n"
        "    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    os.close(other)\n    print('free')\n"
        "except OSError as error: print(error)\nfcntl.flock(1, fcntl.LOCK_EX)"
    ),
    "the place of folders": (
        "import os\nprint(os.getcwd() == os.path.realpath('.'), os.umask(0o777))\nos.chdir('/')"
    ),
    "random numbers": "import random\nprint(random.random())\nrandom.seed(5)",
}


@pytest.mark.parametrize("name", NO_TRACES)
def test_a_test_meets_nothing_of_the_one_before(sandbox, name):
    with Program(sandbox, NO_TRACES[name], LIMITS) as opened:
        first, second, third = (opened.run(b"7\n") for _ in range(3))
    assert (first.code, first.stderr, first.stdout[:20]) == (0, "", first.stdout[:20])
    assert first.stdout == second.stdout == third.stdout


@pytest.mark.parametrize("name", NO_TRACES)
def test_a_program_meets_nothing_of_the_one_before(sandbox, name):
    outputs = []
    for touches in (
        "",
        "open('g', 'w').close()\n",
        "",
        "",
    ):  # a box that nobody touched serves the next program
        with Program(sandbox, NO_TRACES[name], LIMITS) as opened:
            outputs.append(opened.run(b"7\n").stdout)
        with Program(sandbox, touches, LIMITS) as opened:
            assert opened.run(b"").code == 0
    assert outputs == outputs[:1] * 4


def test_one_process_holds_a_program_that_leaves_nothing(sandbox):
    with Program(sandbox, "import os; print(os.getppid())", LIMITS) as opened:
        assert len({opened.run(b"").stdout for _ in range(3)}) == 1
        assert len(sandbox.survivors()) == 1
    with Program(sandbox, "open('f', 'w')", LIMITS) as opened:
        opened.run(b"")
        assert not opened.is_open  # opened again for the next run


@pytest.mark.slow
@pytest.mark.parametrize("tier", [3, 2])
def test_nothing_is_left_after_many_runs(tier):
    need_tier(tier)
    check = {"kind": "program", "tests": {"inputs": ["3\n"], "outputs": ["6"]}}
    sources = ["print(int(input()) * 2)", "open('f', 'w').write('x')\nprint(int(input()) * 2)"]

    def run(times):
        for number in range(times):
            result = check_program(check, program(sources[number % 10 == 0]), opened, LIMITS, 30)
            assert result.verdict is Verdict.CORRECT, result
        gc.collect()  # what other tests have left open
        return len(os.listdir("/proc/self/fd")), os.listdir(folder)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # programs of another user enter the boxes in it
        with Sandbox(tier, folder=folder) as opened:
            before, memory = run(20), opened.memory_mib()
            assert run(200) == before
            assert opened.memory_mib() - memory < 2


def test_limits_are_those_of_one_test():
    assert Limits().wall_seconds == 2 * Limits().cpu_seconds + 1
