r"""Plain rules for several values: tuples, sets, lists, labeled values, vectors (check kind
`math`).
"""

import itertools
import re

from .forms import label
from .lists import brackets, plus_minus, split_list, vector
from .matching import Same, all_same, in_any_order
from .spelling import squeezed

Labeled = tuple[str, str]
"""(label, value) of `x = 5`."""

_ORDERED = {"()", "[]", "(]", "[)"}
_HALF_OPEN = {"(]", "[)"}
_EMPTY_SET = re.compile(r"\\emptyset|\\\{ ?\\\}")


def vectors(gold: str, answer: str, same: Same) -> bool | None:
    """A vector as a column or a row, and a tuple."""
    want, found = vector(gold), vector(answer)
    for one, other in ((want, answer), (found, gold)):
        kind = brackets(other)
        if one is None or kind is None or kind[0] not in ("()", "[]"):
            continue
        if len(split_list(kind[1])) > 1:
            return same(one, f"({kind[1]})")
    return None


_MEMBER = re.compile(r"[a-zA-Z](?:_\{?\w\}?)? ?\\in ?(?=\\\{)")


def members(gold: str, answer: str, same: Same) -> bool | None:
    r"""`k \in \{-1, 2\}` and `k = -1, k = 2`: the set says it all."""
    want, found = _MEMBER.match(gold), _MEMBER.match(answer)
    if not want and not found:
        return None
    return same(gold[want.end() :] if want else gold, answer[found.end() :] if found else answer)


_ENUMERATOR = re.compile(r"(?:\(([a-h]|i{1,3}|iv|v|\d)\)|([a-h]|i{1,3}|iv|v)\)) ?:? ?(?=\S)")
_SEQUENCES = (["a", "b", "c", "d", "e", "f", "g", "h"], ["i", "ii", "iii", "iv", "v"])


def enumerated_parts(gold: str, answer: str, same: Same) -> bool | None:
    r"""`(a) 3, (b) 5` and `3, 5`: the names of a question's parts, in order."""
    want, found = _without_enumerators(gold), _without_enumerators(answer)
    if want is None and found is None:
        return None
    wanted_parts, found_parts = want or split_list(gold), found or split_list(answer)
    if len(wanted_parts) != len(found_parts):
        return False
    return all_same(same(a, b) for a, b in zip(wanted_parts, found_parts, strict=True))


def _without_enumerators(text: str) -> list[str] | None:
    """The parts after `(a)`, `(b)`, ....

    None where the parts of a text are not enumerated from the start.
    """
    # Several parts may also follow each other without a comma: `(a) 3 (b) 5`.
    text = re.sub(r"(?<=[^,; ]) (?=\([b-h]\) )", ", ", text)
    parts = split_list(text)
    matches = [_ENUMERATOR.match(part) for part in parts]
    if len(parts) < 2:
        return None
    values, marks = [], []
    for part, match in zip(parts, matches, strict=True):
        if match is None:
            return None
        values.append(part[match.end() :])
        marks.append(match[1] or match[2])
    if any(marks == sequence[: len(marks)] for sequence in _SEQUENCES):
        return values
    return None


def solutions(gold: str, answer: str, same: Same) -> bool | None:
    """`x = 1, y = 2; x = 3, y = 4`: labels that come again are tuples, one for each solution."""
    want, found = _grouped(gold), _grouped(answer)
    if want is None and found is None:
        return None
    if want is not None and found is not None:
        if set(want[0]) != set(found[0]):
            return None
        order = [found[0].index(name) for name in want[0]]
        reordered = [[values[i] for i in order] for values in found[1]]
        found = want[0], reordered
    texts = [gold, answer]
    for i, group in enumerate((want, found)):
        if group is not None:
            tuples = [f"({', '.join(values)})" for values in group[1]]
            texts[i] = ", ".join(tuples)
    return same(texts[0], texts[1])


def _grouped(text: str) -> tuple[list[str], list[list[str]]] | None:
    """(names, values of each group) where the same two or more labels come again and again.

    `x = 1, y = 2; x = 3, y = 4` has the names x, y and the groups [1, 2], [3, 4].
    """
    parts = [(name, value) for name, value in map(label, split_list(text)) if name is not None]
    if len(parts) != len(split_list(text)):
        return None
    names = list(dict.fromkeys(name for name, _ in parts))
    size = len(names)
    if size < 2 or len(parts) <= size or len(parts) % size:
        return None
    groups = [dict(parts[start : start + size]) for start in range(0, len(parts), size)]
    if any(len(group) < size for group in groups):
        return None
    return names, [[group[name] for name in names] for group in groups]


def labels(gold: str, answer: str, same: Same) -> bool | None:
    """`x = 2, y = 3` and `y = 3, x = 2`, or values without labels."""
    want, found = _labeled(gold), _labeled(answer)
    want_all, found_all = _all_labeled(want), _all_labeled(found)
    want_any = any(name for name, _ in want)
    found_any = any(name for name, _ in found)
    if not want_any and not found_any:
        return None
    for name, value in want + found:
        if name is None and re.search(r"[<>=]|\\le|\\ge|\\in ", value):
            return None  # an equation next to a labeled value: not for this rule
    if want_all and found_all:
        return _same_labels(want_all, found_all, same)
    if want_all and not found_any:
        return _and_plain(want_all, answer, same)
    if found_all and not want_any:
        return _and_plain(found_all, gold, lambda value, other: same(other, value))
    return None


def _labeled(text: str) -> list[tuple[str | None, str]]:
    """(label or None, value) of every part; `(p, q) = (3, 2)` is two of them."""
    parts = [label(part) for part in split_list(text)]
    if len(parts) != 1 or parts[0][0] is None or not parts[0][0].startswith("("):
        return parts
    held = brackets(parts[0][1])
    if held is None or held[0] != "()":
        return parts
    names, values = split_list(parts[0][0][1:-1]), split_list(held[1])
    if len(names) != len(values):
        return parts
    return list(zip(names, values, strict=True))


def _all_labeled(parts: list[tuple[str | None, str]]) -> list[Labeled] | None:
    """The parts where each has a label, else None."""
    named = [(name, value) for name, value in parts if name is not None]
    return named if len(named) == len(parts) else None


def _same_labels(want: list[Labeled], found: list[Labeled], same: Same) -> bool | None:
    wanted_names, found_names = [name for name, _ in want], [name for name, _ in found]
    if sorted(wanted_names) == sorted(found_names):
        if len(set(wanted_names)) == len(wanted_names):
            values = dict(found)
            return all_same(same(value, values[name]) for name, value in want)

        def same_pair(left: Labeled, right: Labeled) -> bool | None:
            return left[0] == right[0] and same(left[1], right[1])

        return in_any_order(want, found, same_pair)
    if len(want) > 1 or len(found) > 1:
        is_another = len(want) == len(found) and not set(wanted_names) & set(found_names)
        return False if is_another else None
    return _same_function(want[0], found[0], same)


def _same_function(want: Labeled, found: Labeled, same: Same) -> bool | None:
    """`f(x) = x^2` and `f(t) = t^2` or `y = x^2`; None for other pairs of names."""
    function = r"([a-zA-Z]'*)\(([a-z])\)"
    one, other = re.fullmatch(function, want[0]), re.fullmatch(function, found[0])
    if one and other and one[1] == other[1]:  # the argument has another name
        renamed = re.sub(rf"(?<![\\a-zA-Z]){other[2]}(?![a-zA-Z])", one[2], found[1])
        return same(want[1], renamed) if one[2] not in found[1] else None
    pair = {want[0], found[0]}
    if "y" in pair and any(re.fullmatch(r"[a-z]\([a-z]\)", name) for name in pair):
        return same(want[1], found[1])
    return None


def _and_plain(labeled: list[Labeled], plain: str, same: Same) -> bool | None:
    """Values with labels and values without.

    `(2, 5)` is `x = 2, y = 5` and `y = 5, x = 2`, since coordinates have an order. Words such as
    `Tom: 9` have none.
    """
    parts = split_list(plain)
    held = brackets(parts[0]) if len(parts) == 1 else None
    is_tuple = held is not None and held[0] == "()"
    if held is not None and held[0] not in _HALF_OPEN:
        parts = split_list(held[1])
    if len(parts) != len(labeled):
        return same(labeled[0][1], plain) if len(labeled) == 1 else None
    names, values = [name for name, _ in labeled], [value for _, value in labeled]
    are_words = all(re.fullmatch("[a-zA-Z]{3,}", name) for name in names)
    if len(set(names)) < len(names) or len(names) == 1 or are_words:
        return in_any_order(values, parts, same)
    if _are_roots(names) and not is_tuple:
        return in_any_order(values, parts, same)
    if _have_an_order(names):
        values = [value for _, value in sorted(labeled)]
    return all_same(same(value, part) for value, part in zip(values, parts, strict=True))


def _are_roots(names: list[str]) -> bool:
    """`x_1`, `x_2`: several values of one unknown."""
    return all("_" in name for name in names) and len({name.split("_")[0] for name in names}) == 1


def _have_an_order(names: list[str]) -> bool:
    """Neighbors in the alphabet (x, y, z or p, q), or one letter with several indices."""
    if _are_roots(names):
        return True
    letters = sorted(names)
    if any(len(name) != 1 for name in letters):
        return False
    return all(ord(b) - ord(a) == 1 for a, b in itertools.pairwise(letters))


_POINT = re.compile(r"([A-Z]'*) ?(\(.+\))")


def points(gold: str, answer: str, same: Same) -> bool | None:
    """`A(2,3)` and `A = (2,3)` or `(2,3)`."""
    texts, names = [], []
    for text in (gold, answer):
        match = _POINT.fullmatch(text)
        held = brackets(match[2]) if match else None
        is_point = held is not None and len(split_list(held[1])) > 1
        texts.append(f"{match[1]} = {match[2]}" if match and is_point else text)
        names.append(label(texts[-1])[0])
    if texts == [gold, answer]:
        return None
    if all(names) and names[0] != names[1]:
        return False
    return same(texts[0], texts[1])


def lists(gold: str, answer: str, same: Same) -> bool | None:
    r"""Tuples in order, sets and bare lists in any; `\pm` is two values."""
    both = gold + answer
    if r"\ldots" in gold or r"\begin" in both:
        return None
    if re.search(r"[<>|]|\\le|\\ge|\\mid|\\in ", both):
        return None
    (want_kind, want), (found_kind, found) = _collection(gold), _collection(answer)
    kinds = {want_kind, found_kind}
    if kinds == {"one"}:
        return None
    if "{}" in kinds and len(kinds) > 1:
        only = _only_member(gold, want) if want_kind == "{}" else _only_member(answer, found)
        if only is not None:
            return same(only, answer) if want_kind == "{}" else same(gold, only)
    if "one" in kinds:
        return _one_and_several(gold, want, answer, found, same)
    if not kinds & _ORDERED:
        found = _without_repetition(found)  # the same solution twice is one solution
    if len(want) != len(found):
        return False
    if not kinds & _ORDERED:
        return in_any_order(want, found, same)
    if "{}" in kinds:
        return False  # an ordered tuple is not a set
    are_intervals = len(want) == 2 or _HALF_OPEN & kinds
    if kinds <= _ORDERED and len(kinds) == 2 and are_intervals:
        return False  # intervals with other ends
    return all_same(same(a, b) for a, b in zip(want, found, strict=True))


def _only_member(text: str, inner: list[str]) -> str | None:
    r"""`(1, 2)` of `\{(1, 2)\}`; None where a set has more members, or a set for its member."""
    if len(inner) != 1:
        return None
    is_set = _EMPTY_SET.fullmatch(inner[0]) or inner[0].startswith(r"\{")
    return None if is_set else inner[0]


def _one_and_several(
    gold: str, want: list[str], answer: str, found: list[str], same: Same
) -> bool | None:
    """One value, and a tuple, set or list."""
    if len(want) == len(found) == 1:
        if _EMPTY_SET.fullmatch(want[0]) or _EMPTY_SET.fullmatch(found[0]):
            return False  # a set that holds the empty set is not empty
        return same(want[0], found[0])
    for text in (gold, answer):
        if "\\" in text and "\\{" not in text and "\\frac" not in text:
            return None  # a command may be a name of a set
    return False


def _without_repetition(parts: list[str]) -> list[str]:
    by_spelling = {squeezed(part): part for part in parts}
    return list(by_spelling.values())


def _collection(text: str) -> tuple[str, list[str]]:
    """(kind, parts): a kind of `lists.brackets`, `list` for a list without brackets, or `one`."""
    held = brackets(text)
    if held is not None:
        spread = plus_minus(text)
        if held[0] == "()" and spread:
            return "list", spread
        inner = split_list(held[1])
        if held[0] == "{}":
            return "{}", _spread(inner)
        is_list_of_one = held[0] == "[]" and len(inner) == 1 and not brackets(inner[0])
        if len(inner) > 1 or is_list_of_one:
            return held[0], inner
    parts = split_list(text)
    parts = _spread(parts) if len(parts) > 1 else plus_minus(text) or parts
    return ("list" if len(parts) > 1 else "one"), parts


def _spread(parts: list[str]) -> list[str]:
    found = []
    for part in parts:
        found += plus_minus(part) or [part]
    return found
