r"""The final answer of a solution text: what its last complete `\boxed{...}` holds (stage 7).

There is no fallback: a box that is not closed, an empty box and a text without a box have no
answer. A last number in the text is never taken for one, because that rewards unfinished solutions.
"""

import re

_OPENING = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,3}\{")
"""TeX allows white space before the brace, also a line break."""

_BETWEEN = re.compile(r"(?:(?![.?!](?:\s|$))[^\n]){0,60}")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
MAX_WORDS_BETWEEN = 3


def last_boxed(text: str) -> str | None:
    r"""The stripped content of the last complete box, or None where there is none or it is empty.

    A box inside a box belongs to the outer one. Escaped braces (`\{`, `\}`) are text.
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    _, _, content = boxes[-1]
    return content or None


def final_boxes(text: str) -> list[str]:
    """The contents of the boxes of one sentence, up to the last one.

    At most a few words are between them. Empty where there is no last box with content.
    """
    boxes = _boxes(text)
    if not boxes or not boxes[-1][2]:
        return []
    found = [boxes[-1][2]]
    # Of boxes a, b, c the pairs (b, c), (a, b): from the end, until two are too far apart.
    for (_, stop, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if not content or not _BETWEEN.fullmatch(text, stop, start):
            break
        if len(_WORD.findall(text, stop, start)) > MAX_WORDS_BETWEEN:
            break
        found.insert(0, content)
    return found


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, stop, stripped content) of every complete box."""
    found: list[tuple[int, int, str]] = []
    position = 0
    while True:
        opening = _OPENING.search(text, position)
        if opening is None:
            return found
        stop = _closing_brace(text, opening.end())
        if stop is None:
            position = opening.end()  # not closed: only a box inside it can still be complete
        else:
            content = text[opening.end() : stop].strip()
            found.append((opening.start(), stop + 1, content))
            position = stop + 1


def _closing_brace(text: str, position: int) -> int | None:
    """Where the brace closes that opens before `position`; None where it does not."""
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
