"""Traces that are exchanged for others, and what becomes of the answers."""

import pytest

from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.controls import KINDS, ask, describe_controls, exchange
from variational_reasoning.pipeline.engines import text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import read_rows

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
    own = {"accuracy": 0.9, "standard_error": 0.01, "changed": 0.0, "unanswered": 0.02}
    none = {"accuracy": 0.125, "standard_error": None, "changed": 0.8, "unanswered": 1.0}
    counts = {"num_questions": 8, "num_without_trace": 2, "num_without_room": 1}
    result = counts | {"kinds": {"own": own, "none": none}}
    assert describe_controls("m", result).splitlines() == [
        "m: 8 questions, 2 without a closed trace, 1 without room for an answer",
        "",
        "| trace | accuracy | answers that change | not answered |",
        "|---|---|---|---|",
        "| own | 90.0 ± 1.0 | 0 % | 2 % |",
        "| none | 12.5 ± 0.0 | 80 % | 100 % |",
    ]


def test_all_kinds_have_the_same_questions(tiny_model_dir, make_run, tmp_path):
    """A question that has no room is left out; answers that are not closed are counted."""
    config = load_config(make_run(), ["eval.max_new_tokens=3", "eval.temperature=1.0"])
    questions = read_rows(config.folder("questions"), "questions")[:3]
    model = Model("m", tiny_model_dir, config.renderer, config)
    encode, decode = text_codec(model.engine.tokenizer)
    lengths = {
        row["question_id"]: len(
            model.renderer.encode_prompt("reasoner", row["question"], None, encode)
        )
        for row in questions
    }
    long, *others = sorted(lengths, key=lambda name: -lengths[name])
    own = {name: [30, 31] for name in others} | {long: [30] * (config.cutoff_len - lengths[long])}
    traces = {kind: exchange(kind, own, seed=0) for kind in ("own", "none")}
    benchmark = Benchmark("", tmp_path, questions, num_samples=1)
    answers = ask(traces, benchmark, model, encode, decode)
    assert set(answers) == {(kind, name) for kind in ("own", "none") for name in others}
    assert all(solution is None for solution in answers.values())  # 3 tokens close nothing
