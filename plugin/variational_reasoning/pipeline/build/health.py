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
        self.joined, self.sampler, self.hint = joined, sampler, hint
        self.estimator = _health_estimator(joined.has_verdicts)
        self._sizes: list[float] = []
        self._num_compared, self._num_copies = 0, 0

    def add(self, block: Block) -> None:
        """Count the copies and the effective sample sizes of some questions."""
        self._num_compared += block.num_compared
        self._num_copies += block.num_copies
        for traces in block.traces.values():
            if traces:
                size = _effective_sample_size(traces, self.estimator)
                self._sizes += [] if size is None else [size]

    def health(self) -> dict[str, Any]:
        """The figures, and warnings where one is out of its range.

        Returns: shares in [0, 1]; the effective sample size is a mean over questions that have
        weights, between 1 and K; its weights are those of Acc, or of GML without verdicts.
        `coverage`, the share of questions with an accepted answer among the K, is None without
        verdicts; `copies_share` where no question has a trace of its own.
        """
        joined, sizes = self.joined, self._sizes
        num_traces, num_questions = joined.num_traces, len(joined.questions)
        num_malformed = len(joined.traces) - joined.traces["is_well_formed"].sum()
        accepted = joined.candidates.filter(pl.col("num_correct") > 0)
        num_covered = accepted["question_id"].n_unique()
        copies_share = self._num_copies / self._num_compared if self._num_compared else None
        health: dict[str, Any] = {
            "traces_from": self.sampler,
            **({} if self.hint == "reference" else {"hint": self.hint}),
            "num_questions": num_questions,
            "num_traces_per_question": num_traces,
            "malformed_share": num_malformed / len(joined.traces),
            "copies_share": copies_share,
            "coverage": num_covered / num_questions if joined.has_verdicts else None,
            **_extremes(joined),
            "mean_effective_sample_size": math.fsum(sizes) / len(sizes) if sizes else None,
            "num_questions_without_weights": num_questions - len(sizes),
            "estimator": self.estimator,
        }
        return health | {"warnings": _warnings(health, self.sampler, num_traces)}


def _warnings(health: Mapping[str, Any], sampler: str, num_traces: int) -> list[str]:
    warnings = []
    for name, (low, high) in HEALTH_RANGES.items():
        scale = num_traces if name == "mean_effective_sample_size" else 1
        value = health[name]
        if scale == 1 and name == "mean_effective_sample_size":
            continue  # with one trace per question it is 1 by definition
        if value is not None and not low * scale <= value <= high * scale:
            meaning = _MEANINGS[name].format(sampler)
            warnings.append(
                f"{name} is {value:.3g}, outside {low * scale:g} to {high * scale:g}: {meaning}"
            )
    return warnings


def ids_warnings(trained_ids: Mapping[str, Mapping[str, int] | None]) -> list[str]:
    """Warnings for train files in which too many traces are trained as other ids than those that
    were scored.

    Args:
        trained_ids: file to {"rows", "differ"}; None for a file that an earlier release wrote.
    """
    warnings = []
    for name, counted in trained_ids.items():
        if counted and counted["differ"] > OTHER_IDS_SHARE * counted["rows"]:
            warnings.append(
                f"{name}: {counted['differ']} of {counted['rows']} traces are trained as other ids "
                "than those that were sampled and scored, because their text re-tokenizes "
                "differently; their rho is of another sequence"
            )
    return warnings


def describe_health(health: Mapping[str, Any]) -> list[str]:
    """The lines that the command prints."""
    copies = health["copies_share"]
    line = (
        f"{health['traces_from']}: malformed {health['malformed_share']:.1%}, copies "
        + ("not measured" if copies is None else f"{copies:.1%}")
        + ", coverage "
        + ("not measured" if health["coverage"] is None else f"{health['coverage']:.1%}")
        + ", effective sample size "
        + (
            f"{health['mean_effective_sample_size']:.2f}"
            if health["mean_effective_sample_size"]
            else "none"
        )
        + f" of {health['num_traces_per_question']}"
    )
    lines = [line]
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
    return [*lines, *(f"warning: {warning}" for warning in health["warnings"])]


def _extremes(joined: Joined) -> dict[str, int | None]:
    """How many questions are never, and how many always answered right; None without verdicts."""
    names = ("num_questions_never_right", "num_questions_always_right")
    if not joined.has_verdicts:
        return dict.fromkeys(names)
    accuracies = [joined.question_accuracy(name, joined.num_traces) for name in joined.questions]
    return dict(zip(names, (accuracies.count(0), accuracies.count(1)), strict=True))


def _health_estimator(has_verdicts: bool) -> str:
    """The first estimator whose tables are there."""
    is_fitting = (
        name
        for name, estimator in ESTIMATORS.items()
        if has_verdicts or not estimator.samples_answers
    )
    return next(is_fitting)


def _effective_sample_size(traces: Sequence[Trace], estimator: str) -> float | None:
    """Of a question's candidates, with the mean ratio where both models' log-likelihoods are there;
    None for a question without weights.
    """
    ratio = "none" if any(trace.log_ratio is None for trace in traces) else "mean"
    weights = normalized_weights([trace.log_rho(estimator, ratio) for trace in traces])
    return None if weights is None else effective_sample_size(weights)
