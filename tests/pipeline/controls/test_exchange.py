"""Traces that are exchanged for others."""

import pytest

from variational_reasoning.pipeline.controls.exchange import (
    KINDS,
    Exchange,
    Trace,
    chain_of,
    closed_trace,
    value_places,
)

OWN = {(f"q{i}", 0): [10 + i, 20 + i, 30 + i, 40 + i] for i in range(20)}


END = [99]


def exchange_of(own, seed: int = 0, **more) -> Exchange:
    closed = {key: Trace(body, END) for key, body in own.items()}
    return Exchange(closed, seed, END, **more)


def traces(kind: str, own=OWN, seed: int = 0, **more) -> dict:
    """The bodies; all but continued ones are closed."""
    exchange, found = exchange_of(own, seed, **more), {}
    for key in own:
        if kind in exchange.kinds_of(key):
            trace = exchange.trace(kind, key)
            assert trace.closing == ([] if kind == "continued" else END)
            found[key] = trace.body
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_is_a_function_of_the_seed(kind):
    chains = {key[0]: Trace([1, 2], END) for key in OWN}
    first, again = (traces(kind, seed=3, chains=chains) for _ in range(2))
    assert first == again and first.keys() == OWN.keys()
    assert OWN["q0", 0] == [10, 20, 30, 40]  # what is given is left as it is
    if kind not in ("own", "again", "none", "chain"):
        assert first != traces(kind, seed=4, chains=chains)


def test_what_each_kind_keeps():
    assert traces("own") == traces("again") == OWN
    assert set(map(tuple, traces("none").values())) == {()}
    donors = traces("donor")
    assert sorted(donors.values()) == sorted(OWN.values())
    assert all(donors[key] != OWN[key] for key in OWN)
    shuffled = traces("shuffled")
    assert all(sorted(shuffled[key]) == sorted(OWN[key]) for key in OWN)
    assert shuffled != OWN
    pieces = {piece for trace in OWN.values() for piece in trace}
    drawn = traces("random")
    assert all(len(trace) == 4 and set(trace) <= pieces for trace in drawn.values())
    for key, trace in traces("replaced").items():
        differs = [new != old for new, old in zip(trace, OWN[key], strict=True)]
        assert differs == [False, False, True, False]


def test_what_is_replaced_is_a_token_that_others_have_at_this_place():
    replaced = traces("replaced")
    assert all(trace[2] in range(30, 50) for trace in replaced.values())
    # Continued: up to the same token; the model writes the rest.
    assert traces("continued") == {key: trace[:3] for key, trace in replaced.items()}
    # Where all have the same there, any other token.
    alike = {("a", 0): [1, 5, 2], ("b", 0): [3, 5, 4]}
    assert all(trace[1] in (1, 2, 3, 4) for trace in traces("replaced", alike).values())


def test_a_chain_is_there_for_some_questions():
    assert traces("chain", chains={"q3": Trace([7, 8], END)}) == {("q3", 0): [7, 8]}


def test_empty_traces_stay_empty():
    empty = {("a", 0): [], ("b", 0): []}
    for kind in KINDS:
        if kind not in ("continued", "chain"):  # nothing to replace, no chain
            assert traces(kind, empty) == empty
    assert traces("continued", empty) == {}


def test_donors_of_several_samples_are_of_another_question():
    own = {("a", 0): [1], ("a", 1): [2], ("b", 0): [3], ("c", 0): [4], ("c", 1): [5]}
    exchange = exchange_of(own)
    giver = {1: "a", 2: "a", 3: "b", 4: "c", 5: "c"}
    donors = {key: giver[exchange.trace("donor", key).body[0]] for key in own}
    assert all(key[0] != donor for key, donor in donors.items())
    # The two samples of a question have the same donor question, and different traces of it where
    # it has two.
    assert donors["a", 0] == donors["a", 1] and donors["c", 0] == donors["c", 1]
    for name in ("a", "c"):
        given = [exchange.trace("donor", (name, k)).body for k in range(2)]
        assert (given[0] != given[1]) == (donors[name, 0] != "b")


TEXTS = ("+", "5", "=1", "*", "4", "=4", "≠")


def decode(ids) -> str:
    return "".join(TEXTS[i] for i in ids)


def test_the_places_of_values():
    places = value_places(r"[-+*]\d=(?P<value>\d)", decode)
    assert places([0, 1, 2, 3, 4, 5]) == [2, 5]
    # Without a step, all places.
    assert list(places([0, 1])) == [0, 1]
    own = {("a", 0): [0, 1, 2, 3, 4, 5], ("b", 0): [0, 1, 5, 3, 4, 2]}
    # The second value is in the middle; the other trace has another one there.
    assert traces("replaced", own, places=places) == {
        ("a", 0): [0, 1, 2, 3, 4, 2],
        ("b", 0): [0, 1, 5, 3, 4, 5],
    }


def test_tokens_that_are_not_whole_characters_have_all_places():
    def halves(ids) -> str:
        return "é" if list(ids) == [0, 1] else "�" * len(list(ids))

    assert list(value_places(r"(?P<value>é)", halves)([0, 1])) == [0, 1]


PIECES = ("It", " is", " 7", ".<|", "end", ".", "<|")


def words(ids) -> str:
    return "".join(PIECES[i] for i in ids)


def test_a_tokenizer_that_merges_the_end_of_a_trace_with_its_tag():
    merged, plain = [0, 1, 2, 3, 4], [0, 1, 2, 5, 6, 4]
    assert closed_trace(merged, "<|end", words) == Trace([0, 1, 2], [3, 4])
    assert closed_trace(plain, "<|end", words) == Trace([0, 1, 2, 5], [6, 4])
    assert closed_trace([6, 4], "<|end", words) == Trace([], [6, 4])
    assert closed_trace([0, 1, 2, 5], "<|end", words) is None
    own = {("a", 0): Trace([0, 1, 2], [3, 4]), ("b", 0): Trace([0, 1, 1, 5], [6, 4])}
    exchange = Exchange(own, 0, [6, 4])
    # The merged token stays with the trace that it is of.
    assert exchange.trace("donor", ("b", 0)) == own["a", 0]
    assert exchange.trace("random", ("a", 0)).closing == [3, 4]
    assert exchange.trace("none", ("a", 0)) == Trace([], [6, 4])
    assert chain_of("It is 7.", "<|end", lambda text: merged, words) == own["a", 0]
