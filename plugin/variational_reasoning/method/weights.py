"""From stored log-likelihoods to the weight of a trace: rho, its normalization, and effective
sample size (stage 8).

For one question x and its traces z_1 .. z_K sampled from the posterior q (arXiv 2509.22637, Eq. 5,
6 and 8):

    log rho_k        = log_ratio_k + log_answer_k
    weight_k         = rho_k / sum_j rho_j                              Eq. 6

    log_ratio_k      = mean_log_ratio_k                `mean`, the default
                     = |z_k| * mean_log_ratio_k        `sum`, the full ratio of Eq. 5
                     = 0                               `none`, for traces of pi itself (Eq. 9)
    mean_log_ratio_k = 1/|z_k| * sum_t [log pi(z_kt | x, z_k<t) - log q(z_kt | x, y', z_k<t)]
                                                       before Eq. 8
    log_answer_k     = log(num_correct / num_answers)  Acc, Eq. 8
                     = answer_logp / answer_tokens     GML, of the reference solution
                     = answer_logp                     its plain likelihood

With ratio `none` and Acc, weight_k is w~_k of the posterior's forward KL (Eq. 9). Times a weight of
the question, it gives the baselines of section 3 (Eq. 10 to 12).

Everything is plain float64 in log space, because rho itself spans hundreds of orders of magnitude
with the plain likelihood. log rho may be minus infinity (no verified answer), and a question may
have nothing but that. Such a question has no weights, which is a value of its own (None) and never
a division by zero.
"""

import math
from collections.abc import Sequence

RATIOS = ("mean", "sum", "none")
"""How the likelihood ratio of a trace enters rho."""

QUESTION_WEIGHTS = ("none", "accuracy", "grpo")
"""What the normalized weights of a question's traces are multiplied by, by name."""

POWERS = {"none": 0.0, "accuracy": 1.0}
"""The names that are a power of the accuracy."""

_ROUNDING = 1e-3
"""Nats above zero that a float32 log-softmax of certain tokens may sum to."""


def log_ratio(reasoner_logp: float, posterior_logp: float, num_tokens: int) -> tuple[float, float]:
    """(mean, sum) over a trace's tokens of log pi - log q, in nats.

    Args:
        reasoner_logp: log pi(z | x), summed over the trace's ids, in nats.
        posterior_logp: log q(z | x, y'), summed over the same ids, in nats.
        num_tokens: |z|, the number of those ids.

    Raises: ValueError for a log-likelihood that is not finite or positive, and for an empty trace.
    Source: arXiv 2509.22637, before Eq. 8.
    """
    check_logp("reasoner_logp", reasoner_logp)
    check_logp("posterior_logp", posterior_logp)
    if num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}; a trace of no tokens has no mean log ratio")
    total = reasoner_logp - posterior_logp
    return total / num_tokens, total


def log_rho(ratio: str, ratios: tuple[float, float] | None, log_answer: float) -> float:
    """log rho in nats: the log ratio as `ratio` says, plus the logarithm of the answer term.

    Args:
        ratio: one of RATIOS.
        ratios: (mean, sum) of `log_ratio`; may be None with `none`.
        log_answer: of an estimator (estimators.py); minus infinity where no answer is verified.

    Raises: ValueError for an unknown ratio, and for one that is asked for and missing.
    Source: arXiv 2509.22637, Eq. 5 (sum), before Eq. 8 (mean), Eq. 9 (none).
    """
    if ratio not in RATIOS:
        raise ValueError(f"ratio {ratio!r} is not one of {', '.join(RATIOS)}")
    if ratio == "none":
        return log_answer
    if ratios is None:
        raise ValueError(
            f"ratio {ratio!r} needs the log-likelihoods of both models (stages 4 and 5)"
        )
    mean, total = ratios
    if ratio == "mean":
        return mean + log_answer
    return total + log_answer


def question_weight(kind: str | float, accuracy: float) -> float:
    """The factor of a whole question, from the share P of its sampled answers that are verified
    (section 3).

    A number a is P^a, a family with the paper's cases in it:

        a = 1    `accuracy`: forward KL is rejection-sampling fine-tuning (Eq. 10), and each
                 verified answer counts alike
        a = 0    `none`, the factor 1: maximum likelihood. The gradient of log P(Y_x | x) is that
                 of P(Y_x | x) divided by P, so this is what dividing the policy gradient by P
                 gives (MaxRL, arXiv 2602.02710)
        a < 0    favors hard questions; one without any verified answer has nothing to learn
                 from, and its factor is 0

    With P = 1/4 and 1, and two verified traces each: a = 1 gives 0.25 and 1, a = 0 gives 1 and 1,
    a = -0.5 gives 2 and 1.

    `grpo` is sqrt(P / (1 - P)) (Eq. 12). At P = 1 that has no value: all samples of the group have
    the same reward, so each advantage is 0, and 0 is what this returns.

    Raises: ValueError for an unknown kind, and an accuracy outside [0, 1].
    Source: arXiv 2509.22637, Eq. 10 to 12.
    """
    if isinstance(kind, str) and kind not in QUESTION_WEIGHTS:
        raise ValueError(f"question weight {kind!r} is not one of {', '.join(QUESTION_WEIGHTS)}")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is {accuracy}, outside 0..1")
    if kind == "grpo":
        if accuracy == 1:
            return 0.0
        return math.sqrt(accuracy / (1 - accuracy))
    power = POWERS[kind] if isinstance(kind, str) else kind
    if power == 0:
        return 1.0
    if accuracy == 0:
        return 0.0
    return accuracy**power


def normalized_weights(log_rhos: Sequence[float]) -> list[float] | None:
    """Self-normalized importance weights rho_k / sum_j rho_j of one question's traces.

    Args:
        log_rhos: (K,) log rho in nats; minus infinity means weight 0.

    Returns: (K,) weights that sum to 1, or None when every entry is minus infinity.
    Raises: ValueError for no entries, NaN or plus infinity.
    Source: arXiv 2509.22637, Eq. 6.
    """
    peak = _peak(log_rhos)
    if peak == -math.inf:
        return None
    scaled = [math.exp(value - peak) for value in log_rhos]
    total = math.fsum(scaled)
    return [value / total for value in scaled]


def capped_weights(weights: Sequence[float], cap: float) -> list[float]:
    """min(weight, cap) of normalized weights: truncated importance sampling.

    The result is not normalized again. That would lift capped weights above the cap, and give what
    a dominant trace loses to the others, which are not more likely for it; so a question whose
    weights were capped counts less.

    Raises: ValueError for a cap outside (0, 1].
    """
    if not 0 < cap <= 1:
        raise ValueError(
            f"cap is {cap}; normalized weights are capped at a number above 0 and at most 1"
        )
    return [min(weight, cap) for weight in weights]


def effective_sample_size(weights: Sequence[float]) -> float:
    """(sum_k weight_k)^2 / sum_k weight_k^2: how many equally weighted traces the weights are
    worth, between 1 and K.

    Raises: ValueError when a weight is negative, and when none is positive.
    """
    if min(weights, default=-1.0) < 0 or max(weights) == 0:
        raise ValueError(
            f"weights must be non-negative and one of them positive; they are {list(weights)!r:.80}"
        )
    peak = max(weights)  # squares of small weights must not vanish
    shares = [weight / peak for weight in weights]
    squares = [share**2 for share in shares]
    return math.fsum(shares) ** 2 / math.fsum(squares)


def iwae_bound(log_rhos: Sequence[float]) -> float:
    """One question's estimate of L_K = E log (1/K) sum_k rho_k, in nats; minus infinity when all
    rhos are 0.

    With the geometric mean in place of the likelihood ratio this is not a bound on the marginal
    likelihood any more; give it sum_log_ratio + log_answer for the bound of the paper.

    Raises: ValueError for no entries, NaN or plus infinity.
    Source: arXiv 2509.22637, Eq. 5.
    """
    peak = _peak(log_rhos)
    if peak == -math.inf:
        return -math.inf
    # With the peak taken out no exponential overflows: rho of 1, 2 and 3 are 1/3, 2/3 and 1.
    scaled = [math.exp(value - peak) for value in log_rhos]
    mean = math.fsum(scaled) / len(log_rhos)
    return peak + math.log(mean)


def top_p_warning(top_p: float, names: Sequence[str]) -> str:
    """Why rho is biased for traces that were sampled with top_p below 1.

    Args:
        names: what is made from rho.
    """
    return (
        f"traces were sampled with top_p {top_p:g}, but q(z | x, y') is scored without it: rho "
        "takes each trace for less likely under the posterior than it was, by a factor that "
        f"differs between traces ({', '.join(names)}). Sample with top_p 1, or use ratio: none"
    )


def _peak(log_rhos: Sequence[float]) -> float:
    if not log_rhos:
        raise ValueError("log_rhos is empty; a question needs at least one trace")
    for index, value in enumerate(log_rhos):
        if math.isnan(value) or value == math.inf:
            raise ValueError(
                f"log_rhos[{index}] is {value}; allowed are finite values and minus infinity"
            )
    return max(log_rhos)


def check_logp(name: str, value: float) -> None:
    """Raises: ValueError for a sum of token log-probabilities that is not finite or positive."""
    if not math.isfinite(value) or value > _ROUNDING:
        raise ValueError(
            f"{name} is {value}; a sum of token log-probabilities is finite and at most 0"
        )
