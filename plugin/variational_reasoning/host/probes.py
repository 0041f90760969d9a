"""Tests of a model before the first step: its head, its labels, its packs.

A list of architectures would be out of date with the next release, so the model itself is tested:

    head_is_plain   does it return its head's output unchanged?     one pass over 8 tokens
    added_loss      does it add a term to the loss of its labels?   one pass over 8 tokens
    pack_fault      do the rows of a pack see each other?           three passes over a packed batch

The passes have no gradient and change nothing: random state and buffers are restored. The mode of
the model is not changed either, because 4-bit weights of bitsandbytes change their layout in
evaluation mode.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PROBE_TOKENS = 8
"""Length of the row in a test of the head or the labels."""

COMPARED_POSITIONS = 8
"""How many positions after the border of two rows are compared. Short convolutions reach fewer."""


@contextmanager
def tapped(head: torch.nn.Linear, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, `head(hidden)` is `forward(hidden)`.

    Hooks on the module, such as ZeRO-3's, still run around it.
    """
    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward


@contextmanager
def without_trace(model: torch.nn.Module) -> Iterator[None]:
    """Disable gradients, and restore random state and buffers at the end."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {parameter.device for parameter in model.parameters()}
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    kind = accelerators[0].type if accelerators else "cuda"
    with torch.random.fork_rng(accelerators, device_type=kind), torch.no_grad():
        yield
    for buffer, before in buffers:
        buffer.copy_(before)


def head_is_plain(model: torch.nn.Module, head: torch.nn.Linear, inputs: Mapping[str, Any]) -> bool:
    """Whether the model calls `head` once and returns its output unchanged.

    A model that scales or caps its logits does not. A model with a second head does not either.

    Args:
        model: as it is trained, wrapped or not. inputs: a batch, without labels.
    """
    seen = []

    def last_position(hidden: Tensor) -> Tensor:
        seen.append(torch.nn.functional.linear(hidden[:, -1:], head.weight, head.bias))
        return seen[-1]

    with without_trace(model), tapped(head, last_position):
        returned = model(**short_batch(inputs)).logits
    if len(seen) != 1 or returned.shape != seen[0].shape:
        return False
    return torch.equal(returned.to(seen[0]), seen[0])


def added_loss(model: torch.nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """What the model adds to the cross entropy when it gets labels, in words; None if nothing.

    It may be a router loss of a mixture of experts, or the loss of a head that predicts further
    tokens.

    Args:
        model: as it is trained, wrapped or not. inputs: a batch, without labels.
    """
    batch = short_batch(inputs)
    labels = batch["input_ids"]
    with without_trace(model):
        outputs = model(**batch, labels=labels)
    loss, logits = getattr(outputs, "loss", None), getattr(outputs, "logits", None)
    if loss is None or logits is None or logits.shape[1] != labels.shape[1]:
        return None
    nll = torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:])
    if not (loss.isfinite() and nll.isfinite()):
        return None  # the training reports this, with its rows
    # The loss is computed from the same logits, so it only differs by rounding: that of float32,
    # or of 16-bit numbers in models that do not convert their logits.
    auxiliary = getattr(outputs, "aux_loss", None)
    is_16_bit = logits.dtype in (torch.float16, torch.bfloat16) and auxiliary is None
    tolerance = 1e-2 if is_16_bit else 1e-5
    found, expected = loss.item(), nll.item()
    if abs(found - expected) <= tolerance * max(1.0, abs(expected)):
        return None
    return f"its loss is {found:.6g} where the cross entropy is {expected:.6g}"


def pack_fault(
    model: torch.nn.Module, head: torch.nn.Linear | None, inputs: Mapping[str, Any]
) -> str | None:
    """Why rows of a pack are not independent in this model, in words; None if they are.

    Two rows are in one pack, a b c | d e f g, with the positions 0 1 2 | 0 1 2 3. The window is
    d e f g. Three batches are compared there:

        batch                   tokens           positions        the window must
        with_other_row          c a b d e f g    0 1 2 0 1 2 3    stay the same
        with_other_positions    a b c d e f g    0 1 2 0 2 1 3    change
        alone                   d e f g          0 1 2 3          stay the same

    The third batch is only needed where the second one changes nothing. Such a model counts
    positions by itself, so the second row begins at position 3. That is harmless if only distances
    matter (ALiBi).

    Args:
        model: as it is trained. head: its head, if it can be tapped; otherwise logits are compared.
        inputs: a packed batch with `position_ids`, without labels.
    """
    if inputs["position_ids"].dim() != 2:
        return None  # of images, which are not packed here
    border = _border(inputs["position_ids"])
    # ZeRO-3 gathers weights in each pass, so all processes must make the same passes. A process
    # without a border makes them too, and returns afterwards.
    row, start, stop = border or (0, 1, 2)
    window = slice(start, min(stop, start + COMPARED_POSITIONS))

    ids = inputs["input_ids"].clone()
    given = inputs["input_ids"][row, :start]
    rotated = given.roll(1)
    # Where neighbors are equal, the rotation changes nothing: a a b becomes b a a, then b d a.
    ids[row, :start] = torch.where(rotated == given, inputs["input_ids"][row, start], rotated)
    positions = inputs["position_ids"].clone()
    positions[row, start + 1 : start + 3] = positions[row, start + 1 : start + 3].flip(0)

    before = _computed(model, head, inputs, row, window)
    other_row = {**inputs, "input_ids": ids}
    with_other_row = _computed(model, head, other_row, row, window)
    other_positions = {**inputs, "position_ids": positions}
    with_other_positions = _computed(model, head, other_positions, row, window)
    if border is None:
        return None
    largest = before.abs().max()
    change = (with_other_row - before).abs().max() / largest
    if change > _rounding(model):
        return (
            "a row changes with the tokens of the row before it in the pack "
            f"(by {change.item():.2g} of the largest value), as in layers that are not attention"
        )
    if not torch.equal(with_other_positions, before):
        return None
    ids = inputs["input_ids"][row : row + 1, start:stop]
    alone = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": inputs["position_ids"][row : row + 1, start:stop],
    }
    from_alone = _computed(model, head, alone, 0, slice(0, window.stop - start))
    if (from_alone - before).abs().max() > _rounding(model) * largest:
        return (
            "it does not use the position ids, so the rows of a pack have the positions of the pack"
        )
    return None


def short_batch(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """One row of text of a few tokens, from the first row of a batch."""
    ids = inputs["input_ids"][:1, :PROBE_TOKENS]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in ("token_type_ids", "mm_token_type_ids"):  # Gemma 3 demands them in training
        if name in inputs:
            batch[name] = torch.zeros_like(ids)
    return batch


def _border(position_ids: Tensor) -> tuple[int, int, int] | None:
    """(row of the batch, start, stop) of a packed row of at least three tokens, not the first.

    [[0, 1, 2, 0, 1, 2, 3, 0, 0]] -> (0, 3, 7); the zeros at the end are padding.
    """
    for row, positions in enumerate(position_ids.tolist()):
        starts = [index for index, position in enumerate(positions) if position == 0]
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
            if start > 0 and stop - start >= 3:
                return row, start, stop
    return None


def _computed(
    model: torch.nn.Module,
    head: torch.nn.Linear | None,
    inputs: Mapping[str, Any],
    row: int,
    window: slice,
) -> Tensor:
    """Hidden states before the head, or logits without one, at `window` of one row of the batch."""
    if head is None:
        with without_trace(model):
            return model(**inputs).logits[row, window].float()
    seen: list[Tensor] = []
    plain = head

    def record(hidden: Tensor) -> Tensor:
        seen.append(hidden[row, window].float())
        return torch.nn.functional.linear(hidden[:, -1:], plain.weight, plain.bias)

    with without_trace(model), tapped(plain, record):
        model(**inputs)
    return seen[0]


def _rounding(model: torch.nn.Module) -> float:
    """A relative change that rounding alone may cause: kernels sum in another order."""
    types = {parameter.dtype for parameter in model.parameters()}
    is_16_bit = bool(types & {torch.float16, torch.bfloat16})
    is_autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    return 0.05 if is_16_bit or is_autocast else 1e-4
