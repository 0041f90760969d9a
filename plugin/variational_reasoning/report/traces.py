"""The sampled traces of a run as arrays, and what is plotted of them: rho~, effective sample size,
accuracy (Eqs. 5, 6, 8).

Every array has the shape [Q, K]: a row per training question, a column per trace_id. Tables are
read by columns and joined by ids. A run of 16,710 x 8 traces and a million verdicts takes seconds.
The arithmetic is that of `method.weights`, on arrays.

How a table becomes an array, with two questions and K = 3:

    ids of the questions        a, b
    rows of the table           (b, trace 0, 40 tokens), (a, trace 2, 25 tokens)
    places, 3 * question + trace          3,                   2
    the array                   [[nan, nan, 25], [40, nan, nan]]

A trace that is malformed, cut or not scored has a log rho of minus infinity, so it takes no weight.
The bound leaves its whole question out instead (`report.bound`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from variational_reasoning.method.estimators import Evidence, find_estimator
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import MANIFEST
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

ACCURACY_BINS = ("none", "up to 25 %", "up to 50 %", "up to 75 %", "below 100 %", "all")
"""The share of correct answers to a question: never, four ranges between, always."""


@dataclass(frozen=True)
class TraceTerms:
    """All sampled traces of one run. NaN where a stage has nothing for a trace.

    question_ids, sources: Q of each; `source` is the questions table's.
    is_sampled, is_well_formed, is_finished: [Q, K] bool.
    trace_tokens, mean_log_ratio, sum_log_ratio, answer_logp, answer_tokens: [Q, K] float64; logs in
        nats.
    num_correct, num_answers: [Q, K] int64, answers judged correct, and answers that are decided
        either way. None where stage 7 has not run.
    """

    question_ids: list[str]
    sources: list[str]
    is_sampled: np.ndarray
    is_well_formed: np.ndarray
    is_finished: np.ndarray
    trace_tokens: np.ndarray
    mean_log_ratio: np.ndarray
    sum_log_ratio: np.ndarray
    answer_logp: np.ndarray
    answer_tokens: np.ndarray
    num_correct: np.ndarray | None
    num_answers: np.ndarray | None
    _log_answers: dict[str, np.ndarray] = field(default_factory=dict, compare=False)

    @property
    def num_traces(self) -> int:
        """K."""
        return self.is_sampled.shape[1]

    @property
    def is_scored(self) -> np.ndarray:
        """[Q, K] bool: finished, well formed, and with log-likelihoods of both models."""
        return self.is_finished & self.is_well_formed & np.isfinite(self.mean_log_ratio)

    def log_answer(self, estimator: str) -> np.ndarray:
        """[Q, K] logarithm of the estimate of pi(Y_x | x, z) in nats; NaN where it cannot be
        computed.

        Raises: ValueError for an unknown estimator, and for one of sampled answers without
            verdicts.
        """
        if estimator not in self._log_answers:
            self._log_answers[estimator] = self._computed_log_answer(estimator)
        return self._log_answers[estimator]

    def _computed_log_answer(self, estimator: str) -> np.ndarray:
        found = find_estimator(estimator)
        if found.samples_answers and self.num_answers is None:
            raise ValueError(f"estimator {estimator!r} needs verdicts (stage 7)")
        log_terms = np.full(self.is_sampled.shape, math.nan)
        for place in np.ndindex(log_terms.shape):
            evidence = self._evidence(place)
            if found.is_known(evidence):
                log_terms[place] = found.log_term(evidence)
        return log_terms

    def _evidence(self, place: tuple[int, ...]) -> Evidence:
        """What is known of the answers after one trace."""
        known: dict[str, Any] = {}
        if self.num_answers is not None and self.num_correct is not None:
            known["num_correct"] = int(self.num_correct[place])
            known["num_answers"] = int(self.num_answers[place])
        if np.isfinite(self.answer_logp[place]):
            known["answer_logp"] = float(self.answer_logp[place])
            known["answer_tokens"] = int(self.answer_tokens[place])
        return Evidence(**known)

    def log_rho(self, estimator: str) -> np.ndarray:
        """[Q, K] mean log ratio plus log answer term; minus infinity for a trace that cannot be
        chosen.
        """
        log_rho = self.mean_log_ratio + self.log_answer(estimator)
        can_be_chosen = self.is_scored & ~np.isnan(log_rho)
        return np.where(can_be_chosen, log_rho, -math.inf)

    def accuracy(self) -> np.ndarray:
        """[Q] share of correct among the decided answers after all traces of a question; NaN where
        none is decided.

        Raises: ValueError without verdicts.
        """
        if self.num_answers is None or self.num_correct is None:
            raise ValueError("accuracy needs verdicts (stage 7)")
        num_correct = self.num_correct.sum(axis=1)
        num_answers = self.num_answers.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return num_correct / num_answers


def read_terms(folder: Path) -> TraceTerms | None:
    """Join the tables of a run folder (or of run_dir/from_reasoner or run_dir/hint_<name>); None
    without traces.

    Raises: ValueError for an unfinished or changed table, and for rows of a trace that was never
    sampled.
    """
    if not (folder / "traces" / MANIFEST).is_file():
        return None
    home = folder
    if folder.name == "from_reasoner" or folder.name.startswith("hint_"):
        home = folder.parent
    questions = TableReader(home / "questions", "questions").summary
    is_train = pc.equal(questions["split"], "train")
    questions = questions.filter(is_train)
    ids = questions["question_id"].combine_chunks()
    traces = TableReader(folder / "traces", "traces").summary
    largest_id = pc.max(traces["trace_id"]).as_py()
    shape = (len(ids), largest_id + 1)
    places = _places(traces, ids, shape, folder / "traces")
    is_finished = pc.equal(traces["finish_reason"], "stop")
    flags = {
        "is_sampled": np.ones(len(places), bool),
        "is_well_formed": traces["is_well_formed"].to_numpy(),
        "is_finished": is_finished.to_numpy(),
    }
    columns: dict[str, Any] = {}
    for name, values in flags.items():
        columns[name] = _spread(places, values, shape, absent=False)
    columns |= _log_likelihoods(folder, ids, shape)
    columns |= _counts(folder, ids, shape)
    return TraceTerms(
        question_ids=ids.to_pylist(),
        sources=questions["source"].to_pylist(),
        **columns,
    )


def weights(log_rho: np.ndarray) -> np.ndarray:
    """[Q, K] rho_k / sum_j rho_j of each question; NaN where all its rho are zero.

    Source: arXiv 2509.22637, Eq. 6.
    """
    peak = log_rho.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rho = np.exp(log_rho - peak)  # NaN where the peak is minus infinity
    return rho / rho.sum(axis=1, keepdims=True)


def effective_sample_sizes(weight: np.ndarray) -> np.ndarray:
    """1 / sum_k weight_k^2 of each question that has weights, between 1 and K.

    Example: weights 0.5, 0.5, 0, 0 are worth 2 traces.
    """
    has_weights = ~np.isnan(weight).any(axis=1)
    squares = weight[has_weights] ** 2
    return 1 / squares.sum(axis=1)


def bin_accuracy(accuracy: np.ndarray) -> np.ndarray:
    """Index into ACCURACY_BINS of each accuracy in [0, 1]; a bound belongs to the bin below it.

    Example: 0, 0.1, 0.25, 0.3, 0.9, 1 are in the bins 0, 1, 1, 2, 4, 5.
    """
    quarters = np.ceil(accuracy * 4)
    bins = quarters.clip(1, 4).astype(int)
    bins[accuracy <= 0] = 0
    bins[accuracy >= 1] = 5
    return bins


def weight_mass(accuracy: np.ndarray, question_weight: np.ndarray) -> np.ndarray:
    """The share of all question weight that falls into each of ACCURACY_BINS.

    Args:
        accuracy: [Q] in [0, 1].
        question_weight: [Q] non-negative; all zero gives all zero.
    """
    bins = bin_accuracy(accuracy)
    mass = np.bincount(bins, weights=question_weight, minlength=len(ACCURACY_BINS))
    whole = mass.sum()
    if whole == 0:
        return mass
    return mass / whole


def question_weights(accuracy: np.ndarray) -> dict[str, np.ndarray]:
    """[Q] weight of a question by method, up to a common factor (section 3, Eqs. 10 and 12).

    SFT weighs every question alike, and rho~ every question with a correct answer. Rejection
    sampling weighs it by P, GRPO by sqrt(P / (1 - P)). At P = 1 GRPO's weight is 0: all samples of
    a group have the same reward, so none has an advantage.

    Args:
        accuracy: P, [Q] in [0, 1].
    """
    with np.errstate(divide="ignore"):
        odds = accuracy / (1 - accuracy)
    has_correct = accuracy > 0
    grpo = np.where(accuracy < 1, np.sqrt(odds), 0.0)
    return {
        "SFT": np.ones_like(accuracy),
        "rho~ (this method)": has_correct.astype(float),
        "rejection sampling": accuracy,
        "GRPO": grpo,
    }


Shape = tuple[int, int]
"""(Q, K)."""


def _log_likelihoods(
    folder: Path,
    ids: pa.Array,
    shape: Shape,
) -> dict[str, np.ndarray]:
    """The log ratio and the answer's terms; all NaN where a model has not scored the traces."""
    tables = folder / "trace_logps"
    answer_terms = ("answer_logp", "answer_tokens")
    for model in ("reasoner", "posterior"):
        if not (tables / model / MANIFEST).is_file():
            unknown = np.full(shape, math.nan)
            names = ("trace_tokens", "mean_log_ratio", "sum_log_ratio", *answer_terms)
            return dict.fromkeys(names, unknown)
    reasoner = _scores(
        tables / "reasoner",
        ids,
        shape,
        ("trace_logp", "trace_tokens", *answer_terms),
    )
    posterior = _scores(tables / "posterior", ids, shape, ("trace_logp",))
    sum_log_ratio = reasoner.pop("trace_logp") - posterior["trace_logp"]
    mean_log_ratio = sum_log_ratio / reasoner["trace_tokens"]
    return reasoner | {
        "sum_log_ratio": sum_log_ratio,
        "mean_log_ratio": mean_log_ratio,
    }


def _scores(
    table_folder: Path,
    ids: pa.Array,
    shape: Shape,
    columns: Sequence[str],
) -> dict[str, np.ndarray]:
    """Columns of one model's log-likelihoods as [Q, K] arrays."""
    table = TableReader(table_folder, "trace_logps").summary
    places = _places(table, ids, shape, table_folder)
    found = {}
    for name in columns:
        values = table[name].cast(pa.float64())
        found[name] = _spread(places, values.to_numpy(), shape, absent=math.nan)
    return found


def _counts(
    folder: Path,
    ids: pa.Array,
    shape: Shape,
) -> dict[str, np.ndarray | None]:
    """Correct and decided answers per trace, or None for both where there are no verdicts."""
    place = folder / "verdicts"
    if not (place / MANIFEST).is_file():
        return {"num_correct": None, "num_answers": None}
    table = TableReader(place, "verdicts").summary
    places = _places(table, ids, shape, place)
    undecided = pa.array([str(verdict) for verdict in UNDECIDED])
    is_undecided = pc.is_in(table["verdict"], undecided).to_numpy()
    is_correct = pc.equal(table["verdict"], str(Verdict.CORRECT))
    return {
        "num_correct": _count(places[is_correct.to_numpy()], shape),
        "num_answers": _count(places[~is_undecided], shape),
    }


def _count(places: np.ndarray, shape: Shape) -> np.ndarray:
    """How often each place occurs, [Q, K]."""
    num_questions, num_traces = shape
    counts = np.bincount(places, minlength=num_questions * num_traces)
    return counts.reshape(shape)


def _places(
    table: pa.Table,
    ids: pa.Array,
    shape: Shape,
    where: Path,
) -> np.ndarray:
    """Each row's index into the flat [Q, K] array (the module's docstring has an example).

    Raises: ValueError for questions or trace ids that were not sampled.
    """
    _, num_traces = shape
    questions = pc.index_in(table["question_id"], value_set=ids)
    trace_ids = table["trace_id"].to_numpy()
    is_other_trace = trace_ids >= num_traces
    if questions.null_count or is_other_trace.any():
        raise ValueError(
            f"{where} has rows of traces that were never sampled; remove it and run its stage again"
        )
    numbers = questions.to_numpy().astype(np.int64)
    return numbers * num_traces + trace_ids


def _spread(
    places: np.ndarray,
    values: np.ndarray,
    shape: Shape,
    absent: Any,
) -> np.ndarray:
    """The [Q, K] array that has each value at its place, and `absent` everywhere else."""
    kind = bool if values.dtype == bool else np.float64
    whole = np.full(shape, absent, dtype=kind)
    whole.reshape(-1)[places] = values
    return whole
