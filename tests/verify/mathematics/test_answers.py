"""Spellings of one answer, and answers that differ in what a careless checker drops.

Every case is our own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.verify.mathematics.answers import compare_plainly, compare_symbolically
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import Verdict

SCRIPT = Path(__file__).parents[3] / "scripts/verify_file.py"


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


SAME = [
    (r"90^\circ", r"{90^\circ}"),
    ("xy = 6", r"\frac{6}{x}"),
    ("y + 1 = -(x - 2)^2", "-x^2 + 4x - 5"),
    (r"2 \arcsin \sqrt{a}", r"\arccos(1 - 2a)"),
    (r"\cos x", r"\sin(90^{\circ} - x)"),
    ("x = 1, y = 2; x = 3, y = 4", "(1, 2), (3, 4)"),
    ("x = 1, y = 2 or x = 3, y = 4", "y = 2, x = 1; y = 4, x = 3"),
    ("(1 + 2x, x)", r"(1 + 2t, t) \text{ for some } t"),
    ("(p, q) = (3, 2)", "p = 3, q = 2"),
    ("7, 9", r"\text{Tom}: 9, \text{Ann}: 7"),
    (r"41.4\%", r"\sqrt{2} - 1"),
    ("2", r"17 \bmod 5 = 2"),
    ("C", "c"),
    ("②③", "2, 3"),
    (r"\begin{cases} x = 1 \\ y = 2 \end{cases}", "x = 1, y = 2"),
    ("½", "1/2"),
    (r"\frac12", "½"),
    ("√3", r"\sqrt{3}"),
    ("2√3", r"2\sqrt{3}"),
    ("x²+1", "x^2+1"),
    ("10⁻³", "10^{-3}"),
    ("１２", "12"),
    ("−5", "-5"),
    ("(−∞, 3]", r"(-\infty,3]"),
    ("π/2", r"\frac{\pi}{2}"),
    ("3×10⁵", r"3 \times 10^5"),
    ("{1,2}∪{3}", r"\{1,2,3\}"),
    ("(-1,0)∪(0,1)", r"(-1,0)\cup(0,1)"),
    ("5 – 3i", "5-3i"),
    ("x≥3", r"[3,\infty)"),
    ("60°", "60"),
    ("60°", r"\frac{\pi}{3}"),
    ("√(2)/2", r"\frac{\sqrt2}{2}"),
    ("∅", r"\emptyset"),
    ("∅", r"\{\}"),
    ("³√2", r"\sqrt[3]{2}"),
    ("θ = π/4", r"\theta=\frac{\pi}{4}"),
    ("1⁄2", "0.5"),
    ("k < -5", r"(-\infty,-5)"),
    (r"\{x | x > 2\}", r"(2,\infty)"),
    (r"\{x \mid -1 < x \le 4\}", "(-1,4]"),
    (r"x < -1 \text{ or } x > 1", r"(-\infty,-1) \cup (1,\infty)"),
    (r"(-\infty,-1) \text{ or } (1,\infty)", r"(-\infty,-1)\cup(1,\infty)"),
    (r"1 \le x \le 2", "[1,2]"),
    (r"\{x|x\neq 2\}", r"(-\infty,2)\cup(2,\infty)"),
    (r"x \neq 2", r"(-\infty,2)\cup(2,\infty)"),
    (r"\mathbb{R} \setminus \{2\}", r"(-\infty,2)\cup(2,\infty)"),
    (r"x \in \mathbb{R}", r"(-\infty,\infty)"),
    (r"\mathbb{R}", r"(-\infty,+\infty)"),
    (r"-3 \leqslant a < 2", r"a \in [-3, 2)"),
    ("2<x<3", "3>x>2"),
    ("1,000", "1000"),
    ("1 000 000", "1000000"),
    (r"1\,000", "1000"),
    ("3,14", "3.14"),
    ("12,5", "12.5"),
    ("1 1/2", "3/2"),
    (r"1\frac{1}{2}", "1.5"),
    (r"-2\frac{1}{3}", r"-\frac73"),
    ("10 weeks", "10"),
    ("12^{th}", "12"),
    ("12th", "12"),
    (r"\$18.90", "18.90"),
    ("18.90 dollars", r"\$18.9"),
    (r"5\text{ cm}", "5"),
    (r"5 \text{ cm}^2", "5"),
    (r"20\%", "0.2"),
    (r"20\%", "20"),
    ("0.5", r"50\%"),
    ("7", r"700\%"),
    (r"\frac{3n+m}{2}", r"\frac{m+3n}{2}"),
    ("ab+2a+5b+10", "(a+5)(b+2)"),
    ("16,3,1,1", "w=16, d=3, a=1, b=1"),
    ("x=2, y=3", "(2,3)"),
    ("(2,3)", "x=2,y=3"),
    ("x=2", "2"),
    ("2", "x=2"),
    ("y=2x+1", "2x+1"),
    ("f(x)=x^2", "x^2"),
    ("x = 1, 2", r"\{1,2\}"),
    (r"x=1 \text{ or } x=2", "1,2"),
    ("x_1=1,x_2=2", "1, 2"),
    (r"\pm 3", "3,-3"),
    ("3,-3", r"\pm3"),
    (r"x=\pm\sqrt2", r"\sqrt2, -\sqrt2"),
    (r"2 \pm \sqrt{3}", r"2-\sqrt{3}, 2+\sqrt{3}"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    ("(1,2)", "1,2"),
    (r"\frac{x^2}{4}+\frac{y^2}{3}=1", "3x^2+4y^2=12"),
    ("y=2x+1", "2x-y+1=0"),
    ("x+y=3", "y=3-x"),
    ("A", "A"),
    ("A", r"\text{(A)}"),
    ("B", "(B) 12"),
    (r"\text{(C)}", "C"),
    ("(A)", "A. 5"),
    ("AC", "A, C"),
    ("ABD", "ABD"),
    ("D", r"\textbf{D}"),
    ("yes", r"\text{Yes}"),
    (r"\text{even}", "even"),
    ("Monday", r"\text{Monday}"),
    ("True", "true"),
    ("85.71", r"\frac{600}{7}"),
    ("0.33", r"\frac13"),
    ("3.14", r"\pi"),
    ("2.5", "2.50"),
    (r"\frac13", "0.333333"),
    ("0.125", r"\frac18"),
    (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+n\pi"),
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    (r"\log_2 8", "3"),
    (r"\ln e", "1"),
    (r"e^{\ln 3}", "3"),
    (r"\sin 30^{\circ}", r"\frac12"),
    (r"\cos\frac{\pi}{3}", "0.5"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    ("2^{10}", "1024"),
    ("2^{-1}", "0.5"),
    ("1+2i", "2i+1"),
    (r"0.\overline{3}", r"\frac13"),
    (r"0.1\dot{6}", r"\frac16"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    (r"\vec{a}=(1,2)", "(1,2)"),
    (r"\langle 1,2\rangle", "(1,2)"),
    ("1:2", r"\frac12"),
    ("2:3", "2/3"),
    ("12:30", "12:30"),
    ("a^2-b^2", "(a-b)(a+b)"),
    (r"\sin^2x+\cos^2x", "1"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sqrt{x^2}", "|x|"),
    ("e", "2.71828"),
    (r"\frac{a}{b}", "a/b"),
    ("a^{b}", "a^b"),
    ("2ab", "2ba"),
    ("n(n+1)/2", r"\frac{n^2+n}{2}"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    ("2^{n+1}-1", r"2\cdot2^n-1"),
    (r"\infty", r"+\infty"),
    ("0", "-0"),
    ("101_2", "101_{2}"),
    ("4210_7", "4210"),
    (r"\text{no solution}", r"\emptyset"),
    (r"\{(1,2),(3,4)\}", "(3,4),(1,2)"),
    (r"25\pi", r"25\pi \text{ square units}"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    ("72", r"72^\circ"),
    (r"5\sqrt{2} \text{ m}", r"5\sqrt2"),
    ("2,3,5", "2, 3, and 5"),
    ("x^2-4", "(x-2)(x+2)"),
    (r"\{2,3\}", r"2 \text{ and } 3"),
    (r"1.23 \times 10^4", "12300"),
    ("1.23e4", "12300"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{-1}{2}", r"\frac{1}{-2}"),
    (r"x \leq 5", "x<=5"),
    ("0.1", r"\frac{1}{10}"),
    ("1", r"\frac{2}{2}"),
    (r"\sqrt[3]{8}", "2"),
    ("8^{1/3}", "2"),
    (r"\frac{1}{3}\pi r^2 h", r"\frac{\pi r^2 h}{3}"),
    ("11", "10+1"),
    (r"\text{three}", "3"),
    ("three", "3"),
    ("twelve", "12"),
    (r"7 \text{ and } 8", "8,7"),
]
DIFFERENT = [
    ("(p, q) = (3, 2)", "(3, 2]"),
    ("3.1416", "3.14152"),
    (r"x \in [-2, 7]", "300"),
    ("(p, q) = (3, 2)", "f(x) = x + 1"),
    ("12:00", r"\frac{10}{9}"),
    ("1,3", r"1.3\%"),
    ("x+1", r"\frac{1}{0}"),
    ("ab", "AB"),
    ("xy = 6", r"\frac{5}{x}"),
    (r"2 \arcsin \sqrt{a}", r"\arccos(1 + 2a)"),
    ("x = 1, y = 2; x = 3, y = 4", "(2, 1), (4, 3)"),
    ("(a, 2a)", "(b, 3b)"),
    ("AC", "A, D"),
    ("⅔", "0.667"),
    ("k<-5", r"k \le -5"),
    ("x>3", r"x\ge 3"),
    ("[1,2]", "(1,2)"),
    ("5 cm", "5 km"),
    ("0.5", "50"),
    ("7", "700"),
    ("100000", "100009"),
    ("123456789", "123456788"),
    ("(a+5)(b+2)", "(+5)(b+2)"),
    (r"2\pm\sqrt3", r"2+\sqrt3"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("1,2,3", "1,2"),
    ("1,2", "1,2,3"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"1,2,\ldots,n", r"1,3,5,\ldots,2n-1"),
    ("4", r"4\sqrt2"),
    (r"3^x \ge x^2", r"3^x \ge x"),
    ("3x-y+13=0", "3x+4y+14=0"),
    (r"\frac{x^2}{16}+\frac{y^2}{12}=1", r"\frac{x^2}{4}+\frac{y^2}{3}=1"),
    ("2x-y=0", "y=3x"),
    ("A", "B"),
    ("A", "A and C"),
    ("A", "A, C"),
    ("Yes", "No"),
    ("Alice", "Bob"),
    ("none", "0"),
    ("3.14", "3.15"),
    ("2", "2.0001"),
    ("3", "2.9999999"),
    ("1.5", "1.49"),
    (r"\frac13", "0.3333"),
    (r"k\pi", r"2k\pi"),
    ("3i", "-3i"),
    ("i", "-i"),
    (r"\overline{3}", "3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    ("1:2", "1:3"),
    ("x+1", "x-1"),
    ("|x|", "x"),
    ("2x+C", "2x"),
    ("e", "2.718"),
    (r"\infty", r"-\infty"),
    ("101_2", "5"),
    ("no real solutions", r"\text{no solution}"),
    ("10^{100}", "10^{99}"),
    ("12345678901234567890", "12345678901234567891"),
    ("(3,4]", "[3,4]"),
    (r"25\pi", "25"),
    ("90", r"\frac{\pi}{2}"),
    ("one half", r"\frac12"),
]


@pytest.fixture(scope="module")
def verdicts():
    """Of every pair, in real workers."""
    with VerifierPool(2, seconds=5) as pool:
        pairs = [(gold, answer) for gold, answer in SAME + DIFFERENT]
        jobs = [Job(pair, {"kind": "math", "gold": pair[0]}, boxed(pair[1])) for pair in pairs]
        return {pair: result.verdict for pair, result in pool.check(jobs)}


@pytest.mark.parametrize("pair", SAME, ids=" = ".join)
def test_spellings_of_one_value(pair, verdicts):
    assert verdicts[pair] is Verdict.CORRECT


@pytest.mark.parametrize("pair", DIFFERENT, ids=" | ".join)
def test_values_that_a_careless_checker_takes_for_one(pair, verdicts):
    assert verdicts[pair] is Verdict.WRONG


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("7", r"\boxed{7}", Verdict.CORRECT),
        ("7", r"\boxed{007.0}", Verdict.CORRECT),
        ("7", r"\boxed{700}", Verdict.WRONG),
        ("0.5", r"\boxed{50}", Verdict.WRONG),
        ("100000", r"\boxed{100009}", Verdict.WRONG),
        ("123456789", r"\boxed{123456788}", Verdict.WRONG),
        ("12", r"\boxed{1,2}", Verdict.WRONG),
        ("1000", r"\boxed{1,000}", Verdict.CORRECT),
        (r"\text{even}", r"\boxed{\text{even}}", Verdict.CORRECT),
        ("7", "the answer is 7", Verdict.NO_ANSWER),
        ("7", r"\boxed{}", Verdict.NO_ANSWER),
        ("x+1", r"\boxed{1+x}", None),
    ],
)
def test_plain_math_is_exact_and_leaves_the_rest(gold, answer, verdict):
    result = compare_plainly([gold], answer)
    assert (result.verdict if result else None) is verdict


@pytest.mark.slow
def test_verdicts_depend_neither_on_workers_nor_on_order_nor_on_the_hash_seed(tmp_path):
    pairs = SAME + DIFFERENT
    found = []
    for workers, seed, order in ((1, "1", 1), (2, "2", -1), (8, "3", 1)):
        rows = [
            {"id": i, "kind": "math", "gold": gold, "answer": boxed(answer)}
            for i, (gold, answer) in enumerate(pairs)
        ][::order]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [
            sys.executable,
            SCRIPT,
            "input=rows.jsonl",
            "output=out.jsonl",
            f"workers={workers}",
            "timeout_seconds=10",
        ]
        subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            timeout=300,
        )
        verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        found.append({row["id"]: (row["verdict"], row["reason"]) for row in verdicts})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(pairs)
