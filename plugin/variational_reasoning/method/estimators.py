"""How pi(Y_x | x, z) is estimated: the probability that the reasoner answers right after a trace
(Eq. 8).

    acc          num_correct / num_answers                the share of sampled answers that are
    verified gml          exp(answer_logp / answer_tokens)         geometric mean likelihood of the
    reference solution likelihood   exp(answer_logp)                         likelihood of the same

Each has one entry in ESTIMATORS and one function, which gives the logarithm. To add another, write
both here: the configuration's choices, the tables that stage 8 asks for, the weights and the report
follow.

Source: arXiv 2509.22637, section 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from variational_reasoning.method.weights import check_logp


class Evidence(NamedTuple):
    """What is known of the answers after one trace; None where the stage did not run.

    num_correct, num_answers: counts of decided verdicts (stage 7).
    answer_logp, answer_tokens: of the reference solution under the reasoner, in nats (stage 4).
    """

    num_correct: int | None = None
    num_answers: int | None = None
    answer_logp: float | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Estimator:
    """One way to estimate pi(Y_x | x, z).

    label: what plots and tables call it.
    tables: those of the pipeline that it needs; `reasoner` is the reasoner's trace_logps.
    log_term: the logarithm of the estimate, at most 0; minus infinity where no answer is right.
    ratios: the likelihood ratios that it belongs to in the report's bounds (`weights.RATIOS`).
    is_fallback: whether it may choose among the traces of a question that has no right answer.
    """

    name: str
    label: str
    tables: tuple[str, ...]
    log_term: Callable[[Evidence], float]
    ratios: tuple[str, ...]
    is_fallback: bool = False

    @property
    def samples_answers(self) -> bool:
        """Whether it judges sampled answers: then it can be 0, and a train row ends with a verified
        one.
        """
        return "verdicts" in self.tables

    def is_known(self, evidence: Evidence) -> bool:
        """Whether the evidence has what it needs."""
        if self.samples_answers:
            return evidence.num_correct is not None and bool(evidence.num_answers)
        return evidence.answer_logp is not None and evidence.answer_tokens is not None


def log_accuracy(num_correct: int, num_answers: int) -> float:
    """log of the fraction of sampled answers that the verifier accepts; minus infinity when it
    accepts none.

    Raises: ValueError when there are no answers, or more correct ones than answers.
    Source: arXiv 2509.22637, Eq. 8.
    """
    if num_answers < 1:
        raise ValueError(f"num_answers is {num_answers}; the accuracy of no answers is not defined")
    if not 0 <= num_correct <= num_answers:
        raise ValueError(f"num_correct is {num_correct}, outside 0..{num_answers}")
    return math.log(num_correct / num_answers) if num_correct else -math.inf


def log_gml(answer_logp: float, answer_tokens: int) -> float:
    """Mean log-likelihood per token of the reference solution after (x, z), in nats: the log of the
    geometric mean.

    Raises: ValueError for a log-likelihood that is not finite or positive, and for an empty
    solution.
    Source: arXiv 2509.22637, section 2, the estimators next to Eq. 8.
    """
    check_logp("answer_logp", answer_logp)
    if answer_tokens < 1:
        raise ValueError(
            f"answer_tokens is {answer_tokens}; a solution of no tokens has no mean log-likelihood"
        )
    return answer_logp / answer_tokens


def log_likelihood(answer_logp: float, answer_tokens: int) -> float:
    """Log-likelihood of the reference solution after (x, z), in nats. Raises: as `log_gml`."""
    log_gml(answer_logp, answer_tokens)
    return answer_logp


def _acc(evidence: Evidence) -> float:
    if evidence.num_correct is None or evidence.num_answers is None:
        raise ValueError("estimator 'acc' needs num_correct and num_answers (stages 6 and 7)")
    return log_accuracy(evidence.num_correct, evidence.num_answers)


def _of_the_solution(
    name: str, log_term: Callable[[float, int], float]
) -> Callable[[Evidence], float]:
    def checked(evidence: Evidence) -> float:
        if evidence.answer_logp is None or evidence.answer_tokens is None:
            raise ValueError(
                f"estimator {name!r} needs answer_logp and answer_tokens of the reasoner (stage 4)"
            )
        return log_term(evidence.answer_logp, evidence.answer_tokens)

    return checked


_ALL = (
    Estimator("acc", "Acc", ("answers", "verdicts"), _acc, ratios=("sum", "mean")),
    Estimator(
        "gml",
        "GML",
        ("reasoner",),
        _of_the_solution("gml", log_gml),
        ratios=("mean",),
        is_fallback=True,
    ),
    Estimator(
        "likelihood",
        "L",
        ("reasoner",),
        _of_the_solution("likelihood", log_likelihood),
        ratios=("sum",),
    ),
)
ESTIMATORS = {estimator.name: estimator for estimator in _ALL}
"""Every estimator by the name that a pipeline.yaml gives it."""


def find_estimator(name: str) -> Estimator:
    """The estimator of this name. Raises: ValueError that lists the known ones."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is not one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]


def log_answer_term(
    estimator: str,
    num_correct: int | None = None,
    num_answers: int | None = None,
    answer_logp: float | None = None,
    answer_tokens: int | None = None,
) -> float:
    """The logarithm of the estimate of pi(Y_x | x, z), at most 0.

    Raises: ValueError for an unknown estimator or a term that it needs and that is missing.
    """
    evidence = Evidence(num_correct, num_answers, answer_logp, answer_tokens)
    return find_estimator(estimator).log_term(evidence)
