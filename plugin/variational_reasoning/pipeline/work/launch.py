"""Launch a stage: this process does its share, or a Ray cluster does all (stages 3 to 7)."""

import os
from collections.abc import Callable

from variational_reasoning.pipeline.config import Config, parse_share
from variational_reasoning.pipeline.work.job import StageJob, do_shards, share_of
from variational_reasoning.pipeline.work.ray_cluster import run_on_ray
from variational_reasoning.pipeline.work.summary import StageSummary


def run(make_job: Callable[[Config], StageJob], config: Config) -> StageSummary:
    """Do the missing shards of this process's share, or with `launcher: ray` all of them on Ray.

    Args:
        make_job: checks inputs and opens the table. Other machines must be able to import it.

    Raises: ValueError as make_job does, and when more than the job's fraction of all rows fails.
    """
    job = make_job(config)
    if config.launcher == "ray" and not job.stage.is_complete:
        print(job.title)
        return run_on_ray(make_job, config, job)
    index, count = own_share(config)
    mine = share_of(job.stage.shards, job.cost, index, count)
    return do_shards(job, mine)


def own_share(config: Config) -> tuple[int, int]:
    """(index, count) of this process, from `shard` and torchrun's environment.

    shard=1/3 with RANK 0 of 2 gives (2, 6): array task 1 has the shares 2 and 3.

    Raises: ValueError for a bad RANK.
    """
    rank = os.environ.get("RANK", "0")
    world = os.environ.get("WORLD_SIZE", "1")
    are_numbers = rank.isdigit() and world.isdigit()
    if not are_numbers or int(rank) >= int(world):
        raise ValueError(
            f"RANK is {rank} and WORLD_SIZE {world}; torchrun sets them so that 0 <= RANK < "
            "WORLD_SIZE"
        )
    task = 0
    num_tasks = 1
    if config.shard:
        task, num_tasks = parse_share(config.shard)
    num_processes = int(world)  # of each task
    first_of_task = task * num_processes
    return first_of_task + int(rank), num_tasks * num_processes
