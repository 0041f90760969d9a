r"""Final answers read as plain forms: labelled values, intervals, choices, units, words (check kind `math`)."""

import re

from .lists import brackets, split_list

_SUBSCRIPT = r"_(?:\{[^{}]{1,20}\}|\\?[a-zA-Z]++|\d++)"

_LABEL = re.compile(
    rf"((?:[A-Z][A-Z0-9']*+|[a-z][0-9']*+)(?:{_SUBSCRIPT})*+'?(?:\([a-zA-Z](?:, ?[a-zA-Z])*+\))?|\\[a-zA-Z]++(?:{_SUBSCRIPT})?"
    rf"|\((?:[a-zA-Z]|\\ell)(?:\([a-zA-Z]\))?(?:, ?(?:[a-zA-Z]|\\ell)(?:\([a-zA-Z]\))?)++ ?\)|\\angle ?[A-Z]++) ?= ?(.+)"
)
"""Possessive, because a text of many underscores must not be read in exponentially many ways."""


def label(text: str) -> tuple[str | None, str]:
    """(label, value) of `x = 5` and `(p, q) = (3, 2)`; (None, text) for anything else."""
    match = _LABEL.fullmatch(text)
    if match and "=" not in match[2] and not re.search(r"[<>]|\\le|\\ge", match[2]):
        return re.sub(r"[ {}]", "", match[1]), match[2].strip()
    if match := re.fullmatch(r"([a-zA-Z]{3,}) ?[:=] ?(.+)", text):
        return match[1].lower(), match[2].strip()
    return None, text


_RELATION = re.compile(r"\s*(\\le|\\ge|<|>)\s*")

_VARIABLE = re.compile(
    r"[a-zA-Z](?:_\{?\w\}?)?|\\(?:theta|alpha|beta|gamma|lambda|varphi|mu|phi)|[a-z]\([a-z]\)"
)
_MEMBER = re.compile(rf"^(?:{_VARIABLE.pattern}) ?\\in ?")
_BUILDER = re.compile(
    rf"\\\{{ ?(?:{_VARIABLE.pattern}) ?(?:\\in ?\\mathbb ?\{{R\}} ?)?(?:\||:|\\mid) ?(.+?) ?\\\}}"
)
_POINT = re.compile(rf"(?:{_VARIABLE.pattern}) ?= ?([^=<>]+)")
_UNION = re.compile(r"\s*(?:\\cup(?![a-zA-Z])|(?<![a-zA-Z])or(?![a-zA-Z])|\\lor|\bU\b)\s*")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}

Interval = tuple[str, str, str]
"""Brackets such as `[)`, low end, high end."""


def condition(text: str) -> str | None:
    r"""What stands behind the bar of `\{x \mid x > 2\}`, else None."""
    match = _BUILDER.fullmatch(text)
    return match[1] if match else None


def intervals(text: str) -> list[Interval] | None:
    r"""A union of intervals from `[a, b) \cup ...`, `x \in ...`, `a < x \le b`, `x > a`; None for anything else."""
    text = _MEMBER.sub("", text)
    text = condition(text) or text
    parts = [_MEMBER.sub("", part.strip().strip(",").strip()) for part in _UNION.split(text)]
    found = [
        (_point(part) if len(parts) > 1 else None) or _bracketed(part) or _related(part)
        for part in parts
    ]
    if None in found:
        return None
    return [
        (kind, *(re.sub(r"\s*\+\s*\\infty", r"\\infty", end) for end in ends))
        for kind, *ends in found
    ]


def _point(part: str) -> Interval | None:
    """`x = 2` or `\\{2\\}`, which only a union makes an interval of."""
    point, held = _POINT.fullmatch(part), brackets(part)
    value = (
        point[1]
        if point
        else held[1]
        if held and held[0] == "{}" and len(split_list(held[1])) == 1
        else None
    )
    return None if value is None else ("[]", value, value)


def _bracketed(part: str) -> Interval | None:
    held = brackets(part)
    ends = split_list(held[1]) if held and held[0] != "{}" and not _RELATION.search(part) else []
    return (held[0], *ends) if len(ends) == 2 else None


def _related(part: str) -> Interval | None:
    """`x > a` and `a < x \\le b`, from either side."""
    pieces = _RELATION.split(part)
    if len(pieces) == 3:
        left, relation, right = pieces
        if not _VARIABLE.fullmatch(left):
            left, relation, right = right, _TURNED[relation], left
        if not _VARIABLE.fullmatch(left) or _VARIABLE.fullmatch(right):
            return None
        is_strict = relation in ("<", ">")
        if relation in ("<", r"\le"):
            return "()" if is_strict else "(]", r"-\infty", right
        return "()" if is_strict else "[)", right, r"\infty"
    if len(pieces) == 5 and _VARIABLE.fullmatch(pieces[2]):
        low, first, _, second, high = pieces
        if first in (">", r"\ge"):
            low, first, second, high = high, _TURNED[second], _TURNED[first], low
        if first in ("<", r"\le") and second in ("<", r"\le"):
            return ("(" if first == "<" else "[") + (")" if second == "<" else "]"), low, high
    return None


_CHOICE = re.compile(r"\(? ?([A-J]) ?\)?(?: ?[.:)])?(?: (.*))?", re.DOTALL)

_UNIT = re.compile(
    r"(?<=[\d)}\]% ])\s*((?:square|cubic|sq\.?|cu\.?)?\s*(?:millimeters?|centimeters?|kilometers?|meters?|metres?|inch(?:es)?|"
    r"feet|foot|"
    r"yards?|miles?|mm|cm|dm|km|m|in|ft|yd|mi|grams?|kilograms?|kg|mg|g|lbs?|pounds?|ounces?|oz|tons?|liters?|litres?|ml|mL|L|"
    r"seconds?|minutes?|hours?|days?|weeks?|months?|years?|sec|min|hrs?|hr|h|s|dollars?|cents?|euros?|yuan|rubles?|units?|"
    r"people|students?|persons?|children|boys|girls|men|women|apples?|books?|coins?|cards?|balls?|games?|points?|ways?|pieces?|"
    r"times|mph|km/h|m/s|m/s\^\{?2\}?|radians?|rad|pages|trees|cups?|bags?|boxes|eggs|marbles|percent|%)"
    r"(?:\s*(?:\^\s*\{?\s*[23]\s*\}?|per\s+\w+|/\s*(?:h|s|hr|hour|min)))?)\s*$"
)

_SAME_UNITS = {
    "meter": "m", "metre": "m", "centimeter": "cm", "kilometer": "km", "millimeter": "mm", "inch": "in", "inche": "in",
    "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "gram": "g", "kilogram": "kg", "pound": "lb", "ounce": "oz",
    "liter": "l", "litre": "l", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "percent": "%",
    "radian": "rad",
}  # fmt: skip


def choice(text: str) -> tuple[str, str] | None:
    """(letter, what follows) of a multiple-choice answer such as `(B)`, `B.` or `B) 12`."""
    match = _CHOICE.fullmatch(text)
    if not match:
        return None
    rest = (match[2] or "").strip()
    if rest and re.fullmatch(r"[A-Ja-z]", text.split(" ")[0]):
        return None  # a letter and more without a mark between them is no choice
    return match[1], rest


def choices(text: str) -> list[str] | None:
    """The letters of an answer that chooses several, such as `ABD` or `A, B and D`, in the order of the alphabet."""
    letters = re.sub(r"(?<![a-zA-Z])and(?![a-zA-Z])|[\s,;()]", "", text)
    return (
        list(letters)
        if re.fullmatch("[A-J]{2,10}", letters) and letters == "".join(sorted(set(letters)))
        else None
    )


def split_unit(text: str) -> tuple[str, str]:
    """(value, unit); the unit is empty where there is none that is known."""
    match = _UNIT.search(text)
    if not match or match.start() == 0:
        return text, ""
    unit = (
        re.sub(r"[\s{}]", "", match[1])
        .lower()
        .replace("square", "sq")
        .replace("cubic", "cu")
        .replace(".", "")
    )
    power = ""
    if found := re.search(r"\^?([23])$", unit):
        power, unit = found[1], unit[: found.start()]
    elif unit.startswith("sq"):
        power, unit = "2", unit[2:]
    elif unit.startswith("cu") and not unit.startswith("cup"):
        power, unit = "3", unit[2:]
    unit = unit.rstrip("s") if len(unit) > 2 else unit
    return text[: match.start()].strip(), _SAME_UNITS.get(unit, unit) + power


def is_words(text: str) -> bool:
    """Is this language rather than mathematics: words of three letters or more, no digit and no operator?"""
    bare = re.sub(r"[\s.,;:'\"!?()-]", "", text)
    return (
        bool(re.fullmatch(r"[a-zA-Z]{2,}", bare))
        and bool(re.search(r"[a-zA-Z]{3,}|^(?:no|No|NO)$", text))
        and not _is_function(bare)
    )


def _is_function(bare: str) -> bool:
    return bool(re.match(r"(?:sin|cos|tan|log|ln|sqrt|exp|pi)(?![a-z]{2})", bare))


def counted(text: str) -> str | None:
    """The number of `7 stuffed goats`, where nothing but words of counting comes after it."""
    match = re.fullmatch(r"(-?\d[\d,]*(?:\.\d+)?)((?: [A-Za-z][a-z]{2,})+)", text)
    if not match or re.search(
        r"million|billion|thousand|hundred|dozen|percent|half|pairs?|score", match[2].lower()
    ):
        return None
    return match[1]


def is_prose(text: str) -> bool:
    """Does the text say something in words, so that no comparison of values can decide it?"""
    return len(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}(?![a-zA-Z])", text)) >= 4


def words(text: str) -> str:
    """Words for comparison: lower case, one space, no articles and punctuation."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ("the", "a", "an", "is", "are"))
