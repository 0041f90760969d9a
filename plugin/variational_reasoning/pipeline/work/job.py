"""How a stage gets done: by one process, by many that share its shards, or on a Ray cluster (stages
3 to 7).

A stage describes itself as a StageJob: its table on disk, what each unit costs, and how to load
what fills a shard. Processes share without talking to each other. Each computes the same assignment
of shards (the most expensive first, always to the process with the least so far), does its own, and
whoever finds all of them on disk writes the manifest. A process's share comes from `shard=i/n` (a
Slurm array) and from torchrun's RANK and WORLD_SIZE; with both, every array task is divided again.

There is no collective and no lock. A shard takes its name when it is whole,
once, and whoever did it again throws his away, so nothing that is killed or done twice can spoil
the table. Shares of different counts on one folder (0/2 and 1/3) do some shards twice or leave
some; what is left is said, and any later command does it."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from variational_reasoning.pipeline.rows import Stage, read_manifest
from variational_reasoning.pipeline.work.limits import FailureCount, FailureLimit
from variational_reasoning.pipeline.work.summary import StageSummary


class Shard(NamedTuple):
    """What fills one shard: see `Stage.write_shard`."""

    rows: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    dropped: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, Any]] = ()


class ShardFiller(Protocol):
    """A loaded model, or whatever else turns units into rows."""

    def fill(
        self, shards: Iterable[tuple[int, Sequence[str]]], progress: Callable[[int], Any]
    ) -> Iterator[tuple[int, Shard]]:
        """Fill shards, each given as (index, units), and give each when it is done, not always in
        their order.

        Args:
            shards: taken one by one: a worker that can begin the next before the last is done may
                do so.
            progress: called with the number of rows just done, in all with `StageJob.size` of every
                unit.
        """

    def facts(self) -> dict[str, Any]:
        """What the manifest shall say about the computation."""

    def statistics(self) -> dict[str, int]:
        """Counts since the worker was made; `tokens` is the number that a rate is made of."""

    def close(self) -> None:
        """End what the worker has started."""


class ShardByShard(ABC):
    """A ShardFiller that is done with one shard before it takes the next, and has nothing to count
    or to end.
    """

    @abstractmethod
    def fill_one(self, index: int, units: Sequence[str], progress: Callable[[int], Any]) -> Shard:
        """One shard; see `ShardFiller.fill`."""

    def fill(
        self, shards: Iterable[tuple[int, Sequence[str]]], progress: Callable[[int], Any]
    ) -> Iterator[tuple[int, Shard]]:
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

    size: rows that a unit gives, for the bar; cost: what a unit takes, in any one unit.
    title: printed before anything is loaded. row: what the bar counts. limit: on failed rows.
    """

    stage: Stage
    title: str
    row: str
    size: Callable[[str], int]
    cost: Callable[[str], float]
    load: Callable[[], ShardFiller]
    limit: FailureLimit | None = None
    gpus: int = 0


def do_shards(job: StageJob, mine: Set[int]) -> StageSummary:
    """Do what is missing of the shards with these indices, in this process.

    Raises: ValueError when more of the table's rows fail than the job's limit allows.
    """
    stage = job.stage
    failures = FailureCount(stage, job.limit) if job.limit else None
    if failures:
        failures.check()  # of a finished table too: the limit may be lower now
    if stage.is_complete:
        return StageSummary(stage.folder, read_manifest(stage.folder, stage.table), {}, 0.0)
    print(job.title)
    if len(mine) < len(stage.shards):
        print(f"this process does {len(mine)} of {len(stage.shards)} shards")
    sizes = {index: sum(map(job.size, stage.shards[index])) for index in mine}
    found = sum(size for index, size in sizes.items() if stage.has(index))
    worker = job.load()
    done: Counter[str] = Counter()
    started = time.monotonic()
    with closing(worker), tqdm(total=sum(sizes.values()), initial=found, unit=job.row) as bar:
        pending = ((index, units) for index, units in stage.pending() if index in mine)
        for index, shard in worker.fill(pending, bar.update):
            if failures:
                failures.check_shard(shard.rows, shard.failed)
            stage.write_shard(index, *shard)
            done.update(shard.counts)
            rate = worker.statistics().get("tokens", 0) / max(time.monotonic() - started, 1e-9)
            bar.set_postfix_str(f"{rate:.0f} tokens/s" if rate else "", refresh=False)
    return conclude(
        job, worker.facts(), worker.statistics(), dict(done), time.monotonic() - started
    )


def conclude(
    job: StageJob,
    facts: dict[str, Any],
    statistics: dict[str, int],
    counts: dict[str, int],
    seconds: float,
) -> StageSummary:
    """Write the manifest when every shard is there, and say what was done.

    Raises: ValueError when more of the table's rows failed than the job's limit allows.
    """
    missing = sum(1 for _ in job.stage.pending())
    if job.limit and not missing:
        FailureCount(job.stage, job.limit).check()
    manifest = None if missing else job.stage.finish(**facts)
    return StageSummary(job.stage.folder, manifest, statistics, seconds, missing, counts)


def share_of(
    shards: Sequence[Sequence[str]], cost: Callable[[str], float], index: int, count: int
) -> set[int]:
    """Indices of the shards that process `index` of `count` does; the shares of all are disjoint
    and cover everything.
    """
    return share_of_costs([sum(cost(unit) for unit in units) for units in shards], index, count)


def share_of_costs(costs: Sequence[float], index: int, count: int) -> set[int]:
    """The same for anything with a cost: positions in `costs` that process `index` of `count`
    does.
    """
    loads = [0.0] * count
    shares: list[set[int]] = [set() for _ in range(count)]
    for position in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        least = min(range(count), key=lambda i: (loads[i], i))
        shares[least].add(position)
        loads[least] += costs[position]
    return shares[index]
