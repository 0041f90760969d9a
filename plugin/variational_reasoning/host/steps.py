"""The data loader of balanced optimizer steps: one item is one rank's share of a whole step.

Every rank draws the same N rows (the next N of the shuffled order), arranges them in the same way
(method.balance), and builds only its own micro-batches. No rank needs to ask another. The host's
Trainer sees one batch per optimizer step, so `max_steps`, schedule, epochs and resume count steps
by themselves. Example, 5 rows, rows_per_step 3, two ranks:

    order       3 0 4 | 1 2          the last step takes the rows that are left
    rank 0      [3] | [1]
    rank 1      [0, 4] | [2]

A rank without rows in a micro-step computes a short batch without targets: a loss of zero that is
attached to the graph, so that the collectives of ZeRO and DDP match.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from variational_reasoning.host.attention import FLASH, boundaries_of
from variational_reasoning.host.bottleneck import count_trace_targets, layout_of, rows_of
from variational_reasoning.method.balance import Arrangement, RowCost, arrange, arrange_padded
from variational_reasoning.method.losses import IGNORE_INDEX

IDLE_TOKENS = 8
"""Tokens of the batch without targets that an idle rank computes."""

PAD_MULTIPLE = 8
"""The host's collator pads a training batch to a multiple of this."""


@dataclass(frozen=True)
class StepFacts:
    """What is known of a whole optimizer step on every rank, without communication.

    num_rows: N. num_targets: targets of all rows. num_trace_targets: those of traces, where they
        are counted apart; otherwise 0. tokens: of all rows. positions: that all ranks
        compute, with padding and the batches of idle ranks. time, ideal_time, bound: costs of the
        arrangement as in method.balance, in FLOPs of one rank's forward pass.
    """

    num_rows: int
    num_targets: int
    num_trace_targets: int
    tokens: int
    positions: int
    time: float
    ideal_time: float
    bound: float

    @property
    def useful_share(self) -> float:
        """Tokens of rows in all positions that were computed."""
        return self.tokens / self.positions

    @property
    def imbalance(self) -> float:
        """Time divided by that of a perfect split over the ranks."""
        return self.time / self.ideal_time

    @property
    def least_imbalance(self) -> float:
        """The same for the lower bound, which indivisible rows allow."""
        return self.bound / self.ideal_time

    def __add__(self, other: "StepFacts") -> "StepFacts":
        # All fields are sums over rows or micro-steps, so those of several steps add up.
        totals = {}
        for name in self.__dataclass_fields__:
            totals[name] = getattr(self, name) + getattr(other, name)
        return StepFacts(**totals)


@dataclass(frozen=True)
class Share:
    """One rank's part of a step.

    micro_batches: the data set's rows in each; empty where the rank is idle. spare_row: the row
        whose first tokens an idle rank computes. flops: of this rank's rows, forward and backward.
    """

    micro_batches: tuple[tuple[int, ...], ...]
    spare_row: int
    flops: float
    facts: StepFacts


@dataclass(frozen=True)
class RowTable:
    """What the arrangement needs of every row of a data set: tokens, targets and cost in FLOPs.

    trace_targets: targets of the row's trace, where they are counted apart; otherwise empty.
    """

    tokens: list[int]
    targets: list[int]
    costs: list[float]
    trace_targets: Sequence[int] = ()


def measure_rows(dataset: Dataset, cost: RowCost, has_parts: bool = False) -> RowTable:
    """Lengths and costs of all rows of a tokenized data set, read from its columns.

    Args:
        has_parts: whether targets of traces are counted apart.
    """
    # As Arrow, so that the ids of all rows never become Python objects.
    needed = dataset.select_columns(["input_ids", "row_targets"])
    columns = needed.with_format("arrow")[:]
    input_ids = columns["input_ids"].combine_chunks()
    row_targets = columns["row_targets"].combine_chunks()
    # Examples are not packed here: each has one row, and so one entry in row_targets.
    tokens = input_ids.value_lengths().to_pylist()
    targets = row_targets.flatten().to_pylist()
    costs = list(map(cost, tokens, targets))
    trace_targets: Sequence[int] = ()
    if has_parts:
        trace_targets = _count_traces(dataset)
    return RowTable(tokens, targets, costs, trace_targets)


def _count_traces(dataset: Dataset) -> list[int]:
    """Targets in the trace of each row, as `count_trace_targets` counts them, in blocks of rows.

    Two rows, with x = target: labels . . x x . x | . x, segments 1 0 3 2 | 0 0 2 0.

        targets before each place    0 0 0 1 2 2 3 3 4
        traces begin and end at      1 4 | 6 8            2 - 0 targets, and 4 - 3
    """
    counts: list[int] = []
    columns = dataset.select_columns(["labels", "row_segments"]).with_format("arrow")
    for block in columns.iter(batch_size=1000):
        labels = block["labels"].combine_chunks()
        segments = block["row_segments"].combine_chunks()
        is_target = _numbers(labels.flatten()) != IGNORE_INDEX
        before = np.concatenate([[0], np.cumsum(is_target)])
        lengths = _numbers(labels.value_lengths())
        row_begins = np.cumsum(lengths) - lengths
        x, chain, trace, _ = _numbers(segments.flatten()).reshape(-1, 4).T
        trace_begins = row_begins + x + chain
        trace_ends = trace_begins + trace
        num_targets = before[trace_ends] - before[trace_begins]
        counts += num_targets.tolist()
    return counts


def _numbers(array: Any) -> np.ndarray:
    """An Arrow array of numbers."""
    return array.to_numpy(zero_copy_only=False)


class StepSampler:
    """Yields this rank's Share of every optimizer step of an epoch.

    Args:
        table: of the data set. rows_per_step: N. ranks, rank: of the processes. token_limit: the
            most tokens in a micro-batch. is_packed: packs, or padded rectangles. seed: of the
            shuffled order; None keeps the order of the data set. epoch: tells the current epoch,
            so that a resumed run draws the same order without any state of its own.
    """

    def __init__(
        self,
        table: RowTable,
        rows_per_step: int,
        *,
        rank: int,
        ranks: int,
        token_limit: int,
        is_packed: bool,
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ):
        self.table = table
        self.rows_per_step = rows_per_step
        self.rank = rank
        self.ranks = ranks
        self.token_limit = token_limit
        self.is_packed = is_packed
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        num_rows = len(self.table.tokens)
        return math.ceil(num_rows / self.rows_per_step)

    def __iter__(self) -> Iterator[Share]:
        for rows in self.steps():
            arrangement = self.arrangement(rows)
            yield self.share(rows, arrangement)

    def steps(self) -> Iterator[list[int]]:
        """The rows of each step of the current epoch, the same on every rank."""
        count = len(self.table.tokens)
        order = list(range(count))
        if self.seed is not None:
            # One of its own: all ranks draw the same order, whatever else they draw.
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch())
            order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count, self.rows_per_step):
            yield order[start : start + self.rows_per_step]

    def arrangement(self, rows: Sequence[int]) -> Arrangement:
        """How these rows are spread; its row numbers count within `rows`."""
        tokens = [self.table.tokens[row] for row in rows]
        costs = [self.table.costs[row] for row in rows]
        how = arrange if self.is_packed else arrange_padded
        return how(tokens, costs, self.ranks, self.token_limit)

    def share(self, rows: Sequence[int], arrangement: Arrangement) -> Share:
        """This rank's share of an arranged step.

        Example: the step is of the rows 7 2 9 5, and this rank's numbers are [0, 3] and [1]. Its
        micro-batches are [7, 5] and [2].
        """
        batches = []
        costs = []
        for shares in arrangement.micro_steps:
            batch = tuple(rows[number] for number in shares[self.rank])
            batches.append(batch)
            costs += [self.table.costs[row] for row in batch]
        # The shortest, so that an idle rank computes as little as it can.
        spare_row = min(rows, key=self.table.tokens.__getitem__)
        return Share(
            micro_batches=tuple(batches),
            spare_row=spare_row,
            flops=3 * sum(costs),  # the backward pass takes twice the forward pass
            facts=self.facts(rows, arrangement, spare_row),
        )

    def facts(self, rows: Sequence[int], arrangement: Arrangement, spare_row: int) -> StepFacts:
        """Counts of the whole step, over all ranks."""
        table = self.table
        num_idle = min(IDLE_TOKENS, table.tokens[spare_row])
        positions = 0
        # Over all ranks of all micro-steps; an idle rank computes the beginning of the spare row.
        for batch in itertools.chain.from_iterable(arrangement.micro_steps):
            lengths = [table.tokens[rows[number]] for number in batch]
            positions += self._positions(lengths or [num_idle])
        num_trace_targets = 0
        if table.trace_targets:
            num_trace_targets = sum(table.trace_targets[row] for row in rows)
        num_targets = sum(table.targets[row] for row in rows)
        num_tokens = sum(table.tokens[row] for row in rows)
        return StepFacts(
            num_rows=len(rows),
            num_targets=num_targets,
            num_trace_targets=num_trace_targets,
            tokens=num_tokens,
            positions=positions,
            time=arrangement.time,
            ideal_time=arrangement.total / self.ranks,
            bound=arrangement.bound,
        )

    def _positions(self, lengths: Sequence[int]) -> int:
        """Positions that a micro-batch computes: for rows of 3 and 9 tokens, 12 or 2 x 16."""
        if self.is_packed:
            return sum(lengths)
        padded = math.ceil(max(lengths) / PAD_MULTIPLE) * PAD_MULTIPLE
        return len(lengths) * padded


class MicroBatchSampler:
    """Yields this rank's micro-batches one by one, each as a Share, for an evaluation."""

    def __init__(self, steps: StepSampler):
        self.shares: list[Share] = []
        for share in steps:
            for batch in share.micro_batches:
                alone = replace(share, micro_batches=(batch,))
                self.shares.append(alone)

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Share]:
        return iter(self.shares)


Item = tuple[Share, dict[int, dict[str, Any]]]
"""What the collator gets: a share, and the rows of the data set that it names, by number."""


class StepRows(torch.utils.data.Dataset):
    """A data set that is asked for a Share and answers with it and the rows that it names."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, share: Share) -> Item:
        wanted = {share.spare_row}
        for batch in share.micro_batches:
            wanted.update(batch)
        numbers = sorted(wanted)  # each row is read once, in the order of the file
        rows = self.dataset.__getitems__(numbers)
        return share, dict(zip(numbers, rows, strict=True))


class StepCollator:
    """Builds the tensors of one rank's share of a step.

    Args:
        collator: makes a padded batch of rows, with their weights (host.trainer.RowCollator).
        attention: the model's attention implementation, which decides how a pack's boundaries
            travel; None for padded batches.
    """

    def __init__(self, collator: Any, attention: str | None):
        self.collator = collator
        self.attention = attention

    def __call__(self, item: Item) -> dict[str, Any]:
        """The item of the data loader.

        Returns: micro_batches, a list of the model's inputs with row_weights, row_targets and
            row_names; share; and input_ids and attention_mask of this rank's rows, [1, tokens],
            which the host's token counters read.
        """
        share, rows = item
        micro_batches = []
        token_ids: list[int] = []
        for numbers in share.micro_batches:
            # Copies, because the collator takes columns out of them.
            features = [dict(rows[number]) for number in numbers]
            for feature in features:
                token_ids.extend(feature["input_ids"])
            if not features:
                idle = without_targets(rows[share.spare_row], IDLE_TOKENS)
                features = [idle]
            micro_batches.append(self._micro_batch(features))
        counted = torch.tensor([token_ids], dtype=torch.int64)
        return {
            "input_ids": counted,
            "attention_mask": torch.ones_like(counted),
            "micro_batches": micro_batches,
            "share": share,
        }

    def _micro_batch(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        if self.attention is None:
            return self.collator(features)
        return pack(
            features,
            self.attention,
            self.collator.is_bottleneck,
            self.collator.has_parts,
        )

    def only(self, item: Item) -> dict[str, Any]:
        """The inputs of a share with one micro-batch."""
        return self(item)["micro_batches"][0]


def without_targets(feature: dict[str, Any], max_tokens: int | None = None) -> dict[str, Any]:
    """A copy of a row, or of its first tokens, that adds nothing to the loss and is not in N.

    `row_targets` of -1 is what a place without a row has in a batch.
    """
    copy = dict(feature)
    if max_tokens is not None:
        for name in ("input_ids", "attention_mask", "labels", "position_ids"):
            if name in copy:
                copy[name] = copy[name][:max_tokens]
        if "row_segments" in copy:
            # All of it is prompt, so nothing is blocked.
            num_tokens = len(copy["input_ids"])
            copy["row_segments"] = [num_tokens, 0, 0, 0]
    copy["labels"] = [IGNORE_INDEX] * len(copy["input_ids"])
    # An example that is a pack has an entry for each of its rows.
    copy["row_weights"] = [0.0] * len(feature["row_weights"])
    copy["row_targets"] = [-1] * len(feature["row_targets"])
    return copy


def pack(
    features: list[dict[str, Any]],
    attention: str,
    is_bottleneck: bool = False,
    has_parts: bool = False,
) -> dict[str, Any]:
    """Rows one after another in a batch of one line, longest first, without padding.

    Args:
        features: rows with input_ids, labels (the first of a row is never a target), and lists
            row_weights, row_targets and row_names of one entry. attention: the implementation.
        is_bottleneck: whether answers must not see the chain; rows then have `row_segments`.
        has_parts: whether targets of traces are counted apart; they then have them too.

    Returns: input_ids, labels, position_ids int64 [1, tokens]; row_weights float32, row_targets
        int64 [1, rows]; row_names; and the rows' boundaries, in the place of `attention_mask` or as
        FlashAttention's arguments (host.attention). Under the bottleneck, `row_layout` is in
        their place, and with parts there is row_trace_targets, int64 [1, rows].
    """
    # Rows of similar length become neighbors, which share an attention call (host.attention).
    features = sorted(features, key=lambda feature: -len(feature["input_ids"]))
    lengths = [len(feature["input_ids"]) for feature in features]
    positions = [torch.arange(length) for length in lengths]

    def joined(name: str) -> list[Any]:
        return list(itertools.chain.from_iterable(feature[name] for feature in features))

    def line(name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([joined(name)], dtype=dtype)

    batch: dict[str, Any] = {
        "input_ids": line("input_ids", torch.int64),
        "labels": line("labels", torch.int64),
        "position_ids": torch.cat(positions).unsqueeze(0),
        "row_weights": line("row_weights", torch.float32),
        "row_targets": line("row_targets", torch.int64),
        "row_names": [joined("row_names")],
    }
    if has_parts:
        counts = []
        for feature in features:
            counts += count_trace_targets(feature["labels"], feature["row_segments"])
        batch["row_trace_targets"] = torch.tensor([counts])
    if is_bottleneck:
        rows = rows_of(joined("row_segments"))
        return batch | {"row_layout": layout_of([rows])}
    boundaries = boundaries_of(lengths)
    if attention not in FLASH:
        return batch | {"attention_mask": boundaries}
    ends = boundaries.flatten()
    return batch | {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


class CompletedBatches:
    """The batches of all ranks, completed to full ones with rows that are marked as repeated.

    accelerate gives every rank equally many full batches and repeats rows of the epoch's beginning
    for that. Here they come with a mark, the bitwise complement of their number, so that they can
    be left out of loss and N (MarkedRows). Example, 5 rows, batches of 2, 2 ranks:

        batches of the sampler     0 1 | 2 3 | 4
        completed                  0 1 | 2 3 | 4 ~0 | ~0 ~1    the same number for each rank
    """

    def __init__(self, batch_sampler: Any, ranks: int):
        self.batch_sampler = batch_sampler
        self.sampler = batch_sampler.sampler
        self.batch_size = batch_sampler.batch_size
        self.drop_last = batch_sampler.drop_last
        self.ranks = ranks

    def __len__(self) -> int:
        batches_per_rank = math.ceil(len(self.batch_sampler) / self.ranks)
        return batches_per_rank * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        first: list[int] = []  # the first rows of the epoch, as many as a batch has
        num_batches = 0
        for batch in self.batch_sampler:
            num_missing = self.batch_size - len(first)
            first += batch[: max(0, num_missing)]
            num_batches += 1
            yield batch + self._repeated(first, self.batch_size - len(batch))
        # 3 batches on 2 ranks need one more: -3 % 2 = 1.
        for _ in range(-num_batches % self.ranks):
            yield self._repeated(first, self.batch_size)

    def _repeated(self, rows: list[int], count: int) -> list[int]:
        """So many marked rows; an epoch of one row repeats it."""
        chosen = itertools.islice(itertools.cycle(rows), count)
        return [~row for row in chosen]


class MarkedRows(torch.utils.data.Dataset):
    """A data set that also answers to marked numbers, with rows without targets."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
        # The mark of row 3 is ~3 = -4, and ~-4 is 3 again.
        places = [~number if number < 0 else number for number in numbers]
        rows = list(self.dataset.__getitems__(places))
        for place, number in enumerate(numbers):
            if number < 0:
                rows[place] = without_targets(rows[place])
        return rows
