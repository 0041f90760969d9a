"""New verdicts on the answers of an evaluation, without its model (evals/run.py rejudge=true).

It is used after a checker was fixed, or with other limits. Of each benchmark,

    NAME/samples/     what the model wrote: only read
    NAME/rejudged/    the new verdicts, shard by shard; a command that is run again goes on here
    NAME/             the old verdicts and result.json, until the new ones take their place

The places are changed when every benchmark has all its new verdicts and their checks decide enough
of them, so a suite is never half old and half new. Processes share the work as in an evaluation.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.faults import list_faults
from variational_reasoning.method.prompts import renderer_of_record
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.evaluate import (
    REJUDGED,
    RESULT,
    Benchmark,
    Model,
    benchmark_verdicts_job,
    finish_rejudging,
    shares_of_jobs,
    write_result,
)
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    Stage,
    open_stage,
    read_manifest,
    read_rows,
    replace_table,
)
from variational_reasoning.pipeline.verify import open_programs, read_checks
from variational_reasoning.pipeline.work.job import do_shards
from variational_reasoning.pipeline.work.launch import own_share


class Rejudged(NamedTuple):
    """result.json, and how many answers went from one verdict to another.

    changes: (old, new) to a count; None where the old verdicts were not finished.
    """

    result: dict[str, Any]
    changes: Counter[tuple[str, str]] | None


def rejudge(
    benchmarks: Sequence[Benchmark], name: str, config: Config
) -> Iterator[tuple[Benchmark, Rejudged | None]]:
    """Each benchmark with its new result; None while verdicts of other processes are missing.

    Args:
        name: what reports call the model; the model itself is not read.

    Raises: ValueError for answers that are not all sampled or were asked otherwise, programs where
        there is no sandbox, and new verdicts that decide too few answers; the old ones stay then.
    """
    # The model's own context is not known without it, and nothing is sampled.
    eval_config = dataclasses.replace(config.eval, context="cutoff_len")
    config = dataclasses.replace(config, eval=eval_config)
    _check_samples(benchmarks)
    checks = {}
    for benchmark in benchmarks:
        for question_id, check in read_checks(benchmark.questions).items():
            checks[f"{benchmark.task}/{question_id}"] = check
    programs = open_programs(checks, config)
    del checks  # tests of programs may be gigabytes
    models = [_recorded_model(benchmark, name, config) for benchmark in benchmarks]
    jobs = []
    for benchmark, model in zip(benchmarks, models, strict=True):
        finish_rejudging(benchmark.folder)
        newer = dataclasses.replace(benchmark, folder=benchmark.folder / REJUDGED)
        samples = open_samples(benchmark, config)
        jobs.append(benchmark_verdicts_job(newer, model, samples, programs))
    shares = shares_of_jobs(jobs, *own_share(config))
    summaries = [do_shards(job, mine) for job, mine in zip(jobs, shares, strict=True)]
    is_whole = all(summary.manifest is not None for summary in summaries)
    for benchmark, model in zip(benchmarks, models, strict=True):
        if not is_whole:
            yield benchmark, None
            continue
        folder = benchmark.folder
        changes = _changes(folder, folder / REJUDGED)
        (folder / RESULT).unlink(missing_ok=True)
        replace_table(folder, folder / REJUDGED)
        result = write_result(benchmark, model)
        yield benchmark, Rejudged(result, changes)


def describe_changes(changes: Counter[tuple[str, str]] | None) -> str:
    """One line, such as `2 of 40 verdicts changed: wrong to correct 2`."""
    if changes is None:
        return "there were no finished verdicts before"
    num_changed = 0
    listed = []
    for (old, new), count in sorted(changes.items()):
        if old != new:
            num_changed += count
            listed.append(f"{old} to {new} {count}")
    if not num_changed:
        return f"none of {changes.total()} verdicts changed"
    return f"{num_changed} of {changes.total()} verdicts changed: {', '.join(listed)}"


def _check_samples(benchmarks: Sequence[Benchmark]) -> None:
    """Raises: ValueError that lists every benchmark whose answers cannot be judged again."""
    faults = []
    for benchmark in benchmarks:
        folder = benchmark.folder / "samples"
        if not (folder / MANIFEST).is_file():
            faults.append(f"{folder} is not finished: evaluate first, without rejudge=true")
            continue
        manifest = read_manifest(folder, "samples")
        if manifest["inputs"]["questions"] != benchmark.digest:
            faults.append(
                f"{folder}: the questions or their checks are not those that were sampled; "
                "evaluate them under another name"
            )
        if manifest["config"]["num_samples"] != benchmark.num_samples:
            faults.append(
                f"{folder}: {manifest['config']['num_samples']} answers were sampled to each "
                f"question, but num_samples is {benchmark.num_samples}"
            )
    if faults:
        raise ValueError(list_faults("nothing is judged again", faults))


def open_samples(benchmark: Benchmark, config: Config) -> Stage:
    """The table of samples, with the identity that it was filled with."""
    folder = benchmark.folder / "samples"
    manifest = read_manifest(folder, "samples")
    names = [field.name for field in dataclasses.fields(Identity)]
    identity = Identity(**{name: manifest[name] for name in names})
    units = [row["question_id"] for row in benchmark.questions]
    per_shard = max(1, config.eval.answers_per_shard // benchmark.num_samples)
    remedy = "Set eval.answers_per_shard to what it was when the answers were sampled."
    return open_stage(folder, "samples", identity, units, per_shard, remedy)


def _recorded_model(benchmark: Benchmark, name: str, config: Config) -> Model:
    """The model as the manifest of its samples describes it; its folder may be gone."""
    folder = benchmark.folder / "samples"
    manifest = read_manifest(folder, "samples")
    renderer = renderer_of_record(manifest["config"], source=str(folder))
    return Model(name, Path(manifest["model"]["path"]), renderer, config)


def _changes(old: Path, new: Path) -> Counter[tuple[str, str]] | None:
    """How many answers went from one verdict to another; None without finished old verdicts."""
    if not (old / MANIFEST).is_file():
        return None
    columns = ["question_id", "answer_id", "verdict"]
    before = {}
    for row in read_rows(old, "evals", columns):
        before[row["question_id"], row["answer_id"]] = row["verdict"]
    changes: Counter[tuple[str, str]] = Counter()
    for row in read_rows(new, "evals", columns):
        old_verdict = before[row["question_id"], row["answer_id"]]
        changes[old_verdict, row["verdict"]] += 1
    return changes
