r"""Lists, brackets, vectors as text: where they close, and what their parts are (kind `math`)."""

import itertools
import re
from collections.abc import Iterator

from .numbers import INTEGER

_SIGN = re.compile(r"\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", "\\{"}
_CLOSING = {")", "]", "}", "\\}"}


def _nesting(text: str, start: int = 0) -> Iterator[tuple[int, str, int]]:
    r"""(position of its last character, sign, brackets that are open after it) of every sign.

    `a\{b` gives (0, `a`, 0), (2, `\{`, 1), (3, `b`, 1): an escaped brace is a bracket, and any
    other escaped character is one sign.
    """
    depth = 0
    for match in _SIGN.finditer(text, start):
        sign = match[0]
        depth += (sign in _OPENING) - (sign in _CLOSING)
        yield match.end() - 1, sign, depth


def closing_bracket(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` closes; None where it does not."""
    for position, sign, depth in _nesting(text, start):
        if depth == 0 and sign in _CLOSING:
            return position
    return None


_WORDS = re.compile(
    r"\s*(?:,|;|\\ (?=and|or))?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*|\s*\\(?:lor|vee|land)"
    r"(?![a-zA-Z])\s*"
)


def split_list(text: str) -> list[str]:
    """The parts of a list at the outermost level, split at commas, semicolons, `and`, `or`.

    `1, (2, 3)` has the parts `1` and `(2, 3)`. It is cut at -1, 1 and 9: before the text, at the
    comma, and after the text.
    """
    text = _WORDS.sub(" ; ", text)
    separator = ";" if ";" in outer(text) else ","
    cuts = [-1]
    # A closing bracket that was never opened makes the depth negative; what follows is outside.
    for position, sign, depth in _nesting(text):
        if sign == separator and depth <= 0:
            cuts.append(position)
    cuts.append(len(text))
    parts = []
    for start, stop in itertools.pairwise(cuts):
        part = text[start + 1 : stop].strip()
        if not part:
            continue
        if separator == ";" and ";" not in part and _is_plain_list(part):
            parts += split_list(part)
        else:
            parts.append(part)
    return parts


def _is_plain_list(text: str) -> bool:
    return "," in outer(text) and not re.fullmatch(rf"-?{INTEGER}(?:\.\d+)?", text)


def outer(text: str) -> str:
    """The text without everything in brackets."""
    found = ""
    for _, sign, depth in _nesting(text):
        if depth <= 0 and len(sign) == 1 and sign not in _CLOSING:
            found += sign
    return found


def brackets(text: str) -> tuple[str, str] | None:
    r"""(kind, content) where one pair of brackets holds the whole text: kind is `()`, `[]`, `(]`,
    `[)` or `{}`.
    """
    is_set = text.startswith("\\{") and text.endswith("\\}")
    is_tuple = text[:1] in ("(", "[") and text[-1:] in (")", "]")
    if not is_set and not is_tuple:
        return None
    if closing_bracket(text, 0) != len(text) - 1:
        return None  # `(1, 2), (3, 4)`: two pairs
    if is_set:
        return "{}", text[2:-2].strip()
    return text[0] + text[-1], text[1:-1].strip()


def vector(text: str) -> str | None:
    r"""`(a, b, c)` for a matrix of one row or one column, else None."""
    match = re.fullmatch(
        r"\(? ?\\begin\{([pb]?)(?:matrix|array)\}(?:\{[clr|]+\})?(.+?)\\end\{\1(?:matrix"
        r"|array)\} ?\)?",
        text,
    )
    if not match or "\\begin" in match[2]:
        return None
    parts = [row.strip() for row in match[2].split(r"\\") if row.strip()]
    if len(parts) == 1:  # one row: its cells are the parts
        parts = [cell.strip() for cell in parts[0].split("&")]
    is_matrix = any("&" in part for part in parts)
    if len(parts) < 2 or is_matrix or not all(parts):
        return None
    return f"({', '.join(parts)})"


def plus_minus(text: str) -> list[str] | None:
    r"""The values of an expression with `\pm`; None where it has none, or two in one part.

    `1 \pm 2` has the values `1 +2` and `1 -2`. The tuple `(\pm 1, \pm 2)` has four.
    """
    if r"\pm" not in text:
        return None
    held = brackets(text)
    parts = [text]
    if held is not None and held[0] == "()":
        parts = split_list(held[1])
    spread = []
    for part in parts:
        if part.count(r"\pm") > 1:
            return None
        if r"\pm" not in part:
            spread.append([part])
            continue
        plus = re.sub(r"\\pm ?", "+", part).strip().removeprefix("+")
        minus = re.sub(r"\\pm ?", "-", part).strip().removeprefix("+")
        spread.append([plus, minus])
    if len(parts) == 1:
        return spread[0]
    tuples = itertools.islice(itertools.product(*spread), _MAX_TUPLES)
    return [f"({', '.join(values)})" for values in tuples]


_MAX_TUPLES = 60
