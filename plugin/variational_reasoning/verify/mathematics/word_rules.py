r"""Plain rules for answers in words: options, names, words that stand for a value (check kind
`math`).
"""

import re

from .forms import choice, choices, is_words, words
from .matching import Same
from .numbers import rational
from .spelling import squeezed
from .wording import number_in_words

_LETTER_OF_OPTION = re.compile(r"(?<![a-zA-Z])[A-J](?![a-zA-Z])")


def options(gold: str, answer: str, same: Same) -> bool | None:
    """Letters of options; only whole answers are read so, since a part of one may be a name."""
    several = [choices(text) for text in (gold, answer)]
    if all(several):
        return several[0] == several[1]
    want, found = choice(gold), choice(answer)
    if want is None:
        named = re.match("([A-J]) [A-Z][a-z]+", gold)  # `C Cecile`
        return True if named and found == (named[1], "") else None
    if found is None:
        return _option_and_text(want, answer, same)
    if found[0] != want[0]:
        return False
    if want[1] and found[1]:
        return same(want[1], found[1])
    return not _names_another_option(answer, found[1])


def _option_and_text(want: tuple[str, str], answer: str, same: Same) -> bool | None:
    """A gold such as `(B) 12` or `B`, and an answer that is not a letter."""
    letter, content = want
    if content:
        return same(content, answer)
    if re.fullmatch("[a-j]", answer):
        return answer.upper() == letter
    if _LETTER_OF_OPTION.search(answer) or re.search(r"\d", answer):
        return False
    return None


def _names_another_option(answer: str, content: str) -> bool:
    """`A and C`, `A, C`; `(B) 12 C` after a marked letter is content."""
    starts_marked = re.match(r"\(? ?[A-J] ?[.:)]", answer)
    if starts_marked and not re.match(r"(?:and|or)\b", content):
        return bool(re.search(r"(?<![a-zA-Z])[A-J][.:)]", content))
    return bool(re.search(r"(?<![a-zA-Z])(?:and|or|,)? ?\(?[A-J]\)?(?![a-zA-Z.])", content))


def language(gold: str, answer: str, same: Same) -> bool | None:
    """The same words, and words that stand for a value: `five` and `5`, `no solution` and
    `\\emptyset`.
    """
    if _are_the_same_words(gold, answer):
        return True
    meanings = [_meaning(gold), _meaning(answer)]
    if any(meanings):
        spelled = [meaning or text for meaning, text in zip(meanings, (gold, answer), strict=True)]
        if spelled != [gold, answer]:
            return squeezed(spelled[0]) == squeezed(spelled[1]) or same(spelled[0], spelled[1])
    has_several = re.search(r"[,;]|(?<![a-z])(?:and|or)(?![a-z])", gold)
    if is_words(gold) and is_words(answer) and not has_several:
        return words(gold) == words(answer) or _is_same_date(gold, answer)
    if _is_same_date(gold, answer):
        return True
    return False if is_words(gold) and rational(answer) is not None else None


def _are_the_same_words(gold: str, answer: str) -> bool:
    if "\\" in gold + answer or not re.search("[a-zA-Z]{3}", gold):
        return False
    if not words(gold) or words(gold) != words(answer):
        return False
    plain = re.compile(r"[\w\s.'\"!?-]+")
    is_plain = plain.fullmatch(gold) and plain.fullmatch(answer)
    return bool(is_plain) and not re.search("[-.]", gold + answer)


_MEANINGS = {
    "infinitely many": r"\infty",
    "infinitely many solutions": r"\infty",
    "infinite": r"\infty",
    "infinite solutions": r"\infty",
    "infinity": r"\infty",
    "no solution": r"\emptyset",
    "empty set": r"\emptyset",
    "no real solution": "no real solution",
    "dne": "does not exist",
    "limit does not exist": "does not exist",
    "it does not exist": "does not exist",
    "无解": r"\emptyset",
    "无实数解": "no real solution",
    "无穷多": r"\infty",
    "不存在": "does not exist",
}
"""Words that stand for a value, as `words` and `_ABSENCE` leave them."""

_ABSENCE = re.compile(
    r"(?:there |(?:equation|system|inequality|problem|it) (?:has|have) )?no (real )?(?:solution"
    r"|root)s?(?: exists?)?"
)
"""`There are no real solutions`, without articles and forms of be."""


def _meaning(text: str) -> str | None:
    """The value that words stand for, None where they stand for none."""
    said = words(text)
    if not said:
        return None
    if absence := _ABSENCE.fullmatch(said):
        said = f"no {absence[1] or ''}solution"
    if said.startswith("there infinitely"):
        said = said.removeprefix("there ")
    if meaning := _MEANINGS.get(said):
        return meaning
    number = number_in_words(said)
    return None if number is None else str(number)


_MONTHS = "january february march april may june july august september october november december"
_MONTH = rf"({'|'.join(_MONTHS.split())})"
_DATE = re.compile(
    rf"(?:{_MONTH} (\d{{1,2}})|(\d{{1,2}}) (?:of )?{_MONTH})(?: (\d{{4}}))?", re.ASCII
)


def _is_same_date(gold: str, answer: str) -> bool:
    """`March 14` and `14 March`."""
    dates = []
    for text in (gold, answer):
        match = _DATE.fullmatch(words(text))
        if not match:
            return False
        dates.append((match[1] or match[4], int(match[2] or match[3]), match[5]))
    return dates[0] == dates[1]
