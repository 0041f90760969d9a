"""Stage 7: is each sampled answer correct? Answers and the questions' checks in, one verdict per
answer out (Eq. 8).

What is judged is the text inside the answer's solution tags, and only when nothing but the tags
comes before it: a model that reopens its thought, or that was cut, has given no solution. Before
anything is judged, every gold answer must be accepted by its own check; a check that rejects its
own gold would silently turn right answers into wrong ones. Programs run only in a sandbox, whose
tier is probed and printed first, and every row has it.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from variational_reasoning.faults import NUM_LISTED, list_faults
from variational_reasoning.files import file_digest, read_json_object
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    STAGE,
    Identity,
    open_stage,
    read_manifest,
    read_table,
    units_digest,
)
from variational_reasoning.pipeline.work.job import Progress, Shard, ShardByShard, StageJob
from variational_reasoning.pipeline.work.launch import run
from variational_reasoning.pipeline.work.limits import FailureLimit
from variational_reasoning.verify.checks import UNVERIFIABLE_KINDS, gold_solutions, parse_check
from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.sandbox.probe import SETTING, probe
from variational_reasoning.verify.sandbox.sandbox import Limits, wall_limit
from variational_reasoning.verify.traces import TraceCheck, open_trace_check, trace_check_files
from variational_reasoning.verify.verdicts import UNDECIDED, Result, Verdict

BAD_GOLD_REASON = "the gold answer is not accepted by its own check"


class VerifySummary(NamedTuple):
    """The verdicts' manifest (its counts are by verdict; None while other processes' shards are
    missing), and whether this call had anything to do."""

    folder: Path
    manifest: dict[str, Any] | None
    did_something: bool


def verify_answers(config: Config) -> VerifySummary:
    """Stage 7: a verdict for every answer, into run_dir/verdicts.

    Raises: ValueError for checks that cannot be read, golds that their own check rejects (unless
    verify.bad_golds is exclude), questions that nothing here can verify (unless verify.unverifiable
    is accept), and when more than verify.max_fault_fraction of the other answers get checker_error
    or unverifiable.
    """
    summary = run(verdicts_job, config)
    did_something = bool(summary.counts) or summary.missing > 0
    return VerifySummary(summary.folder, summary.manifest, did_something)


class _Inputs(NamedTuple):
    """What stage 7 plans with: ids and counts, no texts.

    units: questions that have answers, in the order of the questions. sizes: answers of each.
    limits: the settings of the checkers.
    """

    questions: TableReader
    answers: TableReader
    units: list[str]
    sizes: dict[str, int]
    limits: dict[str, Any]


def _open_inputs(config: Config) -> _Inputs:
    """Raises: ValueError for answers to questions that are not there."""
    questions, train = training_questions(config)
    answers = TableReader(config.folder("answers"), "answers")
    groups = answers.summary.select(["question_id", "answer_id"]).group_by("question_id")
    counted = groups.aggregate([("answer_id", "count")])
    sizes = {row["question_id"]: row["answer_id_count"] for row in counted.to_pylist()}
    unknown = sorted(sizes.keys() - set(train))
    if unknown:
        raise ValueError(
            f"{config.folder('answers')} has answers to unknown questions, such as {unknown[:3]}"
        )
    units = [question_id for question_id in train if question_id in sizes]
    return _Inputs(questions, answers, units, sizes, checker_limits(config))


def checker_limits(config: Config) -> dict[str, Any]:
    """The settings of the checkers that a verdict depends on, for every table of verdicts."""
    return resolved(
        config,
        "verify.timeout_seconds",
        "verify.memory_mib",
        "verify.program_cpu_seconds",
        "verify.program_total_seconds",
        "verify.program_memory_mib",
        "verify.program_output_mib",
    )


def verdicts_job(config: Config) -> StageJob:
    """Check what stage 7 reads, golds included, and open its table."""
    renderer = config.renderer
    folder = config.folder("verdicts")
    inputs = _open_inputs(config)
    answers = inputs.answers
    units = inputs.units
    sizes = inputs.sizes
    identity = Identity(
        inputs={
            "questions": inputs.questions.digest,
            "answers": answers.digest,
        },
        config={
            **renderer.to_record(),
            **inputs.limits,
            **resolved(config, "verify.bad_golds", "verify.unverifiable"),
            **_trace_check_identity(config),
        },
    )
    masks = None
    if config.verify.trace_check:
        masks = open_masks(config, inputs.questions)
    programs = None
    if (folder / MANIFEST).is_file():
        excluded = read_manifest(folder, "verdicts")["excluded_questions"]
    else:  # a refusal here must leave no trace of its policies on disk
        kinds = _read_kinds(config, inputs)
        if kinds.has_programs:
            programs = probe_programs(config)
        excluded = _excluded_questions(config, inputs, kinds)

    def num_verifiable() -> int:
        return sum(sizes[unit] for unit in units if unit not in excluded)

    def is_failure(row: Mapping[str, Any]) -> bool:
        return row["verdict"] in UNDECIDED and row["question_id"] not in excluded

    return StageJob(
        stage=open_stage(folder, "verdicts", identity, units, config.verify.questions_per_shard),
        title=(
            f"reads {answers.manifest['rows']} answers to {len(units)} questions; writes {folder}"
        ),
        row="answer",
        size=sizes.__getitem__,
        cost=sizes.__getitem__,
        load=lambda: AnswerVerifier(config, inputs.questions, answers, excluded, programs, masks),
        limit=FailureLimit(
            "verify.max_fault_fraction",
            config.verify.max_fault_fraction,
            total=num_verifiable,
            message="no checker decides {count} of {total} answers",
            columns=("question_id", "trace_id", "answer_id", "verdict", "reason"),
            is_failure=is_failure,
            may_fail=lambda counts: any(counts.get(verdict.value) for verdict in UNDECIDED),
        ),
        is_planned_with=True,
    )


class AnswerVerifier(ShardByShard):
    """The worker of stage 7: a pool of processes."""

    def __init__(
        self,
        config: Config,
        questions: TableReader,
        answers: TableReader,
        excluded: Mapping[str, str],
        programs: ProgramSettings | None,
        masks: "TraceMasks | None" = None,
    ) -> None:
        self.questions = questions
        self.answers = answers
        self.excluded = excluded
        self.masks = masks
        self.renderer = config.renderer
        self.tier = f"T{programs.tier}" if programs else None
        self.pool = open_pool(config, programs)

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {
            "excluded_questions": dict(self.excluded),
            "workers_replaced": self.pool.num_replaced,
            "tier": self.tier,
        }

    def close(self) -> None:
        """See ShardFiller."""
        self.pool.close()

    def fill_one(self, index: int, units: Sequence[str], progress: Progress) -> Shard:
        """See ShardByShard."""
        found = self.answers.rows_of(units, ["text", "finish_reason"])
        answers: list[Mapping[str, Any]] = []
        for question_id in units:
            answers += found[question_id]
        checks = read_checks(_rows_of(self.questions, units, ["check"]))
        rows = _judge(answers, checks, self.excluded, self.renderer, self.pool, progress)
        if self.masks is not None:
            self.masks.apply(rows)
        counts = Counter(row["verdict"] for row in rows)
        return Shard(rows, counts)


class TraceMasks(NamedTuple):
    """The check of traces: what it reads of them, and the check itself."""

    traces: TableReader
    questions: TableReader
    check: TraceCheck

    def apply(self, rows: Sequence[dict[str, Any]]) -> None:
        """Give right answers after a trace that fails the check the verdict `wrong_trace`, in
        place. Only traces with a right answer are checked.
        """
        right = [row for row in rows if row["verdict"] == Verdict.CORRECT.value]
        wanted = {(row["question_id"], row["trace_id"]) for row in right}
        question_ids = list(dict.fromkeys(row["question_id"] for row in right))
        found = self.traces.rows_of(question_ids, ["text"])
        questions = self.questions.rows_of(question_ids, ["question", "solution", "check"])
        keys = []
        asked = []
        for question_id in question_ids:
            [question] = questions[question_id]
            parts = {name: question[name] for name in ("question_id", "question", "solution")}
            parts["check"] = json.loads(question["check"])
            for trace in found[question_id]:
                key = (question_id, trace["trace_id"])
                if key in wanted:
                    keys.append(key)
                    asked.append(parts | {"trace": trace["text"]})
        reason_of = dict(zip(keys, self.check(asked), strict=True))
        for row in right:
            reason = reason_of[row["question_id"], row["trace_id"]]
            if reason:
                row["verdict"] = Verdict.WRONG_TRACE.value
                row["reason"] = reason


def open_masks(config: Config, questions: TableReader) -> TraceMasks:
    """The check of verify.trace_check on the traces of this run."""
    assert config.verify.trace_check is not None
    check = open_trace_check(config.verify.trace_check, config.verify.trace_check_seconds)
    return TraceMasks(TableReader(config.folder("traces"), "traces"), questions, check)


def _trace_check_identity(config: Config) -> dict[str, Any]:
    """What a manifest says of the check of traces, a command's files included; nothing without."""
    setting = config.verify.trace_check
    if not setting:
        return {}
    digests = {str(path): file_digest(path) for path in trace_check_files(setting)}
    return {"verify.trace_check": setting, "verify.trace_check_files": digests}


def open_pool(config: Config, programs: ProgramSettings | None) -> VerifierPool:
    """Worker processes with the limits of the section verify."""
    return VerifierPool(
        config.verify.workers,
        config.verify.timeout_seconds,
        config.verify.memory_mib,
        programs,
    )


def open_programs(
    checks: Mapping[str, dict[str, Any]], config: Config, setting: str = f"verify.{SETTING}"
) -> ProgramSettings | None:
    """How programs will run, after the probe of this machine, which is printed; None where no check
    needs it.

    Args:
        setting: what messages call the key that allows less isolation.

    Raises: ValueError for a tier below the minimum without verify.allow_unsandboxed_code.
    """
    if not any(check["kind"] == "program" for check in checks.values()):
        return None
    return probe_programs(config, setting)


def probe_programs(
    config: Config, setting: str = f"verify.{SETTING}", is_announced: bool = True
) -> ProgramSettings:
    """The same for checks that are known to need it.

    Raises: as `open_programs`.
    """
    settings = config.verify
    found = probe(settings.program_python)
    if is_announced:
        found.announce(settings.allow_unsandboxed_code, setting)
    else:
        found.check(settings.allow_unsandboxed_code, setting)
    limits = Limits(
        cpu_seconds=settings.program_cpu_seconds,
        wall_seconds=wall_limit(settings.program_cpu_seconds),
        memory_mib=settings.program_memory_mib,
        output_mib=settings.program_output_mib,
    )
    return ProgramSettings(
        found.tier,
        limits,
        settings.program_total_seconds,
        settings.program_python,
    )


def read_checks(questions: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """question_id to check, from rows with both columns.

    Raises: ValueError that lists the questions at fault.
    """
    checks: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for row in questions:
        check = _parse_check(row["question_id"], row["check"], faults)
        if check is not None:
            checks[row["question_id"]] = check
    _refuse_checks(faults)
    return checks


def _parse_check(question_id: str, text: str, faults: list[str]) -> dict[str, Any] | None:
    """A question's check, or None and a fault."""
    try:
        return parse_check(text)
    except ValueError as error:
        faults.append(f"question {question_id}: {error}")
        return None


def _refuse_checks(faults: Sequence[str]) -> None:
    if faults:
        what = f"{len(faults)} questions have checks that cannot be used"
        raise ValueError(list_faults(what, faults))


def _rows_of(
    questions: TableReader, units: Sequence[str], columns: Sequence[str]
) -> list[Mapping[str, Any]]:
    """The row of each question, in the order given."""
    found = questions.rows_of(units, columns)
    return [found[question_id][0] for question_id in units]


def solution_of_answer(
    text: str, finish_reason: str, renderer: Renderer
) -> tuple[str | None, Result | None]:
    """What a sampled answer offers as its solution: (solution, None), or (None, verdict) where it
    offers none.

    Args:
        text: what the reasoner wrote after the trace's ids, its closing tag included.
        finish_reason: `length` means that it was cut.
    """
    solution = renderer.solution_of_answer(text)
    if solution is None:
        reason = f"no {renderer.answer_stops[0]} in the answer"
        if finish_reason != "stop":
            reason = f"the answer was cut (finish_reason {finish_reason})"
        return None, Result(Verdict.NO_ANSWER, reason)
    if not text.startswith(renderer.answer_lead):
        reason = "more than the tags stands between trace and solution"
        return None, Result(Verdict.MALFORMED, reason)
    return solution, None


def try_golds(
    checks: Mapping[str, dict[str, Any]], solutions: Mapping[str, str], pool: VerifierPool
) -> dict[str, dict[str, str]]:
    """What each question's check says of its own gold: id to verdict and reason, of the first gold
    that it rejects.

    A countdown without a gold is tried with the reference solution. A program is tried with the
    data set's own solutions, which the check carries. A question without anything to try is not
    among the results.
    """
    jobs = []
    for question_id, check in checks.items():
        if check["kind"] in UNVERIFIABLE_KINDS:
            continue
        golds = gold_solutions(check)
        if not golds and check["kind"] == "countdown":
            golds = [solutions[question_id]]
        for number, gold in enumerate(golds):
            jobs.append(Job((question_id, number), check, gold))
    results: dict[tuple[str, int], Result] = dict(pool.check(jobs))
    tried: dict[str, dict[str, str]] = {}
    for (question_id, _), result in sorted(results.items()):
        earlier = tried.get(question_id)
        if earlier is None or earlier["verdict"] == Verdict.CORRECT.value:
            tried[question_id] = {"verdict": result.verdict.value, "reason": result.reason}
    return tried


def describe_verdicts(summary: VerifySummary) -> str:
    """The lines that the command prints at its end."""
    manifest = summary.manifest
    if manifest is None:
        return f"{summary.folder}: this process's shards are done; others are still missing"
    counts = manifest["counts"]
    shown = []
    for verdict in Verdict:
        if counts.get(verdict):
            shown.append(f"{verdict.value} {counts[verdict]}")
    size = f"{manifest['rows']} verdicts in {len(manifest['shards'])} shards"
    lines = [f"{summary.folder}: {size}; {', '.join(shown)}"]
    if refused := counts.get(Verdict.WRONG_TRACE):
        accepted = refused + counts.get(Verdict.CORRECT, 0)
        lines.append(
            f"right answers after a trace that fails verify.trace_check: {refused} of {accepted}; "
            "they are not accepted"
        )
    if manifest["tier"]:
        lines.append(f"programs ran in tier {manifest['tier']}")
    if manifest["excluded_questions"]:
        reasons = Counter(manifest["excluded_questions"].values())
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        lines.append(f"questions without verification: {listed}")
    if manifest["workers_replaced"]:
        lines.append(f"verifier processes replaced: {manifest['workers_replaced']}")
    if not summary.did_something:
        lines.append("nothing to do: the table was finished before")
    return "\n".join(lines)


def _judge(
    answers: Sequence[Mapping[str, Any]],
    checks: Mapping[str, dict[str, Any]],
    excluded: Mapping[str, str],
    renderer: Renderer,
    pool: VerifierPool,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Verdict rows in the order of the answers; equal solutions of one question are checked
    once.
    """
    results: dict[tuple, Result] = {}
    # (question_id, solution) to the answers that offer it.
    waiting: dict[tuple[str, str], list[tuple]] = {}
    for row in answers:
        question_id = row["question_id"]
        key = (question_id, row["trace_id"], row["answer_id"])
        if question_id in excluded:
            results[key] = Result(Verdict.UNVERIFIABLE, excluded[question_id])
            continue
        solution, verdict = solution_of_answer(row["text"], row["finish_reason"], renderer)
        if verdict is not None:
            results[key] = verdict
        else:
            assert solution is not None  # an answer without one has its verdict already
            waiting.setdefault((question_id, solution), []).append(key)
    progress(len(results))
    jobs = []
    for question_id, solution in waiting:
        jobs.append(Job((question_id, solution), checks[question_id], solution))
    for pair, result in pool.check(jobs):
        keys = waiting[pair]
        results.update(dict.fromkeys(keys, result))
        progress(len(keys))
    rows = []
    for row in answers:
        key = (row["question_id"], row["trace_id"], row["answer_id"])
        result = results[key]
        rows.append(
            {
                "question_id": row["question_id"],
                "trace_id": row["trace_id"],
                "answer_id": row["answer_id"],
                "verdict": result.verdict.value,
                "reason": result.reason,
                "seconds": result.seconds,
                "tier": result.tier,
            }
        )
    return rows


class _Kinds(NamedTuple):
    """What the checks of all questions are, without the checks.

    unverifiable: questions of a kind that nothing here decides, with the reason.
    """

    unverifiable: dict[str, str]
    has_programs: bool


def _read_kinds(config: Config, inputs: _Inputs) -> _Kinds:
    """From the manifest of the golds, or from all checks, one of them in memory at a time.

    Raises: ValueError for checks that cannot be read, with all questions at fault.
    """
    folder = golds_folder(config)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder, "golds")
        if "has_programs" in manifest:  # an earlier release did not write it
            return _Kinds(manifest["unverifiable"], manifest["has_programs"])
    wanted = set(inputs.units)
    unverifiable: dict[str, str] = {}
    has_programs = False
    faults: list[str] = []
    for shard in inputs.questions.scan(["question_id", "check"]):
        for question, text in zip(shard["question_id"], shard["check"], strict=True):
            question_id = question.as_py()
            if question_id not in wanted:
                continue
            check = _parse_check(question_id, text.as_py(), faults)
            if check is None:
                continue
            kind = check["kind"]
            has_programs = has_programs or kind == "program"
            if kind in UNVERIFIABLE_KINDS:
                unverifiable[question_id] = UNVERIFIABLE_KINDS[kind]
    _refuse_checks(faults)
    return _Kinds(unverifiable, has_programs)


def _excluded_questions(config: Config, inputs: _Inputs, kinds: _Kinds) -> dict[str, str]:
    """Questions that are not verified under a named policy, with the reason.

    Raises: ValueError without the policy; the table of golds is removed then, so that they are
    tried again.
    """
    faults = []
    num_questions = len(inputs.units)
    if kinds.unverifiable and config.verify.unverifiable == "refuse":
        what = (
            f"{len(kinds.unverifiable)} of {num_questions} questions cannot be verified; leave "
            "them out, or set verify.unverifiable: accept (stage 8 then treats them by its "
            "fallback policy)"
        )
        faults.append(list_faults(what, _by_question(kinds.unverifiable)))
    folder = golds_folder(config)
    rejected = settled_golds(config)
    if rejected and config.verify.bad_golds == "refuse":
        what = (
            f"{len(rejected)} of {num_questions} gold answers are not accepted by their own "
            "check; correct them, or set verify.bad_golds: exclude"
        )
        faults.append(list_faults(what, _by_question(rejected)))
    if faults:
        shutil.rmtree(folder, ignore_errors=True)
        # It stays where it holds verdicts of an earlier run; another process may have been faster.
        with suppress(OSError):
            folder.parent.rmdir()
        raise ValueError("\n".join(faults))
    for question_id in list(rejected)[:NUM_LISTED]:
        print(f"excluded: question {question_id}, gold {rejected[question_id]}")
    return kinds.unverifiable | dict.fromkeys(rejected, BAD_GOLD_REASON)


def _by_question(reasons: Mapping[str, str]) -> list[str]:
    return [f"question {question_id}: {reason}" for question_id, reason in reasons.items()]


def golds_folder(config: Config) -> Path:
    """Where the table of golds is: inside that of the verdicts, which depend on it and are removed
    with it.
    """
    return config.folder("verdicts", "golds")


def settled_golds(config: Config) -> dict[str, str]:
    """Questions whose check rejects their own gold: id to the verdict and its reason, the same in
    all processes.

    Processes that share the stage share the golds too, and all read the whole table: a check near
    its time limit may accept a gold in one process and reject it in another. Were each to go by its
    own result, one would exclude the question and the other would verify answers to it.

    Raises: ValueError as `golds_job` does.
    """
    folder = golds_folder(config)
    try:
        if not (folder / MANIFEST).is_file():
            run(golds_job, config)
        table = read_table(folder, "golds")
    except (OSError, ValueError) as error:
        if not folder.is_dir():
            raise ValueError(
                f"{folder} was removed while this process read it, because another process of the "
                "stage refuses the golds; its message lists them"
            ) from error
        raise
    is_rejected = pc.not_equal(table["verdict"], Verdict.CORRECT.value)  # null without a gold
    rejected = {}
    for row in table.filter(is_rejected).to_pylist():
        rejected[row["question_id"]] = f"{row['verdict']}: {row['reason']}"
    return dict(sorted(rejected.items()))


def golds_job(config: Config) -> StageJob:
    """The table of golds, which all processes of stage 7 fill together before the first answer.

    Raises: ValueError for checks that cannot be read, and when there is a table of other questions.
    """
    folder = golds_folder(config)
    inputs = _open_inputs(config)
    kinds = _read_kinds(config, inputs)
    identity = Identity({"questions": inputs.questions.digest}, inputs.limits)
    per_shard = _golds_per_shard(folder, inputs.units, config)

    def load() -> GoldTrier:
        programs = None
        if kinds.has_programs:
            programs = probe_programs(config, is_announced=False)
        return GoldTrier(config, inputs.questions, kinds, programs)

    return StageJob(
        stage=open_stage(folder, "golds", identity, inputs.units, per_shard),
        title=f"golds against themselves, of {len(inputs.units)} questions; writes {folder}",
        row="gold",
        size=lambda unit: 1,
        cost=lambda unit: 1.0,
        load=load,
        is_needed_whole=True,
    )


def _golds_per_shard(folder: Path, units: Sequence[str], config: Config) -> int:
    """How many questions a shard of golds has. An earlier release wrote all of them as one; such a
    table goes on as it is.
    """
    if (folder / STAGE).is_file():
        plan = read_json_object(folder / STAGE, f"remove {folder} and run stage 7 again")
        if plan.get("units") == units_digest([units]):
            return len(units)
    return config.verify.questions_per_shard


class GoldTrier(ShardByShard):
    """The worker of the table of golds; it has the checks of one shard in memory."""

    def __init__(
        self,
        config: Config,
        questions: TableReader,
        kinds: _Kinds,
        programs: ProgramSettings | None,
    ) -> None:
        self.questions = questions
        self.kinds = kinds
        self.pool = open_pool(config, programs)

    def facts(self) -> dict[str, Any]:
        """See ShardFiller. A restart reads them in place of all checks."""
        return self.kinds._asdict()

    def close(self) -> None:
        """See ShardFiller."""
        self.pool.close()

    def fill_one(self, index: int, units: Sequence[str], progress: Progress) -> Shard:
        """See ShardByShard."""
        questions = _rows_of(self.questions, units, ["check", "solution"])
        solutions = {row["question_id"]: row["solution"] for row in questions}
        tried = try_golds(read_checks(questions), solutions, self.pool)
        rows = []
        for question_id in units:
            untried = {"verdict": None, "reason": ""}
            rows.append({"question_id": question_id} | tried.get(question_id, untried))
        progress(len(units))
        return Shard(rows, {})
