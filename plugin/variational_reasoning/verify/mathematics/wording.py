r"""Phrases around and instead of values: announcements, numbers in words, names of number sets
(check kind `math`).

The answer is 840        840
5 million dollars        5 \times 10^{6} dollars
all reals except 2       \mathbb{R} \setminus \{2\}
"""

import re

_ANNOUNCEMENT = re.compile(
    r"(?:\\(?:therefore|implies|Rightarrow) ?|(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:"
    r"(?:final|correct|right) )?"
    r"(?:answer|ans|result)(?: is)? ?[:=]? ?(?=[^\s:=])|(?:option|choice)s?:? (?=\(?[A-J]\)?(?:$"
    r"|[ .:,)]))"
    r"|(?:最终|正确)?答案(?:是|为)?[:：]? ?|(?:故|应)?选(?:项|择)? ?[:：]? ?(?=\(?[A-J]))",
    re.IGNORECASE,
)


def without_announcement(text: str) -> str:
    """The text after `The answer is`, `Option`, `答案是` at its start."""
    for _ in range(2):  # `The answer is option B`
        match = _ANNOUNCEMENT.match(text)
        if not match or match.end() == len(text):
            return text
        rest = text[match.end() :].strip()
        is_clause = match[0].strip().lower() in ("answer", "the answer", "ans", "result")
        if is_clause and not re.match(r"[\d\\$(-]", rest):
            return text  # `answer key` announces nothing
        text = rest
    return text


_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {name: value for value, name in enumerate(_ONES)}
_SMALL |= {name: 10 * value for value, name in enumerate(_TENS, 2)}
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_NUMBER_WORD = "|".join([*_SMALL, "hundred", *_SCALES])
_NUMBER_WORDS = re.compile(rf"(?:{_NUMBER_WORD})(?:(?: and)? (?:{_NUMBER_WORD}))*")


def number_in_words(text: str) -> int | None:
    """`two hundred thirty six` as 236; None for anything else, such as `three six`.

    `two thousand one hundred five` is read word by word. A group is what comes before a scale:

        word       total   group   below   the next small word must be less than `below`
        two            0       2       0
        thousand    2000       0    1000
        one         2000       1       0
        hundred     2000     100     100
        five        2000     105       0

    Args:
        text: lower case, without hyphens.
    """
    if not _NUMBER_WORDS.fullmatch(text):
        return None
    total = 0
    group = 0
    below = 1000
    scale = max(_SCALES.values()) + 1
    for word in text.replace(" and ", " ").split():
        if word in _SCALES:
            if not group or _SCALES[word] >= scale:
                return None  # each scale must be smaller than the one before
            scale = _SCALES[word]
            total += group * 10**scale
            group = 0
            below = 1000
        elif word == "hundred":
            if not 0 < group < 10:
                return None
            group *= 100
            below = 100
        else:
            value = _SMALL[word]
            if value >= below or (value == 0 and text != "zero"):
                return None
            group += value
            # One to nine may follow `thirty`; nothing may follow `one`.
            below = 10 if value >= 20 else 0
    return total + group


_SCALED = re.compile(
    r"(?<=[\d}]) ?(hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?(?: of)?"
    r"(?![a-zA-Z])",
    re.IGNORECASE,
)
_SPELLED_AND_SCALED = re.compile(
    rf"(?i:({'|'.join(_SMALL)})) (?=(?:thousand|million|billion|trillion)(?![a-zA-Z]))"
)
_POWERS_OF_TEN = {"hundred": 2, "lakh": 5, "crore": 7} | _SCALES
_HAN_SCALED = re.compile(r"(?<=\d) ?([百千万亿]+)")
_HAN_POWERS = {"百": 2, "千": 3, "万": 4, "亿": 8}


def with_numerals(text: str) -> str:
    r"""`5 million` as `5 \times 10^{6}`, `3 dozen` as `3 \cdot 12`, `5万` as `5 \times 10^{4}`."""

    def scaled(match: re.Match[str]) -> str:
        word = match[1].lower()
        if word == "dozen":
            return r" \cdot 12"
        return rf" \times 10^{{{_POWERS_OF_TEN[word]}}}"

    def scaled_in_han(match: re.Match[str]) -> str:
        power = sum(_HAN_POWERS[sign] for sign in match[1])
        return rf" \times 10^{{{power}}}"

    text = _SPELLED_AND_SCALED.sub(lambda match: f"{_SMALL[match[1].lower()]} ", text)
    text = _HAN_SCALED.sub(scaled_in_han, text)
    return _SCALED.sub(scaled, text)


_REALS = re.compile(
    r"(?:the )?(?:set of )?(?:all|any|every) (?:(positive|negative|nonnegative|non-negative"
    r"|nonzero|non-zero) )?real"
    r"(?: numbers?| values?(?: of [a-z])?|s)?(?: [a-z](?= ?$| \\ne| except))?"
    r"(?:(?: except(?: for)?| other than|,? but not| with| such that)? (?:[a-z] )?(?:\\ne ?)?"
    r"(?P<but>-?[\d./\\{}a-z]+))?",
    re.IGNORECASE,
)
_INTEGERS = re.compile(
    r"(?:the )?(?:set of )?(?:all|any|every) integers?(?: [a-z])?", re.IGNORECASE
)
_PART_OF_THE_REALS = {
    "positive": r"(0, \infty)",
    "negative": r"(-\infty, 0)",
    "nonnegative": r"[0, \infty)",
    "nonzero": r"(-\infty, 0) \cup (0, \infty)",
}


def number_set(text: str) -> str:
    r"""`all real numbers except 2` as `\mathbb{R} \setminus \{2\}`; any other text as it is."""
    if text in ("全体实数", "一切实数", "所有实数"):
        return r"\mathbb{R}"
    if _INTEGERS.fullmatch(text):
        return r"\mathbb{Z}"
    match = _REALS.fullmatch(text)
    if not match:
        return text
    kind, but = match[1], match["but"]
    if kind:
        part = _PART_OF_THE_REALS[kind.lower().replace("-", "")]
        return text if but else part
    return rf"\mathbb{{R}} \setminus \{{{but}\}}" if but else r"\mathbb{R}"
