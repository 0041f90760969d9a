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


def control_verdicts_job(
    answers: Stage, benchmark: Benchmark, model: Model, programs: ProgramSettings | None
) -> StageJob:
    """Open the table of the verdicts; `answers` is the table that they are about."""
    config = model.config
    settings = checker_limits(config) | _implied_settings(config)
    settings = {**answers.identity.config, **settings}
    identity = dataclasses.replace(answers.identity, config=settings)
    units = [unit for units in answers.shards for unit in units]
    folder = answers.folder / FOLDER
    remedy = f"They are made again where {folder} is removed; the answers stay."
    per_shard = len(answers.shards[0])
    stage = open_stage(folder, "control_verdicts", identity, units, per_shard, remedy)
    sizes: Counter[str] = Counter()
    if not stage.is_complete:
        for index in range(len(answers.shards)):
            if answers.has(index):
                rows = answers.read_shard(index, ["question_id"])
                sizes.update(row["question_id"] for row in rows)
    return StageJob(
        stage=stage,
        title=f"reads {answers.folder}; writes {folder}",
        row="verdict",
        size=lambda unit: sizes[unit],
        cost=lambda unit: sizes[unit],
        load=lambda: ControlJudge(answers, benchmark, model, programs),
        limit=FailureLimit(
            "verify.max_fault_fraction",
            config.verify.max_fault_fraction,
            total=sizes.total,
            message="no checker decides {count} of {total} answers",
            columns=("question_id", "answer_id", "control", "verdict", "reason"),
            is_failure=lambda row: row["verdict"] in UNDECIDED,
            at_end=True,
        ),
    )


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
        self.answers, self.renderer = answers, model.renderer
        self.questions = {row["question_id"]: row["question"] for row in benchmark.questions}
        self.checks = read_checks(benchmark.questions)
        self.pool = open_pool(config, programs)
        self.implied = None
        if config.eval.controls.implied_answer:
            settings = config.eval.controls
            self.implied = open_implied_answers(
                config.eval.controls.implied_answer,
                settings.implied_answer_seconds,
                config.run_dir,
            )

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {"workers_replaced": self.pool.num_replaced}

    def close(self) -> None:
        """See ShardFiller."""
        self.pool.close()

    def fill_one(self, index: int, units: Sequence[str], progress: Callable[[int], Any]) -> Shard:
        """See ShardByShard."""
        rows = self.answers.read_shard(index)
        samples: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        for row in rows:
            row["solution"] = self.renderer.solution_of_answer(row["text"])
            key = row["question_id"], row["answer_id"]
            samples.setdefault(key, {})[row["control"]] = row
        # Without the answer after its own trace, a sample has nothing to compare with.
        compared = []  # (row, the row of its sample's own trace)
        for kinds in samples.values():
            if "own" in kinds:
                compared += [(row, kinds["own"]) for row in kinds.values()]
        self._add_implied([row for row, _ in compared])
        jobs = []
        for row, own in compared:
            jobs += self._jobs(row, own)
        results = dict(self.pool.check(jobs))
        verdicts = [_verdict_row(row, own, results) for row, own in compared]
        progress(len(rows))
        return Shard(verdicts, Counter(row["verdict"] for row in verdicts))

    def _add_implied(self, rows: Sequence[dict[str, Any]]) -> None:
        """The answer that each trace implies, into the rows."""
        for row in rows:
            row["implied"] = None
        if self.implied is None:
            return
        asked = [
            {
                "question_id": row["question_id"],
                "question": self.questions[row["question_id"]],
                "trace": row["given"],
                "check": self.checks[row["question_id"]],
                "control": row["control"],
            }
            for row in rows
        ]
        for row, answer in zip(rows, self.implied(asked), strict=True):
            row["implied"] = answer

    def _jobs(self, row: dict[str, Any], own: dict[str, Any]) -> list[Job]:
        """What has to be checked of an answer, under (what, the answer's ids)."""
        check = self.checks[row["question_id"]]
        solution = row["solution"]
        name = _name(row)
        jobs = [Job(("verdict", *name), check, solution)]
        gold = _answer_in(check, own["solution"])
        if solution is not None and gold:
            jobs.append(Job(("own", *name), _with_gold(check, gold), solution))
        if row["implied"] is not None:
            implied = _with_gold(check, row["implied"])
            jobs.append(Job(("fits", *name), implied, solution))
            jobs.append(Job(("own_fits", *name), implied, own["solution"]))
        return jobs


def _name(row: Mapping[str, Any]) -> tuple[str, int, str]:
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
    row: Mapping[str, Any], own: Mapping[str, Any], results: Mapping[Any, Result]
) -> dict[str, Any]:
    name = _name(row)

    def accepted(what: str) -> bool:
        result = results.get((what, *name))
        return result is not None and result.verdict is Verdict.CORRECT

    verdict = results["verdict", *name]
    has_implied = row["implied"] is not None
    return {
        "question_id": row["question_id"],
        "answer_id": row["answer_id"],
        "control": row["control"],
        "verdict": verdict.verdict.value,
        "reason": verdict.reason,
        "is_own": row["solution"] == own["solution"] or accepted("own"),
        "implied": row["implied"],
        "fits_implied": accepted("fits") if has_implied else None,
        "own_fits_implied": accepted("own_fits") if has_implied else None,
    }
