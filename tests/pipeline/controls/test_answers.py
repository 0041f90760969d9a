"""What is asked of the model, and what comes back."""

from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.controls.answers import (
    ControlSampler,
    answers_job,
    what_to_ask,
)
from variational_reasoning.pipeline.controls.exchange import Trace
from variational_reasoning.pipeline.engines import text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.pipeline.work.job import do_shards

CLOSED = "<|end_of_thought|>"


def ask(model, benchmark, traces: dict, chains=None):
    """(what is asked, the answers) for traces by (question_id, answer_id)."""
    encode, decode = text_codec(model.engine.tokenizer)
    samples = [
        {"question_id": name, "answer_id": k, "token_ids": [*ids, *encode(CLOSED)]}
        for (name, k), ids in traces.items()
    ]
    asked = what_to_ask(benchmark, samples, chains or {}, model, encode, decode)
    job = answers_job(asked, {}, benchmark, model)
    do_shards(job, set(range(len(job.stage.shards))))
    return asked, read_rows(benchmark.folder / "controls", "controls")


def test_all_kinds_have_the_same_questions(tiny_model_dir, make_run, tmp_path):
    """A question that has no room is left out; answers that are not closed are counted."""
    config = load_config(make_run(), ["eval.max_new_tokens=3", "eval.temperature=1.0"])
    questions = read_rows(config.folder("questions"), "questions")[:4]
    model = Model("m", tiny_model_dir, config.renderer, config)
    encode, _ = text_codec(model.engine.tokenizer)
    lengths = {
        row["question_id"]: len(
            model.renderer.encode_prompt("reasoner", row["question"], None, encode)
        )
        for row in questions
    }
    long, *others = sorted(lengths, key=lambda name: -lengths[name])
    traces = {(name, 0): [30, 31, 32] for name in others}
    traces[long, 0] = [30] * (config.cutoff_len - min(lengths.values()))
    benchmark = Benchmark("", tmp_path, questions, num_samples=1)
    # The question that gets this trace from its donor has no room either.
    asked, rows = ask(model, benchmark, traces)
    assert asked.num_without_room == 2 and long not in {name for name, _ in asked.kinds}
    kinds = {"own", "again", "donor", "random", "shuffled", "replaced", "continued", "none"}
    assert {(row["question_id"], row["control"]) for row in rows} == {
        (name, kind) for name, _ in asked.kinds for kind in kinds
    }
    solutions = [model.renderer.solution_of_answer(row["text"]) for row in rows]
    assert solutions == [None] * len(rows)  # 3 tokens close nothing
    # Equal traces have equal answers, but for another seed.
    by_kind = {(row["question_id"], row["control"]): row for row in rows}
    for name, _ in asked.kinds:
        own, again = (by_kind[name, kind] for kind in ("own", "again"))
        assert own["trace_ids"] == again["trace_ids"] and own["seed"] != again["seed"]
        # One token of the limit of three is left to the model, after the two that are given.
        assert len(by_kind[name, "continued"]["trace_ids"]) == 3


def test_a_greedy_model_has_no_second_seed_and_samples_can_be_fewer(
    tiny_model_dir, make_run, tmp_path
):
    words = ["eval.temperature=0", "eval.controls.num_samples=1", "eval.max_new_tokens=6"]
    config = load_config(make_run(), words)
    questions = read_rows(config.folder("questions"), "questions")[:2]
    model = Model("m", tiny_model_dir, config.renderer, config)
    names = [row["question_id"] for row in questions]
    traces = {(name, k): [30 + k, 31, 32] for name in names for k in range(2)}
    benchmark = Benchmark("", tmp_path, questions, num_samples=2)
    asked, rows = ask(model, benchmark, traces, chains={names[0]: Trace([40, 41], [42])})
    assert set(asked.kinds) == {(name, 0) for name in names}
    assert {row["control"] for row in rows} >= {"own", "chain"}
    assert "again" not in {row["control"] for row in rows}
    assert [row["question_id"] for row in rows if row["control"] == "chain"] == names[:1]


def test_a_continued_trace_of_symbols_keeps_its_limits(abstract_dir, make_run, tmp_path):
    words = ["eval.temperature=1.0", "sampling.max_symbols=4", "eval.max_new_tokens=8"]
    config = load_config(make_run(prompt_family="abstract"), words)
    questions = read_rows(config.folder("questions"), "questions")[:3]
    model = Model("m", abstract_dir, config.renderer, config)
    encode, decode = text_codec(model.engine.tokenizer)
    a, b, c, d = (encode(f"<TOKEN_{name}>")[0] for name in "ABCD")
    end = encode("<endabstract>")
    own = [[a, b, c, d], [b, c], []]
    samples = [
        {"question_id": row["question_id"], "answer_id": 0, "token_ids": [*trace, *end]}
        for row, trace in zip(questions, own, strict=True)
    ]
    benchmark = Benchmark("", tmp_path, questions, num_samples=1)
    asked = what_to_ask(benchmark, samples, {}, model, encode, decode)
    sampler = ControlSampler(asked, benchmark, model)
    names = [row["question_id"] for row in questions]
    requests = {request.key: request for request in sampler.plan(names).requests}
    # Of [a b c d] three symbols are given, so one more may follow; of [b c] two of four.
    full, short = (requests[name, 0, "continued"] for name in names[:2])
    assert full.span.max_symbols == 1 and full.span.min_symbols == 0
    assert short.span.max_symbols == 2
    assert (names[2], 0, "continued") not in requests  # an empty trace has no symbol to replace
    assert all(request.span is None for key, request in requests.items() if key[2] != "continued")
    job = answers_job(asked, {}, benchmark, model)
    do_shards(job, set(range(len(job.stage.shards))))
    for row in read_rows(tmp_path / "controls", "controls"):
        *symbols, last = row["trace_ids"]
        assert set(symbols) <= {a, b, c, d} and [last] == end
        assert row["num_symbols"] == len(symbols) <= 4
        # The answer begins with the separator, whoever has put it there.
        assert row["token_ids"][:1] == encode("\n")
        given = asked.exchange.trace(row["control"], (row["question_id"], 0)).body
        assert symbols[: len(given)] == given and row["given"] == decode(given)


def test_the_last_symbol_of_the_longest_trace(abstract_dir, make_run, tmp_path):
    """A trace of two symbols with max_symbols 2: nothing may follow the replaced one but the end."""
    words = ["eval.temperature=1.0", "sampling.max_symbols=2", "eval.max_new_tokens=8"]
    config = load_config(make_run(prompt_family="abstract"), words)
    questions = read_rows(config.folder("questions"), "questions")[:2]
    model = Model("m", abstract_dir, config.renderer, config)
    encode, decode = text_codec(model.engine.tokenizer)
    a, b = (encode(f"<TOKEN_{name}>")[0] for name in "AB")
    end = encode("<endabstract>")
    samples = [
        {"question_id": row["question_id"], "answer_id": 0, "token_ids": [*trace, *end]}
        for row, trace in zip(questions, [[a, b], [b, a]], strict=True)
    ]
    benchmark = Benchmark("", tmp_path, questions, num_samples=1)
    asked = what_to_ask(benchmark, samples, {}, model, encode, decode)
    requests = ControlSampler(asked, benchmark, model).plan([questions[0]["question_id"]]).requests
    [continued] = [request for request in requests if request.key[2] == "continued"]
    after = [*end, *encode("\n")]  # the separator is never drawn
    assert continued.span is None and continued.prompt_ids[-len(after) :] == after
