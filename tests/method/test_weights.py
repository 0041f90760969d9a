"""rho, its normalization and the figures derived from it, against arithmetic by hand and torch in
float64.
"""

import math

import pytest
import torch

from variational_reasoning.method import estimators as e
from variational_reasoning.method import weights as w


def test_log_ratio_of_a_three_token_trace():
    # log pi is -0.5 - 1.0 - 1.5 = -3.0, and log q is -0.25 - 0.5 - 0.75 = -1.5,
    # so the sum is -1.5 and the mean -1.5 / 3 = -0.5
    assert w.log_ratio(-3.0, -1.5, 3) == (-0.5, -1.5)


def test_answer_terms_by_hand():
    assert e.log_accuracy(2, 8) == math.log(0.25)
    assert e.log_accuracy(8, 8) == 0.0
    assert e.log_accuracy(0, 8) == -math.inf
    assert e.log_gml(-6.0, 4) == -1.5
    assert e.log_answer_term("gml", answer_logp=-6.0, answer_tokens=4) == -1.5
    assert e.log_answer_term("likelihood", answer_logp=-6.0, answer_tokens=4) == -6.0
    assert e.log_answer_term("acc", num_correct=1, num_answers=2) == math.log(0.5)


def test_weights_by_hand():
    # rho = 1, 3, 0: weights 1/4, 3/4, 0; effective sample size 1 / (1/16 + 9/16) = 1.6.
    # The mean of rho is 4/3, whose logarithm is the bound.
    log_rhos = [0.0, math.log(3.0), -math.inf]
    weights = w.normalized_weights(log_rhos)
    assert weights == pytest.approx([0.25, 0.75, 0.0], rel=1e-15)
    assert weights[2] == 0.0
    assert w.effective_sample_size(weights) == pytest.approx(1.6, rel=1e-14)
    assert w.iwae_bound(log_rhos) == pytest.approx(math.log(4 / 3), rel=1e-14)


def test_the_three_ratios_by_hand():
    # a trace of four tokens, mean log ratio -0.5: the full ratio is exp(-2); the answer term is 1/4
    ratios = w.log_ratio(-4.0, -2.0, 4)
    assert ratios == (-0.5, -2.0)
    assert w.log_rho("mean", ratios, math.log(0.25)) == -0.5 + math.log(0.25)
    assert w.log_rho("sum", ratios, math.log(0.25)) == -2.0 + math.log(0.25)
    assert w.log_rho("none", ratios, math.log(0.25)) == math.log(0.25)
    assert w.log_rho("none", None, -math.inf) == -math.inf


def test_forward_kl_weights_are_the_accuracies_normalized():
    # Eq. 9: accuracies 1/2, 1, 0 of three traces: 1/3, 2/3, 0
    log_rhos = [w.log_rho("none", None, e.log_accuracy(correct, 4)) for correct in (2, 4, 0)]
    assert w.normalized_weights(log_rhos) == pytest.approx([1 / 3, 2 / 3, 0], rel=1e-15)


def test_rejection_sampling_counts_each_verified_answer_alike():
    # Eq. 10. An easy question, accuracies 1 and 1/2 (P = 3/4), and a hard one, 1/4 and 0 (P = 1/8):
    # each of the eight answers that is right weighs 1/8, so the easy question holds 6 of 7 parts,
    # although there is one posterior each.
    total = []
    for correct in ((4, 2), (1, 0)):
        weights = w.normalized_weights([e.log_accuracy(c, 4) for c in correct])
        factor = w.question_weight("accuracy", sum(correct) / 8)
        assert [weight * factor for weight in weights] == pytest.approx(
            [c / 8 for c in correct], rel=1e-15
        )
        total.append(factor)
    assert total[0] / sum(total) == pytest.approx(6 / 7, rel=1e-15)


def test_grpo_weight_by_hand_and_as_the_mean_of_normalized_advantages():
    # Eq. 12: P = 0, 1/5, 1/2, 4/5: sqrt(0), sqrt(1/4), sqrt(1), sqrt(4)
    found = [w.question_weight("grpo", p) for p in (0.0, 0.2, 0.5, 0.8)]
    assert found == pytest.approx([0.0, 0.5, 1.0, 2.0], rel=1e-15)
    assert w.question_weight("grpo", 1.0) == 0.0  # no advantage
    # Rewards 1, 0, 0, 0, 0: the advantage of the right one is (1 - P) / sd = 0.8 / 0.4 = 2, of a
    # wrong one -1/2. The expectation of grad log pi is zero, so the wrong ones weigh like P / (1 -
    # P) of the right: P (2 + 1/2) = 1/2.
    assert w.question_weight("grpo", 0.2) == pytest.approx(0.2 * (2 + 0.5), rel=1e-15)
    assert w.question_weight("none", 0.3) == 1.0


def test_powers_of_the_accuracy_are_one_family():
    # P = 1/4 and 1: rejection sampling at a = 1, maximum likelihood at a = 0, hard first below 0
    assert [w.question_weight(a, 0.25) for a in (1.0, 0.5, 0.0, -0.5, -1.0)] == [
        *(0.25, 0.5, 1.0, 2.0, 4.0),
    ]
    assert {w.question_weight(a, 1.0) for a in (2.0, 1.0, 0.0, -1.0)} == {1.0}
    for accuracy in (0.0, 0.125, 1.0):
        assert w.question_weight(1.0, accuracy) == w.question_weight("accuracy", accuracy)
        assert w.question_weight(0.0, accuracy) == w.question_weight("none", accuracy)
    assert w.question_weight(-2.0, 0.0) == 0.0  # nothing verified, nothing to learn from


def test_power_zero_is_the_policy_gradient_divided_by_p():
    # grad P(Y | x) is a sum over right answers, P times the mean of grad log pi over them; divided
    # by P, every question weighs alike whatever P is.
    for accuracy in (0.01, 0.5, 1.0):
        policy_gradient = w.question_weight("accuracy", accuracy)
        assert policy_gradient / accuracy == w.question_weight(0.0, accuracy)


def test_a_cap_takes_from_the_dominant_trace_only():
    # 0.7, 0.2, 0.1 capped at 0.5 sum to 0.8; effective sample size 0.64 / (0.25 + 0.04 + 0.01) =
    # 2.1333 instead of 1.8519
    capped = w.capped_weights([0.7, 0.2, 0.1], 0.5)
    assert capped == [0.5, 0.2, 0.1]
    assert w.effective_sample_size(capped) == pytest.approx(0.64 / 0.30, rel=1e-14)
    assert w.effective_sample_size([0.7, 0.2, 0.1]) == pytest.approx(1 / 0.54, rel=1e-14)
    assert w.effective_sample_size([1e-200, 1e-200]) == 2.0


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
        (lambda: e.log_accuracy(0, 0), "num_answers is 0"),
        (lambda: e.log_accuracy(3, 2), r"num_correct is 3, outside 0\.\.2"),
        (lambda: e.log_gml(-1.0, 0), "answer_tokens is 0"),
        (lambda: e.log_answer_term("gml2"), "estimator 'gml2' is not one of acc, gml, likelihood"),
        (lambda: e.log_answer_term("acc"), "needs num_correct and num_answers"),
        (
            lambda: e.log_answer_term("likelihood", num_correct=1, num_answers=1),
            "needs answer_logp and answer_tokens",
        ),
        (lambda: w.normalized_weights([]), "log_rhos is empty"),
        (lambda: w.normalized_weights([0.0, math.nan]), r"log_rhos\[1\] is nan"),
        (lambda: w.iwae_bound([math.inf]), r"log_rhos\[0\] is inf"),
        (lambda: w.effective_sample_size([0.5, -0.6]), "must be non-negative"),
        (lambda: w.effective_sample_size([0.0, 0.0]), "one of them positive"),
        (lambda: w.effective_sample_size([]), "must be non-negative"),
        (lambda: w.log_rho("median", None, 0.0), "ratio 'median' is not one of mean, sum, none"),
        (lambda: w.log_rho("sum", None, 0.0), r"ratio 'sum' needs .* \(stages 4 and 5\)"),
        (lambda: w.capped_weights([1.0], 0.0), "cap is 0.0"),
        (lambda: w.question_weight("rft", 0.5), "'rft' is not one of none, accuracy, grpo"),
        (lambda: w.question_weight("grpo", 1.5), r"accuracy is 1.5, outside 0\.\.1"),
    ],
)
def test_refusals_say_what_and_which_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
