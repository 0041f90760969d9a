r"""Units after a value: `12 cm^2`, `3 m s^{-1}`, `9元`, `5\%`, `30^{\circ}` (check kind `math`).

    split_unit("3 km/h")         ("3", "km h-1")
    split_unit("3 m s^{-2}")     ("3", "m s-2")
    split_unit("9元")            ("9", "元")
    split_unit("x + 7")          ("x + 7", "")

Two spellings of one unit give the same text. Nothing is converted: `100 cm` and `1 m` have
different units.
"""

import re

_NAMES = {
    "m": "m meter metre",
    "cm": "cm centimeter centimetre",
    "mm": "mm millimeter millimetre",
    "dm": "dm decimeter decimetre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "g": "g gram gramme",
    "kg": "kg kilogram",
    "mg": "mg milligram",
    "lb": "lb lbs pound",
    "oz": "oz ounce",
    "ton": "ton tonne",
    "l": "l L liter litre",
    "ml": "ml mL milliliter millilitre",
    "s": "s sec second",
    "ms": "ms millisecond",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "year yr",
    "mph": "mph",
    "kph": "kph kmh",
    "dollar": "dollar USD",
    "cent": "cent",
    "euro": "euro EUR",
    "yuan": "yuan RMB",
    "ruble": "ruble",
    "rupee": "rupee",
    "rad": "rad radian",
    "%": "% percent",
    "unit": "unit",
    "N": "newton",
    "J": "joule",
    "kJ": "kJ kilojoule",
    "W": "watt",
    "kW": "kW kilowatt",
    "kWh": "kWh",
    "Pa": "Pa pascal",
    "kPa": "kPa",
    "Hz": "Hz hertz",
    "kHz": "kHz",
    "MHz": "MHz",
    "V": "volt",
    "A": "ampere amp",
    "C": "coulomb",
    "K": "kelvin",
    "T": "tesla",
    "F": "farad",
    "mol": "mol mole",
    "eV": "eV",
    "cal": "cal calorie",
    "kcal": "kcal",
    "ohm": r"ohm \Omega",
}
"""A unit, and how it is written (a plural s may follow)."""

_THINGS = [
    "people",
    "persons",
    "person",
    "students",
    "student",
    "children",
    "child",
    "boys",
    "girls",
    "men",
    "women",
    "apples",
    "apple",
    "books",
    "book",
    "coins",
    "coin",
    "cards",
    "card",
    "balls",
    "ball",
    "games",
    "game",
    "points",
    "point",
    "ways",
    "way",
    "pieces",
    "piece",
    "times",
    "pages",
    "page",
    "trees",
    "tree",
    "cups",
    "cup",
    "bags",
    "bag",
    "boxes",
    "box",
    "eggs",
    "egg",
    "marbles",
    "marble",
    "solutions",
    "solution",
    "triples",
    "triple",
    "triangles",
    "triangle",
    "numbers",
    "number",
    "integers",
    "integer",
    "cases",
    "case",
]
"""What is counted; each is a unit of its own."""

ONLY_IN_TEXT = ("J", "N", "W", "V", "A", "C", "K", "T", "F", "H")
r"""Letters that are a unit in `9\text{ J}` (`spelling` marks that as `\unit{J}`), but a name in `9
J`.
"""

_SPEED = {"mph": "mi h-1", "kph": "km h-1"}


def _canonical_names() -> dict[str, str]:
    names = {thing: thing.rstrip("s") for thing in _THINGS}
    for unit, spellings in _NAMES.items():
        for spelling in spellings.split():
            names[spelling] = unit
            if len(spelling) > 2 and spelling.isalpha():
                names[spelling + "s"] = unit
    names |= {rf"\unit{{{letter}}}": letter for letter in ONLY_IN_TEXT}
    return names


_CANONICAL = _canonical_names()
_LOWER = {name.lower(): unit for name, unit in _CANONICAL.items() if len(name) > 2}

_NAME = "|".join(re.escape(name) for name in sorted(_CANONICAL, key=len, reverse=True))
_POWER = r"(?: ?\^ ?\{? ?(?P<power>-? ?[1-4]) ?\}?|(?P<digit>(?<=[a-zA-Z])[23](?!\d)))?"
_ONE = rf"(?:(?P<shape>square|cubic|sq\.?|cu\.?) ?)?(?P<name>{_NAME})(?![a-zA-Z]){_POWER}"
_ONE_UNIT = re.compile(_ONE, re.IGNORECASE)
_SEPARATOR = re.compile(r" ?(/|per|\\cdot|\\times|\*|\.)? ?")
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _ONE)
_UNITS = re.compile(
    rf"(?<=[\d)}}\]% ]) ?({_UNNAMED}(?: ?(?:/|per |\\cdot|\\times|\*)? ?{_UNNAMED}){{0,3}})\.?$",
    re.IGNORECASE,
)
_FOREIGN = re.compile(
    r"(?<=[\d)}\] ]) ?([^\W\d_\x00-\x7f\u0370-\u03ff][^\d\x00-\x7f\u0370-\u03ff]{0,11})\.?$"
)
"""Letters that are neither Latin nor Greek, such as 元 or км."""

_DEGREES = re.compile(r" ?\^\{\\circ ?\}")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis)(?![a-zA-Z])|e ?\^")

_FOREIGN_NAMES = {
    "小时": "h",
    "分钟": "min",
    "秒": "s",
    "天": "day",
    "米": "m",
    "厘米": "cm",
    "千米": "km",
    "公里": "km",
    "千克": "kg",
    "克": "g",
    "元": "yuan",
    "度": "deg",
    "м": "m",
    "см": "cm",
    "км": "km",
    "кг": "kg",
    "часов": "h",
    "часа": "h",
    "минут": "min",
    "секунд": "s",
    "руб": "ruble",
    "рублей": "ruble",
}

_BOUND = re.compile("以|多|余|左右|到|不|非|或|より|未満|超|이상|이하|более|менее")
"""`5以上` is at least 5: words that change a number are not units."""

_TEMPERATURE = re.compile(r" ?\^\{\\circ ?\} ?(?:\\unit\{)?([CF])\}?$")

DEGREE = "deg"


def split_unit(text: str) -> tuple[str, str]:
    """(value, unit in one spelling); the unit is empty where none is known."""
    if match := _TEMPERATURE.search(text):
        return text[: match.start()].strip(), DEGREE + match[1]
    if not _TRIGONOMETRY.search(text):
        without, count = _DEGREES.subn("", text)
        if count:
            return without.strip(), DEGREE
    for pattern, spelled in ((_UNITS, _in_one_spelling), (_FOREIGN, _foreign_unit)):
        match = pattern.search(text)
        if match and match.start() > 0 and not _BOUND.search(match[1]):
            return text[: match.start()].strip(), spelled(match[1])
    return text, ""


def _foreign_unit(text: str) -> str:
    return _FOREIGN_NAMES.get(text.lower(), text.lower())


def _in_one_spelling(text: str) -> str:
    """`m/s^2` and `m s^{-2}` as `m s-2`: every unit with its power, what is after a slash negated.

    Args:
        text: units and separators only, as `_UNITS` matches them.
    """
    powers: dict[str, int] = {}
    position, sign = 0, 1
    while match := _ONE_UNIT.match(text, position):
        name = match["name"]
        unit = _CANONICAL.get(name) or _LOWER.get(name.lower()) or name.lower()
        power = int((match["power"] or match["digit"] or "1").replace(" ", ""))
        if match["shape"]:
            power = 2 if match["shape"].lower().startswith("sq") else 3
        for part in _SPEED.get(unit, unit).split():
            base, minus, _ = part.partition("-1")
            powers[base] = powers.get(base, 0) + sign * power * (-1 if minus else 1)
        separator = _SEPARATOR.match(text, match.end())
        if separator is None:
            break
        sign = -1 if separator[1] in ("/", "per") else 1
        position = separator.end()
    spelled = [unit if power == 1 else f"{unit}{power}" for unit, power in sorted(powers.items())]
    return " ".join(spelled)
