"""The tables on disk: one row type per table, and the schema that follows from it.

Ids join tables, never positions. A row type gives each column's Python type; where Parquet needs
to know more, the type says it (`Int32`). The first columns are those that identify a row:

    class AnswerRow(TypedDict):        question_id: string, not null     } the key
        question_id: str               trace_id: int32, not null         }
        trace_id: Int32                answer_logp: double, may be null
        answer_logp: float | None
"""

import types
import typing
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import pyarrow as pa

Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]
TokenIds = Annotated[list[int], pa.list_(pa.field("element", pa.int32(), nullable=False))]
Vector = Annotated[list[float], pa.list_(pa.field("element", pa.float32(), nullable=False))]
TokenLogps = Annotated[list[float], pa.list_(pa.field("element", pa.float32(), nullable=False))]
_PLAIN = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}


class QuestionRow(TypedDict):
    """Stage 0. check: a JSON object for the verifier, such as {"kind": "math", "gold": "7"}.

    The last columns are lengths in tokens as a training of the reasoner counts them: of its prompt,
    of the trace with its boundary, and of what follows, end of turn included. Null in the test
    split, and in tables of earlier releases.
    """

    question_id: str
    question: str
    trace: str
    solution: str
    source: str
    check: str
    split: str  # train or test
    prompt_tokens: NotRequired[Int32 | None]
    trace_tokens: NotRequired[Int32 | None]
    solution_tokens: NotRequired[Int32 | None]


class TraceRow(TypedDict):
    """Stage 3: a sampled trace; seed and temperature are those of its sampling.

    trained_tokens: how many ids a training makes of the text and the boundary;
    is_trained_as_sampled: whether they are token_ids. A model may sample pieces that its tokenizer
    would not choose, such as `a` `b` for `ab`. Both are null for a malformed trace, and in tables
    of earlier releases.
    """

    question_id: str
    trace_id: Int32
    token_ids: TokenIds
    text: str
    finish_reason: str
    is_well_formed: bool
    is_retokenized: bool
    seed: Int64
    prompt_kind: str
    temperature: float
    trained_tokens: NotRequired[Int32 | None]
    is_trained_as_sampled: NotRequired[bool | None]


def given_trace(question_id: str, text: str, token_ids: list[int], kind: str) -> TraceRow:
    """The row of a trace that no model has sampled.

    Args:
        token_ids: of the text and the boundary. kind: where the trace comes from.
    """
    return {
        "question_id": question_id,
        "trace_id": 0,
        "token_ids": token_ids,
        "text": text,
        "finish_reason": "stop",
        "is_well_formed": True,
        "is_retokenized": False,
        "seed": 0,
        "prompt_kind": kind,
        "temperature": 0.0,
    }


class StepRow(TypedDict):
    """A step of a question's verbal chain, and the mean of its hidden states.

    value: what the step found out, where the task knows it. token_ids: of the step's text.
    """

    question_id: str
    step: Int32
    text: str
    value: str | None
    token_ids: TokenIds
    vector: Vector


class StepClusterRow(TypedDict):
    """The symbol of a step, from 0."""

    question_id: str
    step: Int32
    cluster: Int32


class TraceLogpRow(TypedDict):
    """Stages 4 and 5, in nats. answer_*: null for the posterior, which is never asked for an
    answer.

    The columns from sampling_temperature on hold the same sums at the temperature that the traces
    were sampled at, and the terms of the sums, token by token. early_answer_logp and
    bare_answer_logp: of the solution after the first tokens of the trace, and after none.
    """

    question_id: str
    trace_id: Int32
    trace_logp: float
    trace_tokens: Int32
    answer_logp: float | None
    answer_tokens: Int32 | None
    temperature: float
    sampling_temperature: NotRequired[float | None]
    trace_logp_at_sampling: NotRequired[float | None]
    answer_logp_at_sampling: NotRequired[float | None]
    trace_token_logps: NotRequired[TokenLogps | None]
    answer_token_logps: NotRequired[TokenLogps | None]
    early_answer_logp: NotRequired[float | None]
    bare_answer_logp: NotRequired[float | None]


class AnswerRow(TypedDict):
    """Stage 6: a sampled answer of the reasoner after a trace.

    trained_tokens: how many ids a training makes of what follows the trace's boundary with this
    solution, end of turn included. Null where there is no solution, and in tables of earlier
    releases.
    """

    question_id: str
    trace_id: Int32
    answer_id: Int32
    token_ids: TokenIds
    text: str
    finish_reason: str
    seed: Int64
    trained_tokens: NotRequired[Int32 | None]


class VerdictRow(TypedDict):
    """Stage 7: a value of `verify.verdicts.Verdict`. tier: of the sandbox; empty without
    programs.
    """

    question_id: str
    trace_id: Int32
    answer_id: Int32
    verdict: str
    reason: str
    seconds: float
    tier: str


class GoldRow(TypedDict):
    """Stage 7: what a question's check says of its own gold; the worst verdict of several golds.

    verdict: null where there is no gold to try.
    """

    question_id: str
    verdict: str | None
    reason: str


class ReasoningRow(TypedDict):
    """A train file of stage 0, which the host renders as a reasoner's or a posterior's row."""

    question_id: str
    question: str
    trace: str
    solution: str
    source: str


class AbstractRow(TypedDict):
    """A train file of the bottleneck: the texts of a row apart, with a trace of symbols.

    chain: the verbal chain that the symbols may see and the answer may not.
    """

    question_id: str
    trace_id: Int32
    question: str
    trace: str
    solution: str
    chain: str
    weight: float


class TrainRow(TypedDict):
    """A train file of stage 8, with the terms of rho raw (RHO_TERMS).

    source: -2 the original row, -1 the original row as fallback, k >= 0 the trace that was chosen.
    question_accuracy: P of the question (method/weights.py), in every row of it.
    """

    question_id: str
    source: Int32
    prompt: str
    response: str
    weight: float
    trace_id: Int32 | None
    answer_id: Int32 | None
    mean_log_ratio: float | None
    sum_log_ratio: float | None
    trace_tokens: Int32 | None
    accuracy: float | None
    num_correct: Int32 | None
    num_answers: Int32 | None
    gml: float | None
    answer_logp: float | None
    answer_tokens: Int32 | None
    log_rho: float | None
    question_accuracy: float | None


class SampleRow(TypedDict):
    """The evaluation's samples, a whole response each."""

    question_id: str
    answer_id: Int32
    token_ids: TokenIds
    text: str
    finish_reason: str
    seed: Int64


class EvalRow(SampleRow):
    """The same with their verdicts."""

    verdict: str
    reason: str
    tier: str


class ControlRow(TypedDict):
    """An answer after another trace than the model's own; control: its kind.

    given: the text that was put in. trace_ids: of the whole trace through its boundary, which the
    model has written in part where `given` is not all of it. num_symbols: its tokens without those
    of the boundary. token_ids, text: of the answer, which begins after the boundary.
    """

    question_id: str
    answer_id: Int32
    control: str
    given: str
    trace_ids: TokenIds
    num_symbols: Int32
    token_ids: TokenIds
    text: str
    finish_reason: str
    seed: Int64


class ControlVerdictRow(TypedDict):
    """What became of the answer.

    is_own: whether it is the answer after the model's own trace. implied: the answer that the trace
    implies, where the task knows it. fits_implied, own_fits_implied: whether the check accepts this
    answer, and that after the own trace, with `implied` in place of its gold.
    """

    question_id: str
    answer_id: Int32
    control: str
    verdict: str
    reason: str
    is_own: bool
    implied: str | None
    fits_implied: bool | None
    own_fits_implied: bool | None


class Schema(NamedTuple):
    """The columns of a table, those that identify a row, and those that a row may leave out."""

    columns: pa.Schema
    key: tuple[str, ...]
    not_required: frozenset[str]


def _schema(row_type: Any, num_keys: int) -> Schema:
    """A table's columns, from its row type.

    Args:
        num_keys: how many of the first columns identify a row.
    """
    hints = typing.get_type_hints(row_type, include_extras=True)
    columns = [_field(name, hint) for name, hint in hints.items()]
    key = tuple(hints)[:num_keys]
    return Schema(pa.schema(columns), key, frozenset(row_type.__optional_keys__))


def _field(name: str, hint: Any) -> pa.Field:
    """`answer_tokens: NotRequired[Int32 | None]` is a column of int32 that may be null."""
    if typing.get_origin(hint) is NotRequired:
        (hint,) = typing.get_args(hint)
    nullable = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if nullable:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Annotated:
        kind, *_ = hint.__metadata__
    else:
        kind = _PLAIN[hint]
    return pa.field(name, kind, nullable=nullable)


TABLES: dict[str, Schema] = {
    "questions": _schema(QuestionRow, num_keys=1),
    "traces": _schema(TraceRow, num_keys=2),
    "steps": _schema(StepRow, num_keys=2),
    "step_clusters": _schema(StepClusterRow, num_keys=2),
    "trace_logps": _schema(TraceLogpRow, num_keys=2),
    "answers": _schema(AnswerRow, num_keys=3),
    "verdicts": _schema(VerdictRow, num_keys=3),
    "golds": _schema(GoldRow, num_keys=1),
    "reasoning": _schema(ReasoningRow, num_keys=1),
    "abstract": _schema(AbstractRow, num_keys=2),
    "train": _schema(TrainRow, num_keys=2),
    "samples": _schema(SampleRow, num_keys=2),
    "evals": _schema(EvalRow, num_keys=2),
    "controls": _schema(ControlRow, num_keys=3),
    "control_verdicts": _schema(ControlVerdictRow, num_keys=3),
}
"""Table name to schema."""

RHO_TERMS = (
    "mean_log_ratio",
    "sum_log_ratio",
    "trace_tokens",
    "accuracy",
    "num_correct",
    "num_answers",
    "gml",
    "answer_logp",
    "answer_tokens",
    "log_rho",
)
"""Columns of a train row that keep the terms of rho raw. They are null in rows that no trace was
chosen for, and where a term was not computed. The naive likelihood L is there as its logarithm,
answer_logp: a long solution's L is 0 in any float."""
