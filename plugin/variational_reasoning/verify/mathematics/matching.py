"""The types of the plain rules, and three-valued comparison of many parts (check kind `math`).

True: equal. False: certainly different. None: the plain rules cannot tell.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Ask = Callable[[str, str], bool | None]
"""Another checker's opinion on two texts."""

Same = Callable[[str, str], bool | None]
"""All rules, applied to two parts of the texts."""

Rule = Callable[[str, str, Same], bool | None]
"""An opinion on (gold, answer): None leaves the decision to the next rule."""

MAX_MATCHED = 60
"""Longer lists are not matched in any order."""

Part = TypeVar("Part")


def all_same(results: Iterable[bool | None]) -> bool | None:
    """False where one is False, else None where one is None, else True."""
    decided: bool | None = True
    for result in results:
        if result is False:
            return False
        if result is None:
            decided = None
    return decided


def in_any_order(
    want: Sequence[Part], found: Sequence[Part], same: Callable[[Part, Part], bool | None]
) -> bool | None:
    """Whether two lists hold the same things in any order. None where a pair is doubtful."""
    if len(want) != len(found):
        return False
    if len(want) > MAX_MATCHED:
        return None
    # Each wanted part takes the first one left that equals it. Of `1, 2` and `2.0, 1.0` the 1 takes
    # the second, and the 2 the first.
    rest = list(found)
    is_doubtful = False
    for left in want:
        for index, right in enumerate(rest):
            result = same(left, right)
            if result:
                del rest[index]
                break
            is_doubtful = is_doubtful or result is None
        else:
            return None if is_doubtful else False
    return True
