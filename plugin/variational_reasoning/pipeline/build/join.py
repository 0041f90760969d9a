"""What stages 3 to 7 found out about each sampled trace, joined by ids (first half of stage 8).

Everything but the texts, as one frame with a row per sampled trace. With K = 4 and all tables asked
for:

    trace               reasoner   posterior   answers    reason
    q0, 0               row        row         rows       null: a candidate
    q0, 1, malformed                                      malformed
    q0, 2               dropped    row         rows       beyond cutoff_len
    q0, 3                          row         rows       an error: stage 4 said nothing of it

A row that is missing, and that no stage reported as dropped or failed, is an error with its ids.

Undecided verdicts (checker_error, unverifiable) are left out of the accuracy, not counted as wrong.
A response that ended before it had an answer is wrong: it counts in P(Y_x | x), although no answer
was sampled after its trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from variational_reasoning.pipeline.build.open_tables import (
    KEY,
    SCORES,
    STAGES,
    OpenTables,
    open_tables,
    scores_are_partial,
)
from variational_reasoning.pipeline.config import Config, OutputConfig
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

_NUM_LISTED = 3
REFUSED = "refused by verify.trace_check"
"""Why a trace is not a candidate whose answer is right and which fails its check: no estimator and
no fallback may choose it.
"""


@dataclass(frozen=True)
class Joined:
    """All tables of one model's traces.

    questions: ids of the train split, in the table's order.
    traces: a row per sampled trace, in the order of the questions and of trace_id. Columns:

        place               of the question in `questions`
        trace_id, trace_tokens, is_well_formed
        reason              why it is not a candidate; null for one that finished, is well formed
                            and has all that is needed
        num_correct, num_decided    verdicts; null where it has no answers
        is_unanswered       malformed, cut or without room, so that no answer could follow
        trained_tokens, is_trained_as_sampled    of the table `traces`
        NAME_logp, NAME_tokens, NAME_temperature    of each table of log-likelihoods
        answer_logp, answer_tokens    of the reference solution

    num_traces: K. num_answers: M, 0 without answers.
    """

    tables: OpenTables
    questions: list[str]
    traces: pl.DataFrame
    num_traces: int
    num_answers: int
    _accuracies: dict[int, dict[str, float | None]] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of the tables."""
        return self.tables.digests

    @property
    def has_verdicts(self) -> bool:
        """Whether the outputs asked for them."""
        return "verdicts" in self.tables

    @property
    def candidates(self) -> pl.DataFrame:
        """The rows of `traces` that an output may use."""
        is_candidate = pl.col("reason").is_null()
        return self.traces.filter(is_candidate)

    @property
    def filtered(self) -> dict[str, int]:
        """How many traces are not candidates, by reason."""
        reasons = self.traces["reason"].drop_nulls()
        counts = reasons.value_counts(sort=True)
        return dict(counts.iter_rows())

    def question_accuracy(self, question_id: str, num_traces: int) -> float | None:
        """P(Y_x | x): the share of the responses with the first num_traces traces that are right
        (Eqs. 10 and 12).

        A response is a trace and an answer. One whose trace is malformed or cut has no answer and
        is wrong; each such trace counts as M responses, as every other trace does. With K = 8 and
        M = 2:

            one trace with two right answers, seven malformed    2 / (2 + 7 * 2) = 0.125

        Returns: None when nothing is known: no verdicts, or none of the answers is decided.
        """
        if num_traces not in self._accuracies:
            self._accuracies[num_traces] = self._read_accuracies(num_traces)
        return self._accuracies[num_traces].get(question_id)

    def _read_accuracies(self, num_traces: int) -> dict[str, float | None]:
        used = self.traces.filter(pl.col("trace_id") < num_traces)
        sums = used.group_by("question_id").agg(
            is_judged=pl.col("num_decided").is_not_null().any(),
            num_correct=pl.col("num_correct").sum(),
            num_decided=pl.col("num_decided").sum(),
            num_unanswered=pl.col("is_unanswered").sum(),
        )
        # The example of `question_accuracy`: 2 decided answers, 7 traces without one, M = 2.
        num_decided = pl.col("num_decided")
        num_wrong = self.num_answers * pl.col("num_unanswered")
        num_responses = num_decided + num_wrong
        is_undecided = pl.col("is_judged") & (num_decided == 0)
        is_known = ~is_undecided & (num_responses > 0)
        share = pl.col("num_correct") / num_responses
        accuracy = pl.when(is_known).then(share)
        by_question = sums.select("question_id", accuracy)
        return dict(by_question.iter_rows())


def join(config: Config, outputs: Sequence[OutputConfig]) -> Joined:
    """Join what these outputs need, for the traces of sampling.traces_from.

    Raises: ValueError for a table that is not there (with the outputs that need it), tables of
    different runs, and rows that are missing or belong to nothing, with their ids.
    """
    tables = open_tables(config, outputs)
    is_partly_scored = scores_are_partial(outputs, tables)
    _, questions = training_questions(config)
    sampled = _sampled(tables)
    num_traces = 1 + _largest(sampled["trace_id"])
    gaps = _Gaps(tables, config.cutoff_len)
    gaps.check_traces(questions, sampled, num_traces)

    places = _questions_frame(questions).with_row_index("place")
    traces = sampled.join(places, on="question_id", how="left")
    others = {name: _scores(tables, name) for name in tables.scores}
    num_answers = 0
    if "answers" in tables:
        others["answers"] = _counted_answers(tables)
        num_answers = 1 + _largest(others["answers"]["last_answer"])
    for name, rows in others.items():
        gaps.check_strangers(name, rows, sampled)
        new_names = {
            "reason": f"{name}_left_out",
            "is_failed": f"{name}_failed",
        }
        left_out = gaps.left_out[name].rename(new_names)
        traces = traces.join(rows, on=KEY, how="left")
        traces = traces.join(left_out, on=KEY, how="left")
    traces = _with_absent_columns(traces)
    traces = traces.sort("place", "trace_id")

    # `reasoner_left_out` is null where stage 4 did not report a trace, and `has_reasoner` where it
    # has no row for it. With both null, nobody knows why the row is absent: it is missing.
    is_skipped = pl.lit(False)
    if is_partly_scored:
        is_skipped = _is_skipped(tables.scores)
    reason = _reason(list(others), is_skipped)
    traces = traces.with_columns(reason=reason)
    is_wanted = _unusable().is_null() & ~is_skipped
    for name in others:
        is_reported = pl.col(f"{name}_left_out").is_not_null()
        is_missing = is_wanted & _is_absent(name) & ~is_reported
        gaps.missing[name] = traces.filter(is_missing)
    gaps.refuse()
    return Joined(
        tables=tables,
        questions=questions,
        traces=traces.with_columns(is_unanswered=_is_unanswered(tables)),
        num_traces=num_traces,
        num_answers=num_answers,
    )


class _Gaps:
    """Rows that should be there and are not, and rows that belong to nothing, by table.

    left_out: what the stages reported, as `OpenTables.left_out` has it. missing: rows that are
    absent although no stage reported them. unknown: rows about a question or a trace that its own
    table does not have.
    """

    def __init__(self, tables: OpenTables, cutoff_len: int) -> None:
        self.tables = tables
        self.left_out = {name: tables.left_out(name, cutoff_len) for name in tables.readers}
        self.missing: dict[str, pl.DataFrame] = {}
        self.unknown: dict[str, pl.DataFrame] = {}

    def check_traces(
        self, questions: Sequence[str], sampled: pl.DataFrame, num_traces: int
    ) -> None:
        """Every question has K traces, or stage 3 said why not; every trace has a question."""
        known = _questions_frame(questions)
        trace_ids = pl.int_range(num_traces, dtype=pl.Int32, eager=True).alias("trace_id")
        left_out = self.left_out["traces"]
        whole_questions = left_out.filter(pl.col("trace_id").is_null())

        # Questions q0 and q1, K = 2. Stage 3 left out q1 as a whole, and sampled trace 0 of q0.
        # Expected are traces 0 and 1 of q0; trace 1 is absent. It is missing, unless stage 3
        # reported this one trace.
        asked = _without(known, whole_questions, ["question_id"])
        expected = asked.join(trace_ids.to_frame(), how="cross", maintain_order="left_right")
        absent = _without(expected, sampled, KEY)
        self.missing["traces"] = _without(absent, left_out, KEY)

        unknown = _without(sampled, known, ["question_id"])
        self.unknown["traces"] = unknown.sort(KEY)

    def check_strangers(self, name: str, rows: pl.DataFrame, sampled: pl.DataFrame) -> None:
        """Every row of another table is about a trace."""
        unknown = _without(rows, sampled, KEY)
        self.unknown[name] = unknown.sort(KEY)

    def refuse(self) -> None:
        """Raises: ValueError that lists what was found."""
        folders = self.tables.folders
        faults = []
        for name, missing in self.missing.items():
            if missing.is_empty():
                continue
            faults.append(
                f"{folders[name]} lacks {len(missing)} traces that it should have, such as "
                f"{_some(missing, KEY)}; remove it and run stage {STAGES[name]} again"
            )
        for name, unknown in self.unknown.items():
            if unknown.is_empty():
                continue
            source = folders["questions" if name == "traces" else "traces"]
            faults.append(
                f"{folders[name]} has {len(unknown)} traces that {source} knows nothing of, "
                f"such as {_some(unknown, KEY)}; the two are of different runs"
            )
        if faults:
            raise ValueError("\n".join(faults))


def _without(rows: pl.DataFrame, others: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The rows whose key no row of `others` has, in their order."""
    return rows.join(others, on=key, how="anti", maintain_order="left")


def _questions_frame(questions: Sequence[str]) -> pl.DataFrame:
    """Questions as a table to join with, in their order."""
    return pl.Series("question_id", questions, pl.String).to_frame()


def _sampled(tables: OpenTables) -> pl.DataFrame:
    """The table of traces without its texts."""
    required = [*KEY, "num_tokens", "finish_reason", "is_well_formed"]
    optional = {
        "trained_tokens": pl.Int32,
        "is_trained_as_sampled": pl.Boolean,
    }
    rows = tables.summary("traces", [*required, *optional])
    rows = rows.rename({"num_tokens": "trace_tokens"})
    return _with_columns(rows, optional)


def _scores(tables: OpenTables, name: str) -> pl.DataFrame:
    """A table of log-likelihoods under the names that `Joined.traces` has for its columns."""
    new_names = {
        "trace_logp": f"{name}_logp",
        "trace_tokens": f"{name}_tokens",
        "temperature": f"{name}_temperature",
    }
    columns = [*KEY, *new_names]
    if name == "reasoner":
        columns += ["answer_logp", "answer_tokens"]
    rows = tables.summary(name, columns).rename(new_names)
    has_row = pl.lit(True).alias(f"has_{name}")
    return rows.with_columns(has_row)


def _counted_answers(tables: OpenTables) -> pl.DataFrame:
    """Verdicts by trace. Raises: ValueError for an answer without a verdict.

    With M = 3, an answer in each row on the left, a trace in each row on the right:

        q0, 0, 0   correct           q0, 0   num_correct 1, num_decided 2, last_answer 2
        q0, 0, 1   wrong
        q0, 0, 2   checker_error
    """
    ids = [*KEY, "answer_id"]
    answers = tables.summary("answers", ids)
    verdicts = tables.summary("verdicts", [*ids, "verdict"])
    judged = answers.join(verdicts, on=ids, how="left", maintain_order="left")
    missing = judged.filter(pl.col("verdict").is_null())
    if len(missing):
        raise ValueError(
            f"{tables.folders['verdicts']} lacks {len(missing)} answers, such as "
            f"{_some(missing, ids)}; remove it and run stage 7 again"
        )
    for verdict in judged["verdict"].unique():
        Verdict(verdict)  # refuses one that nobody knows
    undecided = [verdict.value for verdict in UNDECIDED]
    is_undecided = pl.col("verdict").is_in(undecided)
    is_correct = pl.col("verdict") == Verdict.CORRECT.value
    is_refused = pl.col("verdict") == Verdict.WRONG_TRACE.value
    return judged.group_by(KEY).agg(
        num_correct=is_correct.sum(),
        num_decided=(~is_undecided).sum(),
        is_refused=is_refused.any(),
        last_answer=pl.col("answer_id").max(),
        has_answers=pl.lit(True),
    )


def _with_absent_columns(traces: pl.DataFrame) -> pl.DataFrame:
    """The columns of tables that were not asked for, without values."""
    columns: dict[str, Any] = {
        "answer_logp": pl.Float64,
        "answer_tokens": pl.Int32,
        "is_refused": pl.Boolean,
        "num_correct": pl.UInt32,
        "num_decided": pl.UInt32,
    }
    for name in SCORES:
        columns[f"{name}_logp"] = pl.Float64
        columns[f"{name}_tokens"] = pl.Int32
        columns[f"{name}_temperature"] = pl.Float64
    return _with_columns(traces, columns)


def _with_columns(rows: pl.DataFrame, columns: dict[str, Any]) -> pl.DataFrame:
    """These columns without values, where they are absent."""
    for name, kind in columns.items():
        if name not in rows.columns:
            without_values = pl.lit(None, kind)
            rows = rows.with_columns(without_values.alias(name))
    return rows


def _unusable() -> pl.Expr:
    """Why no training can use a sampled trace, before anything else is known of it; else null."""
    is_malformed = ~pl.col("is_well_formed")
    malformed = pl.lit("malformed")
    is_cut = pl.col("finish_reason") != "stop"
    cut = pl.format("finish_reason {}", pl.col("finish_reason"))
    return pl.when(is_malformed).then(malformed).when(is_cut).then(cut)


def _is_absent(name: str) -> pl.Expr:
    """Whether a trace has no row in another table."""
    return pl.col(f"has_{name}").is_null()


def _is_skipped(scores: Sequence[str]) -> pl.Expr:
    """Whether stages 4 or 5 have left out a trace because it has no right answer."""
    has_gap = pl.any_horizontal([_is_absent(name) for name in scores])
    has_no_right_answer = pl.col("num_correct") == 0
    # null without answers; then nobody knows that it has no right one
    return has_gap & has_no_right_answer.fill_null(False)


def _reason(others: Sequence[str], is_skipped: pl.Expr) -> pl.Expr:
    """Why a trace is not a candidate, the first of what holds; null for a candidate.

    Args:
        others: the tables next to `traces` that were asked for.
    """
    is_refused = pl.col("is_refused")
    refused = pl.lit(REFUSED)
    skipped = pl.lit("not scored, no verified answer")
    # `coalesce` takes the first that is not null. A cut trace without scores is cut, not missing.
    reasons = [
        _unusable(),
        pl.when(is_refused).then(refused),
        pl.when(is_skipped).then(skipped),
    ]
    for name in others:
        left_out = pl.col(f"{name}_left_out")
        absent = left_out.fill_null("missing")
        reasons.append(pl.when(_is_absent(name)).then(absent))
    return pl.coalesce(reasons)


def _is_unanswered(tables: OpenTables) -> pl.Expr:
    """Traces after which no answer could follow: malformed, cut, or without room."""
    if "answers" not in tables:
        return pl.lit(False)
    is_unusable = _unusable().is_not_null()
    # Of a trace that stage 6 left out: false for one that had no room, true for one that failed.
    # Null for any other trace: nothing says that an answer could not follow it.
    has_no_room = ~pl.col("answers_failed").fill_null(True)
    return _is_absent("answers") & (is_unusable | has_no_room)


def _largest(ids: pl.Series) -> int:
    """The last of ids from 0; K or M is one more."""
    largest = ids.max()
    assert isinstance(largest, int)  # a finished table has rows
    return largest


def _some(rows: pl.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The first rows, for a message."""
    listed = rows.select(columns).head(_NUM_LISTED)
    return listed.rows()
