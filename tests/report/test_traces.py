"""The arrays of a run's traces by hand, and against method.weights, on tables that the real writers
made.
"""

import math

import numpy as np
import pytest
from tests.report.tables import write_traces

from variational_reasoning.method.estimators import log_gml
from variational_reasoning.method.weights import (
    effective_sample_size,
    log_ratio,
    normalized_weights,
    question_weight,
)
from variational_reasoning.report.traces import (
    bin_accuracy,
    effective_sample_sizes,
    question_weights,
    read_terms,
    weight_mass,
    weights,
)


def test_tables_are_joined_by_ids(tmp_path):
    # q0: trace 0 scored with 1 of 2 right; trace 1 malformed. q1: trace 0 with one undecided and
    # one wrong; trace 1 cut.
    write_traces(
        tmp_path,
        questions={"q0": "numina/1", "q1": "apps/2"},
        traces={
            ("q1", 0): {"logps": (-6.0, -4.0), "verdicts": ("unverifiable", "wrong")},
            ("q0", 1): {"is_well_formed": False},
            ("q0", 0): {"logps": (-2.0, -3.0), "verdicts": ("correct", "wrong")},
            ("q1", 1): {"finish_reason": "length", "logps": (-1.0, -1.0)},
        },
        trace_tokens=4,
    )
    terms = read_terms(tmp_path)
    assert terms.question_ids == ["q0", "q1"] and terms.sources == ["numina/1", "apps/2"]
    assert terms.is_scored.tolist() == [[True, False], [True, False]]
    # log ratios -2 - -3 = 1 and -6 - -4 = -2 over 4 tokens
    assert terms.sum_log_ratio[:, 0].tolist() == [1.0, -2.0]
    assert (
        terms.mean_log_ratio[:, 0].tolist()
        == [0.25, -0.5]
        == [log_ratio(-2, -3, 4)[0], log_ratio(-6, -4, 4)[0]]
    )
    assert terms.num_correct.tolist() == [[1, 0], [0, 0]]
    assert terms.num_answers.tolist() == [[2, 0], [1, 0]]
    assert terms.accuracy().tolist() == [0.5, 0.0]
    # log rho: 1/4 + log 1/2, and minus infinity for what is malformed, cut, or never right
    assert terms.log_rho("acc").tolist() == [
        [0.25 + math.log(0.5), -math.inf],
        [-math.inf, -math.inf],
    ]
    # the solution has -2 nats in 5 tokens
    assert terms.log_rho("gml")[0, 0] == 0.25 + log_gml(-2.0, 5)
    assert terms.log_rho("likelihood")[0, 0] == 0.25 - 2.0
    with pytest.raises(ValueError, match="estimator 'x' is not one of acc, gml, likelihood"):
        terms.log_rho("x")


def test_without_tables_there_are_no_terms(tmp_path):
    assert read_terms(tmp_path) is None


def test_traces_without_scores_or_verdicts(tmp_path):
    write_traces(tmp_path, {"q0": ""}, {("q0", 0): {}})
    terms = read_terms(tmp_path)
    assert not terms.is_scored.any() and terms.num_answers is None
    with pytest.raises(ValueError, match="needs verdicts"):
        terms.accuracy()


def test_rows_of_an_unknown_trace_are_refused(tmp_path):
    write_traces(tmp_path, {"q0": ""}, {("q0", 0): {}})
    write_traces(tmp_path, {}, {("q0", 1): {"logps": (-1.0, -1.0)}}, only_scores=True)
    with pytest.raises(ValueError, match="rows of traces that were never sampled"):
        read_terms(tmp_path)


def test_weights_equal_those_of_the_builder():
    rng = np.random.default_rng(0)
    log_rho = rng.normal(size=(50, 8)) * 30
    log_rho[rng.random(log_rho.shape) < 0.3] = -math.inf
    log_rho[7] = -math.inf
    found = weights(log_rho)
    sizes = iter(effective_sample_sizes(found))
    for line, weight in zip(log_rho, found, strict=True):
        wanted = normalized_weights(line.tolist())
        if wanted is None:
            assert np.isnan(weight).all()
        else:
            assert weight.tolist() == pytest.approx(wanted, rel=1e-12)
            assert next(sizes) == pytest.approx(effective_sample_size(wanted), rel=1e-12)
    assert next(sizes, None) is None


def test_weight_mass_by_hand():
    accuracy = np.array([0.0, 0.25, 0.26, 0.8, 1.0])
    assert bin_accuracy(accuracy).tolist() == [0, 1, 2, 4, 5]
    by_method = question_weights(accuracy)
    assert weight_mass(accuracy, by_method["SFT"]).tolist() == [0.2, 0.2, 0.2, 0, 0.2, 0.2]
    assert weight_mass(accuracy, by_method["rho~ (this method)"]).tolist() == [
        0,
        0.25,
        0.25,
        0,
        0.25,
        0.25,
    ]
    # P / sum P = .25, .26, .8, 1 over 2.31
    assert weight_mass(accuracy, by_method["rejection sampling"]) == pytest.approx(
        [0, 0.25 / 2.31, 0.26 / 2.31, 0, 0.8 / 2.31, 1 / 2.31]
    )
    # sqrt(P / (1 - P)): 0, sqrt(1/3), sqrt(26/74), 2; equal rewards at P = 1 teach nothing
    assert by_method["GRPO"] == pytest.approx([0, math.sqrt(1 / 3), math.sqrt(26 / 74), 2, 0])
    for kind, name in (("none", "SFT"), ("accuracy", "rejection sampling"), ("grpo", "GRPO")):
        assert by_method[name] == pytest.approx(
            [question_weight(kind, value) for value in accuracy.tolist()]
        )
    assert weight_mass(accuracy, np.zeros(5)).tolist() == [0] * 6
