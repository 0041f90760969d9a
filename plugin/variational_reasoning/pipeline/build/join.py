"""What stages 3 to 7 found out about each sampled trace, joined by ids (first half of stage 8).

Only the tables that the outputs need are asked for: the posterior's forward KL (Eq. 9) needs no log-likelihoods, GML no
answers. A row that is missing, and that no stage reported as dropped or failed, is an error with its ids, and so are
tables that were made from others than those that are there.

Undecided verdicts (checker_error, unverifiable) are left out of the accuracy, not counted as wrong. A response that
ended before it had an answer is wrong: it counts in P(Y_x | x), although no answer was sampled after its trace.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from variational_reasoning.method.estimators import ESTIMATORS, Evidence, find_estimator, log_gml
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.method.weights import log_ratio, log_rho
from variational_reasoning.pipeline.config import Config, OutputConfig
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.rows import (
    group_by,
    index_by,
    read_manifest,
    read_rows,
    read_table,
    table_digest,
)
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

STAGES = {"questions": 0, "traces": 3, "reasoner": 4, "posterior": 5, "answers": 6, "verdicts": 7}
"""Joined table to the stage that makes it; reasoner and posterior are their trace_logps."""

_LOGP_COLUMNS = [
    "question_id",
    "trace_id",
    "trace_logp",
    "trace_tokens",
    "answer_logp",
    "answer_tokens",
    "temperature",
]

Key = tuple[str, int]
"""(question_id, trace_id)."""


@dataclass(frozen=True)
class Trace:
    """One sampled trace with what the stages before found out about it; log-likelihoods in nats.

    log_ratio is (mean, sum) over the trace's tokens; it, the reference solution's answer_logp and answer_tokens, and the
    counts of decided verdicts are None where their table was not asked for, the counts also where none is decided.
    verified holds (answer_id, solution) of each accepted answer.
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
        """log rho in nats; minus infinity where no answer is verified or none is decided."""
        found = find_estimator(estimator)
        evidence = Evidence(
            self.num_correct, self.num_answers, self.answer_logp, self.answer_tokens
        )
        if found.samples_answers and not found.is_known(evidence):
            return -math.inf
        return log_rho(ratio, self.log_ratio, found.log_term(evidence))

    def terms(self, estimator: str, ratio: str) -> dict[str, Any]:
        """The columns RHO_TERMS of a train row; `accuracy` and `gml` are in [0, 1]; `log_rho` is the output's."""
        mean, total = self.log_ratio or (None, None)
        has_solution = self.answer_logp is not None and self.answer_tokens is not None
        return {
            "mean_log_ratio": mean,
            "sum_log_ratio": total,
            "trace_tokens": self.trace_tokens,
            "accuracy": self.num_correct / self.num_answers if self.num_answers else None,
            "num_correct": self.num_correct,
            "num_answers": self.num_answers,
            "gml": math.exp(log_gml(self.answer_logp, self.answer_tokens))
            if has_solution
            else None,
            "answer_logp": self.answer_logp,
            "answer_tokens": self.answer_tokens,
            "log_rho": self.log_rho(estimator, ratio),
        }


@dataclass(frozen=True)
class Joined:
    """All tables of one model's traces.

    questions: rows by question_id. sampled: all rows of the traces table. traces: those that finished, are well formed and
    have all that is needed, by question_id in the order of trace_id; filtered: how many do not, by reason. decided:
    (num_correct, num_answers) of every trace that was judged, filtered or not. unanswered: traces that are malformed
    or cut, so that no answer could follow. num_traces: K. num_answers: M, 0 without answers. inputs: digests.
    """

    questions: dict[str, dict[str, Any]]
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
        """P(Y_x | x): the share of the responses with the first num_traces traces that are right (Eqs. 10 and 12).

        A response is a trace and an answer. One whose trace is malformed or cut has no answer and is wrong; each such
        trace stands for M responses, as every other trace does. With K = 8 and M = 2:

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


def needed_tables(output: OutputConfig) -> dict[str, str]:
    """The tables besides questions and traces that an output needs, each with the setting that needs it."""
    needs = {}
    if output.ratio != "none":
        needs |= dict.fromkeys(("reasoner", "posterior"), f"ratio {output.ratio}")
    if output.fallback in ESTIMATORS:
        tables = ESTIMATORS[output.fallback].tables
        needs |= dict.fromkeys(tables, f"fallback {output.fallback}")
    estimator = find_estimator(output.estimator)
    if not estimator.samples_answers:
        needs |= dict.fromkeys(estimator.tables, f"estimator {output.estimator}")
    settings = {
        f"question_weight {output.question_weight}": output.question_weight != "none",
        "verified_only": output.verified_only,
        "hint verified": output.hint == "verified",
        f"estimator {output.estimator}": estimator.samples_answers,
    }
    for setting, is_set in settings.items():
        needs |= dict.fromkeys(("answers", "verdicts"), setting) if is_set else {}
    return needs


def join(config: Config, outputs: Sequence[OutputConfig]) -> Joined:
    """Read and join what these outputs need, for the traces of sampling.traces_from.

    Raises: ValueError for a table that is not there (with the outputs that need it), tables of different runs, and rows
    that are missing or belong to nothing, with their ids.
    """
    places, manifests = _open_tables(config, outputs)
    reader, train = training_questions(config)
    found = reader.rows_of(train, ["question", "trace", "solution"])
    questions = {question_id: found[question_id][0] for question_id in train}
    sampled = _sampled(places["traces"][1])
    scored = {
        name: _scores(places[name][1]) for name in ("reasoner", "posterior") if name in places
    }
    answers = _answers_by_trace(places) if "answers" in places else {}
    by_key = {(row["question_id"], row["trace_id"]): row for row in sampled}
    num_traces = 1 + max(row["trace_id"] for row in sampled)
    reported = {
        name: _reported(manifest, config.cutoff_len) for name, manifest in manifests.items()
    }
    expected = [(question_id, k) for question_id in questions for k in range(num_traces)]
    missing: dict[str, list[Key]] = {
        "traces": [
            key
            for key in expected
            if key not in by_key and not {key, (key[0], None)} & reported["traces"].keys()
        ]
    }
    unknown = {"traces": sorted(key for key in by_key if key[0] not in questions)}
    unknown |= {
        name: sorted(rows.keys() - by_key.keys())
        for name, rows in (*scored.items(), ("answers", answers))
    }
    is_partly_scored = _check_partial_scores(outputs, {name: manifests[name] for name in scored})
    traces: dict[str, list[Trace]] = defaultdict(list)
    filtered: Counter[str] = Counter()
    for key, row in sorted(by_key.items()):
        if reason := _unusable(row):
            filtered[reason] += 1
            continue
        absent = [name for name, rows in scored.items() if key not in rows]
        is_verified = any(answer["verdict"] is Verdict.CORRECT for answer in answers.get(key, ()))
        if absent and is_partly_scored and key in answers and not is_verified:
            filtered["not scored, no verified answer"] += 1
            continue
        absent += ["answers"] if "answers" in places and key not in answers else []
        for name in absent:
            if key not in reported[name]:
                missing.setdefault(name, []).append(key)
        if absent:
            filtered[reported[absent[0]].get(key, "missing")] += 1
        else:
            traces[key[0]].append(
                _trace(
                    row,
                    {name: rows[key] for name, rows in scored.items()},
                    answers.get(key, ()),
                    config.renderer,
                )
            )
    _refuse_rows(places, missing, unknown)
    unanswered: frozenset[Key] = frozenset()
    if "answers" in places:
        no_room = {
            (row["question_id"], row.get("trace_id"))
            for row in manifests["answers"].get("dropped", ())
        }
        unanswered = frozenset(
            key
            for key, row in by_key.items()
            if key not in answers and (_unusable(row) or key in no_room)
        )
    return Joined(
        questions=questions,
        sampled=sampled,
        traces=dict(traces),
        filtered=dict(filtered),
        decided={key: _count_decided(group) for key, group in answers.items()},
        unanswered=unanswered,
        num_traces=num_traces,
        num_answers=_num_answers(answers),
        inputs={name: table_digest(folder, table) for name, (table, folder) in places.items()},
        has_verdicts="verdicts" in places,
    )


def _num_answers(answers: Mapping[Key, Sequence[Mapping[str, Any]]]) -> int:
    """M: every trace that is answered at all gets the answers 0 .. M - 1."""
    ids = (answer["answer_id"] for group in answers.values() for answer in group)
    return 1 + max(ids, default=-1)


def _open_tables(
    config: Config, outputs: Sequence[OutputConfig]
) -> tuple[dict[str, tuple[str, Path]], dict[str, dict[str, Any]]]:
    """({name: (table, folder)}, {name: manifest}) of the tables that the outputs need and that fit together."""
    wanted: dict[str, list[str]] = {"questions": [], "traces": []}
    for output in outputs:
        for name, setting in needed_tables(output).items():
            wanted.setdefault(name, []).append(f"{output.name} ({setting})")
    places, manifests, faults = {}, {}, []
    for name, users in wanted.items():
        is_score = name in ("reasoner", "posterior")
        table, folder = (
            ("trace_logps", config.folder("trace_logps", name))
            if is_score
            else (name, config.folder(name))
        )
        try:
            places[name], manifests[name] = (table, folder), read_manifest(folder, table)
        except ValueError as error:
            reason = (
                f"; build.outputs {', '.join(users)} cannot be built without stage {STAGES[name]}"
                if users
                else ""
            )
            faults.append(f"{error}{reason}")
    if faults:
        raise ValueError("\n".join(faults))
    digests = {name: table_digest(folder, table) for name, (table, folder) in places.items()}
    faults = [
        f"{places[name][1]} was made from another {places[source][1]} than the one that is there now, so the two are of "
        f"different runs; remove {places[name][1]} and run stage {STAGES[name]} again"
        for name, manifest in manifests.items()
        for source, digest in manifest["inputs"].items()
        if name != "questions" and digest != digests.get(source, digest)
    ]
    if faults:
        raise ValueError("\n".join(faults))
    return places, manifests


def _sampled(folder: Path) -> list[dict[str, Any]]:
    """Rows of the traces table, with trace_tokens in place of the ids."""
    columns = ["question_id", "trace_id", "token_ids", "text", "finish_reason", "is_well_formed"]
    table = read_table(folder, "traces", columns)
    lengths = pc.list_value_length(table["token_ids"])
    return table.drop_columns(["token_ids"]).append_column("trace_tokens", lengths).to_pylist()


def _scores(folder: Path) -> dict[Key, Mapping[str, Any]]:
    return index_by(read_rows(folder, "trace_logps", _LOGP_COLUMNS), "question_id", "trace_id")


def _answers_by_trace(places: Mapping[str, tuple[str, Path]]) -> dict[Key, list[dict[str, Any]]]:
    """Answers with their verdicts by trace. Raises: ValueError for an answer without a verdict."""
    ids = ("question_id", "trace_id", "answer_id")
    verdicts = index_by(read_rows(places["verdicts"][1], "verdicts", [*ids, "verdict"]), *ids)
    answers = read_rows(places["answers"][1], "answers", [*ids, "text"])
    missing = [
        key for key in (tuple(row[name] for name in ids) for row in answers) if key not in verdicts
    ]
    if missing:
        raise ValueError(
            f"{places['verdicts'][1]} lacks {len(missing)} answers, such as {missing[:3]}; remove it and run stage 7 again"
        )
    joined = [
        row | {"verdict": Verdict(verdicts[tuple(row[n] for n in ids)]["verdict"])}
        for row in answers
    ]
    return group_by(joined, "question_id", "trace_id")


def _reported(manifest: Mapping[str, Any], cutoff_len: int) -> dict[tuple[str, int | None], str]:
    """Rows that a stage left out and said so: (question_id, trace_id or None for all its traces) to a reason."""
    dropped = {
        (row["question_id"], row.get("trace_id")): f"beyond cutoff_len {cutoff_len}"
        for row in manifest.get("dropped", ())
    }
    return dropped | {
        (row["question_id"], row.get("trace_id")): "failed" for row in manifest.get("failed", ())
    }


def _unusable(row: Mapping[str, Any]) -> str | None:
    """Why no training can use a sampled trace, before anything else is known of it."""
    if not row["is_well_formed"]:
        return "malformed"
    return None if row["finish_reason"] == "stop" else f"finish_reason {row['finish_reason']}"


def _refuse_rows(
    places: Mapping[str, tuple[str, Path]],
    missing: Mapping[str, Sequence[Key]],
    unknown: Mapping[str, Sequence[Key]],
) -> None:
    faults = [
        f"{places[name][1]} lacks {len(keys)} traces that it should have, such as {list(keys[:3])}; remove it and run "
        f"stage {STAGES[name]} again"
        for name, keys in missing.items()
        if keys
    ]
    faults += [
        f"{places[name][1]} has {len(keys)} traces that {places['questions' if name == 'traces' else 'traces'][1]} knows "
        f"nothing of, such as {list(keys[:3])}; the two are of different runs"
        for name, keys in unknown.items()
        if keys
    ]
    if faults:
        raise ValueError("\n".join(faults))


def _check_partial_scores(
    outputs: Sequence[OutputConfig], manifests: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Whether only traces with a verified answer were scored. Raises: ValueError when an output needs the others, too."""
    partly = [
        manifest["config"]
        for manifest in manifests.values()
        if manifest["config"].get("scoring.score_only") == "verified"
    ]
    if not partly:
        return False
    wanting = [
        output.name
        for output in outputs
        if (not find_estimator(output.estimator).samples_answers and not output.verified_only)
        or (output.selection == "unweighted" and not output.verified_only)
        or (output.fallback in ESTIMATORS and not all(part["kept_for_fallback"] for part in partly))
    ]
    if wanting:
        raise ValueError(
            f"build.outputs {', '.join(wanting)} need the log-likelihoods of all traces, but they were scored with "
            "scoring.score_only: verified; remove trace_logps and score with all, or leave these outputs out"
        )
    return True


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
                f"{where}: the {name}'s log-likelihood is of {found['trace_tokens']} tokens, but the trace has "
                f"{row['trace_tokens']}; the tables are of different runs. Remove trace_logps/{name} and run stage "
                f"{STAGES[name]} again"
            )
    reasoner, posterior = scores.get("reasoner"), scores.get("posterior")
    ratio = None
    try:
        if reasoner is not None:
            log_gml(reasoner["answer_logp"], reasoner["answer_tokens"])
        if reasoner is not None and posterior is not None:
            if reasoner["temperature"] != posterior["temperature"]:
                raise ValueError(
                    f"temperature is {reasoner['temperature']} for the reasoner and {posterior['temperature']} for the "
                    "posterior; the ratio needs the same. Run stages 4 and 5 again"
                )
            ratio = log_ratio(reasoner["trace_logp"], posterior["trace_logp"], row["trace_tokens"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    num_correct, num_answers = _count_decided(answers)
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
        verified=tuple(
            (answer["answer_id"], renderer.solution_of_answer(answer["text"]))
            for answer in sorted(answers, key=lambda answer: answer["answer_id"])
            if answer["verdict"] is Verdict.CORRECT
        ),
    )
