r"""Plain rules for values: numbers, units, percent, angles, bases, times, congruences (check kind
`math`).
"""

import re
from fractions import Fraction
from typing import NamedTuple

from .forms import counted
from .lists import brackets, split_list
from .matching import Same, all_same, in_any_order
from .notation import counts
from .numbers import TooLarge, decimal_places, is_rounding, rational
from .residues import same_remainders
from .spelling import squeezed
from .units import DEGREE, split_unit


class Quantity(NamedTuple):
    """`12.5 cm` is the number `12.5` with the unit `cm`; a bare number has the unit ``."""

    number: str
    unit: str


def numbers(gold: str, answer: str, same: Same) -> bool | None:
    r"""Numbers with and without units.

    First the units decide what is compared, then the numbers. The gold is on the left:

        60^\circ   \frac{\pi}{3}   degrees and radians: compared as radians
        20\%       0.2             percent and a bare number: 20/100 and 0.2, or 20 and 20
        5 cm       5 km            two units: different
        5 cm       5               one unit: the numbers decide
        7 goats    7               a word that counts: the numbers decide

    Rational numbers are compared exactly, others by all rules again. None for what has no number.
    """
    want, found = Quantity(*split_unit(gold)), Quantity(*split_unit(answer))
    units = {want.unit, found.unit}
    if DEGREE in units and len(units) > 1:
        return _degrees_and(want, found, same)
    if "%" in units and len(units) > 1:
        return _percent_and(want, found, same)
    if want.unit and found.unit and want.unit != found.unit:
        return False

    decided = _plain_numbers(want.number, found.number)
    if decided is not None:
        return decided
    decided = _counted_things(want, found)
    if decided is not None:
        return decided
    if not want.unit and not found.unit:
        return None

    # At least one unit is gone now, so that the rules that come again see shorter texts.
    is_number = _is_constant(want.number + found.number) or _has_value(want, found)
    if want.unit == found.unit or is_number:
        return same(want.number, found.number)
    return None


def _plain_numbers(want: str, found: str) -> bool | None:
    """`0.5` and `1/2`, `3.14` and `3,14`, `2^{99999}` and `2 \\cdot 2^{99998}`.

    None where one is not a number.
    """
    try:
        left, right = rational(want), rational(found)
    except TooLarge:
        decided = same_remainders(want, found)
        if decided is None:
            raise
        return decided
    if left is not None and left == right:
        return True
    is_same = _decimal_comma(want, found)
    if left is None or right is None:
        return is_same
    return bool(is_same) or is_rounding(want, left, found, right)


def _decimal_comma(want: str, found: str) -> bool | None:
    """`0,111` and `0.111`: a comma that cannot part thousands, where the other side has a point."""
    for left, right in ((want, found), (found, want)):
        has_comma = re.fullmatch(r"-?\d+,\d+", left)
        is_thousands = re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", left)
        if has_comma and not is_thousands and decimal_places(right) is not None:
            return rational(left.replace(",", ".")) == rational(right)
    return None


def _counted_things(want: Quantity, found: Quantity) -> bool | None:
    """`7 stuffed goats` and `7`: words after a number, next to a number without a unit."""
    for things, other in ((want, found), (found, want)):
        number, value = counted(things.number), _value(other.number)
        if number is not None and value is not None and not other.unit:
            return rational(number) == value
    return None


def _degrees_and(want: Quantity, found: Quantity, same: Same) -> bool | None:
    r"""One angle is in degrees, the other has another unit or none.

    `60^\circ` and `\frac{\pi}{3}` are compared as radians, `60^\circ` and `60` as numbers.
    """
    angle, other = (want, found) if want.unit == DEGREE else (found, want)
    if other.unit not in ("", "rad"):
        return False
    is_radian = other.unit == "rad" or r"\pi" in other.number or r"\pi" in angle.number
    if not is_radian:
        return same(want.number, found.number)
    if not _is_constant(angle.number):
        return None
    return same(rf"\frac{{({angle.number})\pi}}{{180}}", other.number)


def _percent_and(want: Quantity, found: Quantity, same: Same) -> bool | None:
    r"""One side has a percent sign, the other has another unit or none.

    `20\%` and `0.2` are equal, and `20\%` and `20` too (a question may ask "how many percent").
    Below one a bare number is read as a fraction only: `0.07` is `7\%` and not `0.07\%`.
    """
    if want.unit and found.unit:
        return False
    percent, bare = (want, found) if want.unit == "%" else (found, want)
    part, value = _value(percent.number), _value(bare.number)
    if part is None or value is None:
        if part is not None and _is_constant(bare.number):
            exact = rf"100 \cdot ({bare.number})"
            return same(want.number, exact) if percent is want else same(exact, found.number)
        return None
    if part == 100 * value or (part == value and abs(value) >= 1):
        return True
    is_exact = decimal_places(bare.number) is None
    return (
        percent is want and is_exact and is_rounding(want.number, part, found.number, 100 * value)
    )


def _value(text: str) -> Fraction | None:
    try:
        return rational(text)
    except TooLarge:
        return None


def _has_value(*quantities: Quantity) -> bool:
    return any(_value(quantity.number) is not None for quantity in quantities)


def _is_constant(text: str) -> bool:
    """No letter but those of roots and pi, no relation, no list."""
    bare = re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])", "", text)
    return not re.search("[a-zA-Z=<>,]", bare)


_SUBSCRIPTED = re.compile(r"\(?(\d[0-9A-Z]*|[A-F][0-9A-F]+)\)? ?_ ?\{? ?\(?(\w+)\)? ?\}?")
_BASES = dict(
    zip(
        [
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
        ],
        range(2, 13),
        strict=True,
    )
)


def bases(gold: str, answer: str, same: Same) -> bool | None:
    r"""`101_2`: digits and their base. A base that only one side names is accepted, two different
    ones are not.
    """
    want, found = _SUBSCRIPTED.fullmatch(gold), _SUBSCRIPTED.fullmatch(answer)
    if want and found:
        return want[1].lstrip("0") == found[1].lstrip("0") and _base(want[2]) == _base(found[2])
    written, plain = (want, answer) if want else (found, gold)
    if written is None:
        return None
    base = _base(written[2])
    digits = re.sub(r"[ ,]", "", plain)
    if not isinstance(base, int) or digits.lstrip("0") != written[1].lstrip("0"):
        return False
    return all(int(digit, 36) < base for digit in digits)


def _base(text: str) -> int | str:
    if text in _BASES:
        return _BASES[text]
    return int(text) if re.fullmatch(r"[1-9]\d?", text, re.ASCII) else text


_CLOCK = re.compile(r"\d+(?: ?: ?\d+)+", re.ASCII)
_TIME = re.compile(
    r"(\d{1,2})(?: ?[:.] ?(\d\d))? ?(?:o'clock)? ?(?:(a|p)\.? ?m\.?)?", re.ASCII | re.IGNORECASE
)
_NAMED_TIMES = {"noon": "12:00 pm", "midnight": "12:00 am"}
HALF_DAY = 720


def times(gold: str, answer: str, same: Same) -> bool | None:
    """`4:30 p.m.`, `4:30 PM` and `16:30`; `1:2:3` side by side.

    A gold without a.m. and p.m. accepts both, an answer without is read on a clock of 24 hours.
    """
    want, found = _minutes(gold), _minutes(answer)
    if want is not None and found is not None and (want[1] or found[1]):
        if not want[1] and found[1]:
            return want[0] % HALF_DAY == found[0] % HALF_DAY
        return want[0] == found[0]
    if _CLOCK.fullmatch(gold) and _CLOCK.fullmatch(answer):
        sides = [[int(part[:9]) for part in text.split(":")] for text in (gold, answer)]
        return sides[0] == sides[1]
    if _CLOCK.fullmatch(gold) and re.search(": ?0", gold):
        return False  # a time next to something else; `7:32` may also be a ratio
    if want is not None and want[1]:
        return False
    return None


def _minutes(text: str) -> tuple[int, bool] | None:
    """(minutes since midnight, whether a.m. or p.m. is said) of a time of day."""
    match = _TIME.fullmatch(_NAMED_TIMES.get(text.lower(), text))
    if not match:
        return None
    hours, minutes, half = int(match[1]), int(match[2] or 0), match[3]
    if half is None:
        is_time = match[2] is not None and ":" in text and hours < 24 and minutes < 60
        return (60 * hours + minutes, False) if is_time else None
    if not 1 <= hours <= 12 or minutes >= 60:
        return None
    afternoon = HALF_DAY if half.lower() == "p" else 0
    return 60 * (hours % 12) + minutes + afternoon, True


_CONGRUENCE = re.compile(
    r"(?:(?P<name>[^=]+?) ?\\equiv ?)?(?P<residues>[^=]+?) ?"
    r"\(? ?\\?[pb]?mod(?![a-z]) ?\(? ?\{? ?(?P<modulus>\w+) ?\}? ?\)? ?\)?"
)


def congruences(gold: str, answer: str, same: Same) -> bool | None:
    r"""`x \equiv 3 \pmod 7` and `x \equiv 10 \mod{7}`: the same name, modulus and residues, in any
    order.
    """
    want, found = _CONGRUENCE.fullmatch(gold), _CONGRUENCE.fullmatch(answer)
    if not want or not found:
        return False if want and want["name"] else None
    names = {squeezed(match["name"]) for match in (want, found) if match["name"]}
    if len(names) > 1 or want["modulus"] != found["modulus"]:
        return False
    modulus = rational(want["modulus"])

    def same_residues(left: str, right: str) -> bool | None:
        values = rational(left), rational(right)
        if modulus and values[0] is not None and values[1] is not None:
            return (values[0] - values[1]) % modulus == 0
        return same(left, right)

    return in_any_order(split_list(want["residues"]), split_list(found["residues"]), same_residues)


def binomials(gold: str, answer: str, same: Same) -> bool | None:
    r"""`C(10,3)` and `\binom{10}{3}`, `P(10,3)` and `720`; next to a pair it is a point."""
    spelled = counts(gold), counts(answer)
    if spelled == (gold, answer):
        return None
    for text in (gold, answer):
        held = brackets(text[1:] if re.match("[A-Z] ?[(=]", text) else text)
        if counts(text) == text and held is not None:
            return None
    return same(*spelled)


def inequations(gold: str, answer: str, same: Same) -> bool | None:
    r"""`a \ne 2`, side by side."""
    want, found = gold.split(r"\ne "), answer.split(r"\ne ")
    if len(want) == len(found) == 2:
        return all_same(same(a.strip(), b.strip()) for a, b in zip(want, found, strict=True))
    return None


def chains(gold: str, answer: str, same: Same) -> bool | None:
    r"""`17 \bmod 5 = 2` and `2`: what a calculation comes to."""
    sides = answer.split("=")
    has_relation = re.search(r"[<>,;]|\\(?:le|ge|ne|approx)(?![a-zA-Z])", answer)
    if len(sides) < 2 or "=" in gold or has_relation:
        return None
    for side in sides[:-1]:
        has_digit = re.search(r"\d", side)
        has_letter = re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", side)
        if not has_digit or has_letter:
            return None
    return same(gold, sides[-1].strip())
