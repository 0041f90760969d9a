"""Attention within the rows of a pack: no token sees another row.

A pack holds rows one after another, without padding. Example, rows of 3 and 2 tokens:

    input_ids         a0 a1 a2 b0 b1
    position_ids       0  1  2  0  1
    row_boundaries     0        3     5

With FlashAttention the boundaries reach the kernel as `cu_seq_lens_q` and its relatives. Elsewhere
the attention function below runs causal SDPA row by row: a dense block mask would cost the square
of the pack. The boundaries travel to it in the place of the attention mask, as an integer tensor of
shape [1, 1, 1, rows + 1], because transformers hands a mask of four dimensions to the attention
function untouched, in both major versions and under gradient checkpointing.

Rows of similar length share one SDPA call. They are padded on the right, where a causal query never
looks, so the result is exact.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from variational_reasoning.host.bottleneck import (
    DENSE_ROW,
    additive_mask,
    block_mask_of,
    can_share_call,
    dense_mask,
    is_layout,
    line_attention,
    rows_first,
    rows_joined,
)

ROW_ATTENTION = "variational_rows"
"""The name under which `row_attention` is registered with transformers."""

FLEX_ATTENTION = "variational_flex"
"""The name under which `flex_attention` is registered with transformers."""

FLASH = ("flash_attention_2", "flash_attention_3")
"""Implementations that take the boundaries of rows by themselves."""

PACKABLE = (
    "cohere",
    "gemma",
    "glm4",
    "gpt2",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
)
"""Model types that compute a row in a pack as they compute it alone; each is tested.

Others may mix positions outside of attention (Qwen3-Next, LFM2), ignore position ids (OPT), or need
an attention function of their own (Gemma 2, gpt-oss).
"""


def boundaries_of(lengths: list[int]) -> Tensor:
    """The boundaries of a pack's rows in the shape of an attention mask, int32 [1, 1, 1, rows + 1].

    Example: lengths 3 and 2 give 0, 3, 5.
    """
    counts = torch.tensor([0, *lengths], dtype=torch.int32)
    ends = counts.cumsum(0, dtype=torch.int32)
    return ends.view(1, 1, 1, -1)


def supports_packs(config: Any) -> bool:
    """Whether a model of this configuration can train on packs, as it is set up."""
    if hasattr(config, "group_size_ratio"):
        # The host's shift_attn replaces the model's attention.
        return False
    if config._attn_implementation in FLASH:
        # GPT-2 of transformers 4 does not hand the boundaries on to its attention.
        return config.model_type in PACKABLE and config.model_type != "gpt2"
    takes_layouts = config._attn_implementation in ("sdpa", ROW_ATTENTION, FLEX_ATTENTION)
    return config.model_type in PACKABLE and takes_layouts


def use_row_attention(model: torch.nn.Module) -> None:
    """Let a model with SDPA attend row by row where a batch carries boundaries."""
    AttentionInterface.register(ROW_ATTENTION, row_attention)
    # A name without a mask function would get no mask for batches that are not packs.
    AttentionMaskInterface.register(ROW_ATTENTION, sdpa_mask)
    config: Any = model.config
    if config._attn_implementation == "sdpa":
        config._attn_implementation = ROW_ATTENTION


def use_flex_attention(model: torch.nn.Module) -> None:
    """Let a model attend with FlexAttention where a batch carries a layout of the bottleneck."""
    AttentionInterface.register(FLEX_ATTENTION, flex_attention)
    # transformers ignores one without the other. Batches without a layout get SDPA's mask.
    AttentionMaskInterface.register(FLEX_ATTENTION, sdpa_mask)
    config: Any = model.config
    config._attn_implementation = FLEX_ATTENTION


def flex_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """FlexAttention under the bottleneck; transformers' own SDPA for any other batch.

    transformers compiles the kernel once. Padding sees padding, so that no softmax is over nothing.

    Args:
        module: the layer. query: [batch, heads, tokens, width]. key, value: the same with their
            heads. attention_mask: a layout (host.bottleneck), or what SDPA takes.

    Returns: [batch, tokens, heads, width], and None for the attention weights.
    """
    if attention_mask is None or not is_layout(attention_mask):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    # Under autocast the rotation may leave queries and keys in float32; the kernel wants one dtype.
    query = query.to(value.dtype)
    key = key.to(value.dtype)
    mask = block_mask_of(attention_mask, query.shape[2])
    output, _ = flex_attention_forward(
        module, query, key, value, mask, scaling=scaling, dropout=dropout
    )
    return output, None


def flex_fault(config: Any, device: torch.device) -> str | None:
    """Why FlexAttention cannot train a model of this configuration there; None if it can."""
    if device.type == "cpu":
        return (
            "FlexAttention has no backward pass on a CPU; remove the key, and rows are computed "
            "with SDPA"
        )
    for name in ("attention_dropout", "attn_pdrop"):
        share = getattr(config, name, 0.0)
        if share:
            return f"FlexAttention has no dropout, and the model's {name} is {share}; set it to 0"
    return None


def row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row of a pack; transformers' own SDPA for any other batch.

    Args:
        module: the layer. query: [1, heads, tokens, width]. key, value: the same with their heads.
        attention_mask: int32 [1, 1, 1, rows + 1], where rows begin and end; or a layout of rows
            under the bottleneck (host.bottleneck), of any batch; anything else is a mask.
        sliding_window: tokens that a query sees, itself included; None for all before it.

    Returns: [1, tokens, heads, width], and None for the attention weights.
    """
    if attention_mask is None or attention_mask.dtype != torch.int32:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    if is_layout(attention_mask):
        return line_attention(module, query, key, value, attention_mask, dropout, scaling), None
    outputs = []
    # The rows of a call are a batch of its own: [rows, heads, longest, width].
    for start, lengths in _groups(attention_mask):
        row_query = rows_first(query, start, lengths)
        row_key = rows_first(key, start, lengths)
        row_value = rows_first(value, start, lengths)
        mask = _window_mask(lengths[0], sliding_window, query.device)
        output, _ = sdpa_attention_forward(
            module, row_query, row_key, row_value, mask, dropout, scaling
        )
        outputs.append(rows_joined(output, lengths))
    return torch.cat(outputs, dim=1), None


def _groups(boundaries: Tensor) -> list[tuple[int, list[int]]]:
    """(first token, lengths of the rows) for each SDPA call; kept on the tensor for the next layer.

    Consecutive rows share a call. Collation sorts a pack's rows by falling length, so that these
    are rows of similar length. Example, rows of 100, 90 and 20 tokens, boundaries 0 100 190 210:

        (0, [100, 90]), (190, [20])
    """
    if hasattr(boundaries, "row_groups"):
        return boundaries.row_groups
    ends = boundaries.flatten().tolist()
    groups: list[tuple[int, list[int]]] = []
    for start, end in itertools.pairwise(ends):
        length = end - start
        if groups:
            _, lengths = groups[-1]
            if can_share_call(length, longest=lengths[0]):
                lengths.append(length)
                continue
        groups.append((start, [length]))
    setattr(boundaries, "row_groups", groups)  # noqa: B010, a plain assignment has no type
    return groups


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """bool [1, 1, length, length] for a window shorter than the row; None for plain causal.

    Example: with a window of 2, the third of three queries sees the keys 1 and 2, not 0.

        distance     0 -1 -2        seen    1 . .
                     1  0 -1                1 1 .
                     2  1  0                . 1 1
    """
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    is_before = distance >= 0
    is_near = distance < window
    return (is_before & is_near)[None, None]


def bottleneck_fault(config: Any) -> str | None:
    """Why a model of this configuration cannot train under the bottleneck; None if it can."""
    implementation = config._attn_implementation
    name = config.model_type
    if implementation not in ("sdpa", ROW_ATTENTION, "eager", FLEX_ATTENTION):
        return (
            f"{implementation} takes no mask of four dimensions; set `flash_attn: sdpa`, which "
            "calls flash kernels by itself where the mask allows it"
        )
    if name not in PACKABLE:
        return (
            f"{name} may carry what an answer must not see in another way than attention; tested "
            f"are {', '.join(PACKABLE)}"
        )
    if hasattr(config, "group_size_ratio"):
        return "the host's shift_attn replaces the model's attention; remove the key"
    if window := _sliding_window(config):
        return (
            f"{name} has a sliding window of {window} tokens, which would replace the mask; choose "
            "a model without one"
        )
    return None


def _sliding_window(config: Any) -> int | None:
    """The window of a model that uses one in any layer."""
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return None
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return window


def bottleneck_mask(layout: Tensor, tokens: int, implementation: str, dtype: torch.dtype) -> Any:
    """The form of a layout that an attention implementation takes (host.bottleneck).

    Args:
        layout: of the batch, on its device. tokens: of a line, padding included.
        implementation: the model's. dtype: that attention computes in.
    """
    if implementation == FLEX_ATTENTION:
        return layout
    # A short line is one call with a dense mask; a longer one is attended row by row.
    if implementation == ROW_ATTENTION and tokens > DENSE_ROW:
        return layout
    mask = dense_mask(layout, tokens)
    if implementation == "eager":
        return additive_mask(mask, dtype)
    return mask
