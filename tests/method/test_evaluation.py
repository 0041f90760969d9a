"""Avg@k, Pass@k and the paired bootstrap, against hand arithmetic, enumeration and a closed form."""

import itertools
import math
import random
from statistics import NormalDist

import pytest

from variational_reasoning.method.evaluation import (
    BENCHMARKS,
    Estimate,
    bootstrap_interval,
    mean_and_error,
    paired_differences,
    paper_results,
    pass_at_k,
)


def test_mean_and_error_by_hand():
    # 0.5, 1, 0: mean 0.5, variance (0 + 0.25 + 0.25) / 2 = 0.25, standard error sqrt(0.25 / 3)
    assert mean_and_error([0.5, 1.0, 0.0]) == pytest.approx((0.5, math.sqrt(0.25 / 3)), rel=1e-15)
    assert mean_and_error([0.3]) == Estimate(0.3, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_error([])


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_sample(n):
    for c in range(n + 1):
        samples = [i < c for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(samples, k))
            assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


def test_pass_at_k_is_unbiased():
    """Its mean over the binomial number of correct samples is 1 - (1 - p)^k, which the plug-in
    estimate is not.
    """
    n, p = 6, 0.3
    for k in range(1, n + 1):
        chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        expected = math.fsum(chance * pass_at_k(n, c, k) for c, chance in enumerate(chances))
        assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    plugged_in = math.fsum(chance * (1 - (1 - c / n) ** 3) for c, chance in enumerate(chances))
    assert abs(plugged_in - (1 - (1 - p) ** 3)) > 0.01


def test_pass_at_k_where_factorials_leave_the_floats():
    # one of 100,000 is right: a subset of k holds it with chance k / 100,000
    assert pass_at_k(100_000, 1, 1000) == 0.01
    assert pass_at_k(2000, 1000, 1000) == 1.0
    assert pass_at_k(32, 0, 32) == 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses(n, c, k):
    with pytest.raises(ValueError, match=f"k is {k}|num_correct is {c}"):
        pass_at_k(n, c, k)


def test_differences_are_paired_by_question():
    assert paired_differences({"a": 1.0, "b": 0.5}, {"b": 1.0, "a": 0.5}, "math500") == [0.5, -0.5]
    with pytest.raises(
        ValueError, match=r"math500: 2 questions were asked of one model only, such as \['b', 'c'\]"
    ):
        paired_differences({"a": 1.0, "b": 0.5}, {"a": 1.0, "c": 0.5}, "math500")


def test_bootstrap_of_one_question_that_differs():
    """Of 4 values only one is 1: a resample's mean is j / 4 with j ~ Binomial(4, 1/4), and P(j >=
    3) = 13/256 > 2.5 %.
    """
    mean, low, high = bootstrap_interval([[0.0, 0.0, 0.0, 1.0]])
    assert (mean, low, high) == (0.25, 0.0, 0.75)
    assert bootstrap_interval([[0.5, 0.5]]) == (0.5, 0.5, 0.5)


def test_bootstrap_agrees_with_the_normal_interval_and_its_seed_decides():
    draw = random.Random(0)
    values = [draw.gauss(0.1, 1) for _ in range(400)]
    mean, error = mean_and_error(values)
    interval = bootstrap_interval([values], confidence=0.9)
    reach = NormalDist().inv_cdf(0.95) * error
    assert interval == pytest.approx((mean, mean - reach, mean + reach), abs=0.1 * error)
    assert interval == bootstrap_interval([values], confidence=0.9)
    assert interval != bootstrap_interval([values], seed=1, confidence=0.9)


def test_bootstrap_of_an_average_over_benchmarks_gives_each_the_same_weight():
    large, small = [0.0] * 999 + [1.0], [0.0, 1.0]
    mean, low, high = bootstrap_interval([large, small])
    assert mean == pytest.approx((0.001 + 0.5) / 2, rel=1e-15)
    # the small group's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, and it has half the weight
    assert low < 0.01 and 0.5 <= high < 0.51


@pytest.mark.parametrize(
    ("groups", "confidence"), [([], 0.95), ([[1.0], []], 0.95), ([[1.0]], 1.0)]
)
def test_bootstrap_refuses(groups, confidence):
    with pytest.raises(ValueError, match="at least one|confidence is"):
        bootstrap_interval(groups, confidence=confidence)


def test_the_papers_rows_average_to_what_it_prints():
    """Within 0.015: scores and averages are rounded to 0.01, and one printed average is another
    0.004 away.
    """
    printed = {
        "Qwen3-4B-Base": (21.38, 18.26),
        "Bespoke-Stratos-4B": (51.35, 40.40),
        "PB-GML-4B": (55.23, 45.60),
        "PB-Acc-4B": (55.72, 46.12),
        "without y' 4B": (48.18, 37.80),
        "Qwen3-8B-Base": (33.30, 27.45),
        "Bespoke-Stratos-8B": (58.54, 49.46),
        "PB-GML-8B": (61.83, 54.03),
        "PB-Acc-8B": (62.77, 54.69),
        "Bespoke-Stratos-7B": (45.91, 38.98),
        "RLT-7B": (47.57, 40.78),
        "PA-GML-7B": (48.99, 42.32),
        "PA-Acc-7B": (47.94, 42.51),
        "Bespoke-Stratos-32B": (70.34, 66.32),
        "PA-GML-32B": (71.22, 67.89),
        "PA-Acc-32B": (72.01, 67.21),
        "1K SFT 7B": (40.41, 33.84),
        "1K M Acc 7B": (45.41, 38.62),
        "1K M GML 7B": (45.38, 39.42),
        "1K M L 7B": (43.01, 37.35),
    }
    found = {}
    for row in paper_results():
        found[row.model] = tuple(
            math.fsum(row.scores[name] for name in BENCHMARKS[group]) / len(BENCHMARKS[group])
            for group in BENCHMARKS
        )
    assert found.keys() == printed.keys()
    for model, averages in printed.items():
        assert found[model] == pytest.approx(averages, abs=0.015), model
