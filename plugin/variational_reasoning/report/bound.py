"""How tight the bound is on the run's own traces: estimates of L_1 .. L_K of Eq. 5, with bootstrap intervals.

L_k is the mean over questions of E log (1/k) sum_{i in S} rho_i, with S a set of k traces from the posterior. From the K
traces of a question, the expectation is estimated by the mean over its k-subsets: over all of them where there are at most
MAX_SUBSETS, otherwise over that many drawn under a fixed seed, the same for every question. No order of the traces
is preferred, and so the estimate of L_k is unbiased for every k, and the exact ones never decrease in k.

With the sum of log ratios and the likelihood of the reference solution this is the bound of the paper; with their
geometric means it is the method's own surrogate of it and bounds nothing.

The surprising thing: with Acc one trace without a correct answer makes log rho, and so L_1, minus infinity. An accuracy of 0
of M therefore counts as half an answer, 1/(2M), in this estimate and nowhere else; how many did is part of the result.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from variational_reasoning.report.traces import TraceTerms

MAX_SUBSETS = 256
NUM_RESAMPLES = 1000
_QUESTIONS_AT_ONCE = 512


class Bound(NamedTuple):
    """L_1 .. L_K in nats, [K] each: estimate and 95 % interval over questions; and what it stands on.

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
        estimator: acc, gml or likelihood, of pi(Y_x | x, z).
        ratio: `sum` for the likelihood ratio, `mean` for its geometric mean per token.
        seed: of the subsets and of the bootstrap.

    Raises: ValueError for another ratio or estimator.
    Source: arXiv 2509.22637, Eq. 5.
    """
    if ratio not in ("sum", "mean"):
        raise ValueError(f"ratio {ratio!r} is not one of sum, mean")
    log_answer = terms.log_answer(estimator)
    num_floored = 0
    is_usable = terms.is_scored & ~np.isnan(log_answer)
    is_whole = is_usable.all(axis=1)
    if not is_whole.any():
        return None
    if estimator == "acc":
        is_zero = terms.num_correct == 0
        num_floored = int((is_zero & is_whole[:, None]).sum())
        with np.errstate(divide="ignore"):
            log_answer = np.where(is_zero, np.log(0.5 / terms.num_answers), log_answer)
    log_ratio = terms.sum_log_ratio if ratio == "sum" else terms.mean_log_ratio
    per_question = subset_means((log_ratio + log_answer)[is_whole], seed)
    lows, highs = bootstrap(per_question, seed)
    counts = int(is_whole.sum()), int((~is_whole).sum())
    return Bound(per_question.mean(axis=0), lows, highs, *counts, num_floored)


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
            chosen = log_rho[start : start + _QUESTIONS_AT_ONCE][:, subsets]
            logs = np.logaddexp.reduce(chosen, axis=2) - math.log(k)
            means[start : start + _QUESTIONS_AT_ONCE, k - 1] = logs.mean(axis=1)
    return means


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and 97.5th percentile of the mean over lines, when the lines are drawn anew with return.

    Args:
        values: [Q, K]; a line is a question, so its K columns stay together.

    Returns: [K] each.
    """
    rng = np.random.default_rng(seed)
    num_questions = len(values)
    resampled = np.empty((NUM_RESAMPLES, values.shape[1]))
    for i in range(NUM_RESAMPLES):
        counts = np.bincount(
            rng.integers(num_questions, size=num_questions), minlength=num_questions
        )
        resampled[i] = counts @ values / num_questions
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high


def _subsets(num_traces: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """[S, k] indices: all subsets of k of `num_traces`, or MAX_SUBSETS random ones."""
    if math.comb(num_traces, k) <= MAX_SUBSETS:
        return np.array(list(combinations(range(num_traces), k)))
    return rng.random((MAX_SUBSETS, num_traces)).argpartition(k - 1, axis=1)[:, :k]
