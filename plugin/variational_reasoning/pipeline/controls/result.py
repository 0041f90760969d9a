"""Does a model use its trace? Its answers to the same questions after other traces than its own.

A model that uses its trace loses its accuracy with another question's (`donor`), a `random` and no
trace, and most of its answers change. One that does not gives the same answers whatever is in the
trace. It works for any model with a trace, of symbols or of words: what is exchanged are the tokens
before the boundary (exchange.py).

Three parts, each of which goes on where it was killed: the traces that verbal chains give
(chains.py), the answers (answers.py), their verdicts (verdicts.py). Then controls.json, which the
report reads.

Intervals are over questions: the samples of a question count as one value, and a resample takes
whole questions, the same ones for all kinds. So a difference to the own trace has a small interval,
because most of the spread is between questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object, write_json
from variational_reasoning.method.evaluation import bootstrap_columns, mean_and_error
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.controls.answers import (
    FOLDER,
    Asked,
    answers_job,
    what_to_ask,
)
from variational_reasoning.pipeline.controls.chains import chain_traces
from variational_reasoning.pipeline.controls.exchange import KINDS
from variational_reasoning.pipeline.controls.verdicts import FOLDER as VERDICTS
from variational_reasoning.pipeline.controls.verdicts import answer_key, control_verdicts_job
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    digest_of,
    group_by,
    read_manifest,
    read_rows,
)
from variational_reasoning.pipeline.verify import open_programs, read_checks
from variational_reasoning.pipeline.work.job import do_shards, share_of
from variational_reasoning.pipeline.work.launch import own_share
from variational_reasoning.pipeline.work.summary import describe_table
from variational_reasoning.verify.verdicts import Verdict

CONTROLS = "controls.json"
FIGURES = (
    "accuracy",
    "difference",
    "changed",
    "unanswered",
    "symbols",
    "answer_tokens",
    "total_tokens",
)
"""Of a kind, each a mean over questions.

accuracy; difference: accuracy minus that after the own trace; changed: answers that are not the one
after the own trace; unanswered: answers that are not closed, or that hold a tag or a symbol because
the model goes on with a trace there. All of these are in [0, 1]. symbols: tokens of the trace;
answer_tokens: those after it; total_tokens: both, and the boundary.
"""

FOLLOWING = ("follows", "keeps", "neither")
"""Of the answers whose trace implies another one than the own trace's: the implied answer, the own
answer, or another one; in [0, 1]."""

TEXT_COLUMNS = (
    "question_id",
    "answer_id",
    "control",
    "num_symbols",
    "trace_ids",
    "token_ids",
    "text",
)
"""What the figures need of an answer."""

Row = Mapping[str, Any]


def run_controls(benchmark: Benchmark, model: Model) -> dict[str, Any] | None:
    """The controls of a model whose evaluation is done, written next to its result.

    Returns: what controls.json holds; None while answers of other processes are missing. No kind
    where fewer than two questions have a closed trace with room for an answer.

    Raises: ValueError where there is no finished evaluation, or the folder `controls` holds those
    of another one.
    """
    samples = read_manifest(benchmark.folder / "samples", "samples")
    encode, decode = text_codec(load_tokenizer(str(model.folder)))
    chains, digests = chain_traces(benchmark, model, encode, decode)
    rows = read_rows(benchmark.folder / "samples", "samples")
    asked = what_to_ask(benchmark, rows, chains, model, encode, decode)
    result: dict[str, Any] = {
        "samples": digest_of(samples),
        "num_questions": asked.num_questions,
        "num_answers": len(asked.kinds),
        "num_without_trace": asked.num_without_trace,
        "num_without_room": asked.num_without_room,
        "temperature": model.config.eval.temperature,
        "is_abstract": model.renderer.is_abstract,
        "kinds": {},
    }
    if asked.kinds:
        inputs = {"samples": digest_of(samples), **digests}
        if not _answer_and_judge(asked, inputs, benchmark, model):
            return None
        result["kinds"] = figures_of(benchmark.folder, model.renderer)
    write_json(benchmark.folder / CONTROLS, result)
    return result


def _answer_and_judge(
    asked: Asked,
    inputs: Mapping[str, str],
    benchmark: Benchmark,
    model: Model,
) -> bool:
    """This process's share of the answers and of their verdicts.

    Returns: whether the shares of all processes are there.
    """
    answering = answers_job(asked, inputs, benchmark, model)
    index, count = own_share(model.config)
    mine = share_of(answering.stage.shards, answering.cost, index, count)
    # The sandbox of programs is tried first: where it is refused, no answer is sampled for nothing.
    judged = benchmark.folder / FOLDER / VERDICTS / MANIFEST
    checks = {}
    if not judged.is_file():
        checks = read_checks(benchmark.questions)
    programs = open_programs(checks, model.config)
    answers = do_shards(answering, mine)
    print(describe_table(answers))
    judging = control_verdicts_job(answering.stage, benchmark, model, programs)
    verdicts = do_shards(judging, mine)
    return verdicts.manifest is not None


def read_controls(folder: Path) -> dict[str, Any] | None:
    """controls.json of an evaluation; None where there is none, or it is about other samples than
    the evaluation's now.
    """
    path = folder / CONTROLS
    if not path.is_file():
        return None
    found = read_json_object(path, f"remove {path} and run scripts/trace_controls.py again")
    digest = found.get("samples")
    if digest is None:  # earlier releases kept it in `identity`
        identity = found.get("identity", {})
        digest = identity.get("samples")
    samples = folder / "samples"
    if not (samples / MANIFEST).is_file():
        return None
    manifest = read_manifest(samples, "samples")
    if digest != digest_of(manifest):
        return None
    return found


def figures_of(folder: Path, renderer: Renderer) -> dict[str, dict[str, Any]]:
    """FIGURES and FOLLOWING of each kind, with 95 % intervals, from the tables of an evaluation."""
    verdicts = read_rows(folder / FOLDER / VERDICTS, "control_verdicts")
    texts = {}
    for row in read_rows(folder / FOLDER, "controls", TEXT_COLUMNS):
        texts[answer_key(row)] = row
    own = {}
    for row in verdicts:
        if row["control"] == "own":
            sample = row["question_id"], row["answer_id"]
            own[sample] = row
    rows = []
    for row in verdicts:
        text = texts[answer_key(row)]
        sample = row["question_id"], row["answer_id"]
        own_row = own[sample]
        solution = renderer.solution_of_answer(text["text"])
        measured = _measured(row, own_row, text)
        measured["unanswered"] = float(not _is_answered(solution, renderer))
        rows.append({**row, **measured})
    by_kind = group_by(rows, "control")
    figures = {}
    for kind in KINDS:
        if kind in by_kind:
            figures[kind] = _figures(by_kind[kind])
    return figures


def _is_answered(solution: str | None, renderer: Renderer) -> bool:
    """Whether a solution can be read: "4" can, "<TOKEN_A><endabstract>4" and None cannot."""
    if solution is None:
        return False
    return not any(tag in solution for tag in renderer.tags)


def _measured(row: Row, own: Row, text: Row) -> dict[str, float]:
    """FIGURES of one answer, but for `unanswered`."""
    is_right = float(row["verdict"] == Verdict.CORRECT)
    own_is_right = float(own["verdict"] == Verdict.CORRECT)
    num_trace = len(text["trace_ids"])
    num_answer = len(text["token_ids"])
    return {
        "accuracy": is_right,
        "difference": is_right - own_is_right,
        "changed": float(not row["is_own"]),
        "symbols": float(text["num_symbols"]),
        "answer_tokens": float(num_answer),
        "total_tokens": float(num_trace + num_answer),
    }


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of one kind from its rows."""
    found = _means(rows, FIGURES)
    shares = _of_questions(rows, "accuracy")
    found["num_questions"] = len(shares)
    found["num_answers"] = len(rows)
    found["standard_error"] = mean_and_error(shares).standard_error
    told = []
    for row in rows:
        if _is_told(row):
            told.append({**row, **_following(row)})
    found["num_told"] = len(told)
    if told:
        following = _means(told, FOLLOWING)
        intervals = found["intervals"] | following.pop("intervals")
        found |= following | {"intervals": intervals}
    return found


def _is_told(row: Row) -> bool:
    """Whether the trace implies another answer than the one after the own trace."""
    return row["implied"] is not None and not row["own_fits_implied"]


def _following(row: Row) -> dict[str, float]:
    follows = bool(row["fits_implied"])
    keeps = not follows and bool(row["is_own"])
    return {
        "follows": float(follows),
        "keeps": float(keeps),
        "neither": float(not follows and not keeps),
    }


def _means(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """The mean over questions of each column, and its interval as [low, high]."""
    columns = [_of_questions(rows, name) for name in names]
    table = list(zip(*columns, strict=True))  # a row per question
    means: dict[str, Any] = {}
    intervals = {}
    for name, found in zip(names, bootstrap_columns(table), strict=True):
        means[name] = found.mean
        intervals[name] = [found.low, found.high]
    return means | {"intervals": intervals}


def _of_questions(rows: Sequence[Row], name: str) -> list[float]:
    """A column's mean for each question.

    Of the questions a, a, b with the values 1, 0, 1: 0.5 and 1.
    """
    means = []
    for group in group_by(rows, "question_id").values():
        values = [row[name] for row in group]
        means.append(sum(values) / len(values))
    return means
