"""rho, its normalisation and the figures derived from it, against arithmetic by hand and torch in float64."""

import math

import pytest
import torch

from variational_reasoning.method import weights as w


def test_log_ratio_of_a_three_token_trace():
    # log pi = -0.5 - 1.0 - 1.5 = -3.0; log q = -0.25 - 0.5 - 0.75 = -1.5; sum = -1.5, mean = -1.5 / 3 = -0.5
    assert w.log_ratio(-3.0, -1.5, 3) == (-0.5, -1.5)


def test_answer_terms_by_hand():
    assert w.log_accuracy(2, 8) == math.log(0.25)
    assert w.log_accuracy(8, 8) == 0.0
    assert w.log_accuracy(0, 8) == -math.inf
    assert w.log_gml(-6.0, 4) == -1.5
    assert w.log_answer_term("gml", answer_logp=-6.0, answer_tokens=4) == -1.5
    assert w.log_answer_term("likelihood", answer_logp=-6.0, answer_tokens=4) == -6.0
    assert w.log_answer_term("acc", num_correct=1, num_answers=2) == math.log(0.5)


def test_weights_by_hand():
    # rho = 1, 3, 0: weights 1/4, 3/4, 0; effective sample size 1 / (1/16 + 9/16) = 1.6; log of the mean = log(4/3)
    log_rhos = [0.0, math.log(3.0), -math.inf]
    weights = w.normalized_weights(log_rhos)
    assert weights == pytest.approx([0.25, 0.75, 0.0], rel=1e-15)
    assert weights[2] == 0.0
    assert w.effective_sample_size(weights) == pytest.approx(1.6, rel=1e-14)
    assert w.iwae_bound(log_rhos) == pytest.approx(math.log(4 / 3), rel=1e-14)


def test_equal_rhos_share_equally_and_count_as_k():
    weights = w.normalized_weights([-7.0] * 8)
    assert weights == [0.125] * 8
    assert w.effective_sample_size(weights) == 8.0


def test_one_trace_has_weight_one_however_small_its_rho():
    assert w.normalized_weights([-1e6]) == [1.0]
    assert w.effective_sample_size([1.0]) == 1.0
    assert w.iwae_bound([-3.5]) == -3.5


def test_a_question_of_zeros_has_no_weights():
    assert w.normalized_weights([-math.inf, -math.inf]) is None
    assert w.iwae_bound([-math.inf, -math.inf]) == -math.inf


@pytest.mark.parametrize("shift", [-5000.0, -1.0, 3.0, 5000.0])
def test_a_constant_added_to_log_rho_changes_nothing(shift):
    log_rhos = [-1.25, 0.5, -3.0, -math.inf]
    shifted = w.normalized_weights([value + shift for value in log_rhos])
    assert shifted == pytest.approx(w.normalized_weights(log_rhos), rel=1e-12)


def test_weights_follow_a_permutation_of_the_traces():
    log_rhos = [-1.25, 0.5, -3.0, -math.inf, -0.1]
    order = [3, 0, 4, 2, 1]
    permuted = w.normalized_weights([log_rhos[i] for i in order])
    weights = w.normalized_weights(log_rhos)
    assert permuted == pytest.approx([weights[i] for i in order], rel=1e-15)


def test_weights_equal_softmax_in_float64():
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 300.0):
        log_rhos = torch.randn(16, dtype=torch.float64, generator=generator) * scale
        ours = torch.tensor(w.normalized_weights(log_rhos.tolist()), dtype=torch.float64)
        torch.testing.assert_close(ours, torch.softmax(log_rhos, 0), rtol=1e-12, atol=0)
        bound = torch.logsumexp(log_rhos, 0) - math.log(16)
        assert w.iwae_bound(log_rhos.tolist()) == pytest.approx(bound.item(), rel=1e-12)


def test_two_identical_traces_may_be_merged_by_adding_their_weights():
    weights = w.normalized_weights([-1.0, -2.0, -1.0])
    merged = [weights[0] + weights[2], weights[1]]
    # rho = e^-1 twice and e^-2: merged 2 / (2 + e^-1)
    assert merged[0] == pytest.approx(2 / (2 + math.exp(-1)), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: w.log_ratio(math.nan, -1.0, 3), "reasoner_logp is nan"),
        (lambda: w.log_ratio(-1.0, -math.inf, 3), "posterior_logp is -inf"),
        (lambda: w.log_ratio(0.5, -1.0, 3), "reasoner_logp is 0.5; .* at most 0"),
        (lambda: w.log_ratio(-1.0, -1.0, 0), "num_tokens is 0"),
        (lambda: w.log_accuracy(0, 0), "num_answers is 0"),
        (lambda: w.log_accuracy(3, 2), r"num_correct is 3, outside 0\.\.2"),
        (lambda: w.log_gml(-1.0, 0), "answer_tokens is 0"),
        (lambda: w.log_answer_term("gml2"), "estimator 'gml2' is not one of acc, gml, likelihood"),
        (lambda: w.log_answer_term("acc"), "needs num_correct and num_answers"),
        (lambda: w.log_answer_term("likelihood", num_correct=1, num_answers=1), "needs answer_logp and answer_tokens"),
        (lambda: w.normalized_weights([]), "log_rhos is empty"),
        (lambda: w.normalized_weights([0.0, math.nan]), r"log_rhos\[1\] is nan"),
        (lambda: w.iwae_bound([math.inf]), r"log_rhos\[0\] is inf"),
        (lambda: w.effective_sample_size([0.5, 0.6]), "sum to 1.1"),
        (lambda: w.effective_sample_size([]), "must be non-negative and sum to 1"),
    ],
)
def test_refusals_say_what_and_which_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
