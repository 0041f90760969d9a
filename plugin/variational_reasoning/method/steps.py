"""A verbal chain of thought as steps: where they are, and how many symbols a step gets.

A pattern says what a step is: a regular expression whose matches, one after the other, are the
steps. A group named `value` says what a step found out, where a task knows that. Example, with the
pattern `[-+*]\\d=(?P<value>\\d)`:

    +5=1*4=4        steps  "+5=1" (characters 0 to 4, value 1)   "*4=4" (4 to 8, value 4)
"""

import math
import random
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

LINES = r"[^\n]*\S[^\n]*\n*"
"""The pattern of steps that are lines: a line that holds more than spaces, with its line breaks."""


class Step(NamedTuple):
    """Characters start to stop of a trace. value: None where the pattern has no such group."""

    text: str
    start: int
    stop: int
    value: str | None


def split_steps(trace: str, pattern: str = LINES) -> list[Step]:
    """The steps of a trace, in order; none where the pattern does not match."""
    steps = []
    for found in re.finditer(pattern, trace):
        value = found.groupdict().get("value")
        steps.append(Step(found.group(), found.start(), found.end(), value))
    return steps


def check_pattern(pattern: str) -> None:
    """Raises: ValueError for a pattern that is not a regular expression, or that matches nothing at
    all, so that its steps would be empty.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if compiled.fullmatch(""):
        raise ValueError(f"{pattern!r} matches the empty text, so steps can be empty")


def values_only(trace: str, steps: Sequence[Step]) -> str:
    """What the steps found out and nothing else, each value with the text that marks it.

    The mark is what is between the last letter, digit or space before the value and the value:

        "+5=1", "*4=4"  ->  "=1=4"

    Raises: ValueError for steps without values.
    """
    kept = []
    for step in steps:
        if step.value is None:
            raise ValueError(
                f"the step {step.text!r} has no value; steps.pattern needs (?P<value>)"
            )
        before = step.text[: step.text.rindex(step.value)]
        # All marks at the end of what is before the value; it always matches, perhaps nothing.
        marks = re.search(r"[^\w\s]*$", before)
        assert marks is not None
        kept.append(marks.group() + step.value)
    return "".join(kept)


def random_symbols(
    step_lengths: Sequence[int], num_symbols: int, max_symbols: int, rng: random.Random
) -> list[int]:
    """The paper's first traces (section 3.2): for a step of l tokens a count that is uniform in
    1 .. max(1, l / 2), every symbol uniform; in all at most max_symbols.
    """
    symbols: list[int] = []
    for length in step_lengths:
        most = max(1, length // 2)
        count = rng.randint(1, most)
        symbols += [rng.randrange(num_symbols) for _ in range(count)]
    return symbols[:max_symbols]


def mutual_information(pairs: Iterable[tuple[Hashable, Hashable]]) -> float:
    """I(A; B) in bits, of the empirical distribution of pairs; 0 for no pair.

    (0, "x"), (1, "y")                       1 bit: each tells the other
    (0, "x"), (0, "y"), (1, "x"), (1, "y")   0 bits

    It is the sum over different pairs of p(a, b) log2(p(a, b) / (p(a) p(b))), with p(a, b) the
    share of the pair. In the first example that is 2 * 1/2 log2(1/2 / (1/2 * 1/2)) = 1.
    """
    joint = Counter(pairs)
    total = joint.total()
    first: Counter[Hashable] = Counter()
    second: Counter[Hashable] = Counter()
    for (a, b), count in joint.items():
        first[a] += count
        second[b] += count
    terms = []
    for (a, b), count in joint.items():
        # count / total over first / total times second / total, with one division.
        ratio = count * total / (first[a] * second[b])
        terms.append(count / total * math.log2(ratio))
    return max(0.0, math.fsum(terms))  # rounding may leave less than 0


def chance_information(
    pairs: Sequence[tuple[Hashable, Hashable]], times: int = 5, seed: int = 0
) -> float:
    """What `mutual_information` gives of so many pairs where neither tells anything of the other:
    the mean over shuffles of the second values. With few pairs per value it is far above 0.
    """
    rng = random.Random(seed)
    first = [a for a, _ in pairs]
    second = [b for _, b in pairs]
    total = 0.0
    for _ in range(times):
        # How often each value occurs stays the same; only what it is paired with is lost.
        rng.shuffle(second)
        total += mutual_information(zip(first, second, strict=True))
    return total / times


def entropy(values: Iterable[Hashable]) -> float:
    """H in bits of the empirical distribution; 0 for no value.

    Example: a, a, b, c has 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits.
    """
    counts = Counter(values)
    total = counts.total()
    terms = []
    for count in counts.values():
        share = count / total
        terms.append(share * math.log2(share))
    return max(0.0, -math.fsum(terms))
