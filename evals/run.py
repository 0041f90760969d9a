"""The evaluation of one model: the questions of a run, or the paper's whole suite of benchmarks."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from variational_evals.model_folders import find_model, with_parallelism
from variational_evals.tasks import load_questions, load_task, task_names
from variational_reasoning.faults import list_faults
from variational_reasoning.files import is_plain_name, read_json_lines
from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.evaluate import (
    RESULT,
    Benchmark,
    Model,
    describe_result,
    evaluate,
)
from variational_reasoning.pipeline.questions.gym import gym_rows, is_gym
from variational_reasoning.pipeline.rejudge import describe_changes, rejudge
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python evals/run.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
       python evals/run.py evals/paper.yaml model=FOLDER|HUB_NAME [name=NAME] [key=value ...]
       python evals/run.py CONFIG.yaml name=NAME rejudge=true [key=value ...]
Samples and verifies k responses to each question and prints Avg@k.
With eval.tasks, the benchmarks that it lists: writes run_dir/NAME-seedN/TASK. NAME is the model's
own by default. Without, the questions of the run (or eval.file): model may be the name of one in
run_dir/models; writes run_dir/evals/NAME.
Run again, it does what is missing. shard=i/n or torchrun share the work over GPUs.
rejudge=true: new verdicts on the answers that are there, without sampling; the answers stay.
evals/report.py reads the results."""

COLUMNS = ("question_id", "question", "check")


def run_questions(config: Config, columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """Rows with question_id, question and check from the questions table, or from eval.file.

    Args:
        columns: of the table; a file's rows have all that is there.
    """
    if config.eval.file:
        where = config.eval.file
        if is_gym(where):
            found, _ = gym_rows(where, "test", config.data.gym)
            rows = [row | {"check": json.dumps(row["check"])} for row in found]
        elif where in task_names():
            rows = list(load_questions(load_task(where)))
        else:
            rows = read_questions(Path(where))
    else:
        table = config.folder("questions")
        every = read_rows(table, "questions", [*columns, "split"])
        rows = [row for row in every if row["split"] == config.eval.split]
        where = f"{table} with split {config.eval.split}"
    if not rows:
        raise ValueError(f"there are no questions in {where}")
    return rows[: config.eval.max_questions]


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of questions; a check may be an object or its JSON text.

    Raises: ValueError that lists every line at fault.
    """
    if not path.is_file():
        raise ValueError(f"eval.file: {path} does not exist")
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    for number, row in read_json_lines(path, faults):
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            faults.append(f"line {number}: lacks {', '.join(missing)}")
            continue
        question_id = row["question_id"]
        if not isinstance(question_id, str):
            faults.append(f"line {number}: question_id is {question_id!r}; it must be text")
            continue
        first = lines.setdefault(question_id, number)
        if first != number:
            faults.append(
                f"line {number}: the question_id {question_id!r} is that of line {first}; "
                "each question needs its own"
            )
        check = row["check"]
        rows.append(row | {"check": check if isinstance(check, str) else json.dumps(check)})
    if faults:
        head = f"eval.file: {path}: {len(faults)} lines cannot be used"
        raise ValueError(list_faults(head, faults))
    return rows


def suite(config: Config, name: str) -> list[Benchmark]:
    """The benchmarks that eval.tasks lists, with their questions.

    Raises: ValueError for a task that does not exist or whose data cannot be downloaded.
    """
    benchmarks = []
    for wanted in config.eval.tasks:
        task = load_task(wanted.task, wanted.file)
        questions = load_questions(task)[: config.eval.max_questions]
        folder = config.folder(f"{name}-seed{config.seed}", task.name)
        num_samples = wanted.num_samples or task.num_samples
        benchmarks.append(Benchmark(task.name, folder, questions, num_samples, asdict(task)))
    return benchmarks


def own_benchmark(config: Config, name: str, with_chains: bool = False) -> Benchmark:
    """The questions of the run, or of eval.file; their verbal chains too, where they are asked for
    and known (column `trace`).
    """
    folder = config.folder("evals", name)
    columns = [*COLUMNS, "trace"] if with_chains else COLUMNS
    return Benchmark("", folder, run_questions(config, columns), config.eval.num_samples)


def benchmarks_of(config: Config, name: str, with_chains: bool = False) -> list[Benchmark]:
    """The benchmarks that the configuration names, or the questions of the run."""
    if config.eval.tasks:
        return suite(config, name)
    return [own_benchmark(config, name, with_chains)]


def checked_name(name: str) -> str:
    """The name of a model's folder of results. Raises: ValueError for one that leads elsewhere."""
    if not is_plain_name(name):
        raise ValueError(
            f"name={name!r} cannot be the name of a folder; use letters, digits, '-', '_' and '.', "
            "not first, such as name=final_acc"
        )
    return name


def read_arguments() -> tuple[Config, dict[str, str]]:
    """The configuration, and `model`, `name` and `rejudge` as far as they are needed.

    Raises: ValueError for what is missing and does not fit.
    """
    config, own = read_command(USAGE, optional=("model", "name", "rejudge"))
    rejudges = own.setdefault("rejudge", "false")
    if rejudges not in ("true", "false"):
        raise ValueError(f"rejudge={rejudges!r} is not true or false\n{USAGE}")
    needs_model = rejudges == "false"
    if needs_model and not own.get("model"):
        raise ValueError(f"missing: model=...\n{USAGE}")
    if "name" not in own and (not config.eval.tasks or not own.get("model")):
        raise ValueError(f"missing: name=...\n{USAGE}")
    own["name"] = checked_name(own.get("name") or Path(own["model"]).resolve().name)
    return config, own


def run_again(config: Config, name: str) -> Iterator[str]:
    """Judge the answers again; what is printed of each benchmark."""
    benchmarks = benchmarks_of(config, name)
    with timed(config.run_dir, f"rejudge_{name}"):
        for benchmark, rejudged in rejudge(benchmarks, name, config):
            if rejudged is None:
                yield f"{benchmark.folder}: other processes' shards are still missing"
            else:
                yield describe_result(rejudged.result)
                yield f"  {describe_changes(rejudged.changes)}"


def run(config: Config, named: str, name: str) -> Iterator[str]:
    """Sample and judge what is missing; what is printed of each benchmark."""
    folder, renderer = find_model(config, named)
    model = Model(name, folder, renderer, with_parallelism(config, folder))
    benchmarks = benchmarks_of(config, name)
    with timed(config.run_dir, f"evaluate_{name}") as timing, closing(model):
        results = [benchmark.folder / RESULT for benchmark in benchmarks]
        timing.did_something = not all(result.is_file() for result in results)
        for benchmark, result in evaluate(benchmarks, model):
            if result is None:
                yield f"{benchmark.folder}: other processes' shards are still missing"
            else:
                yield describe_result(result)


def main() -> None:
    config, own = read_arguments()
    if own["rejudge"] == "true":
        lines = run_again(config, own["name"])
    else:
        lines = run(config, own["model"], own["name"])
    for line in lines:
        print(line)


if __name__ == "__main__":
    run_command(main)
