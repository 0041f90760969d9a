r"""The final answer of a solution text: the content of the last complete `\boxed{...}` with balanced braces (stage 7).

There is no fallback: a box that is not closed, an empty box and a text without a box have no answer. A last number in
the text is never taken for one, because that rewards unfinished solutions.
"""

_OPENINGS = ("\\boxed{", "\\fbox{")


def last_boxed(text: str) -> str | None:
    r"""The stripped content of the last complete box, or None where there is none or it is empty.

    A box inside a box belongs to the outer one. Escaped braces (`\{`, `\}`) are text.
    """
    content = None
    position = 0
    while True:
        starts = [(text.find(opening, position), opening) for opening in _OPENINGS]
        found = [(start, opening) for start, opening in starts if start >= 0]
        if not found:
            return content or None
        start, opening = min(found)
        stop = _closing_brace(text, start + len(opening))
        if stop is None:
            position = start + len(opening)  # not closed: only a box inside it can still be complete
        else:
            content = text[start + len(opening) : stop].strip()
            position = stop + 1


def _closing_brace(text: str, position: int) -> int | None:
    depth = 1
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None
