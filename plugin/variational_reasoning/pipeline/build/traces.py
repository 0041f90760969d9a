"""The candidates of some questions with their texts, block by block (stage 8).

Texts are nearly all of a run's bytes: at the paper's scale 4 GB of traces, while `Joined` has
100 MB. So no more than one block of questions has them in memory:

    for block in read_blocks(joined, config):              256 questions
        for question_id in block.questions:
            block.traces[question_id]                      its candidates, as `Trace`
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from variational_reasoning.method.estimators import Evidence, find_estimator, log_gml
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.method.weights import log_ratio, log_rho
from variational_reasoning.pipeline.build.join import Joined
from variational_reasoning.pipeline.build.open_tables import KEY, STAGES
from variational_reasoning.verify.verdicts import Verdict

QUESTIONS_PER_BLOCK = 256

_QUESTION_COLUMNS = (
    "question",
    "trace",
    "solution",
    "prompt_tokens",
    "trace_tokens",
    "solution_tokens",
)

Measure = Callable[[str, Sequence[int]], tuple[int, bool]]
"""(trained_tokens, is_trained_as_sampled) of a trace's text and its ids."""


class Answer(NamedTuple):
    """An accepted answer; trained_tokens as in the table `answers`."""

    trace_id: int
    answer_id: int
    solution: str
    trained_tokens: int | None


@dataclass(frozen=True)
class Trace:
    """One sampled trace with what the stages before found out about it; log-likelihoods in nats.

    log_ratio is (mean, sum) over the trace's tokens; it, the reference solution's answer_logp and
    answer_tokens, and the counts of decided verdicts are None where their table was not asked for,
    the counts also where none is decided. verified: in the order of answer_id. trained_tokens and
    is_trained_as_sampled: as in the table `traces`.
    """

    question_id: str
    trace_id: int
    text: str
    trace_tokens: int
    log_ratio: tuple[float, float] | None
    answer_logp: float | None
    answer_tokens: int | None
    num_correct: int | None
    num_answers: int | None
    verified: tuple[Answer, ...]
    trained_tokens: int | None = None
    is_trained_as_sampled: bool | None = None

    def log_rho(self, estimator: str, ratio: str) -> float:
        """log rho in nats; minus infinity where no answer is verified or none is decided, and with
        an estimator of the solution for a question without one.
        """
        found = find_estimator(estimator)
        evidence = Evidence(
            self.num_correct, self.num_answers, self.answer_logp, self.answer_tokens
        )
        if not found.is_known(evidence):
            return -math.inf
        return log_rho(ratio, self.log_ratio, found.log_term(evidence))

    def terms(self, estimator: str, ratio: str) -> dict[str, Any]:
        """The columns RHO_TERMS of a train row; `accuracy` and `gml` are in [0, 1]; `log_rho` is
        the output's.
        """
        mean, total = self.log_ratio or (None, None)
        accuracy, gml = None, None
        if self.num_correct is not None and self.num_answers:
            accuracy = self.num_correct / self.num_answers
        if self.answer_logp is not None and self.answer_tokens is not None:
            gml = math.exp(log_gml(self.answer_logp, self.answer_tokens))
        return {
            "mean_log_ratio": mean,
            "sum_log_ratio": total,
            "trace_tokens": self.trace_tokens,
            "accuracy": accuracy,
            "num_correct": self.num_correct,
            "num_answers": self.num_answers,
            "gml": gml,
            "answer_logp": self.answer_logp,
            "answer_tokens": self.answer_tokens,
            "log_rho": self.log_rho(estimator, ratio),
        }


class Block(NamedTuple):
    """Some questions, in their order.

    questions: rows of the table `questions`. traces: candidates of each, in the order of trace_id.
    num_compared, num_copies: sampled traces of questions that have a trace of their own, candidates
    or not, and those of them that repeat it.
    """

    questions: dict[str, Mapping[str, Any]]
    traces: dict[str, list[Trace]]
    num_compared: int
    num_copies: int


def read_blocks(
    joined: Joined,
    renderer: Renderer,
    measure: Measure | None = None,
    only: Set[str] | None = None,
) -> Iterator[Block]:
    """All questions with their candidates.

    Args:
        measure: for the candidates whose trained_tokens the table does not have; they stay None
            without it.
        only: leave out the questions that are not in it.

    Raises: ValueError for a shard that is missing or was changed, and for log-likelihoods that
    cannot be those of a trace, with its ids.
    """
    for start in range(0, len(joined.questions), QUESTIONS_PER_BLOCK):
        stop = start + QUESTIONS_PER_BLOCK
        names = joined.questions[start:stop]
        if only is not None:
            names = [name for name in names if name in only]
        if names:
            rows = joined.traces.filter(pl.col("place").is_between(start, stop, closed="left"))
            yield _read_block(joined, names, rows, renderer, measure)


def _read_block(
    joined: Joined,
    names: Sequence[str],
    rows: pl.DataFrame,
    renderer: Renderer,
    measure: Measure | None,
) -> Block:
    readers = joined.tables.readers
    found = readers["questions"].rows_of(names, _QUESTION_COLUMNS)
    questions = {name: found[name][0] for name in names}
    is_unmeasured = measure is not None and rows["trained_tokens"].has_nulls()
    columns = ["text", "token_ids"] if is_unmeasured else ["text"]
    texts = readers["traces"].table_of(names, columns)
    verified = _read_verified(joined, names, renderer) if "answers" in joined.tables else {}
    rows = rows.join(pl.DataFrame(texts), on=KEY, how="inner", maintain_order="left")
    traces: dict[str, list[Trace]] = {name: [] for name in names}
    num_compared, num_copies = 0, 0
    for row in rows.iter_rows(named=True):
        question_id, text = row["question_id"], row["text"]
        expert = questions[question_id]["trace"].strip()
        num_compared += bool(expert)
        num_copies += bool(expert) and text.strip() == expert
        if row["reason"] is not None:
            continue
        if measure is not None and row["trained_tokens"] is None:
            measured = measure(text, row["token_ids"])
            row["trained_tokens"], row["is_trained_as_sampled"] = measured
        traces[question_id].append(_trace(row, verified.get((question_id, row["trace_id"]), ())))
    return Block(questions, traces, num_compared, num_copies)


def _read_verified(
    joined: Joined, names: Sequence[str], renderer: Renderer
) -> dict[tuple[str, int], tuple[Answer, ...]]:
    """The accepted answers by (question_id, trace_id)."""
    readers = joined.tables.readers
    ids = [*KEY, "answer_id"]
    verdicts = pl.DataFrame(readers["verdicts"].table_of(names, ["verdict"]))
    accepted = verdicts.filter(pl.col("verdict") == Verdict.CORRECT.value)
    texts = pl.DataFrame(readers["answers"].table_of(names, ["text", "trained_tokens"]))
    answers = texts.join(accepted, on=ids, how="semi").sort(ids)
    verified: dict[tuple[str, int], tuple[Answer, ...]] = {}
    columns = (*ids, "text", "trained_tokens")
    for question_id, trace_id, answer_id, text, num_tokens in answers.select(columns).iter_rows():
        solution = renderer.solution_of_answer(text)
        if solution is None:
            continue
        answer = Answer(trace_id, answer_id, solution, num_tokens)
        earlier = verified.get((question_id, trace_id), ())
        verified[question_id, trace_id] = (*earlier, answer)
    return verified


def _trace(row: Mapping[str, Any], verified: tuple[Answer, ...]) -> Trace:
    where = f"question {row['question_id']}, trace {row['trace_id']}"
    for name in ("reasoner", "posterior"):
        num_tokens = row[f"{name}_tokens"]
        if num_tokens not in (None, row["trace_tokens"]):
            raise ValueError(
                f"{where}: the {name}'s log-likelihood is of {num_tokens} tokens, but the trace "
                f"has {row['trace_tokens']}; the tables are of different runs. Remove "
                f"trace_logps/{name} and run stage {STAGES[name]} again"
            )
    ratio = None
    try:
        if row["answer_tokens"] is not None:
            log_gml(row["answer_logp"], row["answer_tokens"])
        if row["reasoner_logp"] is not None and row["posterior_logp"] is not None:
            temperatures = row["reasoner_temperature"], row["posterior_temperature"]
            if temperatures[0] != temperatures[1]:
                raise ValueError(
                    f"temperature is {temperatures[0]} for the reasoner and {temperatures[1]} for "
                    "the posterior; the ratio needs the same. Run stages 4 and 5 again"
                )
            ratio = log_ratio(row["reasoner_logp"], row["posterior_logp"], row["trace_tokens"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Trace(
        question_id=row["question_id"],
        trace_id=row["trace_id"],
        text=row["text"],
        trace_tokens=row["trace_tokens"],
        log_ratio=ratio,
        answer_logp=row["answer_logp"],
        answer_tokens=row["answer_tokens"],
        num_correct=row["num_correct"] if row["num_decided"] else None,
        num_answers=row["num_decided"] or None,
        verified=verified,
        trained_tokens=row["trained_tokens"],
        is_trained_as_sampled=row["is_trained_as_sampled"],
    )
