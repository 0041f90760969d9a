"""The arrangement of one optimizer step's rows in micro-batches and ranks: costs, packing, bounds.

The loss of a step is a sum over its N rows divided by N * C (method.losses). So every arrangement
of these rows has the same gradient, and the fastest one can be chosen. An example with costs equal
to tokens, two ranks, and at most 8 tokens in a micro-batch:

    rows    7  5  4  3  1          20 tokens: 20 / (2 x 8), so two micro-steps, 4 micro-batches
    fill    [7] [5] [4] [3,1]      longest first, each into the micro-batch of the lowest cost
    sort    [7] [5] | [4] [3,1]    neighbors run at the same time, on two ranks
    time    7 + 4 = 11             each micro-step lasts as long as its slower rank
    ideal   20 / 2 = 10            so the imbalance is 1.1

Under ZeRO, ranks wait for each other after every micro-step. So the costs are compared per
micro-step.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

EXTRA_MICRO_STEPS = 2
"""How many micro-steps `arrange` tries in addition to the fewest that the token limit allows."""

WORTH_A_MICRO_STEP = 0.01
"""Share of the time that a further micro-step must save, because each one has a fixed cost."""


@dataclass(frozen=True)
class RowCost:
    """FLOPs of the forward pass over one row. With the backward pass there are three times as many.

    cost = per_token * tokens + per_token_squared * tokens^2 + per_target * targets

    Source: PaLM (arXiv 2204.02311, App. B), which counts 2 FLOPs per weight and token and 4 * width
        FLOPs per layer for each pair of a query and a key. We deviate in two ways: a causal kernel
        computes half of the pairs, and the head runs at targets only. Norms, embeddings and
        rotations are left out.
    """

    per_token: float
    per_token_squared: float
    per_target: float

    def __call__(self, tokens: int, targets: int) -> float:
        """FLOPs of a row of this many tokens and targets."""
        linear = self.per_token * tokens + self.per_target * targets
        return linear + self.per_token_squared * tokens * tokens


def row_cost(config: Any) -> RowCost:
    """The cost of a row for a decoder with the fields of a transformers configuration.

    Args:
        config: hidden_size, num_hidden_layers, num_attention_heads, vocab_size; and, where a model
            has them, head_dim, num_key_value_heads, intermediate_size, and the fields of a mixture
            of experts. Of a mixture, the experts that one token uses are counted. Without a
            feed-forward width, it is four times the hidden size, as in a plain decoder.

    Returns: RowCost in FLOPs. Qwen3-4B has 7.3e9 per token, 2.9e5 per token squared and 7.8e8 per
        target. So in a row of 16,384 tokens, attention costs two thirds of the matrix products.
    """
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None)
    if not head_width:
        head_width = hidden // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    query_and_output = 2 * hidden * heads * head_width
    key_and_value = 2 * hidden * key_value_heads * head_width
    attention = query_and_output + key_and_value
    weights = layers * attention + _feed_forward_weights(config)
    return RowCost(
        per_token=2.0 * weights,
        per_token_squared=2.0 * layers * heads * head_width,
        per_target=2.0 * hidden * config.vocab_size,
    )


def _feed_forward_weights(config: Any) -> int:
    """Weights of all layers' feed-forward parts that one token uses."""
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    # GPT-2 and similar models have two matrices. The gated units of newer models have three.
    matrices = 2 if hasattr(config, "n_inner") else 3
    width = getattr(config, "intermediate_size", None)
    if width is None:
        width = getattr(config, "n_inner", None)
    dense = matrices * hidden * (width or 4 * hidden)
    per_token = getattr(config, "num_experts_per_tok", None)
    if not per_token:
        return layers * dense
    expert_width = getattr(config, "moe_intermediate_size", None) or width
    sparse = matrices * hidden * expert_width * per_token
    return layers * sparse


@dataclass(frozen=True)
class Arrangement:
    """Which rows each rank computes together at each micro-step.

    Attributes:
        micro_steps: micro_steps[m][r] holds the numbers of the rows in the micro-batch of rank r;
            empty for an idle rank. Every rank has the same number of micro-batches. The most
            expensive come first.
        time: sum over micro-steps of the largest cost over ranks.
        total: sum of the costs of all rows.
        bound: the lowest time that any arrangement of these indivisible rows could reach.
    """

    micro_steps: list[list[list[int]]]
    time: float
    total: float
    bound: float

    @property
    def imbalance(self) -> float:
        """Time divided by the time of a perfect split, total / ranks; 1 at best."""
        ranks = len(self.micro_steps[0])
        return self.time * ranks / self.total if self.total else 1.0

    @property
    def above_bound(self) -> float:
        """Time divided by the lower bound; 1 means that no arrangement is faster."""
        return self.time / self.bound if self.bound else 1.0


def arrange(
    tokens: Sequence[int],
    costs: Sequence[float],
    ranks: int,
    token_limit: int,
) -> Arrangement:
    """Spread rows over packs without padding.

    Args:
        tokens: [rows] tokens of each row. costs: [rows] cost of each row, in any unit.
        ranks: processes that compute at the same time.
        token_limit: the most tokens in a micro-batch.

    Returns: an arrangement in which every row is in exactly one micro-batch.
    Raises: ValueError where a row alone exceeds the limit, and for no rows.
    """
    _check(tokens, token_limit)
    order = sorted(range(len(tokens)), key=lambda row: (-costs[row], row))

    def fill(num_batches: int) -> list[list[int]] | None:
        return _fill(order, tokens, costs, num_batches, token_limit)

    def batch_cost(batch: list[int]) -> float:
        return sum(costs[row] for row in batch)

    tokens_per_micro_step = token_limit * ranks
    fewest = math.ceil(sum(tokens) / tokens_per_micro_step)
    return _best(fill, batch_cost, fewest, costs, ranks)


def arrange_padded(
    tokens: Sequence[int],
    costs: Sequence[float],
    ranks: int,
    token_limit: int,
) -> Arrangement:
    """Spread rows over rectangular micro-batches, whose rows are padded to the longest of them.

    This is for models that cannot separate the rows of a pack. Rows of similar length share a
    micro-batch.

    Args, Returns, Raises: as for `arrange`; the limit holds for the padded rectangle.
    """
    _check(tokens, token_limit)
    order = sorted(range(len(tokens)), key=lambda row: (-tokens[row], row))

    def fill(num_batches: int) -> list[list[int]] | None:
        # The smallest rectangle with which the rows still fit: micro-batches of equal area. It is
        # found by bisection, because a larger area never needs more rectangles.
        low = tokens[order[0]]
        high = token_limit
        if len(_cut(order, tokens, high)) > num_batches:
            return None
        while low < high:
            middle = (low + high) // 2
            if len(_cut(order, tokens, middle)) > num_batches:
                low = middle + 1
            else:
                high = middle
        batches = _cut(order, tokens, low)
        while len(batches) < num_batches:
            batches.append([])
        return batches

    def batch_cost(batch: list[int]) -> float:
        # All rows of a rectangle take what its longest row takes.
        largest = max((costs[row] for row in batch), default=0.0)
        return len(batch) * largest

    return _best(fill, batch_cost, 1, costs, ranks)


def lower_bound(costs: Sequence[float], ranks: int) -> float:
    """The lowest time of a step on this many ranks, because rows are indivisible.

    Of the k * ranks + 1 most expensive rows, some rank has at least k + 1. With the costs 9 8 7 on
    two ranks and k = 1, one rank has two of the three rows. That takes at least 8 + 7 = 15,
    although 24 / 2 = 12.
    """
    ordered = sorted(costs, reverse=True)
    bound = sum(ordered) / ranks
    most = (len(ordered) - 1) // ranks
    for k in range(most + 1):
        # The cheapest k + 1 of the k * ranks + 1 most expensive: in the example places 1 and 2.
        stop = k * ranks + 1
        cheapest = ordered[stop - (k + 1) : stop]
        bound = max(bound, sum(cheapest))
    return bound


def _check(tokens: Sequence[int], token_limit: int) -> None:
    if not tokens:
        raise ValueError("an optimizer step has no rows")
    if max(tokens) > token_limit:
        raise ValueError(
            f"a row of {max(tokens)} tokens does not fit a micro-batch of {token_limit} tokens"
        )


def _best(
    fill: Callable[[int], list[list[int]] | None],
    batch_cost: Callable[[list[int]], float],
    fewest: int,
    costs: Sequence[float],
    ranks: int,
) -> Arrangement:
    """The arrangement with the lowest time among the fewest possible micro-steps and a few more.

    Numbers of micro-steps in which the rows do not fit are passed over and do not count as tried.
    """
    best: Arrangement | None = None
    num_steps = fewest
    tried = 0
    while tried <= EXTRA_MICRO_STEPS:
        batches = fill(num_steps * ranks)
        num_steps += 1
        if batches is None:
            continue
        tried += 1
        found = _assign(batches, batch_cost, costs, ranks)
        if best is None or found.time < best.time * (1 - WORTH_A_MICRO_STEP):
            best = found
        # Further micro-steps would be empty.
        if num_steps * ranks > len(costs) + ranks:
            break
    assert best is not None  # one row per micro-batch always fits, see _check
    return best


def _fill(
    order: Sequence[int],
    tokens: Sequence[int],
    costs: Sequence[float],
    num_batches: int,
    token_limit: int,
) -> list[list[int]] | None:
    """Put the most expensive row first, each into the cheapest micro-batch with room.

    Example, rows of 5, 4 and 3 tokens at a cost of the same numbers, two micro-batches of 8:

        row    heap of (cost, micro-batch)    goes into
        5      (0, 0) (0, 1)                  0
        4      (0, 1) (5, 0)                  1
        3      (4, 1) (5, 0)                  1, which has room for 4 more

    Returns: None where a row has no room.
    """
    batches: list[list[int]] = [[] for _ in range(num_batches)]
    room = [token_limit] * num_batches
    by_cost = [(0.0, batch) for batch in range(num_batches)]  # a heap
    for row in order:
        without_room = []
        while by_cost:
            cost, batch = heapq.heappop(by_cost)
            if room[batch] >= tokens[row]:
                break
            without_room.append((cost, batch))
        else:
            return None
        batches[batch].append(row)
        room[batch] -= tokens[row]
        heapq.heappush(by_cost, (cost + costs[row], batch))
        for entry in without_room:
            heapq.heappush(by_cost, entry)
    return batches


def _cut(order: Sequence[int], tokens: Sequence[int], area: int) -> list[list[int]]:
    """Rows from the longest to the shortest, cut into rectangles of at most this area.

    Rows of 5, 4, 3 and 1 tokens and an area of 10 give [5, 4] (2 x 5) and [3, 1] (2 x 3).
    """
    batches: list[list[int]] = []
    for row in order:
        if batches:
            last = batches[-1]
            longest = tokens[last[0]]
            if (len(last) + 1) * longest <= area:
                last.append(row)
                continue
        batches.append([row])
    return batches


def _assign(
    batches: list[list[int]],
    batch_cost: Callable[[list[int]], float],
    costs: Sequence[float],
    ranks: int,
) -> Arrangement:
    """Run micro-batches of neighboring cost at the same time.

    Within a micro-step, the most expensive goes to the rank that has computed the least so far.
    Example, micro-batches that cost 7, 5, 4 and 1 on two ranks:

        micro-step    rank 0    rank 1    loads after it    time
        1             7         5         7, 5              7
        2             1         4         8, 9              7 + 4
    """
    priced = [(batch_cost(batch), batch) for batch in batches]
    priced.sort(key=lambda pair: -pair[0])
    rank_loads = [0.0] * ranks
    micro_steps = []
    time = 0.0
    for start in range(0, len(priced), ranks):
        together = priced[start : start + ranks]
        slowest, _ = together[0]
        time += slowest
        by_load = sorted(range(ranks), key=lambda rank: rank_loads[rank])
        shares: list[list[int]] = [[] for _ in range(ranks)]
        for rank, (cost, batch) in zip(by_load, together, strict=True):
            shares[rank] = batch
            rank_loads[rank] += cost
        micro_steps.append(shares)
    return Arrangement(
        micro_steps,
        time,
        total=sum(costs),
        bound=lower_bound(costs, ranks),
    )
