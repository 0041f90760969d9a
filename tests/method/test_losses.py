"""The chunked loss against hand-worked numbers and against autograd through full logits."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from variational_reasoning.method.losses import (
    IGNORE_INDEX,
    auto_constant_loss_normalizer,
    dr_sft_loss,
    target_mask,
    trace_targets,
    weighted_nll_from_hidden,
    weighted_nll_from_logits,
)


def problem(dtype=torch.float64, num_targets=37, width=8, vocabulary=53, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = (
        torch.randn(num_targets, width, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
    )
    head = (
        torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
    )
    bias = (
        torch.randn(vocabulary, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    )
    targets = torch.randint(vocabulary, (num_targets,), generator=generator)
    weights = torch.rand(num_targets, generator=generator)
    return hidden, head, bias, targets, weights


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def test_three_tokens_by_hand():
    # A vocabulary of two and a head that is the identity, so the logits are the hidden states.
    # Token 1: logits (0, 0), target 0: CE = log 2.            weight 1
    # Token 2: logits (log 3, 0), target 0: p = 3/4, CE = log(4/3).   weight 2
    # Token 3: logits (log 3, 0), target 1: p = 1/4, CE = log 4.      weight 0
    hidden = torch.tensor(
        [[0.0, 0.0], [math.log(3), 0.0], [math.log(3), 0.0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    head = torch.eye(2, dtype=torch.float64)
    weighted, plain = weighted_nll_from_hidden(
        hidden, head, torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 0.0]), chunk_tokens=2
    )
    assert weighted.item() == pytest.approx(math.log(2) + 2 * math.log(4 / 3), rel=1e-15)
    assert plain.item() == pytest.approx(math.log(2) + math.log(4 / 3) + math.log(4), rel=1e-15)
    # dCE/dlogits = p - onehot: (1/2 - 1, 1/2), 2 * (3/4 - 1, 1/4), and nothing for weight 0.
    (grad,) = gradients(weighted, hidden)
    expected = torch.tensor([[-0.5, 0.5], [-0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(grad, expected, rtol=1e-15, atol=1e-16)
    # N = 3 rows, C = 2 tokens per row.
    assert dr_sft_loss(weighted, 3, 2.0).item() == pytest.approx(
        (math.log(2) + 2 * math.log(4 / 3)) / 6, rel=1e-15
    )


@pytest.mark.parametrize("chunk_tokens", [1, 2, 16, 36, 37, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_full_logits_in_float64(chunk_tokens, with_bias):
    hidden, head, bias, targets, weights = problem()
    bias = bias if with_bias else None
    inputs = [hidden, head] + ([bias] if with_bias else [])
    full = weighted_nll_from_logits(
        torch.nn.functional.linear(hidden, head, bias), targets, weights
    )
    chunked = weighted_nll_from_hidden(hidden, head, targets, weights, bias, chunk_tokens)
    for ours, reference in zip(chunked, full, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-13, atol=0)
    for ours, reference in zip(
        gradients(3.0 * chunked[0], *inputs), gradients(3.0 * full[0], *inputs), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-13)


def test_equals_full_logits_in_float32_to_1e_6():
    hidden, head, _, targets, weights = problem(
        torch.float32, num_targets=500, width=64, vocabulary=1000
    )
    with torch.no_grad():
        head /= 8
    full, _ = weighted_nll_from_logits(hidden @ head.T, targets, weights)
    chunked, _ = weighted_nll_from_hidden(hidden, head, targets, weights, chunk_tokens=64)
    assert chunked.item() == pytest.approx(full.item(), rel=1e-6)
    for ours, reference in zip(
        gradients(chunked, hidden, head), gradients(full, hidden, head), strict=True
    ):
        assert (ours - reference).norm() <= 1e-6 * reference.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_softmax_is_float32(dtype):
    # The products round as the model's own head would; the softmax over them must not round again.
    hidden, head, _, targets, weights = problem(dtype)
    logits = (hidden @ head.T).detach().float()
    reference = torch.nn.functional.cross_entropy(logits, targets, reduction="none").sum()
    _, plain = weighted_nll_from_hidden(hidden, head, targets, weights, chunk_tokens=5)
    assert plain.dtype == torch.float32
    assert plain.item() == pytest.approx(reference.item(), rel=1e-6)


def test_autocast_uses_its_dtype_and_float32_parameters_get_float32_gradients():
    hidden, head, _, targets, weights = problem(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full, _ = weighted_nll_from_logits(
            torch.nn.functional.linear(hidden, head), targets, weights
        )
        chunked, _ = weighted_nll_from_hidden(hidden, head, targets, weights, chunk_tokens=5)
    assert chunked.item() == pytest.approx(full.item(), rel=1e-6)
    for ours, reference in zip(
        gradients(chunked, hidden, head), gradients(full, hidden, head), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - reference).norm() <= 2e-2 * reference.norm()


@pytest.mark.parametrize("chunk_tokens", [8, 64, 296])
def test_a_16_bit_head_loses_no_more_to_chunks_than_to_one_product(chunk_tokens):
    # 296 targets: 37 chunks of 8, or a single one. The reference is float64 on the same numbers.
    # A scale that bf16 does not hold must not round either: 1/3 would be off by 0.13 %.
    hidden, head, _, targets, weights = problem(torch.bfloat16, 296, 64, 1000)
    head = (head / 16).detach().requires_grad_()
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    full, _ = weighted_nll_from_logits(torch.nn.functional.linear(*wide), targets, weights)
    chunked, _ = weighted_nll_from_hidden(hidden, head, targets, weights, None, chunk_tokens)
    found = gradients(chunked / 3, hidden, head)
    for ours, exact in zip(found, gradients(full / 3, *wide), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - exact).norm() < 3e-3 * exact.norm()  # 6.5e-3 if summed in bf16
        size = (ours.double() * exact).sum() / (exact * exact).sum()
        assert abs(size.item() - 1) < 3e-4


def test_frozen_head_and_no_grad_form_no_gradient():
    hidden, head, _, targets, weights = problem()
    weighted, _ = weighted_nll_from_hidden(hidden, head.detach(), targets, weights)
    assert weighted.grad_fn.grads[1] is None
    with torch.no_grad():
        assert not weighted_nll_from_hidden(hidden, head, targets, weights)[0].requires_grad


def test_no_targets_give_an_attached_zero():
    hidden, head, _, targets, weights = problem()
    weighted, plain = weighted_nll_from_hidden(hidden[:0], head, targets[:0], weights[:0])
    assert weighted.item() == plain.item() == 0
    grad_hidden, grad_head = gradients(weighted, hidden, head)
    assert not grad_hidden.any() and not grad_head.any()


def test_second_backward_is_refused():
    hidden, head, _, targets, weights = problem()
    weighted, _ = weighted_nll_from_hidden(hidden, head, targets, weights)
    weighted.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        weighted.backward()


def test_never_holds_the_logits_of_all_targets():
    class LargestTensor(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.largest = max(self.largest, tensor.numel())
            return out

    hidden, head, _, targets, weights = problem(num_targets=640, width=4, vocabulary=100)
    with LargestTensor() as mode:
        weighted_nll_from_hidden(hidden, head, targets, weights, chunk_tokens=16)[0].backward()
    assert (
        mode.largest <= 640 * 4
    )  # hidden states; a chunk has 16 * 100, all logits would have 64,000


def test_target_mask_shifts_by_one():
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 5, 6, IGNORE_INDEX]])
    assert target_mask(labels).tolist() == [[False, True, True, False]]


def test_auto_constant_loss_normalizer_by_hand():
    # mean weight (1 + 0.5 + 0) / 3 = 0.5, mean tokens (10 + 20 + 30) / 3 = 20.
    assert auto_constant_loss_normalizer(
        torch.tensor([1.0, 0.5, 0.0]), torch.tensor([10, 20, 30])
    ) == pytest.approx(10.0, rel=1e-15)


@pytest.mark.parametrize(("weights", "tokens"), [([], []), ([0.0, 0.0], [3, 4]), ([1.0], [0])])
def test_auto_constant_loss_normalizer_refuses_zero(weights, tokens):
    with pytest.raises(ValueError, match=r"no rows|zero"):
        auto_constant_loss_normalizer(torch.tensor(weights), torch.tensor(tokens))


def test_targets_of_traces():
    rows, in_traces = torch.tensor([3, -1, 2, 0]), torch.tensor([2, 0, 1, 0])
    assert trace_targets(rows, in_traces).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_a_weight_of_the_traces_targets_in_float64(factor):
    """The gradient is that of each part's own sum, and the plain sums come apart."""
    torch.manual_seed(0)
    hidden = torch.randn(9, 6, dtype=torch.float64)
    head = torch.randn(11, 6, dtype=torch.float64)
    targets = torch.randint(0, 11, (9,))
    row_weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
    rows, in_traces = torch.tensor([4, 5]), torch.tensor([1, 3])
    in_trace = trace_targets(rows, in_traces)
    weights = torch.repeat_interleave(row_weights, rows)
    weights = torch.where(in_trace, weights * factor, weights)

    leaf = hidden.clone().requires_grad_()
    weighted, plain = weighted_nll_from_hidden(
        leaf, head, targets, weights, chunk_tokens=4, in_trace=in_trace
    )
    weighted.backward()
    reference = hidden.clone().requires_grad_()
    nll = torch.nn.functional.cross_entropy(reference @ head.T, targets, reduction="none")
    first, second = nll[:4], nll[4:]
    symbols = [first[:1].sum(), second[:3].sum()]
    answers = [first[1:].sum(), second[3:].sum()]
    expected = 0.5 * (factor * symbols[0] + answers[0]) + 2 * (factor * symbols[1] + answers[1])
    expected.backward()
    torch.testing.assert_close(weighted, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(leaf.grad, reference.grad, rtol=1e-12, atol=1e-12)
    sums = torch.stack([sum(symbols), sum(answers)])
    torch.testing.assert_close(plain, sums.detach(), rtol=1e-12, atol=1e-12)
    _, full = weighted_nll_from_logits(hidden @ head.T, targets, weights, in_trace)
    torch.testing.assert_close(full, plain, rtol=1e-12, atol=1e-12)
