r"""Notation of calculators and programs as LaTeX (check kind `math`). Nothing is evaluated.

2*sqrt(11)      2\cdot \sqrt{11}
x**(n+1)        x^{n+1}
exp(-x)         e^{-x}
1e3             1 \times 10^{3}
C(9,4), 9C4     \binom{9}{4}
]1, 5[          (1, 5)
"""

import re

from .lists import closing_bracket

_GREEK = "alpha|beta|gamma|delta|theta|lambda|mu|phi|varphi|omega|sigma|infty"
_NAMES = (
    (re.compile(r"(?<![\\a-zA-Z])[pP]i(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![\\a-zA-Z])sqrt ?(\d+(?:\.\d+)?|[a-z](?![a-zA-Z]))"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-zA-Z])log(2|10)(?= ?\()"), r"\\log_{\1}"),
    (re.compile(rf"(?<![\\a-zA-Z])({_GREEK})(?![a-zA-Z])"), r"\\\1 "),
    (
        re.compile(
            r"(?<![\\a-zA-Z])(?:inf|oo|Inf|[iI]nfinity)(?![a-zA-Z])(?=[\]),; ]*$|[\]),]| ?\\cup)"
        ),
        r"\\infty ",
    ),
    (re.compile(r"(?<![\\a-zA-Z])choose(?![a-zA-Z])"), r"\\choose "),
)
_TEN_TO_THE = re.compile(
    r"(?<![\w.\\])(-?\d+(?:\.\d+)?|-?\.\d+)[eE]([+-]?)0*(\d{1,3})(?![\w.])", re.ASCII
)
_INVERSE = re.compile(r"(?<![\\a-zA-Z])a(sin|cos|tan)(?![a-zA-Z])")
_STAR = re.compile(r"(?<=[\w)}\]!]) ?\*(?!\*) ?(?=[\w(\\{-])")
_FUNCTION = re.compile(r"\\?(?<![a-zA-Z])(sqrt|cbrt|exp|abs|binom|floor|ceil) ?(?=[({])")
_POWER = re.compile(r"\^ ?(?=\()")

_INTEGER = r"\d{1,5}"
_ITEM = rf"(?:{_INTEGER}|\d{{0,2}}[a-z](?: ?[+-] ?\d)?)"
_CHOOSE = re.compile(r"\{? ?([^{}\\]{1,20}) ?\\choose ?([^{}\\]{1,20}?) ?\}?(?=$|[^\w])")
_BINOMIALS = (
    # C_9^4, C_{9}^{4}, \mathrm{C}_9^4
    re.compile(rf"(?<![a-zA-Z\\])C ?_ ?\{{? ?({_ITEM}) ?\}}? ?\^ ?\{{? ?({_ITEM}) ?\}}?(?!\w)"),
    # C^4_9, the same in the other order, is told from the first by its names below
    re.compile(
        rf"(?<![a-zA-Z\\])C ?\^ ?\{{? ?(?P<k>{_INTEGER}) ?\}}? ?_ ?\{{? ?(?P<n>{_INTEGER}) ?\}}?"
        rf"(?!\w)"
    ),
    # {}_9C_4, {}^9C_4, _{9}C_{4}
    re.compile(rf"(?:\{{ ?\}} ?)?[_^] ?\{{? ?({_ITEM}) ?\}}? ?C ?_ ?\{{? ?({_ITEM}) ?\}}?(?!\w)"),
    # 9C4
    re.compile(rf"(?<![\w.])({_INTEGER}) ?C ?({_INTEGER})(?!\w)"),
)
_CALLED = re.compile(rf"(?<![a-zA-Z\\])(C|P|nCr|nPr) ?\( ?({_ITEM}) ?, ?({_ITEM}) ?\)")

_OUTWARD = r"[^\[\]()]*?[,;][^\[\]()]*?"
_TURNED = (
    (re.compile(rf"\]({_OUTWARD})\["), r"(\1)"),
    (re.compile(rf"\]({_OUTWARD})\]"), r"(\1]"),
    (re.compile(rf"\[({_OUTWARD})\["), r"[\1)"),
)


def as_latex(text: str) -> str:
    """The text with what only calculators write spelled as LaTeX does."""
    text = text.replace("**", "^")
    text = _TEN_TO_THE.sub(_scientific, text)
    for pattern, replacement in _NAMES:
        text = pattern.sub(replacement, text)
    text = _INVERSE.sub(r"arc\1", text)
    text = _functions(text)
    text = _powers(text)
    text = _binomials(text)
    return _turned_brackets(_STAR.sub(r" \\cdot ", text))


def _scientific(match: re.Match[str]) -> str:
    sign = "-" if match[2] == "-" else ""
    return rf"{match[1]} \times 10^{{{sign}{match[3]}}}"


def _functions(text: str) -> str:
    r"""`sqrt((x+1)/2)` as `\sqrt{(x+1)/2}`, and the like."""
    position = 0
    while match := _FUNCTION.search(text, position):
        position = match.end()
        stop = closing_bracket(text, match.end())
        if stop is None:
            continue
        name, inner = match[1], text[match.end() + 1 : stop]
        if name == "binom" and text[match.end()] == "(" and inner.count(",") == 1:
            total, _, chosen = inner.partition(",")
            latex = rf"\binom{{{total.strip()}}}{{{chosen.strip()}}}"
        elif name == "binom":
            continue
        elif name == "cbrt":
            latex = rf"\sqrt[3]{{{inner}}}"
        elif name == "exp":
            latex = f"e^{{{inner}}}"
        elif name == "abs":
            latex = f"|{inner}|"
        elif name in ("floor", "ceil"):
            latex = rf"\l{name} {inner} \r{name}"
        else:
            latex = rf"\sqrt{{{inner}}}"
        text = text[: match.start()] + latex + text[stop + 1 :]
        # The content may hold another call: it is looked for from the start of this one.
        position = match.start() + (5 if name in ("sqrt", "cbrt", "binom") else 1)
    return text


def _powers(text: str) -> str:
    """`x^(n+1)` as `x^{n+1}`."""
    position = 0
    while match := _POWER.search(text, position):
        position = match.end()
        stop = closing_bracket(text, match.end())
        if stop is not None and text[stop] == ")":
            text = f"{text[: match.start()]}^{{{text[match.end() + 1 : stop]}}}{text[stop + 1 :]}"
    return text


def _binomials(text: str) -> str:
    if r"\choose" in text:
        text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    if "C" not in text:
        return text
    for pattern in _BINOMIALS:
        text = pattern.sub(_binomial, text)
    return text


def _binomial(match: re.Match[str]) -> str:
    groups = match.groupdict()
    total, chosen = (groups["n"], groups["k"]) if groups else (match[1], match[2])
    if total.isdigit() and chosen.isdigit() and int(chosen) > int(total):
        return match[0]
    return rf"\binom{{{total}}}{{{chosen}}}"


def counts(text: str) -> str:
    r"""`C(9,4)` as `\binom{9}{4}` and `P(9,4)` as `\frac{9!}{(9-4)!}`.

    A name and a pair may also be a point.
    """

    def spelled(match: re.Match[str]) -> str:
        name, total, chosen = match[1], match[2], match[3]
        if total.isdigit() and chosen.isdigit() and int(chosen) > int(total):
            return match[0]
        if name in ("C", "nCr"):
            return rf"\binom{{{total}}}{{{chosen}}}"
        return rf"\frac{{{total}!}}{{({total}-{chosen})!}}"

    return _CALLED.sub(spelled, text)


def _turned_brackets(text: str) -> str:
    """`]1, 5[` as `(1, 5)`, where the brackets do not match as they are."""
    if not re.search(r"[\[\]]", text) or _are_balanced(text):
        return text
    for pattern, replacement in _TURNED:
        text = pattern.sub(replacement, text)
    return text


def _are_balanced(text: str) -> bool:
    depth = 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if depth < 0:
            return False
    return depth == 0
