r"""Lists, brackets and vectors as text: where they close, and what their parts are (check kind `math`)."""

import itertools
import re

from .numbers import INTEGER


def closing_bracket(text: str, start: int) -> int | None:
    pairs = {"(": ")", "[": "]", "{": "}"}
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text) and not text[position + 1].isalpha():
            if text[position + 1] in "{}":
                depth += 1 if text[position + 1] == "{" else -1
                if depth == 0:
                    return position + 1
            position += 2
            continue
        if text[position] in pairs:
            depth += 1
        elif text[position] in ")]}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


_WORDS = re.compile(
    r"\s*(?:,|;|\\ (?=and|or))?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*|\s*\\(?:lor|vee|land)(?![a-zA-Z])\s*"
)


def split_list(text: str) -> list[str]:
    """The parts of a list at the outermost level, split at commas, semicolons, `and`, `or`."""
    text = _WORDS.sub(" ; ", text)
    separator = ";" if ";" in outer(text) else ","
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        sign = text[position]
        if sign == "\\":
            if text[position + 1 : position + 2] in ("{", "}"):
                depth += 1 if text[position + 1] == "{" else -1
            position += 2
            continue
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == separator and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    parts.append(text[start:])
    parts = [part.strip() for part in parts if part.strip()]
    if separator == ";":
        parts = [
            piece for part in parts for piece in (split_list(part) if ";" not in part and _is_plain_list(part) else [part])
        ]
    return parts


def _is_plain_list(text: str) -> bool:
    return "," in outer(text) and not re.fullmatch(rf"-?{INTEGER}(?:\.\d+)?", text)


def outer(text: str) -> str:
    """The text with everything in brackets left out."""
    kept, depth, position = [], 0, 0
    while position < len(text):
        sign = text[position]
        if sign == "\\":
            if text[position + 1 : position + 2] in ("{", "}"):
                depth += 1 if text[position + 1] == "{" else -1
            position += 2
            continue
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth <= 0:
            kept.append(sign)
        position += 1
    return "".join(kept)


def brackets(text: str) -> tuple[str, str] | None:
    r"""(kind, content) where one pair of brackets holds the whole text: kind is `()`, `[]`, `(]`, `[)` or `{}`."""
    if text.startswith("\\{") and text.endswith("\\}") and closing_bracket(text, 0) == len(text) - 1:
        return "{}", text[2:-2].strip()
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and closing_bracket(text, 0) == len(text) - 1:
        return text[0] + text[-1], text[1:-1].strip()
    return None


def vector(text: str) -> str | None:
    r"""`(a, b, c)` for a matrix of one row or one column, else None."""
    match = re.fullmatch(r"\(? ?\\begin\{([pb]?)(?:matrix|array)\}(?:\{[clr|]+\})?(.+?)\\end\{\1(?:matrix|array)\} ?\)?", text)
    if not match or "\\begin" in match[2]:
        return None
    rows = [row.strip() for row in re.split(r"\\\\", match[2]) if row.strip()]
    parts = rows if len(rows) > 1 else rows[0].split("&") if rows else []
    if len(parts) < 2 or any("&" in part or not part.strip() for part in parts):
        return None
    return "(" + ", ".join(part.strip() for part in parts) + ")"


def plus_minus(text: str) -> list[str] | None:
    """Both values of an expression with one sign of both kinds; of a tuple with one in several of its parts, all of them."""
    kind = brackets(text)
    parts = split_list(kind[1]) if kind is not None and kind[0] == "()" else [text]
    if r"\pm" not in text or any(part.count(r"\pm") > 1 for part in parts):
        return None
    spread = [
        [re.sub(r"\\pm ?", sign, part).strip().removeprefix("+") for sign in ("+", "-")] if r"\pm" in part else [part]
        for part in parts
    ]
    if len(parts) == 1:
        return spread[0]
    return ["(" + ", ".join(values) + ")" for values in itertools.product(*spread)][:60]
