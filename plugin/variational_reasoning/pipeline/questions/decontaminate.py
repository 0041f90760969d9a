"""Which train questions share a run of words with a benchmark's question (stage 0).

A word is a run of letters or digits after Unicode compatibility folding and case folding.
Punctuation, spaces and LaTeX signs separate words and do not count. Two questions match when they
share n words in a row, exactly. A question of fewer than n words is one run as a whole: it matches
only a question with exactly the same words. That rule misses a short benchmark question inside a
longer one. Any other rule would call `Find the value of x` a leak.

Time is linear in the words of both sides; memory is that of the benchmarks' runs. Paraphrases and
translations are not found.
Source: n-gram overlap as in arXiv 2005.14165 (App. C, 13 words) and arXiv 2501.19393 (8 words).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_WORD = re.compile(r"[^\W_]+")


class Match(NamedTuple):
    """One train question that shares runs with one benchmark question.

    row: the benchmark's row, from 1. shared_ngrams: number of different shared runs. words: the
    first of them.
    """

    question_id: str
    benchmark: str
    row: int
    shared_ngrams: int
    words: str


def split_words(text: str) -> list[str]:
    """The words that count, in order."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngrams(words: Sequence[str], n: int) -> dict[tuple[str, ...], None]:
    """The different runs of n words in their order; all words where there are fewer than n.

    Example, n = 2: a b a b c has the runs (a, b), (b, a), (b, c).
    """
    if not words:
        return {}
    # 5 words and n = 2: the runs begin at 0, 1, 2 and 3. One word: at 0 only, and it is shorter.
    num_runs = max(len(words) - n, 0) + 1
    runs = [tuple(words[start : start + n]) for start in range(num_runs)]
    return dict.fromkeys(runs)


def find_matches(
    questions: Mapping[str, str], benchmarks: Mapping[str, Sequence[str]], n: int
) -> list[Match]:
    """All matches, in the order of the questions, then of the benchmarks and their rows.

    Args:
        questions: train question by question_id.
        benchmarks: the questions of each benchmark by its name.
        n: words in a run.
    """
    # Run to the places that have it, each a benchmark's number and a row:
    #     (b, c, d): [(0, 1), (1, 7)]     row 1 of the first benchmark, row 7 of the second
    places = defaultdict(list)
    for number, texts in enumerate(benchmarks.values()):
        for row, text in enumerate(texts, 1):
            for gram in ngrams(split_words(text), n):
                places[gram].append((number, row))
    names = list(benchmarks)
    matches = []
    for question_id, text in questions.items():
        shared = defaultdict(list)
        for gram in ngrams(split_words(text), n):
            for place in places.get(gram, ()):
                shared[place].append(gram)
        for number, row in sorted(shared):
            grams = shared[number, row]
            words = " ".join(grams[0])
            matches.append(Match(question_id, names[number], row, len(grams), words))
    return matches


def contamination_report(
    matches: Sequence[Match], num_train: int, benchmarks: Mapping[str, Sequence[str]], n: int
) -> dict[str, Any]:
    """Counts by benchmark, and every match, as JSON holds them."""
    in_a_benchmark = set()
    rows_found = defaultdict(set)
    train_questions = defaultdict(set)
    for match in matches:
        in_a_benchmark.add(match.question_id)
        rows_found[match.benchmark].add(match.row)
        train_questions[match.benchmark].add(match.question_id)
    counts = {}
    for name, texts in benchmarks.items():
        num_short = sum(len(split_words(text)) < n for text in texts)
        counts[name] = {
            "questions": len(texts),
            "shorter_than_ngram": num_short,
            "questions_found_in_train": len(rows_found[name]),
            "train_questions": len(train_questions[name]),
        }
    return {
        "ngram_words": n,
        "train_questions": num_train,
        "train_questions_in_a_benchmark": len(in_a_benchmark),
        "benchmarks": counts,
        "matches": [match._asdict() for match in matches],
    }
