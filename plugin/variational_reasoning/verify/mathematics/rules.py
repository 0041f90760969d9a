r"""The plain rules: are two tidied texts equal, different for certain, or not for these rules to say (check kind `math`)?

Exact, without symbolic algebra. The surprising thing: a rule may also say that two answers differ for certain, which
matters as much, because a symbolic checker that drops what it cannot read calls different answers equal.
"""

import re
from collections.abc import Callable

from .forms import (
    choice,
    choices,
    condition,
    counted,
    intervals,
    is_words,
    label,
    split_unit,
    words,
)
from .lists import brackets, plus_minus, split_list, vector
from .numbers import decimal_places, is_rounding, rational
from .spelling import squeezed

Ask = Callable[[str, str], bool | None]
"""Somebody else's opinion on two texts."""

Same = Callable[[str, str], bool | None]
"""All rules again, for two parts of the texts."""

MAX_DEPTH = 8
"""Parts of parts of ... that are compared by rules."""


def equal(gold: str, answer: str, ask: Ask, depth: int = 0) -> bool | None:
    """Are two tidied texts equal? None where the plain forms do not tell and `ask` does not know.

    Raises: TooLarge for numbers that are not to be computed.
    """
    if not gold or not answer:
        return False
    if squeezed(gold) == squeezed(answer):
        return True

    def same(gold: str, answer: str) -> bool | None:
        return equal(gold, answer, ask, depth + 1)

    for rule in () if depth > MAX_DEPTH else _RULES if depth else (_choices, *_RULES):
        decided = rule(gold, answer, same)
        if decided is not None:
            return decided
    if r"\ldots" in gold or r"\ldots" in answer:
        return False  # what an ellipsis stands for is not compared
    return ask(gold, answer)


def _choices(gold: str, answer: str, same: Same) -> bool | None:
    """Letters of options; only whole answers are read so, since a part of one may be a name."""
    several = [choices(text) for text in (gold, answer)]
    if all(several):
        return several[0] == several[1]
    want = choice(gold)
    found = choice(answer)
    if want is None:
        named = re.match("([A-J]) [A-Z][a-z]+", gold)  # `C Cecile`
        return True if named and found == (named[1], "") else None
    if found is None:
        if want[1]:
            return same(want[1], answer)
        if re.fullmatch("[a-j]", answer):
            return answer.upper() == want[0]
        if re.search(r"(?<![a-zA-Z])[A-J](?![a-zA-Z])", answer) or re.search(r"\d", answer):
            return False
        return None
    if found[0] != want[0]:
        return False
    if want[1] and found[1]:
        return same(want[1], found[1])
    is_marked = re.match(r"\(? ?[A-J] ?[.:)]", answer) and not re.match(r"(?:and|or)\b", found[1])
    other = (
        r"(?<![a-zA-Z])[A-J][.:)]"
        if is_marked
        else r"(?<![a-zA-Z])(?:and|or|,)? ?\(?[A-J]\)?(?![a-zA-Z.])"
    )
    return not re.search(other, found[1])


def _language(gold: str, answer: str, same: Same) -> bool | None:
    if (
        words(gold)
        and words(gold) == words(answer)
        and re.search(r"[a-zA-Z]{3}", gold)
        and "\\" not in gold + answer
    ):
        plain = re.compile(r"[\w\s.'\"!?-]+")
        if (
            plain.fullmatch(gold)
            and plain.fullmatch(answer)
            and not re.search(r"[-.]", gold + answer)
        ):
            return True
    if (
        is_words(gold)
        and is_words(answer)
        and not re.search(r"[,;]|(?<![a-z])(?:and|or)(?![a-z])", gold)
    ):
        return words(gold) == words(answer)
    meanings = [_MEANINGS.get(words(text)) for text in (gold, answer)]
    if any(meanings):
        spelled = [meaning or text for meaning, text in zip(meanings, (gold, answer), strict=True)]
        return squeezed(spelled[0]) == squeezed(spelled[1]) or same(*spelled)
    return False if is_words(gold) and rational(answer) is not None else None


_NUMERALS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_MEANINGS = {name: str(value) for value, name in enumerate(_NUMERALS)} | {
    "infinitely many": r"\infty", "infinite": r"\infty", "infinity": r"\infty", "no solution": r"\emptyset",
    "no solutions": r"\emptyset", "empty set": r"\emptyset", "dne": "does not exist",
}  # fmt: skip
"""Words that stand for a value, as `words` leaves them."""


def _numbers(gold: str, answer: str, same: Same) -> bool | None:
    want, want_unit = split_unit(gold)
    found, found_unit = split_unit(answer)
    want, want_degrees = _without_degrees(want)
    found, found_degrees = _without_degrees(found)
    if want_degrees != found_degrees and (r"\pi" in want or r"\pi" in found):
        # an angle in degrees beside one in radians
        in_degrees, other = (want, found) if want_degrees else (found, want)
        return (
            same(rf"\frac{{({in_degrees})\pi}}{{180}}", other)
            if rational(in_degrees) is not None
            else None
        )
    left, right = rational(want), rational(found)
    if (
        left is None
        and right is not None
        and not found_unit
        and (number := counted(gold)) is not None
    ):
        return rational(number) == right
    if (
        right is None
        and left is not None
        and not want_unit
        and (number := counted(answer)) is not None
    ):
        return rational(number) == left
    if left is None or right is None:
        swapped = _decimal_comma(want, found) if want_unit == found_unit else None
        if swapped is not None:
            return swapped
        if (want_unit or found_unit) and "%" not in (want_unit, found_unit):
            if want_unit and found_unit:
                return same(want, found) if want_unit == found_unit else False
            if left is not None or right is not None or _is_constant(want + found):
                return same(want, found)
        if (want_unit, found_unit) == ("%", "") and left is not None and _is_constant(found):
            return same(want, rf"100 \cdot ({found})")
        if want_degrees or found_degrees:
            return same(want, found)
        return None
    if (want_unit == "%") != (found_unit == "%"):
        if want_unit and found_unit:
            return False
        if left == right or (left / 100 == right if want_unit == "%" else left == right / 100):
            return True
        return (
            decimal_places(found) is None
            and want_unit == "%"
            and is_rounding(want, left, found, 100 * right)
        )
    if want_unit and found_unit and want_unit != found_unit:
        return False
    if left == right:
        return True
    return bool(_decimal_comma(want, found)) or is_rounding(want, left, found, right)


def _is_constant(text: str) -> bool:
    return not re.search(
        "[a-zA-Z=<>,]", re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])", "", text)
    )


def _decimal_comma(want: str, found: str) -> bool | None:
    r"""`0,111` beside `0.111`: a comma that cannot part thousands, where the other side has a point; or thousands
    parted by blanks."""
    for left, right in ((want, found), (found, want)):
        is_decimal = re.fullmatch(r"-?\d+,\d+", left) and not re.fullmatch(
            r"-?[1-9]\d{0,2},\d{3}", left
        )
        if is_decimal and decimal_places(right) is not None:
            return rational(left.replace(",", ".")) == rational(right)
    return None


def _without_degrees(text: str) -> tuple[str, bool]:
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])", text):
        return text, False
    shorter = re.sub(r"\^\{\\circ ?\}", "", text).strip()
    return shorter, shorter != text


def _relations(gold: str, answer: str, same: Same) -> bool | None:
    """Times and ratios of digits, and `a \\ne 2`: side by side."""
    clock = re.compile(r"\d+(?: ?: ?\d+)+")
    if clock.fullmatch(gold) and clock.fullmatch(answer):
        return [int(part[:9]) for part in gold.split(":")] == [
            int(part[:9]) for part in answer.split(":")
        ]
    if clock.fullmatch(gold) and re.search(": ?0", gold):
        return False  # a time beside something else; `7:32` may also be a ratio
    want, found = gold.split(r"\ne "), answer.split(r"\ne ")
    if len(want) == len(found) == 2:
        return _all(same(a.strip(), b.strip()) for a, b in zip(want, found, strict=True))
    return None


def _vectors(gold: str, answer: str, same: Same) -> bool | None:
    """A vector as a column or a row beside a tuple."""
    want, found = vector(gold), vector(answer)
    for one, other in ((want, answer), (found, gold)):
        kind = brackets(other)
        if (
            one is not None
            and kind is not None
            and kind[0] in ("()", "[]")
            and len(split_list(kind[1])) > 1
        ):
            return same(one, f"({kind[1]})")
    return None


_PARAMETER = re.compile(r"(?<![\\a-zA-Z])[klmn](?![a-zA-Z(_])")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z(_])")


def _parameters(gold: str, answer: str, same: Same) -> bool | None:
    r"""`k\pi` beside `n\pi`, `(1 + 2x, x)` beside `(1 + 2t, t)`: the parameter of a family has another name."""
    held = [brackets(text) for text in (gold, answer)]
    if all(kind and kind[0] == "()" and len(split_list(kind[1])) > 1 for kind in held):
        pattern = _LETTER
    elif (
        r"\pi" in gold
        and r"\pi" in answer
        and re.search(r"[+=,]|^ ?(?:[klmn] ?\\pi|\\pi ?[klmn]) ?$", gold)
    ):
        pattern = _PARAMETER
    else:
        return None
    names = [set(pattern.findall(text)) for text in (gold, answer)]
    if not (len(names[0]) == len(names[1]) == 1 and names[0] != names[1]) or names[1] <= {"e", "i"}:
        return None
    return same(gold, pattern.sub(*names[0], answer))


def _intervals(gold: str, answer: str, same: Same) -> bool | None:
    want, found = intervals(gold), intervals(answer)
    if (
        want is None
        or found is None
        or (gold.startswith("(") and answer.startswith("(") and len(want) == len(found) == 1)
    ):
        return None
    if re.search(r"[<>]|\\le|\\ge", gold) and re.search(r"[<>]|\\le|\\ge", answer):
        names = [
            set(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", text)) - {"U"}
            for text in (gold, answer)
        ]
        if len(names[0]) == 1 == len(names[1]) and names[0] != names[1]:
            return None
    if len(want) != len(found):
        return None

    def same_ends(left: tuple[str, str, str], right: tuple[str, str, str]) -> bool | None:
        if left[0] != right[0]:
            return False
        return _all(same(a, b) for a, b in zip(left[1:], right[1:], strict=True))

    return _matching(want, found, same_ends)


def _conditions(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\{x \mid x \ne 2\}` beside `x \ne 2` or a union of intervals: what stands in the braces says it all."""
    want, found = condition(gold), condition(answer)
    if want is None and found is None:
        return None
    return same(want or gold, found or answer)


def _solutions(gold: str, answer: str, same: Same) -> bool | None:
    """`x = 1, y = 2; x = 3, y = 4`: labels that come again are tuples, one for each solution."""
    want, found = _grouped(gold), _grouped(answer)
    if want is None and found is None:
        return None
    if want is not None and found is not None:
        if set(want[0]) != set(found[0]):
            return None
        order = [found[0].index(name) for name in want[0]]
        found = want[0], [[values[i] for i in order] for values in found[1]]
    texts = [
        ", ".join(f"({', '.join(values)})" for values in group[1]) if group else text
        for group, text in ((want, gold), (found, answer))
    ]
    return same(*texts)


def _grouped(text: str) -> tuple[list[str], list[list[str]]] | None:
    """(names, values of each group) where the same two or more labels come again and again, else None."""
    parts = [label(part) for part in split_list(text)]
    names = list(dict.fromkeys(name for name, _ in parts))
    if None in names or len(names) < 2 or len(parts) <= len(names) or len(parts) % len(names):
        return None
    groups = [dict(parts[i : i + len(names)]) for i in range(0, len(parts), len(names))]
    if any(len(group) < len(names) for group in groups):
        return None
    return names, [[group[name] for name in names] for group in groups]


def _labels(gold: str, answer: str, same: Same) -> bool | None:
    want, found = _labelled(gold), _labelled(answer)
    if not any(name for name, _ in want + found):
        return None
    if any(
        name is None and re.search(r"[<>=]|\\le|\\ge|\\in ", value) for name, value in want + found
    ):
        return None  # an equation beside a labelled value: not for this rule
    if all(name for name, _ in want + found):
        return _same_labels(want, found, same)
    if all(name for name, _ in want) and not any(name for name, _ in found):
        return _beside_plain(want, answer, same)
    if all(name for name, _ in found) and not any(name for name, _ in want):
        return _beside_plain(found, gold, lambda value, other: same(other, value))
    return None


def _labelled(text: str) -> list[tuple[str | None, str]]:
    """(label or None, value) of every part; `(p, q) = (3, 2)` is two of them."""
    parts = [label(part) for part in split_list(text)]
    if (
        len(parts) == 1
        and parts[0][0]
        and parts[0][0].startswith("(")
        and (held := brackets(parts[0][1]))
    ):
        names, values = split_list(parts[0][0][1:-1]), split_list(held[1])
        if held[0] == "()" and len(names) == len(values):
            return list(zip(names, values, strict=True))
    return parts


def _same_labels(
    want: list[tuple[str, str]], found: list[tuple[str, str]], same: Same
) -> bool | None:
    names = [name for name, _ in want]
    if sorted(names) == sorted(name for name, _ in found):
        if len(set(names)) == len(names):
            values = dict(found)
            return _all(same(value, values[name]) for name, value in want)
        return _matching(
            want, found, lambda left, right: left[0] == right[0] and same(left[1], right[1])
        )
    if len(want) > 1 or len(found) > 1:
        return (
            False
            if len(want) == len(found) and not set(names) & {name for name, _ in found}
            else None
        )
    pair = {want[0][0], found[0][0]}
    one, other = (
        re.fullmatch(r"([a-zA-Z])\(([a-z])\)", name) for name in (want[0][0], found[0][0])
    )
    if one and other and one[1] == other[1]:  # the argument of a function has another name
        renamed = re.sub(rf"(?<![\\a-zA-Z]){other[2]}(?![a-zA-Z])", one[2], found[0][1])
        return same(want[0][1], renamed) if one[2] not in found[0][1] else None
    if "y" in pair and any(re.fullmatch(r"[a-z]\([a-z]\)", name) for name in pair):
        return same(want[0][1], found[0][1])
    return None


def _beside_plain(labelled: list[tuple[str, str]], plain: str, same: Same) -> bool | None:
    """Values with labels beside values without: in order where each name is a letter, in any order where it is a word."""
    parts = split_list(plain)
    if len(parts) == 1 and (held := brackets(parts[0])) is not None and held[0] not in ("(]", "[)"):
        parts = split_list(held[1])
    names, values = [name for name, _ in labelled], [value for _, value in labelled]
    if len(parts) == len(values):
        if len(set(names)) == len(names) > 1 and not all(
            re.fullmatch("[a-zA-Z]{3,}", name) for name in names
        ):
            return _all(same(value, part) for value, part in zip(values, parts, strict=True))
        return _matching(values, parts, same)
    return same(values[0], plain) if len(values) == 1 else None


def _chains(gold: str, answer: str, same: Same) -> bool | None:
    """`17 \\bmod 5 = 2` beside `2`: what a calculation comes to."""
    sides = answer.split("=")
    if (
        len(sides) < 2
        or "=" in gold
        or re.search(r"[<>,;]|\\(?:le|ge|ne|approx)(?![a-zA-Z])", answer)
    ):
        return None
    is_calculation = all(
        re.search(r"\d", side) and not re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", side)
        for side in sides[:-1]
    )
    return same(gold, sides[-1].strip()) if is_calculation else None


_ORDERED = {"()", "[]", "(]", "[)"}


def _lists(gold: str, answer: str, same: Same) -> bool | None:
    """Tuples in order, sets and bare lists in any; `\\pm` is two values."""
    if (
        r"\ldots" in gold
        or r"\begin" in gold + answer
        or re.search(r"[<>|]|\\le|\\ge|\\mid|\\in ", gold + answer)
    ):
        return None
    (want_kind, want), (found_kind, found) = _collection(gold), _collection(answer)
    kinds = {want_kind, found_kind}
    if "one" in kinds:
        if kinds == {"one"}:
            return None
        if len(want) == len(found) == 1:
            return same(want[0], found[0])
        return (
            None
            if any(
                "\\" in text and "\\{" not in text and "\\frac" not in text
                for text in (gold, answer)
            )
            else False
        )
    if not kinds & _ORDERED:
        found = list(
            {squeezed(part): part for part in found}.values()
        )  # the same solution twice is one solution
    if len(want) != len(found):
        return False
    if not kinds & _ORDERED:
        return _matching(want, found, same)
    if "{}" in kinds:
        return False  # an ordered tuple is no set
    if kinds <= _ORDERED and len(kinds) == 2 and (len(want) == 2 or {"(]", "[)"} & kinds):
        return False  # intervals with other ends
    return _all(same(a, b) for a, b in zip(want, found, strict=True))


def _collection(text: str) -> tuple[str, list[str]]:
    """(kind, parts): a kind of `lists.brackets`, `list` for a list without brackets, or `one`."""
    held = brackets(text)
    if held and held[0] == "()" and (spread := plus_minus(text)):
        return "list", spread
    inner = split_list(held[1]) if held else []
    if held and held[0] == "{}":
        return "{}", _spread(inner)
    if held and (
        len(inner) > 1 or (held[0] == "[]" and len(inner) == 1 and not brackets(inner[0]))
    ):
        return held[0], inner
    parts = split_list(text)
    parts = _spread(parts) if len(parts) > 1 else plus_minus(text) or parts
    return ("list" if len(parts) > 1 else "one"), parts


def _spread(parts: list[str]) -> list[str]:
    return [value for part in parts for value in (plus_minus(part) or [part])]


def _all(results) -> bool | None:
    decided: bool | None = True
    for result in results:
        if result is False:
            return False
        if result is None:
            decided = None
    return decided


def _matching(want: list, found: list, same: Callable) -> bool | None:
    """Do two lists hold the same things in any order? None where a doubtful pair stands in the way."""
    if len(want) != len(found) or len(want) > 60:
        return False if len(want) != len(found) else None
    rest = list(found)
    doubtful = False
    for left in want:
        for right in rest:
            result = same(left, right)
            if result:
                rest.remove(right)
                break
            doubtful = doubtful or result is None
        else:
            return None if doubtful else False
    return True


_RULES = (
    _language,
    _numbers,
    _relations,
    _vectors,
    _parameters,
    _intervals,
    _conditions,
    _solutions,
    _labels,
    _chains,
    _lists,
)
