"""Numbers exactly, and those that are not computed."""

from fractions import Fraction

import pytest

from variational_reasoning.verify.mathematics.answers import exact_number
from variational_reasoning.verify.mathematics.numbers import explodes, is_rounding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", Fraction(7)),
        ("-7", Fraction(-7)),
        ("$1,000$", Fraction(1000)),
        ("0.50", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        ("3/6", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        ("1,2", None),
        ("12,34", None),
        ("1/0", None),
        ("1e5", Fraction(100000)),
        ("", None),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"0.1\dot{6}", Fraction(1, 6)),
        (r"1.2\overline{34}", Fraction(1222, 990)),  # 1.2 + 34/990
        ("1.5e3", Fraction(1500)),
        ("2½", Fraction(5, 2)),
        ("9" * 5000, None),
    ],
)
def test_exact_numbers(text, value):
    assert exact_number(text) == value


@pytest.mark.parametrize(
    ("text", "is_large"),
    [
        ("(n-k)!", False),
        ("(2n+1)!", False),
        ("(10^{10})!", True),
        ("(n-1)!!", True),
        ("(99999-n)!", True),
    ],
)
def test_factorials_that_must_not_be_computed(text, is_large):
    assert explodes(text) is is_large


@pytest.mark.parametrize(
    ("gold", "exact", "expected"),
    [
        ("0.33", Fraction(1, 3), True),
        ("0.34", Fraction(1, 3), False),
        ("0.3", Fraction(1, 3), False),  # one digit says too little
        ("41.49", Fraction(41495, 1000), True),
        ("41.494", Fraction(414949, 10000), True),  # cut instead of rounded: five digits
        ("4.14", Fraction(4149, 1000), False),  # cut, and only three
        ("3.1416", Fraction("3.14152"), False),  # rounded and cut it is 3.1415
    ],
)
def test_a_decimal_gold_and_an_exact_answer(gold, exact, expected):
    assert is_rounding(gold, Fraction(gold), str(exact), exact) is expected
