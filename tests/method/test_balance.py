"""Arrangements of a step's rows: every row once, no micro-batch over its limit, and how even the
ranks are."""

import itertools
import math
import random
from types import SimpleNamespace

import pytest

from variational_reasoning.method.balance import (
    Arrangement,
    arrange,
    arrange_padded,
    lower_bound,
    row_cost,
)

QWEN3_4B = SimpleNamespace(
    hidden_size=2560,
    num_hidden_layers=36,
    num_attention_heads=32,
    head_dim=128,
    num_key_value_heads=8,
    intermediate_size=9728,
    vocab_size=151936,
)


def lengths(count: int, seed: int) -> list[int]:
    """Tokens of rows as in Bespoke-Stratos: mean 6,000, deviation 0.8 of it, up to 16,384."""
    generator = random.Random(seed)
    sigma = math.sqrt(math.log(1 + 0.8**2))
    mean = math.log(6000) - sigma**2 / 2
    found: list[int] = []
    while len(found) < count:
        length = int(generator.lognormvariate(mean, sigma))
        if 32 <= length <= 16384:
            found.append(length)
    return found


def rows_of(arrangement: Arrangement) -> list[int]:
    batches = itertools.chain.from_iterable(arrangement.micro_steps)
    return sorted(itertools.chain.from_iterable(batches))


def test_the_example_of_the_module():
    found = arrange([7, 5, 4, 3, 1], [7, 5, 4, 3, 1], ranks=2, token_limit=8)
    assert found.micro_steps[0] == [[0], [1]]
    # Rank 1 has computed 5 so far and rank 0 has 7, so the first of the next two goes to rank 1.
    assert found.micro_steps[1] == [[3, 4], [2]]
    assert (found.time, found.total, found.bound) == (11, 20, 10)
    assert found.imbalance == pytest.approx(1.1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("how", [arrange, arrange_padded])
def test_every_row_is_in_one_micro_batch_within_its_limit(how, seed):
    generator = random.Random(seed)
    count, ranks = generator.randint(1, 60), generator.randint(1, 9)
    tokens = [generator.randint(1, 100) for _ in range(count)]
    limit = generator.randint(max(tokens), 300)
    costs = [length + 0.01 * length**2 for length in tokens]
    found = how(tokens, costs, ranks, limit)
    assert rows_of(found) == list(range(count))
    for shares in found.micro_steps:
        assert len(shares) == ranks
        for batch in shares:
            widths = [tokens[row] for row in batch]
            area = len(batch) * max(widths, default=0) if how is arrange_padded else sum(widths)
            assert area <= limit
    assert found.time >= found.bound * (1 - 1e-12) >= found.total / ranks * (1 - 1e-9)
    assert any(batch for batch in found.micro_steps[-1])  # no micro-step is idle on all ranks


@pytest.mark.parametrize(
    ("rows", "ranks", "limit", "each", "mean"),
    [
        (192, 8, 24576, 1.02, 1.005),
        (192, 16, 24576, 1.02, 1.011),
        (192, 8, 16384, 1.04, 1.03),
        (192, 16, 16384, 1.10, 1.07),
        # Few rows cannot be spread evenly, but nothing could be won there.
        (96, 8, 24576, 1.05, 1.02),
        (16, 8, 24576, 3.0, 1.6),
    ],
)
def test_imbalance(rows, ranks, limit, each, mean):
    cost = row_cost(QWEN3_4B)
    found = []
    for seed in range(40):
        tokens = lengths(rows, seed)
        costs = [cost(length, length) for length in tokens]
        found.append(arrange(tokens, costs, ranks, limit))
    imbalances = [arrangement.imbalance for arrangement in found]
    assert max(imbalances) <= each
    assert sum(imbalances) / len(found) <= mean
    if rows == 16:
        assert sum(arrangement.above_bound for arrangement in found) / len(found) <= 1.02


@pytest.mark.parametrize("seed", range(30))
def test_the_lower_bound_holds_for_the_best_of_all_assignments(seed):
    # All ways to give 6 rows to 2 or 3 ranks; time is then at least the largest sum of a rank.
    generator = random.Random(seed)
    costs = [generator.randint(1, 20) for _ in range(6)]
    for ranks in (2, 3):
        best = math.inf
        for owners in itertools.product(range(ranks), repeat=6):
            loads = [0] * ranks
            for cost, owner in zip(costs, owners, strict=True):
                loads[owner] += cost
            best = min(best, max(loads))
        assert lower_bound(costs, ranks) <= best + 1e-9
    assert lower_bound([9, 8, 7], 2) == 15


def test_fewer_rows_than_ranks_leave_ranks_idle():
    found = arrange([5, 3], [5, 3], ranks=4, token_limit=8)
    assert sorted(map(len, found.micro_steps[0])) == [0, 0, 1, 1]
    assert len(found.micro_steps) == 1 and found.imbalance == 5 * 4 / 8
    assert found.above_bound == 1


def test_equal_rows_are_padded_evenly():
    # 8 rows of 10 tokens: one rectangle of 4 rows per rank, although one of 8 rows would fit.
    found = arrange_padded([10] * 8, [1.0] * 8, ranks=2, token_limit=1000)
    assert sorted(map(len, found.micro_steps[0])) == [4, 4] and len(found.micro_steps) == 1


@pytest.mark.parametrize("how", [arrange, arrange_padded])
def test_refusals(how):
    with pytest.raises(ValueError, match="a row of 9 tokens does not fit a micro-batch of 8"):
        how([1, 9], [1, 9], 2, 8)
    with pytest.raises(ValueError, match="no rows"):
        how([], [], 2, 8)


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama", "gpt2", "qwen3_moe"])
def test_the_linear_cost_is_two_flops_per_weight_of_the_model(family):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if family != "gpt2":
        shape |= {"num_key_value_heads": 2, "intermediate_size": 48}
    if family == "qwen3_moe":
        # Every expert is used by every token, so that all weights count.
        shape |= {"num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 16}
    config = AutoConfig.for_model(family, **shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = 0
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() > 1 and "gate.weight" not in name
        if is_matrix and not any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
            weights += parameter.numel()
    cost = row_cost(config)
    assert cost.per_token == 2 * weights
    assert cost.per_target == 2 * 32 * 50
    head_width = getattr(config, "head_dim", None) or 8
    assert cost.per_token_squared == 2 * 3 * 4 * head_width


def test_the_cost_of_qwen3_4b():
    cost = row_cost(QWEN3_4B)
    # Per layer: q and o, k and v, and the three matrices of the feed-forward part.
    assert cost.per_token == 2 * 36 * (2 * 2560 * 4096 + 2 * 2560 * 1024 + 3 * 2560 * 9728)
    assert cost.per_token_squared == 2 * 36 * 32 * 128
    assert cost(2, 1) == 2 * cost.per_token + 4 * cost.per_token_squared + cost.per_target
