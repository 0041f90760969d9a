"""The evaluation of one model: the questions of a run, or the paper's whole suite of benchmarks."""

import json
import os
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from variational_evals.models import reasoner_renderer, tensor_parallel_size
from variational_evals.tasks import load_questions, load_task
from variational_reasoning.files import read_json_lines
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines import engine_name
from variational_reasoning.pipeline.evaluate import (
    RESULT,
    Benchmark,
    Model,
    describe_result,
    evaluate,
    recorded_renderer,
)
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python evals/run.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
       python evals/run.py evals/paper.yaml model=FOLDER|HUB_NAME [name=NAME] [key=value ...]
Samples and verifies k responses to each question and prints Avg@k.
With eval.tasks, the benchmarks that it lists: writes run_dir/NAME-seedN/TASK, NAME being the model's own if none is given.
Without, the questions of the run (or eval.file): model may be the name of one in run_dir/models; writes run_dir/evals/NAME.
Run again, it does what is missing. shard=i/n or torchrun share the work over GPUs; report.py reads the results"""


def run_questions(config: Config) -> list[dict[str, Any]]:
    """Rows with question_id, question and check from the questions table, or from eval.file."""
    columns = ["question_id", "question", "check"]
    if config.eval.file:
        path = Path(config.eval.file)
        if not path.is_file():
            raise ValueError(f"eval.file: {path} does not exist")
        rows = []
        for number, row in read_json_lines(path):
            missing = [name for name in columns if not row.get(name)]
            if missing:
                raise ValueError(
                    f"{path}, line {number}: missing {missing}; a line holds {columns}"
                )
            check = row["check"]
            rows.append(row | {"check": check if isinstance(check, str) else json.dumps(check)})
        where = str(path)
    else:
        table = config.folder("questions")
        rows = [
            row
            for row in read_rows(table, "questions", [*columns, "split"])
            if row["split"] == config.eval.split
        ]
        where = f"{table} with split {config.eval.split}"
    if not rows:
        raise ValueError(f"there are no questions in {where}")
    return rows[: config.eval.max_questions]


def find_model(config: Config, named: str) -> tuple[Path, Renderer]:
    """The folder that `model=` names, downloaded if it is the hub's, and the chat format that the model is asked in.

    Raises: ValueError for a model that is not there, or of which nothing shows that it knows the reasoner's prompt.
    """
    folder = Path(named) if Path(named).is_dir() else config.model_folder(named)
    if folder.is_dir():
        return folder, recorded_renderer(folder, config)
    if named.count("/") != 1:
        raise ValueError(
            f"model={named!r} is no folder, {folder} does not exist, and it is no name on the hub"
        )
    renderer = reasoner_renderer(named)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if renderer is None:  # its record, if it has one, before gigabytes of weights
            renderer = recorded_renderer(
                Path(snapshot_download(named, allow_patterns=["*.json"])), config
            )
        return Path(snapshot_download(named)), renderer
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"model={named!r} is no folder, and cannot be had from the hub: {error}"
        ) from error


def with_parallelism(config: Config, folder: Path) -> Config:
    """The configuration with the number of GPUs that one copy of the model takes, and a line that says it."""
    size = config.eval.tensor_parallel_size
    if size is None or engine_name(config) != "vllm":
        return config
    if size == 0:
        size = tensor_parallel_size(
            str(folder), num_processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        )
        print(f"tensor_parallel_size {size}; another: eval.tensor_parallel_size=N")
    return replace(config, sampling=replace(config.sampling, tensor_parallel_size=size))


def suite(config: Config, name: str) -> list[Benchmark]:
    """The benchmarks that eval.tasks lists, with their questions.

    Raises: ValueError for a task that does not exist or whose data cannot be had.
    """
    benchmarks = []
    for wanted in config.eval.tasks:
        task = load_task(wanted.task, wanted.file)
        questions = load_questions(task)[: config.eval.max_questions]
        folder = config.folder(f"{name}-seed{config.seed}", task.name)
        benchmarks.append(
            Benchmark(
                task.name, folder, questions, wanted.num_samples or task.num_samples, asdict(task)
            )
        )
    return benchmarks


def main() -> None:
    config, own = read_command(USAGE, own=("model",), optional=("name",))
    tasks = config.eval.tasks
    if not tasks and "name" not in own:
        raise ValueError(f"missing: name=...\n{USAGE}")
    folder, renderer = find_model(config, own["model"])
    name = own.get("name", Path(own["model"]).name)
    model = Model(name, folder, renderer, with_parallelism(config, folder))
    if tasks:
        benchmarks = suite(config, model.name)
    else:
        target = config.folder("evals", model.name)
        benchmarks = [Benchmark("", target, run_questions(config), config.eval.num_samples)]
    with timed(config.run_dir, f"evaluate_{model.name}") as timing, closing(model):
        timing.did_something = any(
            not (benchmark.folder / RESULT).is_file() for benchmark in benchmarks
        )
        for benchmark, result in evaluate(benchmarks, model):
            print(
                describe_result(result)
                if result
                else f"{benchmark.folder}: other processes' shards are still missing"
            )


if __name__ == "__main__":
    run_command(main)
