"""Where an answer first appears, by hand."""

import pytest
from tests.report.tables import write_traces

from variational_reasoning.report.leakage import (
    final_answer,
    first_appearance,
    measure_leakage,
    read_leakage,
)


@pytest.mark.parametrize(
    ("trace", "answer", "expected"),
    [
        ("x is 7, so", "7", (5 / 10, True)),
        ("17 and 71 and 7", "7", (14 / 15, True)),
        ("2.7 or 7.2", "7", None),
        ("so it is 7.", "7", (9 / 11, True)),
        ("70", "7", None),
        (r"thus \frac{1}{2}", r"\frac{1}{2}", (5 / 16, True)),
        (r"\frac {1} {2} then", r"\frac{1}{2}", (0.0, False)),
        ("so x = 5 holds", "x=5", (2 / 10, False)),  # sox=5holds: 2 of 10 characters before it
        ("so x = 55", "x=5", None),
        ("1 2", "12", None),
        ("", "7", None),
    ],
)
def test_first_appearance(trace, answer, expected):
    assert first_appearance(trace, answer) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_final_answers():
    assert final_answer(r"so \boxed{1} and \boxed{ 7 }", {"kind": "math", "gold": "7"}) == "7"
    assert final_answer("no box", {"kind": "exact", "gold": " B "}) == "B"
    assert final_answer("def f(): ...", {"kind": "programs"}) is None
    assert final_answer(r"\boxed{}", {"kind": "math"}) is None


def test_measures_by_hand():
    found = measure_leakage(
        [("a", "7 at once"), ("a", "only at the end 7"), ("a", "8"), ("b", "7"), ("a", "")],
        {"a": "7"},
    )
    assert found.fractions.tolist() == [0.0, 16 / 17]
    assert (found.num_traces, found.num_literal, found.num_normalized) == (3, 2, 0)
    assert found.share_by(0.1) == pytest.approx(1 / 3)
    assert found.share_by(1.0) == pytest.approx(2 / 3)


def test_kinds_of_traces_of_a_run(tmp_path):
    assert read_leakage(tmp_path) == ({}, 0)
    write_traces(
        tmp_path, {"q0": ""}, {("q0", 0): {"text": "7 first"}, ("q0", 1): {"is_well_formed": False}}
    )
    found, num_without = read_leakage(tmp_path)
    assert num_without == 0
    assert {kind: leakage.num_traces for kind, leakage in found.items()} == {
        "posterior": 1,
        "training traces": 1,
    }
    # "an expert finds 7": after 16 of 17 characters
    assert found["training traces"].fractions.tolist() == [16 / 17]
