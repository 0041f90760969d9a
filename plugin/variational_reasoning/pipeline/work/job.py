"""A stage as shards that one process, many processes or a Ray cluster compute (stages 3 to 7).

A stage describes itself as a StageJob: its table on disk, what each unit costs, and how to load
what fills a shard. Processes do not talk to each other: each computes the same assignment of
shards. The most expensive shard comes first, and always goes to the process with the least so far.
Four shards with costs 5, 4, 3, 3 on two processes:

    shard    cost    process 0    process 1
    0        5       5            0
    1        4       5            4
    2        3       5            7
    3        3       8            7

Each process does its own shards. The one that finds all of them on disk writes the manifest. The
share of a process comes from `shard=i/n` (a Slurm array) and from torchrun's RANK and WORLD_SIZE.
With both, every array task is divided again.

There are no collectives and no locks. A shard only gets its name when it is complete. If two
processes do the same shard, one of the two files is discarded. So a killed process, or work that is
done twice, cannot damage the table. Shares of different counts on one folder (0/2 and 1/3) do some
shards twice or leave some out. The command prints how many are missing, and any later command does
them.
"""

import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import Stage, read_manifest
from variational_reasoning.pipeline.work.limits import FailureCount, FailureLimit
from variational_reasoning.pipeline.work.summary import StageSummary

Progress = Callable[[int], Any]
"""Called with the number of rows that are newly done."""

ShardUnits = tuple[int, Sequence[str]]
"""(index of a shard, its units)."""


class Shard(NamedTuple):
    """The contents of one shard: see `Stage.write_shard`."""

    rows: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    dropped: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, Any]] = ()


class ShardFiller(Protocol):
    """A loaded model, or something else that turns units into rows."""

    def fill(self, shards: Iterable[ShardUnits], progress: Progress) -> Iterator[tuple[int, Shard]]:
        """Fill shards. Yield each with its index when it is done, in any order.

        Args:
            shards: taken one by one. A filler may begin the next shard before the last is done.
            progress: all calls together give the `StageJob.size` of every unit.
        """

    def facts(self) -> dict[str, Any]:
        """What the manifest says about the computation."""

    def statistics(self) -> dict[str, int]:
        """Counts since the filler was made. The rate is computed from `tokens`."""

    def close(self) -> None:
        """End what the filler has started."""


class ShardByShard(ABC):
    """A ShardFiller that finishes one shard before it takes the next.

    It has nothing to count, and nothing to end.
    """

    @abstractmethod
    def fill_one(self, index: int, units: Sequence[str], progress: Progress) -> Shard:
        """One shard; see `ShardFiller.fill`."""

    def fill(self, shards: Iterable[ShardUnits], progress: Progress) -> Iterator[tuple[int, Shard]]:
        """See ShardFiller."""
        for index, units in shards:
            yield index, self.fill_one(index, units, progress)

    def statistics(self) -> dict[str, int]:
        """See ShardFiller."""
        return {}

    def close(self) -> None:  # noqa: B027
        """See ShardFiller."""


@dataclass(frozen=True)
class StageJob:
    """A stage that can be done shard by shard.

    title: printed before anything is loaded.
    row: what the progress bar counts. size: rows that a unit gives, for the bar.
    cost: of a unit, on any scale that is the same for all.
    load: loads what fills the shards. gpus: how many that takes.
    limit: on failed rows.
    is_planned_with: whether later stages plan with the table's summary.
    is_needed_whole: whether no process can go on without the whole table. One that has done its
    share then does what is missing of the others' shares, since it cannot know whether they run.
    """

    stage: Stage
    title: str
    row: str
    size: Callable[[str], int]
    cost: Callable[[str], float]
    load: Callable[[], ShardFiller]
    limit: FailureLimit | None = None
    gpus: int = 0
    is_planned_with: bool = False
    is_needed_whole: bool = False


def do_shards(job: StageJob, mine: Set[int]) -> StageSummary:
    """Do the missing shards among those with these indices, in this process.

    Raises: ValueError when more of the table's rows fail than the job's limit allows.
    """
    stage = job.stage
    failures = None
    if job.limit:
        failures = FailureCount(stage, job.limit)
        failures.check()  # also for a finished table, because the limit may be lower now
    if stage.is_complete:
        manifest = read_manifest(stage.folder, stage.table)
        return StageSummary(stage.folder, manifest, {}, 0.0)
    print(job.title)
    if len(mine) < len(stage.shards):
        print(f"this process does {len(mine)} of {len(stage.shards)} shards")
    order = sorted(mine)
    if job.is_needed_whole:
        order += _shards_of_others(stage, order)
    total, found = _sizes(job, order)
    filler = job.load()  # only now, since loading a model takes minutes
    done: Counter[str] = Counter()
    started = time.monotonic()
    pending = _pending(stage, order)
    with closing(filler), tqdm(total=total, initial=found, unit=job.row) as bar:
        for index, shard in filler.fill(pending, bar.update):
            if failures:
                failures.check_shard(shard.rows, shard.failed)
            stage.write_shard(index, *shard)
            done.update(shard.counts)
            num_tokens = filler.statistics().get("tokens", 0)
            if num_tokens:
                seconds = max(time.monotonic() - started, 1e-9)
                rate = num_tokens / seconds
                bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
    seconds = time.monotonic() - started
    return conclude(job, filler.facts(), filler.statistics(), dict(done), seconds)


def _sizes(job: StageJob, order: Sequence[int]) -> tuple[int, int]:
    """(rows of these shards, rows of those that are on disk), for the bar."""
    total = 0
    found = 0
    for index in order:
        units = job.stage.shards[index]
        size = sum(map(job.size, units))
        total += size
        if job.stage.has(index):
            found += size
    return total, found


def _pending(stage: Stage, order: Sequence[int]) -> Iterator[ShardUnits]:
    """The shards that are not on disk. The disk is asked shard by shard, because other processes go
    on meanwhile.
    """
    for index in order:
        if not stage.has(index):
            yield index, stage.shards[index]


def _shards_of_others(stage: Stage, mine: Sequence[int]) -> list[int]:
    """All shards but these. Every process has another order, so that two rarely do the same one."""
    # The seed is the first shard of the share, which no other process has.
    every = set(range(len(stage.shards)))
    others = sorted(every - set(mine))
    seed = len(others)
    if mine:
        seed = mine[0]
    random.Random(seed).shuffle(others)
    return others


def conclude(
    job: StageJob,
    facts: dict[str, Any],
    statistics: dict[str, int],
    counts: dict[str, int],
    seconds: float,
) -> StageSummary:
    """Write the manifest if every shard is on disk, and return what was done.

    Raises: ValueError when more of the table's rows failed than the job's limit allows.
    """
    stage = job.stage
    num_missing = len(list(stage.pending()))
    manifest = None
    if num_missing == 0:
        if job.limit:
            FailureCount(stage, job.limit).check()
        manifest = stage.finish(**facts)
        if job.is_planned_with:
            # Made here, once, and not by every process of the next stage at the same time.
            _ = TableReader(stage.folder, stage.table, stage.states).summary
    return StageSummary(
        folder=stage.folder,
        manifest=manifest,
        sampled=statistics,
        seconds=seconds,
        missing=num_missing,
        counts=counts,
    )


def share_of(
    shards: Sequence[Sequence[str]], cost: Callable[[str], float], index: int, count: int
) -> set[int]:
    """Indices of the shards that process `index` of `count` does.

    The shares of all processes are disjoint, and together they are all shards.
    """
    costs = [sum(map(cost, units)) for units in shards]
    return share_of_costs(costs, index, count)


def share_of_costs(costs: Sequence[float], index: int, count: int) -> set[int]:
    """Positions in `costs` that process `index` of `count` does; see the example of this module."""
    loads = [0.0] * count
    share = set()
    # Of equal costs the earlier one comes first, so that every process has the same order.
    positions = range(len(costs))
    most_expensive_first = sorted(positions, key=lambda position: (-costs[position], position))
    for position in most_expensive_first:
        least_loaded = loads.index(min(loads))
        loads[least_loaded] += costs[position]
        if least_loaded == index:
            share.add(position)
    return share
