r"""Numbers that are too large to be written out, compared by their remainders (check kind `math`).

    2024^{4046} and 2024^{2 \cdot 2023}          the same remainders by three large primes: equal
    \binom{3000}{1500} and \frac{3000!}{1500!}   other remainders: different

Different remainders prove that two numbers differ. Two different numbers with three equal
remainders are as likely as a guess among 10^54. A number may be huge, but exponents and what a
factorial is taken of must be small enough to compute.
"""

import functools
from fractions import Fraction

from .numbers import RationalReader, TooLarge, Unread

PRIMES = (10**18 + 3, 10**18 + 9, 2**61 - 1)

MAX_FACTORIAL = 20_000
MAX_EXACT_BITS = 4000
"""Longer values are kept as remainders only."""

MAX_CHARACTERS = 2000


def same_remainders(first: str, second: str) -> bool | None:
    """Whether two texts of numbers, + - * / ^ ! and binomials are the same number.

    None where one of them cannot be read.
    """
    if max(len(first), len(second)) > MAX_CHARACTERS:
        return None
    try:
        left = ResidueReader(first).whole()
        right = ResidueReader(second).whole()
    except TooLarge:
        return None
    if left is None or right is None:
        return None
    return left.remainders == right.remainders


class Residue:
    """A rational number: its remainders by PRIMES, and its exact value where that is short."""

    def __init__(self, remainders: tuple[int, ...], exact: Fraction | None) -> None:
        self.remainders = remainders
        is_short = exact is not None and _bits(exact) <= MAX_EXACT_BITS
        self.exact = exact if is_short else None

    @classmethod
    def of(cls, value: Fraction) -> "Residue":
        """Raises: Unread where a prime divides the denominator."""
        remainders = []
        for prime in PRIMES:
            try:
                inverse = pow(value.denominator, -1, prime)
            except ValueError as error:
                raise Unread from error
            remainders.append(value.numerator * inverse % prime)
        return cls(tuple(remainders), value)

    def __add__(self, other: "Residue") -> "Residue":
        exact = None
        if self.exact is not None and other.exact is not None:
            exact = self.exact + other.exact
        pairs = zip(self.remainders, other.remainders, PRIMES, strict=True)
        remainders = tuple((left + right) % prime for left, right, prime in pairs)
        return Residue(remainders, exact)

    def __mul__(self, other: "Residue") -> "Residue":
        exact = None
        if self.exact is not None and other.exact is not None:
            exact = self.exact * other.exact
        pairs = zip(self.remainders, other.remainders, PRIMES, strict=True)
        remainders = tuple(left * right % prime for left, right, prime in pairs)
        return Residue(remainders, exact)

    def __neg__(self) -> "Residue":
        return Residue.of(Fraction(-1)) * self

    def __sub__(self, other: "Residue") -> "Residue":
        return self + -other

    def __truediv__(self, other: "Residue") -> "Residue":
        return self * other.raised(-1)

    def raised(self, exponent: int) -> "Residue":
        """Raises: Unread for a negative power of a number that a prime divides, such as zero."""
        pairs = zip(self.remainders, PRIMES, strict=True)
        try:
            remainders = tuple(pow(value, exponent, prime) for value, prime in pairs)
        except ValueError as error:
            raise Unread from error
        exact = None
        if self.exact is not None:
            num_bits = _bits(self.exact) * abs(exponent)
            if num_bits <= MAX_EXACT_BITS:
                exact = self.exact**exponent
        return Residue(remainders, exact)


class ResidueReader(RationalReader[Residue]):
    """Reads what `numbers.RationalReader` reads, with residues for values."""

    def number(self, value: Fraction) -> Residue:
        return Residue.of(value)

    def bounded(self, value: Residue) -> Residue:
        return value

    def power_of(self, base: Residue, exponent: Residue) -> Residue:
        return base.raised(_small_integer(exponent))

    def factorial(self, value: Residue) -> Residue:
        number = _small_integer(value)
        if number < 0:
            raise Unread
        if number > MAX_FACTORIAL:
            raise TooLarge
        remainders = tuple(_factorials(prime)[number] for prime in PRIMES)
        return Residue(remainders, None)

    def binomial(self, total: Residue, chosen: Residue) -> Residue:
        if _small_integer(chosen) > _small_integer(total):
            raise Unread
        below = self.factorial(chosen) * self.factorial(total - chosen)
        return self.factorial(total) / below


def _small_integer(value: Residue) -> int:
    """Raises: TooLarge where the exact value is not known, Unread where it is not an integer."""
    if value.exact is None:
        raise TooLarge
    if value.exact.denominator != 1:
        raise Unread
    return int(value.exact)


@functools.cache
def _factorials(prime: int) -> list[int]:
    """0!, 1!, ... up to MAX_FACTORIAL!, each modulo a prime."""
    found = [1]
    for number in range(1, MAX_FACTORIAL + 1):
        found.append(found[-1] * number % prime)
    return found


def _bits(value: Fraction) -> int:
    """Of the longer of numerator and denominator."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())
