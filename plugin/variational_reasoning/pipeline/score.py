"""Stages 4 and 5: log-likelihoods of every trace, and of the reference solution after it (terms of
rho, before Eq. 8).

For a question x, a trace z and a model: trace_logp = sum over the trace's ids of log p(z_t |
prompt, z_<t), in nats, on the ids that were sampled, boundary included. For the reasoner also
answer_logp, the same sum over the ids of the reference solution that follow prompt, trace and the
fixed tags; the tags themselves are not counted. The posterior's prompt holds the solution as the
hint, so it is not asked for an answer.

The paper compares at temperature 1. `scoring.temperature` divides the logits, and
at_sampling_temperature adds the same sums for the distribution that the traces were really drawn
from. How the sums are computed: engines/scorer.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.families import REASONER
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import (
    Span,
    load_model,
    load_tokenizer,
    text_codec,
)
from variational_reasoning.pipeline.engines.fitting import (
    check_context,
    check_prompt_kind,
    check_vocabulary,
)
from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer
from variational_reasoning.pipeline.questions.hints import COLUMNS as HINT_COLUMNS
from variational_reasoning.pipeline.questions.hints import Hints
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    open_stage,
)
from variational_reasoning.pipeline.sample import abstract_span, refuse_malformed, span_settings
from variational_reasoning.pipeline.work.job import Progress, Shard, ShardByShard, StageJob
from variational_reasoning.pipeline.work.launch import run
from variational_reasoning.pipeline.work.limits import FailureLimit
from variational_reasoning.pipeline.work.summary import StageSummary

if TYPE_CHECKING:
    import torch

SCORED_MODELS = ("reasoner", "posterior")
QUADRATIC_TOKENS = 27_000
"""Length at which attention takes as long as all else (27.3k for Qwen3-4B); only the balance of
shares depends on it.
"""


def score_traces(config: Config, model_name: str) -> StageSummary:
    """Stage 4 (reasoner) or 5 (posterior): log-likelihoods of the well-formed traces, into
    run_dir/trace_logps/<model>.

    Malformed traces are counted and not scored: their ids do not end with the boundary, so the
    ratio would compare different events. Rows beyond cutoff_len are dropped and counted, because no
    training could use them. Values that are not finite are failed rows. With scoring.score_only:
    verified, traces without a verified answer are skipped and counted, except those that the
    fallback of a build output could still choose.

    Args:
        model_name: reasoner or posterior.

    Raises: ValueError for another name, a model trained on another prompt, another tokenizer, and
    too many failed rows.
    """
    if model_name not in SCORED_MODELS:
        raise ValueError(f"model={model_name!r} is not one of {', '.join(SCORED_MODELS)}")
    if model_name == "reasoner":
        return run(reasoner_job, config)
    return run(posterior_job, config)


def reasoner_job(config: Config) -> StageJob:
    """Check what stage 4 reads and open its table."""
    return _job(config, "reasoner", "reasoner")


def posterior_job(config: Config) -> StageJob:
    """Check what stage 5 reads and open its table."""
    return _job(config, "posterior", config.posterior_prompt)


def _job(config: Config, name: str, kind: str) -> StageJob:
    """The stage of one model.

    Args:
        name: the model's, which is also that of its table. kind: of the prompt that it gets.
    """
    renderer = config.renderer
    folder = config.folder("trace_logps", name)
    model_folder = config.model_folder(name)
    check_prompt_kind(model_folder, config.trained_kind(name), renderer, config)
    check_context(model_folder, config)
    questions, train = training_questions(config)
    hints = Hints(config, kind, questions, train)
    traces = TableReader(config.folder("traces"), "traces")
    refuse_malformed(traces, config)
    with_traces = set(traces.question_ids())
    units = [question_id for question_id in train if question_id in with_traces]
    identity_config = _identity_config(config, kind, hints)
    if renderer.is_abstract:
        _check_same_span(config, span_settings(config, renderer), traces.manifest)
    inputs = {
        "questions": questions.digest,
        "traces": traces.digest,
    }
    unwanted: set[tuple[str, int]] = set()
    if config.scoring.score_only == "verified":
        # A fallback by an estimator needs the numbers of questions without a verified answer.
        keep = any(output.fallback in ESTIMATORS for output in config.build.outputs)
        verdicts = TableReader(config.folder("verdicts"), "verdicts")
        unwanted = traces_of_zero_accuracy(verdicts.summary, keep)
        inputs["verdicts"] = verdicts.digest
        identity_config["kept_for_fallback"] = keep
    more_temperatures = []
    if config.scoring.at_sampling_temperature:
        more_temperatures = _sampling_temperatures(traces)
    sizes, costs = _sizes_and_costs(traces.summary, unwanted)

    def load() -> TraceScorer:
        tokenizer = load_tokenizer(str(model_folder))
        check_vocabulary(config, tokenizer, model_folder)
        model = load_model(
            str(model_folder),
            config.scoring.dtype,
            config.scoring.device,
            config.scoring.attention,
        )
        scorer = Scorer(model, config, more_temperatures)
        if scorer.note:
            print(scorer.note)
        return TraceScorer(config, kind, questions, hints, traces, unwanted, tokenizer, scorer)

    return StageJob(
        stage=open_stage(
            folder,
            "trace_logps",
            Identity(inputs, identity_config, model_identity(model_folder)),
            units,
            config.scoring.questions_per_shard,
        ),
        title=f"reads {traces.manifest['rows']} traces of {len(units)} questions, {name} "
        f"{model_folder} ({kind}); writes {folder}",
        row="trace",
        size=sizes.__getitem__,
        cost=costs.__getitem__,
        load=load,
        limit=FailureLimit(
            "scoring.max_failed_fraction",
            config.scoring.max_failed_fraction,
            total=lambda: sum(map(sizes.__getitem__, units)),
        ),
        gpus=1,
        is_planned_with=True,
    )


def _identity_config(config: Config, kind: str, hints: Hints) -> dict[str, Any]:
    """The settings on which the numbers depend; a table of others is refused."""
    renderer = config.renderer
    settings = ("cutoff_len", "scoring.temperature", "scoring.dtype", "scoring.score_only")
    identity_config = {
        "prompt_kind": kind,
        **renderer.to_record(),
        **resolved(config, *settings),
        **hints.identity(),
    }
    identity_config |= resolved(config, "scoring.at_sampling_temperature", "scoring.token_logps")
    if config.scoring.early_tokens:
        identity_config |= resolved(config, "scoring.early_tokens")
    if renderer.is_abstract:
        identity_config |= resolved(config, "scoring.support")
        identity_config |= span_settings(config, renderer)
    return identity_config


def _sampling_temperatures(traces: TableReader) -> list[float]:
    """The one temperature at which the traces were drawn; none for a table without rows.

    Raises: ValueError for several, or 0.
    """
    temperatures = sorted(traces.summary["temperature"].unique().to_pylist())
    if len(temperatures) > 1 or 0 in temperatures:
        raise ValueError(
            f"scoring.at_sampling_temperature needs traces of one temperature above 0; "
            f"{traces.folder} has {temperatures}"
        )
    return temperatures


def _sizes_and_costs(
    summary: pa.Table, unwanted: set[tuple[str, int]]
) -> tuple[dict[str, int], dict[str, float]]:
    """Traces of each question, and what scoring those of them takes that are scored, in linear
    tokens.
    """
    names = ("question_id", "trace_id", "num_tokens", "is_well_formed")
    sizes: dict[str, int] = {}
    costs: dict[str, float] = {}
    columns = [summary[name].to_pylist() for name in names]
    for question_id, trace_id, length, is_well_formed in zip(*columns, strict=True):
        sizes[question_id] = sizes.get(question_id, 0) + 1
        cost = 0.0
        if is_well_formed and (question_id, trace_id) not in unwanted:
            cost = length + length**2 / QUADRATIC_TOKENS
        costs[question_id] = costs.get(question_id, 0.0) + cost
    return sizes, costs


def traces_of_zero_accuracy(verdicts: pa.Table, keep_for_fallback: bool) -> set[tuple[str, int]]:
    """(question_id, trace_id) of traces that were judged and have no verified answer: Acc gives
    them weight zero.

    Args:
        verdicts: columns question_id, trace_id and verdict.
        keep_for_fallback: leave out those of questions that have no verified answer at all; an
            output's fallback scores them.
    """
    keys = ["question_id", "trace_id"]
    is_correct = pc.equal(verdicts["verdict"], "correct")
    judged = verdicts.select(keys).append_column("is_correct", is_correct)
    grouped = judged.group_by(keys, use_threads=False).aggregate([("is_correct", "max")])
    covered = set()
    of_zero = set()
    for row in grouped.to_pylist():
        if row["is_correct_max"]:
            covered.add(row["question_id"])
        else:
            of_zero.add((row["question_id"], row["trace_id"]))
    if keep_for_fallback:
        return {key for key in of_zero if key[0] in covered}
    return of_zero


def _check_same_span(
    config: Config, constraint: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    """Raises: ValueError when the traces were drawn under another constraint than they would be
    scored under.
    """
    sampled = manifest["config"]
    for name, value in constraint.items():
        if name in sampled and sampled[name] != value:
            raise ValueError(
                f"{name} is {value}, but the traces in {config.folder('traces')} were sampled with "
                f"{sampled[name]}, and are scored under the same constraint; set it back"
            )


class TraceScorer(ShardByShard):
    """The worker of stages 4 and 5."""

    def __init__(
        self,
        config: Config,
        kind: str,
        questions: TableReader,
        hints: Hints,
        traces: TableReader,
        unwanted: set[tuple[str, int]],
        tokenizer: Any,
        scorer: "Scorer",
    ) -> None:
        self.config = config
        self.kind = kind
        self.questions = questions
        self.hints = hints
        self.traces = traces
        self.unwanted = unwanted
        self.tokenizer = tokenizer
        self.scorer = scorer
        self.renderer = config.renderer
        self.encode, self.decode = text_codec(tokenizer)
        self.renderer.check_codec(self.encode, self.decode, tokenizer.name_or_path)
        self.end_of_turn = len(self.encode(self.renderer.chat_format.end_of_turn))
        self.support: Span | None = None
        if self.renderer.is_abstract and config.scoring.support == "abstract":
            self.support = abstract_span(config, tokenizer, config.sampling.temperature)
        self.num_tokens = 0

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        settings = resolved(self.config, "scoring.batch_tokens", "scoring.chunk_positions")
        return {"execution": settings | self.scorer.execution()}

    def statistics(self) -> dict[str, int]:
        """See ShardFiller."""
        return {"tokens": self.num_tokens}

    def fill_one(self, index: int, units: Sequence[str], progress: Progress) -> Shard:
        """See ShardByShard."""
        counts = Counter(traces=0, malformed=0, no_room=0, tokens=0)
        sequences: list[ScoredSequence] = []
        dropped: list[dict[str, Any]] = []
        questions = self.questions.rows_of(units, HINT_COLUMNS)
        traces = self.traces.rows_of(units, ["token_ids", "is_well_formed"])
        for question_id in units:
            [row] = questions[question_id]
            self._prepare(row, traces[question_id], sequences, dropped, counts)
        num_left_out = counts["traces"] - len(sequences)
        progress(num_left_out)
        failures: dict[tuple, str] = {}
        rows = []
        scored = self.scorer.token_logps(sequences, failures, progress)
        for sequence, spans in zip(sequences, scored, strict=True):
            if sequence.key not in failures:
                rows.append(self._row(sequence, spans))
        if self.config.scoring.early_tokens and self.kind == REASONER:
            self._add_early(rows, questions, traces, counts)
        failed = []
        for (question_id, trace_id), reason in failures.items():
            failed.append({"question_id": question_id, "trace_id": trace_id, "reason": reason})
        if failed:
            counts["failed"] = len(failed)
        self.num_tokens += counts["tokens"]
        return Shard(rows, counts, dropped, failed)

    def _prepare(
        self,
        row: Mapping[str, Any],
        traces: Sequence[Mapping[str, Any]],
        sequences: list[ScoredSequence],
        dropped: list[dict[str, Any]],
        counts: Counter,
    ) -> None:
        """Add what is to be scored of a question's traces to `sequences`, and what is not to
        `dropped` and `counts`.

        A prompt of 3 ids, a trace of 4, and an answer of which the ids [2, 5) are the solution,
        give the spans [3, 7) and [9, 12).
        """
        question_id = row["question_id"]
        hint = self.hints.of(row)
        prompt_ids = self.renderer.encode_prompt(self.kind, row["question"], hint, self.encode)
        answer_ids: list[int] = []
        has_answer = self.kind == REASONER and row["solution"]  # with tests only there is none
        if has_answer:
            answer_ids, start, stop = self._answer_of(row)
        for trace in traces:
            key = (question_id, trace["trace_id"])
            counts["traces"] += 1
            if not trace["is_well_formed"]:
                counts["malformed"] += 1
                continue
            if key in self.unwanted:
                counts["zero_accuracy"] += 1
                continue
            begin = len(prompt_ids)
            end = begin + len(trace["token_ids"])
            spans = [(begin, end)]
            if has_answer:
                spans.append((end + start, end + stop))
            token_ids = prompt_ids + trace["token_ids"] + answer_ids
            if len(token_ids) + self.end_of_turn > self.config.cutoff_len:
                counts["no_room"] += 1
                dropped.append(
                    {
                        "question_id": question_id,
                        "trace_id": trace["trace_id"],
                        "reason": f"longer than cutoff_len {self.config.cutoff_len}",
                        "tokens": len(token_ids),
                    }
                )
                continue
            sequences.append(ScoredSequence(key, token_ids, spans, self.support))
            counts["tokens"] += len(token_ids)

    def _answer_of(self, row: Mapping[str, Any]) -> tuple[list[int], int, int]:
        """(ids of a question's reference answer, start, stop), of which [start, stop) are its
        solution.
        """
        return self.renderer.encode_answer(row["solution"], self.encode, self.decode)

    def _add_early(
        self,
        rows: list[dict[str, Any]],
        questions: Mapping[str, Sequence[Mapping[str, Any]]],
        traces: Mapping[str, Sequence[Mapping[str, Any]]],
        counts: Counter,
    ) -> None:
        """Add to the rows how likely the solution is after the first N tokens of their traces, and
        after none; to the counts, how many of these figures could not be computed.

        The trace is cut after N ids and closed with the boundary, so the solution follows as it
        does after a whole trace. With N = 2 and a trace of the ids 5 6 7 and the boundary 9

            whole    prompt 5 6 7 9 tags solution
            early    prompt 5 6 9   tags solution
            bare     prompt 9       tags solution, the same for all traces of a question
        """
        sequences: list[ScoredSequence] = []
        for question_id, group in group_by(rows, "question_id").items():
            [question] = questions[question_id]
            if question["solution"]:
                ids_of = {trace["trace_id"]: trace["token_ids"] for trace in traces[question_id]}
                of_rows = [(row["trace_id"], ids_of[row["trace_id"]]) for row in group]
                sequences += self._early_sequences(question, of_rows)
        found: dict[tuple, float] = {}
        faults: dict[tuple, str] = {}  # a trace that is scored keeps its row without these figures
        scored = self.scorer.token_logps(sequences, faults)
        for sequence, spans in zip(sequences, scored, strict=True):
            if sequence.key in faults:
                continue
            [logps] = spans
            at_temperatures = logps.sum(dim=1).tolist()
            found[sequence.key] = at_temperatures[0]
        if faults:
            counts["early_failed"] = len(faults)
        for row in rows:
            question_id = row["question_id"]
            row["early_answer_logp"] = found.get((question_id, row["trace_id"], "early"))
            row["bare_answer_logp"] = found.get((question_id, "bare"))

    def _early_sequences(
        self, question: Mapping[str, Any], traces: Sequence[tuple[str, list[int]]]
    ) -> list[ScoredSequence]:
        """The bare sequence of a question, and the early one of each trace, whole where the trace
        is short.

        Args:
            traces: (trace_id, ids) of each.
        """
        num_early = self.config.scoring.early_tokens or 0
        boundary = self.encode(self.renderer.boundary)
        question_id = question["question_id"]
        thoughts: dict[tuple, list[int]] = {(question_id, "bare"): boundary}
        for trace_id, whole in traces:
            early = whole
            if len(whole) > num_early:
                early = whole[:num_early] + boundary
            thoughts[question_id, trace_id, "early"] = early
        prompt = self.renderer.encode_prompt(REASONER, question["question"], None, self.encode)
        answer, start, stop = self._answer_of(question)
        sequences = []
        for key, thought in thoughts.items():
            begin = len(prompt) + len(thought)
            span = (begin + start, begin + stop)
            sequences.append(ScoredSequence(key, prompt + thought + answer, [span]))
        return sequences

    def _row(self, sequence: ScoredSequence, spans: Sequence["torch.Tensor"]) -> dict[str, Any]:
        """The row of a trace: its sums, and with scoring.token_logps the numbers themselves."""
        question_id, trace_id = sequence.key
        row: dict[str, Any] = {
            "question_id": question_id,
            "trace_id": trace_id,
            "temperature": self.scorer.temperatures[0],
            "answer_logp": None,
            "answer_tokens": None,
        }
        names = ("trace", "answer")
        for name, logps in zip(names, spans, strict=False):  # the posterior has no answer
            sums = logps.sum(dim=1).tolist()
            row[f"{name}_logp"] = sums[0]
            row[f"{name}_tokens"] = logps.shape[1]
            if len(sums) > 1:
                row[f"{name}_logp_at_sampling"] = sums[1]
                row["sampling_temperature"] = self.scorer.temperatures[1]
            if self.config.scoring.token_logps:
                row[f"{name}_token_logps"] = logps[0].tolist()
        return row
