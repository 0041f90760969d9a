"""L_k by hand, against method.weights.iwae_bound, and what is left out or replaced."""

import math
from itertools import combinations

import numpy as np
import pytest
from tests.report.tables import write_traces

from variational_reasoning.method.evaluation import bootstrap_columns
from variational_reasoning.method.weights import iwae_bound
from variational_reasoning.report.bound import MAX_SUBSETS, estimate_bound, subset_means
from variational_reasoning.report.traces import read_terms


def test_two_traces_by_hand():
    # rho 1 and 3: L_1 = (log 1 + log 3) / 2, L_2 = log 2
    assert subset_means(np.log([[1.0, 3.0]])) == pytest.approx(
        np.array([[math.log(3) / 2, math.log(2)]]), abs=1e-15
    )


def test_all_subsets_in_no_order():
    log_rho = np.random.default_rng(1).normal(size=(3, 8)) * 5
    found = subset_means(log_rho)
    for line, values in zip(log_rho, found, strict=True):
        for k in range(1, 9):
            bounds = [iwae_bound(subset) for subset in combinations(line.tolist(), k)]
            assert values[k - 1] == pytest.approx(sum(bounds) / len(bounds), abs=1e-12)
    assert (np.diff(found, axis=1) > 0).all()  # L_K never decreases in K
    assert subset_means(log_rho[:, ::-1]) == pytest.approx(found, abs=1e-12)


def test_more_subsets_than_are_taken_are_drawn_under_the_seed():
    assert math.comb(16, 8) > MAX_SUBSETS
    log_rho = np.random.default_rng(2).normal(size=(600, 16))
    found = subset_means(log_rho, seed=3)
    assert (found == subset_means(log_rho, seed=3)).all()
    assert (found[:, 7] != subset_means(log_rho, seed=4)[:, 7]).any()
    # k = 1 and k = 16 have few subsets and are exact
    assert found[:, 0] == pytest.approx(log_rho.mean(axis=1))
    assert found[:, 15] == pytest.approx([iwae_bound(line) for line in log_rho.tolist()])
    assert (np.diff(found.mean(axis=0)) > 0).all()


def test_bootstrap_of_questions_keeps_columns_together():
    values = np.random.default_rng(0).normal(size=(400, 1)) @ np.ones((1, 2)) + [0.0, 10.0]
    first, second = bootstrap_columns(values)
    assert second.low - first.low == pytest.approx(10.0)
    # a standard error of 1/20, so an interval of about 4/20
    assert first.high - first.low == pytest.approx(0.2, abs=0.03)
    assert bootstrap_columns(np.full((5, 1), 2.0)) == [pytest.approx((2.0, 2.0, 2.0))]


def test_questions_without_all_traces_are_left_out_and_zeros_counted(tmp_path):
    write_traces(
        tmp_path,
        {"q0": "", "q1": ""},
        {
            ("q0", 0): {"logps": (-2.0, -3.0), "verdicts": ("correct", "correct")},
            ("q0", 1): {"logps": (-4.0, -3.0), "verdicts": ("wrong", "wrong")},
            ("q1", 0): {"logps": (-4.0, -3.0), "verdicts": ("wrong", "wrong")},
            ("q1", 1): {"is_well_formed": False},
        },
    )
    terms = read_terms(tmp_path)
    found = estimate_bound(terms, "acc", "sum")
    assert (found.num_questions, found.num_left_out, found.num_floored) == (1, 1, 1)
    # q0: log rho 1 + log 1, and -1 + log 1/4 for none of two
    first, second = 1.0, -1.0 + math.log(0.25)
    assert found.means == pytest.approx([(first + second) / 2, iwae_bound([first, second])])
    # per token: a quarter of the ratio
    assert estimate_bound(terms, "acc", "mean").means[0] == pytest.approx(
        (0.25 - 0.25 + math.log(0.25)) / 2
    )
    assert estimate_bound(terms, "likelihood", "sum").means[0] == pytest.approx((1 - 1 - 2 - 2) / 2)
    with pytest.raises(ValueError, match="ratio 'x'"):
        estimate_bound(terms, "acc", "x")


def test_no_whole_question_is_no_bound(tmp_path):
    write_traces(tmp_path, {"q0": ""}, {("q0", 0): {}, ("q0", 1): {"logps": (-1.0, -1.0)}})
    assert estimate_bound(read_terms(tmp_path), "gml", "sum") is None
