"""Which traces of a question become rows, and with which weights (stage 8; Eqs. 6, 9 to 12, App.
C).

    best        the one with the highest log rho, weight 1; ties go to the lower trace_id
    weighted    all, with rho~ (capped on request); those of weight zero are left out and counted
    random      one of those that `best` chooses among, under the seed, weight 1: a control arm
    longest     the same by trace tokens; ties go to the lower trace_id: a control arm
    unweighted  all, acceptable or not, with weight 1: a control arm

A trace is acceptable when its rho is not zero, with Acc when one of its answers is verified. All
draws are hashes of the seed and ids, so a row does not depend on the other rows.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from variational_reasoning.method.weights import (
    capped_weights,
    effective_sample_size,
    normalized_weights,
    question_weight,
)
from variational_reasoning.pipeline.build.traces import Answer, Trace
from variational_reasoning.pipeline.config import OutputConfig, QuestionAccuracyConfig
from variational_reasoning.pipeline.work.draws import draw


class Selection(NamedTuple):
    """Chosen traces with their weights, and the effective sample size before a cap.

    The size is None where traces are not chosen by weight.
    """

    chosen: list[tuple[Trace, float]]
    effective_sample_size: float | None = None


def select(
    output: OutputConfig, candidates: Sequence[Trace], seed: int, counts: Counter
) -> Selection:
    """The chosen traces of one question; none when no candidate is acceptable.

    Adds to `counts` what was left out.
    """
    if output.selection == "unweighted":
        return Selection([(trace, 1.0) for trace in candidates])
    acceptable = []
    log_rhos = []
    for trace in candidates:
        log_rho = trace.log_rho(output.estimator, output.ratio)
        log_rhos.append(log_rho)
        if log_rho > -math.inf:
            acceptable.append(trace)
    if not acceptable:
        return Selection([])
    if output.selection == "best":
        best = best_of(acceptable, output.estimator, output.ratio)
        return Selection([(best, 1.0)])
    if output.selection == "longest":
        longest = min(acceptable, key=lambda trace: (-trace.trace_tokens, trace.trace_id))
        return Selection([(longest, 1.0)])
    if output.selection == "random":
        by_id = sorted(acceptable, key=lambda trace: trace.trace_id)
        place = draw(seed, "random trace", by_id[0].question_id) % len(by_id)
        return Selection([(by_id[place], 1.0)])
    return _weighted(output, candidates, log_rhos, counts)


def _weighted(
    output: OutputConfig, candidates: Sequence[Trace], log_rhos: Sequence[float], counts: Counter
) -> Selection:
    """Every candidate whose rho~ is not zero; at least one log rho is finite.

    With weight_cap 0.5, which is not made up for by the other weights:

        rho~      0.7  0.3  0.0      effective sample size 1 / (0.49 + 0.09) = 1.72
        chosen    0.5  0.3           capped_weights 1, dropped_weight_zero 1
    """
    weights = normalized_weights(log_rhos) or []
    size = effective_sample_size(weights)
    cap = output.weight_cap
    if cap is not None:
        counts["capped_weights"] += sum(weight > cap for weight in weights)
        weights = capped_weights(weights, cap)
    chosen = []
    for trace, weight in zip(candidates, weights, strict=True):
        if weight > 0:
            chosen.append((trace, weight))
    counts["dropped_weight_zero"] += len(candidates) - len(chosen)
    return Selection(chosen, size)


def best_of(traces: Sequence[Trace], estimator: str, ratio: str) -> Trace:
    """The trace of the highest log rho, the lower trace_id among equals."""
    return min(traces, key=lambda trace: (-trace.log_rho(estimator, ratio), trace.trace_id))


def has_wanted_accuracy(
    accuracy: float | None, limits: QuestionAccuracyConfig, counts: Counter
) -> bool:
    """Whether a question is used by build.question_accuracy; one that is not is counted.

    A question without a decided answer stays: nothing is known of it.
    """
    if accuracy is None:
        return True
    if limits.at_least is not None and accuracy < limits.at_least:
        counts["questions_below_accuracy"] += 1
        return False
    if limits.at_most is not None and accuracy > limits.at_most:
        counts["questions_above_accuracy"] += 1
        return False
    return True


def factor_of_question(kind: str | float, accuracy: float | None, counts: Counter) -> float:
    """What the weights of a question's traces are multiplied by; zero is counted with its reason.

    Args:
        kind: build.outputs.question_weight, or its power.
        accuracy: P of the question; None when no answer is decided, which has no weight then.
    """
    if kind == "none":
        return 1.0
    if accuracy is None:
        counts["questions_without_decided_answers"] += 1
        return 0.0
    factor = question_weight(kind, accuracy)
    if factor == 0.0:
        reason = "questions_all_correct" if accuracy == 1 else "questions_none_correct"
        counts[reason] += 1
    return factor


def draw_verified(trace: Trace, seed: int) -> Answer | None:
    """One verified answer, uniformly; None when there is none."""
    if not trace.verified:
        return None
    place = draw(seed, "verified answer", trace.question_id, trace.trace_id)
    return trace.verified[place % len(trace.verified)]


def draw_hint(trace: Trace, traces: Sequence[Trace], seed: int) -> Answer | None:
    """The hint for a posterior's row: uniform over the different verified answers of the question,
    U(Y_x) in Eq. 9.

    Args:
        trace: the row's; its own answers count no more than others', as the equation draws hint and
            trace independently.
        traces: all of the question.

    Returns: the first answer with the drawn text; None when no answer of the question is verified.
    """
    by_text: dict[str, Answer] = {}
    for other in traces:
        for answer in other.verified:
            by_text.setdefault(answer.solution, answer)
    if not by_text:
        return None
    # Sorted, so that the draw does not depend on which trace had an answer first.
    texts = sorted(by_text)
    place = draw(seed, "hint", trace.question_id, trace.trace_id) % len(texts)
    return by_text[texts[place]]


def copies_of_originals(question_ids: Sequence[str], mix: float, seed: int) -> dict[str, int]:
    """How often each question's original row enters a mix: floor(mix) times, and once more for a
    drawn share of them.

    The total is mix times the number of questions, rounded: mix 1.5 of three questions is once each
    and once more for round(0.5 * 3) = 2 of them.
    """
    whole = math.floor(mix)
    num_more = round((mix - whole) * len(question_ids))
    ranked = sorted(question_ids, key=lambda question_id: draw(seed, "mix", question_id))
    copies = dict.fromkeys(question_ids, whole)
    for question_id in ranked[:num_more]:
        copies[question_id] += 1
    return copies
