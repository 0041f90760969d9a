"""What became of the answers after other traces: the table `control_verdicts` of an evaluation.

Three questions are asked of each answer:

    is it right                  the question's check
    is it the own answer         that after the trace which the model wrote
    does it follow the trace     the check with the answer that the trace implies as its gold, where
                                 a command of the user's tells it (verify/implied.py)

Two answers are the same when their texts are, or when a check of math with one of them as its gold
accepts the other. Two that are not closed are the same, too.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from variational_reasoning.files import file_digest
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import Stage, open_stage
from variational_reasoning.pipeline.verify import checker_limits, open_pool, read_checks
from variational_reasoning.pipeline.work.job import Shard, ShardByShard, StageJob
from variational_reasoning.pipeline.work.limits import FailureLimit
from variational_reasoning.verify.implied import implied_answer_files, open_implied_answers
from variational_reasoning.verify.mathematics.boxes import last_boxed
from variational_reasoning.verify.pool import Job, ProgramSettings
from variational_reasoning.verify.verdicts import UNDECIDED, Result, Verdict

FOLDER = "verdicts"
SHOWN_COLUMNS = (
    "question_id",
    "answer_id",
    "control",
    "verdict",
    "reason",
)
"""What is shown of an answer that no checker decides."""


def control_verdicts_job(
    answers: Stage, benchmark: Benchmark, model: Model, programs: ProgramSettings | None
) -> StageJob:
    """Open the table of the verdicts; `answers` is the table that they are about."""
    config = model.config
    stage = _open_verdicts(answers, config)
    sizes: Counter[str] = Counter()
    if not stage.is_complete:
        sizes = _num_answers(answers)
    return StageJob(
        stage=stage,
        title=f"reads {answers.folder}; writes {stage.folder}",
        row="verdict",
        size=lambda unit: sizes[unit],
        cost=lambda unit: sizes[unit],
        load=lambda: ControlJudge(answers, benchmark, model, programs),
        limit=FailureLimit(
            "verify.max_fault_fraction",
            config.verify.max_fault_fraction,
            total=sizes.total,
            message="no checker decides {count} of {total} answers",
            columns=SHOWN_COLUMNS,
            is_failure=lambda row: row["verdict"] in UNDECIDED,
            at_end=True,
        ),
    )


def _open_verdicts(answers: Stage, config: Config) -> Stage:
    """The table of the verdicts; its shards hold the questions of the shards of the answers."""
    folder = answers.folder / FOLDER
    settings = {
        **answers.identity.config,
        **checker_limits(config),
        **_implied_settings(config),
    }
    identity = dataclasses.replace(answers.identity, config=settings)
    units: list[str] = []
    for shard in answers.shards:
        units += shard
    per_shard = len(answers.shards[0])
    remedy = f"They are made again where {folder} is removed; the answers stay."
    return open_stage(folder, "control_verdicts", identity, units, per_shard, remedy)


def _num_answers(answers: Stage) -> Counter[str]:
    """question_id to its number of answers, in the shards that are there."""
    counts: Counter[str] = Counter()
    for index in range(len(answers.shards)):
        if answers.has(index):
            rows = answers.read_shard(index, ["question_id"])
            counts.update(row["question_id"] for row in rows)
    return counts


def _implied_settings(config: Config) -> dict[str, Any]:
    """What a manifest says of the command, its files included; nothing without."""
    setting = config.eval.controls.implied_answer
    if not setting:
        return {}
    digests = {}
    for path in implied_answer_files(setting):
        digests[str(path)] = file_digest(path)
    return {
        "eval.controls.implied_answer": setting,
        "eval.controls.implied_answer_files": digests,
    }


class ControlJudge(ShardByShard):
    """The worker that gives verdicts: a pool of processes, and the user's command."""

    def __init__(
        self,
        answers: Stage,
        benchmark: Benchmark,
        model: Model,
        programs: ProgramSettings | None,
    ) -> None:
        config = model.config
        self.answers = answers
        self.renderer = model.renderer
        self.questions = {}
        for row in benchmark.questions:
            self.questions[row["question_id"]] = row["question"]
        self.checks = read_checks(benchmark.questions)
        self.pool = open_pool(config, programs)
        self.implied = None
        settings = config.eval.controls
        if settings.implied_answer:
            self.implied = open_implied_answers(
                settings.implied_answer,
                settings.implied_answer_seconds,
                config.run_dir,
            )

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {"workers_replaced": self.pool.num_replaced}

    def close(self) -> None:
        """See ShardFiller."""
        self.pool.close()

    def fill_one(
        self,
        index: int,
        units: Sequence[str],
        progress: Callable[[int], Any],
    ) -> Shard:
        """See ShardByShard."""
        rows = self.answers.read_shard(index)
        for row in rows:
            row["solution"] = self.renderer.solution_of_answer(row["text"])
        compared = _with_own(rows)
        for row, _ in compared:
            row["implied"] = None
        if self.implied is not None:
            self._add_implied([row for row, _ in compared])
        jobs: list[Job] = []
        for row, own in compared:
            jobs += self._jobs(row, own)
        results = dict(self.pool.check(jobs))
        verdicts = [_verdict_row(row, own, results) for row, own in compared]
        progress(len(rows))
        counts = Counter(row["verdict"] for row in verdicts)
        return Shard(verdicts, counts)

    def _add_implied(self, rows: Sequence[dict[str, Any]]) -> None:
        """The answer that each trace implies, into the rows."""
        assert self.implied is not None
        asked = []
        for row in rows:
            question_id = row["question_id"]
            question = {
                "question_id": question_id,
                "question": self.questions[question_id],
                "trace": row["given"],
                "check": self.checks[question_id],
                "control": row["control"],
            }
            asked.append(question)
        answers = self.implied(asked)
        for row, answer in zip(rows, answers, strict=True):
            row["implied"] = answer

    def _jobs(self, row: dict[str, Any], own: dict[str, Any]) -> list[Job]:
        """What has to be checked of an answer, under (what, the answer's ids).

        verdict     the answer by the question's check
        own         the answer, with the own answer as the gold
        fits        the answer, with the answer that the trace implies as the gold
        own_fits    the own answer with the same gold
        """
        check = self.checks[row["question_id"]]
        solution = row["solution"]
        own_solution = own["solution"]
        name = answer_key(row)
        jobs = [Job(("verdict", *name), check, solution)]
        gold = _answer_in(check, own_solution)
        if solution is not None and gold:
            is_own = _with_gold(check, gold)
            jobs.append(Job(("own", *name), is_own, solution))
        if row["implied"] is not None:
            implied = _with_gold(check, row["implied"])
            jobs.append(Job(("fits", *name), implied, solution))
            jobs.append(Job(("own_fits", *name), implied, own_solution))
        return jobs


def _with_own(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each answer with that after the own trace of its sample.

    The sample a has answers after `own` and `donor`, b only after `donor`: (own, own) and
    (donor, own) of a. Without the answer after its own trace, a sample has nothing to compare with.
    """
    samples: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = row["question_id"], row["answer_id"]
        by_control = samples.setdefault(key, {})
        by_control[row["control"]] = row
    compared = []
    for by_control in samples.values():
        own = by_control.get("own")
        if own is not None:
            compared += [(row, own) for row in by_control.values()]
    return compared


def answer_key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    """(question_id, answer_id, control): what an answer and its verdict share."""
    return row["question_id"], row["answer_id"], row["control"]


def _answer_in(check: Mapping[str, Any], solution: str | None) -> str | None:
    """The final answer in a solution, as a gold would be written."""
    if solution is None:
        return None
    if check["kind"] == "math":
        return last_boxed(solution)
    if "after" in check:
        return solution.rpartition(check["after"])[2]
    return solution


def _with_gold(check: Mapping[str, Any], gold: str) -> dict[str, Any]:
    """A check for another gold: that of the question where it compares with one, else `exact`."""
    if check["kind"] in ("math", "exact"):
        return {**check, "gold": gold}
    return {"kind": "exact", "gold": gold}


def _verdict_row(
    row: Mapping[str, Any],
    own: Mapping[str, Any],
    results: Mapping[Any, Result],
) -> dict[str, Any]:
    """A row of the table.

    Args:
        own: the answer after the own trace. results: of the checks that `_jobs` names.
    """
    name = answer_key(row)

    def accepted(what: str) -> bool:
        result = results.get((what, *name))
        return result is not None and result.verdict is Verdict.CORRECT

    verdict = results["verdict", *name]
    is_own = row["solution"] == own["solution"] or accepted("own")
    fits_implied = None
    own_fits_implied = None
    if row["implied"] is not None:
        fits_implied = accepted("fits")
        own_fits_implied = accepted("own_fits")
    return {
        "question_id": row["question_id"],
        "answer_id": row["answer_id"],
        "control": row["control"],
        "verdict": verdict.verdict.value,
        "reason": verdict.reason,
        "is_own": is_own,
        "implied": row["implied"],
        "fits_implied": fits_implied,
        "own_fits_implied": own_fits_implied,
    }
