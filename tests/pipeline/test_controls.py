"""Traces that are exchanged for others, and what becomes of the answers."""

import pytest

from variational_reasoning.pipeline.controls import KINDS, describe_controls, exchange

OWN = {f"q{i}": [10 + i, 20 + i, 30 + i, 40 + i] for i in range(20)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_is_a_function_of_the_seed(kind):
    first, again = exchange(kind, OWN, seed=3), exchange(kind, OWN, seed=3)
    assert first == again and first.keys() == OWN.keys()
    assert OWN["q0"] == [10, 20, 30, 40]  # what is given is left as it is


def test_what_each_kind_keeps():
    assert exchange("own", OWN, 0) == OWN
    assert set(map(tuple, exchange("none", OWN, 0).values())) == {()}
    donors = exchange("donor", OWN, 0)
    assert sorted(donors.values()) == sorted(OWN.values())
    assert all(donors[name] != OWN[name] for name in OWN)
    shuffled = exchange("shuffled", OWN, 0)
    assert all(sorted(shuffled[name]) == sorted(OWN[name]) for name in OWN)
    assert shuffled != OWN
    pieces = {piece for trace in OWN.values() for piece in trace}
    drawn = exchange("random", OWN, 0)
    assert all(len(trace) == 4 and set(trace) <= pieces for trace in drawn.values())
    for name, trace in exchange("replaced", OWN, 0).items():
        differs = [new != old for new, old in zip(trace, OWN[name], strict=True)]
        assert differs == [False, False, True, False]


def test_empty_traces_stay_empty():
    empty = {"a": [], "b": []}
    for kind in KINDS:
        assert exchange(kind, empty, 0) == empty


def test_the_table_says_what_is_left():
    kinds = {"own": {"accuracy": 0.9, "standard_error": 0.01, "changed": 0.0}}
    kinds["none"] = {"accuracy": 0.125, "standard_error": None, "changed": 0.8}
    result = {"num_questions": 8, "num_without_trace": 2, "kinds": kinds}
    assert describe_controls("m", result).splitlines() == [
        "m: 8 questions, 2 without a closed trace",
        "",
        "| trace | accuracy | answers that change |",
        "|---|---|---|",
        "| own | 90.0 ± 1.0 | 0 % |",
        "| none | 12.5 ± 0.0 | 80 % |",
    ]
