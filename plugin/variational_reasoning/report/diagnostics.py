"""The sections on one run's traces, answers and trainings.

Each says in a sentence what is seen, or why nothing is.
"""

from pathlib import Path

import numpy as np

from variational_reasoning.method.estimators import ESTIMATORS, Estimator
from variational_reasoning.method.evaluation import mean_and_error
from variational_reasoning.report import figures
from variational_reasoning.report.bound import Bound, estimate_bound
from variational_reasoning.report.difficulty import DIFFICULTIES, read_all_shares
from variational_reasoning.report.hints import EARLY_SHARE, HintKind, read_hints
from variational_reasoning.report.leakage import EARLY, read_leakage
from variational_reasoning.report.page import Picture, Section, Table
from variational_reasoning.report.traces import (
    TraceTerms,
    effective_sample_sizes,
    question_weights,
    read_terms,
    weight_mass,
    weights,
)
from variational_reasoning.report.training import read_trainings

NUM_SOURCES = 12
"""Sources that are shown by name; the others are put together."""
NO_TRACES = "There are no traces (stage 3)."
NO_SCORES = "There are no log-likelihoods of both models (stages 4 and 5)."
NO_VERDICTS = "There are no verdicts (stage 7)."
NOT_MEASURED = "not measured"


def diagnose(folder: Path) -> list[Section]:
    """All sections of one run folder, in the order of the stages.

    Raises: ValueError for tables that are unfinished, changed, or do not belong together.
    """
    terms = read_terms(folder)
    from_reasoner = read_terms(folder / "from_reasoner")
    return [
        sources(terms),
        difficulty(terms, from_reasoner),
        weight_by_difficulty(folder),
        rho(terms),
        bound(terms),
        lengths(terms),
        leakage(folder),
        hint_kinds(folder),
        trainings(folder),
    ]


def sources(terms: TraceTerms | None) -> Section:
    """Accuracy of the answers by the questions' source."""
    section = Section(
        "Accuracy by source",
        "The share of verified answers after the posterior's traces, by where the questions come "
        "from; the line is the standard error over questions.",
    )
    section.absent = _lacks_verdicts(terms)
    if terms is None or section.absent:
        return section
    groups = accuracy_by_source(terms)
    if not groups:
        section.absent = "No answer is decided by a checker."
        return section
    names = []
    means = []
    errors = []
    for name, values in groups.items():
        estimate = mean_and_error(values.tolist())
        names.append(f"{name or 'no source given'} ({len(values)})")
        means.append(estimate.mean)
        errors.append(estimate.standard_error or 0.0)
    section.pictures.append(Picture("sources", figures.plot_sources(names, means, errors)))
    undecided = int(np.isnan(terms.accuracy()).sum())
    section.notes.append(
        f"In brackets: questions with a decided answer. {undecided} questions have none and are "
        "left out."
    )
    return section


def accuracy_by_source(terms: TraceTerms) -> dict[str, np.ndarray]:
    """Accuracies of the questions with a decided answer by source, the largest source first.

    Only the part of a source before its first slash counts (`numina/123` is `numina`). Where there
    are more than NUM_SOURCES, the smallest are put together.
    """
    accuracy = terms.accuracy()
    is_decided = ~np.isnan(accuracy)
    names = np.array([source.partition("/")[0] for source in terms.sources], dtype=object)
    names = names[is_decided]
    accuracy = accuracy[is_decided]
    by_size = sorted(set(names), key=lambda name: (-(names == name).sum(), name))
    kept = by_size if len(by_size) <= NUM_SOURCES else by_size[: NUM_SOURCES - 1]
    groups = {name: accuracy[names == name] for name in kept}
    if len(kept) < len(by_size):
        groups[f"{len(by_size) - len(kept)} others"] = accuracy[~np.isin(names, kept)]
    return groups


def difficulty(terms: TraceTerms | None, from_reasoner: TraceTerms | None) -> Section:
    """Questions by accuracy, with the weight that each method gives them."""
    section = Section(
        "Bias towards easy questions",
        "Gray: how many questions are how hard; colors: how much of all training weight each "
        "method gives them. Rejection sampling (P) and GRPO (sqrt(P/(1-P))) favor what is solved "
        "already (section 3), rho~ does not.",
    )
    if not _lacks_verdicts(from_reasoner):
        chosen, origin = from_reasoner, "the reasoner's own traces"
    else:
        chosen, origin = terms, "the posterior's traces, because there are none of the reasoner"
    section.absent = _lacks_verdicts(chosen)
    if chosen is None or section.absent:
        return section
    accuracy = chosen.accuracy()
    is_decided = ~np.isnan(accuracy)
    if not is_decided.any():
        section.absent = "No answer is decided by a checker."
        return section
    accuracy = accuracy[is_decided]
    masses = {}
    for name, weight in question_weights(accuracy).items():
        masses[name] = weight_mass(accuracy, weight)
    shares = masses.pop("SFT")
    section.pictures.append(Picture("difficulty", figures.plot_difficulty(shares, masses)))
    section.notes.append(
        f"P is the share of verified answers after {origin}. SFT weighs every question alike, so "
        "its weight is the gray bar; so does rho~, except for questions without any verified "
        "answer. At P = 1 GRPO's weight is 0: equal rewards give no advantage. "
        f"{int((~is_decided).sum())} questions without a decided answer are left out."
    )
    return section


def weight_by_difficulty(folder: Path) -> Section:
    """How the weight of each train file falls on easy, middle and hard questions."""
    section = Section(
        "Weight by difficulty",
        "What the train files really weigh: the share of a file's weight, and in brackets of its "
        "questions, by the share P of a question's answers that are verified. Hard: P up to 25 %, "
        "easy: P above 75 %. A file favors easy questions where the first number grows to the "
        "right of the second.",
    )
    found = read_all_shares(folder)
    if not any(found.values()):
        section.absent = "No train file has questions whose accuracy is known (stages 7 and 8)."
        return section
    table = Table(["train file", "questions", *DIFFICULTIES, "mean P by weight"], [])
    for name, shares in found.items():
        if shares is None:
            continue
        row = [name, f"{shares.num_questions:,}"]
        for weight, count in zip(shares.weights, shares.questions, strict=True):
            row.append(f"{weight:.1%} ({count:.1%})")
        row.append(f"{shares.mean_accuracy:.1%}")
        table.rows.append(row)
    section.tables.append(table)
    without = [name for name, shares in found.items() if shares is None]
    if without:
        section.notes.append(f"Without verdicts: {', '.join(without)}.")
    left_out = []
    for name, shares in found.items():
        if shares is not None and shares.num_unknown:
            left_out.append(f"{name} {shares.num_unknown:,}")
    if left_out:
        section.notes.append(
            f"Left out, questions without a decided answer: {', '.join(left_out)}."
        )
    return section


def rho(terms: TraceTerms | None) -> Section:
    """The distribution of rho~, and effective sample size per question."""
    section = Section(
        "Weights",
        "Left: how unequal the weights of a question's K traces are; right: how many equally "
        "weighted traces they are worth, 1 when one trace takes everything and K when the weights "
        "tell nothing apart.",
    )
    section.absent = _lacks_scores(terms)
    if terms is None or section.absent:
        return section
    by_name = {}
    sizes = {}
    for estimator in _estimators(terms, "mean"):
        weight = weights(terms.log_rho(estimator.name))
        has_weights = ~np.isnan(weight).any(axis=1)
        num_without = int((~has_weights).sum())
        section.notes.append(
            f"{estimator.label}: {num_without} questions have no weights, all their rho are 0."
        )
        if has_weights.any():
            by_name[estimator.label] = weight[has_weights]
            sizes[estimator.label] = effective_sample_sizes(weight)
    if not by_name:
        section.absent = "Every rho is 0."
        return section
    picture = figures.plot_weights(by_name, sizes, terms.num_traces)
    section.pictures.append(Picture("weights", picture))
    return section


def bound(terms: TraceTerms | None) -> Section:
    """L_1 .. L_K."""
    section = Section(
        "The bound",
        "The bound L_k on the log marginal likelihood of a correct answer for k traces per "
        "question (Eq. 5): the more it rises with k, the further the posterior is from the ideal "
        "one, and the more several traces gain over one.",
    )
    section.absent = _lacks_scores(terms)
    if terms is None or section.absent:
        return section
    wanted = {
        "the bound: full likelihood ratio": "sum",
        "the method's surrogate: ratio per token": "mean",
    }
    panels: dict[str, dict[str, Bound]] = {}
    columns = ["", "answer term", "L_1", "L_K (95 % interval)", "L_K - L_1"]
    table = Table([*columns, "questions", "left out", "zeros"], [])
    for title, ratio in wanted.items():
        for estimator in _estimators(terms, ratio):
            found = estimate_bound(terms, estimator.name, ratio)
            if found is None:
                continue
            panels.setdefault(title, {})[estimator.label] = found
            table.rows.append([title, estimator.label, *_bound_cells(found)])
    if not panels:
        section.absent = "No question has all of its K traces scored."
        return section
    section.pictures.append(Picture("bound", figures.plot_bound(panels)))
    section.tables.append(table)
    section.notes.append(
        "Nats. L_k is the mean over the k-subsets of a question's K traces (all, or 256 drawn at "
        "random where there are more), then over questions; bands are 95 % bootstrap intervals "
        "over questions. Left out: questions without K scored traces. Zeros: traces without a "
        "correct answer, whose Acc of 0 counts as half an answer here, since log 0 would make "
        "every mean minus infinity. L is the likelihood of the reference solution."
    )
    return section


def _bound_cells(bound: Bound) -> list[str]:
    """L_1, L_K with its interval, their difference, and the three counts."""
    first = bound.means[0]
    last = bound.means[-1]
    interval = f"{bound.lows[-1]:.2f} to {bound.highs[-1]:.2f}"
    cells = [f"{first:.2f}", f"{last:.2f} ({interval})", f"{last - first:.2f}"]
    for count in (bound.num_questions, bound.num_left_out, bound.num_floored):
        cells.append(f"{count:,}")
    return cells


def lengths(terms: TraceTerms | None) -> Section:
    """Lengths against log ratio and log-likelihood (Fig. 4)."""
    section = Section(
        "Lengths",
        "The paper's Fig. 4: sums over tokens spread with length, so they would choose traces and "
        "answers by their length; means per token hardly do (color: number of traces; line: "
        "running median).",
    )
    section.absent = _lacks_scores(terms)
    if terms is None or section.absent:
        return section
    scored = terms.is_scored
    trace_length = terms.trace_tokens[scored]
    ratio_sum = terms.sum_log_ratio[scored]
    ratio_mean = terms.mean_log_ratio[scored]
    answer_length = terms.answer_tokens[scored]
    answer_sum = terms.answer_logp[scored]
    answer_mean = answer_sum / answer_length
    of_trace, of_answer = "trace length (tokens)", "answer length (tokens)"
    panels = [
        (of_trace, "log ratio, sum (nats)", trace_length, ratio_sum),
        (of_trace, "log ratio, mean (nats/token)", trace_length, ratio_mean),
        (of_answer, "log-likelihood, sum (nats)", answer_length, answer_sum),
        (of_answer, "log-likelihood, mean (nats/token)", answer_length, answer_mean),
    ]
    section.pictures.append(Picture("lengths", figures.plot_lengths(panels)))
    return section


def leakage(folder: Path) -> Section:
    """How early and how literally the hint's final answer appears."""
    section = Section(
        "Hint leakage",
        "How early in a trace the hint's final answer first appears: a posterior whose curve rises "
        "sooner than that of traces written without a hint states the answer instead of deriving "
        "it.",
    )
    found, num_without = read_leakage(folder)
    if "posterior" not in found:
        section.absent = "There are no traces of questions with a short final answer."
        return section
    columns = ["traces", "number", f"by {EARLY:.0%}", "by 50%", "literally", "normalized", "not"]
    table = Table(columns, [])
    for kind, measured in found.items():
        num_not = measured.num_traces - measured.num_literal - measured.num_normalized
        row = [kind, f"{measured.num_traces:,}"]
        for fraction in (EARLY, 0.5):
            row.append(f"{measured.share_by(fraction):.1%}")
        for count in (measured.num_literal, measured.num_normalized, num_not):
            row.append(f"{count / measured.num_traces:.1%}")
        table.rows.append(row)
    section.pictures.append(Picture("leakage", figures.plot_leakage(found)))
    section.tables.append(table)
    note = (
        "Literally: as the hint writes it, as a word of its own; normalized: only without blanks "
        f"and LaTeX spacing. {num_without} questions without a short final answer are left out."
    )
    if "reasoner" not in found:
        note += " There are no traces of the reasoner to compare with."
    section.notes.append(note)
    return section


def hint_kinds(folder: Path) -> Section:
    """The kinds of hint next to each other: coverage, weights, and what they give away."""
    section = Section(
        "Hints",
        "What the posterior's traces are worth by what its prompt shows. A hint decides something "
        "where coverage falls without it, and it gives the answer away where the first tokens of a "
        "trace make the solution much likelier, or where doubt is missing.",
    )
    found = read_hints(folder)
    if not found:
        section.absent = NO_TRACES
        return section
    columns = ["hint", "coverage", "accuracy", "effective sample size", "largest weight"]
    columns += ["trace refused", EARLY_SHARE, "early gain (nats)", "doubt", "turning back"]
    table = Table(columns, [])
    for name, kind in found.items():
        table.rows.append([name, *_hint_cells(kind)])
    section.tables.append(table)
    section.notes.append(
        "Accuracy: right answers after a trace. Trace refused: right answers whose trace fails "
        "verify.trace_check, as a share of all right answers; they are not accepted. Early gain: "
        "how much likelier the solution is after the first tokens of a trace than before it "
        "(scoring.early_tokens). Doubt and turning back: words per 1,000 words. Weights are those "
        "of Acc."
    )
    return section


def _hint_cells(kind: HintKind) -> list[str]:
    """The figures of one kind of hint, in the order of the table's columns."""
    cells = [_share(kind.coverage), _share(kind.accuracy)]
    if kind.sizes is None:
        cells += [NOT_MEASURED, NOT_MEASURED]
    else:
        effective_size, largest_weight = kind.sizes
        cells += [f"{effective_size:.2f}", f"{largest_weight:.2f}"]
    refused = kind.num_refused / kind.num_right if kind.num_right else None
    early = kind.leakage.share_by(EARLY) if kind.leakage.num_traces else None
    cells += [_share(refused), _share(early)]
    gains = kind.early_gains
    cells.append(f"{gains.mean():+.2f}" if len(gains) else NOT_MEASURED)
    cells += [f"{kind.words.uncertainty:.2f}", f"{kind.words.backtracking:.2f}"]
    return cells


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1%}"


def trainings(folder: Path) -> Section:
    """Loss and gradient norm of all trainings (Fig. 1)."""
    section = Section(
        "Trainings",
        "The paper's Fig. 1: the loss as it is minimized, the token mean that stock SFT would "
        "report, and the gradient's norm before clipping.",
    )
    found = read_trainings(folder)
    if not found:
        section.absent = "There are no logs of trainings (models/, adapters/)."
        return section
    section.pictures.append(Picture("trainings", figures.plot_trainings(found)))
    return section


def _lacks_verdicts(terms: TraceTerms | None) -> str:
    """Why there is nothing to show of the answers, or nothing."""
    if terms is None:
        return NO_TRACES
    return NO_VERDICTS if terms.num_answers is None else ""


def _lacks_scores(terms: TraceTerms | None) -> str:
    """Why there is nothing to show of the log-likelihoods, or nothing."""
    if terms is None:
        return NO_TRACES
    return "" if terms.is_scored.any() else NO_SCORES


def _estimators(terms: TraceTerms, ratio: str) -> list[Estimator]:
    """The estimators that belong to this likelihood ratio and that the tables allow."""
    has_answers = bool(np.isfinite(terms.answer_logp).any())
    allowed = []
    for estimator in ESTIMATORS.values():
        has_tables = terms.num_answers is not None if estimator.samples_answers else has_answers
        if has_tables and ratio in estimator.ratios:
            allowed.append(estimator)
    return allowed
