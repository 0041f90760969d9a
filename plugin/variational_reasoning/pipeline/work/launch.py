"""How a stage is launched: by this process, as its share of many, or on a Ray cluster (stages 3 to
7).
"""

import os
from collections.abc import Callable

from variational_reasoning.pipeline.config import Config, parse_share
from variational_reasoning.pipeline.work.job import StageJob, do_shards, share_of
from variational_reasoning.pipeline.work.ray_cluster import run_on_ray
from variational_reasoning.pipeline.work.summary import StageSummary


def run(make_job: Callable[[Config], StageJob], config: Config) -> StageSummary:
    """Do what is missing of this process's share of a stage, or all of it on a Ray cluster
    (launcher: ray).

    Args:
        make_job: checks inputs and opens the table; a function that other machines can import.

    Raises: ValueError as make_job does, and when more than the job's fraction of all rows fails.
    """
    job = make_job(config)
    if config.launcher == "ray" and not job.stage.is_complete:
        print(job.title)
        return run_on_ray(make_job, config, job)
    return do_shards(job, share_of(job.stage.shards, job.cost, *own_share(config)))


def own_share(config: Config) -> tuple[int, int]:
    """(index, count) of this process, from `shard` and torchrun's environment. Raises: ValueError
    for a bad RANK.
    """
    index, count = parse_share(config.shard) if config.shard else (0, 1)
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(
            f"RANK is {rank} and WORLD_SIZE {world}; torchrun sets them so that 0 <= RANK < "
            "WORLD_SIZE"
        )
    return index * int(world) + int(rank), count * int(world)
