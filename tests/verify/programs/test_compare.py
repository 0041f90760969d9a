"""Outputs of scripts and results of functions against what is expected."""

import pytest

from variational_reasoning.verify.programs.compare import compare_output, same_value


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
    ("expected", "output", "is_same"),
    [
        ("15", "15.0", True),
        ("15 2\n3", "15.00 2e0\n03", True),
        ("15", "15.5", False),
        ("15", "15.0000001", False),
        ("15.0", "15.0000001", True),  # a float is expected
        ("case 15", "case 15.0", False),  # not a line of numbers
        ("50000000000000003", "50000000000000004.0", False),
        ("15", "1_5", False),
        ("15", "１５", False),
        ("1", "True", False),
        ("1 2", "1.0", False),
        ("1", "nan", False),
        ("1", "1e" + "9" * 30, False),
        ("1", "1e999999999999", False),
        ("1", "1." + "0" * 5000, False),
    ],
)
def test_lines_of_numbers_are_compared_by_value_where_the_judge_says_so(expected, output, is_same):
    assert (compare_output(expected, output.encode(), "lines_by_value") is None) == is_same


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
