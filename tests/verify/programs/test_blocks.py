"""Which fenced block of an answer is its program."""

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


def test_gold_programs_keep_their_fences():
    check = {
        "kind": "program",
        "tests": DOUBLE,
        "solution": 's = """\n```\n"""\nprint(2 * int(input()))',
    }
    (gold,) = gold_solutions(check)
    assert extract_program(gold) == check["solution"] + "\n"
