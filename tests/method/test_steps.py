"""Steps of a verbal chain: where they are, the paper's random symbols, mutual information."""

import random

import pytest

from variational_reasoning.method.steps import (
    Step,
    chance_information,
    check_pattern,
    entropy,
    mutual_information,
    random_symbols,
    split_steps,
    values_only,
)

CHAIN = r"[-+*]\d=(?P<value>\d)"


def test_steps_of_a_chain_have_places_and_values():
    assert split_steps("+5=1*4=4", CHAIN) == [
        Step("+5=1", 0, 4, "1"),
        Step("*4=4", 4, 8, "4"),
    ]


def test_lines_are_the_default_and_blank_lines_belong_to_the_step_before():
    text = "\n\nFirst, 3.\n\n  Then 4.\nSo 7"
    steps = split_steps(text)
    assert [step.text for step in steps] == ["First, 3.\n\n", "  Then 4.\n", "So 7"]
    assert all(text[step.start : step.stop] == step.text for step in steps)
    assert {step.value for step in steps} == {None}
    assert split_steps(" \n ") == []


def test_values_keep_the_text_that_marks_them():
    trace = "+5=1*4=4"
    assert values_only(trace, split_steps(trace, CHAIN)) == "=1=4"
    with pytest.raises(ValueError, match="has no value"):
        values_only("a", split_steps("a"))


@pytest.mark.parametrize(("pattern", "reason"), [("(", "not a regular"), ("a*", "empty text")])
def test_a_pattern_that_cannot_be_used_is_named(pattern, reason):
    with pytest.raises(ValueError, match=reason):
        check_pattern(pattern)


def test_random_symbols_follow_the_papers_rule():
    # A step of 3 tokens gets 1 symbol, one of 10 tokens 1 to 5; a step of 1 token gets 1.
    counts = set()
    for seed in range(200):
        symbols = random_symbols([3, 10, 1], 64, 128, random.Random(seed))
        counts.add(len(symbols))
        assert all(0 <= symbol < 64 for symbol in symbols)
    assert counts == {3, 4, 5, 6, 7}
    assert random_symbols([100] * 5, 64, 8, random.Random(0)).__len__() <= 8
    once, again = (random_symbols([30], 64, 16, random.Random(1)) for _ in range(2))
    assert once == again


def test_mutual_information():
    assert mutual_information([(0, "x"), (1, "y")]) == pytest.approx(1.0)
    assert mutual_information([(0, "x"), (0, "y"), (1, "x"), (1, "y")]) == 0
    # P(a = b) = 3/4 of one bit: 1 - H(1/4) = 1 - 0.8113
    pairs = [(0, 0)] * 3 + [(0, 1)] + [(1, 1)] * 3 + [(1, 0)]
    assert mutual_information(pairs) == pytest.approx(0.1887, abs=1e-4)
    assert mutual_information([]) == 0
    assert entropy("aabb") == pytest.approx(1.0)
    assert entropy("") == 0


def test_information_by_chance():
    """Four pairs of different values always tell each other all, whatever is paired with what."""
    assert chance_information([(n, n) for n in range(4)]) == pytest.approx(2.0)
    rng = random.Random(0)
    pairs = [(rng.randrange(2), rng.randrange(2)) for _ in range(2000)]
    assert 0 <= chance_information(pairs) < 0.005
    assert chance_information(pairs) == chance_information(pairs)
    assert chance_information([(0, 0), (1, 1)] * 50) < 0.1 < mutual_information([(0, 0), (1, 1)])
