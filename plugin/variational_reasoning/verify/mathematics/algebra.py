r"""Math-Verify and sympy for what the plain rules leave open (check kind `math`). Only inside a worker process.

The surprising thing: what Math-Verify calls equal is not always believed. It rounds, drops words and letters that it
does not know, and reads equations by one side; `_is_doubtful` holds the counter-checks.
"""

import re
from fractions import Fraction

from .forms import intervals
from .lists import brackets, split_list
from .numbers import decimal_places, is_rounding, rational

READING_ERRORS = (
    ArithmeticError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
)
"""What Math-Verify and sympy raise on texts that they do not understand."""


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
    decided = _numeric(gold, wanted[0], answer, found[0])
    if not _differ_in_case(gold, answer):
        for rule in (_complex, _algebraic, _solved, identical):
            decided = rule(wanted[0], found[0]) if decided is None else decided
    if decided is not None:
        return decided
    is_equal = math_verify.verify(
        wanted, found, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
    )
    return is_equal and not _is_doubtful(gold, wanted[0], answer, found[0])


_FUNCTIONS = set("fghFGHPQ") | {
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
    "exp",
    "max",
    "min",
    "gcd",
    "lcm",
    "sgn",
}


_ARGUMENT = re.compile(
    r"(\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)|\\ln|\\log) ?([a-zA-Z]|\d+|\\(?:theta|alpha|beta|pi|varphi))(?= ?\\(?:cdot|times))"
)
_CIS = re.compile(
    r"\\cis ?(\\frac ?\{[^{}]*\} ?\{[^{}]*\}|\{[^{}]*\}|\([^()]*\)|-?[^ (){}+^-]+(?:\^\{\\circ ?\})?)"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?) ?\^\{\\circ ?\}")


def unambiguous(gold: str, answer: str) -> tuple[str, str]:
    r"""Both texts as Math-Verify reads them rightly.

    `a(x-y)` is a product where a also stands without a bracket behind it (it reads the name of a function); the argument
    of `\cot t \cdot u` ends with t; `\sin 30^{\circ}` is in radians.
    """
    variables = {
        letter
        for letter in re.findall(r"\\[a-zA-Z]+|([a-zA-Z])(?! ?\()", f"{gold} {answer}")
        if letter
    }

    def spelled(match: re.Match) -> str:
        name = match[1]
        is_product = (
            name[0] != "\\" and name not in _FUNCTIONS and name[-1] in variables - _FUNCTIONS
        )
        return f"{name} \\cdot (" if is_product else match[0]

    def rewritten(text: str) -> str:
        text = re.sub(r"(\\?[a-zA-Z]+) ?\(", spelled, _ARGUMENT.sub(r"\1{(\2)}", text))
        text = re.sub(r"(?<=[\w})]) ?(?=\\binom)", r" \\cdot ", text)  # else a mixed number
        text = _CIS.sub(r" \\cdot e^{i (\1)}", text).strip().removeprefix(r"\cdot ")
        if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)|e ?\^", text):
            text = _DEGREES.sub(r"\\frac{\1 \\pi}{180}", text)
        return text

    return rewritten(gold), rewritten(answer)


def _differ_in_case(gold: str, answer: str) -> bool:
    """Math-Verify may read X as x; only the counter-checks can tell then."""
    letters = [set(re.findall(r"(?<!\\)[a-zA-Z]", text)) for text in (gold, answer)]
    return letters[0] != letters[1] and {x.lower() for x in letters[0]} == {
        x.lower() for x in letters[1]
    }


def _parse(text: str) -> list:
    """What Math-Verify reads: a sympy object and the text, or only the text. Units are not stripped there: it takes single
    letters such as m for one."""
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
    latex = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=normal)
    boxed = "\\boxed{" + text.replace("%", r"\%") + "}"
    for targets in ([latex], [math_verify.LatexExtractionConfig(boxed_match_priority=0)]):
        found = math_verify.parse(boxed, targets, parsing_timeout=None, raise_on_error=True)
        if len(found) > 1:
            return found
    return found


def _numeric(gold: str, left, answer: str, right) -> bool | None:
    """Two constants: equal to 40 digits when both are exact, else by the rule of rounding. None for anything else."""
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if left.free_symbols or right.free_symbols:
        return None
    places, own = decimal_places(gold), decimal_places(answer)
    numbers = [left.evalf(50, maxn=400), right.evalf(50, maxn=400)]
    if not all(number.is_Float or number.is_Integer for number in numbers):
        return None  # complex, infinite, or not a number that can be computed
    if places is None and own is None:
        if not left.has(sympy.Float) and not right.has(sympy.Float):
            return _agree(numbers[0], numbers[1])
        exact_numbers = [_without_floats(side).evalf(50, maxn=400) for side in (left, right)]
        return True if _agree(exact_numbers[0], exact_numbers[1]) else None
    exact = [rational(gold), rational(answer)]
    values = [
        exact[i] if exact[i] is not None else Fraction(str(number))
        for i, number in enumerate(numbers)
    ]
    return values[0] == values[1] or is_rounding(gold, values[0], answer, values[1])


def _agree(first, second) -> bool:
    """Two numbers to 35 digits, complex ones too."""
    import sympy

    scale = max(abs(first), abs(second))
    return bool(abs(first - second) <= sympy.Float("1e-35", 50) * scale)


def _complex(left, right) -> bool | None:
    r"""Two constants with the imaginary unit, which Math-Verify reads as a name: `2e^{i\pi/3}` and `1+\sqrt{3}i`."""
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if {str(name) for name in left.free_symbols | right.free_symbols} != {"i"}:
        return None
    numbers = []
    for side in (left, right):
        units = dict.fromkeys(side.free_symbols, sympy.I)
        number = _without_floats(side).xreplace(units).evalf(50, maxn=400)
        parts = number.as_real_imag()
        if not all(part.is_Float or part.is_Integer for part in parts):
            return None
        numbers.append(number)
    return _agree(numbers[0], numbers[1])


def _algebraic(left, right) -> bool | None:
    """Equations that are multiples of one another, and complex numbers whose unit was read as a letter; else None."""
    import sympy

    first, second = _difference(left), _difference(right)
    if first is not None and second is not None:
        if first.free_symbols != second.free_symbols or len(first.free_symbols) < 2 or second == 0:
            return None
        if not (first.is_polynomial() and second.is_polynomial()):
            return None
        ratio = sympy.cancel(first / second)
        return bool(ratio.is_number and ratio != 0)
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        names = left.free_symbols | right.free_symbols
        if (
            [str(name) for name in names] == ["i"]
            and left.is_polynomial()
            and right.is_polynomial()
        ):
            unit = names.pop()
            return bool(sympy.expand(left.subs(unit, sympy.I) - right.subs(unit, sympy.I)) == 0)
    return None


def _solved(left, right) -> bool | None:
    """`xy = 6` beside `6/x`: an equation and its solution for the one name that the other side lacks; else None."""
    import sympy

    for equation, other in ((left, right), (right, left)):
        difference = _difference(equation)
        if difference is None:
            continue
        if isinstance(other, sympy.Eq) and isinstance(other.lhs, sympy.Symbol):
            name, value = other.lhs, other.rhs
        elif isinstance(other, sympy.Expr) and len(equation.free_symbols - other.free_symbols) == 1:
            (name,), value = equation.free_symbols - other.free_symbols, other
        else:
            continue
        difference = sympy.expand(difference)
        if (
            not isinstance(value, sympy.Expr)
            or name in value.free_symbols
            or not difference.is_polynomial(name)
            or sympy.degree(difference, name) != 1
        ):
            continue
        return identical(difference.subs(name, value), sympy.Integer(0))
    return None


def identical(left, right) -> bool | None:
    """Are two expressions with names the same function? None where that is not for numbers to say.

    Both are computed to 30 digits at fixed rational points, and only where both are real: analytic functions that agree
    there to 20 digits are equal. Points of either sign tell x from |x|.
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
    exact = [_without_floats(side) for side in (left, right)]
    agreements = 0
    for i in range(9):
        sign, shift = (-1) ** (i // 6), sympy.Rational(i % 2 * 3, 2)
        point = {
            name: sign * (shift + sympy.Rational((37 * j + 23 * i) % 97 + 2, 101))
            for j, name in enumerate(names)
        }
        values = [side.subs(point).evalf(30, maxn=200) for side in exact]
        if not all(value.is_Float or value.is_Integer for value in values):
            continue  # not real, or a pole
        scale = max(abs(values[0]), abs(values[1]), sympy.Float(1))
        if abs(values[0] - values[1]) > scale * sympy.Float("1e-20"):
            return None if exact != [left, right] else False
        agreements += 1
    return True if agreements >= 3 else None


def _difference(equation):
    """Left minus right of an equation between expressions; None for anything else, `(p, q) = (3, 2)` among it."""
    import sympy

    if (
        isinstance(equation, sympy.Eq)
        and isinstance(equation.lhs, sympy.Expr)
        and isinstance(equation.rhs, sympy.Expr)
    ):
        return equation.lhs - equation.rhs
    return None


def _is_undefined(value) -> bool:
    """`12:00` is read as a division by zero."""
    import sympy

    return isinstance(value, sympy.Expr) and value.has(sympy.nan, sympy.zoo)


def _without_floats(expression):
    """Decimals as the fractions that they are written as."""
    import sympy

    return expression.xreplace(
        {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    )


def _is_doubtful(gold: str, left, answer: str, right) -> bool:
    """Why an equality of Math-Verify is not believed: parts or letters were dropped, or equations read by one side."""
    import sympy

    if len(split_list(gold)) != len(split_list(answer)) and "\\in" not in gold + answer:
        ordered = [brackets(text) for text in (gold, answer)]
        if (
            not any(ordered)
            and not (intervals(gold) and intervals(answer))
            and r"\pm" not in gold + answer
        ):
            return True
    if (
        isinstance(left, sympy.Expr)
        and isinstance(right, sympy.Expr)
        and left.free_symbols != right.free_symbols
    ):
        return sympy.simplify(left - right) != 0
    first, second = _difference(left), _difference(right)
    if first is not None and second is not None and first.free_symbols != second.free_symbols:
        return {str(name) for name in left.lhs.free_symbols} == {
            str(name) for name in right.lhs.free_symbols
        }
    if re.search(r"\\forall|\\exists", gold + answer):
        return True  # it reads only what stands behind the comma
    letters = [set(re.findall(r"\\[a-zA-Z]+|([a-zA-Z])", text)) - {""} for text in (gold, answer)]
    is_relation = re.search(r"[<>=]|\\le|\\ge|\\in", gold + answer)
    return not is_relation and letters[0] != letters[1] and isinstance(left, sympy.Expr)
