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

_VARIABLE = re.compile(r"[a-zA-Z](?:_\{?\w\}?)?|\\(?:theta|alpha|beta|gamma|lambda|varphi|mu|phi)|[a-z]\([a-z]\)")


def intervals(text: str) -> list[tuple[str, str, str]] | None:
    r"""A union of intervals as (brackets, low, high), from `[a, b) \cup ...`, `x \in ...`, `a < x \le b`, `x > a`."""
    text = re.sub(rf"^(?:{_VARIABLE.pattern}) ?\\in ?", "", text)
    if match := re.fullmatch(rf"\\\{{ ?(?:{_VARIABLE.pattern}) ?(?:\||:|\\mid) ?(.+?) ?\\\}}", text):
        text = match[1]
    parts = re.split(r"\s*(?:\\cup(?![a-zA-Z])|(?<![a-zA-Z])or(?![a-zA-Z])|\\lor|\bU\b)\s*", text)
    found = []
    for part in parts:
        part = re.sub(rf"^(?:{_VARIABLE.pattern}) ?\\in ?", "", part.strip().strip(",").strip())
        pieces = _RELATION.split(part)
        kind = brackets(part)
        point = re.fullmatch(rf"(?:{_VARIABLE.pattern}) ?= ?([^=<>]+)", part)
        if len(parts) > 1 and (point or (kind is not None and kind[0] == "{}" and len(split_list(kind[1])) == 1)):
            value = point[1] if point else kind[1]
            found.append(("[]", value, value))
            continue
        if len(pieces) == 1 and kind is not None and kind[0] != "{}":
            ends = split_list(kind[1])
            if len(ends) != 2:
                return None
            found.append((kind[0], ends[0], ends[1]))
        elif len(pieces) == 3 and (_VARIABLE.fullmatch(pieces[0]) or _VARIABLE.fullmatch(pieces[2])):
            left, relation, right = pieces
            if not _VARIABLE.fullmatch(left):
                left, right = right, left
                relation = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[relation]
            elif _VARIABLE.fullmatch(right):
                return None
            if relation in ("<", r"\le"):
                found.append(("(" + (")" if relation == "<" else "]"), r"-\infty", right))
            else:
                found.append((("(" if relation == ">" else "[") + ")", right, r"\infty"))
        elif len(pieces) == 5 and _VARIABLE.fullmatch(pieces[2]):
            low, first, _, second, high = pieces
            if first in ("<", r"\le") and second in ("<", r"\le"):
                pass
            elif first in (">", r"\ge") and second in (">", r"\ge"):
                low, high, first, second = high, low, second, first
            else:
                return None
            strict = ("<", ">")
            found.append((("(" if first in strict else "[") + (")" if second in strict else "]"), low, high))
        else:
            return None
    return [
        (kind, re.sub(r"\s*\+\s*\\infty", r"\\infty", low), re.sub(r"\s*\+\s*\\infty", r"\\infty", high))
        for kind, low, high in found
    ]


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
    return list(letters) if re.fullmatch("[A-J]{2,10}", letters) and letters == "".join(sorted(set(letters))) else None


def split_unit(text: str) -> tuple[str, str]:
    """(value, unit); the unit is empty where there is none that is known."""
    match = _UNIT.search(text)
    if not match or match.start() == 0:
        return text, ""
    unit = re.sub(r"[\s{}]", "", match[1]).lower().replace("square", "sq").replace("cubic", "cu").replace(".", "")
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
    if not match or re.search(r"million|billion|thousand|hundred|dozen|percent|half|pairs?|score", match[2].lower()):
        return None
    return match[1]


def is_prose(text: str) -> bool:
    """Does the text say something in words, so that no comparison of values can decide it?"""
    return len(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}(?![a-zA-Z])", text)) >= 4


def words(text: str) -> str:
    """Words for comparison: lower case, one space, no articles and punctuation."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ("the", "a", "an", "is", "are"))
