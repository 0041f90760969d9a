r"""Plain rules for several values: tuples, sets, lists, labeled values, vectors (kind `math`)."""

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
    for column, other in ((vector(gold), answer), (vector(answer), gold)):
        held = brackets(other)
        if column is None or held is None:
            continue
        kind, content = held
        if kind in ("()", "[]") and len(split_list(content)) > 1:
            return same(column, f"({content})")
    return None


_MEMBER = re.compile(r"[a-zA-Z](?:_\{?\w\}?)? ?\\in ?(?=\\\{)")


def members(gold: str, answer: str, same: Same) -> bool | None:
    r"""`k \in \{-1, 2\}` and `k = -1, k = 2`: only the set is compared."""
    wanted_set = _without_member(gold)
    found_set = _without_member(answer)
    if wanted_set == gold and found_set == answer:
        return None
    return same(wanted_set, found_set)


def _without_member(text: str) -> str:
    r"""`\{-1, 2\}` of `k \in \{-1, 2\}`; any other text as it is."""
    match = _MEMBER.match(text)
    return text[match.end() :] if match else text


_ENUMERATOR = re.compile(r"(?:\(([a-h]|i{1,3}|iv|v|\d)\)|([a-h]|i{1,3}|iv|v)\)) ?:? ?(?=\S)")
_SEQUENCES = (["a", "b", "c", "d", "e", "f", "g", "h"], ["i", "ii", "iii", "iv", "v"])


def enumerated_parts(gold: str, answer: str, same: Same) -> bool | None:
    r"""`(a) 3, (b) 5` and `3, 5`: the names of a question's parts, in order."""
    want = _without_enumerators(gold)
    found = _without_enumerators(answer)
    if want is None and found is None:
        return None
    wanted_parts = want or split_list(gold)
    found_parts = found or split_list(answer)
    if len(wanted_parts) != len(found_parts):
        return False
    return all_same(map(same, wanted_parts, found_parts))


def _without_enumerators(text: str) -> list[str] | None:
    """The parts after `(a)`, `(b)`, ....

    None where the parts of a text are not enumerated from the start.
    """
    # Several parts may also follow each other without a comma: `(a) 3 (b) 5`.
    text = re.sub(r"(?<=[^,; ]) (?=\([b-h]\) )", ", ", text)
    parts = split_list(text)
    if len(parts) < 2:
        return None
    values = []
    marks = []
    for part in parts:
        match = _ENUMERATOR.match(part)
        if match is None:
            return None
        values.append(part[match.end() :])
        marks.append(match[1] or match[2])
    for sequence in _SEQUENCES:
        if marks == sequence[: len(marks)]:
            return values
    return None


def solutions(gold: str, answer: str, same: Same) -> bool | None:
    """Several solutions with the same labels are tuples, one for each solution.

    `x = 1, y = 2; x = 3, y = 4` is compared as `(1, 2), (3, 4)`. An answer that names y first is
    written in the gold's order of names before.
    """
    want = _grouped(gold)
    found = _grouped(answer)
    groups = want or found
    if groups is None:
        return None
    if want is not None and found is not None and want[0].keys() != found[0].keys():
        return None
    names = list(groups[0])
    wanted_text = gold if want is None else _as_tuples(want, names)
    found_text = answer if found is None else _as_tuples(found, names)
    return same(wanted_text, found_text)


def _grouped(text: str) -> list[dict[str, str]] | None:
    """The value of each label, by solution, where the same two or more labels come repeatedly.

    `x = 1, y = 2; x = 3, y = 4` gives {"x": "1", "y": "2"} and {"x": "3", "y": "4"}.
    """
    parts = _all_labeled([label(part) for part in split_list(text)])
    if parts is None:
        return None
    # The example has 4 parts and the labels x and y: two groups of size 2.
    size = len(dict(parts))
    if size < 2 or len(parts) <= size or len(parts) % size:
        return None
    groups = []
    for start in range(0, len(parts), size):
        group = dict(parts[start : start + size])
        if len(group) < size:
            return None  # a label comes twice in one solution
        groups.append(group)
    return groups


def _as_tuples(groups: list[dict[str, str]], names: list[str]) -> str:
    tuples = []
    for group in groups:
        values = ", ".join(group[name] for name in names)
        tuples.append(f"({values})")
    return ", ".join(tuples)


def labels(gold: str, answer: str, same: Same) -> bool | None:
    """`x = 2, y = 3` and `y = 3, x = 2`, or values without labels."""
    want = _labeled(gold)
    found = _labeled(answer)
    want_all = _all_labeled(want)
    found_all = _all_labeled(found)
    want_any = _has_label(want)
    found_any = _has_label(found)
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
    if len(parts) != 1:
        return parts
    name, value = parts[0]
    if name is None or not name.startswith("("):
        return parts
    held = brackets(value)
    if held is None or held[0] != "()":
        return parts
    _, content = held
    names = split_list(name[1:-1])
    values = split_list(content)
    if len(names) != len(values):
        return parts
    return list(zip(names, values, strict=True))


def _has_label(parts: list[tuple[str | None, str]]) -> bool:
    return any(name for name, _ in parts)


def _all_labeled(parts: list[tuple[str | None, str]]) -> list[Labeled] | None:
    """The parts where each has a label, else None."""
    named = [(name, value) for name, value in parts if name is not None]
    return named if len(named) == len(parts) else None


def _same_labels(want: list[Labeled], found: list[Labeled], same: Same) -> bool | None:
    wanted_names = sorted(name for name, _ in want)
    found_names = sorted(name for name, _ in found)
    if wanted_names == found_names:
        is_each_name_once = len(set(wanted_names)) == len(wanted_names)
        if is_each_name_once:
            values = dict(found)
            return all_same(same(value, values[name]) for name, value in want)

        # `x = 1, x = 2` and `x = 2, x = 1`: pairs of the same label, in any order.
        def same_pair(left: Labeled, right: Labeled) -> bool | None:
            return left[0] == right[0] and same(left[1], right[1])

        return in_any_order(want, found, same_pair)
    if len(want) == len(found) == 1:
        return _same_function(want[0], found[0], same)
    if len(want) == len(found) and set(wanted_names).isdisjoint(found_names):
        return False
    return None


def _same_function(want: Labeled, found: Labeled, same: Same) -> bool | None:
    """`f(x) = x^2` and `f(t) = t^2` or `y = x^2`; None for other pairs of names."""
    wanted_name, wanted_value = want
    found_name, found_value = found
    function = r"([a-zA-Z]'*)\(([a-z])\)"
    wanted_function = re.fullmatch(function, wanted_name)
    found_function = re.fullmatch(function, found_name)
    if wanted_function and found_function and wanted_function[1] == found_function[1]:
        # The argument has another name: t^2 becomes x^2, unless x is taken.
        wanted_argument = wanted_function[2]
        found_argument = found_function[2]
        if wanted_argument in found_value:
            return None
        argument = rf"(?<![\\a-zA-Z]){found_argument}(?![a-zA-Z])"
        renamed = re.sub(argument, wanted_argument, found_value)
        return same(wanted_value, renamed)
    plain_function = r"[a-z]\([a-z]\)"
    if wanted_name == "y" and re.fullmatch(plain_function, found_name):
        return same(wanted_value, found_value)
    if found_name == "y" and re.fullmatch(plain_function, wanted_name):
        return same(wanted_value, found_value)
    return None


def _and_plain(labeled: list[Labeled], plain: str, same: Same) -> bool | None:
    """Values with labels and values without.

    `(2, 5)` is `x = 2, y = 5` and `y = 5, x = 2`, since coordinates have an order. Words such as
    `Tom: 9` have none.
    """
    parts = split_list(plain)
    is_tuple = False
    held = brackets(parts[0]) if len(parts) == 1 else None
    if held is not None:
        kind, content = held
        is_tuple = kind == "()"
        if kind not in _HALF_OPEN:
            parts = split_list(content)
    names = [name for name, _ in labeled]
    values = [value for _, value in labeled]
    if len(parts) != len(labeled):
        return same(values[0], plain) if len(labeled) == 1 else None
    has_name_twice = len(set(names)) < len(names)
    are_words = all(re.fullmatch("[a-zA-Z]{3,}", name) for name in names)
    are_roots = _are_roots(names) and not is_tuple
    if has_name_twice or len(names) == 1 or are_words or are_roots:
        return in_any_order(values, parts, same)
    if _have_an_order(names):
        values = [value for _, value in sorted(labeled)]
    return all_same(map(same, values, parts))


def _are_roots(names: list[str]) -> bool:
    """`x_1`, `x_2`: several values of one unknown."""
    if not all("_" in name for name in names):
        return False
    unknowns = {name.split("_")[0] for name in names}
    return len(unknowns) == 1


def _have_an_order(names: list[str]) -> bool:
    """Neighbors in the alphabet (x, y, z or p, q), or one letter with several indices."""
    if _are_roots(names):
        return True
    if any(len(name) != 1 for name in names):
        return False
    codes = sorted(map(ord, names))  # p and q: 112 and 113
    neighbors = range(codes[0], codes[0] + len(codes))
    return codes == list(neighbors)


_POINT = re.compile(r"([A-Z]'*) ?(\(.+\))")


def points(gold: str, answer: str, same: Same) -> bool | None:
    """`A(2,3)` and `A = (2,3)` or `(2,3)`."""
    want = _with_equals_sign(gold)
    found = _with_equals_sign(answer)
    if want == gold and found == answer:
        return None
    wanted_name, _ = label(want)
    found_name, _ = label(found)
    if wanted_name and found_name and wanted_name != found_name:
        return False
    return same(want, found)


def _with_equals_sign(text: str) -> str:
    """`A = (2,3)` of `A(2,3)`; any other text as it is."""
    match = _POINT.fullmatch(text)
    if not match:
        return text
    name, coordinates = match[1], match[2]
    held = brackets(coordinates)
    if held is None or len(split_list(held[1])) < 2:
        return text
    return f"{name} = {coordinates}"


def lists(gold: str, answer: str, same: Same) -> bool | None:
    r"""Tuples in order, sets and bare lists in any; `\pm` is two values."""
    both = gold + answer
    if r"\ldots" in gold or r"\begin" in both:
        return None
    if re.search(r"[<>|]|\\le|\\ge|\\mid|\\in ", both):
        return None
    want_kind, want = _collection(gold)
    found_kind, found = _collection(answer)
    kinds = {want_kind, found_kind}
    if kinds == {"one"}:
        return None
    # One of them is a set, and its only member is what the other is: `\{5\}` and `5`.
    if want_kind == "{}" and found_kind != "{}":
        only = _only_member(want)
        if only is not None:
            return same(only, answer)
    if found_kind == "{}" and want_kind != "{}":
        only = _only_member(found)
        if only is not None:
            return same(gold, only)
    if "one" in kinds:
        return _one_and_several(gold, want, answer, found, same)
    if not kinds & _ORDERED:
        found = _without_repetition(found)  # the same solution twice is one solution
        return in_any_order(want, found, same)
    if len(want) != len(found):
        return False
    if "{}" in kinds:
        return False  # an ordered tuple is not a set
    are_intervals = len(want) == 2 or _HALF_OPEN & kinds
    if kinds <= _ORDERED and len(kinds) == 2 and are_intervals:
        return False  # intervals with other ends
    return all_same(map(same, want, found))


def _only_member(members: list[str]) -> str | None:
    r"""`(1, 2)` of `\{(1, 2)\}`; None where a set has more members, or a set as its member."""
    if len(members) != 1:
        return None
    member = members[0]
    if _EMPTY_SET.fullmatch(member) or member.startswith(r"\{"):
        return None
    return member


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
        kind, content = held
        tuples = plus_minus(text)
        if kind == "()" and tuples:
            return "list", tuples
        inner = split_list(content)
        if kind == "{}":
            return kind, _spread(inner)
        is_list_of_one = kind == "[]" and len(inner) == 1 and not brackets(inner[0])
        if len(inner) > 1 or is_list_of_one:
            return kind, inner
    parts = split_list(text)
    if len(parts) > 1:
        parts = _spread(parts)
    else:
        parts = plus_minus(text) or parts
    kind = "list" if len(parts) > 1 else "one"
    return kind, parts


def _spread(parts: list[str]) -> list[str]:
    r"""`1, \pm 2` as `1, 2, -2`."""
    found = []
    for part in parts:
        found += plus_minus(part) or [part]
    return found
