r"""Exact numbers in answers: integers, decimals, fractions, powers, factorials (kind `math`).

A value that would have too many digits is not computed: it raises TooLarge.
"""

import math
import re
from fractions import Fraction
from typing import Any, Generic, TypeVar

MAX_DIGITS = 4000
"""Numbers that are written with more digits are not read."""

MAX_COMPUTED_DIGITS = 12_000
"""Numbers that would be longer are not computed."""

INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"


_REPEATED = re.compile(r" ?\\overline ?\{ ?(\d{1,20}) ?\}| ?\\dot ?\{ ?(\d) ?\}", re.ASCII)
"""The period of a decimal."""


class TooLarge(ValueError):
    """A number that would have more than MAX_COMPUTED_DIGITS digits, or too large a factorial."""


MAX_FACTORIAL = 3000
"""3000! has 9,131 digits."""

MAX_NESTING = 50
BITS_PER_DIGIT = 3.33

_DECIMAL = re.compile(rf"({INTEGER})?(?:\.(\d*))?", re.ASCII)
_DECIMAL_IN_BRACKETS = re.compile(r"(\d{1,3}(?: \d{3})+(?!\d)|\d+)?(?:\.(\d*))?", re.ASCII)
_MIXED = re.compile(r" {0,2}\\frac|  ?\d+ ?/ ?\d+")
_FRACTION = re.compile(r"\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}|(\d+) ?/ ?(\d+)")


class Unread(ValueError):
    """Not a rational number in one of the known spellings."""


def rational(text: str) -> Fraction | None:
    r"""The exact value of an expression of integers and decimals with + - * / ^ !, `\frac`,
    `\binom`, mixed numbers.

    None for anything else, such as the tuple `(3,125)`.

    Raises: TooLarge for a value that must not be computed.
    """
    if len(text) > 3 * MAX_DIGITS or not re.search(r"\d", text):
        return None
    return FractionReader(text).whole()


Value = TypeVar("Value")


class RationalReader(Generic[Value]):
    r"""A recursive-descent reader of rational expressions. Its subclasses define what a value is.

    There is one method for each strength of binding: sum calls product, product calls power, power
    calls atom. Each method starts at `position` and moves it to the end of what it has read.
    `2 + 3 \cdot 4^2` is read as

        sum      2 + (product)                   position   0 -> 15
        product      3 \cdot (power)                        3 -> 15
        power                4 ^ (power)                   11 -> 15
        atom                 4, then 2                     11 -> 13 and 14 -> 15
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self.open_brackets = 0

    def number(self, value: Fraction) -> Value:
        """The value of a literal."""
        raise NotImplementedError

    def bounded(self, value: Value) -> Value:
        """The value. Raises: TooLarge where it has too many digits."""
        raise NotImplementedError

    def power_of(self, base: Value, exponent: Value) -> Value:
        raise NotImplementedError

    def factorial(self, value: Value) -> Value:
        raise NotImplementedError

    def binomial(self, total: Value, chosen: Value) -> Value:
        raise NotImplementedError

    def whole(self) -> Value | None:
        """The value of the whole text, None where the text is not such an expression."""
        try:
            value = self.sum()
            self.skip()
            return value if self.position == len(self.text) else None
        except (Unread, ZeroDivisionError, RecursionError):
            return None

    def skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position] == " ":
            self.position += 1

    def next_is(self, *signs: str) -> bool:
        return self.text[self.position : self.position + 1] in signs

    def take(self, *signs: str) -> str | None:
        self.skip()
        for sign in signs:
            if self.text.startswith(sign, self.position):
                after = self.position + len(sign)
                if sign[-1].isalpha() and self.text[after : after + 1].isalpha():
                    continue
                self.position = after
                return sign
        return None

    def signed(self, value: Value, is_negative: bool) -> Value:
        return -value if is_negative else value  # type: ignore[operator]

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Unread

    def sum(self) -> Value:
        self.deeper()
        is_negative = bool(self.take("-"))
        if not is_negative:
            self.take("+")
        value: Any = self.signed(self.product(), is_negative)
        while operator := self.take("+", "-"):
            other = self.product()
            value = self.bounded(value + other if operator == "+" else value - other)
        self.depth -= 1
        return value

    def product(self) -> Value:
        value: Any = self.power()
        while True:
            operator = self.take(r"\times", r"\cdot", r"\div", "*", "/")
            if operator:
                is_negative = bool(self.take("-"))
                other = self.signed(self.power(), is_negative)
                is_quotient = operator in ("/", r"\div")
                value = self.bounded(value / other if is_quotient else value * other)
                continue
            self.skip()
            if self.next_is("(") or self.text.startswith(r"\binom", self.position):
                value = self.bounded(value * self.power())
                continue
            return value

    def power(self) -> Value:
        value = self.atom()
        while self.take("!"):
            value = self.factorial(value)
        if self.take("^", "**"):
            is_negative = bool(self.take("-"))
            self.deeper()
            exponent = self.signed(self.power(), is_negative)
            self.depth -= 1
            value = self.power_of(value, exponent)
        return value

    def atom(self) -> Value:
        self.skip()
        if self.take(r"\frac"):
            numerator: Any = self.group()
            return numerator / self.group()
        if self.take(r"\binom"):
            total = self.group()
            return self.binomial(total, self.group())
        if self.next_is("(", "{"):
            return self.group()
        return self.number(self.literal())

    def literal(self) -> Fraction:
        r"""`1,250`, `0.5`, `.5`, `0.1\dot{6}`, or the mixed number `2 \frac{1}{3}`."""
        # In round brackets a comma separates the members of a tuple: (3,125) is not 3125.
        pattern = _DECIMAL_IN_BRACKETS if self.open_brackets else _DECIMAL
        match = pattern.match(self.text, self.position)
        if not match or not match[0] or match[0] == "." or len(match[0]) > MAX_DIGITS:
            raise Unread
        self.position = match.end()
        whole = re.sub("[ ,]", "", match[1] or "0")
        decimals = match[2]
        value = Fraction(f"{whole}.{decimals or '0'}")
        if decimals is not None:
            return value + self.period(len(decimals))
        if not match[1] or self.next_is("!"):
            return value
        start = self.position
        if not _MIXED.match(self.text, start):
            return value
        self.skip()
        part = self.proper_fraction()
        if part is None:
            self.position = start
            return value
        return value + part

    def period(self, places: int) -> Fraction:
        r"""What `\overline{34}` or `\dot{3}` adds after so many places.

        `1.2\overline{34}` is 1.2 + 34/990: 0.343434... is 34/99, and one place is before it.
        """
        match = _REPEATED.match(self.text, self.position)
        if not match:
            return Fraction(0)
        self.position = match.end()
        digits = match[1] or match[2]
        nines = 10 ** len(digits) - 1
        return Fraction(int(digits), nines * 10**places)

    def proper_fraction(self) -> Fraction | None:
        """The fraction of a mixed number: below one, of two plain integers."""
        match = _FRACTION.match(self.text, self.position)
        if not match:
            return None
        numerator = int(match[1] or match[3])
        denominator = int(match[2] or match[4])
        if not 0 < numerator < denominator:
            return None
        self.position = match.end()
        return Fraction(numerator, denominator)

    def group(self) -> Value:
        self.skip()
        is_round = self.next_is("(")
        if not is_round and not self.next_is("{"):
            raise Unread
        self.position += 1
        self.open_brackets += is_round
        value = self.sum()
        if not self.take(")" if is_round else "}"):
            raise Unread
        self.open_brackets -= is_round
        return value


class FractionReader(RationalReader[Fraction]):
    """Reads exact values."""

    def number(self, value: Fraction) -> Fraction:
        return value

    def bounded(self, value: Fraction) -> Fraction:
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > BITS_PER_DIGIT * MAX_COMPUTED_DIGITS:
            raise TooLarge
        return value

    def power_of(self, base: Fraction, exponent: Fraction) -> Fraction:
        if exponent.denominator != 1:
            raise Unread
        if base == 0 and exponent < 0:
            raise ZeroDivisionError
        if abs(base) in (0, 1):
            # The exponent may have any length; only its sign and its parity matter. So a positive
            # one becomes 2 or 3, and another one 0 or 1.
            parity = int(exponent) % 2
            return base ** (parity + 2 * (exponent > 0))
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * bits > BITS_PER_DIGIT * MAX_COMPUTED_DIGITS:
            raise TooLarge
        return self.bounded(base ** int(exponent))

    def factorial(self, value: Fraction) -> Fraction:
        if value > MAX_FACTORIAL:
            raise TooLarge
        if value.denominator != 1 or value < 0:
            raise Unread
        return Fraction(math.factorial(int(value)))

    def binomial(self, total: Fraction, chosen: Fraction) -> Fraction:
        if total > MAX_FACTORIAL:
            raise TooLarge
        if total.denominator != 1 or chosen.denominator != 1 or not 0 <= chosen <= total:
            raise Unread
        return Fraction(math.comb(int(total), int(chosen)))


def explodes(text: str) -> bool:
    """Whether a text has a power or factorial that is too large to compute.

    A guess from the spelling, for expressions that `rational` does not read.
    """
    text = re.sub(r" ?([\^!]) ?", r"\1", text)
    text = re.sub(
        r"[({](?!\d+[)}])(?:[a-zA-Z+\- ]|(?<!\d)\d{1,3}(?!\d))+[)}]!(?!!)", "x!", text
    )  # (n-k)! is not computed
    if re.search(r"\d{4,}\}?\)?!|[)}]\s*!|!!|!\s*\)?\s*!|\d{3,}!", text):
        return True
    if re.search(r"(?<![a-zA-Z}])\d+\)?\^\{?\(?-?\d{5,}", text):
        return True  # 2^{12345}
    if re.search(r"\^\{?\(?\d+\)?\^\{?\(?\d*[2-9]\d*", text):
        return True  # 2^3^4
    depth = most = 0
    for piece in re.findall(r"\^\{|[{}]|\^", text):
        if piece == "^{":
            depth += 1
        elif piece == "}":
            depth = max(0, depth - 1)
        most = max(most, depth)
    return most >= 4 or text.count("(") > 200 or text.count("{") > 400


_POWER_OF_TEN = re.compile(r" ?(?:\\times|\\cdot|\*) ?10 ?\^ ?\{?(-?\d{1,4})\}?$", re.ASCII)


def decimal_places(text: str) -> int | None:
    r"""Digits after the point of a decimal; None for anything else.

    `3.14` has 2, and `3.14 \times 10^{1}` has 1.
    """
    power = _POWER_OF_TEN.search(text)
    match = re.fullmatch(rf"-?\s*{INTEGER}?\.(\d+)", _POWER_OF_TEN.sub("", text), re.ASCII)
    if not match:
        return None
    exponent = int(power[1]) if power else 0
    return max(0, len(match[1]) - exponent)


def significant_digits(text: str) -> int:
    """Digits of a decimal from its first that is not zero."""
    return len(re.sub(r"\D", "", _POWER_OF_TEN.sub("", text)).lstrip("0"))


def is_rounding(want: str, left: Fraction, found: str, right: Fraction) -> bool:
    """Whether one of two numbers is the other, rounded to the digits that are written.

        gold      answer
        0.33      1/3        equal: a gold of two significant digits accepts a fraction
        0.33      0.333      different: for a longer decimal, the gold needs three
        0.333     0.3333     equal
        0.66666   2/3        equal: from five digits on, the gold may also be cut
        1/3       0.333333   equal: a gold that is not a decimal needs six digits
        2         2.0000001  different: an integer only accepts itself

    Args:
        want, found: gold and answer as they are written. left, right: their values.
    """
    places = decimal_places(want)
    found_places = decimal_places(found)
    if left.denominator == 1:
        return False
    if places:
        if found_places is not None and found_places <= places:
            return False
        digits = significant_digits(want)
        min_digits = 2 if found_places is None else 3
        if digits < min_digits or right.denominator == 1:
            return False
        if _is_rounded(left, right, places):
            return True
        return digits >= 5 and left == _cut(right, places)
    if places is None and found_places is not None and significant_digits(found) >= 6:
        return _is_rounded(left, right, found_places) or right == _cut(left, found_places)
    return False


def _is_rounded(left: Fraction, right: Fraction, places: int) -> bool:
    """Whether two values differ by at most half a unit of the last place."""
    return abs(left - right) * 10**places <= Fraction(1, 2)


def _cut(value: Fraction, places: int) -> Fraction:
    """The value without what follows so many places of its decimal."""
    return Fraction(math.trunc(value * 10**places), 10**places)
