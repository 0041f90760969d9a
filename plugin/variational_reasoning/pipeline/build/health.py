"""Whether the sampled traces are fit to train on: shares and warnings about the model that wrote
them (stage 8).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.weights import effective_sample_size, normalized_weights
from variational_reasoning.pipeline.build.join import Joined
from variational_reasoning.pipeline.build.traces import Block, Trace

HEALTH = "health.json"
HEALTH_RANGES = {
    "malformed_share": (0.0, 0.05),
    "copies_share": (0.0, 0.5),
    "coverage": (0.9, 1.0),
    "mean_effective_sample_size": (0.25, 0.875),
}
"""Where a posterior is neither under- nor over-trained; the effective sample size is a share of K
(2 to 7 of 8).
"""

OTHER_IDS_SHARE = 0.01
"""Share of a file's traces that may be trained as other ids than the scored ones without a warning.
"""

_MEANINGS = {
    "malformed_share": "the {} is trained too short, or its traces are cut",
    "copies_share": "the {} is trained too long and repeats the training traces",
    "coverage": "few questions have any trace with an accepted answer",
    "mean_effective_sample_size": "one trace takes nearly all weight, or the weights tell nothing "
    "apart",
}


class HealthCounter:
    """What the traces say about the model that sampled them, counted block by block."""

    def __init__(self, joined: Joined, sampler: str, hint: str = "reference") -> None:
        """Args: sampler: posterior or reasoner. hint: sampling.hint of these traces."""
        self.joined = joined
        self.sampler = sampler
        self.hint = hint
        self.estimator = _health_estimator(joined.has_verdicts)
        self._sizes: list[float] = []
        self._num_compared = 0
        self._num_copies = 0

    def add(self, block: Block) -> None:
        """Count the copies and the effective sample sizes of some questions."""
        self._num_compared += block.num_compared
        self._num_copies += block.num_copies
        for traces in block.traces.values():
            if not traces:
                continue
            size = _effective_sample_size(traces, self.estimator)
            if size is not None:
                self._sizes.append(size)

    def health(self) -> dict[str, Any]:
        """The figures, and warnings where one is out of its range.

        Returns: shares in [0, 1]; the effective sample size is a mean over questions that have
        weights, between 1 and K; its weights are those of Acc, or of GML without verdicts.
        `coverage`, the share of questions with an accepted answer among the K, is None without
        verdicts; `copies_share` where no question has a trace of its own.
        """
        joined = self.joined
        sizes = self._sizes
        num_questions = len(joined.questions)
        num_malformed = len(joined.traces) - joined.traces["is_well_formed"].sum()
        copies_share = None
        if self._num_compared:
            copies_share = self._num_copies / self._num_compared
        coverage = None
        if joined.has_verdicts:
            accepted = joined.candidates.filter(pl.col("num_correct") > 0)
            coverage = accepted["question_id"].n_unique() / num_questions
        mean_size = None
        if sizes:
            mean_size = math.fsum(sizes) / len(sizes)

        health: dict[str, Any] = {"traces_from": self.sampler}
        if self.hint != "reference":
            health["hint"] = self.hint
        health |= {
            "num_questions": num_questions,
            "num_traces_per_question": joined.num_traces,
            "malformed_share": num_malformed / len(joined.traces),
            "copies_share": copies_share,
            "coverage": coverage,
            **_extremes(joined),
            "mean_effective_sample_size": mean_size,
            "num_questions_without_weights": num_questions - len(sizes),
            "estimator": self.estimator,
        }
        warnings = _warnings(health, self.sampler, joined.num_traces)
        return health | {"warnings": warnings}


def _warnings(health: Mapping[str, Any], sampler: str, num_traces: int) -> list[str]:
    """One for each figure that is outside its range."""
    warnings = []
    for name, (low, high) in HEALTH_RANGES.items():
        if name == "mean_effective_sample_size":
            if num_traces == 1:
                continue  # it is 1 by definition
            low *= num_traces
            high *= num_traces
        value = health[name]
        if value is not None and not low <= value <= high:
            meaning = _MEANINGS[name].format(sampler)
            warnings.append(f"{name} is {value:.3g}, outside {low:g} to {high:g}: {meaning}")
    return warnings


def ids_warnings(trained_ids: Mapping[str, Mapping[str, int] | None]) -> list[str]:
    """Warnings for train files in which too many traces are trained as other ids than those that
    were scored.

    Args:
        trained_ids: file to {"rows", "differ"}; None for a file that an earlier release wrote.
    """
    warnings = []
    for name, counted in trained_ids.items():
        if counted is None:
            continue
        if counted["differ"] > OTHER_IDS_SHARE * counted["rows"]:
            warnings.append(
                f"{name}: {counted['differ']} of {counted['rows']} traces are trained as other ids "
                "than those that were sampled and scored, because their text re-tokenizes "
                "differently; their rho is of another sequence"
            )
    return warnings


def describe_health(health: Mapping[str, Any]) -> list[str]:
    """The lines that the command prints."""
    copies = _percentage(health["copies_share"])
    coverage = _percentage(health["coverage"])
    mean_size = health["mean_effective_sample_size"]
    size = f"{mean_size:.2f}" if mean_size else "none"
    lines = [
        f"{health['traces_from']}: malformed {health['malformed_share']:.1%}, copies {copies}, "
        f"coverage {coverage}, effective sample size {size} of "
        f"{health['num_traces_per_question']}"
    ]
    if health.get("num_questions_never_right") is not None:
        lines.append(
            f"questions that are never answered right {health['num_questions_never_right']}, "
            f"always {health['num_questions_always_right']}, of {health['num_questions']}; "
            "build.question_accuracy can leave them out"
        )
    for name, counted in health.get("trained_ids", {}).items():
        if counted:
            lines.append(
                f"{name}: {counted['differ']} of {counted['rows']} traces are trained as other ids "
                f"than the scored ones"
            )
    lines += [f"warning: {warning}" for warning in health["warnings"]]
    return lines


def _percentage(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _extremes(joined: Joined) -> dict[str, int | None]:
    """How many questions are never, and how many always answered right; None without verdicts."""
    num_never = None
    num_always = None
    if joined.has_verdicts:
        accuracies = [
            joined.question_accuracy(question_id, joined.num_traces)
            for question_id in joined.questions
        ]
        num_never = accuracies.count(0)
        num_always = accuracies.count(1)
    return {"num_questions_never_right": num_never, "num_questions_always_right": num_always}


def _health_estimator(has_verdicts: bool) -> str:
    """The first estimator whose tables are there."""
    for name, estimator in ESTIMATORS.items():
        if has_verdicts or not estimator.samples_answers:
            return name
    raise AssertionError("no estimator works without verdicts")


def _effective_sample_size(traces: Sequence[Trace], estimator: str) -> float | None:
    """Of a question's candidates, with the mean ratio where both models' log-likelihoods are there;
    None for a question without weights.
    """
    has_ratios = all(trace.log_ratio is not None for trace in traces)
    ratio = "mean" if has_ratios else "none"
    log_rhos = [trace.log_rho(estimator, ratio) for trace in traces]
    weights = normalized_weights(log_rhos)
    if weights is None:
        return None
    return effective_sample_size(weights)
