"""The candidates of some questions with their texts, block by block (stage 8).

Texts are nearly all of a run's bytes: at the paper's scale 4 GB of traces, while `Joined` has
100 MB. So no more than one block of questions has them in memory:

    for block in read_blocks(joined, renderer):            256 questions
        for question_id in block.questions:
            block.traces[question_id]                      its candidates, as `Trace`
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from variational_reasoning.method.estimators import Evidence, find_estimator, log_gml
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.method.weights import log_ratio, log_rho
from variational_reasoning.pipeline.build.join import Joined
from variational_reasoning.pipeline.build.open_tables import KEY, KEY_TYPES, SCORES, STAGES
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
        mean_log_ratio, sum_log_ratio = self.log_ratio or (None, None)
        accuracy = None
        gml = None
        if self.num_correct is not None and self.num_answers:
            accuracy = self.num_correct / self.num_answers
        if self.answer_logp is not None and self.answer_tokens is not None:
            gml = math.exp(log_gml(self.answer_logp, self.answer_tokens))
        return {
            "mean_log_ratio": mean_log_ratio,
            "sum_log_ratio": sum_log_ratio,
            "trace_tokens": self.trace_tokens,
            "accuracy": accuracy,
            "num_correct": self.num_correct,
            "num_answers": self.num_answers,
            "gml": gml,
            "answer_logp": self.answer_logp,
            "answer_tokens": self.answer_tokens,
            "log_rho": self.log_rho(estimator, ratio),
        }


class Chosen(NamedTuple):
    """What the rows of the planned files are made of: questions, traces by (question_id, trace_id),
    and answers by (question_id, trace_id, answer_id).
    """

    questions: set[str]
    traces: set[tuple[str, int]]
    answers: set[tuple[str, int, int]]


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
    chosen: Chosen | None = None,
) -> Iterator[Block]:
    """All questions with their candidates. A block is read while the caller works on the one
    before it.

    Args:
        measure: for the candidates whose trained_tokens the table does not have; they stay None
            without it.
        chosen: leave out all others.

    Raises: ValueError for a shard that is missing or was changed, and for log-likelihoods that
    cannot be those of a trace, with its ids.
    """
    reader = _BlockReader(joined, renderer, measure, chosen)
    starts = range(0, len(joined.questions), QUESTIONS_PER_BLOCK)
    # While the caller works on block 0, the thread reads block 1; two are in memory at most.
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Block] | None = None
        for start in starts:
            block = waiting
            waiting = pool.submit(reader.read, start)
            if block is not None:
                yield block.result()
        if waiting is not None:
            yield waiting.result()


class _BlockReader:
    """Reads blocks; see `read_blocks`."""

    def __init__(
        self,
        joined: Joined,
        renderer: Renderer,
        measure: Measure | None,
        chosen: Chosen | None,
    ) -> None:
        self.joined = joined
        self.renderer = renderer
        self.measure = measure
        self.readers = joined.tables.readers
        self.questions: set[str] | None = None
        self.traces: pl.DataFrame | None = None
        self.answers: pl.DataFrame | None = None
        if chosen is not None:
            self.questions = chosen.questions
            self.traces = pl.DataFrame(list(chosen.traces), KEY_TYPES, orient="row")
            answer_types = KEY_TYPES | {"answer_id": pl.Int32}
            self.answers = pl.DataFrame(list(chosen.answers), answer_types, orient="row")

    def read(self, start: int) -> Block:
        """The block that begins with this question."""
        stop = start + QUESTIONS_PER_BLOCK
        names = self.joined.questions[start:stop]
        if self.questions is not None:
            names = [name for name in names if name in self.questions]
        found = self.readers["questions"].rows_of(names, _QUESTION_COLUMNS)
        questions = {name: found[name][0] for name in names}
        in_block = pl.col("place").is_between(start, stop, closed="left")
        rows = self._with_texts(self.joined.traces.filter(in_block), names)
        verified = self._verified(names)
        traces: dict[str, list[Trace]] = {name: [] for name in names}
        num_compared = 0
        num_copies = 0
        for row in rows.iter_rows(named=True):
            question_id = row["question_id"]
            text = row["text"]
            expert = questions[question_id]["trace"].strip()
            if expert:
                num_compared += 1
                num_copies += text.strip() == expert
            if row["reason"] is not None:
                continue
            if self.measure is not None and row["trained_tokens"] is None:
                num_tokens, is_as_sampled = self.measure(text, row["token_ids"])
                row["trained_tokens"] = num_tokens
                row["is_trained_as_sampled"] = is_as_sampled
            answers = verified.get((question_id, row["trace_id"]), ())
            trace = _trace(row, answers)
            traces[question_id].append(trace)
        return Block(questions, traces, num_compared, num_copies)

    def _with_texts(self, rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """`text`, and `token_ids` where they have to be compared."""
        if self.traces is not None:
            rows = rows.join(self.traces, on=KEY, how="semi", maintain_order="left")
        columns = ["text"]
        if self.measure is not None and rows["trained_tokens"].has_nulls():
            columns.append("token_ids")
        texts = self._read("traces", names, columns)
        return rows.join(texts, on=KEY, how="inner", maintain_order="left")

    def _read(self, table: str, names: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """The rows of these questions, with the key's columns and these."""
        return pl.DataFrame(self.readers[table].table_of(names, columns))

    def _verified(self, names: Sequence[str]) -> dict[tuple[str, int], tuple[Answer, ...]]:
        """The accepted answers by (question_id, trace_id)."""
        if "answers" not in self.readers:
            return {}
        ids = [*KEY, "answer_id"]
        wanted = self.answers
        if wanted is None:
            verdicts = self._read("verdicts", names, ["verdict"])
            is_correct = pl.col("verdict") == Verdict.CORRECT.value
            wanted = verdicts.filter(is_correct)
        elif wanted.is_empty():
            return {}
        columns = ["text", "trained_tokens"]
        answers = self._read("answers", names, columns)
        answers = answers.join(wanted, on=ids, how="semi")
        answers = answers.sort(ids).select(*ids, *columns)
        verified: dict[tuple[str, int], tuple[Answer, ...]] = {}
        for question_id, trace_id, answer_id, text, num_tokens in answers.iter_rows():
            solution = self.renderer.solution_of_answer(text)
            if solution is None:
                continue
            answer = Answer(trace_id, answer_id, solution, num_tokens)
            earlier = verified.get((question_id, trace_id), ())
            verified[question_id, trace_id] = (*earlier, answer)
        return verified


def _trace(row: Mapping[str, Any], verified: tuple[Answer, ...]) -> Trace:
    """Args: row: of `Joined.traces`, with its text.

    Raises: ValueError for log-likelihoods that cannot be those of the trace.
    """
    where = f"question {row['question_id']}, trace {row['trace_id']}"
    for name in SCORES:
        num_tokens = row[f"{name}_tokens"]
        if num_tokens not in (None, row["trace_tokens"]):
            raise ValueError(
                f"{where}: the {name}'s log-likelihood is of {num_tokens} tokens, but the trace "
                f"has {row['trace_tokens']}; the tables are of different runs. Remove "
                f"trace_logps/{name} and run stage {STAGES[name]} again"
            )
    try:
        if row["answer_tokens"] is not None:
            log_gml(row["answer_logp"], row["answer_tokens"])  # for what it refuses
        ratio = _ratio(row)
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


def _ratio(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """(mean, sum) of the log ratio; None without the log-likelihoods of both models."""
    reasoner_logp = row["reasoner_logp"]
    posterior_logp = row["posterior_logp"]
    if reasoner_logp is None or posterior_logp is None:
        return None
    of_reasoner = row["reasoner_temperature"]
    of_posterior = row["posterior_temperature"]
    if of_reasoner != of_posterior:
        raise ValueError(
            f"temperature is {of_reasoner} for the reasoner and {of_posterior} for the posterior; "
            "the ratio needs the same. Run stages 4 and 5 again"
        )
    return log_ratio(reasoner_logp, posterior_logp, row["trace_tokens"])
