"""The evaluation: k responses to every question of one or more benchmarks, a verdict on each, Avg@k
(section 4, App. D).

Two tables per benchmark: `samples` is what the model wrote, `evals` the same rows with their
verdicts. Shard i of the second is made from shard i of the first as soon as the benchmark's share
is sampled, so that nothing which happens in a checker can lose an answer, and processes that share
the work (`shard=i/n`, torchrun) wait for nobody. Whoever finds the last verdict there writes
result.json.

A response is judged by the text in its first complete pair of solution tags; without one it is
wrong and counted as `no_answer`. The seed of a sample is a hash of (run seed,
question, sample), so the k samples of a question are independent, and none depends on what else is
sampled.
"""

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from variational_reasoning.faults import list_faults
from variational_reasoning.files import read_json_object, write_json
from variational_reasoning.method.evaluation import mean_and_error
from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import Renderer, renderer_of_record
from variational_reasoning.model_record import model_identity, read_record
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import (
    Completion,
    Engine,
    Request,
    engine_name,
    open_engine,
)
from variational_reasoning.pipeline.engines.fitting import check_prompt_kind
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    Stage,
    group_by,
    open_stage,
    read_manifest,
    read_rows,
    replace_table,
)
from variational_reasoning.pipeline.sample import (
    Sampler,
    ShardRequests,
    sample_seed,
    span_settings,
)
from variational_reasoning.pipeline.verify import (
    checker_limits,
    open_pool,
    open_programs,
    read_checks,
)
from variational_reasoning.pipeline.work.job import (
    Progress,
    Shard,
    ShardByShard,
    StageJob,
    do_shards,
    share_of_costs,
)
from variational_reasoning.pipeline.work.launch import own_share
from variational_reasoning.pipeline.work.limits import FailureLimit
from variational_reasoning.pipeline.work.summary import describe_table
from variational_reasoning.verify.pool import Job, ProgramSettings
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

RESULT = "result.json"
REJUDGED = "rejudged"
"""The folder next to the samples that holds new verdicts until all are there (rejudge.py)."""
REJUDGE = (
    "The answers in samples/ are fine: rejudge=true judges them again under these settings and "
    "puts the new verdicts in place of the old ones."
)


@dataclass(frozen=True)
class Benchmark:
    """Questions, how often each is asked, and the folder of the answers.

    task: its name; empty for the questions of a run.
    questions: rows with question_id, question and check.
    about: what result.json says of the questions' origin.
    """

    task: str
    folder: Path
    questions: Sequence[Mapping[str, Any]]
    num_samples: int
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 over ids, texts and checks."""
        digest = hashlib.sha256()
        for row in self.questions:
            text = json.dumps([row["question_id"], row["question"], row["check"]])
            digest.update(text.encode())
        return digest.hexdigest()


class Model:
    """A model that is evaluated. Its engine is opened when the first answer is missing, once for
    all benchmarks.
    """

    def __init__(self, name: str, folder: Path, renderer: Renderer, config: Config) -> None:
        """
        Args:
            name: what reports call it.

        Raises: ValueError for a model whose context is asked for and not known.
        """
        if config.eval.context == "model":
            config = dataclasses.replace(config, cutoff_len=model_context(folder))
        self.name = name
        self.folder = folder
        self.renderer = renderer
        self.config = config

    @cached_property
    def identity(self) -> dict[str, str]:
        """See `model_identity`."""
        return model_identity(self.folder)

    @cached_property
    def engine(self) -> Engine:
        """The engine that the configuration names."""
        return open_engine(self.config, str(self.folder))

    def close(self) -> None:
        """End what the engine has started, if there is one."""
        if "engine" in vars(self):
            self.engine.close()


def recorded_renderer(folder: Path, config: Config) -> Renderer:
    """How a model is asked, once it is sure that it was trained on the reasoner's prompt.

    A model's own record decides. `chat_format` and `prompt_family` of the configuration are for
    models without one, and where one of them is set to anything but its default they must agree
    with the record.

    Raises: ValueError as `check_prompt_kind` does.
    """
    record = read_record(folder) or {}
    asked = (config.chat_format, config.prompt_family)
    is_default = asked == (Config.chat_format, Config.prompt_family)
    renderer = config.renderer
    if is_default and record.get("chat_format") is not None:
        renderer = renderer_of_record(record, source=str(folder))
    check_prompt_kind(folder, REASONER, renderer, config)
    return renderer


def model_context(folder: Path) -> int:
    """Tokens that a model was made for, from its config.json.

    Raises: ValueError when the file does not say.
    """
    path = folder / "config.json"
    settings = read_json_object(path, "choose another model folder")
    context = settings.get("max_position_embeddings")
    if not isinstance(context, int):
        raise ValueError(
            f"{path} has no max_position_embeddings; set eval.context: cutoff_len and a cutoff_len"
        )
    return context


def evaluate(
    benchmarks: Sequence[Benchmark], model: Model
) -> Iterator[tuple[Benchmark, dict[str, Any] | None]]:
    """Each benchmark with its result.json, one after the other; None while answers of other
    processes are missing.

    Raises: ValueError for checks that cannot be read, a folder of something else, programs where
    there is no sandbox (all before a model is loaded), and when more than verify.max_fault_fraction
    of a benchmark's answers are undecided.
    """
    config = model.config
    if config.launcher == "ray":
        raise ValueError("launcher: an evaluation is shared by shard=i/n or torchrun, not by ray")
    for benchmark in benchmarks:
        finish_rejudging(benchmark.folder)
    jobs = [samples_job(benchmark, model) for benchmark in benchmarks]
    checks = {}
    for benchmark in benchmarks:
        if (benchmark.folder / MANIFEST).is_file():
            continue
        for question_id, check in read_checks(benchmark.questions).items():
            checks[f"{benchmark.task}/{question_id}"] = check
    programs = open_programs(checks, config)
    del checks  # programs' tests may be gigabytes
    shares = shares_of_jobs(jobs, *own_share(config))
    todo = [_num_missing(job, mine) for job, mine in zip(jobs, shares, strict=True)]
    started = time.monotonic()
    for number, (benchmark, job, mine) in enumerate(zip(benchmarks, jobs, shares, strict=True)):
        done = sum(todo[:number])
        left = sum(todo[number:])
        if done and left:
            seconds_per_answer = (time.monotonic() - started) / done
            duration = timedelta(seconds=round(left * seconds_per_answer))
            print(f"{left} answers left, in about {duration} at the pace so far")
        sampled = do_shards(job, mine)
        print(describe_table(sampled))
        judged = do_shards(benchmark_verdicts_job(benchmark, model, job.stage, programs), mine)
        result = None
        if judged.manifest:
            result = write_result(benchmark, model)
        yield benchmark, result


def samples_job(benchmark: Benchmark, model: Model) -> StageJob:
    """Open the table of a benchmark's samples."""
    config = model.config
    identity = Identity(
        inputs={"questions": benchmark.digest},
        config={
            **model.renderer.to_record(),
            "num_samples": benchmark.num_samples,
            "sampling.engine": engine_name(config),
            **resolved(config, "cutoff_len", "sampling.dtype"),
            **resolved(config, "eval.temperature", "eval.top_p", "eval.max_new_tokens"),
            **_span_settings(config, model.renderer),
        },
        model=model.identity,
        seed=config.seed,
    )
    _refuse_control_texts(benchmark, model)
    units = [row["question_id"] for row in benchmark.questions]
    per_shard = max(1, config.eval.answers_per_shard // benchmark.num_samples)
    folder = benchmark.folder / "samples"

    def size(unit: str) -> int:
        return benchmark.num_samples

    return StageJob(
        stage=open_stage(folder, "samples", identity, units, per_shard),
        title=(
            f"reads {len(units)} questions x {benchmark.num_samples}, {model.folder}; "
            f"writes {folder}{_bound(config)}"
        ),
        row="answer",
        size=size,
        cost=lambda unit: benchmark.num_samples,
        load=lambda: ResponseSampler(benchmark, model),
        limit=FailureLimit(
            "sampling.max_failed_fraction",
            config.sampling.max_failed_fraction,
            total=lambda: sum(map(size, units)),
        ),
    )


def _refuse_control_texts(benchmark: Benchmark, model: Model) -> None:
    """Raises: ValueError for questions that would open or close a turn of the prompt."""
    faults = []
    control_texts = model.renderer.chat_format.control_texts
    for row in benchmark.questions:
        found = [text for text in control_texts if text in row["question"]]
        if found:
            faults.append(f"question {row['question_id']}: {', '.join(found)}")
    if faults:
        what = (
            f"{benchmark.task or 'the questions'}: {len(faults)} questions hold control texts of "
            "the model's chat format; take them out of these questions"
        )
        raise ValueError(list_faults(what, faults))


def benchmark_verdicts_job(
    benchmark: Benchmark, model: Model, samples: Stage, programs: ProgramSettings | None
) -> StageJob:
    """Open the table of a benchmark's verdicts; `samples` is the table that they are about."""
    config = model.config
    # A verdict depends on what the answer depends on, and on the checkers' limits.
    all_settings = {**samples.identity.config, **checker_limits(config)}
    identity = dataclasses.replace(samples.identity, config=all_settings)
    units = [unit for units in samples.shards for unit in units]

    def num_answers() -> int:
        """Without questions that had no room, and samples that the engine failed on."""
        shards = range(len(samples.shards))
        return sum(len(samples.read_shard(index, ["answer_id"])) for index in shards)

    per_shard = len(samples.shards[0])
    return StageJob(
        stage=open_stage(
            benchmark.folder,
            "evals",
            identity,
            units,
            per_shard,
            remedy=REJUDGE,
        ),
        title=f"reads {samples.folder}; writes {benchmark.folder}",
        row="verdict",
        size=lambda unit: benchmark.num_samples,
        cost=lambda unit: benchmark.num_samples,
        load=lambda: ResponseJudge(benchmark, samples, model, programs),
        limit=FailureLimit(
            "verify.max_fault_fraction",
            config.verify.max_fault_fraction,
            total=num_answers,
            message="no checker decides {count} of {total} answers",
            columns=("question_id", "answer_id", "verdict", "reason"),
            is_failure=lambda row: row["verdict"] in UNDECIDED,
            at_end=True,
        ),
    )


def _span_settings(config: Config, renderer: Renderer) -> dict[str, Any]:
    """What a manifest says of abstract traces; nothing for verbal ones.

    Raises: ValueError for a limit of tokens that has no room for a trace and an answer.
    """
    constraint = span_settings(config, renderer)
    if not constraint:
        return {}
    # A separator has one token at least; the tokenizer, which knows how many, is not loaded yet.
    num_constant = 2 if renderer.separator else 1
    limit = config.eval.max_new_tokens
    needed = config.sampling.max_symbols + num_constant + 1
    if limit is not None and limit < needed:
        raise ValueError(
            f"eval.max_new_tokens: {limit} has no room for a trace of up to "
            f"{config.sampling.max_symbols} symbols (sampling.max_symbols), its end, the separator "
            f"and an answer; set at least {needed}"
        )
    return constraint | resolved(config, "eval.trace_temperature")


class ResponseSampler(Sampler):
    """The worker that asks the model."""

    names = ("question_id", "answer_id")

    def __init__(self, benchmark: Benchmark, model: Model) -> None:
        super().__init__(model.config, model.engine, model.renderer)
        self.benchmark = benchmark
        self.questions = {row["question_id"]: row for row in benchmark.questions}
        settings = model.config.eval
        temperature = settings.temperature
        if settings.trace_temperature is not None:
            temperature = settings.trace_temperature
        self.span = self._span(temperature)
        # Of the benchmarks that the same engine has done.
        self._before = Counter(super().statistics())

    def statistics(self) -> dict[str, int]:
        """See ShardFiller."""
        return {name: count - self._before[name] for name, count in super().statistics().items()}

    def close(self) -> None:
        """See ShardFiller. The engine stays open for the next benchmark."""

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        settings = self.config.eval
        num_samples = self.benchmark.num_samples
        limit = settings.max_new_tokens or self.config.cutoff_len
        needed = 1
        if self.span is not None:
            needed = self.span.least_room
        requests = []
        dropped = []
        counts = Counter(bounded_by_context=0)
        for question_id in units:
            question = self.questions[question_id]["question"]
            prompt_ids = self.renderer.encode_prompt(REASONER, question, None, self.encode)
            room = min(limit, self.config.cutoff_len - len(prompt_ids))
            if room < needed:
                dropped.append(self._no_room(question_id, len(prompt_ids)))
                continue
            if room < limit:
                counts["bounded_by_context"] += num_samples
            for m in range(num_samples):
                request = Request(
                    key=(question_id, m),
                    prompt_ids=prompt_ids,
                    max_new_tokens=room,
                    seed=sample_seed(self.config.seed, f"eval/{question_id}", m),
                    stop=self.renderer.answer_stops,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    span=self.span,
                )
                requests.append(request)
        return ShardRequests(requests, dropped, counts, len(dropped) * num_samples)

    def row(self, request: Request, result: Completion, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        return {
            "token_ids": result.token_ids,
            "text": self.decode(result.token_ids),
            "finish_reason": result.finish_reason,
            "seed": request.seed,
        }


class ResponseJudge(ShardByShard):
    """The worker that gives verdicts: a pool of processes."""

    def __init__(
        self, benchmark: Benchmark, samples: Stage, model: Model, programs: ProgramSettings | None
    ) -> None:
        self.samples = samples
        self.num_samples = benchmark.num_samples
        self.renderer = model.renderer
        self.checks = read_checks(benchmark.questions)
        self.pool = open_pool(model.config, programs)

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {"workers_replaced": self.pool.num_replaced}

    def close(self) -> None:
        """See ShardFiller."""
        self.pool.close()

    def fill_one(self, index: int, units: Sequence[str], progress: Progress) -> Shard:
        """See ShardByShard."""
        rows = {}
        jobs = []
        for row in self.samples.read_shard(index):
            key = (row["question_id"], row["answer_id"])
            rows[key] = row
            solution = self.renderer.solution_of_response(row["text"])
            jobs.append(Job(key, self.checks[row["question_id"]], solution))
        progress(len(units) * self.num_samples - len(rows))  # questions that were dropped
        for key, result in self.pool.check(jobs):
            rows[key] |= {
                "verdict": result.verdict.value,
                "reason": result.reason,
                "tier": result.tier,
            }
            progress(1)
        judged = list(rows.values())
        return Shard(judged, Counter(row["verdict"] for row in judged))


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Avg@k and what belongs to it, from the rows of an evals table; shares are in [0, 1].

    The standard error is that of the mean over questions (null for one question).
    """
    groups = group_by(rows, "question_id").values()
    shares = []
    for group in groups:
        num_correct = sum(row["verdict"] == Verdict.CORRECT.value for row in group)
        shares.append(num_correct / len(group))
    average = mean_and_error(shares)
    num_tokens = sum(len(row["token_ids"]) for row in rows)
    num_truncated = sum(row["finish_reason"] == "length" for row in rows)
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "num_questions": len(shares),
        "num_answers": len(rows),
        "num_samples": max(map(len, groups)),
        "avg": average.mean,
        "standard_error": average.standard_error,
        "mean_tokens": num_tokens / len(rows),
        "truncated": num_truncated / len(rows),
        "no_answer": verdicts[Verdict.NO_ANSWER.value] / len(rows),
        "verdicts": dict(sorted(verdicts.items())),
    }


def describe_result(result: Mapping[str, Any]) -> str:
    """One line of a result."""
    error = ""
    if result["standard_error"] is not None:
        error = f" ± {100 * result['standard_error']:.1f}"
    missing = ""
    if result["dropped"]:
        missing += f", {result['dropped']} questions dropped: no room in the context"
    if result["failed"]:
        missing += f", {result['failed']} samples failed in the engine and do not count"
    return (
        f"{result['task'] or result['name']}: Avg@{result['num_samples']} "
        f"{100 * result['avg']:.1f}{error} on {result['num_questions']} questions; mean tokens "
        f"{result['mean_tokens']:.1f}, truncated {result['truncated']:.1%}, no answer "
        f"{result['no_answer']:.1%}{missing}"
    )


def finish_rejudging(folder: Path) -> None:
    """Put new verdicts in place of the old ones, where a process was killed while it did so."""
    if (folder / REJUDGED / MANIFEST).is_file() and not (folder / MANIFEST).is_file():
        replace_table(folder, folder / REJUDGED)


def write_result(benchmark: Benchmark, model: Model) -> dict[str, Any]:
    """What result.json holds, written."""
    folder = benchmark.folder
    samples = read_manifest(folder / "samples", "samples")
    summary = summarize(read_rows(folder, "evals"))
    settings = dict(samples["config"])
    for name in ("chat_format", "prompt_family"):  # `prompt` shows what they are
        settings.pop(name, None)
    result = {
        "name": model.name,
        "task": benchmark.task,
        "model": str(model.folder),
        **summary,
        "dropped": len(samples["dropped"]),
        "failed": len(samples["failed"]),
        "seed": samples["seed"],
        "questions": samples["inputs"]["questions"],
        "settings": settings,
        "prompt": model.renderer.prompt(REASONER, benchmark.questions[0]["question"]),
        "versions": samples["versions"],
        "execution": samples["execution"],
        "about": dict(benchmark.about),
    }
    write_json(folder / RESULT, result)
    return result


def _bound(config: Config) -> str:
    """A line for the title where the context is shorter than the limit of tokens."""
    limit = config.eval.max_new_tokens
    if limit is None or limit < config.cutoff_len:
        return ""
    return (
        f"\neval.max_new_tokens {limit} is more than the context: "
        f"prompt and response end at {config.cutoff_len} tokens"
    )


def _num_missing(job: StageJob, mine: set[int]) -> int:
    """Rows of the shards among these that are not on disk."""
    num_rows = 0
    for index, units in job.stage.pending():
        if index in mine:
            num_rows += sum(map(job.size, units))
    return num_rows


def shares_of_jobs(jobs: Sequence[StageJob], index: int, count: int) -> list[set[int]]:
    """Per job the shards of process `index` of `count`, balanced over all jobs together.

    Two jobs with two shards and one have the places (0, 0), (0, 1), (1, 0); a share of the first
    and the last place is [{0}, {0}].
    """
    places = []
    costs = []
    for number, job in enumerate(jobs):
        for shard, units in enumerate(job.stage.shards):
            places.append((number, shard))
            costs.append(sum(map(job.cost, units)))
    shares: list[set[int]] = [set() for _ in jobs]
    for position in share_of_costs(costs, index, count):
        number, shard = places[position]
        shares[number].add(shard)
    return shares
