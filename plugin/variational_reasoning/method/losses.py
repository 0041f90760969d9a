"""Weighted Dr. SFT (App. C) and its token cross entropy, without the logits of a whole sequence.

Stages 1, 2 and 9.

One optimizer step over N data rows has the loss

    loss = 1/N * sum_i w_i * sum_t CE(i, t) / C

with C = constant_loss_normalizer, in target tokens per row. The rows may be split in any way over
micro-batches, packs and ranks. A micro-batch only contributes the sum `sum_i w_i sum_t CE(i, t)`;
the division by N * C happens once, in `dr_sft_loss`.

The sum is computed from the hidden states in chunks of target positions. As in fused-loss kernels,
the gradients of hidden states and head are formed in the forward pass, while the chunk's
probabilities are there, and only scaled in the backward pass. That is also what makes it fit
ZeRO-3, where the head's weight is whole only inside the head's own forward.

The head's gradient is summed in float32 also where the head is bf16 (DeepSpeed, pure bf16). From
the forward to the backward pass this takes 4 bytes per value of the head in place of 2: 1.45 GiB in
place of 0.72 GiB for Qwen3-4B (151,936 x 2,560).
"""

from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a position that is not a target."""

CHUNK_BYTES = 256 * 2**20
"""Size of one chunk of float32 logits; 441 positions at a vocabulary of 151,936.

Larger chunks are not faster and take more memory."""


def target_mask(labels: Tensor) -> Tensor:
    """Positions whose next token is a target: True at [b, t] when labels[b, t + 1] counts.

    Args:
        labels: [batch, length] ids, IGNORE_INDEX where there is no loss.

    Returns: bool [batch, length - 1], to be applied to hidden[:, :-1] and labels[:, 1:].
    """
    return labels[:, 1:] != IGNORE_INDEX


def trace_targets(row_targets: Tensor, row_trace_targets: Tensor) -> Tensor:
    """Which targets are a trace's, bool [targets]; each row's come first among its own.

    Args:
        row_targets: [rows] targets of each row; negative where there is no row.
        row_trace_targets: [rows] how many of them are the trace's.

    Example: rows of 3 and 2 targets with 2 and 1 of the trace.

        place                 0 1 2  3 4
        start of its row      0 0 0  3 3
        place in its row      0 1 2  0 1
        targets of a trace    2 2 2  1 1
        result                1 1 0  1 0
    """
    counts = row_targets.clamp(min=0)
    starts = counts.cumsum(0) - counts
    place = torch.arange(int(counts.sum()), device=counts.device)
    place_in_row = place - starts.repeat_interleave(counts)
    return place_in_row < row_trace_targets.repeat_interleave(counts)


def weighted_nll_from_logits(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    in_trace: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum and plain sum of the cross entropies, from full logits: the reference, and the
    path for models whose head does more than a matrix product.

    Args:
        logits: [targets, vocabulary], any floating dtype; computed in float32 or wider.
        targets: [targets] ids.
        weights: [targets] weight of the row that the target belongs to.
        in_trace: bool [targets], to have the plain sum apart for these and all others; None for
            one sum.

    Returns: (sum_t w_t CE_t with gradient, sum_t CE_t without), in nats. The second is [2] with
        `in_trace`.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weighted = (nll * weights.to(nll.dtype)).sum()
    return weighted, _plain_sums(nll.detach(), in_trace)


def _plain_sums(nll: Tensor, in_trace: Tensor | None) -> Tensor:
    """The sum, or [sum in the trace, sum of the others]."""
    if in_trace is None:
        return nll.sum()
    of_traces = nll * in_trace
    of_others = nll * ~in_trace
    return torch.stack([of_traces.sum(), of_others.sum()])


def weighted_nll_from_hidden(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    head_bias: Tensor | None = None,
    chunk_tokens: int | None = None,
    in_trace: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same two sums from hidden states, with the logits of `chunk_tokens` positions at a time.

    Exact: each chunk's softmax is computed in float32 (float64 for float64 inputs) over the whole
    vocabulary. The matrix products run in the dtype of `hidden`, or in autocast's where it is on,
    as the model's own head would.

    Args:
        hidden: [targets, width] last hidden states at the positions before each target.
        head_weight: [vocabulary, width]; no gradient is formed for it where it is frozen.
        targets: [targets] ids.
        weights: [targets] weight of the row that the target belongs to.
        head_bias: [vocabulary] or None.
        chunk_tokens: positions per chunk; by default as many as fit CHUNK_BYTES.
        in_trace: bool [targets], to have the plain sum apart for these and all others.

    Returns: (sum_t w_t CE_t with gradient, sum_t CE_t without), in nats. With no targets, zero
        attached to the graph. The second is [2] with `in_trace`.
    """
    if chunk_tokens is None:
        bytes_per_token = 4 * head_weight.shape[0]
        chunk_tokens = max(1, CHUNK_BYTES // bytes_per_token)
    return _ChunkedWeightedNLL.apply(
        hidden,
        head_weight,
        head_bias,
        targets,
        weights,
        chunk_tokens,
        in_trace,
    )


def dr_sft_loss(
    weighted_nll: Tensor,
    num_rows: int | Tensor,
    constant_loss_normalizer: float,
) -> Tensor:
    """sum_i w_i sum_t CE(i, t) / (N * C): the only place where the loss is divided.

    Args:
        weighted_nll: the sum over any part of an optimizer step's rows, in nats.
        num_rows: N, data rows of the whole optimizer step, over all ranks; rows of weight 0 count.
        constant_loss_normalizer: C, in target tokens per row.

    Source: arXiv 2509.22637, App. C (Dr. SFT), with row weights.
    """
    return weighted_nll / (num_rows * constant_loss_normalizer)


def auto_constant_loss_normalizer(weights: Tensor, target_tokens: Tensor) -> float:
    """C = mean(w) * mean(target tokens) over the rows of a training set.

    With weights that sum to one over the K traces of a question, one step then equals the paper's
    mean over questions of sum_k rho~_k CE_k / (average response length).

    Args:
        weights: [rows]. target_tokens: [rows], the labels that are not ignored.

    Raises: ValueError when there are no rows, or C would not be positive.
    Source: arXiv 2509.22637, App. C.
    """
    if weights.numel() == 0:
        raise ValueError("the training set has no rows, so there is no average response length")
    mean_weight = weights.double().mean().item()
    mean_target_tokens = target_tokens.double().mean().item()
    normalizer = mean_weight * mean_target_tokens
    if not normalizer > 0:
        raise ValueError(
            f"mean weight x mean target tokens is {normalizer}; all weights or all responses "
            "are zero"
        )
    return normalizer


class _ChunkedWeightedNLL(torch.autograd.Function):
    """The sums of `weighted_nll_from_hidden`, and their gradients in the same pass.

    For a target y with the scores s (its logits), the weight w and p = softmax(s),

        CE = log sum_v exp(s_v) - s_y         d(w CE) / ds_v = w p_v, less w where v = y

    Example, scores 0 and log 3 with y = 0 and w = 2: p = 1/4 and 3/4, CE = log 4, and the gradient
    is 2 (1/4 - 1) = -1.5 and 2 (3/4) = 1.5.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        head_bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        chunk_tokens: int,
        in_trace: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device
        compute_dtype = hidden.dtype
        if torch.is_autocast_enabled(device.type):
            compute_dtype = torch.get_autocast_dtype(device.type)
        sum_dtype = torch.float64 if compute_dtype == torch.float64 else torch.float32
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # The dtypes are chosen here, and autocast must not choose others.
        with torch.autocast(device.type, enabled=False):
            inputs = hidden.detach().to(compute_dtype)
            head = head_weight.detach().to(compute_dtype)
            weights = weights.to(sum_dtype)
            grad_hidden = None
            if needs_hidden:
                grad_hidden = torch.zeros_like(inputs)
            # In float32 for a bf16 head: a sum in bf16 rounds away what later chunks add.
            grad_weight = None
            if needs_weight:
                grad_weight = torch.zeros_like(head_weight, dtype=sum_dtype)
            grad_bias = None
            if head_bias is not None and needs_bias:
                grad_bias = torch.zeros_like(head_bias, dtype=sum_dtype)
            weighted = torch.zeros((), dtype=sum_dtype, device=device)
            plain_shape = () if in_trace is None else (2,)
            plain = torch.zeros(plain_shape, dtype=sum_dtype, device=device)
            for start in range(0, len(targets), chunk_tokens):
                part = slice(start, start + chunk_tokens)
                part_weights = weights[part]
                # One float32 buffer, reused in place: logits, exponentials, their gradient.
                scores = (inputs[part] @ head.T).to(sum_dtype)
                if head_bias is not None:
                    scores += head_bias.detach()
                index = targets[part].unsqueeze(1)
                target_scores = scores.gather(1, index).squeeze(1)
                # The largest score is taken out first, so that no exponential overflows.
                largest = scores.amax(1)
                scores.sub_(largest.unsqueeze(1))
                scores.exp_()
                totals = scores.sum(1)
                nll = totals.log() + largest - target_scores
                weighted += (nll * part_weights).sum()
                part_in_trace = None if in_trace is None else in_trace[part]
                plain += _plain_sums(nll, part_in_trace)
                if not (needs_hidden or needs_weight or needs_bias):
                    continue
                # Exponentials over their total are p, so this is w p, and then w (p - 1) at y.
                scale = part_weights / totals
                scores.mul_(scale.unsqueeze(1))
                scores.scatter_add_(1, index, -part_weights.unsqueeze(1))
                grad_scores = scores.to(compute_dtype)
                if grad_hidden is not None:
                    torch.mm(grad_scores, head, out=grad_hidden[part])
                if grad_weight is not None:
                    _add_product(grad_weight, grad_scores, inputs[part])
                if grad_bias is not None:
                    grad_bias.add_(scores.sum(0))
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        bias_dtype = None if head_bias is None else head_bias.dtype
        ctx.dtypes = (hidden.dtype, head_weight.dtype, bias_dtype)
        ctx.mark_non_differentiable(plain)
        return weighted, plain

    @staticmethod
    def backward(ctx: Any, grad_weighted: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError(
                "the chunked loss keeps its gradients for one backward pass; retain_graph is not "
                "supported"
            )
        # They are scaled in place, so they serve one pass, and the next one is refused above.
        grads, ctx.grads = ctx.grads, None
        scaled: list[Tensor | None] = []
        for grad, dtype in zip(grads, ctx.dtypes, strict=True):
            if grad is None:
                scaled.append(None)
            else:
                scaled.append(_scaled(grad, grad_weighted).to(dtype))
        # The other four arguments of `forward` have no gradient.
        return (*scaled, None, None, None, None)


def _add_product(total: Tensor, grad_scores: Tensor, hidden: Tensor) -> None:
    """total += grad_scores^T @ hidden; a product in 16 bits is widened before it is added.

    Args:
        total: [vocabulary, width]. grad_scores: [targets, vocabulary]. hidden: [targets, width].
    """
    if total.dtype == hidden.dtype:
        total.addmm_(grad_scores.T, hidden)
        return
    # In slices of the vocabulary, so that the product takes no more than a chunk of logits.
    bytes_per_row = hidden.element_size() * hidden.shape[1]
    rows = max(1, CHUNK_BYTES // bytes_per_row)
    for start in range(0, len(total), rows):
        part = slice(start, start + rows)
        total[part].add_(grad_scores[:, part].T @ hidden)


def _scaled(grad: Tensor, scale: Tensor) -> Tensor:
    """grad x scale; in place for float32 and wider.

    The scale 1 / (N C) is one number for all values, so rounded to bf16 it would be wrong by up to
    0.4 % everywhere.
    """
    if grad.dtype in (torch.float32, torch.float64):
        return grad.mul_(scale.to(grad.dtype))
    return grad.float() * scale.float()
