"""Abstract traces: constrained sampling, its likelihood, and the stages on a model with symbols."""

import asyncio
import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from tests.pipeline.test_vllm import infer
from variational_reasoning.method.abstract import BEGIN, END
from variational_reasoning.method.estimators import log_answer_term
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.method.weights import log_ratio, log_rho
from variational_reasoning.pipeline.config import Config, ScoringConfig, load_config
from variational_reasoning.pipeline.engines import (
    Completion,
    Request,
    Span,
    TransformersEngine,
    load_model,
    load_tokenizer,
)
from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer
from variational_reasoning.pipeline.engines.transformers import uniforms
from variational_reasoning.pipeline.engines.vllm import VllmEngine
from variational_reasoning.pipeline.evaluate import Benchmark, Model, evaluate
from variational_reasoning.pipeline.rows import read_manifest, read_rows
from variational_reasoning.pipeline.sample import abstract_span, sample_answers, sample_traces
from variational_reasoning.pipeline.score import score_traces

STOP = (END,)


@pytest.fixture(scope="module")
def engine(abstract_dir) -> TransformersEngine:
    model = load_model(str(abstract_dir), "float64", "cpu")
    return TransformersEngine(model, load_tokenizer(str(abstract_dir)), 100000)


def span_of(engine, least=1, most=3, temperature=1.0) -> Span:
    config = Config(prompt_family="abstract")
    span = abstract_span(config, engine.tokenizer, temperature)
    return span._replace(min_symbols=least, max_symbols=most)


def request(seed, span, stop=STOP, new=None, temperature=1.0, prompt=(5, 6, 7)) -> Request:
    length = span.max_symbols + 1 if new is None else new
    return Request(("q", seed), prompt, length, seed, stop, temperature, 1.0, span)


def test_what_can_follow():
    span = Span((10, 11), 9, min_symbols=1, max_symbols=3, temperature=1.0)
    allowed = [span.allowed_ids(count) for count in range(4)]
    assert allowed == [(10, 11), (10, 11, 9), (10, 11, 9), (9,)]


@pytest.mark.parametrize(("least", "most"), [(0, 1), (0, 3), (1, 3), (3, 3)])
def test_every_trace_is_symbols_and_one_end(engine, least, most):
    span = span_of(engine, least, most)
    results = engine.generate([request(seed, span) for seed in range(60)])
    lengths = set()
    for result in results:
        *symbols, end = result.token_ids
        assert end == span.end_id and result.finish_reason == "stop"
        assert set(symbols) <= set(span.symbol_ids)
        lengths.add(len(symbols))
    assert lengths == set(range(least, most + 1))


def test_tokens_follow_the_renormalized_distribution(engine):
    """Against plain forward passes: the same uniforms, over what the constraint admits."""
    span = span_of(engine, temperature=0.7)
    requests = [request(seed, span) for seed in range(20)]
    for asked, result in zip(requests, engine.generate(requests), strict=True):
        ids = list(asked.prompt_ids)
        for step, token in enumerate(result.token_ids):
            with torch.no_grad():
                logits = engine.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            allowed = sorted(span.allowed_ids(step))
            cumulative = torch.softmax(logits[allowed] / 0.7, dim=-1).double().cumsum(0)
            uniform = uniforms(torch.tensor([asked.seed]).numpy().astype("uint64"), step)[0]
            place = int((cumulative <= uniform * float(cumulative[-1])).sum())
            assert token == allowed[place]
            ids.append(token)


def test_a_sample_does_not_depend_on_its_batch_and_goes_on_without_a_constraint(engine):
    span = span_of(engine, temperature=1.0)
    stop = ("<|im_end|>",)
    longer = [request(seed, span, stop=stop, new=10) for seed in range(12)]
    plain = [Request(("p", seed), (5, 6), 8, seed, stop, 1.0, 1.0) for seed in range(5)]
    together = engine.generate([*longer, *plain])
    assert together[:12] == [engine.generate([each])[0] for each in longer]
    assert together[12:] == engine.generate(plain)
    traces = engine.generate([request(seed, span) for seed in range(12)])
    separator = list(span.separator_ids)
    assert engine.tokenizer.decode(separator) == "\n"
    free = set()
    for sample, trace in zip(together[:12], traces, strict=True):
        forced = trace.token_ids + separator
        count = len(forced)
        assert sample.token_ids[:count] == forced  # the constraint looks only back
        free |= set(sample.token_ids[count:])
    assert free - set(span.symbol_ids)


@pytest.mark.parametrize("separator", [(), (20,), (20, 21, 22)])
def test_the_separator_follows_every_trace_and_the_answer_is_the_models(engine, separator):
    """Traces of other lengths in one batch are in other places of their separators."""
    span = span_of(engine, least=0, most=3)._replace(separator_ids=separator)
    asked = [request(seed, span, stop=(), new=9, temperature=0) for seed in range(30)]
    lengths = set()
    for each, sample in zip(asked, engine.generate(asked), strict=True):
        ids = sample.token_ids
        cut = ids.index(span.end_id) + 1
        start = cut + len(separator)
        lengths.add(cut)
        assert tuple(ids[cut:start]) == separator
        if len(ids) > start:
            prompt = torch.tensor([[*each.prompt_ids, *ids[:start]]])
            with torch.no_grad():
                logits = engine.model(input_ids=prompt).logits[0, -1]
            assert ids[start] == int(logits.argmax())
    assert len(lengths) == 4
    # Room that ends within the separator cuts it.
    short = [each._replace(max_new_tokens=4) for each in asked]
    for whole, cut in zip(engine.generate(asked), engine.generate(short), strict=True):
        assert cut.token_ids == whole.token_ids[:4]


def test_symbols_and_answer_have_temperatures_of_their_own(engine):
    span = span_of(engine, temperature=1.0)
    samples = engine.generate(
        [request(seed, span, stop=(), new=8, temperature=0) for seed in range(40)]
    )
    answers: dict[tuple, set] = {}
    for sample in samples:
        cut = sample.token_ids.index(span.end_id) + 1
        trace, answer = tuple(sample.token_ids[:cut]), sample.token_ids[cut:]
        answers.setdefault(trace, set()).add(tuple(answer[:4]))
        assert answer[:1] == list(span.separator_ids)[: len(answer)]
    assert len(answers) > 5  # sampled
    assert all(len(found) == 1 for found in answers.values())  # greedy


def test_too_little_room_is_refused(engine):
    with pytest.raises(ValueError, match="room for 3 new tokens, but its trace may have 3 symbols"):
        engine.generate([request(1, span_of(engine), new=3)])


def test_one_seed_for_all_requests_is_refused(engine):
    span = span_of(engine)
    asked = [request(7, span, prompt=(5, 6, number)) for number in range(3)]
    with pytest.raises(ValueError, match="3 requests for abstract traces have one seed, 7; their"):
        engine.generate(asked)
    greedy = span._replace(temperature=0)
    assert len(engine.generate([each._replace(span=greedy) for each in asked])) == 3


def scorer(engine, **settings) -> Scorer:
    return Scorer(engine.model, Config(scoring=ScoringConfig(dtype="float64", **settings)))


def test_probabilities_of_all_traces_sum_to_one(engine):
    span = span_of(engine, least=1, most=3)
    traces = [
        [*symbols, span.end_id]
        for count in (1, 2, 3)
        for symbols in itertools.product(span.symbol_ids, repeat=count)
    ]
    assert len(traces) == 4 + 16 + 64
    rows = [
        ScoredSequence(("q", i), [5, 6, 7, *trace], [(3, 3 + len(trace))], span)
        for i, trace in enumerate(traces)
    ]
    sums = [logps for [logps] in scorer(engine).score(rows)]
    assert math.fsum(map(math.exp, sums)) == pytest.approx(1, abs=1e-12)
    # the same in batches of one, and with the whole softmax less than one in total
    assert scorer(engine, batch_tokens=1).score(rows[:9]) == [[each] for each in sums[:9]]
    full = [logps for [logps] in scorer(engine).score([row._replace(support=None) for row in rows])]
    assert math.fsum(map(math.exp, full)) < 0.5
    assert all(own > whole for own, whole in zip(sums, full, strict=True))


def test_the_answer_after_a_trace_is_scored_over_all_ids(engine):
    span = span_of(engine)
    trace = [span.symbol_ids[1], span.end_id]
    spans = [(3, 5), (5, 8)]
    row = ScoredSequence(("q", 0), [5, 6, 7, *trace, 8, 9, 10], spans, span)
    [[own, answer]] = scorer(engine).score([row])
    [[_, plain]] = scorer(engine).score([row._replace(support=None)])
    assert answer == pytest.approx(plain, rel=1e-14)  # in a matrix product of another shape
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([row.token_ids])).logits[0].double()
    first = torch.log_softmax(logits[2, list(span.symbol_ids)], dim=-1)[1]
    second = torch.log_softmax(logits[3, [*span.symbol_ids, span.end_id]], dim=-1)[4]
    assert own == pytest.approx(float(first + second), abs=1e-12)


BEGIN_ID, END_ID, A, B, SEPARATOR, Y1, Y2 = range(7)


class Bigrams(torch.nn.Module):
    """A model whose next token depends on the last one: `shares[last][next]`, the rest for id 7."""

    device, dtype = torch.device("cpu"), torch.float64
    config = SimpleNamespace(to_dict=dict)

    def __init__(self, shares: dict[int, dict[int, float]]):
        super().__init__()
        table = torch.zeros(8, 8, dtype=torch.float64)
        for last, following in shares.items():
            for token, share in following.items():
                table[last, token] = share
        table[:, 7] = 1 - table.sum(1)
        self.logits = table.log().clamp(min=-100)  # 4e-44 in place of 0

    def get_output_embeddings(self):
        return None

    def forward(self, input_ids, **kwargs):
        return SimpleNamespace(logits=self.logits[input_ids])


ANSWERING = {END_ID: {SEPARATOR: 1 / 8}, SEPARATOR: {Y1: 1 / 2}, Y1: {Y2: 1 / 8}}
PRIOR = {
    BEGIN_ID: {A: 1 / 4, B: 1 / 8, END_ID: 1 / 8},
    A: {A: 1 / 8, B: 1 / 8, END_ID: 1 / 4},
    B: {A: 1 / 16, B: 3 / 16, END_ID: 1 / 4},
} | ANSWERING
POSTERIOR = PRIOR | {
    BEGIN_ID: {A: 1 / 8, B: 1 / 4},
    A: {A: 1 / 16, B: 1 / 16, END_ID: 3 / 8},
}


def bigram_scores(shares, traces, support) -> list[list[float]]:
    """[log-likelihood of the trace, of the answer Y1 Y2] of each trace, after the begin."""
    config = Config(scoring=ScoringConfig(dtype="float64", batch_tokens=20))
    rows = []
    for number, trace in enumerate(traces):
        end = 1 + len(trace)
        spans = [(1, end), (end + 1, end + 3)]
        ids = [BEGIN_ID, *trace, SEPARATOR, Y1, Y2]
        rows.append(ScoredSequence(("q", number), ids, spans, support))
    return Scorer(Bigrams(shares), config).score(rows)


def test_weights_of_traces_by_hand():
    """One or two symbols. After the begin only A and B can follow: pi(A) = 1/4 / (1/4 + 1/8) = 2/3.

    After A also the end can: pi(B) = 1/4, pi(end) = 1/2. After two symbols it must.
    """
    span = Span((A, B), END_ID, 1, 2, temperature=1.0, separator_ids=(SEPARATOR,))
    traces = [[A, END_ID], [B, END_ID], *([s, t, END_ID] for s in (A, B) for t in (A, B))]
    prior = bigram_scores(PRIOR, traces, span)
    expected = [1 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 24, 1 / 8]  # sum to 1
    assert [math.exp(trace) for trace, _ in prior] == pytest.approx(expected, abs=1e-13)
    # Y1 Y2 after the separator, over all ids: 1/2 x 1/8. The separator itself is not counted.
    assert [math.exp(answer) for _, answer in prior] == pytest.approx([1 / 16] * 6, abs=1e-13)
    # Over all ids a trace is less likely: 1/4 for A, and 1/4 for the end.
    full = bigram_scores(PRIOR, traces, None)
    assert math.exp(full[0][0]) == pytest.approx(1 / 16, abs=1e-13)
    assert [answer for _, answer in full] == [answer for _, answer in prior]

    # q(A) = 1/3 and q(end) = 3/8 / (1/16 + 1/16 + 3/8) = 3/4.
    [[posterior, _]] = bigram_scores(POSTERIOR, traces[:1], span)
    assert math.exp(posterior) == pytest.approx(1 / 4, abs=1e-13)
    ratios = log_ratio(prior[0][0], posterior, num_tokens=2)
    gml = log_answer_term("gml", answer_logp=prior[0][1], answer_tokens=2)
    acc = log_answer_term("acc", num_correct=3, num_answers=4)
    # pi / q = 4/3, the geometric mean likelihood is 1/4.
    assert math.exp(log_rho("sum", ratios, gml)) == pytest.approx(1 / 3, abs=1e-13)
    assert math.exp(log_rho("sum", ratios, acc)) == pytest.approx(1, abs=1e-13)
    assert math.exp(log_rho("mean", ratios, acc)) == pytest.approx(math.sqrt(4 / 3) * 3 / 4)


def test_a_trace_that_is_constrained_is_not_scored_over_all_ids(engine, monkeypatch):
    """Two rows: a trace of two ids and an answer of two, a trace of three and an answer of one."""
    span = span_of(engine)
    symbol, other = span.symbol_ids[:2]
    rows = [
        ScoredSequence(("q", 0), [5, 6, symbol, span.end_id, 8, 9], [(2, 4), (4, 6)], span),
        ScoredSequence(("q", 1), [5, symbol, other, span.end_id, 8], [(1, 4), (4, 5)], span),
    ]
    scored = scorer(engine)
    counts = []
    whole = scored._chunk_logps

    def count(hidden, targets):
        counts.append(len(targets))
        return whole(hidden, targets)

    monkeypatch.setattr(scored, "_chunk_logps", count)
    scored.score(rows)
    assert sum(counts) == 2 + 1
    counts.clear()
    scored.score([row._replace(support=None) for row in rows])
    assert sum(counts) == 4 + 4


@pytest.fixture
def abstract_run(make_run, abstract_dir):
    """A run whose two models are the one with symbols."""
    names = {"reasoner": str(abstract_dir), "posterior": str(abstract_dir)}

    def make(**settings):
        sampling = {"max_symbols": 3, "max_answer_tokens": 6} | settings.pop("sampling", {})
        models = names | {"allow_unrecorded": True}
        return make_run(prompt_family="abstract", models=models, sampling=sampling, **settings)

    return make


def test_stages_3_to_6_on_abstract_traces(abstract_run, abstract_dir):
    path = abstract_run()
    config = load_config(path)
    sample_traces(config)
    traces = read_rows(config.folder("traces"), "traces")
    tokenizer = load_tokenizer(str(abstract_dir))
    span = abstract_span(config, tokenizer, 0.7)
    assert traces and all(row["is_well_formed"] for row in traces)
    for row in traces:
        *symbols, end = row["token_ids"]
        assert end == span.end_id and 1 <= len(symbols) <= 3
        assert row["text"] == tokenizer.decode(symbols)
    manifest = read_manifest(config.folder("traces"), "traces")
    assert manifest["counts"]["ends_forced"] == sum(len(row["token_ids"]) == 4 for row in traces)
    assert manifest["config"]["sampling.max_symbols"] == 3

    exact = load_config(path, ["scoring.dtype=float64"])
    model = load_model(str(abstract_dir), "float64", "cpu")
    renderer = make_renderer("chatml", "abstract")
    questions = {
        row["question_id"]: row for row in read_rows(config.folder("questions"), "questions")
    }

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    def logps(prompt: str, target: list[int], allowed=None) -> float:
        """One forward pass per token, over the ids that `allowed` gives for its place."""
        ids, total = encode(prompt), 0.0
        for place, token in enumerate(target):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            support = list(allowed(place)) if allowed else list(range(len(logits)))
            total += float(torch.log_softmax(logits[support], dim=-1)[support.index(token)])
            ids.append(token)
        return total

    for name, kind in (("reasoner", "reasoner"), ("posterior", "abstract_posterior")):
        score_traces(exact, name)
        by_trace = {(row["question_id"], row["trace_id"]): row for row in traces}
        found = read_rows(config.folder("trace_logps", name), "trace_logps")
        assert len(found) == len(traces)
        for row in found[:3]:
            trace = by_trace[row["question_id"], row["trace_id"]]
            question = questions[row["question_id"]]
            hint = None if name == "reasoner" else question["trace"]
            prompt = renderer.prompt(kind, question["question"], hint)
            expected = logps(prompt, trace["token_ids"], span.allowed_ids)
            assert row["trace_logp"] == pytest.approx(expected, abs=1e-9)
            if name == "reasoner":  # after the trace and the separator, without the chain
                start = prompt + tokenizer.decode(trace["token_ids"]) + "\n"
                solution = encode(question["solution"])
                assert row["answer_logp"] == pytest.approx(logps(start, solution), abs=1e-9)
                assert row["answer_tokens"] == len(solution)

    sample_answers(config)
    answers = read_rows(config.folder("answers"), "answers")
    assert len(answers) == len(traces) * config.sampling.num_answers
    for answer in answers:  # what follows the trace's ids, as scoring has it
        assert answer["text"] == tokenizer.decode(answer["token_ids"])
        assert tuple(answer["token_ids"][:1]) == span.separator_ids
    changed = load_config(path, ["sampling.max_symbols=4"])
    with pytest.raises(
        ValueError, match="sampled with 3, and are scored under the same constraint"
    ):
        score_traces(changed, "reasoner")


def test_collapsed_traces_stop_the_stage_or_are_reported(abstract_run, capsys):
    sampling = {"temperature": 0.7, "max_symbols": 1, "num_traces": 1}
    path = abstract_run(num_questions=24, sampling=sampling)  # four symbols, so four traces
    limits = "sampling.collapse.distinct_at_least=0.9"
    with pytest.raises(ValueError, match="have collapsed: .*% of the questions' first traces"):
        sample_traces(load_config(path, [limits]))
    assert "bits each; length 1 / 1 / 1" in capsys.readouterr().out
    config = load_config(path, [limits, "sampling.collapse.mode=report"])
    sample_traces(config)  # the table was kept
    assert "warning: the traces in" in capsys.readouterr().out


def test_evaluation_samples_a_trace_and_an_answer(abstract_run, abstract_dir, tmp_path):
    path = abstract_run()
    settings = ["eval.max_new_tokens=9", "eval.trace_temperature=0", "eval.temperature=1.0"]
    config = load_config(path, settings)
    rows = read_rows(config.folder("questions"), "questions")[:3]
    benchmark = Benchmark("", tmp_path / "evals", rows, num_samples=4)
    [(_, result)] = evaluate([benchmark], Model("m", abstract_dir, config.renderer, config))
    assert result is not None
    samples = read_rows(benchmark.folder / "samples", "samples")
    end = load_tokenizer(str(abstract_dir)).convert_tokens_to_ids(END)
    traces: dict[str, set] = {}
    answers: dict[str, set] = {}
    for row in samples:
        assert row["token_ids"].count(end) >= 1
        cut = row["token_ids"].index(end)
        traces.setdefault(row["question_id"], set()).add(tuple(row["token_ids"][:cut]))
        answers.setdefault(row["question_id"], set()).add(tuple(row["token_ids"][cut:]))
        assert row["text"].partition(END)[2].startswith("\n")
    assert all(len(found) == 1 for found in traces.values())  # greedy symbols
    assert any(len(found) > 1 for found in answers.values())  # sampled answers

    short = load_config(path, ["eval.max_new_tokens=4"])
    other = Benchmark("", tmp_path / "short", rows, num_samples=1)
    with pytest.raises(ValueError, match="eval.max_new_tokens: 4 has no room for a trace of up to"):
        list(evaluate([other], Model("m", abstract_dir, short.renderer, short)))


def test_models_without_symbols_and_lengths_that_do_not_fit_are_refused(make_run, tiny_model_dir):
    models = {"posterior": str(tiny_model_dir), "allow_unrecorded": True}
    path = make_run(prompt_family="abstract", models=models)
    with pytest.raises(ValueError, match="has no symbols of abstract traces"):
        sample_traces(load_config(path))
    with pytest.raises(ValueError, match="sampling.min_symbols: 9 is above sampling.max_symbols 8"):
        load_config(path, ["sampling.min_symbols=9", "sampling.max_symbols=8"])


def test_vllm_gets_two_requests_and_the_separator_is_in_none_of_them():
    """Symbols 10 and 11, end 9, separator 20 21; vLLM draws 10 11, then 30 31."""
    calls = []

    async def generate(request, stop_token_ids, **constraints):
        calls.append((request, stop_token_ids, constraints))
        is_trace = bool(constraints)
        ids = [10, 11] if is_trace else [30, 31][: request.max_new_tokens]
        return Completion(ids, "length" if is_trace else "stop")

    engine = VllmEngine.__new__(VllmEngine)
    engine._generate, engine._ends, engine._decode = generate, [2], lambda ids: f"<{ids[0]}>"
    span = Span((10, 11), 9, 1, 2, temperature=0.5, separator_ids=(20, 21))
    asked = request(seed=7, span=span, stop=("<2>",), new=8)
    done = asyncio.run(engine._sample(asked))
    assert done == Completion([10, 11, 9, 20, 21, 30, 31], "stop")
    (trace, stops, constraints), (rest, ends, free) = calls
    assert constraints == {"allowed_token_ids": [10, 11, 9], "min_tokens": 1} and stops == [9]
    assert (trace.max_new_tokens, trace.temperature, trace.seed) == (2, 0.5, 7)
    assert rest.prompt_ids == [5, 6, 7, 10, 11, 9, 20, 21] and (ends, free) == ([2], {})
    assert (rest.max_new_tokens, rest.seed) == (3, 8)
    for room, ids in ((4, [10, 11, 9, 20]), (5, [10, 11, 9, 20, 21]), (3, [10, 11, 9])):
        done = asyncio.run(engine._sample(asked._replace(max_new_tokens=room)))
        assert done == Completion(ids, "length")
    done = asyncio.run(engine._sample(asked._replace(stop=("<9>",))))
    assert done == Completion([10, 11, 9], "stop")  # a trace alone


@pytest.mark.parametrize("fails_at", ["trace", "answer"])
def test_a_failed_request_to_vllm_leaves_no_ids(fails_at):
    failed = Completion([], "error", "vLLM ended it with 'abort'")

    async def generate(request, stop_token_ids, **constraints):
        place = "trace" if constraints else "answer"
        return failed if place == fails_at else Completion([10, 9], "stop")

    engine = VllmEngine.__new__(VllmEngine)
    engine._generate, engine._ends, engine._decode = generate, [2], lambda ids: f"<{ids[0]}>"
    asked = request(seed=7, span=Span((10, 11), 9, 1, 2, 1.0), stop=("<2>",), new=8)
    assert asyncio.run(engine._sample(asked)) == failed


@pytest.mark.slow
def test_the_real_vllm_draws_the_same_traces(abstract_run, abstract_dir, infer_python):
    greedy = {"temperature": 0, "enforce_eager": True, "min_symbols": 2}
    paths = [
        abstract_run(name=engine, sampling=greedy | {"engine": engine})
        for engine in ("vllm", "transformers")
    ]
    warm = abstract_run(name="warm", sampling=greedy | {"engine": "vllm", "temperature": 1.0})
    for path in (*paths, warm):
        infer(infer_python, "scripts/sample_traces.py", str(path))
    ours, theirs, drawn = (
        read_rows(load_config(path).folder("traces"), "traces") for path in (*paths, warm)
    )
    assert ours == theirs
    span = abstract_span(load_config(warm), load_tokenizer(str(abstract_dir)), 1.0)
    assert len({tuple(row["token_ids"]) for row in drawn}) > len(drawn) / 2  # seeds of their own
    for row in drawn:
        *symbols, end = row["token_ids"]
        assert end == span.end_id and 2 <= len(symbols) <= 3
        assert set(symbols) <= set(span.symbol_ids) and BEGIN not in row["text"]
