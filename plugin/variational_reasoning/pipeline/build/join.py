"""What stages 3 to 7 found out about each sampled trace, joined by ids (first half of stage 8).

A row that is missing, and that no stage reported as dropped or failed, is an error with its ids.

Undecided verdicts (checker_error, unverifiable) are left out of the accuracy, not counted as wrong.
A response that
ended before it had an answer is wrong: it counts in P(Y_x | x), although no answer was sampled
after its trace.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from variational_reasoning.method.estimators import Evidence, find_estimator, log_gml
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.method.weights import log_ratio, log_rho
from variational_reasoning.pipeline.build.open_tables import (
    STAGES,
    Key,
    OpenTables,
    open_tables,
    scores_are_partial,
)
from variational_reasoning.pipeline.config import Config, OutputConfig
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.rows import (
    group_by,
    index_by,
    read_rows,
    read_table,
)
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

_LOGP_COLUMNS = [
    "question_id",
    "trace_id",
    "trace_logp",
    "trace_tokens",
    "answer_logp",
    "answer_tokens",
    "temperature",
]


@dataclass(frozen=True)
class Trace:
    """One sampled trace with what the stages before found out about it; log-likelihoods in nats.

    log_ratio is (mean, sum) over the trace's tokens; it, the reference solution's answer_logp and
    answer_tokens, and the counts of decided verdicts are None where their table was not asked for,
    the counts also where none is decided. verified holds (answer_id, solution) of each accepted
    answer.
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
    verified: tuple[tuple[int, str], ...]

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


@dataclass(frozen=True)
class Joined:
    """All tables of one model's traces.

    questions: rows by question_id. sampled: all rows of the traces table. traces: those that
    finished, are well formed and have all that is needed, by question_id in the order of trace_id;
    filtered: how many do not, by reason. decided: (num_correct, num_answers) of every trace that
    was judged, filtered or not. unanswered: traces that are malformed or cut, so that no answer
    could follow. num_traces: K. num_answers: M, 0 without answers. inputs: digests.
    """

    questions: dict[str, Mapping[str, Any]]
    sampled: list[dict[str, Any]]
    traces: dict[str, list[Trace]]
    filtered: dict[str, int]
    decided: dict[Key, tuple[int, int]]
    unanswered: frozenset[Key]
    num_traces: int
    num_answers: int
    inputs: dict[str, str]
    has_verdicts: bool

    def question_accuracy(self, question_id: str, num_traces: int) -> float | None:
        """P(Y_x | x): the share of the responses with the first num_traces traces that are right
        (Eqs. 10 and 12).

        A response is a trace and an answer. One whose trace is malformed or cut has no answer and
        is wrong; each such trace counts as M responses, as every other trace does. With K = 8 and
        M = 2:

            one trace with two right answers, seven malformed    2 / (2 + 7 * 2) = 0.125

        Returns: None when nothing is known: no verdicts, or none of the answers is decided.
        """
        keys = [(question_id, trace_id) for trace_id in range(num_traces)]
        judged = [self.decided[key] for key in keys if key in self.decided]
        num_correct = sum(correct for correct, _ in judged)
        num_decided = sum(answers for _, answers in judged)
        if judged and not num_decided:
            return None
        num_wrong_for_sure = self.num_answers * sum(key in self.unanswered for key in keys)
        num_responses = num_decided + num_wrong_for_sure
        return num_correct / num_responses if num_responses else None


def join(config: Config, outputs: Sequence[OutputConfig]) -> Joined:
    """Read and join what these outputs need, for the traces of sampling.traces_from.

    What becomes of a trace, with K = 4 and all tables asked for:

        trace               reasoner   posterior   answers
        q0, 0               row        row         rows       a candidate
        q0, 1, malformed                                      filtered: malformed
        q0, 2               dropped    row         rows       filtered: beyond cutoff_len
        q0, 3                          row         rows       an error: stage 4 said nothing of it

    Raises: ValueError for a table that is not there (with the outputs that need it), tables of
    different runs, and rows that are missing or belong to nothing, with their ids.
    """
    tables = open_tables(config, outputs)
    reader, train = training_questions(config)
    found = reader.rows_of(train, ["question", "trace", "solution"])
    questions = {question_id: found[question_id][0] for question_id in train}
    sampled = _sampled(tables.folders["traces"])
    by_key = {(row["question_id"], row["trace_id"]): row for row in sampled}
    num_traces = 1 + max(row["trace_id"] for row in sampled)
    answers = _answers_by_trace(tables) if "answers" in tables else {}
    scores = {name: _scores(tables.folders[name]) for name in tables.scores}
    gaps = _Gaps(tables, config.cutoff_len, scores_are_partial(outputs, tables))
    gaps.check_traces(questions, by_key, num_traces)
    gaps.check_strangers(by_key, {**scores, "answers": answers})

    traces: dict[str, list[Trace]] = defaultdict(list)
    filtered: Counter[str] = Counter()
    for key, row in sorted(by_key.items()):
        rows = {name: scores[name][key] for name in scores if key in scores[name]}
        reason = _unusable(row) or gaps.why_absent(key, rows, answers.get(key))
        if reason:
            filtered[reason] += 1
        else:
            traces[key[0]].append(_trace(row, rows, answers.get(key, ()), config.renderer))
    gaps.refuse()
    return Joined(
        questions=questions,
        sampled=sampled,
        traces=dict(traces),
        filtered=dict(filtered),
        decided={key: _count_decided(group) for key, group in answers.items()},
        unanswered=_unanswered(tables, by_key, answers),
        num_traces=num_traces,
        num_answers=_num_answers(answers),
        inputs=tables.digests,
        has_verdicts="verdicts" in tables,
    )


class _Gaps:
    """Rows that should be there and are not, and rows that belong to nothing, by table."""

    def __init__(self, tables: OpenTables, cutoff_len: int, is_partly_scored: bool) -> None:
        self.tables, self.is_partly_scored = tables, is_partly_scored
        self.left_out = {name: tables.left_out(name, cutoff_len) for name in tables.manifests}
        self.missing: dict[str, list[Key]] = defaultdict(list)
        self.unknown: dict[str, list[Key]] = defaultdict(list)

    def check_traces(
        self, questions: Mapping[str, Any], by_key: Mapping[Key, Any], num_traces: int
    ) -> None:
        """Every question has K traces, or stage 3 said why not; every trace has a question."""
        left_out = self.left_out["traces"]
        for question_id in questions:
            for trace_id in range(num_traces):
                key = (question_id, trace_id)
                is_known = key in by_key or key in left_out or (question_id, None) in left_out
                if not is_known:
                    self.missing["traces"].append(key)
        self.unknown["traces"] += sorted(key for key in by_key if key[0] not in questions)

    def check_strangers(
        self, by_key: Mapping[Key, Any], others: Mapping[str, Mapping[Key, Any]]
    ) -> None:
        """Every row of another table is about a trace."""
        for name, rows in others.items():
            self.unknown[name] += sorted(rows.keys() - by_key.keys())

    def why_absent(
        self,
        key: Key,
        scores: Mapping[str, Any],
        answers: Sequence[Mapping[str, Any]] | None,
    ) -> str | None:
        """Why a trace cannot be a candidate; None where it has a row in every table.

        A row that no stage left out is noted as missing, for `refuse`.
        """
        absent = [name for name in self.tables.scores if name not in scores]
        verdicts = {answer["verdict"] for answer in answers or ()}
        is_without_right_answer = answers is not None and Verdict.CORRECT not in verdicts
        if absent and self.is_partly_scored and is_without_right_answer:
            return "not scored, no verified answer"
        if "answers" in self.tables and answers is None:
            absent.append("answers")
        for name in absent:
            if key not in self.left_out[name]:
                self.missing[name].append(key)
        return self.left_out[absent[0]].get(key, "missing") if absent else None

    def refuse(self) -> None:
        """Raises: ValueError that lists what was found."""
        folders, faults = self.tables.folders, []
        for name, keys in self.missing.items():
            if keys:
                faults.append(
                    f"{folders[name]} lacks {len(keys)} traces that it should have, such as "
                    f"{keys[:3]}; remove it and run "
                    f"stage {STAGES[name]} again"
                )
        for name, keys in self.unknown.items():
            if keys:
                source = folders["questions" if name == "traces" else "traces"]
                faults.append(
                    f"{folders[name]} has {len(keys)} traces that {source} knows nothing of, such "
                    f"as {keys[:3]}; the two "
                    "are of different runs"
                )
        if faults:
            raise ValueError("\n".join(faults))


def _unanswered(
    tables: OpenTables, by_key: Mapping[Key, Mapping[str, Any]], answers: Mapping[Key, Any]
) -> frozenset[Key]:
    """Traces after which no answer could follow: malformed, cut, or without room."""
    if "answers" not in tables:
        return frozenset()
    dropped = tables.manifests["answers"].get("dropped", ())
    no_room = {(row["question_id"], row.get("trace_id")) for row in dropped}
    return frozenset(
        key
        for key, row in by_key.items()
        if key not in answers and (_unusable(row) or key in no_room)
    )


def _num_answers(answers: Mapping[Key, Sequence[Mapping[str, Any]]]) -> int:
    """M: every trace that is answered at all gets the answers 0 .. M - 1."""
    ids = (answer["answer_id"] for group in answers.values() for answer in group)
    return 1 + max(ids, default=-1)


def _sampled(folder: Path) -> list[dict[str, Any]]:
    """Rows of the traces table, with trace_tokens in place of the ids."""
    columns = ["question_id", "trace_id", "token_ids", "text", "finish_reason", "is_well_formed"]
    table = read_table(folder, "traces", columns)
    lengths = pc.list_value_length(table["token_ids"])
    return table.drop_columns(["token_ids"]).append_column("trace_tokens", lengths).to_pylist()


def _scores(folder: Path) -> dict[Key, Mapping[str, Any]]:
    return index_by(read_rows(folder, "trace_logps", _LOGP_COLUMNS), "question_id", "trace_id")


def _answers_by_trace(tables: OpenTables) -> dict[Key, list[Mapping[str, Any]]]:
    """Answers with their verdicts by trace. Raises: ValueError for an answer without a verdict."""
    ids = ("question_id", "trace_id", "answer_id")
    verdicts = index_by(read_rows(tables.folders["verdicts"], "verdicts", [*ids, "verdict"]), *ids)
    answers = read_rows(tables.folders["answers"], "answers", [*ids, "text"])
    missing = [
        key for key in (tuple(row[name] for name in ids) for row in answers) if key not in verdicts
    ]
    if missing:
        raise ValueError(
            f"{tables.folders['verdicts']} lacks {len(missing)} answers, such as {missing[:3]}; "
            f"remove it and run stage 7 again"
        )
    joined = [
        row | {"verdict": Verdict(verdicts[tuple(row[n] for n in ids)]["verdict"])}
        for row in answers
    ]
    return group_by(joined, "question_id", "trace_id")


def _unusable(row: Mapping[str, Any]) -> str | None:
    """Why no training can use a sampled trace, before anything else is known of it."""
    if not row["is_well_formed"]:
        return "malformed"
    return None if row["finish_reason"] == "stop" else f"finish_reason {row['finish_reason']}"


def _count_decided(answers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """(number of correct ones, number of decided ones)."""
    verdicts = [answer["verdict"] for answer in answers if answer["verdict"] not in UNDECIDED]
    return verdicts.count(Verdict.CORRECT), len(verdicts)


def _trace(
    row: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    renderer: Renderer,
) -> Trace:
    where = f"question {row['question_id']}, trace {row['trace_id']}"
    for name, found in scores.items():
        if found["trace_tokens"] != row["trace_tokens"]:
            raise ValueError(
                f"{where}: the {name}'s log-likelihood is of {found['trace_tokens']} tokens, but "
                f"the trace has "
                f"{row['trace_tokens']}; the tables are of different runs. Remove "
                f"trace_logps/{name} and run stage "
                f"{STAGES[name]} again"
            )
    reasoner, posterior = scores.get("reasoner"), scores.get("posterior")
    ratio = None
    try:
        if reasoner is not None and reasoner["answer_tokens"] is not None:
            log_gml(reasoner["answer_logp"], reasoner["answer_tokens"])
        if reasoner is not None and posterior is not None:
            if reasoner["temperature"] != posterior["temperature"]:
                raise ValueError(
                    f"temperature is {reasoner['temperature']} for the reasoner and "
                    f"{posterior['temperature']} for the "
                    "posterior; the ratio needs the same. Run stages 4 and 5 again"
                )
            ratio = log_ratio(reasoner["trace_logp"], posterior["trace_logp"], row["trace_tokens"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    num_correct, num_answers = _count_decided(answers)
    verified = []
    for answer in sorted(answers, key=lambda answer: answer["answer_id"]):
        solution = renderer.solution_of_answer(answer["text"])
        if answer["verdict"] is Verdict.CORRECT and solution is not None:
            verified.append((answer["answer_id"], solution))
    return Trace(
        question_id=row["question_id"],
        trace_id=row["trace_id"],
        text=row["text"],
        trace_tokens=row["trace_tokens"],
        log_ratio=ratio,
        answer_logp=reasoner["answer_logp"] if reasoner is not None else None,
        answer_tokens=reasoner["answer_tokens"] if reasoner is not None else None,
        num_correct=num_correct if num_answers else None,
        num_answers=num_answers or None,
        verified=tuple(verified),
    )
