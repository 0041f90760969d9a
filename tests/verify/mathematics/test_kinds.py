"""Kinds of spelling: pairs that public bug reports tell of, and pairs of our own for each kind.

`public_cases.jsonl` holds pairs with their label and, in `note`, their kind and the thread that
they were made from. Answers are whole texts there, and are read as `scripts/verify_file.py` reads
them (`answers=auto`).
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from variational_reasoning.verify.mathematics.extraction import bare_answer
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import Verdict

from .kinds import KINDS, WITHOUT_A_BOX

pytestmark = pytest.mark.slow  # 1,700 pairs

PUBLIC = Path(__file__).parent / "public_cases.jsonl"


def own_cases():
    """(kind, gold, answer, is_right) of every pair of our own."""
    cases = []
    for kind, groups in KINDS.items():
        for gold, right, wrong in groups:
            cases += [(kind, gold, f"\\boxed{{{answer}}}", True) for answer in right]
            cases += [(kind, gold, f"\\boxed{{{answer}}}", False) for answer in wrong]
    for gold, right, wrong in WITHOUT_A_BOX:
        cases += [("without a box", gold, answer, True) for answer in right]
        cases += [("without a box", gold, answer, False) for answer in wrong]
    return cases


def judged(pairs):
    """The verdict on every (gold, answer), as `verify_file.py` gives it."""
    jobs = []
    for number, (gold, answer) in enumerate(pairs):
        bare = bare_answer(answer)
        solution = answer if bare is None else f"\\boxed{{{bare}}}"
        jobs.append(Job(number, {"kind": "math", "gold": gold}, solution))
    with VerifierPool(2, seconds=5) as pool:
        results = dict(pool.check(jobs))
    return [results[number].verdict for number in range(len(jobs))]


@pytest.fixture(scope="module")
def own_verdicts():
    cases = own_cases()
    return judged([(gold, answer) for _, gold, answer, _ in cases])


@pytest.mark.parametrize("kind", [*KINDS, "without a box"])
def test_our_own_pairs_of_each_kind(kind, own_verdicts):
    faults = []
    for (name, gold, answer, is_right), verdict in zip(own_cases(), own_verdicts, strict=True):
        if name == kind and (verdict is Verdict.CORRECT) is not is_right:
            faults.append((gold, answer, "right" if is_right else "wrong", verdict.value))
    assert not faults


def test_pairs_from_public_bug_reports():
    """796 pairs: all 384 that are right are accepted, none of the 412 that are wrong."""
    rows = [json.loads(line) for line in PUBLIC.read_text(encoding="utf-8").splitlines()]
    verdicts = judged([(row["gold"], row["answer"]) for row in rows])
    counts = Counter()
    faults = []
    for row, verdict in zip(rows, verdicts, strict=True):
        is_accepted = verdict is Verdict.CORRECT
        counts[row["right"], is_accepted] += 1
        if row["right"] is not is_accepted:
            faults.append((row, verdict.value))
    assert not faults
    assert counts == {(True, True): 384, (False, False): 412}


@pytest.mark.parametrize(
    "answer",
    [
        "7" * 60_000,
        "\\boxed{1}" * 5_000,
        "\\boxed{" + "\\sqrt{" * 400 + "7" + "}" * 401,
        "\\boxed{" + "(" * 3_000 + "7" + ")" * 3_000 + "}",
        "\\frac{" * 3_000 + "7",
        "\\boxed{" + "\\underline{" * 1_500 + "7" + "}" * 1_501,
        "\\boxed{" + "sqrt(" * 3_000 + "}",
        "\\boxed{" + "x^(" * 3_000 + "}",
        "\\boxed{" + "5 m " * 4_000 + "}",
    ],
    ids=lambda text: text[:24],
)
def test_long_answers_end_in_time(answer):
    with VerifierPool(1, seconds=2) as pool:
        ((_, result),) = pool.check([Job(0, {"kind": "math", "gold": "7"}, answer)])
    assert result.verdict is not Verdict.CORRECT
    assert result.seconds < 4
