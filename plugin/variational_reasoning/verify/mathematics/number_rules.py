"""Plain rules for values: numbers, units, angles, bases, times, congruences (kind `math`)."""

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
from .wording import number_in_words


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
    want = Quantity(*split_unit(gold))
    found = Quantity(*split_unit(answer))
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

    # At least one unit is gone now, so the rules see shorter texts when they run again.
    has_number = _is_constant(want.number + found.number) or _has_value(want, found)
    if want.unit == found.unit or has_number:
        return same(want.number, found.number)
    return None


def _plain_numbers(want: str, found: str) -> bool | None:
    """`0.5` and `1/2`, `3.14` and `3,14`, `2^{99999}` and `2 \\cdot 2^{99998}`.

    None where one is not a number.
    """
    try:
        left = rational(want)
        right = rational(found)
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
    """`0,111` and `0.111`: a comma that cannot separate thousands, and a decimal point."""
    for left, right in ((want, found), (found, want)):
        has_comma = re.fullmatch(r"-?\d+,\d+", left)
        is_thousands = re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", left)
        if has_comma and not is_thousands and decimal_places(right) is not None:
            with_point = left.replace(",", ".")
            return rational(with_point) == rational(right)
    return None


def _counted_things(want: Quantity, found: Quantity) -> bool | None:
    """`7 stuffed goats` and `7`: a number with words after it, and a number without a unit."""
    for things, other in ((want, found), (found, want)):
        number = counted(things.number)
        value = _value(other.number)
        if number is not None and value is not None and not other.unit:
            return rational(number) == value
    return None


def _degrees_and(want: Quantity, found: Quantity, same: Same) -> bool | None:
    r"""One angle is in degrees, the other has another unit or none.

    `60^\circ` and `\frac{\pi}{3}` are compared as radians, `60^\circ` and `60` as numbers.
    """
    angle, other = found, want
    if want.unit == DEGREE:
        angle, other = want, found
    if other.unit not in ("", "rad"):
        return False
    is_radian = other.unit == "rad" or r"\pi" in other.number or r"\pi" in angle.number
    if not is_radian:
        return same(want.number, found.number)
    if not _is_constant(angle.number):
        return None
    radians = rf"\frac{{({angle.number})\pi}}{{180}}"
    return same(radians, other.number)


def _percent_and(want: Quantity, found: Quantity, same: Same) -> bool | None:
    r"""One side has a percent sign, the other has another unit or none.

    `20\%` and `0.2` are equal, and `20\%` and `20` too (a question may ask "how many percent").
    Below one a bare number is read as a fraction only: `0.07` is `7\%` and not `0.07\%`.
    """
    if want.unit and found.unit:
        return False
    gold_is_percent = want.unit == "%"
    percent, bare = found, want
    if gold_is_percent:
        percent, bare = want, found
    part = _value(percent.number)
    value = _value(bare.number)
    if part is None:
        return None
    if value is None:
        # `\sqrt{2}` is not rational: `141\%` is compared as 141 with 100 \cdot (\sqrt{2}).
        if not _is_constant(bare.number):
            return None
        scaled = rf"100 \cdot ({bare.number})"
        if gold_is_percent:
            return same(percent.number, scaled)
        return same(scaled, percent.number)
    if part == 100 * value:
        return True
    if part == value and abs(value) >= 1:
        return True
    is_exact = decimal_places(bare.number) is None
    if not gold_is_percent or not is_exact:
        return False
    return is_rounding(percent.number, part, bare.number, 100 * value)


def _value(text: str) -> Fraction | None:
    """The exact value; None for what is not a number, or is too large to compute."""
    try:
        return rational(text)
    except TooLarge:
        return None


def _has_value(*quantities: Quantity) -> bool:
    return any(_value(quantity.number) is not None for quantity in quantities)


def _is_constant(text: str) -> bool:
    """Whether the only letters are those of roots and pi, without a relation or a list."""
    bare = re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])", "", text)
    return not re.search("[a-zA-Z=<>,]", bare)


_SUBSCRIPTED = re.compile(r"\(?(\d[0-9A-Z]*|[A-F][0-9A-F]+)\)? ?_ ?\{? ?\(?(\w+)\)? ?\}?")
_LARGEST_SPELLED_BASE = 12


def bases(gold: str, answer: str, same: Same) -> bool | None:
    r"""`101_2`: digits and their base.

    It is enough that one side names the base. Two different bases are not equal.
    """
    want = _SUBSCRIPTED.fullmatch(gold)
    found = _SUBSCRIPTED.fullmatch(answer)
    if want and found:
        has_same_digits = want[1].lstrip("0") == found[1].lstrip("0")
        has_same_base = _base(want[2]) == _base(found[2])
        return has_same_digits and has_same_base
    # The other side has the digits only: `101` for `101_2`, and no digit that base 2 lacks.
    written, plain = found, gold
    if want:
        written, plain = want, answer
    if written is None:
        return None
    base = _base(written[2])
    digits = re.sub(r"[ ,]", "", plain)
    has_same_digits = digits.lstrip("0") == written[1].lstrip("0")
    if not isinstance(base, int) or not has_same_digits:
        return False
    return all(int(digit, 36) < base for digit in digits)


def _base(text: str) -> int | str:
    """`two` and `2` as 2; a name such as `b` as it is."""
    spelled = number_in_words(text)
    if spelled is not None and 2 <= spelled <= _LARGEST_SPELLED_BASE:
        return spelled
    if re.fullmatch(r"[1-9]\d?", text, re.ASCII):
        return int(text)
    return text


_CLOCK = re.compile(r"\d+(?: ?: ?\d+)+", re.ASCII)
_TIME = re.compile(
    r"(\d{1,2})(?: ?[:.] ?(\d\d))? ?(?:o'clock)? ?(?:(a|p)\.? ?m\.?)?", re.ASCII | re.IGNORECASE
)
_NAMED_TIMES = {"noon": "12:00 pm", "midnight": "12:00 am"}
HALF_DAY = 720


def times(gold: str, answer: str, same: Same) -> bool | None:
    """`4:30 p.m.`, `4:30 PM` and `16:30`; `1:2:3` is compared part by part.

    A gold without a.m. or p.m. accepts both. An answer without them is read as a time of 24 hours.
    """
    want = _time_of_day(gold)
    found = _time_of_day(answer)
    if want is not None and found is not None:
        if want.has_half:
            return want.minutes == found.minutes
        if found.has_half:
            return want.minutes % HALF_DAY == found.minutes % HALF_DAY
    if _CLOCK.fullmatch(gold) and _CLOCK.fullmatch(answer):
        return _clock_parts(gold) == _clock_parts(answer)
    if _CLOCK.fullmatch(gold) and re.search(": ?0", gold):
        return False  # a time, and an answer that is not; `7:32` may also be a ratio
    if want is not None and want.has_half:
        return False
    return None


class _TimeOfDay(NamedTuple):
    """`4:30 p.m.` is 990 minutes after midnight; has_half: whether a.m. or p.m. is said."""

    minutes: int
    has_half: bool


def _time_of_day(text: str) -> _TimeOfDay | None:
    spelled = _NAMED_TIMES.get(text.lower(), text)
    match = _TIME.fullmatch(spelled)
    if not match:
        return None
    hours = int(match[1])
    minutes = int(match[2] or 0)
    half = match[3]
    if minutes >= 60:
        return None
    if half is None:
        is_time = match[2] is not None and ":" in text and hours < 24
        return _TimeOfDay(60 * hours + minutes, False) if is_time else None
    if not 1 <= hours <= 12:
        return None
    hours %= 12  # 12:30 a.m. is half past midnight
    afternoon = HALF_DAY if half.lower() == "p" else 0
    return _TimeOfDay(60 * hours + minutes + afternoon, True)


def _clock_parts(text: str) -> list[int]:
    """[1, 2, 3] of `1:02:3`; only the first nine digits of a part count."""
    return [int(part[:9]) for part in text.split(":")]


_CONGRUENCE = re.compile(
    r"(?:(?P<name>[^=]+?) ?\\equiv ?)?(?P<residues>[^=]+?) ?"
    r"\(? ?\\?[pb]?mod(?![a-z]) ?\(? ?\{? ?(?P<modulus>\w+) ?\}? ?\)? ?\)?"
)


def congruences(gold: str, answer: str, same: Same) -> bool | None:
    r"""`x \equiv 3 \pmod 7` and `x \equiv 10 \mod{7}`: the same name, modulus and residues.

    Residues may come in any order.
    """
    want = _CONGRUENCE.fullmatch(gold)
    found = _CONGRUENCE.fullmatch(answer)
    if not want or not found:
        return False if want and want["name"] else None
    names = set()
    for match in (want, found):
        if match["name"]:
            names.add(squeezed(match["name"]))
    if len(names) > 1 or want["modulus"] != found["modulus"]:
        return False
    modulus = rational(want["modulus"])

    def same_residues(left: str, right: str) -> bool | None:
        left_value = rational(left)
        right_value = rational(right)
        if modulus and left_value is not None and right_value is not None:
            return (left_value - right_value) % modulus == 0
        return same(left, right)

    wanted_residues = split_list(want["residues"])
    found_residues = split_list(found["residues"])
    return in_any_order(wanted_residues, found_residues, same_residues)


def binomials(gold: str, answer: str, same: Same) -> bool | None:
    r"""`C(10,3)` and `\binom{10}{3}`, `P(10,3)` and `720`; next to a pair it is a point."""
    wanted_text = counts(gold)
    found_text = counts(answer)
    if wanted_text == gold and found_text == answer:
        return None
    for text in (gold, answer):
        has_name = re.match("[A-Z] ?[(=]", text)
        held = brackets(text[1:] if has_name else text)
        if counts(text) == text and held is not None:
            return None
    return same(wanted_text, found_text)


def inequations(gold: str, answer: str, same: Same) -> bool | None:
    r"""`a \ne 2`: both sides are compared."""
    want = [side.strip() for side in gold.split(r"\ne ")]
    found = [side.strip() for side in answer.split(r"\ne ")]
    if len(want) == len(found) == 2:
        return all_same(map(same, want, found))
    return None


def chains(gold: str, answer: str, same: Same) -> bool | None:
    r"""`17 \bmod 5 = 2` and `2`: the result of a calculation."""
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
