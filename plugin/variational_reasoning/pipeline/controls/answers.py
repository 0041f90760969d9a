"""Answers after other traces: the table `controls` of an evaluation.

All kinds of a sample have one seed, so that equal traces have equal answers; `again` has another.
The settings are the evaluation's. The answer to `own` is drawn again: above temperature 0 its
accuracy differs from the evaluation's by noise.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from variational_reasoning.method.prompts import REASONER, Decode, Encode
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.controls.exchange import (
    Exchange,
    Key,
    Places,
    Trace,
    all_places,
    closed_trace,
    has_values,
    value_places,
)
from variational_reasoning.pipeline.engines import (
    Completion,
    Request,
    Span,
    engine_name,
)
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import Identity, open_stage
from variational_reasoning.pipeline.sample import (
    Sampler,
    ShardRequests,
    sample_seed,
    span_settings,
)
from variational_reasoning.pipeline.work.job import Shard, StageJob
from variational_reasoning.pipeline.work.limits import FailureLimit

FOLDER = "controls"


class Asked(NamedTuple):
    """What is asked of the model.

    kinds: of every sample that is asked, in their order; of none where a single question has a
    trace. num_questions: with a trace and room for an answer. num_without_trace, num_without_room:
    samples that are not asked.
    """

    exchange: Exchange
    kinds: Mapping[Key, Sequence[str]]
    num_questions: int
    num_without_trace: int
    num_without_room: int


def own_traces(
    rows: Sequence[Mapping[str, Any]],
    model: Model,
    encode: Encode,
    decode: Decode,
) -> dict[Key, Trace]:
    """The traces of samples; those that are not closed are left out."""
    found = {}
    for row in rows:
        cut = model.renderer.cut_trace(REASONER, row["token_ids"], encode, decode)
        trace = closed_trace(cut.token_ids, model.renderer.boundary, decode)
        if trace is not None:
            found[row["question_id"], row["answer_id"]] = trace
    return found


def what_to_ask(
    benchmark: Benchmark,
    samples: Sequence[Mapping[str, Any]],
    chains: Mapping[str, Trace],
    model: Model,
    encode: Encode,
    decode: Decode,
) -> Asked:
    """Which samples get which other traces.

    A sample that a trace other than `chain` leaves no room for an answer is left out of all kinds,
    so that these have the same questions.
    """
    config = model.config
    wanted = config.eval.controls.num_samples
    rows = list(samples)
    if wanted is not None:
        rows = [row for row in rows if row["answer_id"] < wanted]
    own = own_traces(rows, model, encode, decode)
    num_without_trace = len(rows) - len(own)
    places: Places = all_places
    if not model.renderer.is_abstract and has_values(config.steps.pattern):
        places = value_places(config.steps.pattern, decode)
    boundary = encode(model.renderer.boundary)
    separator = model.renderer.encode_separator(encode)
    exchange = Exchange(own, config.seed, boundary, chains, places)
    kinds: dict[Key, list[str]] = {}
    num_traces = _num_questions(own)
    if num_traces < 2:  # a trace can only be exchanged for another question's
        return Asked(exchange, kinds, num_traces, num_without_trace, 0)
    questions = _questions_of(benchmark)
    for key in sorted(own):
        question_id, _ = key
        prompt = model.renderer.encode_prompt(REASONER, questions[question_id], None, encode)
        room = config.cutoff_len - len(prompt) - len(separator)
        found = _kinds_with_room(exchange, key, room)
        if not found:
            continue
        if config.eval.temperature == 0:
            found.remove("again")  # it would be the same answer once more
        kinds[key] = found
    num_without_room = len(own) - len(kinds)
    return Asked(exchange, kinds, _num_questions(kinds), num_without_trace, num_without_room)


def _kinds_with_room(exchange: Exchange, key: Key, room: int) -> list[str]:
    """The kinds of a sample whose traces are shorter than `room`; none where one other than
    `chain` is not.

    Room for 10 tokens: own 6, donor 9, chain 12: own and donor. With a donor of 10: none.
    """
    kinds = []
    for kind in exchange.kinds_of(key):
        trace = exchange.trace(kind, key)
        if len(trace.token_ids) < room:
            kinds.append(kind)
        elif kind != "chain":
            return []
    return kinds


def _num_questions(keys: Iterable[Key]) -> int:
    return len({question_id for question_id, _ in keys})


def _questions_of(benchmark: Benchmark) -> dict[str, str]:
    """question_id to the text of the question."""
    questions = {}
    for row in benchmark.questions:
        questions[row["question_id"]] = row["question"]
    return questions


def answers_job(
    asked: Asked,
    inputs: Mapping[str, str],
    benchmark: Benchmark,
    model: Model,
) -> StageJob:
    """Open the table of the answers.

    Args:
        inputs: digests of the tables that the traces are from.

    Raises: ValueError for a folder that holds the answers of another evaluation or model.
    """
    config = model.config
    folder = benchmark.folder / FOLDER
    identity = Identity(
        inputs={"questions": benchmark.digest, **inputs},
        config={
            **model.renderer.to_record(),
            "sampling.engine": engine_name(config),
            **resolved(config, "cutoff_len", "sampling.dtype", "eval.temperature", "eval.top_p"),
            **resolved(config, "eval.max_new_tokens", "eval.controls.num_samples"),
            **_places_settings(config, model),
            **span_settings(config, model.renderer),
        },
        model=model.identity,
        seed=config.seed,
    )
    units = list(dict.fromkeys(question_id for question_id, _ in asked.kinds))
    sizes: Counter[str] = Counter()
    for (question_id, _), kinds in asked.kinds.items():
        sizes[question_id] += len(kinds)
    # 100 answers per shard, of 20 questions with 80 answers: 25 questions, so one shard.
    num_answers = sizes.total()
    per_shard = max(1, config.eval.answers_per_shard * len(units) // num_answers)
    remedy = f"They are made again from this evaluation where {folder} is removed."
    return StageJob(
        stage=open_stage(folder, "controls", identity, units, per_shard, remedy),
        title=(
            f"reads {benchmark.folder / 'samples'}, {model.folder}; writes {folder}: "
            f"{num_answers} answers after other traces to {len(units)} questions"
        ),
        row="answer",
        size=lambda unit: sizes[unit],
        cost=lambda unit: sizes[unit],
        load=lambda: ControlSampler(asked, benchmark, model),
        limit=FailureLimit(
            "sampling.max_failed_fraction",
            config.sampling.max_failed_fraction,
            total=sizes.total,
        ),
    )


def _places_settings(config: Config, model: Model) -> dict[str, Any]:
    """What a manifest says of the tokens that are replaced, and of continued traces."""
    if model.renderer.is_abstract:
        return resolved(config, "eval.trace_temperature")
    if has_values(config.steps.pattern):
        return resolved(config, "steps.pattern")
    return {}


class ControlSampler(Sampler):
    """The worker that asks the model."""

    names = ("question_id", "answer_id", "control")

    def __init__(self, asked: Asked, benchmark: Benchmark, model: Model) -> None:
        super().__init__(model.config, model.engine)
        self.asked = asked
        self.renderer = model.renderer
        self.questions = _questions_of(benchmark)
        self.boundary = self.encode(self.renderer.boundary)
        self.separator = self.renderer.encode_separator(self.encode)
        self.keys_of: dict[str, list[Key]] = defaultdict(list)
        for key in asked.kinds:
            question_id, _ = key
            self.keys_of[question_id].append(key)
        settings = model.config.eval
        temperature = settings.temperature
        if settings.trace_temperature is not None:
            temperature = settings.trace_temperature
        self.span = self._span(temperature)

    def close(self) -> None:
        """See ShardFiller. The engine is the model's."""

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        requests = []
        for question_id in units:
            question = self.questions[question_id]
            prompt = self.renderer.encode_prompt(REASONER, question, None, self.encode)
            for key in self.keys_of[question_id]:
                for kind in self.asked.kinds[key]:
                    requests.append(self._ask(kind, key, prompt))
        return ShardRequests(requests, [], Counter(), 0)

    def _ask(self, kind: str, key: Key, prompt: list[int]) -> Request:
        """The request for an answer after another trace.

        What follows the prompt:

            closed trace            body, closing, separator
            open trace              body; the model goes on with it
            open, no more symbols   body, boundary, separator
        """
        settings = self.config.eval
        given = self.asked.exchange.trace(kind, key)
        is_open = self._is_open(given)
        ids = [*prompt, *given.token_ids]
        if not is_open:
            if not given.closing:  # it has the most symbols already
                ids += self.boundary
            ids += self.separator
        room = self.config.cutoff_len - len(ids)
        limit = settings.max_new_tokens or room
        span = None
        if is_open:
            num_given = len(given.body)
            span = self._rest_of_span(num_given)
            if settings.max_new_tokens:
                limit -= num_given  # what the model itself has written of the trace
        return Request(
            key=(*key, kind),
            prompt_ids=ids,
            max_new_tokens=max(1, min(limit, room)),
            seed=self._seed(kind, key),
            stop=self.renderer.answer_stops,
            temperature=settings.temperature,
            top_p=settings.top_p,
            span=span,
        )

    def _seed(self, kind: str, key: Key) -> int:
        """One for all kinds of a sample, but for `again`."""
        question_id, answer_id = key
        group = f"controls/{question_id}"
        if kind == "again":
            return sample_seed(self.config.seed, group, answer_id, "again")
        return sample_seed(self.config.seed, group, answer_id)

    def _is_open(self, given: Trace) -> bool:
        """Whether the model goes on with the trace; not where it has the most symbols already."""
        if given.closing:
            return False
        return self.span is None or len(given.body) < self.span.max_symbols

    def _rest_of_span(self, num_symbols: int) -> Span | None:
        """The constraint of a trace of which so many symbols are given.

        Of 4 to 8 symbols, 6 are given: 0 to 2 more.
        """
        if self.span is None:
            return None
        at_least = self.span.min_symbols - num_symbols
        at_most = self.span.max_symbols - num_symbols
        return self.span._replace(min_symbols=max(0, at_least), max_symbols=at_most)

    def row(self, request: Request, result: Completion, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        question_id, answer_id, kind = request.key
        given = self.asked.exchange.trace(kind, (question_id, answer_id))
        given_text = self.decode(given.token_ids)
        answer = [*self.separator, *result.token_ids]
        trace = given
        if self._is_open(given):
            response = [*given.body, *result.token_ids]
            trace, answer = self._cut(response)
        elif not given.closing:
            trace = given._replace(closing=self.boundary)
        return {
            "given": given_text.removesuffix(self.renderer.boundary),
            "trace_ids": trace.token_ids,
            "num_symbols": len(trace.body),
            "token_ids": answer,
            "text": self.decode(answer),
            "finish_reason": result.finish_reason,
            "seed": request.seed,
        }

    def _cut(self, ids: list[int]) -> tuple[Trace, list[int]]:
        """(trace, answer) of a response; no answer where the trace is not closed."""
        cut = self.renderer.cut_trace(REASONER, ids, self.encode, self.decode).token_ids
        trace = closed_trace(cut, self.renderer.boundary, self.decode)
        if trace is None:
            return Trace(ids, []), []
        # cut may be other ids of the same text, so the answer is counted by its own.
        num_cut = len(cut)
        if cut == ids[:num_cut]:
            return trace, ids[num_cut:]
        text = self.decode(ids)
        num_characters = len(self.decode(cut))
        return trace, self.encode(text[num_characters:])

    def _shard(self, plan: ShardRequests, results: Sequence[Completion]) -> Shard:
        shard = super()._shard(plan, results)
        counts = Counter(shard.counts)
        del counts["duplicates"]  # equal answers of a sample are what is measured
        return shard._replace(counts=counts)
