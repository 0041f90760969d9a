"""Abstract traces that have become alike."""

import math

import pytest

from variational_reasoning.pipeline.collapse import collapse_faults, variety
from variational_reasoning.pipeline.config import CollapseConfig

END = 9


def rows(traces: dict[str, list[tuple[int, ...]]]) -> list[dict]:
    return [
        {"question_id": name, "trace_id": k, "token_ids": [*trace, END]}
        for name, group in traces.items()
        for k, trace in enumerate(group)
    ]


def test_the_figures_by_hand():
    found = variety(rows({"a": [(1, 2), (1, 2)], "b": [(1, 2), (1, 3)]}))
    assert found.num_questions == 2 and found.num_symbols == 3
    assert found.distinct == 1 / 2 and found.per_question == 3 / 4
    # 1, 2 and 3 occur 4, 3 and 1 of 8 times
    expected = 4 / 8 * 1 + 3 / 8 * math.log2(8 / 3) + 1 / 8 * 3
    assert found.entropy == pytest.approx(expected, abs=1e-12)
    assert found.lengths == (2.0, 2.0, 2.0)
    assert "3 in use, 1.41 bits each; length 2 / 2 / 2" in found.describe()
    assert variety([]) is None


def test_lengths_are_those_of_symbols():
    lengths = {f"q{count:02}": [tuple(range(count))] for count in range(11)}
    assert variety(rows(lengths)).lengths == (1.0, 5.0, 9.0)


LIMITS = CollapseConfig()


def test_a_constant_trace_is_named_and_different_ones_are_not():
    constant = variety(rows({f"q{i}": [(1, 1, 1)] for i in range(40)}))
    faults = collapse_faults(constant, LIMITS)
    assert len(faults) == 2
    assert faults[0].startswith("2.5% of the questions' first traces are different")
    assert faults[1].startswith("a symbol has 0.00 bits")
    different = variety(rows({f"q{i}": [(i % 8, i // 8)] for i in range(40)}))
    assert different.distinct == 1 and not collapse_faults(different, LIMITS)


def test_few_questions_are_not_judged():
    few = variety(rows({f"q{i}": [(1, 1)] for i in range(19)}))
    assert few.distinct < 0.1 and not collapse_faults(few, LIMITS)


@pytest.mark.parametrize(
    "limits, fault",
    [
        ({"per_question_at_least": 0.6}, "50.0% of a question's own traces are different"),
        ({"entropy_at_most": 2.9}, "a symbol has 3.00 bits (sampling.collapse.entropy_at_most"),
        ({"length_at_least": 3}, "a trace in ten has 2 symbols or fewer"),
        ({"length_at_most": 1}, "a trace in ten has 2 symbols or more"),
        ({"symbols_at_least": 9}, "8 symbols are in use"),
    ],
)
def test_every_named_range(limits, fault):
    # 32 questions with two equal traces each; every one of 8 symbols occurs equally often.
    traces = {f"q{i:02}": [(i % 8, (i + 1 + i // 8) % 8)] * 2 for i in range(32)}
    found = variety(rows(traces))
    assert not collapse_faults(found, LIMITS)
    faults = collapse_faults(found, CollapseConfig(**limits))
    assert len(faults) == 1 and faults[0].startswith(fault)
    [(key, limit)] = limits.items()
    assert faults[0].endswith(f"sampling.collapse.{key} {limit})")
