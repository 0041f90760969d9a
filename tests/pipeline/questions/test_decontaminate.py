"""Shared runs of words, worked out by hand."""

import random
import time

from variational_reasoning.pipeline.questions.decontaminate import (
    Match,
    contamination_report,
    find_matches,
    ngrams,
    split_words,
)


def test_words_are_letters_and_digits_without_case_signs_and_width():
    assert split_words(r"Find  $\frac{a_1}{B}$, if x² = Ｙ—Straße!") == [
        "find",
        "frac",
        "a",
        "1",
        "b",
        "if",
        "x2",
        "y",
        "strasse",
    ]
    assert split_words(r"$$ \{ } _ !") == []


def test_a_text_has_its_runs_once_and_a_short_one_only_itself():
    assert list(ngrams(["a", "b", "a", "b"], 2)) == [("a", "b"), ("b", "a")]
    assert list(ngrams(["a", "b"], 3)) == [("a", "b")]
    assert list(ngrams(["a", "b", "c"], 3)) == [("a", "b", "c")]
    assert list(ngrams([], 3)) == []


def test_matches_by_hand():
    # With n = 3: t1 shares "b c d" and "c d e" with row 1 of `one`, and "x y z" with row 2; t2 only
    # "b c", which is too short.
    questions = {"t1": "a b c d e x y z", "t2": "b c q", "t3": "p q"}
    benchmarks = {
        "one": ["B, c; d e f", "x-y-z", "p q r"],
        "two": ["P Q!", "b c", "e x y"],
    }
    assert find_matches(questions, benchmarks, 3) == [
        Match("t1", "one", 1, 2, "b c d"),
        Match("t1", "one", 2, 1, "x y z"),
        Match("t1", "two", 3, 1, "e x y"),
        # "p q" is a whole benchmark question of fewer than 3 words; it is not found inside "p q r",
        # nor "b c" inside t1
        Match("t3", "two", 1, 1, "p q"),
    ]


def test_the_report_counts_both_sides():
    benchmarks = {"one": ["a b c", "a b d", "x"], "two": ["q"]}
    questions = {"t1": "a b c", "t2": "z a b c", "t3": "n", "t4": "a b d"}
    report = contamination_report(
        find_matches(questions, benchmarks, 3), len(questions), benchmarks, 3
    )
    assert report["benchmarks"] == {
        "one": {
            "questions": 3,
            "shorter_than_ngram": 1,
            "questions_found_in_train": 2,
            "train_questions": 3,
        },
        "two": {
            "questions": 1,
            "shorter_than_ngram": 1,
            "questions_found_in_train": 0,
            "train_questions": 0,
        },
    }
    assert (report["train_questions"], report["train_questions_in_a_benchmark"]) == (4, 3)
    assert report["matches"][0] == {
        "question_id": "t1",
        "benchmark": "one",
        "row": 1,
        "shared_ngrams": 1,
        "words": "a b c",
    }


def test_time_grows_with_the_words_not_with_their_product():
    # A comparison of every question with every other would take 100 times as long for 10 times the
    # rows.
    draw = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]

    def texts(count):
        return [" ".join(draw.choices(vocabulary, k=60)) for _ in range(count)]

    def seconds(count):
        questions, benchmarks = dict(enumerate(texts(count))), {"b": texts(count)}
        begin = time.process_time()
        find_matches(questions, benchmarks, 13)
        return time.process_time() - begin

    assert seconds(3000) < 40 * max(seconds(300), 1e-3)
