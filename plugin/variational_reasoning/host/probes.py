"""Tests of a model before the first step: its head, its labels, its packs.

A list of architectures would be out of date with the next release, so the model itself is tested:

    head_is_plain   does it return its head's output unchanged?     one pass over 8 tokens
    added_loss      does it add a term to the loss of its labels?   one pass over 8 tokens
    pack_fault      do the rows of a pack see each other?           three passes over a packed batch

The passes have no gradient and change nothing: random state and buffers are restored. The mode of
the model is not changed either, because 4-bit weights of bitsandbytes change their layout in
evaluation mode.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

PROBE_TOKENS = 8
"""Length of the row in a test of the head or the labels."""

_16_BIT = (torch.float16, torch.bfloat16)

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
    buffers = []
    for buffer in model.buffers():
        before = buffer.detach().clone()
        buffers.append((buffer, before))
    devices = {parameter.device for parameter in model.parameters()}
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    # Without an accelerator there is no state of one to keep, and any type will do.
    kind = accelerators[0].type if accelerators else "cuda"
    with torch.random.fork_rng(accelerators, device_type=kind), torch.no_grad():
        yield
    for buffer, before in buffers:
        buffer.copy_(before)


def head_is_plain(
    model: torch.nn.Module,
    head: torch.nn.Linear,
    inputs: Mapping[str, Any],
) -> bool:
    """Whether the model calls `head` once and returns its output unchanged.

    A model that scales or caps its logits does not. A model with a second head does not either.

    Args:
        model: as it is trained, wrapped or not. inputs: a batch, without labels.
    """
    computed: list[Tensor] = []

    def last_position(hidden: Tensor) -> Tensor:
        logits = linear(hidden[:, -1:], head.weight, head.bias)
        computed.append(logits)
        return logits

    with without_trace(model), tapped(head, last_position):
        returned = model(**short_batch(inputs)).logits
    if len(computed) != 1:
        return False
    expected = computed[0]
    if returned.shape != expected.shape:
        return False
    return torch.equal(returned.to(expected), expected)


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
    loss = getattr(outputs, "loss", None)
    logits = getattr(outputs, "logits", None)
    if loss is None or logits is None:
        return None
    if logits.shape[1] != labels.shape[1]:
        return None
    predictions = logits[0, :-1].float()
    targets = labels[0, 1:]
    nll = cross_entropy(predictions, targets)
    if not (loss.isfinite() and nll.isfinite()):
        return None  # the training reports this, with its rows
    # The loss is computed from the same logits, so it only differs by rounding: that of float32,
    # or of 16-bit numbers in models that do not convert their logits.
    auxiliary = getattr(outputs, "aux_loss", None)
    is_16_bit = logits.dtype in _16_BIT and auxiliary is None
    tolerance = 1e-2 if is_16_bit else 1e-5
    found = loss.item()
    expected = nll.item()
    scale = max(1.0, abs(expected))
    if abs(found - expected) <= tolerance * scale:
        return None
    return f"its loss is {found:.6g} where the cross entropy is {expected:.6g}"


def pack_fault(
    model: torch.nn.Module,
    head: torch.nn.Linear | None,
    inputs: Mapping[str, Any],
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
    border = _border(inputs["position_ids"].tolist())
    # ZeRO-3 gathers weights in each pass, so all processes must make the same passes. A process
    # without a border makes them too, and returns afterwards.
    row, start, stop = border or (0, 1, 2)
    window = slice(start, min(stop, start + COMPARED_POSITIONS))

    before = _computed(model, head, inputs, row, window)
    other_row = _other_row(inputs, row, start)
    with_other_row = _computed(model, head, other_row, row, window)
    other_positions = _other_positions(inputs, row, start)
    with_other_positions = _computed(model, head, other_positions, row, window)
    if border is None:
        return None
    largest = _largest(before)
    change = _largest(with_other_row - before) / largest
    if change > _rounding(model):
        return (
            "a row changes with the tokens of the row before it in the pack "
            f"(by {change.item():.2g} of the largest value), as in layers that are not attention"
        )
    if not torch.equal(with_other_positions, before):
        return None
    alone = _alone(inputs, row, start, stop)
    in_alone = slice(0, window.stop - start)  # its first token is at 0
    from_alone = _computed(model, head, alone, 0, in_alone)
    difference = _largest(from_alone - before)
    if difference > _rounding(model) * largest:
        return (
            "it does not use the position ids, so the rows of a pack have the positions of the pack"
        )
    return None


def _largest(values: Tensor) -> Tensor:
    """The largest value, whatever its sign."""
    return values.abs().max()


def _other_row(inputs: Mapping[str, Any], row: int, start: int) -> dict[str, Any]:
    """The batch with other tokens before the window.

    Example: a b c | d e f g becomes c a b | d e f g. Where neighbors are equal, the rotation
    changes nothing, and the window's first token takes their place: a a b becomes b a a, then
    b d a.
    """
    ids = inputs["input_ids"].clone()
    given = inputs["input_ids"][row, :start]
    rotated = given.roll(1)
    first_of_window = inputs["input_ids"][row, start]
    ids[row, :start] = torch.where(rotated == given, first_of_window, rotated)
    return {**inputs, "input_ids": ids}


def _other_positions(inputs: Mapping[str, Any], row: int, start: int) -> dict[str, Any]:
    """The batch with the second and third position of the window exchanged."""
    positions = inputs["position_ids"].clone()
    exchanged = slice(start + 1, start + 3)
    positions[row, exchanged] = positions[row, exchanged].flip(0)
    return {**inputs, "position_ids": positions}


def _alone(inputs: Mapping[str, Any], row: int, start: int, stop: int) -> dict[str, Tensor]:
    """A batch of the packed row alone."""
    lines = slice(row, row + 1)
    ids = inputs["input_ids"][lines, start:stop]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": inputs["position_ids"][lines, start:stop],
    }


def short_batch(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """One row of text of a few tokens, from the first row of a batch."""
    ids = inputs["input_ids"][:1, :PROBE_TOKENS]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in ("token_type_ids", "mm_token_type_ids"):  # Gemma 3 demands them in training
        if name in inputs:
            batch[name] = torch.zeros_like(ids)
    return batch


def _border(position_ids: list[list[int]]) -> tuple[int, int, int] | None:
    """(row of the batch, start, stop) of a packed row of at least three tokens, not the first.

    [[0, 1, 2, 0, 1, 2, 3, 0, 0]] -> (0, 3, 7); the zeros at the end are padding.
    """
    for row, positions in enumerate(position_ids):
        starts = [index for index, position in enumerate(positions) if position == 0]
        borders = itertools.pairwise([*starts, len(positions)])
        for start, stop in borders:
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
        # The logits are not needed, but the model must get some: those of the last position.
        return linear(hidden[:, -1:], plain.weight, plain.bias)

    with without_trace(model), tapped(plain, record):
        model(**inputs)
    return seen[0]


def _rounding(model: torch.nn.Module) -> float:
    """A relative change that rounding alone may cause: kernels sum in another order."""
    types = {parameter.dtype for parameter in model.parameters()}
    is_16_bit = not types.isdisjoint(_16_BIT)
    is_autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    if is_16_bit or is_autocast:
        return 0.05
    return 1e-4
