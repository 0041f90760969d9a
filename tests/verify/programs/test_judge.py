"""Programs that must pass, and what a verdict says."""

import json
from pathlib import Path

import pytest

from variational_reasoning.verify.programs.judge import check_program
from variational_reasoning.verify.sandbox.sandbox import Limits
from variational_reasoning.verify.verdicts import Verdict

from ..conftest import DOUBLE, LIMITS, program

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
    "main guard": (
        "def main():\n    print(2 * int(input()))\nif __name__ == '__main__':\n    main()"
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\n"
        "def f(n): return n and 1 + f(n - 1)\nf(40000)\nprint(2 * int(input()))"
    ),
    "thread for the stack": (
        "import sys, threading\nsys.setrecursionlimit(1 << 20); threading.stack_size(1 << 27)\n"
        "def main(): print(2 * int(input()))\nthreading.Thread(target=main).start()"
    ),
    "stack limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 28, -1))\n"
        "print(2 * int(input()))"
    ),
    "long integers": "x = 7 ** 20000\nassert len(str(x)) > 9000\nprint(2 * int(input()))",
    "numpy": "import numpy as np\nprint(int((np.array([int(input())]) * 2).sum()))",
    "numpy matrix": "import numpy as np\nnp.linalg.inv(np.eye(50)); print(2 * int(input()))",
    "temporary file": (
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f: f.write('x')\n"
        "print(2 * int(input()))"
    ),
    "own file": "open('a.txt', 'w').write(input())\nprint(2 * int(open('a.txt').read()))",
    "rare modules": (
        "import decimal, fractions, unittest, xml.dom, sqlite3, csv, zlib, bz2, "
        "asyncio\nprint(2 * int(input()))"
    ),
    "fast output": (
        "import io, os, sys\nsys.stdout = io.StringIO(); print(2 * int(input()))\n"
        "os.write(1, sys.stdout.getvalue().encode())"
    ),
    "atexit": (
        "import atexit, io, os\nb = io.BytesIO(); b.write(b'%d' % (2 * int(input())))\n"
        "atexit.register(lambda: os.write(1, b.getvalue()))"
    ),
    "annotations": (
        "from __future__ import annotations\n"
        "def f(x: Undefined) -> Unknown: return 2 * x\nprint(f(int(input())))"
    ),
    "text on stderr": "import sys\nprint('debug', file=sys.stderr); print(2 * int(input()))",
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A: x: int\n"
        "print(A(2 * int(input())).x)"
    ),
    "functions in functions": f"f = {'lambda: ' * 80}0\nprint(2 * int(input()))",
    "closes its output": "print(2 * int(input()))\nimport sys\nsys.stdout.close()",
    "closes its streams": (
        "import sys\nprint(2 * int(input()))\nfor s in sys.stdout, sys.stdin, sys.stderr: s.close()"
    ),
    "output that is never closed": (
        "out = open(1, 'w', closefd=False)\nout.write(str(2 * int(input())))"
    ),
    "output that is replaced": (
        "import io, sys\nprint(2 * int(input()))\nsys.stdout = io.StringIO()"
    ),
    "output without a flush": (
        "import sys\nclass Out:\n    write = sys.stdout.write\n"
        "    flush = lambda self: None\nsys.stdout = Out()\nprint(2 * int(input()))"
    ),
    "/dev/stdin": "print(2 * int(open('/dev/stdin').read()))",
    "/dev/fd/0": "import sys\nsys.stdin = open('/dev/fd/0')\nprint(2 * int(input()))",
    "/proc/self/fd/0": "with open('/proc/self/fd/0', 'rb', 0) as f: print(2 * int(f.read()))",
    "/dev/stdin by os.open": (
        "import os\nprint(2 * int(os.read(os.open('/dev/stdin', os.O_RDONLY), 99)))"
    ),
    "/dev/stdin by pathlib": (
        "from pathlib import Path\nprint(2 * int(Path('/dev/stdin').read_text()))"
    ),
    "/dev/stdin by fileinput": (
        "import fileinput\nfor line in fileinput.input('/dev/stdin'): print(2 * int(line))"
    ),
    "/dev/stdin by codecs": (
        "import codecs\nprint(2 * int(codecs.open('/dev/stdin', 'r', 'utf-8').read()))"
    ),
    "/dev/stdout": "with open('/dev/stdout', 'w') as f: f.write(str(2 * int(input())))",
    "/dev/stdout that is never closed": (
        "f = open('/dev/stdout', 'w')\nprint(2 * int(input()), file=f)"
    ),
    "/dev/stdout by os.open": (
        "import os\nos.write(os.open('/dev/stdout', os.O_WRONLY), b'%d' % (2 * int(input())))"
    ),
    "/dev/stderr": "print('debug', file=open('/dev/stderr', 'w'))\nprint(2 * int(input()))",
    "a folder that is removed": (
        "import os, shutil\n"
        "os.makedirs('a/b'); open('a/b/c', 'w').close(); shutil.rmtree('a')\n"
        "print(2 * int(input()))"
    ),
    "pickle": (
        "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A())); print(2 * int(input()))"
    ),
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
    (
        (
            "class Solution:\n    def f(self, x): return x\nif __name__ == '__main__':\n"
            "    print(Solution().f(int(input())))"
        ),
        [[5]],
        [5],
    ),
    (
        (
            "import pickle\nclass A: pass\n"
            "def f(x): return isinstance(pickle.loads(pickle.dumps(A())), A)"
        ),
        [[1]],
        [True],
    ),
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
        "import sys, threading\nsys.setrecursionlimit(10**6)\n"
        "threading.stack_size(1 << 27)\ndef f(n):\n    found = []\n"
        "    def down(n): return n and 1 + down(n - 1)\n"
        "    thread = threading.Thread(target=lambda: found.append(down(n)))\n"
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
        (
            "class Solution:\n    seen = 0\n    @staticmethod\n"
            "    def f(x): return sorted(x, key=cmp_to_key(lambda a, b: b - a))"
        ),
        [[[1, 3]]],
        [[3, 1]],
    ),
    (
        (
            "class Solution:\n    def help(self, x): return gcd(*x)\n"
            "    def f(self, x: Optional[List[int]] = None): return self.help(x)"
        ),
        [[[4, 6]]],
        [2],
    ),
    (
        (
            "from dataclasses import dataclass, field\n@dataclass\nclass A:\n    x: int\n"
            "    y: list = field(default_factory=list)\ndef f(x): return A(x).x"
        ),
        [[5]],
        [5],
    ),
    (
        (
            "def f(n):\n    for row in range(n): n += row\n"
            "    return {'n': n, 'none': None, 'deep': [[]]}"
        ),
        [[3]],
        [{"n": 6, "none": None, "deep": [[]]}],
    ),
    (
        (
            "def f(): return datetime.date(2024, 2, 29).isoformat(), "
            "str(fractions.Fraction(2, 4)), statistics.median([1, 3])"
        ),
        [[]],
        [["2024-02-29", "1/2", 2]],
    ),
]


@pytest.mark.parametrize(("source", "inputs", "outputs"), FUNCTION_CONTROLS)
def test_right_functions_pass(sandbox, source, inputs, outputs):
    check = {"kind": "program", "tests": {"fn_name": "f", "inputs": inputs, "outputs": outputs}}
    result = check_program(check, program(source), sandbox, Limits(), 30)
    assert result.verdict is Verdict.CORRECT, result


STARS = {  # by value, so that a name of another module would be seen
    "ascii_lowercase[:3]": "abc",
    "digits": "0123456789",
    "findall('a+', 'aab')": ["aa"],
    "sub(5, 3)": 2,  # of operator, which LiveCodeBench imports after re
    "namedtuple('P', 'x')(1)": [1],
    "defaultdict(int)[1]": 0,
    "list(merge([1], [0]))": [0, 1],
    "bisect_left([1, 2], 2), insort([1], 2)": [1, None],
    "deepcopy([1])": [1],
    "isqrt(17), prod([2, 3]), dist([0], [1]), pi > 3": [4, 6, 1.0, True],
    "randint(1, 1), shuffle([1])": [1, None],
    "[k for k, _ in groupby('aab')], list(islice([1, 2], 1))": [["a", "b"], [1]],
    "list(zip_longest([1], [])), list(pairwise([1, 2])), list(starmap(max, [(1, 2)]))": [
        [[1, None]],
        [[1, 2]],
        [2],
    ],
    "partial(max, 1)(2)": 2,
    "itemgetter(0)([5]), mul(2, 3)": [5, 6],
    "StringIO('x').read()": "x",
    "maxsize > 9, intern('x')": [True, "x"],
    "loads('[1]'), dumps([1])": [[1], "[1]"],
    "pow(2, 3, 5), open.__name__ != 'open_code', abs(-1)": [3, True, 1],  # of builtins
    "mean([1, 3]), median([1, 2, 9]), mode([1, 1])": [2, 2, 1],
    "timedelta(days=1).days, date(2024, 1, 2).year": [1, 2024],
    "datetime.datetime(2024, 1, 2).year, time.time() > 0": [2024, True],
    "copy.copy([1]), random.Random(0).random() < 1, bisect.bisect([1], 1)": [[1], True, 1],
    "cmath.sqrt(-1).imag, array.array('i', [1]).tolist()": [1.0, [1]],
    "operator.add(1, 2), functools.reduce(add, [1, 2]), io.BytesIO(b'').read() == b''": [
        3,
        3,
        True,
    ],
    "isinstance(1, Hashable) or True, cast(int, 1)": [True, 1],
}


@pytest.mark.parametrize("expression", STARS)
def test_functions_have_the_names_that_their_sites_import(sandbox, expression):
    tests = {"fn_name": "f", "inputs": [[]], "outputs": [STARS[expression]]}
    source = f"def f(): return {expression}"
    result = check_program(
        {"kind": "program", "tests": tests}, program(source), sandbox, Limits(), 30
    )
    assert result.verdict is Verdict.CORRECT, result


def test_scripts_have_none_of_these_names(sandbox):
    check = {"kind": "program", "tests": DOUBLE}
    for name in ("deepcopy", "math", "List", "mean"):
        result = check_program(
            check, program(f"{name}\nprint(2 * int(input()))"), sandbox, LIMITS, 30
        )
        assert result.verdict is Verdict.RUNTIME_ERROR and name in result.reason, result


CASES = [
    json.loads(line) for line in Path(__file__).with_name("cases.jsonl").open(encoding="utf-8")
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['id']} {case['note']}" for case in CASES])
def test_labeled_answers_of_public_bug_reports(sandbox, case):
    check = {"kind": "program"} | {
        key: value for key, value in case.items() if key not in ("id", "note", "right", "answer")
    }
    result = check_program(check, case["answer"], sandbox, Limits(), 60)
    assert (result.verdict is Verdict.CORRECT) == case["right"], result


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
