r"""The final answer of a text without a box: an option for files of extracted answers (`scripts/verify_file.py`)."""

import re

from .answers import MAX_CHARACTERS, MAX_INLINE_CHARACTERS
from .forms import is_prose
from .spelling import tidy

_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\(((?:(?!\\[()])[^\n])+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]", re.DOTALL)
"""Each reading stops at the next opening, so that a text of many takes no longer than another."""

_ANSWER_WORDS = re.compile(r"(?i)\b(?:answer|therefore|thus|hence|so)\b")

_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}(?![a-zA-Z])")

_ANNOUNCED = re.compile(r"(?is).*\banswer(?: is|:)\s*:?\s*(.+?)\s*\.?\s*(?:I hope it is correct\.?\s*)?(?:<\|im_start\|>.*)?$")


def bare_answer(text: str) -> str | None:
    r"""The final answer of a text without a box; None where it has one, or where none can be told for certain.

    It is the whole text where that is no sentence; the one formula (`$...$`, `\(...\)`, `\[...\]`) of a sentence; or what
    stands behind `answer is` at its end. An option for files of extracted answers; answers that a model wrote for us have
    a box.
    """
    if "\\boxed" in text or "\\fbox" in text or not text.strip() or len(text) > MAX_CHARACTERS:
        return None
    formulas = [next(filter(None, match)) for match in _FORMULA.findall(text)]
    around = _FORMULA.sub(" ", text)
    if not _ANSWER_WORDS.search(around):
        if not formulas and re.search(r"\\text ?\{", text):
            return text  # LaTeX with words in it
        if not is_prose(tidy(text)) and not (formulas and len(_WORD.findall(around)) > 2):
            return text
    if len(formulas) == 1 and not re.search(r"\d", around):
        return formulas[0]
    announced = _ANNOUNCED.match(text[-MAX_INLINE_CHARACTERS:])
    return announced[1] if announced and announced[1].strip() and len(_WORD.findall(tidy(announced[1]))) < 2 else None
