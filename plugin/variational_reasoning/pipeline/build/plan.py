"""The rows of one train file (stage 8): first which, question by question, then their texts.

`OutputPlan.add` decides the rows of a question while its texts are in memory and keeps no text.
When all questions are through, `finish` adds the original rows of a mix, which depend on how many
questions have rows. `OutputPlan.render` makes rows of the table `train`, when the same texts have
been read again.

Equal rows of a question become one with the sum of their weights. A question whose traces 0 and 2
are the same text, and trace 1 the data set's own, with a mix of 1:

    source, weight as chosen      (0, 0.5)  (1, 0.3)  (2, 0.2)
    merged                        (0, 0.7)  (1, 0.3)             place_of_original 1
    after the mix                 (0, 0.7)  (1, 1.3)
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.families import REASONER
from variational_reasoning.method.weights import effective_sample_size
from variational_reasoning.pipeline.build.lengths import Lengths
from variational_reasoning.pipeline.build.select import (
    best_of,
    copies_of_originals,
    draw_hint,
    draw_verified,
    factor_of_question,
    has_wanted_accuracy,
    select,
)
from variational_reasoning.pipeline.build.traces import Answer, Block, Chosen, Trace
from variational_reasoning.pipeline.config import Config, OutputConfig
from variational_reasoning.pipeline.rows import Identity
from variational_reasoning.pipeline.tables import RHO_TERMS

ORIGINAL, FALLBACK = -2, -1
"""`source` of a row: the original one in a mix, the original one as fallback; otherwise the chosen
trace's id.
"""

_NUM_LISTED = 5

Question = Mapping[str, Any]


class PlannedRow(NamedTuple):
    """A row without its texts.

    answer: (trace_id, answer_id) of the accepted answer that the final model's row ends with, or
    that is the posterior's hint; None for the reference solution. estimator: the one whose log_rho
    the row has. num_tokens: of the response. is_trained_as_sampled: as in the table `traces`; None
    without a trace.
    """

    source: int
    answer: tuple[int, int] | None
    weight: float
    num_tokens: int
    estimator: str = ""
    is_trained_as_sampled: bool | None = None


class PlannedQuestion(NamedTuple):
    """The rows of a question, and what a mix needs to know of its original row.

    place_of_original: which of the rows equals the original one; None where none does.
    original_tokens: None where the data have no trace of their own.
    """

    rows: list[PlannedRow]
    place_of_original: int | None
    original_tokens: int | None


class _Candidate(NamedTuple):
    """A row while its texts are in memory."""

    row: PlannedRow
    trace: str
    solution: str


class OutputPlan:
    """The plan of one train file.

    figures: for its manifest, after `finish`.
    """

    def __init__(
        self, path: Path, output: OutputConfig, identity: Identity, config: Config, num_traces: int
    ) -> None:
        """Args: num_traces: sampled per question; the output may use fewer."""
        self.path = path
        self.output = output
        self.identity = identity
        self.config = config
        self.num_traces = output.num_traces or num_traces
        self.questions: dict[str, PlannedQuestion] = {}
        self.figures: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()
        self._sizes: list[tuple[float, list[float]]] = []
        """Effective sample size before a cap, and the weights after it."""
        self._num_seen = 0
        self._first_seen: list[str] = []

    def add(
        self,
        question_id: str,
        question: Question,
        traces: Sequence[Trace],
        accuracy: float | None,
        lengths: Lengths,
    ) -> None:
        """Decide the rows of a question, but for the mix.

        Args:
            traces: all candidates.
            accuracy: `Joined.question_accuracy` of the traces in use.
        """
        self._num_seen += 1
        if len(self._first_seen) < _NUM_LISTED:
            self._first_seen.append(question_id)
        if not has_wanted_accuracy(accuracy, self.config.build.question_accuracy, self._counts):
            return
        used = [trace for trace in traces if trace.trace_id < self.num_traces]
        chosen = self._choose(question, used, accuracy, lengths)
        if not chosen:
            return
        place = None
        original_tokens = None
        if self.output.mix > 0 and self._has_original(question):
            place = _place_of_original(chosen, question)
            original = self._original(question, ORIGINAL, lengths)
            original_tokens = original.row.num_tokens
        rows = [candidate.row for candidate in chosen]
        self.questions[question_id] = PlannedQuestion(rows, place, original_tokens)

    def finish(self) -> None:
        """Add the original rows of the mix, and compute the figures.

        Raises: ValueError when no row remains, with ids.
        """
        if not self.questions:
            raise ValueError(
                f"build.outputs {self.output.name!r}: no row remains, the weights of all "
                f"{self._num_seen} questions are zero ({self._positive_counts()}); questions such "
                f"as {self._first_seen}. Look at {self.config.folder('verdicts')} and at the "
                "model that sampled the traces"
            )
        names = list(self.questions)
        copies_of = copies_of_originals(names, self.output.mix, self.config.seed)
        for question_id, copies in copies_of.items():
            if copies:
                self._add_original(self.questions[question_id], float(copies))
        self.figures = self._figures()

    def add_chosen(self, chosen: Chosen) -> None:
        """Note what `render` needs."""
        chosen.questions.update(self.questions)
        for question_id, planned in self.questions.items():
            for row in planned.rows:
                if row.source >= 0:
                    chosen.traces.add((question_id, row.source))
                if row.answer is not None:
                    trace_id, answer_id = row.answer
                    chosen.traces.add((question_id, trace_id))  # a hint may be another trace's
                    chosen.answers.add((question_id, trace_id, answer_id))

    def render(self, block: Block, accuracies: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """Rows of the table `train` of the questions in a block.

        Args:
            accuracies: of the questions, as in `add`.
        """
        rendered = []
        for question_id, question in block.questions.items():
            if question_id not in self.questions:
                continue
            traces = {trace.trace_id: trace for trace in block.traces[question_id]}
            shared = {
                "question_id": question_id,
                "question_accuracy": accuracies[question_id],
            }
            for row in self.questions[question_id].rows:
                rendered.append(shared | self._rendered(row, question, traces))
        return rendered

    def count_other_ids(self) -> None:
        """Count the rows whose trace is trained as other ids than those that were scored:
        `trained_ids` of the figures.

        A trace goes from ids to text and back. rho is of the sampled ids; where a model sampled
        pieces that its tokenizer would not have chosen for the text, a training sees another
        sequence.
        """
        chosen = [row for row in self._rows() if row.source >= 0]
        num_differing = sum(not row.is_trained_as_sampled for row in chosen)
        self.figures["trained_ids"] = {"rows": len(chosen), "differ": num_differing}

    @property
    def num_rows_of_traces(self) -> int:
        """Rows that a sampled trace was chosen for."""
        return sum(row.source >= 0 for row in self._rows())

    def _rows(self) -> list[PlannedRow]:
        return [row for question in self.questions.values() for row in question.rows]

    def _choose(
        self,
        question: Question,
        traces: Sequence[Trace],
        accuracy: float | None,
        lengths: Lengths,
    ) -> list[_Candidate]:
        """The rows of a question with their weights, equal ones merged; none where it is left out.

        Args:
            traces: candidates that this output may use.
        """
        output = self.output
        counts = self._counts
        fitting: dict[int, _Candidate] = {}
        candidates = []
        for trace in traces:
            if output.verified_only and not trace.verified:
                counts["dropped_without_verified_answer"] += 1
                continue
            candidate = self._candidate(question, trace, traces, lengths)
            if candidate is not None:
                fitting[trace.trace_id] = candidate
                candidates.append(trace)
        selection = select(output, candidates, self.config.seed, counts)
        if not selection.chosen:
            counts["questions_without_acceptable_trace"] += 1
            return self._fallback(question, traces, lengths)
        factor = factor_of_question(output.question_factor, accuracy, counts)
        if factor == 0:
            return []
        counts["traces_chosen"] += len(selection.chosen)
        if selection.effective_sample_size is not None:
            weights = [weight for _, weight in selection.chosen]
            self._sizes.append((selection.effective_sample_size, weights))
        chosen = []
        for trace, weight in selection.chosen:
            candidate = fitting[trace.trace_id]
            chosen.append(_weighted(candidate, weight * factor))
        if self._ends_with_sampled_answers:
            for candidate in chosen:
                if candidate.row.answer is None:
                    counts["with_reference_solution"] += 1
        return _merged(chosen, counts)

    @property
    def _ends_with_sampled_answers(self) -> bool:
        """Whether a row of the final model ends with an answer that was sampled after its trace."""
        samples_answers = ESTIMATORS[self.output.estimator].samples_answers
        return self.output.target == REASONER and samples_answers

    def _candidate(
        self, question: Question, trace: Trace, traces: Sequence[Trace], lengths: Lengths
    ) -> _Candidate | None:
        """A trace's row with weight 1; None, and counted, where it has no solution or does not fit
        cutoff_len.

        Args:
            traces: of the question; a hint may be the answer of another one.
        """
        output = self.output
        counts = self._counts
        drawn: Answer | None = None
        if self._ends_with_sampled_answers:
            drawn = draw_verified(trace, self.config.seed)
        if output.hint == "verified":  # the posterior's rows only
            drawn = draw_hint(trace, traces, self.config.seed)
            counts["with_reference_hint"] += drawn is None
        solution = question["solution"] if drawn is None else drawn.solution
        if not solution.strip():  # of a question with tests only
            counts["dropped_without_solution"] += 1
            return None
        num_tokens = self._response_tokens(question, trace, drawn, lengths)
        if not lengths.fits(output.target, question, solution, num_tokens):
            counts["dropped_overlong"] += 1
            return None
        row = PlannedRow(
            source=trace.trace_id,
            answer=None if drawn is None else (drawn.trace_id, drawn.answer_id),
            weight=1.0,
            num_tokens=num_tokens,
            estimator=output.estimator,
            is_trained_as_sampled=trace.is_trained_as_sampled,
        )
        return _Candidate(row, trace.text, solution)

    def _response_tokens(
        self, question: Question, trace: Trace, answer: Answer | None, lengths: Lengths
    ) -> int:
        """Tokens of a trace and what follows it: this answer, or the reference solution."""
        solution = question["solution"]
        known = question["solution_tokens"]
        if answer is not None:
            solution = answer.solution
            known = answer.trained_tokens
        trace_tokens = lengths.of_trace(trace.text, trace.trained_tokens)
        rest_tokens = lengths.of_rest(self.output.target, solution, known)
        return trace_tokens + rest_tokens

    def _fallback(
        self, question: Question, traces: Sequence[Trace], lengths: Lengths
    ) -> list[_Candidate]:
        """What takes the place of a question without an acceptable trace."""
        fallback = self.output.fallback
        if fallback == "original" and self._has_original(question):
            self._counts["fallback_original"] += 1
            return [self._original(question, FALLBACK, lengths)]
        if fallback in ESTIMATORS:
            best = self._best_by_fallback(question, traces, lengths)
            if best is not None:
                self._counts[f"fallback_{fallback}"] += 1
                return [best]
        self._counts["questions_dropped"] += 1
        return []

    def _best_by_fallback(
        self, question: Question, traces: Sequence[Trace], lengths: Lengths
    ) -> _Candidate | None:
        """The best trace by the fallback's estimator, with the reference solution; None where none
        fits cutoff_len.
        """
        output = self.output
        solution = question["solution"]
        num_tokens: dict[int, int] = {}
        fitting = []
        for trace in traces:
            length = self._response_tokens(question, trace, None, lengths)
            if lengths.fits(output.target, question, solution, length):
                num_tokens[trace.trace_id] = length
                fitting.append(trace)
        if not fitting:
            return None
        best = best_of(fitting, output.fallback, output.ratio)
        row = PlannedRow(
            source=best.trace_id,
            answer=None,
            weight=1.0,
            num_tokens=num_tokens[best.trace_id],
            estimator=output.fallback,
            is_trained_as_sampled=best.is_trained_as_sampled,
        )
        return _Candidate(row, best.text, solution)

    def _has_original(self, question: Question) -> bool:
        """Whether the data give the question a trace, without which it has no original row. A
        verbal chain is not an abstract trace.
        """
        if self.config.renderer.family.is_abstract:
            return False
        return bool(question["trace"].strip())

    def _original(self, question: Question, source: int, lengths: Lengths) -> _Candidate:
        """The data set's own trace and solution, with weight 1.

        Args:
            source: ORIGINAL or FALLBACK.
        """
        trace = question["trace"]
        solution = question["solution"]
        trace_tokens = lengths.of_trace(trace, question["trace_tokens"])
        rest_tokens = lengths.of_rest(self.output.target, solution, question["solution_tokens"])
        row = PlannedRow(source, None, 1.0, trace_tokens + rest_tokens)
        return _Candidate(row, trace, solution)

    def _add_original(self, question: PlannedQuestion, copies: float) -> None:
        """The original row in a mix, as a row of its own or as weight of its equal."""
        counts = self._counts
        rows = question.rows
        if question.original_tokens is None:
            counts["questions_without_original"] += 1
            return
        is_fallback = rows[0].source == FALLBACK
        if is_fallback and not self.output.mix_fallback:
            counts["duplicates_removed"] += 1
            return
        counts["original"] += 1
        # See the example at the top: with place 1 the weight of the second row grows.
        place = question.place_of_original
        if is_fallback or place is None:
            # The fallback and the original are two rows, as in the paper's files.
            rows.append(PlannedRow(ORIGINAL, None, copies, question.original_tokens))
        else:
            counts["duplicates_merged"] += 1
            equal = rows[place]
            rows[place] = equal._replace(weight=equal.weight + copies)

    def _positive_counts(self) -> dict[str, int]:
        """What was counted at least once."""
        return {name: count for name, count in self._counts.items() if count}

    def _figures(self) -> dict[str, Any]:
        rows = self._rows()
        weights = [row.weight for row in rows]
        num_tokens = sum(row.num_tokens for row in rows)
        figures = {
            "rows": len(rows),
            "mean_weight": math.fsum(weights) / len(weights),
            "min_weight": min(weights),
            "max_weight": max(weights),
            "mean_tokens": num_tokens / len(rows),
            "counts": self._positive_counts(),
        }
        return figures | self._figures_of_sizes()

    def _figures_of_sizes(self) -> dict[str, float]:
        """Of the questions whose traces were chosen by weight; {} without such.

        A question's weights sum to 1 before a cap, so the sum that is missing after it was taken by
        the cap: (0.7, 0.3) becomes (0.5, 0.3), and 0.2 was taken.
        """
        if not self._sizes:
            return {}
        num_questions = len(self._sizes)
        sizes_before = []
        sizes_after = []
        kept_weights: list[float] = []
        for size_before, weights in self._sizes:
            sizes_before.append(size_before)
            sizes_after.append(effective_sample_size(weights))
            kept_weights += weights
        figures = {"mean_effective_sample_size": math.fsum(sizes_after) / num_questions}
        if self.output.weight_cap is not None:
            mean_before = math.fsum(sizes_before) / num_questions
            figures["mean_effective_sample_size_before_cap"] = mean_before
            figures["weight_taken_by_cap"] = num_questions - math.fsum(kept_weights)
        return figures

    def _rendered(
        self, row: PlannedRow, question: Question, traces: Mapping[int, Trace]
    ) -> dict[str, Any]:
        """The columns of a row but for those that all rows of its question share."""
        output = self.output
        is_reasoner = output.target == REASONER
        is_sampled = row.source >= 0
        trace_text = question["trace"]
        terms: dict[str, Any] = dict.fromkeys(RHO_TERMS)
        if is_sampled:
            trace = traces[row.source]
            trace_text = trace.text
            terms = trace.terms(row.estimator, output.ratio)
        solution = question["solution"]
        answer_id = None
        if row.answer is not None:
            trace_id, answer_id = row.answer  # a hint's trace may be another one than the row's
            solution = _solution_of(traces[trace_id], answer_id)
        kind = REASONER if is_reasoner else self.config.posterior_prompt
        prompt, response = self.config.renderer.render(
            kind, question["question"], trace_text, solution, chain=question["trace"]
        )
        return terms | {
            "source": row.source,
            "trace_id": row.source if is_sampled else None,
            "answer_id": answer_id if is_reasoner else None,
            "prompt": prompt,
            "response": response,
            "weight": row.weight,
        }


def _solution_of(trace: Trace, answer_id: int) -> str:
    """The solution of one verified answer."""
    [solution] = [answer.solution for answer in trace.verified if answer.answer_id == answer_id]
    return solution


def _place_of_original(chosen: Sequence[_Candidate], question: Question) -> int | None:
    """Which row equals the original one."""
    original = (question["trace"], question["solution"])
    for place, candidate in enumerate(chosen):
        if (candidate.trace, candidate.solution) == original:
            return place
    return None


def _weighted(candidate: _Candidate, weight: float) -> _Candidate:
    return candidate._replace(row=candidate.row._replace(weight=weight))


def _merged(candidates: Sequence[_Candidate], counts: Counter) -> list[_Candidate]:
    """Equal rows as one, the first of them, with the sum of their weights."""
    merged: dict[tuple[str, str], _Candidate] = {}
    for candidate in candidates:
        texts = (candidate.trace, candidate.solution)
        earlier = merged.get(texts)
        if earlier is None:
            merged[texts] = candidate
        else:
            counts["duplicates_merged"] += 1
            weight = earlier.row.weight + candidate.row.weight
            merged[texts] = _weighted(earlier, weight)
    return list(merged.values())
