"""Stage 3, K traces per question, and stage 6, M answers per trace (Eqs. 5 and 8; Algorithm 1).

Prompts come from the one renderer and go to the engine as ids; what is stored are the sampled ids,
and text is derived from them. An answer continues the ids of prompt and trace and nothing else: the
trace ends with the boundary (`<|end_of`), and the model writes the rest of the closing tag itself,
so no tokenizer can merge anything there.

Seeds are hashes of (run seed, question, trace, answer), so a sample does not depend on what else is
sampled, and equal traces of one question still get answers of their own. The reasoner's end tag or
end of turn is part of the sampled ids.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.method.weights import top_p_warning
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.collapse import report_variety
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import (
    Completion,
    Engine,
    Request,
    Span,
    engine_name,
    open_engine,
    text_codec,
)
from variational_reasoning.pipeline.engines.fitting import (
    check_context,
    check_prompt_kind,
    check_vocabulary,
    vocabulary_digest,
)
from variational_reasoning.pipeline.questions.hints import COLUMNS as HINT_COLUMNS
from variational_reasoning.pipeline.questions.hints import Hints
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    open_stage,
)
from variational_reasoning.pipeline.vocabulary import vocabulary_of
from variational_reasoning.pipeline.work.job import Progress, Shard, ShardUnits, StageJob
from variational_reasoning.pipeline.work.launch import run
from variational_reasoning.pipeline.work.limits import FailureLimit
from variational_reasoning.pipeline.work.summary import StageSummary


def sample_traces(config: Config) -> StageSummary:
    """Stage 3: `sampling.num_traces` traces for each training question, into run_dir/traces.

    Raises: ValueError for a model that was trained on another prompt, a table of another run, when
    no trace remains, and for abstract traces that have collapsed.
    """
    summary = run(traces_job, config)
    if config.renderer.is_abstract and summary.manifest is not None:
        report_variety(config)
    return summary


def sample_answers(config: Config) -> StageSummary:
    """Stage 6: `sampling.num_answers` answers of the reasoner after each well-formed trace, into
    run_dir/answers.

    Traces that are malformed, or after which cutoff_len leaves no room, get no answer and are
    counted.

    Raises: ValueError as `sample_traces` does; also when the reasoner's tokenizer is not the one of
    the traces.
    """
    return run(answers_job, config)


def traces_job(config: Config) -> StageJob:
    """Check what stage 3 reads and open its table."""
    name = config.sampling.traces_from
    kind = REASONER
    if name == "posterior":
        kind = config.posterior_prompt
    renderer = config.renderer
    folder = config.folder("traces")
    model_folder = config.model_folder(name)
    check_prompt_kind(model_folder, config.trained_kind(name), renderer, config)
    check_context(model_folder, config)
    questions, units = training_questions(config)
    hints = Hints(config, kind, questions, units)
    identity = Identity(
        inputs={"questions": questions.digest},
        config={
            "prompt_kind": kind,
            **renderer.to_record(),
            "sampling.engine": engine_name(config),
            **resolved(config, "cutoff_len", "sampling.dtype", "sampling.num_traces"),
            **resolved(config, "sampling.temperature", "sampling.top_p"),
            **resolved(config, "sampling.max_trace_tokens"),
            **hints.identity(),
            **span_settings(config, renderer),
        },
        model=model_identity(model_folder),
        seed=config.seed,
    )

    def size(unit: str) -> int:
        return config.sampling.num_traces

    def load() -> TraceSampler:
        engine = open_engine(config, str(model_folder))
        return TraceSampler(config, questions, kind, hints, engine)

    title = (
        f"reads {len(units)} training questions, {name} {model_folder} ({kind}); writes {folder}"
    )
    weighted = [output.name for output in config.build.outputs if output.ratio != "none"]
    if config.sampling.top_p < 1 and name == "posterior" and weighted:
        title += f"\nwarning: {top_p_warning(config.sampling.top_p, weighted)}"

    return StageJob(
        stage=open_stage(folder, "traces", identity, units, config.sampling.questions_per_shard),
        title=title,
        row="trace",
        size=size,
        cost=lambda unit: 1.0,
        load=load,
        limit=FailureLimit(
            "sampling.max_failed_fraction",
            config.sampling.max_failed_fraction,
            total=lambda: sum(map(size, units)),
        ),
        gpus=config.sampling.tensor_parallel_size,
        is_planned_with=True,
    )


def answers_job(config: Config) -> StageJob:
    """Check what stage 6 reads and open its table."""
    renderer = config.renderer
    folder = config.folder("answers")
    model_folder = config.model_folder("reasoner")
    check_prompt_kind(model_folder, REASONER, renderer, config)
    check_context(model_folder, config)
    questions, train = training_questions(config)
    traces = TableReader(config.folder("traces"), "traces")
    refuse_malformed(traces, config)
    grouped = traces.summary.group_by("question_id", use_threads=False)
    counted = grouped.aggregate([("trace_id", "count"), ("is_well_formed", "sum")])
    counts = {row["question_id"]: row for row in counted.to_pylist()}
    units = [question_id for question_id in train if question_id in counts]
    identity = Identity(
        inputs={
            "questions": questions.digest,
            "traces": traces.digest,
        },
        config={
            **renderer.to_record(),
            "sampling.engine": engine_name(config),
            **resolved(config, "cutoff_len", "sampling.dtype", "sampling.num_answers"),
            **resolved(config, "sampling.temperature", "sampling.top_p"),
            **resolved(config, "sampling.max_answer_tokens"),
        },
        model=model_identity(model_folder),
        seed=config.seed,
    )

    def size(unit: str) -> int:
        return counts[unit]["trace_id_count"] * config.sampling.num_answers

    def load() -> AnswerSampler:
        engine = open_engine(config, str(model_folder))
        check_vocabulary(config, engine.tokenizer, model_folder)
        return AnswerSampler(config, questions, traces, engine)

    return StageJob(
        stage=open_stage(folder, "answers", identity, units, config.sampling.questions_per_shard),
        title=f"reads {traces.manifest['rows']} traces of {len(units)} questions, reasoner "
        f"{model_folder}; writes {folder}",
        row="answer",
        size=size,
        cost=lambda unit: counts[unit]["is_well_formed_sum"] or 0,
        load=load,
        limit=FailureLimit(
            "sampling.max_failed_fraction",
            config.sampling.max_failed_fraction,
            total=lambda: sum(map(size, units)),
        ),
        gpus=config.sampling.tensor_parallel_size,
        is_planned_with=True,
    )


def span_settings(config: Config, renderer: Renderer) -> dict[str, Any]:
    """What a manifest says of the constraint of abstract traces; nothing for verbal ones."""
    if not renderer.is_abstract:
        return {}
    return resolved(config, "sampling.min_symbols", "sampling.max_symbols")


def abstract_span(
    config: Config, tokenizer: Any, temperature: float, renderer: Renderer | None = None
) -> Span:
    """The constraint of an abstract trace of this model.

    Args:
        renderer: the model's prompts, where they may differ from those of the configuration.

    Raises: ValueError for a model without the symbols.
    """
    source = tokenizer.name_or_path
    vocabulary = vocabulary_of(tokenizer, source)
    if vocabulary is None:
        raise ValueError(
            f"{source} has no symbols of abstract traces, which its prompt family needs; extend "
            "its base with scripts/extend_vocabulary.py and train it again"
        )
    settings = config.sampling
    renderer = renderer or config.renderer
    encode, _ = text_codec(tokenizer)
    return Span(
        symbol_ids=vocabulary.symbol_ids,
        end_id=vocabulary.end_id,
        min_symbols=settings.min_symbols,
        max_symbols=settings.max_symbols,
        temperature=temperature,
        separator_ids=tuple(renderer.encode_separator(encode)),
    )


def refuse_malformed(traces: TableReader, config: Config) -> None:
    """Raises: ValueError where no trace is well formed, so that none can be answered or scored; it
    says how they ended, and shows one.
    """
    summary = traces.summary
    if any(summary["is_well_formed"].to_pylist()):
        return
    endings = Counter(summary["finish_reason"].to_pylist())
    rest = summary.num_rows - endings["length"]
    first_question = summary["question_id"][0].as_py()
    rows = traces.rows_of([first_question], ["text"])
    text = rows[first_question][0]["text"]
    raise ValueError(
        f"{traces.folder}: none of the {summary.num_rows} traces is well formed: "
        f"{endings['length']} were cut by sampling.max_trace_tokens "
        f"({config.sampling.max_trace_tokens}) or cutoff_len ({config.cutoff_len}), {rest} ended "
        f"without {config.renderer.boundary!r} or with a tag inside. The first one begins "
        f"{text[:200]!r}. Allow more tokens, or choose a prompt family or an instruction that the "
        "model follows (docs/own_questions.md), and remove the folder"
    )


class ShardRequests(NamedTuple):
    """What a shard asks of the engine: `num_unasked` of its rows are not requests, because they are
    dropped or malformed.
    """

    requests: list[Request]
    dropped: list[dict[str, Any]]
    counts: Counter
    num_unasked: int


class Sampler(ABC):
    """What stages 3 and 6 and the evaluation have in common: an engine, and the settings of a
    request.
    """

    names: tuple[str, ...]
    """The id columns of a row, in the order of a request's key."""

    def __init__(self, config: Config, engine: Engine, renderer: Renderer | None = None) -> None:
        """
        Args:
            renderer: the model's prompts, where they may differ from those of the configuration.

        Raises: ValueError for a tokenizer that changes texts which are joined in ids.
        """
        self.config = config
        self.engine = engine
        self.renderer = renderer or config.renderer
        self.encode, self.decode = text_codec(engine.tokenizer)
        self.renderer.check_codec(self.encode, self.decode, engine.tokenizer.name_or_path)

    @abstractmethod
    def plan(self, units: Sequence[str]) -> ShardRequests:
        """The samples to draw for these questions."""

    @abstractmethod
    def row(self, request: Request, result: Completion, counts: Counter) -> dict[str, Any]:
        """The columns of a sample other than its ids; figures to report are added to `counts`."""

    def fill(self, shards: Iterable[ShardUnits], progress: Progress) -> Iterator[tuple[int, Shard]]:
        """See ShardFiller. The engine takes the next shard's requests as it has room.

        The engine numbers groups from 0, and may end them in another order. Of the shards 4 and 7:

            taken by the engine    group 0 (shard 4), group 1 (shard 7)
            it ends group 1        plans.pop(1) is shard 7 and what was asked for it
        """
        plans: dict[int, tuple[int, ShardRequests]] = {}

        def groups() -> Iterator[list[Request]]:
            for number, (index, units) in enumerate(shards):
                plan = self.plan(units)
                plans[number] = (index, plan)
                progress(plan.num_unasked)
                yield plan.requests

        for number, results in self.engine.stream(groups(), progress):
            index, plan = plans.pop(number)
            yield index, self._shard(plan, results)

    def _shard(self, plan: ShardRequests, results: Sequence[Completion]) -> Shard:
        """The rows of the samples that the engine could draw, and the failures."""
        rows = []
        failed = []
        counts = plan.counts
        for request, result in zip(plan.requests, results, strict=True):
            ids = dict(zip(self.names, request.key, strict=True))
            if result.error:
                failed.append(ids | {"reason": result.error})
                continue
            counts[result.finish_reason] += 1
            counts["tokens"] += len(result.token_ids)
            rows.append(ids | self.row(request, result, counts))
        if failed:
            counts["failed"] = len(failed)
        counts["duplicates"] = _duplicates(rows, *self.names[:-1])
        return Shard(rows, counts, plan.dropped, failed)

    def facts(self) -> dict[str, Any]:
        """See ShardFiller. Settings that change rows by float noise at most are in the manifest and
        not compared.
        """
        settings = resolved(self.config, "sampling.device", "sampling.batch_tokens")
        execution = settings | self.engine.execution()
        return {"vocabulary": self._vocabulary, "execution": execution}

    def statistics(self) -> dict[str, int]:
        """See ShardFiller."""
        statistics = self.engine.statistics()
        return statistics | {"tokens": statistics["sampled_tokens"]}

    def close(self) -> None:
        """See ShardFiller."""
        self.engine.close()

    @cached_property
    def _vocabulary(self) -> str:
        return vocabulary_digest(self.engine.tokenizer)

    def _request(
        self, key: tuple, prompt_ids: Sequence[int], room: int, stop: tuple[str, ...]
    ) -> Request:
        """A sample to draw, with the seed of its ids."""
        settings = self.config.sampling
        apart: tuple[str, ...] = ()
        if settings.traces_from == "reasoner":
            # They train the posterior, whose own samples must not repeat their noise.
            apart = ("reasoner",)
        if settings.hint != "reference":
            apart = ("hint", settings.hint)
        seed = sample_seed(self.config.seed, *key, *apart)
        return Request(key, prompt_ids, room, seed, stop, settings.temperature, settings.top_p)

    def _span(self, temperature: float) -> Span | None:
        """The constraint of a sample that begins with an abstract trace; None for verbal ones.

        Raises: ValueError for a model without the symbols.
        """
        if not self.renderer.is_abstract:
            return None
        return abstract_span(self.config, self.engine.tokenizer, temperature, self.renderer)

    def _no_room(self, question_id: str, num_tokens: int) -> dict[str, Any]:
        reason = f"no room in cutoff_len {self.config.cutoff_len}"
        return {"question_id": question_id, "reason": reason, "tokens": num_tokens}


class TraceSampler(Sampler):
    """Stage 3's worker.

    An abstract trace always has room for its longest: a lower limit near cutoff_len would draw it
    from another distribution than the one it is scored under.
    """

    names = ("question_id", "trace_id")

    def __init__(
        self, config: Config, questions: TableReader, kind: str, hints: Hints, engine: Engine
    ) -> None:
        super().__init__(config, engine)
        self.questions = questions
        self.kind = kind
        self.hints = hints
        self.span = self._span(config.sampling.temperature)
        self._expert_traces: dict[str, str] = {}
        """Of the shards that are in work: a sample may repeat the data set's own trace."""

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        config = self.config
        num_traces = config.sampling.num_traces
        stop = self.renderer.trace_stops
        limit = config.sampling.max_trace_tokens or config.cutoff_len
        requests: list[Request] = []
        dropped = []
        rows = self.questions.rows_of(units, HINT_COLUMNS)
        for question_id in units:
            [row] = rows[question_id]
            hint = self.hints.of(row)
            if self.hints.lacks(hint):
                dropped.append(self.hints.dropped(question_id))
                continue
            prompt_ids = self.renderer.encode_prompt(self.kind, row["question"], hint, self.encode)
            room = config.cutoff_len - len(prompt_ids)
            if self.span is None:
                needed = 1
                length = min(limit, room)
            else:
                needed = self.span.max_symbols + 1
                length = needed
            if room < needed:
                dropped.append(self._no_room(question_id, len(prompt_ids)))
                continue
            self._expert_traces[question_id] = row["trace"].strip()
            for k in range(num_traces):
                request = self._request((question_id, k), prompt_ids, length, stop)
                requests.append(request._replace(span=self.span))
        num_unasked = len(dropped) * num_traces
        return ShardRequests(requests, dropped, Counter(dropped=num_unasked), num_unasked)

    def row(self, request: Request, result: Completion, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        cut = self.renderer.cut_trace(self.kind, result.token_ids, self.encode, self.decode)
        counts["malformed"] += not cut.is_well_formed
        counts["retokenized"] += cut.is_retokenized
        if self.span is not None:
            num_symbols = len(cut.token_ids) - 1
            counts["ends_forced"] += num_symbols == self.span.max_symbols
        expert = self._expert_traces[request.key[0]]
        if expert:  # a question without a trace of its own has nothing to compare with
            counts["copies_of_training_trace"] += cut.text.strip() == expert
        trained_tokens: int | None = None
        is_trained_as_sampled: bool | None = None
        if cut.is_well_formed:
            # The trainer tokenizes the text again.
            trained_ids = self.encode(cut.text + self.renderer.boundary)
            trained_tokens = len(trained_ids)
            is_trained_as_sampled = trained_ids == cut.token_ids
        return {
            "token_ids": cut.token_ids,
            "text": cut.text,
            "finish_reason": result.finish_reason,
            "is_well_formed": cut.is_well_formed,
            "is_retokenized": cut.is_retokenized,
            "seed": request.seed,
            "prompt_kind": self.kind,
            "temperature": self.config.sampling.temperature,
            "trained_tokens": trained_tokens,
            "is_trained_as_sampled": is_trained_as_sampled,
        }

    def _shard(self, plan: ShardRequests, results: Sequence[Completion]) -> Shard:
        shard = super()._shard(plan, results)
        for question_id in {request.key[0] for request in plan.requests}:
            del self._expert_traces[question_id]
        return shard


class AnswerSampler(Sampler):
    """Stage 6's worker.

    A row holds what follows the trace's ids. After an abstract trace, this begins with the
    separator, which is not sampled.
    """

    names = ("question_id", "trace_id", "answer_id")

    def __init__(
        self, config: Config, questions: TableReader, traces: TableReader, engine: Engine
    ) -> None:
        super().__init__(config, engine)
        self.questions = questions
        self.traces = traces
        self.separator_ids = self.renderer.encode_separator(self.encode)

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        config = self.config
        num_answers = config.sampling.num_answers
        stop = self.renderer.answer_stops
        limit = config.sampling.max_answer_tokens or config.cutoff_len
        requests = []
        dropped = []
        counts = Counter(traces=0, malformed=0, no_room=0)
        questions = self.questions.rows_of(units, ["question"])
        traces = self.traces.rows_of(units, ["token_ids", "is_well_formed"])
        for question_id in units:
            [row] = questions[question_id]
            prompt_ids = self.renderer.encode_prompt(REASONER, row["question"], None, self.encode)
            for trace in traces[question_id]:
                trace_id = trace["trace_id"]
                counts["traces"] += 1
                if not trace["is_well_formed"]:
                    counts["malformed"] += 1
                    continue
                start_ids = prompt_ids + trace["token_ids"] + self.separator_ids
                room = min(limit, config.cutoff_len - len(start_ids))
                if room < 1:
                    counts["no_room"] += 1
                    no_room = self._no_room(question_id, len(start_ids))
                    dropped.append(no_room | {"trace_id": trace_id})
                    continue
                for m in range(num_answers):
                    key = (question_id, trace_id, m)
                    requests.append(self._request(key, start_ids, room, stop))
        num_without = counts["malformed"] + counts["no_room"]
        return ShardRequests(requests, dropped, counts, num_without * num_answers)

    def row(self, request: Request, result: Completion, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        token_ids = self.separator_ids + result.token_ids
        text = self.decode(token_ids)
        solution = self.renderer.solution_of_answer(text)
        trained_tokens: int | None = None
        if solution is not None:
            parts = self.renderer.answer_parts(solution)
            trained_tokens = sum(len(self.encode(part)) for part in parts if part)
        return {
            "token_ids": token_ids,
            "text": text,
            "finish_reason": result.finish_reason,
            "seed": request.seed,
            "trained_tokens": trained_tokens,
        }


def sample_seed(run_seed: int, question_id: str, *indices: int | str) -> int:
    """A 63-bit seed that is a function of its arguments only: no two rows share their noise."""
    text = json.dumps([run_seed, question_id, *indices])
    digest = hashlib.sha256(text.encode()).digest()
    first_64_bits = int.from_bytes(digest[:8], "big")
    return first_64_bits >> 1


def _duplicates(rows: Sequence[Mapping[str, Any]], *columns: str) -> int:
    """Rows whose ids equal those of an earlier row of the same group."""
    groups = group_by(rows, *columns).values()
    num_repeated = 0
    for group in groups:
        different = {tuple(row["token_ids"]) for row in group}
        num_repeated += len(group) - len(different)
    return num_repeated
