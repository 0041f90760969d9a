"""Verdicts of the cheap checks, by hand, and the refusals of checks that cannot be right."""

import json

import pytest

from variational_reasoning.verify.checks import (
    check_faults,
    check_inline,
    gold_solutions,
    parse_check,
)
from variational_reasoning.verify.countdown import check_countdown
from variational_reasoning.verify.verdicts import Result, Verdict


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("5", " 5\n", Verdict.CORRECT),
        ("a b", "a  b", Verdict.CORRECT),
        ("5", "5 5", Verdict.WRONG),
        ("5", "05", Verdict.WRONG),
        ("5", "", Verdict.NO_ANSWER),
        ("5", "  ", Verdict.NO_ANSWER),
        ("5", None, Verdict.NO_ANSWER),
    ],
)
def test_exact_compares_tokens(gold, answer, verdict):
    assert check_inline({"kind": "exact", "gold": gold}, answer).verdict is verdict


def test_exact_after_a_text_compares_what_follows_its_last_place():
    check = {"kind": "exact", "gold": "42", "after": "####"}
    assert not check_faults(check)
    found = [check_inline(check, text).verdict for text in ("6*7 #### 42", "#### 4 #### 42", "42")]
    assert found == [Verdict.CORRECT, Verdict.CORRECT, Verdict.MALFORMED]
    assert check_inline(check, "#### 42 dollars").verdict is Verdict.WRONG
    [gold] = gold_solutions(check)
    assert check_inline(check, gold).verdict is Verdict.CORRECT
    assert check_faults(check | {"after": " "}) == [
        "after is ' '; it must be a text that is not empty"
    ]


def test_any_of_several_golds_is_enough():
    check = {"kind": "exact", "gold": ["5", "five"]}
    assert [check_inline(check, text).verdict.value for text in ("five", "5", "six")] == [
        "correct",
        "correct",
        "wrong",
    ]


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ("(3+4)*5", Verdict.CORRECT, ""),  # 7 * 5 = 35
        (r"so \boxed{(3 + 4) \times 5 = 35}", Verdict.CORRECT, ""),
        ("5*(4--3)", Verdict.CORRECT, ""),  # 5 * (4 + 3)
        ("3*4*5", Verdict.WRONG, "equals 60, not 35"),
        ("7*5", Verdict.WRONG, "uses 7 more often than it is given"),
        ("5*5+3+4", Verdict.WRONG, "uses 5 more often"),
        ("(3+4)*5 = 36", Verdict.WRONG, "the right-hand side '36'"),
        ("5/(3-3)", Verdict.WRONG, "uses 3 more often"),
        ("5/(4-4)", Verdict.WRONG, "uses 4 more often"),
        ("35", Verdict.WRONG, "uses 35"),
        ("", Verdict.NO_ANSWER, "empty"),
        ("3**4", Verdict.MALFORMED, "cannot be parsed"),
        ("3//4", Verdict.MALFORMED, "cannot be parsed"),
        ("3,4", Verdict.MALFORMED, "more than integers"),
        ("(3+4", Verdict.MALFORMED, "cannot be parsed"),
        ("__import__('os').system('true')", Verdict.MALFORMED, "more than integers"),
        ("9" * 500, Verdict.MALFORMED, "500 characters"),
        ("(" * 300 + "3" + ")" * 99, Verdict.MALFORMED, "cannot be parsed"),
        ("-" * 399 + "3", Verdict.WRONG, "equals -3"),
        ("3()", Verdict.MALFORMED, "cannot be parsed"),
    ],
)
def test_countdown(answer, verdict, reason):
    result = check_countdown([3, 4, 5], 35, answer)
    assert result.verdict is verdict, result
    assert reason in result.reason


def test_countdown_divides_exactly_and_by_zero():
    assert check_countdown([1, 3, 3], 1, "1/3*3").verdict is Verdict.CORRECT
    assert check_countdown([5, 3, 3], 5, "5/(3-3)") == Result(Verdict.WRONG, "divides by zero")


def test_countdown_may_demand_every_number():
    assert check_countdown([3, 4, 5], 7, "3+4").verdict is Verdict.CORRECT
    assert check_countdown([3, 4, 5], 7, "3+4", use_all=True) == Result(
        Verdict.WRONG, "does not use 5"
    )


def test_kind_none_is_unverifiable_and_says_why():
    assert check_inline({"kind": "none"}, "5") == Result(
        Verdict.UNVERIFIABLE, "the data give nothing to verify against"
    )


def test_a_verdict_has_no_truth_value():
    with pytest.raises(TypeError, match="write `verdict is Verdict"):
        bool(Verdict.RUNTIME_ERROR)


def test_golds_are_put_into_the_form_that_their_check_accepts():
    checks = [
        {"kind": "math", "gold": ["7", r"\frac{1}{2}"]},
        {"kind": "exact", "gold": "5"},
        {"kind": "countdown", "numbers": [3, 4], "target": 7, "gold": "3+4"},
    ]
    assert [gold_solutions(check) for check in checks] == [
        [r"\boxed{7}", r"\boxed{\frac{1}{2}}"],
        ["5"],
        ["3+4"],
    ]
    for check in checks:
        assert check_faults(check) == []
        for solution in gold_solutions(check):
            assert check_inline(check, solution).verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ([], r"check is \[\], not an object"),
        (
            {"kind": "maths", "gold": "7"},
            "check kind 'maths' is not one of math, exact, countdown, program, reasoning_gym, none",
        ),
        ({"kind": "math"}, "check of kind math lacks 'gold'"),
        ({"kind": "math", "gold": ""}, "gold is ''"),
        ({"kind": "math", "gold": 7}, "gold is 7"),
        ({"kind": "exact", "gold": []}, r"gold is \[\]"),
        ({"kind": "exact", "gold": "1", "glod": "2"}, r"unknown keys \['glod'\]"),
        ({"kind": "countdown", "numbers": [1, "2"], "target": 3}, r"numbers is \[1, '2'\]"),
        ({"kind": "countdown", "numbers": [1, 2], "target": 3.0}, "target is 3.0"),
        ({"kind": "countdown", "numbers": [1, 2], "target": 3, "use_all": 1}, "use_all is 1"),
    ],
)
def test_checks_that_cannot_be_right_are_refused(check, message):
    with pytest.raises(ValueError, match=message):
        parse_check(json.dumps(check))


def test_check_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="check is not valid JSON"):
        parse_check("{'kind': 'math'}")
