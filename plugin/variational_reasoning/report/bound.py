"""How tight the bound is on the run's own traces: L_1 .. L_K of Eq. 5, with bootstrap intervals.

L_k is the mean over questions of E log (1/k) sum_{i in S} rho_i, where S is a set of k traces of
the posterior. The mean over k-subsets of a question's K traces estimates the expectation. With
three traces of rho 1, 2 and 3:

    L_1    (log 1 + log 2 + log 3) / 3          = 0.597    subsets {1}, {2}, {3}
    L_2    (log 1.5 + log 2 + log 2.5) / 3      = 0.672    subsets {1, 2}, {1, 3}, {2, 3}
    L_3    log 2                                = 0.693    subset  {1, 2, 3}

All subsets are used where there are at most MAX_SUBSETS. Otherwise that many are drawn at random
with a fixed seed, the same for every question. The order of the traces has no influence. So the
estimate is unbiased for every k. With all subsets it never decreases in k.

With the sum of log ratios and the likelihood of the reference solution, this is the paper's bound.
With their geometric means, it is the method's own surrogate and does not bound anything.

With Acc, a trace without a correct answer makes log rho, and so L_1, minus infinity. In this
estimate, and only here, an accuracy of 0 of M counts as half an answer, 1/(2M). The result says for
how many traces.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from variational_reasoning.method.estimators import find_estimator
from variational_reasoning.method.evaluation import bootstrap_columns
from variational_reasoning.report.traces import TraceTerms

MAX_SUBSETS = 256
NUM_RESAMPLES = 1000
_QUESTIONS_AT_ONCE = 512


class Bound(NamedTuple):
    """L_1 .. L_K in nats, with 95 % intervals over questions, and the counts that they come from.

    means, lows, highs: [K] each.
    num_questions: those with all K traces scored, over which the mean is.
    num_left_out: questions with a trace that was malformed, cut, dropped or not scored.
    num_floored: traces whose accuracy of 0 counts as half an answer.
    """

    means: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    num_questions: int
    num_left_out: int
    num_floored: int


def estimate_bound(terms: TraceTerms, estimator: str, ratio: str, seed: int = 0) -> Bound | None:
    """The bound of one run; None when no question has all its traces scored.

    Args:
        estimator: a name in ESTIMATORS, of pi(Y_x | x, z).
        ratio: `sum` for the likelihood ratio, `mean` for its geometric mean per token.
        seed: of the subsets and of the bootstrap.

    Raises: ValueError for another ratio or estimator.
    Source: arXiv 2509.22637, Eq. 5.
    """
    if ratio not in ("sum", "mean"):
        raise ValueError(f"ratio {ratio!r} is not one of sum, mean")
    log_answer = terms.log_answer(estimator)
    is_usable = terms.is_scored & ~np.isnan(log_answer)
    is_whole = is_usable.all(axis=1)  # [Q], questions with all their K traces
    if not is_whole.any():
        return None
    num_floored = 0
    samples_answers = find_estimator(estimator).samples_answers
    if samples_answers and terms.num_answers is not None and terms.num_correct is not None:
        is_zero = np.equal(terms.num_correct, 0)
        num_floored = int(is_zero[is_whole].sum())
        with np.errstate(divide="ignore"):
            half_an_answer = np.log(0.5 / terms.num_answers)
        log_answer = np.where(is_zero, half_an_answer, log_answer)
    log_ratio = terms.mean_log_ratio
    if ratio == "sum":
        log_ratio = terms.sum_log_ratio
    log_rho = log_ratio + log_answer
    per_question = subset_means(log_rho[is_whole], seed)
    intervals = bootstrap_columns(per_question, seed, NUM_RESAMPLES)
    means, lows, highs = np.array(intervals).T
    num_whole = int(is_whole.sum())
    return Bound(
        means,
        lows,
        highs,
        num_questions=num_whole,
        num_left_out=len(is_whole) - num_whole,
        num_floored=num_floored,
    )


def subset_means(log_rho: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each question and k, the mean over k-subsets S of log (1/k) sum_{i in S} rho_i, in nats.

    Args:
        log_rho: [Q, K] finite.

    Returns: [Q, K], column k - 1 for subsets of k.
    """
    num_questions, num_traces = log_rho.shape
    rng = np.random.default_rng(seed)
    means = np.empty((num_questions, num_traces))
    for k in range(1, num_traces + 1):
        subsets = _subsets(num_traces, k, rng)
        for start in range(0, num_questions, _QUESTIONS_AT_ONCE):
            block = slice(start, start + _QUESTIONS_AT_ONCE)
            chosen = log_rho[block][:, subsets]  # [questions, subsets, k]
            log_sums = np.logaddexp.reduce(chosen, axis=2)
            log_means = log_sums - math.log(k)
            means[block, k - 1] = log_means.mean(axis=1)
    return means


def _subsets(num_traces: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """[S, k] indices: all subsets of k of `num_traces`, or MAX_SUBSETS random ones."""
    if math.comb(num_traces, k) <= MAX_SUBSETS:
        return np.array(list(combinations(range(num_traces), k)))
    # The places of the k smallest of K random numbers are a random subset of k. Example, k = 2: of
    # 0.9 0.1 0.4 the two smallest are at the places 1 and 2.
    numbers = rng.random((MAX_SUBSETS, num_traces))
    smallest_first = numbers.argpartition(k - 1, axis=1)
    return smallest_first[:, :k]
