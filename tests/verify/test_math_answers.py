"""Spellings of one answer, and answers that differ in what a careless checker drops. Every case is our own."""

import time

import pytest

from variational_reasoning.verify.mathematics.answers import compare_plainly, compare_symbolically
from variational_reasoning.verify.mathematics.extraction import bare_answer
from variational_reasoning.verify.mathematics.numbers import explodes
from variational_reasoning.verify.verdicts import Verdict


def boxed(answer):
    return f"\\boxed{{{answer}}}"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\begin{pmatrix} 1 \\ -2 \\ 3 \end{pmatrix}", "(1, -2, 3)"),
        ("(1, -2)", r"\begin{bmatrix} 1 & -2 \end{bmatrix}"),
        (r"\begin{array}{c} 1 \\ 2 \end{array}", "(1,2)"),
        (r"12.5\%", r"\frac{1}{8}"),
        (r"16.67\%", r"\frac16"),
        (r"\frac{1}{512}", r"1.953125 \times 10^{-3}"),
        (r"\frac{1}{7}", r"1.42857143 \cdot 10^{-1}"),
        ("3rd Street", "3"),
        ("11 Rows", "11"),
        ("infinitely many", r"\infty"),
        (r"\infty", r"\text{infinitely many}"),
        ("y != 4", r"y \neq 4"),
        (r"y \ne4", r"y \neq 4"),
        (r"\frac{a+1}b", r"\frac{a+1}{b}"),
        (r"\frac a b", r"\frac{a}{b}"),
        (r"\sqrt x", r"\sqrt{x}"),
        (r"(1, 3), (1, -3)", r"(1, \pm 3)"),
        ("(2,5),(2,-5),(-2,5),(-2,-5)", r"(\pm 2, \pm 5)"),
        (r"x = k\pi", r"n\pi"),
        (r"\frac{\pi}{4} + k\pi", r"\frac{\pi}{4} + n \pi"),
    ],
)
def test_these_are_the_same(gold, answer):
    assert compare_plainly([gold], boxed(answer)).verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", "(-2, 1)"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1, 2, 3)"),
        (r"16.67\%", r"\frac15"),
        (r"16.67\%", r"16.67"[::-1]),
        (r"\frac{1}{512}", r"1.953125 \times 10^{-2}"),
        (r"\frac{1}{7}", r"1.43 \times 10^{-1}"),
        ("11 Rows", "12"),
        ("(1, 3), (1, -3)", r"(\pm 1, 3)"),
        ("(2,5),(-2,-5)", r"(\pm 2, \pm 5)"),
        (r"x = k\pi", r"2n\pi"),
        ("y != 4", "y = 4"),
    ],
)
def test_these_are_not(gold, answer):
    result = compare_plainly([gold], boxed(answer))
    assert result is None or result.verdict is Verdict.WRONG
    assert compare_symbolically([gold], boxed(answer)).verdict is not Verdict.CORRECT


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("ab(ax - ay - b)", "ab(a(x - y) - b)", "correct"),
        (r"\frac{b x (c - x)}{c}", r"\frac{bx}{c}(c - x)", "correct"),
        ("ab(ax - ay - b)", "ab(a(x - y) + b)", "wrong"),
        ("f(x) + 1", "f(x + 1)", "wrong"),
        (r"\frac{n!}{k!(n-k)!}", r"\frac{n!}{(n-k)! k!}", "correct"),
    ],
)
def test_letters_before_brackets_and_symbolic_factorials(gold, answer, verdict):
    assert compare_symbolically([gold], boxed(answer)).verdict.value == verdict


def test_an_answer_that_cannot_be_read_is_wrong_when_the_gold_can():
    assert compare_symbolically(["x+1"], boxed(r"\frac{x+}{\sqrt}")).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12", "12"),
        ("$5$ cm", "$5$ cm"),
        ("We see that the sum is $12$.", "12"),
        (r"Therefore \(y \ge 3\) holds.", r"y \ge 3"),
        ("Answer: 12 apples", "12 apples"),
        ("It took 3 steps. Final Answer: The final answer is $12$. I hope it is correct.", "$12$"),
        (r"3 \text{ red and } 4 \text{ blue balls of each kind}", r"3 \text{ red and } 4 \text{ blue balls of each kind}"),
        ("First $3$, then $4$, and so on", None),
        ("The answer is one of the numbers above", None),
        ("Hence there are 12 of them", None),
        (r"\boxed{3}", None),
        ("", None),
        ("answer is " * 20, None),
    ],
)
def test_the_answer_of_a_text_without_a_box(text, answer):
    assert bare_answer(text) == answer


@pytest.mark.parametrize("text", ["$ ", r"\( ", r"\[ ", "answer is ", "~", "$x$ ", "(a", " "])
def test_long_texts_are_read_in_time(text):
    start = time.process_time()
    bare_answer(text * (20_000 // len(text)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "is_large"), [("(n-k)!", False), ("(2n+1)!", False), ("(10^{10})!", True), ("(n-1)!!", True), ("(99999-n)!", True)]
)
def test_factorials_that_must_not_be_computed(text, is_large):
    assert explodes(text) is is_large
