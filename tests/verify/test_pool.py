"""Real worker processes with the real Math-Verify: limits, replacement, ids, and independence of
the number of workers."""

import os
import subprocess
import sys
import time

import pytest

from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import Verdict


def math_job(job_id, gold, answer):
    return Job(job_id, {"kind": "math", "gold": gold}, f"\\boxed{{{answer}}}")


HANG = r"\sum_{k=0}^{1000}(2+\sqrt{3})^{k}"
"""sympy would add up a thousand powers of a root, exactly."""

HARD = [
    math_job("equal", r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    math_job("different", "x^2", "x^3"),
    math_job("hang", "x+1", HANG),
    math_job("after the hang", "(x+1)^2", "x^2+2x+1"),
    math_job("hang again", "x+1", HANG.replace("1000", "1100")),
    math_job("last", "2", r"\sqrt{4}"),
    Job("inline", {"kind": "exact", "gold": "5"}, "5"),
    Job("no answer", {"kind": "math", "gold": "5"}, None),
]
EXPECTED = {
    "equal": "correct",
    "different": "wrong",
    "hang": "timeout",
    "after the hang": "correct",
    "hang again": "timeout",
    "last": "correct",
    "inline": "correct",
    "no answer": "no_answer",
}


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_hung_comparisons_end_in_time_and_the_next_are_fine(num_workers):
    with VerifierPool(num_workers, seconds=3) as pool:
        results = dict(pool.check(HARD))
        assert {job_id: result.verdict.value for job_id, result in results.items()} == EXPECTED
        assert pool.num_replaced == 2
        assert results["hang"].seconds < 4
        assert results["hang"].reason == "above 3 s"
    assert not pool._workers


TOWERS = [
    "9^9^9^9",
    "9^{9^{9^9}}",
    "(10^{10})!",
    "2^{2^{2^{2^{2}}}}",
    "7!!!!",
    r"10^{10^{10}}",
    r"\log(\log(10^{10^{10}}))",
    r"(2+\sqrt{3})^{1000}",
    r"\sum_{k=1}^{1000} (2+\sqrt{3})^k",
    r"\binom{10^9}{10^8}",
    "1" + "0" * 19000,
    "9" * 30000,
    "(" * 3000 + "1" + ")" * 3000,
    "{" * 300 + "x" + "}" * 300,
    r"\frac{1}{" * 100 + "x" + "}" * 100,
    "a_" * 5000 + "=",
    "\\sqrt" * 500 + "{2}",
    " " * 15000 + "x",
    "1,0" * 5000,
    "and " * 4000,
    "\\pm " * 60 + "1",
    "x" * 10000,
    "\0\x1b",
]


@pytest.mark.slow
def test_stress_comes_back_in_time_and_is_never_correct():
    jobs = [math_job(i, "7", text) for i, text in enumerate(TOWERS)]
    with VerifierPool(1, seconds=1) as pool:
        results = dict(pool.check(jobs))
    for i, result in results.items():
        assert result.verdict is not Verdict.CORRECT, jobs[i]
        assert result.verdict is not Verdict.CHECKER_ERROR, (jobs[i].solution[:60], result)
        assert result.seconds < 1.5, (jobs[i].solution[:60], result)
    quick = [results[i] for i in range(TOWERS.index("7!!!!"))]
    assert all(result.seconds < 0.5 for result in quick)


def test_results_belong_to_their_jobs():
    jobs = [math_job(("q", i), "x+1", f"{'1+x' if i % 3 else 'x+2'}") for i in range(12)]
    with VerifierPool(2) as pool:
        results = dict(pool.check(jobs))
    assert [results["q", i].verdict is Verdict.CORRECT for i in range(12)] == [
        i % 3 != 0 for i in range(12)
    ]


def test_an_answer_that_needs_much_memory_is_not_correct_and_the_next_is_fine():
    # 2^(7e9) is an integer of 834 MiB, which a worker of 400 MiB cannot hold
    jobs = [math_job("big", "7", "2^{7000000000}"), math_job("small", "x+1", "1+x")]
    with VerifierPool(1, seconds=10, memory_mib=400) as pool:
        results = dict(pool.check(jobs))
    assert results["big"].verdict in (Verdict.MEMORY_LIMIT, Verdict.TIMEOUT, Verdict.WRONG)
    assert results["small"].verdict is Verdict.CORRECT


def test_a_worker_that_dies_gives_a_checker_error_not_wrong():
    with VerifierPool(1, seconds=30) as pool:
        generator = pool.check(
            [math_job(0, "x+1", "1+x"), math_job(1, "x+1", HANG), math_job(2, "x+2", "2+x")]
        )
        assert next(generator)[1].verdict is Verdict.CORRECT
        pool._send(pool._workers[0], math_job(1, "x+1", HANG))
        pool._workers[0].process.kill()
        ((job_id, result),) = list(pool._collect())
        assert (job_id, result.verdict) == (1, Verdict.CHECKER_ERROR)
        assert "ended with code -9" in result.reason
        assert dict(pool.check([math_job(2, "x+2", "2+x")]))[2].verdict is Verdict.CORRECT


def test_model_text_is_not_executed(tmp_path):
    target = tmp_path / "written"
    payloads = [
        f"__import__('pathlib').Path('{target}').touch()",
        f"().__class__.__base__.__subclasses__() or open('{target}','w')",
        f"exec(\"open('{target}','w')\")",
    ]
    jobs = [math_job(("math", i), "7", payload) for i, payload in enumerate(payloads)]
    jobs += [
        Job(("c", i), {"kind": "countdown", "numbers": [1], "target": 1}, p)
        for i, p in enumerate(payloads)
    ]
    with VerifierPool(1, seconds=5) as pool:
        results = dict(pool.check(jobs))
    assert len(results) == 6
    assert all(result.verdict is not Verdict.CORRECT for result in results.values())
    assert not target.exists()


def test_a_worker_ends_with_its_parent():
    code = (
        "import sys, os, signal\n"
        "from variational_reasoning.verify.pool import Job, VerifierPool\n"
        "pool = VerifierPool(1, seconds=2)\n"
        "job = lambda a: Job(a, {'kind': 'math', 'gold': 'x'}, '\\\\boxed{' + a + '}')\n"
        "dict(pool.check([job('(x+1)^2')]))\n"
        "pool._send(pool._workers[0], job(r'\\sum_{k=0}^{1000}(2+\\sqrt{3})^{k}'))\n"
        "print(pool._workers[0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    worker = int(done.stdout)
    deadline = time.monotonic() + 60  # processor seconds, so longer on a busy machine
    while time.monotonic() < deadline and _is_running(worker):
        time.sleep(0.2)
    assert not _is_running(worker)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stream:  # noqa: PTH123
        return stream.read().rpartition(")")[2].split()[0] != "Z"


def test_limits_that_are_not_positive_are_refused_together():
    with pytest.raises(ValueError, match=r"num_workers is 0; .*seconds is -1; "):
        VerifierPool(0, seconds=-1)
