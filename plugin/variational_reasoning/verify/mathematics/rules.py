r"""The plain rules: whether two tidied texts are equal, or certainly different (check kind `math`).

They are exact, without symbolic algebra. That two answers certainly differ matters as much as
equality. A symbolic checker that drops what it cannot read would call them equal.
"""

import re
from collections import Counter

from . import list_rules, number_rules, set_rules, word_rules
from .matching import Ask, Rule
from .spelling import squeezed

MAX_DEPTH = 8
"""Parts of parts of ... that are compared by rules."""

_RULES: tuple[Rule, ...] = (
    word_rules.language,
    number_rules.times,
    number_rules.bases,
    number_rules.congruences,
    set_rules.domains,
    number_rules.numbers,
    number_rules.inequations,
    list_rules.vectors,
    set_rules.functions_in_pieces,
    set_rules.parameters,
    set_rules.bound_names,
    list_rules.members,
    number_rules.binomials,
    list_rules.points,
    set_rules.interval_unions,
    set_rules.conditions,
    list_rules.enumerated_parts,
    list_rules.solutions,
    list_rules.labels,
    number_rules.chains,
    list_rules.lists,
)
"""They are asked in this order. The first one that decides is believed."""


def equal(gold: str, answer: str, ask: Ask, depth: int = 0) -> bool | None:
    """Whether two tidied texts are equal. None where neither the rules nor `ask` can tell.

    Raises: TooLarge for numbers that must not be computed.
    """
    if not gold or not answer:
        return False
    if squeezed(gold) == squeezed(answer):
        return True

    # A rule compares parts by all rules again. For `(1, 2)` and `(1.0, 2)` the rule `lists` asks
    # for 1 and 1.0, and for 2 and 2, at depth 1.
    def same(gold: str, answer: str) -> bool | None:
        return equal(gold, answer, ask, depth + 1)

    rules = _RULES
    if depth == 0:
        rules = (word_rules.options, *_RULES)  # in a part, the letter A is a name
    if depth <= MAX_DEPTH:
        for rule in rules:
            decided = rule(gold, answer, same)
            if decided is not None:
                return decided
    if r"\ldots" in gold or r"\ldots" in answer:
        return False  # what an ellipsis stands for is not compared
    if _primes(gold) != _primes(answer):
        return False
    return ask(gold, answer)


def _primes(text: str) -> Counter[str]:
    """The signs with primes: `f''(x) + f'(x)` has f'' and f'. Math-Verify drops the primes."""
    return Counter(re.findall(r"[\w)}]'+", text.replace(" ", "")))
