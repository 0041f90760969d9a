# ruff: noqa: PTH208  (programs in one line)
"""Programs that must pass, records as the data sets hold them, and the comparison of outputs."""

import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from variational_reasoning.verify.checks import check_faults, gold_solutions
from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.probe import MINIMUM_TIER, Probe, probe
from variational_reasoning.verify.programs import (
    check_program,
    compare_output,
    extract_program,
    read_tests,
    same_value,
)
from variational_reasoning.verify.runner import Program
from variational_reasoning.verify.sandbox import Limits, Sandbox
from variational_reasoning.verify.verdicts import Verdict

from .conftest import LIMITS, need_tier


def program(source):
    return f"```python\n{source}\n```"


DOUBLE = {"inputs": ["3\n", "4\n"], "outputs": ["6\n", "8\n"]}

STDIN_CONTROLS = {
    "input": "print(int(input()) * 2)",
    "no newline at the end": "print(int(input()) * 2, end='')",
    "sys.stdin": "import sys\nfor line in sys.stdin: print(int(line) * 2)",
    "sys.stdin.read": "import sys\nprint(2 * int(sys.stdin.read()))",
    "buffer": "import sys\nsys.stdout.buffer.write(b'%d' % (2 * int(sys.stdin.buffer.readline())))",
    "open(0)": "print(2 * int(open(0).read()))",
    "os.read": "import os\nprint(2 * int(os.read(0, os.fstat(0).st_size)))",
    "input to the end": "try:\n    while True: print(2 * int(input()))\nexcept EOFError: pass",
    "exit": "print(2 * int(input())); exit()",
    "sys.exit(0)": "import sys\nprint(2 * int(input())); sys.exit(0)",
    "main guard": "def main():\n    print(2 * int(input()))\nif __name__ == '__main__':\n    main()",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nf(40000)\nprint(2 * int(input()))",
    "thread for the stack": (
        "import sys, threading\nsys.setrecursionlimit(1 << 20); threading.stack_size(1 << 27)\n"
        "def main(): print(2 * int(input()))\nthreading.Thread(target=main).start()"
    ),
    "stack limit": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 28, -1))\nprint(2 * int(input()))",
    "long integers": "x = 7 ** 20000\nassert len(str(x)) > 9000\nprint(2 * int(input()))",
    "numpy": "import numpy as np\nprint(int((np.array([int(input())]) * 2).sum()))",
    "numpy matrix": "import numpy as np\nnp.linalg.inv(np.eye(50)); print(2 * int(input()))",
    "temporary file": "import tempfile\nwith tempfile.TemporaryFile('w+') as f: f.write('x')\nprint(2 * int(input()))",
    "own file": "open('a.txt', 'w').write(input())\nprint(2 * int(open('a.txt').read()))",
    "rare modules": "import decimal, fractions, unittest, xml.dom, sqlite3, csv, zlib, bz2, asyncio\nprint(2 * int(input()))",
    "fast output": "import io, os, sys\nsys.stdout = io.StringIO(); print(2 * int(input()))\nos.write(1, sys.stdout.getvalue().encode())",
    "atexit": "import atexit, io, os\nb = io.BytesIO(); b.write(b'%d' % (2 * int(input())))\natexit.register(lambda: os.write(1, b.getvalue()))",
    "annotations": "from __future__ import annotations\ndef f(x: Undefined) -> Unknown: return 2 * x\nprint(f(int(input())))",
    "text on stderr": "import sys\nprint('debug', file=sys.stderr); print(2 * int(input()))",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A: x: int\nprint(A(2 * int(input())).x)",
    "functions in functions": f"f = {'lambda: ' * 80}0\nprint(2 * int(input()))",
    "pickle": "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A())); print(2 * int(input()))",
}


@pytest.mark.parametrize("name", STDIN_CONTROLS)
def test_right_programs_pass(sandbox, name):
    result = check_program(
        {"kind": "program", "tests": DOUBLE}, program(STDIN_CONTROLS[name]), sandbox, Limits(), 30
    )
    assert result.verdict is Verdict.CORRECT, result


FUNCTION_CONTROLS = [
    ("def f(x): return x + 1", [[1]], [2]),
    ("def f(x): return x + 1", [[1]], [[2]]),  # APPS wraps the one result into a list
    ("class Solution:\n    def f(self, x: List[int]) -> int: return sum(x)", [[[1, 2]]], [3]),
    (
        "class Solution:\n    def f(self, x): return Counter(x).most_common(1)[0]",
        [["aab"]],
        [["a", 2]],
    ),
    ("def f(d): return d[1]", [[{"1": "one"}]], ["one"]),
    ("def f(): return {1: (2, 3)}", [[]], [{"1": [2, 3]}]),
    ("def f(x):\n    print('noise')\n    return x / 3", [[1]], [0.3333333333]),
    ("f = lambda x: x * 1.0", [[2]], [2]),
    ("def f(x): return None", [[2]], [None]),
    ("def f(a, b): return a in b", [["x", "xy"]], [True]),
    ("@cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)", [[90]], [2880067194370816120]),
    ("def f(x): return x", [["\ud800"]], ["\ud800"]),
    ("import sys\ndef f(x):\n    sys.stdout = None\n    return x", [[1]], [1]),
    (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)",
        [[40000]],
        [40000],
    ),
    (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\ndef f(n):\n    found = []\n"
        "    def down(n): return n and 1 + down(n - 1)\n    thread = threading.Thread(target=lambda: found.append(down(n)))\n"
        "    thread.start(); thread.join()\n    return found[0]",
        [[50000]],
        [50000],
    ),
    ("import numpy as np\ndef f(x): return np.array(x)", [[5]], [5]),
    ("def f(n): return 3 ** n", [[200]], [3**200]),
    (
        "import numpy as np\ndef f(rows): return np.array(rows).T",
        [[[[1, 2], [3, 4]]]],
        [[[1, 3], [2, 4]]],
    ),
    (
        "import numpy as np\ndef f(x): return np.float64(x).mean(), np.bool_(True), np.str_('a')",
        [[0.5]],
        [[0.5, True, "a"]],
    ),
    (
        "class Solution:\n    seen = 0\n    @staticmethod\n    def f(x): return sorted(x, key=cmp_to_key(lambda a, b: b - a))",
        [[[1, 3]]],
        [[3, 1]],
    ),
    (
        "class Solution:\n    def help(self, x): return gcd(*x)\n    def f(self, x: Optional[List[int]] = None): return self.help(x)",
        [[[4, 6]]],
        [2],
    ),
    (
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n    x: int\n    y: list = field(default_factory=list)\ndef f(x): return A(x).x",
        [[5]],
        [5],
    ),
    (
        "def f(n):\n    for row in range(n): n += row\n    return {'n': n, 'none': None, 'deep': [[]]}",
        [[3]],
        [{"n": 6, "none": None, "deep": [[]]}],
    ),
    (
        "def f(): return datetime.date(2024, 2, 29).isoformat(), str(fractions.Fraction(2, 4)), statistics.median([1, 3])",
        [[]],
        [["2024-02-29", "1/2", 2]],
    ),
]


@pytest.mark.parametrize(("source", "inputs", "outputs"), FUNCTION_CONTROLS)
def test_right_functions_pass(sandbox, source, inputs, outputs):
    check = {"kind": "program", "tests": {"fn_name": "f", "inputs": inputs, "outputs": outputs}}
    result = check_program(check, program(source), sandbox, Limits(), 30)
    assert result.verdict is Verdict.CORRECT, result


def test_integers_of_many_digits_are_compared_exactly(sandbox):
    tests = '{"fn_name": "f", "inputs": [[5000]], "outputs": [1' + "0" * 5000 + "]}"
    for source, verdict in (
        ("def f(n): return 10 ** n", "correct"),
        ("def f(n): return 10 ** n + 1", "wrong"),
    ):
        result = check_program(
            {"kind": "program", "tests": tests}, program(source), sandbox, LIMITS, 30
        )
        assert result.verdict.value == verdict, result


def test_tests_as_livecodebench_has_them(sandbox):
    functional = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
    check = {"kind": "program", "tests": json.dumps(functional), "fn_name": "total"}
    source = "class Solution:\n    def total(self, a: List[int], b: int) -> int: return sum(a) + b"
    assert check_program(check, program(source), sandbox, LIMITS, 30).verdict is Verdict.CORRECT
    check = {
        "kind": "program",
        "tests": [{"input": "3", "output": "6", "testtype": "stdin"}],
        "fn_name": "ignored",
    }
    assert (
        check_program(check, program("print(int(input()) * 2)"), sandbox, LIMITS, 30).verdict
        is Verdict.CORRECT
    )


def test_tests_that_expect_no_output_decide_nothing(sandbox):
    check = {"kind": "program", "tests": {"inputs": ["1"], "outputs": [" \n"]}}
    assert (
        check_program(check, program("pass"), sandbox, LIMITS, 30).verdict is Verdict.UNVERIFIABLE
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("```py\n1\n```", "1\n"),
        ("```python3\n1\n```", "1\n"),
        ("```Python\n1\n```", "1\n"),
        ("```\n1\n```", "1\n"),
        ("```python title=x\n1\n```", "1\n"),
        ("~~~python\n1\n~~~", "1\n"),
        ("  ```python\n  1\n  ```", "  1\n"),
        ("```python\n1\n```\ntext\n```python\n2\n```", "2\n"),
        ("```python\n1\n```\nprints\n```text\n5\n```", "1\n"),
        ("```python\n1\n```\n```c++\n2\n```", "1\n"),
        ("```python\n1\n```\n```python\n2", "1\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\n\n```", None),
        ("```python\n1\n```\n```python\n```", "1\n"),
        ("```cpp\n1\n```", None),
        ("print(1)", None),
        ("```python\nprint(1)", None),
        ("", None),
        ("```python\r\n1\r\n```\r\n", "1\n"),
        ("```python\r\nprint('a\u2028b')\x0c\r\n```", "print('a\u2028b')\x0c\n"),
    ],
)
def test_the_last_complete_block_of_python_is_the_program(text, expected):
    assert extract_program(text) == expected


@pytest.mark.parametrize(
    ("expected", "output", "is_same"),
    [
        ("YES NO YES", "NO YES YES", False),
        ("1 2 3", "3 2 1", False),
        ("YES\nNO", "YES\nYES\nNO", False),
        ("YES\nNO\n", "YES\nNO", True),
        ("YES\nNO", "YES  \r\nNO\r\n\r\n", True),
        ("1 2\n3", "1\n2 3", False),
        ("1  2", " 1 2 ", True),
        ("100000", "100009", False),
        ("0.12341", "0.1229", False),
        ("0.5", "0.5000001", True),
        ("0.5", "0.50001", False),
        ("0.5", ".5", True),
        ("1e3", "1000", True),
        ("1", "1.0", False),
        ("1.0", "1", True),
        ("1", "True", False),
        ("1", "01", False),
        ("1.5", "nan", False),
        ("1.5", "inf", False),
        ("1.5", "1_5", False),
        ("3.14", "３.14", False),
        ("yes", "YES", False),
        ("", "", True),
        ("5", "", False),
        ("123456789012345678901234567890", "123456789012345678901234567891", False),
        ("1.0", "9" * 5000, False),
    ],
)
def test_outputs_are_compared_token_by_token(expected, output, is_same):
    assert (compare_output(expected, output.encode()) is None) == is_same


def test_other_judges_are_asked_for_by_name():
    assert compare_output("1 2\n3", b"1\n2 3", "tokens_across_lines") is None
    assert compare_output("1 2\n3", b"1\n3 2", "tokens_across_lines")
    assert compare_output("a b\nc 0.5", b"c 0.5000001\na b", "lines_in_any_order") is None
    assert compare_output("a b\nc", b"c\na b\nc", "lines_in_any_order")
    assert compare_output("a\na\nb", b"a\nb\nb", "lines_in_any_order")
    assert compare_output("0.5", b"0.51", tolerance=0.1) is None


@pytest.mark.parametrize(
    ("want", "found", "is_same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, 1, False),
        (0.5, 0.5000001, True),
        (1, 1.0000001, False),
        ("1", 1, False),
        ([1, 2], [2, 1], False),
        ([1, [2.0]], [1, [2]], True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, None, True),
        (None, 0, False),
        ([], None, False),
        (0.1, float("nan"), False),
        (2**70, 2**70 + 1, False),
    ],
)
def test_values_are_compared_with_their_types(want, found, is_same):
    assert same_value(want, found) is is_same


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": "[1"}, "tests is not valid JSON"),
        ({"tests": []}, "the list is empty"),
        ({"tests": {"inputs": ["1"]}}, "lacks the list 'outputs'"),
        ({"tests": {"inputs": [5], "outputs": ["1"]}}, r"inputs\[0\] is 5;"),
        (
            {"tests": {"inputs": ["1"], "outputs": ["1"], "fn_name": "f"}},
            r"inputs\[0\] is '1'; with fn_name",
        ),
        ({"tests": {"inputs": [[1]], "outputs": [1], "fn_name": "f()"}}, "fn_name is"),
        ({"tests": [{"input": "1"}]}, r"tests\[0\]"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "lacks 'fn_name'"),
        ({"judge": "sets"}, "judge is 'sets', not one of tokens"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"solution": 5}, "solution is 5;"),
        ({"tset": 1}, r"unknown keys \['tset'\]"),
    ],
)
def test_records_that_cannot_be_right_are_refused(change, message):
    faults = check_faults({"kind": "program", "tests": DOUBLE} | change)
    assert faults
    assert re.search(message, "; ".join(faults))


def test_lists_of_lines_and_json_text_are_records_too():
    check = {"kind": "program", "tests": json.dumps({"inputs": [["1", "2"]], "outputs": [["3"]]})}
    assert read_tests(check).cases == [("1\n2", "3")]
    assert check_faults(check) == []


def test_gold_programs_keep_their_fences():
    check = {
        "kind": "program",
        "tests": DOUBLE,
        "solution": 's = """\n```\n"""\nprint(2 * int(input()))',
    }
    (gold,) = gold_solutions(check)
    assert extract_program(gold) == check["solution"] + "\n"


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


NO_TRACES = {
    "files": "import os\nprint(os.listdir('.'), os.stat('.').st_mtime_ns)\nopen('f', 'w').close()",
    "files that are gone": "import os\nprint(os.listdir('.'), os.stat('.').st_mtime_ns)\nopen('f', 'w').close(); os.remove('f')",
    "files that never had a name": (
        "import os\nprint(os.listdir('.'))\ntry: os.write(os.open('.', os.O_TMPFILE | os.O_RDWR), b'x' * 99)\nexcept OSError: pass"
    ),
    "flags and places of descriptors": (
        "import fcntl, os\nfor n in (0, 1): fcntl.fcntl(n, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)\n"
        "os.lseek(0, 0, 2)\nprint('x' * 99)\nos.lseek(1, 0, 0); os.ftruncate(1, 0)"
    ),
    "flags seen": "import fcntl, os\nf = fcntl.fcntl(1, fcntl.F_GETFL); print(f & os.O_APPEND)\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND)",
    "locks": (
        "import fcntl, os\ntry:\n    other = os.open('/proc/self/fd/1', os.O_RDWR)\n    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    os.close(other)\n    print('free')\nexcept OSError as error: print(error)\nfcntl.flock(1, fcntl.LOCK_EX)"
    ),
    "the place of folders": "import os\nprint(os.getcwd() == os.path.realpath('.'), os.umask(0o777))\nos.chdir('/')",
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
        assert opened._channel is None  # opened anew for the next run


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


@pytest.mark.skipif(
    os.getuid() != 0,
    reason="without root there is nothing that others cannot reach and programs must",
)
@pytest.mark.parametrize("tier", [3, 2, 1])
def test_programs_run_with_an_interpreter_that_only_root_can_reach(tmp_path, tier):
    need_tier(tier)
    (tmp_path / "closed").mkdir(mode=0o700)
    venv.create(tmp_path / "closed/env", symlinks=True)
    (packages,) = tmp_path.glob("closed/env/lib/python3*/site-packages")
    (packages / "own").mkdir()
    (packages / "own/__init__.py").write_text("")
    (packages / "own/part.py").write_text("def double(x): return 2 * x\n")
    source = "import csv, encodings.cp1252, json.tool, sqlite3, xml.dom\nfrom own.part import double\nprint(double(int(input())))"
    with Sandbox(tier, str(tmp_path / "closed/env/bin/python")) as opened:
        assert str(packages) in opened.interpreter.closed or f"{packages}/".startswith(
            tuple(opened.interpreter.closed)
        )
        result = check_program(
            {"kind": "program", "tests": DOUBLE}, program(source), opened, LIMITS, 30
        )
        assert result.verdict is Verdict.CORRECT, result


@pytest.mark.parametrize("tier", [3, 2])
def test_workers_run_programs_that_use_numpy(tier):
    need_tier(tier)
    sources = {
        "preloaded": "import numpy as np\nprint(int(np.int64(input()) * 2))",
        "among others": "import sys, numpy\nprint(numpy.sum([int(input())] * 2))",
        "a part that is loaded late": "import numpy as np\nimport numpy.polynomial.chebyshev\nnp.testing.assert_equal(1, 1)\nprint(2 * int(input()))",
        "random": "from numpy.random import default_rng\ndefault_rng(0).random()\nprint(2 * int(input()))",
        "linear algebra": "import numpy as np\nprint(round(np.linalg.solve(np.eye(2) / 2, [int(input())] * 2)[0]))",
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


def test_a_tier_below_the_minimum_is_refused_with_what_is_missing():
    weak = Probe(1, {3: "unshare: Operation not permitted", 2: "landlock: the kernel has none"})
    with pytest.raises(
        ValueError,
        match=r"(?s)tier T1.*below T2.*landlock: the kernel has none.*verify.allow_unsandboxed_code",
    ):
        weak.check(False)
    weak.check(True)
    Probe(MINIMUM_TIER, {}).check(False)


def test_the_probe_tells_tiers_and_why_not(tmp_path):
    need_tier(3)
    found = probe()
    assert found.tier == 3 and found.missing == {}
    assert f"with {sys.executable} ({platform.python_version()}, with numpy)" in found.describe()
    with pytest.raises(
        ValueError, match=f"program_python is {tmp_path}/python, which does not run"
    ):
        probe(str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("holes", "found"),
    [
        ("c.forbid_processes = lambda: None", "start a process"),
        ("c.forbid_processes = c.allow_known_calls = lambda: None", "open a socket"),
    ],
)
def test_a_sandbox_that_does_not_hold_is_no_tier(holes, found):
    # without a seccomp filter a program can do more, and the probe sees it
    code = (
        "from variational_reasoning.verify import probe, sandbox\n"
        f"sandbox.NURSERY = 'import variational_reasoning.verify.confine as c; {holes}; ' + sandbox.NURSERY\n"
        "print(probe.probe())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "tier=3" not in done.stdout and found in done.stdout, done.stdout + done.stderr


def test_limits_are_those_of_one_test():
    assert Limits().wall_seconds == 2 * Limits().cpu_seconds + 1


@pytest.mark.skipif(os.getuid() != 0, reason="all other tests run without root already")
@pytest.mark.parametrize("tier", [3, 2])
def test_tiers_hold_without_root(tier):
    root = Path(__file__).parents[2] / "plugin"
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")  # one that others can read
    if python is None:
        pytest.skip(
            "this machine has no python3 in /usr/local/bin or /usr/bin, where another user could read it"
        )
    code = (
        "import ctypes, os, sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345); os.chdir('/')\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # a process that has changed its user cannot write its own maps
        "from variational_reasoning.verify.probe import probe\n"
        "from variational_reasoning.verify.runner import run_once\n"
        "from variational_reasoning.verify.sandbox import Limits, Sandbox\n"
        f"found = probe(highest={tier})\n"
        "print(found)\n"
        "with Sandbox(found.tier) as sandbox:\n"
        "    print(run_once(sandbox, 'print(int(input()) * 2)', Limits(), b'4').stdout)\n"
        "    print(run_once(sandbox, 'import os; os.kill(os.getppid(), 9)', Limits()).code)\n"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    if "PermissionError" in done.stderr or "No module named" in done.stderr:
        pytest.skip(f"another user cannot read {root}: {done.stderr.strip().splitlines()[-1]}")
    if f"tier={tier}" not in done.stdout:
        pytest.skip(
            f"tier T{tier} is not available without root on this machine: {done.stdout} {done.stderr[-300:]}"
        )
    assert done.stdout.splitlines()[1:] == [r"b'8\n'", "1"], done.stdout + done.stderr
