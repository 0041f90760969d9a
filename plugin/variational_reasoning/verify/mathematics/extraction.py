r"""The final answer of a text without a box (`scripts/verify_file.py`, `answers=auto`).

Stage 7 never comes here: its prompts ask for a box. A last number is never taken for an answer. A
mark must announce the answer (`#### 12`, `**12**`, `Final Answer: 12`), or a finished sentence must
say that it concludes, and hold one value.
"""

import re

from .answers import MAX_CHARACTERS, MAX_INLINE_CHARACTERS
from .forms import is_prose
from .spelling import tidy

_FORMULA = re.compile(
    r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\(((?:(?!\\[()])[^\n])+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
"""Each reading stops at the next opening, so that a text of many takes no longer than another."""

_CONCLUDES = re.compile(
    r"(?i)\b(?:answer|therefore|thus|hence|so|conclusion|réponse|donc|antwort|respuesta)\b|答案|因此"
    r"|所以|结论|لذا|इसलिए"
)
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}(?![a-zA-Z])")
_POLITE = re.compile(r"(?is)\s*(?:I hope it is correct\.?)?\s*(?:<\|im_(?:start|end)\|>.*)?$")
_ANNOUNCED = re.compile(r"(?is).*\banswer(?: is|:)\s*:?\s*(.+?)\s*\.?$")
_CHOSEN = re.compile(
    r"(?:(?i:\banswer(?: is|:))(?: [a-z]+){0,2}|\bI think it(?: is|'s)) \(?([A-J])\)?(?=[,.;:]| *$)"
)
MAX_SHORT_CHARACTERS = 80
_COPULA = re.compile(r"(?is).*\b(?:is|are|be|was|equals)\s*:?\s+(.+)$")
_END_OF_SENTENCE = re.compile(r"[.!?](?=\s|\$\$|$)|[。！।؟]")
_BOLD = re.compile(r"\*\*([^*\n]{1,40})\*\*")
_VALUE = re.compile(
    r"\$([^$\n]+)\$|\\\(((?:(?!\\[()])[^\n])+)\\\)|(\\frac\{\d+\}\{\d+\}|-?\d[\d,]*(?:\.\d+)?"
    r"(?:/\d+)? ?%?)"
)


def bare_answer(text: str) -> str | None:
    r"""The final answer of a text without a box; None where it has one, or none for certain.

    In this order: what a mark announces; a letter after `answer is`; the whole text where it is not
    a sentence; the one formula (`$...$`, `\(...\)`, `\[...\]`) of a text; what is after `answer
    is` at its end; the value of its concluding sentence.
    """
    has_box = re.search(r"\\(?:boxed|fbox|framebox)", text)
    if has_box or not text.strip() or len(text) > MAX_CHARACTERS:
        return None
    text = text.rstrip().rstrip("\\")
    marked = _marked(text)
    if marked is not None:
        return marked
    chosen = _CHOSEN.findall(text)
    if chosen:
        return chosen[-1]
    formulas = [_only_group(match) for match in _FORMULA.findall(text)]
    around = _FORMULA.sub(" ", text)
    if not _CONCLUDES.search(around):
        if not formulas and re.search(r"\\text ?\{", text):
            return text  # LaTeX with words in it
        num_words = len(_WORD.findall(around))
        if num_words > 1:
            said = _concluding_value(text, is_whole=True)
            if said:
                return said
        is_sentence = is_prose(tidy(text)) or (formulas and num_words > 2)
        if not is_sentence:
            return text
    if len(formulas) == 1 and not re.search(r"\d", around):
        return formulas[0]
    end = _POLITE.sub("", text[-MAX_INLINE_CHARACTERS:])
    announced = _ANNOUNCED.match(end)
    if announced:
        value = announced[1]
        if value.strip() and len(_WORD.findall(tidy(value))) < 2:
            return value
    return _concluding_value(end)


def _only_group(match: tuple[str, ...]) -> str:
    """The content of a match of alternatives, of which one has a group that is not empty."""
    return next(filter(None, match))


_HEADING = re.compile(r"#{2,6}\s*(.+)")
_EMPHASIS = re.compile(
    r"\*\*|__|`|</?answer>|^\*(?=[^*]*\*$)|(?<=\w)\*$|^#{1,6} |^[^\w\s$\\({*_#-]+ "
)
_ALONE = re.compile(r"\*\*[^*]+\*\*|__[^_]+__|\*[^*]+\*|`[^`]+`|<answer>.+</answer>")
_MARK = r"(?:the )?(?:(?:final|correct) )?(?:answer|solution)|(?:最终|正确)?答案"
_MARK_ALONE = re.compile(rf"(?:{_MARK})(?: is)?\s*[:：]?", re.IGNORECASE)
_MARKED = re.compile(rf"(?:{_MARK})(?:(?: is)?\s*[:：=]\s*|(?<=答案)[是为]\s*)(.+)", re.IGNORECASE)
_VALUE_FIRST = re.compile(r"[^a-zA-Z]*\d|[^a-zA-Z]*\\[a-zA-Z]|[a-zA-Z]?[^a-zA-Z]*$")
MAX_WORDS_AFTER = 2


def _marked(text: str) -> str | None:
    """What a mark announces: `#### 12`, `Final Answer: 12`, or a whole text in bold, `**12**`.

    The mark may also have a line of its own before the last one. None where prose follows it.
    """
    lines = []
    for line in _POLITE.sub("", text).splitlines():
        if line.strip():
            lines.append(line.strip())
    if not lines:
        return None
    plain = [_EMPHASIS.sub("", line).strip() for line in lines[-2:]]
    heading = _HEADING.fullmatch(lines[-1])
    announced = _MARKED.fullmatch(plain[-1])
    if announced:
        value = announced[1]
    elif len(plain) == 2 and _MARK_ALONE.fullmatch(plain[0]):
        value = plain[1]
    elif heading:
        value = heading[1]
    elif len(lines) == 1 and _ALONE.fullmatch(lines[0]):
        value = plain[0]
    else:
        return None
    value = _EMPHASIS.sub("", value).strip()
    spelled = tidy(value)
    num_words = len(_WORD.findall(spelled))
    if num_words > MAX_WORDS_AFTER or not _VALUE_FIRST.match(spelled):
        return None
    return value


def _concluding_value(text: str, is_whole: bool = False) -> str | None:
    """The value of the last sentence, where it is finished and concludes.

    It is what the sentence `is` at its end, the only value in bold, or what is after the last
    equals sign. Of a whole text that is one sentence, finished or short: only what it `is`.
    """
    text = text.strip()
    bold = _BOLD.findall(text)
    text = text.replace("**", "")
    if is_whole and len(text) <= MAX_SHORT_CHARACTERS and not _END_OF_SENTENCE.search(text):
        text += "."
    ends = [match.end() for match in _END_OF_SENTENCE.finditer(text)]
    if not ends or ends[-1] != len(text):
        return None
    if is_whole and len(ends) > 1:
        return None
    # `So x = 2. The answer is 7.` ends at 9 and 26: the last sentence is from 9 on.
    start = ends[-2] if len(ends) > 1 else 0
    sentence = text[start:]
    if not is_whole and not _CONCLUDES.search(sentence):
        return None
    sentence = sentence.strip()[:-1]
    copula = _COPULA.match(sentence)
    if copula:
        value = copula[1]
        if re.search(r"\d|[$\\]", value) and not _WORD.search(tidy(value)):
            return value
    if is_whole:
        return None
    places = [sentence.rpartition("=")[2]]
    if bold and bold[-1] in sentence:
        places.insert(0, bold[-1])
    for place in places:
        values = {_only_group(match).strip() for match in _VALUE.findall(place)}
        if len(values) == 1:
            return values.pop()
    return None
