r"""Whether a final answer is equal to the gold answer (stage 7, check kind `math`).

There are three steps:

    1. the same text after `spelling.tidy`
    2. the plain rules, which are exact
    3. Math-Verify for the rest, part by part

`compare_plainly` takes the first two steps. It is cheap and bounded. Math-Verify uses sympy, which
may never end on a short text. So `compare_symbolically` may only be called inside a worker process
that `pool` can kill. Math-Verify's own alarms are off, because they need signals and do not stop C
code.
"""

from fractions import Fraction

from ..verdicts import Result, Verdict
from .algebra import math_verify_equal, unambiguous
from .boxes import final_boxes
from .forms import is_prose
from .numbers import TooLarge, explodes, rational
from .rules import Ask, equal
from .spelling import squeezed, tidy

MAX_CHARACTERS = 20_000
"""Longer answers are refused unread."""

MAX_INLINE_CHARACTERS = 300
"""Longer ones are only read in a worker process, so that no text delays the parent."""


def compare_plainly(golds: list[str], solution: str) -> Result | None:
    r"""The verdict where no symbolic algebra is needed, or None.

    Args:
        golds: accepted answers, with or without dollar signs or a box.
        solution: the solution part of an answer. Its last complete box counts. Several boxes of its
            sentence also count as one list.
    """
    boxes = final_boxes(solution)
    if not boxes:
        return Result(Verdict.NO_ANSWER, "no complete \\boxed{...} with content")
    if sum(map(len, boxes)) > MAX_CHARACTERS:
        return Result(Verdict.MALFORMED, f"the answer has more than {MAX_CHARACTERS} characters")
    if _is_long(golds, boxes):
        return None
    return _without_algebra(golds, boxes)


def _is_long(golds: list[str], boxes: list[str]) -> bool:
    return max(map(len, (*golds, *boxes))) > MAX_INLINE_CHARACTERS


def _without_algebra(golds: list[str], boxes: list[str]) -> Result | None:
    try:
        decided, reason = _compare(golds, boxes, lambda gold, answer: None)
    except TooLarge:
        return None
    if decided is not True and all(is_prose(tidy(gold)) for gold in golds):
        return Result(Verdict.UNVERIFIABLE, "the gold answer is prose")
    if decided is None:
        return None
    return Result(Verdict.CORRECT if decided else Verdict.WRONG, reason)


def compare_symbolically(golds: list[str], solution: str) -> Result:
    """The verdict where `compare_plainly` has none. Only for worker processes, as it may not end.

    Returns: timeout, immediately, for an expression that is too large to compute. Unverifiable when
        no gold can be read or compared.
    """
    boxes = final_boxes(solution)
    if _is_long(golds, boxes):
        plain = _without_algebra(golds, boxes)
        if plain is not None:
            return plain
    num_asked = 0

    def ask(gold: str, answer: str) -> bool | None:
        nonlocal num_asked
        num_asked += 1
        if explodes(answer) or explodes(gold):
            raise TooLarge
        return math_verify_equal(*unambiguous(gold, answer))

    try:
        decided, reason = _compare(golds, boxes, ask)
    except TooLarge:
        return Result(Verdict.TIMEOUT, "not computed: the power or factorial is too large")
    if decided is None:
        return Result(Verdict.UNVERIFIABLE, "math-verify cannot read the gold answer")
    verdict = Verdict.CORRECT if decided else Verdict.WRONG
    return Result(verdict, "math-verify" if num_asked else reason)


def exact_number(text: str) -> Fraction | None:
    """The exact value of a text of integers, decimals and fractions, or None.

    `1,000` is a thousand. `1,2` is not a number.
    """
    try:
        return rational(tidy(text))
    except TooLarge:
        return None


def _compare(golds: list[str], boxes: list[str], ask: Ask) -> tuple[bool | None, str]:
    """(whether one of the golds is the answer, why).

    Raises: TooLarge where none is and one cannot be computed.
    """
    answers = [tidy(boxes[-1])]
    if len(boxes) > 1:
        answers.append(tidy(", ".join(boxes)))
    answers = [answer for answer in answers if answer]
    if not answers:
        return False, "the answer says nothing"
    opinions: list[bool | None] = []
    refusal: TooLarge | None = None
    for gold in golds:
        boxed = ", ".join(final_boxes(gold))
        gold = tidy(boxed or gold)
        for answer in answers:
            if squeezed(gold) and squeezed(gold) == squeezed(answer):
                return True, "same text"
            try:
                opinion = equal(gold, answer, ask)
            except TooLarge as error:
                refusal = error
                continue
            if opinion:
                return True, "same value"
            opinions.append(opinion)
    if refusal:
        raise refusal
    return (None if None in opinions else False), "another value"
