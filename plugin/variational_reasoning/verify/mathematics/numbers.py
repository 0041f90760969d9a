r"""Exact numbers as they are written in answers: integers, decimals, fractions, powers, factorials (check kind `math`).

Nothing that could grow is computed: whatever would have too many digits raises TooLarge.
"""

import math
import re
from fractions import Fraction

MAX_DIGITS = 4000
"""Numbers that are written with more digits are not read."""

MAX_COMPUTED_DIGITS = 12_000
"""Numbers that would be longer are not computed."""

INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"


_REPEATED = re.compile(r" ?\\overline ?\{ ?(\d{1,20}) ?\}| ?\\dot ?\{ ?(\d) ?\}", re.ASCII)
"""The period of a decimal."""


class TooLarge(ValueError):
    """A number that would have more than MAX_DIGITS digits."""


_DECIMAL = re.compile(rf"({INTEGER})?(?:\.(\d*))?", re.ASCII)


class _Unread(ValueError):
    """Not a rational number in one of the known spellings."""


def rational(text: str) -> Fraction | None:
    r"""The exact value of an expression of integers and decimals with + - * / ^ !, `\frac`, mixed numbers; else None.

    Raises: TooLarge for a value that is not to be computed.
    """
    if len(text) > 3 * MAX_DIGITS or not re.search(r"\d", text):
        return None
    reader = _Reader(text)
    try:
        value = reader.sum()
        reader.skip()
        return value if reader.position == len(text) else None
    except (_Unread, ZeroDivisionError, RecursionError):
        return None


class _Reader:
    """A recursive-descent reader of rational expressions."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.depth = text, 0, 0

    def skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position] == " ":
            self.position += 1

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

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > 50:
            raise _Unread
        sign = -1 if self.take("-") else 1
        if sign == 1:
            self.take("+")
        value = sign * self.product()
        while operator := self.take("+", "-"):
            other = self.product()
            value = _bounded(value + other if operator == "+" else value - other)
        self.depth -= 1
        return value

    def product(self) -> Fraction:
        value = self.power()
        while True:
            operator = self.take(r"\times", r"\cdot", r"\div", "*", "/")
            if operator:
                sign = -1 if self.take("-") else 1
                other = sign * self.power()
                value = _bounded(value / other if operator in ("/", r"\div") else value * other)
                continue
            self.skip()
            if self.text[self.position : self.position + 1] == "(":
                value = _bounded(value * self.power())
                continue
            return value

    def power(self) -> Fraction:
        value = self.atom()
        while self.take("!"):
            if value.denominator != 1 or not 0 <= value <= 3000:  # 3000! has 9,131 digits
                raise TooLarge if value > 3000 else _Unread
            value = Fraction(math.factorial(int(value)))
        if self.take("^", "**"):
            sign = -1 if self.take("-") else 1
            self.depth += 1
            if self.depth > 50:
                raise _Unread
            exponent = sign * self.power()
            self.depth -= 1
            if exponent.denominator != 1:
                raise _Unread
            size = max(value.numerator.bit_length(), value.denominator.bit_length())
            if abs(value) not in (0, 1) and abs(exponent) * size > 3.33 * MAX_COMPUTED_DIGITS:
                raise TooLarge
            if value == 0 and exponent < 0:
                raise ZeroDivisionError
            value = _bounded(
                value
                ** (
                    int(exponent)
                    if abs(value) not in (0, 1)
                    else int(exponent) % 2 + 2 * (exponent > 0)
                )
            )
        return value

    def atom(self) -> Fraction:
        self.skip()
        if self.take(r"\frac"):
            return self.group() / self.group()
        if self.text[self.position : self.position + 1] in ("(", "{"):
            return self.group()
        match = _DECIMAL.match(self.text, self.position)
        if not match or not match[0] or match[0] == "." or len(match[0]) > MAX_DIGITS:
            raise _Unread
        self.position = match.end()
        whole = re.sub("[ ,]", "", match[1] or "0")
        value = Fraction(f"{whole}.{match[2] or '0'}")
        if match[2] is not None and (again := _REPEATED.match(self.text, self.position)):
            self.position = again.end()
            digits = again[1] or again[2]
            value += Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(match[2]))
        if match[2] is None and self.text[self.position : self.position + 1] != "!":
            start = self.position
            if (
                re.match(r" ?\\frac|  ?\d+ ?/ ?\d+", self.text[self.position :].replace("  ", " "))
                and match[1]
            ):
                self.skip()
                part = self.mixed()
                if part is not None:
                    return value + part
                self.position = start
        return value

    def mixed(self) -> Fraction | None:
        """The fraction of a mixed number: below one, of two plain integers."""
        match = re.compile(r"\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}|(\d+) ?/ ?(\d+)").match(
            self.text, self.position
        )
        if not match:
            return None
        numerator, denominator = int(match[1] or match[3]), int(match[2] or match[4])
        if not 0 < numerator < denominator:
            return None
        self.position = match.end()
        return Fraction(numerator, denominator)

    def group(self) -> Fraction:
        self.skip()
        opening = self.text[self.position : self.position + 1]
        if opening not in ("(", "{"):
            raise _Unread
        self.position += 1
        value = self.sum()
        if not self.take({"(": ")", "{": "}"}[opening]):
            raise _Unread
        return value


def _bounded(value: Fraction) -> Fraction:
    if (
        max(value.numerator.bit_length(), value.denominator.bit_length())
        > 3.33 * MAX_COMPUTED_DIGITS
    ):
        raise TooLarge
    return value


def explodes(text: str) -> bool:
    """Is there a power or factorial that no computer should be asked for? A guess from the spelling, for expressions
    that `rational` does not read."""
    text = re.sub(r" ?([\^!]) ?", r"\1", text)
    text = re.sub(
        r"[({](?!\d+[)}])(?:[a-zA-Z+\- ]|(?<!\d)\d{1,3}(?!\d))+[)}]!(?!!)", "x!", text
    )  # (n-k)! is not computed
    if re.search(r"\d{4,}\}?\)?!|[)}]\s*!|!!|!\s*\)?\s*!|\d{3,}!", text):
        return True
    if re.search(r"(?<![a-zA-Z}])\d+\)?\^\{?\(?-?\d{5,}", text) or re.search(
        r"\^\{?\(?\d+\)?\^\{?\(?\d*[2-9]\d*", text
    ):
        return True
    depth = most = 0
    for piece in re.findall(r"\^\{|[{}]|\^", text):
        depth = depth + 1 if piece == "^{" else max(0, depth - (piece == "}"))
        most = max(most, depth)
    return most >= 4 or text.count("(") > 200 or text.count("{") > 400


_POWER_OF_TEN = re.compile(r" ?(?:\\times|\\cdot|\*) ?10 ?\^ ?\{?(-?\d{1,4})\}?$", re.ASCII)


def decimal_places(text: str) -> int | None:
    """Digits after the point of a decimal, also of one times a power of ten, or None for anything else."""
    power = _POWER_OF_TEN.search(text)
    match = re.fullmatch(rf"-?\s*{INTEGER}?\.(\d+)", _POWER_OF_TEN.sub("", text), re.ASCII)
    if not match:
        return None
    return max(0, len(match[1]) - (int(power[1]) if power else 0))


def significant_digits(text: str) -> int:
    """Digits of a decimal from its first that is not zero."""
    return len(re.sub(r"\D", "", _POWER_OF_TEN.sub("", text)).lstrip("0"))


def is_rounding(want: str, left: Fraction, found: str, right: Fraction) -> bool:
    """Is one of two numbers the other, rounded as it is written?

    A gold decimal accepts what rounds to its digits: of a fraction when it has two significant digits, of a longer
    decimal when it has three; from five on also what is cut to its digits. A gold that is no decimal and no integer
    accepts a decimal of six significant digits.
    Integers accept nothing but themselves.
    """
    places, own = decimal_places(want), decimal_places(found)
    if places is not None and places > 0 and left.denominator != 1:
        if own is not None and own <= places:
            return False
        digits = significant_digits(want)
        if digits < (2 if own is None else 3) or right.denominator == 1:
            return False
        return abs(left - right) * 10**places <= Fraction(1, 2) or (
            digits >= 5 and left == _cut(right, places)
        )
    if (
        places is None
        and own is not None
        and left.denominator != 1
        and significant_digits(found) >= 6
    ):
        return abs(left - right) * 10**own <= Fraction(1, 2) or right == _cut(left, own)
    return False


def _cut(value: Fraction, places: int) -> Fraction:
    """The value without what stands behind so many places of its decimal."""
    return Fraction(math.trunc(value * 10**places), 10**places)
