r"""Lists, brackets and vectors as text: where they close, and what their parts are (check kind
`math`).
"""

import itertools
import re
from collections.abc import Iterator

from .numbers import INTEGER

_SIGN = re.compile(r"\\.|.", re.DOTALL)
_OPENING, _CLOSING = {"(", "[", "{", "\\{"}, {")", "]", "}", "\\}"}


def _nesting(text: str, start: int = 0) -> Iterator[tuple[int, str, int]]:
    r"""(position of its last character, sign, brackets that are open after it) of every sign.

    `a\{b` gives (0, `a`, 0), (2, `\{`, 1), (3, `b`, 1): an escaped brace is a bracket, and any
    other escaped character is one sign.
    """
    depth = 0
    for match in _SIGN.finditer(text, start):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        yield match.end() - 1, match[0], depth


def closing_bracket(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` closes."""
    return next(
        (
            position
            for position, sign, depth in _nesting(text, start)
            if depth == 0 and sign in _CLOSING
        ),
        None,
    )


_WORDS = re.compile(
    r"\s*(?:,|;|\\ (?=and|or))?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*|\s*\\(?:lor|vee|land)"
    r"(?![a-zA-Z])\s*"
)


def split_list(text: str) -> list[str]:
    """The parts of a list at the outermost level, split at commas, semicolons, `and`, `or`."""
    text = _WORDS.sub(" ; ", text)
    separator = ";" if ";" in outer(text) else ","
    cuts = [
        position for position, sign, depth in _nesting(text) if sign == separator and depth <= 0
    ]
    parts = [text[start + 1 : stop] for start, stop in itertools.pairwise([-1, *cuts, len(text)])]
    parts = [part.strip() for part in parts if part.strip()]
    if separator == ";":
        parts = [
            piece
            for part in parts
            for piece in (split_list(part) if ";" not in part and _is_plain_list(part) else [part])
        ]
    return parts


def _is_plain_list(text: str) -> bool:
    return "," in outer(text) and not re.fullmatch(rf"-?{INTEGER}(?:\.\d+)?", text)


def outer(text: str) -> str:
    """The text with everything in brackets left out."""
    return "".join(
        sign
        for _, sign, depth in _nesting(text)
        if depth <= 0 and len(sign) == 1 and sign not in _CLOSING
    )


def brackets(text: str) -> tuple[str, str] | None:
    r"""(kind, content) where one pair of brackets holds the whole text: kind is `()`, `[]`, `(]`,
    `[)` or `{}`.
    """
    if (
        text.startswith("\\{")
        and text.endswith("\\}")
        and closing_bracket(text, 0) == len(text) - 1
    ):
        return "{}", text[2:-2].strip()
    if (
        text[:1] in ("(", "[")
        and text[-1:] in (")", "]")
        and closing_bracket(text, 0) == len(text) - 1
    ):
        return text[0] + text[-1], text[1:-1].strip()
    return None


def vector(text: str) -> str | None:
    r"""`(a, b, c)` for a matrix of one row or one column, else None."""
    match = re.fullmatch(
        r"\(? ?\\begin\{([pb]?)(?:matrix|array)\}(?:\{[clr|]+\})?(.+?)\\end\{\1(?:matrix"
        r"|array)\} ?\)?",
        text,
    )
    if not match or "\\begin" in match[2]:
        return None
    rows = [row.strip() for row in re.split(r"\\\\", match[2]) if row.strip()]
    parts = rows if len(rows) > 1 else rows[0].split("&") if rows else []
    if len(parts) < 2 or any("&" in part or not part.strip() for part in parts):
        return None
    return "(" + ", ".join(part.strip() for part in parts) + ")"


def plus_minus(text: str) -> list[str] | None:
    """Both values of an expression with one sign of both kinds.

    Of a tuple with one in several of its parts, all of them.
    """
    kind = brackets(text)
    parts = split_list(kind[1]) if kind is not None and kind[0] == "()" else [text]
    if r"\pm" not in text or any(part.count(r"\pm") > 1 for part in parts):
        return None
    spread = [
        [re.sub(r"\\pm ?", sign, part).strip().removeprefix("+") for sign in ("+", "-")]
        if r"\pm" in part
        else [part]
        for part in parts
    ]
    if len(parts) == 1:
        return spread[0]
    return ["(" + ", ".join(values) + ")" for values in itertools.product(*spread)][:60]
