"""Attention within the rows of a pack equals a dense mask, for all models that train on packs."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from variational_reasoning.host import attention
from variational_reasoning.host.attention import (
    PACKABLE,
    ROW_ATTENTION,
    boundaries_of,
    row_attention,
    supports_packs,
    use_row_attention,
)


def dense_mask(lengths: list[int], window: int | None = None) -> torch.Tensor:
    """bool [1, 1, tokens, tokens]: the same row, not after the query, within the window."""
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.arange(sum(lengths))
    distance = position[:, None] - position[None, :]
    mask = (row[:, None] == row[None, :]) & (distance >= 0)
    if window is not None:
        mask &= distance < window
    return mask[None, None]


def test_boundaries():
    assert boundaries_of([3, 2]).tolist() == [[[[0, 3, 5]]]]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(
    "lengths",
    [
        [5],
        [4, 4, 4],
        [7, 6, 6, 2],  # rows of unequal length in one call, padded on the right
        [200, 190, 100, 70, 60, 3, 1],
        [3, 70, 9],  # not sorted
    ],
)
def test_rows_attend_as_under_a_dense_mask(lengths, window):
    torch.manual_seed(0)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    total = sum(lengths)
    shapes = [(1, 4, total, 8), (1, 2, total, 8), (1, 2, total, 8)]
    results = []
    for mask in (boundaries_of(lengths), dense_mask(lengths, window)):
        torch.manual_seed(1)
        tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
        output, weights = row_attention(module, *tensors, mask, sliding_window=window)
        assert weights is None
        (output * torch.arange(total, dtype=torch.float64)[None, :, None, None]).sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_short_rows_share_a_call_and_long_ones_do_not():
    boundaries = boundaries_of([200, 190, 100, 64, 60, 3, 1])
    assert attention._groups(boundaries) == [
        (0, [200, 190]),
        (390, [100]),
        (490, [64, 60, 3, 1]),
    ]
    assert boundaries.row_groups is attention._groups(boundaries)


def tiny(family: str):
    torch.manual_seed(1)
    values = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if family == "gpt2":
        values |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        values |= {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
    if family.endswith("_moe"):
        values |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    if family in ("mistral", "starcoder2"):
        values |= {"sliding_window": 6}
    config = AutoConfig.for_model(family, **values)
    config._attn_implementation = "sdpa"
    return AutoModelForCausalLM.from_config(config).eval()


def packed_inputs(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    positions = [torch.arange(len(row)) for row in rows]
    return {
        "input_ids": torch.cat(rows).unsqueeze(0),
        "position_ids": torch.cat(positions).unsqueeze(0),
    }


@pytest.mark.parametrize("family", PACKABLE)
def test_a_row_in_a_pack_is_computed_as_alone(family):
    model = tiny(family)
    rows = [torch.randint(1, 60, (length,)) for length in (19, 11, 3)]
    with torch.no_grad():
        alone = [model(input_ids=row.unsqueeze(0)).logits[0] for row in rows]
        use_row_attention(model)
        assert model.config._attn_implementation == ROW_ATTENTION
        assert supports_packs(model.config)
        boundaries = boundaries_of([19, 11, 3])
        packed = model(**packed_inputs(rows), attention_mask=boundaries).logits[0]
        padded = torch.stack([torch.nn.functional.pad(row, (0, 19 - len(row))) for row in rows])
        mask = (torch.arange(19) < torch.tensor([19, 11, 3])[:, None]).long()
        batch = model(input_ids=padded, attention_mask=mask).logits
    assert hasattr(boundaries, "row_groups")  # our function has seen it
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)
    # Other batches still take the usual mask.
    for row, expected in zip(batch, alone, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in PACKABLE if family != "gpt2"])
def test_the_boundaries_reach_flash_attention(family, monkeypatch):
    """FlashAttention needs a GPU; a stand-in takes its arguments and computes with a dense mask."""
    model = tiny(family)
    seen = []

    def stand_in(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
        assert attention_mask is None
        ends = kwargs["cu_seq_lens_q"].tolist()
        assert ends == kwargs["cu_seq_lens_k"].tolist() and kwargs["max_length_q"] == 19
        seen.append(ends)
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        mask = dense_mask(lengths, kwargs.get("sliding_window"))
        return row_attention(module, query, key, value, mask, dropout, scaling)

    rows = [torch.randint(1, 60, (length,)) for length in (19, 11, 3)]
    ends = boundaries_of([19, 11, 3]).flatten()
    arguments = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
    arguments |= {"max_length_q": 19, "max_length_k": 19}
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", stand_in)
    with torch.no_grad():
        alone = [model(input_ids=row.unsqueeze(0)).logits[0] for row in rows]
        model.config._attn_implementation = "flash_attention_2"
        assert supports_packs(model.config)
        packed = model(**packed_inputs(rows), **arguments).logits[0]
    assert seen == [[0, 19, 30, 33]] * 2  # once in each layer
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "implementation"),
    [
        ("gemma2", "eager"),
        ("qwen3", "eager"),
        ("qwen2_moe", "sdpa"),
        ("opt", "sdpa"),
        ("gpt2", "flash_attention_2"),
    ],
)
def test_models_that_cannot_train_on_packs(family, implementation):
    config = AutoConfig.for_model(family)
    config._attn_implementation = implementation
    assert not supports_packs(config)
