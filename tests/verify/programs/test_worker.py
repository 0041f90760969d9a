"""Programs that worker processes judge."""

import pytest

from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.sandbox.sandbox import Limits

from ..conftest import DOUBLE, LIMITS, need_tier, program

MIXED = [
    ("right", "print(int(input()) * 2)", "correct"),
    ("wrong", "print(6)", "wrong"),
    ("syntax", "print(", "compile_error"),
    ("raises", "1 / 0", "runtime_error"),
    ("loops", "while True: pass", "timeout"),
    ("memory", "x = bytearray(4 << 30)", "memory_limit"),
    ("output", "while True: print('x' * 9999)", "output_limit"),
    ("order", "print(*reversed(range(int(input()))))", "wrong"),
]


@pytest.mark.slow
def test_the_same_verdicts_with_1_2_and_8_workers_in_any_order():
    need_tier(3)
    settings = ProgramSettings(3, LIMITS, 20.0)
    jobs = [
        Job((name, i), {"kind": "program", "tests": DOUBLE}, program(text))
        for i in range(2)
        for name, text, _ in MIXED
    ]
    jobs += [
        Job(("math", i), {"kind": "math", "gold": "x+1"}, f"\\boxed{{{'1+x' if i % 2 else 'x+2'}}}")
        for i in range(6)
    ]
    found = []
    for num_workers, order in ((1, 1), (2, -1), (8, 1)):
        with VerifierPool(num_workers, programs=settings) as pool:
            found.append(
                {job_id: result.verdict.value for job_id, result in pool.check(jobs[::order])}
            )
            assert len({worker.process.pid for worker in pool._workers}) <= 2 * num_workers
    assert found[0] == found[1] == found[2]
    assert all(found[0][name, i] == verdict for name, _, verdict in MIXED for i in range(2))
    assert [found[0]["math", i] for i in range(6)] == ["wrong", "correct"] * 3


def test_programs_without_settings_are_refused():
    with VerifierPool(1) as pool, pytest.raises(ValueError, match="ProgramSettings"):
        list(pool.check([Job(0, {"kind": "program", "tests": DOUBLE}, program("1"))]))


@pytest.mark.parametrize("tier", [3, 2])
def test_workers_run_programs_that_use_numpy(tier):
    need_tier(tier)
    sources = {
        "preloaded": "import numpy as np\nprint(int(np.int64(input()) * 2))",
        "among others": "import sys, numpy\nprint(numpy.sum([int(input())] * 2))",
        "a part that is loaded late": (
            "import numpy as np\nimport numpy.polynomial.chebyshev\n"
            "np.testing.assert_equal(1, 1)\nprint(2 * int(input()))"
        ),
        "random": (
            "from numpy.random import default_rng\ndefault_rng(0).random()\nprint(2 * int(input()))"
        ),
        "linear algebra": (
            "import numpy as np\n"
            "print(round(np.linalg.solve(np.eye(2) / 2, [int(input())] * 2)[0]))"
        ),
    }
    jobs = [
        Job(name, {"kind": "program", "tests": DOUBLE}, program(source))
        for name, source in sources.items()
    ]
    tests = {"fn_name": "f", "inputs": [[[1, 2]], [[]]], "outputs": [[2, 4], []]}
    jobs.append(
        Job(
            "function",
            {"kind": "program", "tests": tests},
            program("import numpy as np\ndef f(x): return np.array(x) * 2"),
        )
    )
    with VerifierPool(1, programs=ProgramSettings(tier, Limits(), 20.0)) as pool:
        results = dict(pool.check(jobs))
    assert {name: result.verdict.value for name, result in results.items()} == dict.fromkeys(
        [*sources, "function"], "correct"
    ), results
