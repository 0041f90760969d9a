"""An answer under the bottleneck sees the verbal chain through the symbols alone."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AttentionInterface

from variational_reasoning.host import attention, bottleneck
from variational_reasoning.host.attention import (
    FLEX_ATTENTION,
    PACKABLE,
    ROW_ATTENTION,
    bottleneck_fault,
    bottleneck_mask,
    flex_attention,
    flex_fault,
    row_attention,
    supports_packs,
    use_flex_attention,
    use_row_attention,
)
from variational_reasoning.host.bottleneck import (
    additive_mask,
    block_mask,
    count_trace_targets,
    dense_mask,
    is_layout,
    layout_of,
    rows_of,
    token_facts,
)
from variational_reasoning.host.steps import pack, without_targets
from variational_reasoning.host.trainer import RowCollator, VariationalTrainer

from .test_attention import tiny

ROW = (9, (2, 4, 7))  # X X C C Z Z Z Y Y
PLAIN = (3, (3, 3, 3))  # X X X, nothing blocked


def table(text: str) -> torch.Tensor:
    """A mask as it is drawn, 1 for a key that is seen."""
    lines = [line.split() for line in text.strip().splitlines()]
    return torch.tensor([[cell == "1" for cell in line] for line in lines])


def naive_mask(rows: list, tokens: int) -> torch.Tensor:
    """The rule, cell by cell: bool [tokens, tokens]."""
    segment_of = ["pad"] * tokens
    row_of = [0] * tokens
    start = 0
    for number, (length, (c_start, c_stop, y_start)) in enumerate(rows, 1):
        for position in range(length):
            row_of[start + position] = number
            segment = "other"
            if c_start <= position < c_stop:
                segment = "C"
            elif position >= y_start:
                segment = "Y"
            segment_of[start + position] = segment
        start += length
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    for query in range(tokens):
        for key in range(query + 1):
            is_blocked = segment_of[query] == "Y" and segment_of[key] == "C"
            mask[query, key] = row_of[query] == row_of[key] and not is_blocked
    return mask


def test_the_layout():
    layout = layout_of([[(7, (2, 4, 6)), (3, (3, 3, 3))], [(4, (1, 2, 3))]])
    assert layout.dtype == torch.int32
    assert layout[0, 0].tolist() == [[0, 7, 10], [2, 10, 0], [4, 10, 0], [6, 10, 0]]
    assert layout[1, 0].tolist() == [[0, 4, 4], [1, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert is_layout(layout)
    assert not is_layout(attention.boundaries_of([3, 2]))
    assert not is_layout(dense_mask(layout, 10)) and not is_layout(None)


def test_the_mask_of_two_packed_rows_and_padding():
    # X C Z Z Y Y | X X C Z Y, and a token of padding.
    rows = [(6, (1, 2, 4)), (5, (2, 3, 4))]
    layout = layout_of([rows])
    expected = table("""
        1 . . . . . . . . . . .
        1 1 . . . . . . . . . .
        1 1 1 . . . . . . . . .
        1 1 1 1 . . . . . . . .
        1 . 1 1 1 . . . . . . .
        1 . 1 1 1 1 . . . . . .
        . . . . . . 1 . . . . .
        . . . . . . 1 1 . . . .
        . . . . . . 1 1 1 . . .
        . . . . . . 1 1 1 1 . .
        . . . . . . 1 1 . 1 1 .
        . . . . . . . . . . . 1
    """)
    assert torch.equal(dense_mask(layout, 12)[0, 0], expected)
    assert torch.equal(naive_mask(rows, 12), expected)
    row, in_c, in_y = token_facts(layout, 12)
    assert row[0].tolist() == [1] * 6 + [2] * 5 + [0]
    assert in_c[0].nonzero().flatten().tolist() == [1, 8]
    assert in_y[0].nonzero().flatten().tolist() == [4, 5, 10]


def random_lines(batch: int, longest: int) -> list:
    lines = []
    for _ in range(batch):
        rows = []
        for _ in range(int(torch.randint(1, 5, ()))):
            cuts = torch.randint(1, longest, (4,)).sort().values.tolist()
            c_start, c_stop, y_start, length = cuts
            rows.append((length, (c_start, c_stop, y_start)))
        lines.append(rows)
    return lines


def line_length(rows: list) -> int:
    return sum(length for length, _ in rows)


@pytest.mark.parametrize("seed", range(20))
def test_random_lines_against_the_rule(seed):
    torch.manual_seed(seed)
    lines = random_lines(3, 12)
    tokens = max(map(line_length, lines)) + 2
    masks = dense_mask(layout_of(lines), tokens)
    for rows, mask in zip(lines, masks, strict=True):
        assert torch.equal(mask[0], naive_mask(rows, tokens))


MODULE = SimpleNamespace(num_key_value_groups=2, is_causal=True, training=False)


def attend(function, mask, tensors: list, weight: torch.Tensor) -> list[torch.Tensor]:
    """What an attention function gives, and the gradients of its inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    output, _ = function(MODULE, *leaves, mask, scaling=0.3)
    (output * weight).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def eager(module, query, key, value, mask, scaling):
    key, value = (tensor.repeat_interleave(2, 1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * scaling + mask
    return (scores.softmax(-1) @ value).transpose(1, 2), None


@pytest.mark.parametrize("dense_row", [0, 16, 256])
@pytest.mark.parametrize("seed", range(4))
def test_all_forms_attend_alike(monkeypatch, seed, dense_row):
    """float32, forward and backward: dense SDPA, eager with an additive mask, two calls per row."""
    monkeypatch.setattr(bottleneck, "DENSE_ROW", dense_row)
    torch.manual_seed(seed)
    lines = random_lines(2, 30)
    tokens = max(map(line_length, lines)) + 3
    layout = layout_of(lines)
    tensors = [torch.randn(2, heads, tokens, 8) for heads in (4, 2, 2)]
    # Padding is not compared: nothing reads it.
    is_token = token_facts(layout, tokens)[0] > 0
    weight = torch.randn(2, tokens, 4, 8) * is_token[:, :, None, None]
    mask = dense_mask(layout, tokens)
    reference = attend(row_attention, mask, tensors, weight)
    forms = {
        "layout": attend(row_attention, layout, tensors, weight),
        "additive": attend(eager, additive_mask(mask, torch.float32), tensors, weight),
    }
    for name, found in forms.items():
        found[0] = found[0] * is_token[:, :, None, None]
        expected = [reference[0] * is_token[:, :, None, None], *reference[1:]]
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("heads", [(4, 2, 2), (6, 3, 3)])
def test_flex_attention_attends_alike(unfused_flex, heads):
    """Forward and backward, unfused: the kernel of a GPU has none on a CPU."""
    torch.manual_seed(0)
    lines = [[(20, (3, 9, 14)), (7, (1, 3, 5))], [(25, (2, 20, 23))]]
    layout = layout_of(lines)
    tensors = [torch.randn(2, count, 29, 8) for count in heads]
    is_token = (token_facts(layout, 29)[0] > 0)[:, :, None, None]
    weight = torch.randn(2, 29, heads[0], 8) * is_token
    ours = attend(flex_attention, layout, tensors, weight)
    theirs = attend(row_attention, dense_mask(layout, 29), tensors, weight)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert unfused_flex.calls == 1


def test_flex_attention_in_a_model(unfused_flex):
    """A batch with a layout, one without; one BlockMask for all layers; and queries in float32 next to values in bf16."""
    model = tiny("qwen3")
    layout = layout_of([[(16, (4, 9, 12))]])
    ids = torch.randint(1, 60, (16,))
    padding = torch.tensor([[1] * 12 + [0] * 4])
    expected = [logits_of(model, ids, mask) for mask in (dense_mask(layout, 16), padding)]
    use_flex_attention(model)
    assert supports_packs(model.config) and bottleneck_fault(model.config) is None
    mask = bottleneck_mask(layout, 16, FLEX_ATTENTION, torch.float32)
    torch.testing.assert_close(logits_of(model, ids, mask), expected[0], rtol=1e-5, atol=1e-5)
    made = mask.block_mask
    calls = unfused_flex.calls
    assert calls == model.config.num_hidden_layers
    found = logits_of(model, ids, padding)
    torch.testing.assert_close(found[:12], expected[1][:12], rtol=1e-5, atol=1e-5)
    assert unfused_flex.calls == calls  # SDPA
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert logits_of(model, ids, mask).isfinite().all()
    assert mask.block_mask is made


def test_models_and_machines_without_flex_attention():
    config = tiny("qwen3").config
    assert "no backward pass on a CPU; remove the key" in flex_fault(config, torch.device("cpu"))
    assert flex_fault(config, torch.device("cuda")) is None
    config.attention_dropout = 0.1
    message = "FlexAttention has no dropout, and the model's attention_dropout is 0.1; set it to 0"
    assert flex_fault(config, torch.device("cuda")) == message


def test_a_row_of_padding_is_finite_in_every_form_and_dtype():
    layout = layout_of([[(5, (1, 2, 4))], [(0, (0, 0, 0))]])
    mask = dense_mask(layout, 8)
    assert mask.any(-1).all()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        additive = additive_mask(mask, dtype)
        assert additive.dtype == dtype and additive.isfinite().all()
        assert additive.softmax(-1).isfinite().all()
    # What the dtype is chosen for: float32's minimum is not a number of bf16.
    assert additive_mask(mask, torch.float32).to(torch.bfloat16).isinf().any()
    tensors = [torch.randn(2, heads, 8, 8, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    for form in (mask, layout):
        output, _ = row_attention(MODULE, *tensors, form, scaling=0.3)
        assert output.isfinite().all()


def logits_of(model, ids: torch.Tensor, mask) -> torch.Tensor:
    """Float logits [length, vocabulary] of one row."""
    with torch.no_grad():
        return model(input_ids=ids.unsqueeze(0), attention_mask=mask).logits[0]


WITHOUT_WINDOW = [family for family in PACKABLE if family not in ("mistral", "starcoder2")]
FORMS = ("dense", "layout")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", WITHOUT_WINDOW)
def test_canaries(family, form, monkeypatch):
    """What C holds reaches Y through Z, and in no other way."""
    if form == "layout":
        monkeypatch.setattr(attention, "DENSE_ROW", 0)
        monkeypatch.setattr(bottleneck, "DENSE_ROW", 0)
    model = tiny(family)
    assert bottleneck_fault(model.config) is None
    use_row_attention(model)
    length, (c_start, c_stop, y_start) = 16, (4, 9, 12)
    ids = torch.randint(1, 60, (length,))
    other = ids.clone()
    other[c_start:c_stop] = (ids[c_start:c_stop] + 7) % 59 + 1

    def answers(layout) -> list[torch.Tensor]:
        mask = bottleneck_mask(layout, length, ROW_ATTENTION, torch.float32)
        assert is_layout(mask) == (form == "layout")
        return [logits_of(model, each, mask)[y_start:] for each in (ids, other)]

    # Y's logits move, through Z.
    before, after = answers(layout_of([[(length, (c_start, c_stop, y_start))]]))
    assert (before - after).abs().max() > 1e-4
    # Z cut off from C as well: bit-identical.
    before, after = answers(layout_of([[(length, (c_start, c_stop, c_stop))]]))
    if family == "qwen3_moe":  # an expert's product is over the tokens that chose it
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(before, after)
    # Without the mask, C is seen.
    before, after = answers(layout_of([[(length, (length, length, length))]]))
    assert (before - after).abs().max() > 1e-4


def test_without_symbols_nothing_of_the_chain_reaches_the_answer():
    model = tiny("qwen3")
    use_row_attention(model)
    mask = dense_mask(layout_of([[(12, (3, 8, 8))]]), 12)
    ids = torch.randint(1, 60, (12,))
    other = ids.clone()
    other[3:8] = ids[3:8] % 59 + 1
    assert torch.equal(logits_of(model, ids, mask)[8:], logits_of(model, other, mask)[8:])


@pytest.mark.parametrize("form", FORMS)
def test_the_answers_loss_trains_the_chain(form, monkeypatch):
    """The gradient of the answer's loss with respect to C's embeddings is not zero."""
    if form == "layout":
        monkeypatch.setattr(attention, "DENSE_ROW", 0)
        monkeypatch.setattr(bottleneck, "DENSE_ROW", 0)
    model = tiny("qwen3")
    use_row_attention(model)
    ids = torch.randint(1, 60, (1, 16))
    layout = layout_of([[(16, (4, 9, 12))]])
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    mask = bottleneck_mask(layout, 16, ROW_ATTENTION, torch.float32)
    logits = model(inputs_embeds=embedded, attention_mask=mask).logits
    torch.nn.functional.cross_entropy(logits[0, 12:-1], ids[0, 13:]).backward()
    assert embedded.grad[0, 4:9].abs().sum(-1).gt(0).all()


def test_it_equals_a_cache_from_which_the_chain_was_evicted():
    """[X C Z] is read, C's keys and values are dropped, and Y goes on at unchanged positions."""
    from transformers import DynamicCache

    model = tiny("qwen3")
    ids = torch.randint(1, 60, (1, 16))
    layout = layout_of([[(16, (4, 9, 12))]])
    masked = logits_of(model, ids[0], dense_mask(layout, 16))
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=ids[:, :12], past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys = torch.cat([layer.keys[:, :, :4], layer.keys[:, :, 9:]], dim=2)
            layer.values = torch.cat([layer.values[:, :, :4], layer.values[:, :, 9:]], dim=2)
        positions = torch.arange(12, 16)
        answer = model(
            input_ids=ids[:, 12:],
            past_key_values=cache,
            position_ids=positions[None],
            cache_position=torch.arange(7, 11),
        ).logits[0]
    torch.testing.assert_close(answer, masked[12:], rtol=1e-5, atol=1e-5)


def test_two_plain_passes_are_something_else():
    """Y over [X Z Y] with Z read again without C: no gradient reaches C, and the logits differ."""
    model = tiny("qwen3")
    ids = torch.randint(1, 60, (16,))
    masked = logits_of(model, ids, dense_mask(layout_of([[(16, (4, 9, 12))]]), 16))
    again = torch.cat([ids[:4], ids[9:]])
    positions = torch.cat([torch.arange(4), torch.arange(9, 16)])
    # Non-contiguous positions would be taken for a pack's, so the mask is given.
    causal = torch.ones(11, 11, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        second = model(input_ids=again[None], position_ids=positions[None], attention_mask=causal)
    assert (second.logits[0, 7:] - masked[12:]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("family", "implementation", "message"),
    [
        ("qwen3", "flash_attention_2", "flash_attention_2 takes no mask of four dimensions"),
        ("qwen3", "flash_attention_3", "flash_attention_3 takes no mask of four dimensions"),
        ("mistral", "sdpa", "sliding window of 6 tokens"),
        ("starcoder2", "sdpa", "sliding window of 6 tokens"),
        ("opt", "sdpa", "opt may carry what an answer must not see"),
    ],
)
def test_models_that_are_refused(family, implementation, message):
    config = tiny(family).config
    config._attn_implementation = implementation
    assert message in bottleneck_fault(config)


def test_transformers_hands_every_form_to_the_attention_untouched(monkeypatch):
    seen = []

    def record(module, query, key, value, attention_mask, *args, **kwargs):
        seen.append(attention_mask)
        return query.transpose(1, 2).contiguous(), None

    model = tiny("qwen3")
    use_row_attention(model)
    monkeypatch.setitem(AttentionInterface._global_mapping, ROW_ATTENTION, record)
    layout = layout_of([[(16, (4, 9, 12))]])
    for form in (layout, dense_mask(layout, 16), block_mask(layout, 16)):
        logits_of(model, torch.randint(1, 60, (16,)), form)
        assert seen[-1] is form and seen[-2] is form


def example(segments: list[int], weight: float = 1.0) -> dict:
    """A row of made-up ids: begin, separator, X and C have no label."""
    x, chain, trace, answer = segments
    ids = list(range(5, 5 + sum(segments)))
    labels = list(ids)
    silent = [*range(x + chain + 1), x + chain + trace]
    for position in silent:
        if position < len(labels):
            labels[position] = -100
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": labels,
        "row_weights": [weight],
        "row_targets": [sum(label != -100 for label in labels)],
        "row_names": ["a"],
        "row_segments": segments,
    }


def test_segments_of_rows_and_targets_of_their_traces():
    assert rows_of([2, 2, 2, 1]) == [(7, (2, 4, 6))]
    assert rows_of([2, 2, 2, 1, 3, 0, 0, 0]) == [(7, (2, 4, 6)), (3, (3, 3, 3))]
    row = example([2, 3, 4, 3])  # begin z z e | sep y end
    assert count_trace_targets(row["labels"], row["row_segments"]) == [3]
    both = row["labels"] + example([1, 1, 2, 2])["labels"]
    assert count_trace_targets(both, [2, 3, 4, 3, 1, 1, 2, 2]) == [3, 1]


def test_a_pack_carries_a_layout():
    rows = [example([1, 1, 2, 2]), example([2, 3, 4, 3])]
    batch = pack(rows, ROW_ATTENTION, is_bottleneck=True, has_parts=True)
    assert "attention_mask" not in batch
    assert torch.equal(batch["row_layout"], layout_of([[(12, (2, 5, 9)), (6, (1, 2, 4))]]))
    assert batch["row_trace_targets"].tolist() == [[3, 1]]
    assert batch["row_targets"].tolist() == [[5, 2]]
    plain = pack(rows, ROW_ATTENTION)
    assert "row_layout" not in plain and "row_trace_targets" not in plain


def test_the_row_of_an_idle_rank_hides_nothing():
    row = without_targets(example([2, 3, 4, 3]), 8)
    assert row["row_segments"] == [8, 0, 0, 0] and len(row["input_ids"]) == 8
    batch = pack([row], ROW_ATTENTION, is_bottleneck=True, has_parts=True)
    assert batch["row_trace_targets"].tolist() == [[0]]
    assert dense_mask(batch["row_layout"], 8)[0, 0].equal(torch.ones(8, 8).tril().bool())


def test_a_padded_batch_carries_a_layout_and_counts_its_tokens():
    def pad(features):
        width = 16
        ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in features]
        # The host's collator for packs makes a mask of four dimensions.
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.zeros(2, 1, 16, 16)}

    rows = [example([2, 3, 4, 3]), example([1, 1, 2, 2])]
    batch = RowCollator(pad, is_bottleneck=True, has_parts=True)(rows)
    assert batch["attention_mask"].sum() == 18
    assert batch["attention_mask"].sum(1).tolist() == [12, 6]
    assert torch.equal(batch["row_layout"], layout_of([[(12, (2, 5, 9))], [(6, (1, 2, 4))]]))
    assert batch["row_trace_targets"].tolist() == [[3], [1]]


@pytest.mark.parametrize(
    ("implementation", "tokens", "expected"),
    [
        ("eager", 300, torch.bfloat16),
        (ROW_ATTENTION, 256, torch.bool),
        (ROW_ATTENTION, 257, torch.int32),
        ("sdpa", 300, torch.bool),
    ],
)
def test_the_form_that_an_implementation_takes(implementation, tokens, expected):
    layout = layout_of([[(20, (3, 9, 14))]])
    assert bottleneck_mask(layout, tokens, implementation, torch.bfloat16).dtype == expected


def test_deepspeeds_cast_does_not_touch_the_mask():
    """It casts every floating tensor of a batch; the mask is made after it."""
    trainer = VariationalTrainer.__new__(VariationalTrainer)
    trainer.args = SimpleNamespace(device=torch.device("cpu"), past_index=-1)
    trainer.is_deepspeed_enabled = True
    ds_config = SimpleNamespace(dtype=lambda: torch.bfloat16)
    plugin = SimpleNamespace(hf_ds_config=ds_config)
    model = tiny("qwen3").to(torch.bfloat16)
    state = SimpleNamespace(deepspeed_plugin=plugin)
    trainer.accelerator = SimpleNamespace(state=state, unwrap_model=lambda model: model)
    trainer.model = model
    for implementation, dtype in (("eager", torch.bfloat16), (ROW_ATTENTION, torch.bool)):
        model.config._attn_implementation = implementation
        batch = {
            "input_ids": torch.arange(1, 17)[None],
            "row_weights": torch.ones(1, 1),
            "row_layout": layout_of([[(12, (4, 8, 10))]]),
        }
        mask = trainer._prepare_inputs(batch)["attention_mask"]
        assert mask.dtype == dtype and mask.shape == (1, 1, 16, 16)
        if implementation == "eager":
            assert mask.isfinite().all()
            assert model(input_ids=batch["input_ids"], attention_mask=mask).logits.isfinite().all()
