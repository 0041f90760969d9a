"""Which fenced block of an answer is its program."""

import time

import pytest

from variational_reasoning.verify.checks import gold_solutions
from variational_reasoning.verify.programs.blocks import extract_program

from ..conftest import DOUBLE


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
        ("  ```python\n  1\n  ```", "1\n"),
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


def test_gold_programs_keep_their_fences():
    check = {
        "kind": "program",
        "tests": DOUBLE,
        "solution": 's = """\n```\n"""\nprint(2 * int(input()))',
    }
    (gold,) = gold_solutions(check)
    assert extract_program(gold) == check["solution"] + "\n"


TAGS = (
    "python python3 py py3 Python PYTHON python3.11 python3.11.4 python,linenos "
    "python:main.py python=1 python{1,3} pypy3 "
)
TAGS += "{python} {.python} language-python main.py src/main.py"
OTHER_TAGS = (
    "python2 python2.7 py2 python-repl pycon python-traceback pytb pyx cython text "
    "output bash console c++ pythonic"
)


@pytest.mark.parametrize(
    "tag", [*TAGS.split(), "{.python .numberLines}", "python title=x", " python", "python 3"]
)
def test_tags_of_python(tag):
    assert extract_program(f"```{tag}\nprint(1)\n```") == "print(1)\n"


@pytest.mark.parametrize("tag", OTHER_TAGS.split())
def test_tags_of_other_languages(tag):
    assert extract_program(f"```{tag}\nprint(1)\n```") is None


RIGHT = "n = int(input())\nprint(2 * n)"
FENCED = f"```python\n{RIGHT}\n```\n"
UNNAMED = f"```\n{RIGHT}\n```\n"


@pytest.mark.parametrize("program", [FENCED, UNNAMED])
@pytest.mark.parametrize(
    "rest",
    [
        "It prints\n```\n6\n```",
        "```\nO(n)\n```",
        "```\nlen(a) <= 10 ** 5\n```",
        "```\nx = 5\n```",
        "```\nYES\nNO\n```",
        "Input:\n```\n3\n4 5 6\n```\nOutput:\n```\n15\n```",
        "```\nfor each i: total += i, in O(n)\n```",
        "```text\n6\n```",
        "```\n$ python main.py < in.txt\n```",
        "```python\n>>> double(3)\n6\n```",
        "```python\n6\n```",
        "```\n```",
        '```\nTraceback (most recent call last):\n  File "a.py", line 2\n    print(\n```',
    ],
)
def test_a_block_that_does_nothing_is_not_the_program(program, rest):
    assert extract_program(program + rest) == RIGHT + "\n"
    if "$" not in rest and ">>>" not in rest:
        assert extract_program(rest + "\n" + program) == RIGHT + "\n"


@pytest.mark.parametrize(
    "last",
    [
        "print(max(map(int, input().split())))",
        "print(3 * n)",  # a line of the program above, which does not run by itself
        "import sys\nsys.stdout.write('7')",
        "def solve(): pass",
        "def solve(:",
        "print(",
        "open(1, 'w').write('7')",
        "exec('x')",
    ],
)
@pytest.mark.parametrize("fence", ["```python", "```"])
def test_a_later_program_counts_although_it_is_wrong(fence, last):
    assert extract_program(f"{FENCED}Or rather:\n{fence}\n{last}\n```") == last + "\n"


FUNCTION = "def f(n):\n    return 2 * n"
CLASS = "class Solution:\n    def f(self, n):\n        return 2 * n"


@pytest.mark.parametrize(
    ("program", "example"),
    [
        (FUNCTION, "print(f(5))  # 10"),
        (FUNCTION, "assert f(5) == 10\nfor n in range(3):\n    print(n, f(n))"),
        (CLASS, "s = Solution()\nprint(s.f(5))"),
        (CLASS, "f = Solution().f\nprint(f(5))"),
        ("f = lambda n: 2 * n", "print(f(5))"),
        (
            "from functools import cache\n@cache\ndef f(n): return 2 * n",
            "print([f(n) for n in (1, 2)])",
        ),
    ],
)
def test_an_example_call_is_not_the_program(program, example):
    for fence in ("```python", "```"):
        text = f"```python\n{program}\n```\nExample:\n{fence}\n{example}\n```"
        assert extract_program(text, "f") == extract_program(text) == program + "\n"


def test_the_program_of_a_function_is_the_last_block_that_defines_it():
    helper = "def g(n):\n    return n"
    later = "def f(n):\n    return 3 * n"
    blocks = [FUNCTION, helper, later, "def test():\n    assert f(1) == 2", "12"]
    text = "".join(f"```python\n{block}\n```\n" for block in blocks)
    assert extract_program(text, "f") == later + "\n"
    assert extract_program(text, "g") == helper + "\n"
    assert extract_program(text, "h") == blocks[3] + "\n"
    broken = text + "```python\ndef f(n:\n```"  # may have been meant to define it
    assert extract_program(broken, "f") == "def f(n:\n"


@pytest.mark.parametrize(
    "text",
    [
        "1. Code:\n\n   ```python\n   n = int(input())\n   print(2 * n)\n   ```\n",
        "- ```python\n  n = int(input())\n  print(2 * n)\n  ```\n",
        "10) ```python\n    n = int(input())\n    print(2 * n)\n    ```\n",
        "\t```python\n\tn = int(input())\n\tprint(2 * n)\n\t```\n",
        "   ```python\nn = int(input())\nprint(2 * n)\n   ```\n",
        "```python\n    n = int(input())\n    print(2 * n)\n```\n",
    ],
)
def test_a_fence_in_a_list_item_is_unindented(text):
    assert extract_program(text) == RIGHT + "\n"


def test_a_fence_in_a_docstring_belongs_to_the_program():
    program = 'def f(n):\n    """Doubles.\n\n    ```\n    f(1)\n    ```\n    """\n    return 2 * n'
    assert extract_program(f"```python\n{program}\n```") == program + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20000,
        "-" * 9000 + "1",
        "lambda: " * 5000,
        "a." * 90000,
        "not " * 20000,
        "[" * 150,
        "x = 1\n" * 50000,
        "f(" * 90,
        "\x00",
        "if x:\n" + " " * 90000,
        "{" * 100 + "a:",
        "a" * 90000,
        "'" * 90001,
    ],
)
def test_texts_that_are_hard_to_parse_do_no_harm(text):
    start = time.monotonic()
    assert extract_program(f"{FENCED}```python\n{text}\n```") is not None
    assert time.monotonic() - start < 10
