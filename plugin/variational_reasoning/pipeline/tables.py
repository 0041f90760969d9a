"""The tables on disk: one schema and one row type per table. Ids join tables, never positions."""

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa


class Schema(NamedTuple):
    """The columns of a table and those that identify a row."""

    columns: pa.Schema
    key: tuple[str, ...]


def _schema(
    key: tuple[str, ...], *columns: tuple[str, pa.DataType], optional: Iterable[str] = ()
) -> Schema:
    id_types = {
        "question_id": pa.string(),
        "trace_id": pa.int32(),
        "answer_id": pa.int32(),
        "source": pa.int32(),
    }
    everything = [(name, id_types[name]) for name in key] + list(columns)
    skip = set(optional)
    return Schema(
        pa.schema([pa.field(name, kind, nullable=name in skip) for name, kind in everything]), key
    )


_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))


_LOGPS = pa.list_(pa.field("element", pa.float32(), nullable=False))


SCORES_ON_REQUEST = (
    "sampling_temperature",
    "trace_logp_at_sampling",
    "answer_logp_at_sampling",
    "trace_token_logps",
    "answer_token_logps",
)
"""Columns of trace_logps that are null unless scoring.at_sampling_temperature or scoring.token_logps asks for them."""


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
"""Columns of a train row that keep the terms of rho raw; null in rows that no trace was chosen for, and where a term was
not computed. The naive likelihood L is there as its logarithm, answer_logp: a long solution's L is 0 in any float."""


TABLES: dict[str, Schema] = {
    # check is a JSON object for the verifier, such as {"kind": "math", "gold": "7"}; split is train or test
    "questions": _schema(
        ("question_id",),
        ("question", pa.string()),
        ("trace", pa.string()),
        ("solution", pa.string()),
        ("source", pa.string()),
        ("check", pa.string()),
        ("split", pa.string()),
    ),
    "traces": _schema(
        ("question_id", "trace_id"),
        ("token_ids", _IDS),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("is_well_formed", pa.bool_()),
        ("is_retokenized", pa.bool_()),
        ("seed", pa.int64()),
        ("prompt_kind", pa.string()),
        ("temperature", pa.float64()),
    ),
    # nats; answer_* are null for the posterior, which is never asked for an answer
    "trace_logps": _schema(
        ("question_id", "trace_id"),
        ("trace_logp", pa.float64()),
        ("trace_tokens", pa.int32()),
        ("answer_logp", pa.float64()),
        ("answer_tokens", pa.int32()),
        ("temperature", pa.float64()),
        # the same sums at the temperature that the traces were sampled at, and the terms token by token, on request
        ("sampling_temperature", pa.float64()),
        ("trace_logp_at_sampling", pa.float64()),
        ("answer_logp_at_sampling", pa.float64()),
        ("trace_token_logps", _LOGPS),
        ("answer_token_logps", _LOGPS),
        optional=("answer_logp", "answer_tokens", *SCORES_ON_REQUEST),
    ),
    "answers": _schema(
        ("question_id", "trace_id", "answer_id"),
        ("token_ids", _IDS),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
    ),
    "verdicts": _schema(
        ("question_id", "trace_id", "answer_id"),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
        ("tier", pa.string()),
    ),
    # train files of stage 0, rendered by the host as reasoner or posterior rows
    "reasoning": _schema(
        ("question_id",),
        ("question", pa.string()),
        ("trace", pa.string()),
        ("solution", pa.string()),
        ("source", pa.string()),
    ),
    # source: -2 the original row, -1 the original row as fallback, k >= 0 the trace that was chosen
    "train": _schema(
        ("question_id", "source"),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("weight", pa.float64()),
        ("trace_id", pa.int32()),
        ("answer_id", pa.int32()),
        ("mean_log_ratio", pa.float64()),
        ("sum_log_ratio", pa.float64()),
        ("trace_tokens", pa.int32()),
        ("accuracy", pa.float64()),
        ("num_correct", pa.int32()),
        ("num_answers", pa.int32()),
        ("gml", pa.float64()),
        ("answer_logp", pa.float64()),
        ("answer_tokens", pa.int32()),
        ("log_rho", pa.float64()),
        # P of the question (method/weights.py), for every row of it; null without verdicts
        ("question_accuracy", pa.float64()),
        optional=("trace_id", "answer_id", *RHO_TERMS, "question_accuracy"),
    ),
    # the evaluation's samples, a whole response each; evals: the same with their verdicts
    "samples": _schema(
        ("question_id", "answer_id"),
        ("token_ids", _IDS),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
    ),
    "evals": _schema(
        ("question_id", "answer_id"),
        ("token_ids", _IDS),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("tier", pa.string()),
    ),
}
"""Table name to schema. Ids join tables, never positions."""
