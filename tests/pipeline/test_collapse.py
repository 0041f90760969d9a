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
