"""The missing shards of a stage as tasks of a Ray cluster (launcher: ray; stages 3 to 7).

A task fills one shard and writes it, so nothing large is sent through Ray. If the driver dies, the
next run finds the finished shards. When a node is lost, Ray runs its tasks elsewhere, and they
write the same rows. All nodes must see the working directory under the same path, and have this
package installed.

Tasks are enough, without actors. Ray keeps a process for the next task of the same kind, and the
process keeps its loaded model. So a model is loaded once per GPU.
"""

import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.work.job import ShardFiller, StageJob, conclude
from variational_reasoning.pipeline.work.limits import FailureCount
from variational_reasoning.pipeline.work.summary import StageSummary

MAX_RETRIES = 10
"""How often a task may lose its process or its node before the stage ends with an error."""


def run_on_ray(
    make_job: Callable[[Config], StageJob], config: Config, job: StageJob
) -> StageSummary:
    """Do all missing shards on the cluster at ray_address.

    Raises: ModuleNotFoundError with the install command, ConnectionError without a cluster, and
    ValueError as the stage itself does.
    """
    if job.limit:
        FailureCount(job.stage, job.limit).check()
    ray = need("ray", "infer")
    _connect(config.ray_address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    num_gpus = job.gpus
    if not ray.cluster_resources().get("GPU"):
        num_gpus = 0
    print(f"Ray cluster with {len(nodes)} nodes; a task takes {num_gpus} GPUs")
    # max_calls=0: a process that has used a GPU stays for the next task, with its loaded model.
    options = {
        "num_gpus": num_gpus,
        "max_retries": MAX_RETRIES,
        "max_calls": 0,
        "scheduling_strategy": "SPREAD",
    }
    fill = ray.remote(**options)(fill_shard)
    blob = pickle.dumps((make_job, config))
    folder = str(Path.cwd())
    started = time.monotonic()
    done: Counter[str] = Counter()
    statistics: Counter[str] = Counter()
    facts: dict[str, Any] = {}
    sizes = [sum(map(job.size, units)) for units in job.stage.shards]
    total = sum(sizes)
    found = total
    tasks: dict[Any, int] = {}
    for index in _most_expensive_first(job):
        ref = fill.remote(blob, folder, index)
        tasks[ref] = index
        found -= sizes[index]
    with tqdm(total=total, initial=found, unit=job.row) as bar:
        for index, result in _results(tasks):
            facts, added, counts = result
            done.update(counts)
            statistics.update(added)
            bar.update(sizes[index])
            rate = statistics["tokens"] / (time.monotonic() - started)
            bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
    seconds = time.monotonic() - started
    return conclude(job, facts, dict(statistics), dict(done), seconds)


def _results(tasks: Mapping[Any, int]) -> Iterator[tuple[int, Any]]:
    """(shard, what its task returned) of each task, as they end.

    Args:
        tasks: reference of a task to its shard.

    Raises: the first error of a task; the others are canceled.
    """
    ray = need("ray", "infer")
    waiting = list(tasks)
    while waiting:
        [ref], waiting = ray.wait(waiting, num_returns=1)
        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            for other in waiting:
                ray.cancel(other)
            if isinstance(error.cause, ValueError | OSError):
                raise error.cause from None
            raise
        yield tasks[ref], result


def _connect(address: str) -> None:
    """Raises: ConnectionError without a cluster."""
    ray = need("ray", "infer")
    try:
        ray.init(
            address=address,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level="warning",
        )
    except ConnectionError as error:
        raise ConnectionError(
            f"there is no Ray cluster at ray_address {address!r} (auto: one that runs "
            "on this machine); start one with `ray start --head`, or set ray_address or launcher. "
            f"Ray says: {error}"
        ) from error


def _most_expensive_first(job: StageJob) -> list[int]:
    """The missing shards, so that no node is left with a large one at the end."""
    costs = {}
    for index, units in job.stage.pending():
        costs[index] = sum(map(job.cost, units))
    return sorted(costs, key=lambda index: (-costs[index], index))


def fill_shard(
    blob: bytes, folder: str, index: int
) -> tuple[dict[str, Any], Counter, dict[str, int]]:
    """The task: fill shard `index` and write it.

    Returns: the filler's facts, what its statistics grew by, and the shard's counts.

    Raises: ValueError when more of the table's rows failed than the job's limit allows.
    """
    os.chdir(folder)  # paths of a configuration are relative to it
    job, filler, failures = _loaded(blob)
    before = Counter(filler.statistics())
    units = job.stage.shards[index]
    [(_, shard)] = filler.fill([(index, units)], lambda num: None)
    if failures:
        failures.check_shard(shard.rows, shard.failed)
    job.stage.write_shard(index, *shard)
    added = Counter(filler.statistics()) - before
    return filler.facts(), added, dict(shard.counts)


@lru_cache(maxsize=1)
def _loaded(blob: bytes) -> tuple[StageJob, ShardFiller, FailureCount | None]:
    """What a task needs, kept by its process for the next task."""
    make_job, config = pickle.loads(blob)
    job = make_job(config)
    failures = None
    if job.limit:
        # Kept like the model, since it remembers the shards that it has read.
        failures = FailureCount(job.stage, job.limit)
    return job, job.load(), failures
