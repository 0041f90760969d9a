r"""Math-Verify and sympy for what the plain rules leave open (check kind `math`).

Only inside a worker process. What Math-Verify calls equal is not always believed. It rounds, drops
words and letters that it does not know, and reads equations by one side. Our own comparisons come
first, and `_is_doubtful` holds the counter-checks.
"""

import re
from fractions import Fraction
from typing import Any

from .forms import intervals
from .lists import brackets, split_list
from .numbers import decimal_places, is_rounding, rational

Expression = Any
"""What sympy made of a text: an expression, an equation, a set, a tuple."""

READING_ERRORS = (
    ArithmeticError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
)
"""What Math-Verify and sympy raise on texts that they do not understand."""

PRECISION = 50
"""Digits to which constants are computed."""


def math_verify_equal(gold: str, answer: str) -> bool | None:
    """Math-Verify's opinion, with the counter-checks; None when it cannot read the gold."""
    import math_verify

    wanted = _parse(gold)
    if not wanted:
        return None
    try:
        found = _parse(answer)
    except READING_ERRORS:
        return False  # the gold can be read, and this cannot
    if not found or len(found) == 1:
        return False  # nothing but text was read
    if len(wanted) == 1 or _is_undefined(wanted[0]):
        return None
    if _is_undefined(found[0]):
        return False
    decided = _our_opinion(gold, wanted[0], answer, found[0])
    if decided is not None:
        return decided
    is_equal = math_verify.verify(
        wanted, found, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
    )
    return is_equal and not _is_doubtful(gold, wanted[0], answer, found[0])


def _our_opinion(gold: str, left: Expression, answer: str, right: Expression) -> bool | None:
    decided = _numeric(gold, left, answer, right)
    if decided is not None or _differ_in_case(gold, answer):
        return decided
    for rule in (_complex, _algebraic, _solved, identical):
        decided = rule(left, right)
        if decided is not None:
            return decided
    return None


_FUNCTIONS = set("fghFGHPQ")
_FUNCTIONS |= {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp"}
_FUNCTIONS |= {"max", "min", "gcd", "lcm", "sgn"}

_TRIGONOMETRIC = r"\\(?:sin|cos|tan|cot|sec|csc)"
_ARGUMENT = re.compile(
    r"(\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)|\\ln|\\log) ?"
    r"([a-zA-Z]|\d+|\\(?:theta|alpha|beta|pi|varphi))"
    r"(?= ?\\(?:cdot|times))"
)
_CIS = re.compile(
    r"\\cis ?"
    r"(\\frac ?\{[^{}]*\} ?\{[^{}]*\}|\{[^{}]*\}|\([^()]*\)|-?[^ (){}+^-]+(?:\^\{\\circ ?\})?)"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?) ?\^\{\\circ ?\}")


def unambiguous(gold: str, answer: str) -> tuple[str, str]:
    r"""Both texts as Math-Verify reads them rightly.

    `a(x-y)` is a product where a also comes without a bracket after it (Math-Verify reads the name
    of a function). The argument of `\cot t \cdot u` ends with t. `\sin 30^{\circ}` is in radians.
    `2\binom{6}{2}` is not a mixed number. `2\cis\theta` is `2e^{i\theta}`.
    """
    # A command has no group, so it is found as "" and taken out.
    letters = re.findall(r"\\[a-zA-Z]+|([a-zA-Z])(?! ?\()", f"{gold} {answer}")
    variables = set(letters) - {""} - _FUNCTIONS

    def spelled(match: re.Match[str]) -> str:
        name = match[1]
        is_command = name[0] == "\\"
        is_product = not is_command and name not in _FUNCTIONS and name[-1] in variables
        return f"{name} \\cdot (" if is_product else match[0]

    def rewritten(text: str) -> str:
        text = _ARGUMENT.sub(r"\1{(\2)}", text)
        text = re.sub(r"(\\?[a-zA-Z]+) ?\(", spelled, text)
        text = re.sub(r"(?<=[\w})]) ?(?=\\binom)", r" \\cdot ", text)
        text = _CIS.sub(r" \\cdot e^{i (\1)}", text)
        text = text.strip().removeprefix(r"\cdot ")
        if re.search(rf"{_TRIGONOMETRIC}|e ?\^", text):
            text = _DEGREES.sub(r"\\frac{\1 \\pi}{180}", text)
        return text

    return rewritten(gold), rewritten(answer)


def _differ_in_case(gold: str, answer: str) -> bool:
    """Whether the letters only differ in case. Math-Verify may then read X as x."""
    letters = r"(?<!\\)[a-zA-Z]"
    want = set(re.findall(letters, gold))
    found = set(re.findall(letters, answer))
    if want == found:
        return False
    return set(map(str.lower, want)) == set(map(str.lower, found))


def _parse(text: str) -> list[Expression]:
    """What Math-Verify reads: a sympy object and the text, or only the text.

    Units are not stripped there: it takes single letters such as m for one.
    """
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    normal = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="all",
        equations=False,
    )
    with_ours = math_verify.LatexExtractionConfig(
        boxed_match_priority=0, normalization_config=normal
    )
    with_its_own = math_verify.LatexExtractionConfig(boxed_match_priority=0)
    boxed = "\\boxed{" + text.replace("%", r"\%") + "}"
    found: list[Expression] = []
    for target in (with_ours, with_its_own):
        found = math_verify.parse(boxed, [target], parsing_timeout=None, raise_on_error=True)
        if len(found) > 1:
            break
    return found


def _numeric(gold: str, left: Expression, answer: str, right: Expression) -> bool | None:
    """Two constants: equal to 35 digits when both are exact, else by the rule of rounding.

    None for anything else.
    """
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if left.free_symbols or right.free_symbols:
        return None
    first = left.evalf(PRECISION, maxn=400)
    second = right.evalf(PRECISION, maxn=400)
    if not (_is_real(first) and _is_real(second)):
        return None  # complex, infinite, or not a number that can be computed
    if decimal_places(gold) is None and decimal_places(answer) is None:
        if not left.has(sympy.Float) and not right.has(sympy.Float):
            return _agree(first, second)
        first = _without_floats(left).evalf(PRECISION, maxn=400)
        second = _without_floats(right).evalf(PRECISION, maxn=400)
        return True if _agree(first, second) else None
    want = rational(gold)
    found = rational(answer)
    if want is None:
        want = Fraction(str(first))
    if found is None:
        found = Fraction(str(second))
    return want == found or is_rounding(gold, want, answer, found)


def _is_real(number: Expression) -> bool:
    """Whether `evalf` has computed a real number."""
    return bool(number.is_Float or number.is_Integer)


def _agree(first: Expression, second: Expression) -> bool:
    """Two numbers to 35 digits, complex ones too."""
    import sympy

    scale = max(abs(first), abs(second))
    tolerance = scale * sympy.Float("1e-35", PRECISION)
    return bool(abs(first - second) <= tolerance)


def _complex(left: Expression, right: Expression) -> bool | None:
    r"""Two constants with the imaginary unit, such as `2e^{i\pi/3}` and `1+\sqrt{3}i`.

    Math-Verify reads the unit as a name.
    """
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    names = left.free_symbols | right.free_symbols
    if set(map(str, names)) != {"i"}:
        return None
    numbers = []
    for side in (left, right):
        units = dict.fromkeys(side.free_symbols, sympy.I)
        exact = _without_floats(side).xreplace(units)
        number = exact.evalf(PRECISION, maxn=400)
        if not all(map(_is_real, number.as_real_imag())):
            return None
        numbers.append(number)
    first, second = numbers
    return _agree(first, second)


def _algebraic(left: Expression, right: Expression) -> bool | None:
    """Whether two equations are multiples of each other; None for anything else."""
    import sympy

    first = _difference(left)
    second = _difference(right)
    if first is None or second is None or second == 0:
        return None
    if first.free_symbols != second.free_symbols or len(first.free_symbols) < 2:
        return None
    if not (first.is_polynomial() and second.is_polynomial()):
        return None
    ratio = sympy.cancel(first / second)
    return bool(ratio.is_number and ratio != 0)


def _solved(left: Expression, right: Expression) -> bool | None:
    """`xy = 6` and `6/x`: an equation, and its solution for a name that the other text lacks."""
    import sympy

    for equation, other in ((left, right), (right, left)):
        difference = _difference(equation)
        if difference is None:
            continue
        solution = _solution(equation, other)
        if solution is None:
            continue
        # xy - 6 is linear in y, so 6/x is its only solution where it makes the difference 0.
        name, value = solution
        difference = sympy.expand(difference)
        if not isinstance(value, sympy.Expr) or name in value.free_symbols:
            continue
        if not difference.is_polynomial(name) or sympy.degree(difference, name) != 1:
            continue
        remainder = difference.subs(name, value)
        return identical(remainder, sympy.Integer(0))
    return None


def _solution(equation: Expression, other: Expression) -> tuple[Expression, Expression] | None:
    """(name, value) of `y = 6/x`, or of `6/x` where the equation has one more name."""
    import sympy

    if isinstance(other, sympy.Eq) and isinstance(other.lhs, sympy.Symbol):
        return other.lhs, other.rhs
    if not isinstance(other, sympy.Expr):
        return None
    further = equation.free_symbols - other.free_symbols
    if len(further) != 1:
        return None
    (name,) = further
    return name, other


def identical(left: Expression, right: Expression) -> bool | None:
    """Whether two expressions with names are the same function. None where numbers cannot tell.

    Both are computed to 30 digits at fixed rational points. Points where one is not real are
    skipped. Analytic functions that agree to 20 digits at the others are equal. There are positive
    and negative points, because x and |x| only differ at the latter.
    """
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if left == right:
        return True
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    unknown = (
        sympy.Sum,
        sympy.Product,
        sympy.Integral,
        sympy.Limit,
        sympy.Derivative,
        sympy.core.function.AppliedUndef,
    )
    if not 0 < len(names) <= 12 or left.has(*unknown) or right.has(*unknown):
        return None
    exact_left = _without_floats(left)
    exact_right = _without_floats(right)
    has_decimals = exact_left != left or exact_right != right
    agreements = 0
    # For x and |x|: equal at the points 0 to 5, and different at point 6, the first negative one.
    for number in range(NUM_POINTS):
        point = _point(number, names)
        first = exact_left.subs(point).evalf(30, maxn=200)
        second = exact_right.subs(point).evalf(30, maxn=200)
        if not (_is_real(first) and _is_real(second)):
            continue  # not real, or a pole
        scale = max(abs(first), abs(second), sympy.Float(1))
        if abs(first - second) > scale * sympy.Float("1e-20"):
            return None if has_decimals else False  # a decimal may be a rounded value
        agreements += 1
    return True if agreements >= MIN_AGREEMENTS else None


NUM_POINTS = 9
MIN_AGREEMENTS = 3


def _point(number: int, names: list[Expression]) -> dict[Expression, Expression]:
    """A fixed rational point: the first six are positive, every other one is shifted by 3/2.

    The names of point 1 are 3/2 + 25/101, 3/2 + 62/101, 3/2 + 2/101, ...
    """
    import sympy

    sign = (-1) ** (number // 6)
    shift = sympy.Rational(3 * (number % 2), 2)
    point = {}
    for index, name in enumerate(names):
        numerator = (37 * index + 23 * number) % 97 + 2
        fraction = sympy.Rational(numerator, 101)
        point[name] = sign * (shift + fraction)
    return point


def _difference(equation: Expression) -> Expression | None:
    """Left minus right of an equation between expressions.

    None for anything else, such as `(p, q) = (3, 2)`.
    """
    import sympy

    if not isinstance(equation, sympy.Eq):
        return None
    if not (isinstance(equation.lhs, sympy.Expr) and isinstance(equation.rhs, sympy.Expr)):
        return None
    return equation.lhs - equation.rhs


def _is_undefined(value: Expression) -> bool:
    """`12:00` is read as a division by zero."""
    import sympy

    return isinstance(value, sympy.Expr) and value.has(sympy.nan, sympy.zoo)


def _without_floats(expression: Expression) -> Expression:
    """The expression with fractions for its decimals: 5/2 for 2.5."""
    import sympy

    fractions = {}
    for number in expression.atoms(sympy.Float):
        fractions[number] = sympy.Rational(str(number))
    return expression.xreplace(fractions)


def _is_doubtful(gold: str, left: Expression, answer: str, right: Expression) -> bool:
    """Whether an equality of Math-Verify is not believed.

    Parts or letters may have been dropped, or equations read by one side.
    """
    import sympy

    both = gold + answer
    if len(split_list(gold)) != len(split_list(answer)) and "\\in" not in both:
        is_ordered = brackets(gold) or brackets(answer)
        are_intervals = intervals(gold) and intervals(answer)
        if not is_ordered and not are_intervals and r"\pm" not in both:
            return True
    are_values = isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)
    if are_values and left.free_symbols != right.free_symbols:
        return bool(sympy.simplify(left - right) != 0)
    first = _difference(left)
    second = _difference(right)
    if first is not None and second is not None and first.free_symbols != second.free_symbols:
        left_names = set(map(str, left.lhs.free_symbols))
        right_names = set(map(str, right.lhs.free_symbols))
        return left_names == right_names
    if re.search(r"\\forall|\\exists", both):
        return True  # it reads only what comes after the comma
    if re.search(r"[<>=]|\\le|\\ge|\\in", both) or not isinstance(left, sympy.Expr):
        return False
    return _letters(gold) != _letters(answer)


def _letters(text: str) -> set[str]:
    """Single letters, commands apart."""
    return set(re.findall(r"\\[a-zA-Z]+|([a-zA-Z])", text)) - {""}
