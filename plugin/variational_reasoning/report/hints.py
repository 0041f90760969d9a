"""The kinds of hint of a run next to each other, and next to the reasoner without any.

Others found that a wrong hint works about as well as the right one (arXiv 2608.09228). For each
kind whose traces are in the run folder: how many questions it covers, how good its traces are, and
on three levels how much it gives the answer away:

    literally     the final answer is in the first part of the trace (leakage.py)
    likelihood    how many nats likelier the solution is after the first tokens of the trace than
                  before it (scoring.early_tokens)
    words         whether it writes like somebody who does not know the answer yet: words of
                  uncertainty and of backtracking, per 1,000 words
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from variational_reasoning.files import read_json_object
from variational_reasoning.pipeline.rows import MANIFEST, read_table
from variational_reasoning.report.evaluations import REMEDY
from variational_reasoning.report.leakage import (
    EARLY,
    Leakage,
    final_answers,
    measure_leakage,
    well_formed_traces,
)
from variational_reasoning.report.traces import (
    TraceTerms,
    effective_sample_sizes,
    read_terms,
    weights,
)
from variational_reasoning.verify.verdicts import Verdict

PLACES = {
    "reference": "",
    "answer": "hint_answer",
    "other_question": "hint_other_question",
    "none": "hint_none",
    "the reasoner": "from_reasoner",
}
"""What the posterior's prompt shows, and the folder of its tables in the run folder."""

UNCERTAINTY = (
    *("maybe", "perhaps", "probably", "possibly", "might", "hmm", "hm"),
    *("not sure", "i think", "i guess", "it seems", "unclear"),
)
BACKTRACKING = (
    *("wait", "actually", "alternatively", "oops", "hold on", "on second thought", "let me check"),
    *("let me recheck", "let me verify", "let me try", "try again", "go back", "start over"),
    *("that is wrong", "that's wrong", "is not right", "isn't right", "mistake"),
)
"""Words of a writer who does not know the answer yet, in English; whole words, in any case."""


class WordShares(NamedTuple):
    """How often traces doubt, and how often they turn back, per 1,000 words."""

    uncertainty: float
    backtracking: float


class HintKind(NamedTuple):
    """One kind of hint: its traces, and what they give away.

    early_gains: nats by which the solution is likelier after the first tokens of a trace than
        before it, one per scored trace; empty without scoring.early_tokens.
    num_refused, num_right: right answers whose trace fails verify.trace_check, which are not
        accepted, and all right answers.
    """

    terms: TraceTerms
    leakage: Leakage
    words: WordShares
    early_gains: np.ndarray
    num_refused: int
    num_right: int

    @property
    def coverage(self) -> float | None:
        """The share of questions with a right answer after at least one trace."""
        if self.terms.num_correct is None:
            return None
        return float((self.terms.num_correct > 0).any(axis=1).mean())

    @property
    def accuracy(self) -> float | None:
        """The share of right answers after the traces, a mean over questions."""
        if self.terms.num_correct is None or self.terms.num_answers is None:
            return None
        accuracy = self.terms.accuracy()
        return float(np.nanmean(accuracy)) if np.isfinite(accuracy).any() else None

    @property
    def sizes(self) -> tuple[float, float] | None:
        """(effective sample size, largest weight of a question), means over questions with weights.

        None without verdicts or log-likelihoods.
        """
        if self.terms.num_correct is None or not self.terms.is_scored.any():
            return None
        weight = weights(self.terms.log_rho("acc"))
        has_weights = ~np.isnan(weight).any(axis=1)
        if not has_weights.any():
            return None
        size = float(effective_sample_sizes(weight).mean())
        return size, float(weight[has_weights].max(axis=1).mean())


def read_hints(folder: Path) -> dict[str, HintKind]:
    """The kinds of hint whose traces are in a run folder, by name.

    Raises: ValueError for an unfinished or changed table.
    """
    found = {}
    answers: Mapping[str, str] | None = None
    for name, place in PLACES.items():
        terms = read_terms(folder / place)
        if terms is None:
            continue
        if answers is None:
            answers = final_answers(folder)
        leakage, words = _measure_texts(folder / place / "traces", answers)
        num_refused, num_accepted = _right_answers(folder / place / "verdicts")
        found[name] = HintKind(
            terms=terms,
            leakage=leakage,
            words=words,
            early_gains=_early_gains(folder / place / "trace_logps/reasoner"),
            num_refused=num_refused,
            num_right=num_refused + num_accepted,
        )
    return found


class WordCounter:
    """Counts words of doubt and of turning back; texts are given one by one."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._num_words = 0
        self._num_uncertain = 0
        self._num_back = 0

    def add(self, text: str) -> None:
        """Count the words of a text."""
        self._waiting.append(text)
        if len(self._waiting) == _TEXTS_AT_ONCE:
            self._count_waiting()

    def shares(self) -> WordShares:
        """Per 1,000 words of all texts; 0 for no words."""
        self._count_waiting()
        scale = 1000 / self._num_words if self._num_words else 0.0
        return WordShares(self._num_uncertain * scale, self._num_back * scale)

    def _count_waiting(self) -> None:
        lowered = pl.Series(self._waiting, dtype=pl.String).str.to_lowercase()
        self._waiting.clear()
        self._num_words += _count(lowered, _WORD)
        self._num_uncertain += _count(lowered, _UNCERTAINTY)
        self._num_back += _count(lowered, _BACKTRACKING)


def word_shares(texts: Iterable[str]) -> WordShares:
    """How often texts doubt and turn back, per 1,000 words; 0 for no words.

    "Wait, maybe it is 7" has 5 words, one of uncertainty and one of backtracking: 200 each.
    """
    counter = WordCounter()
    for text in texts:
        counter.add(text)
    return counter.shares()


def _measure_texts(folder: Path, answers: Mapping[str, str]) -> tuple[Leakage, WordShares]:
    """Both of a table of traces, which is read once."""
    counter = WordCounter()

    def counted() -> Iterator[tuple[str, str]]:
        for question_id, text in well_formed_traces(folder):
            counter.add(text)
            yield question_id, text

    leakage = measure_leakage(counted(), answers)
    return leakage, counter.shares()


def _count(texts: pl.Series, pattern: str) -> int:
    """Matches in all texts. At the paper's scale they are 4 GB, for which `re` takes minutes."""
    return int(texts.str.count_matches(pattern).sum())


def _pattern(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    return r"\b(?:" + "|".join(longest_first) + r")\b"


_TEXTS_AT_ONCE = 512
_WORD = r"[^\s\x1c-\x1f]+"
"""What `str.split` takes for a word: those four control characters divide words, too."""
_UNCERTAINTY, _BACKTRACKING = _pattern(UNCERTAINTY), _pattern(BACKTRACKING)


def _right_answers(folder: Path) -> tuple[int, int]:
    """(right answers whose trace is refused, right answers that are accepted)."""
    counts: dict[str, Any] = {}
    if (folder / MANIFEST).is_file():
        counts = read_json_object(folder / MANIFEST, REMEDY)["counts"]
    return counts.get(Verdict.WRONG_TRACE.value, 0), counts.get(Verdict.CORRECT.value, 0)


def _early_gains(folder: Path) -> np.ndarray:
    names = ["early_answer_logp", "bare_answer_logp"]
    if not (folder / MANIFEST).is_file():
        return np.array([])
    if not read_json_object(folder / MANIFEST, REMEDY)["config"].get("scoring.early_tokens"):
        return np.array([])
    table = read_table(folder, "trace_logps", names)
    early, bare = (np.array(table[name].to_pylist(), dtype=float) for name in names)
    gains = early - bare
    return gains[np.isfinite(gains)]


EARLY_SHARE = f"answer by {EARLY:.0%}"
"""The column of traces whose first part has the final answer."""
