r"""One spelling for what answers write in many: glyphs, spaces, sizes, commands, text in formulas
(check kind `math`).
"""

import functools
import re
import unicodedata

from .lists import closing_bracket
from .looks import without_alignment, without_looks
from .notation import as_latex
from .units import ONLY_IN_TEXT
from .wording import number_set, with_numerals, without_announcement

_GLYPHS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "÷": "/", "∕": "/",
    "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "°": r"^{\circ}", "∅": r"\emptyset ",
    "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\varphi ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "√": r"\sqrt", "，": ",", "；": ";", "（": "(", "）": ")", "＝": "=", "＜": "<", "＞": ">",
    "：": ":",
    "…": r"\ldots ",
    "′": "'", "∘": r"\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "￥": "",
    "或": " or ", "和": " and ", "与": " and ", "及": " and ", "、": ", ", "،": ",", "؛": ";",
    "٫": ".",
    "٬": ",", "“": '"', "”": '"',
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "Ω": r"\Omega ", "″": "''",
    "’": "'", "≡": r"\equiv ", "∉": r"\notin ",
    "¥": "", "€": "", "£": "", "∖": r"\setminus ", "∀": r"\forall ", "∃": r"\exists ",
}  # fmt: skip

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")

_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞])")

_CIRCLED = re.compile("[①-⑳]+")

_MANGLED = re.compile(
    r"\t(?=imes|heta|an(?![a-z])|riangle|frac)|\f(?=rac)|\x08(?=eta|egin|inom|oxed|ar|mod)|\r"
    r"(?=ight|ho|m\b)|\n(?=eq|otin)"
)
"""Control characters that stand for a backslash and a letter: what unescaping once too often leaves
of `\\times`, `\\frac`.
"""

_UNMANGLED = {"\t": r"\t", "\f": r"\f", "\x08": r"\b", "\r": r"\r", "\n": r"\n"}

_QUANTIFIED = re.compile(
    r"(?<=\S),? (?:for|where) (?:all|any|every|each|some)(?![a-zA-Z]).*?(?=$|,? (?:and"
    r"|or) [a-zA-Z(\\][^,;]*=)",
    re.DOTALL,
)
"""`for all x \\in ...`, up to the next part of a list."""

_SPACING = re.compile(
    r"(?<!\\)\\[,;:! ]|\\(?:quad|qquad|displaystyle|limits|nolimits|hfill|thinspace|medspace"
    r"|enspace)(?![a-zA-Z])"
    r"|~|\u2009|\u00a0|\u202f"
)

_SIZES = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|bigl|bigr|Bigl|Bigr)(?![a-zA-Z])\s*\.?")

_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox"
    r"|operatorname|boldsymbol|bf|rm)\*?\s*\{([^{}]*)\}"
)

_UNIT_IN_TEXT = re.compile(
    rf"([\d}})] ?)(?:\\[,;: ]|~)* ?\\(?:text|mathrm|textrm|rm|operatorname) ?\{{[ ~]*"
    rf"({'|'.join(ONLY_IN_TEXT)}) ?\}}"
    r"(?= *(?:$|[.,;)^/]|\\cdot))"
)
_IN_TEXT = r"\{ ?\\(?:text|mathrm) ?\{([^{}]+)\} ?\}"
_UNIT_AS_FRACTION = re.compile(rf"(?<=[\d}} ])\\[dt]?frac ?{_IN_TEXT} ?{_IN_TEXT}(?= *$)")
MAX_NESTED_TEXT = 3

_ROOT_OF_DEGREE = re.compile("([²³⁴])√ ?(\\w)")
_ROOT = re.compile(r"√ ?(\d+(?:\.\d+)?|[a-z])")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀-₉]+")


def _primes(match: re.Match[str]) -> str:
    return "'" * match[1].count("prime")


_ALIASES = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\neq?(?![a-zA-Z]) *|(?<=\s)!= *"), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\langle(?![a-zA-Z]) ?"), "("),
    (re.compile(r" ?\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\^ ?\{? ?((?:\\prime ?)+)\}?"), _primes),
    (re.compile(r"\\prime(?![a-zA-Z])"), "'"),
    (re.compile(r"\\?(?<![a-zA-Z])log ?_ ?\{? ?e ?\}?(?![a-zA-Z])"), r"\\ln "),
    (re.compile(r"\\lg(?![a-zA-Z])"), r"\\log_{10}"),
    (re.compile(r"\\\{ ?\\\}"), r"\\emptyset "),
    (re.compile(r"\\[dt]binom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\\binom ?(\d) ?(\d)"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<=[\d}]) ?\\angle ?(?=[\d({\\-])"), r" \\cis "),
    (re.compile(r"\\([RZNQ])(?![a-zA-Z])"), r"\\mathbb{\1}"),
    (
        re.compile(r"(\\mathbb ?\{? ?R ?\}?) ?(?:-|\\backslash|\\smallsetminus) ?(?=\\\{)"),
        r"\1 \\setminus ",
    ),
    (re.compile(r"\{ ?: ?\}|\\colon(?![a-zA-Z]) ?"), ":"),
    (re.compile(r"(?<![a-zA-Z])(?:oder|ou)(?![a-zA-Z])(?= ?[\d\\a-z-])"), " or "),
    (re.compile(r"(?<=[\d})] )(?:und|et)(?= [\d\\a-z-])"), "and"),
    (
        re.compile(r"(?<![a-zA-Z\\])\(? ?([0-9A-Z]+) ?\)? \(?(?:in )?base[- ]\{?(\w+)\}?\)?"),
        r"\1_{\2}",
    ),
    (re.compile(r"(?<![a-zA-Z\\])cis(?![a-zA-Z])"), r"\\cis "),
    (re.compile(r"\\(?:lbrace)(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:dots|cdots|dotsc|dotsb)(?![a-zA-Z])|\.\.\.+"), r"\\ldots "),
    (
        re.compile(r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-zA-Z]))"),
        r"^{\\circ}",
    ),
    (re.compile(r"\\degree(?![a-zA-Z])|\s*\bdegrees?\b"), r"^{\\circ}"),
    (re.compile(r"\\(?:varnothing|empty)(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"<sup>(.*?)</sup>"), r"^{\1}"),
    (re.compile(r"<sub>(.*?)</sub>"), r"_{\1}"),
    (re.compile(r"\\(?:text|mathrm)\s*(?=[a-zA-Z])"), ""),
    (re.compile(r"\\(?:%)"), "%"),
    (re.compile(r"(?<=[\d})]) ?(?:per ?cent(?:age)?|pct)s?\.?(?![a-zA-Z])"), "%"),
    (re.compile(r"(?<=[\d)}\]])(and|or)(?=[\d(\[\\A-Z-])"), r" \1 "),
    (re.compile(r"(?<=[)}])\.(?=\s*[)\]])"), ""),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r"(\d) ?\^? ?\{? ?(?:th|st|nd|rd)(?![a-zA-Z])(?: ?\})?"), r"\1"),
    (
        re.compile(
            r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|sqrt)(?![a-zA-Z])"
        ),
        r"\\\1",
    ),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac ?\{[^{}]*\}) ?([a-zA-Z0-9])"), r"\1{\2}"),
    (re.compile(r"\\frac +([a-zA-Z]) ?([a-zA-Z])(?![a-zA-Z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac ?(\\(?:pi|theta|alpha|beta)) ?(\d|[a-z](?![a-z]))"), r"\\frac{\1}{\2}"),
    (re.compile(r"(\\frac ?\{[^{}]*\}) ?\\pi(?![a-zA-Z])"), r"\1{\\pi}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt +([a-zA-Z])(?![a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
)


@functools.lru_cache(maxsize=512)  # a question's gold is compared with many answers
def tidy(text: str) -> str:
    r"""One spelling for what is written in many: glyphs, spaces, looks, plain notation, words
    around a value.

    `\text{The answer is } \dfrac{1}2 \, \text{cm}` becomes `\frac{1}{2} cm`.
    """
    text = _MANGLED.sub(lambda match: _UNMANGLED[match[0]], text).rstrip("\\^ \n")
    text = _with_ascii_glyphs(text)
    text = _unescaped(text)
    text = without_looks(text)
    if re.match(r"\s*\\[(\[]", text):
        text = re.sub(r"\\[()\[\]]", " ", text)
    text = _SIZES.sub("", re.sub(r"\\\$|\$", "", text))
    text = without_alignment(text)
    if r"\begin" not in text:
        text = text.replace("&", " and ")
    text = _without_text_commands(text)
    text = re.sub(r"(?<!\\)\\! ?", "", text)
    text = re.sub(r"(?<=\d)\\[,! ](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\s+", " ", _SPACING.sub(" ", text)).strip()  # the patterns below need one space
    text = number_set(with_numerals(without_announcement(text)))
    text = as_latex(text)
    for pattern, replacement in _ALIASES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<=[^.])[.,;:]$", "", text).strip()
    text = _QUANTIFIED.sub("", text)
    while text.startswith("{") and closing_bracket(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _with_ascii_glyphs(text: str) -> str:
    """Signs that are not ASCII as LaTeX or ASCII: `x² ≤ ½`, `①`, `१२`, `2或3`."""
    if text.isascii():
        return text
    text = _CIRCLED.sub(lambda match: ", ".join(str(ord(sign) - 0x245F) for sign in match[0]), text)
    text = _ROOT_OF_DEGREE.sub(_root, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    for glyph, command in _GLYPHS.items():
        if glyph in text:
            text = text.replace(glyph, command)
    text = _RAISED.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(map(_ascii_digit, text))


def _ascii_digit(sign: str) -> str:
    return str(unicodedata.decimal(sign)) if sign.isdecimal() else sign


def _root(match: re.Match[str]) -> str:
    return rf"\sqrt[{match[1].translate(_SUPERSCRIPTS)}]{{{match[2]}}}"


def _unescaped(text: str) -> str:
    r"""One backslash before commands, also where a text was escaped twice."""
    if r"\\begin" in text:
        return text.replace(r"\\", "\\")
    if r"\begin" in text:
        return text  # two backslashes end a row
    text = re.sub(r"\\\\ ?(?=[a-zA-Z](?![a-zA-Z]))", ", ", text)  # a row `x = 1 \\ y = 2`
    return re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)


def _without_text_commands(text: str) -> str:
    r"""`\text{ cm}` as ` cm `.

    A letter that is a unit only in text stays marked: `9\text{ J}` is `9 \unit{J}`.
    """
    text = re.sub(r"\\mathbf ?\{ ?([RZNQ]) ?\}", r"\\mathbb{\1}", text)
    text = _UNIT_AS_FRACTION.sub(r" \1/\2 ", text)
    text = _UNIT_IN_TEXT.sub(r"\1 \\unit{\2} ", text)
    for _ in range(MAX_NESTED_TEXT):
        text = _TEXT.sub(r" \1 ", text)
    return text


def _vulgar(match: re.Match) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[2]).partition("⁄")
    return (
        f"{match[1]}\\frac{{{numerator}}}{{{denominator}}}"
        if numerator and denominator
        else match[0]
    )


def squeezed(text: str) -> str:
    """The text without white space and without braces around one sign, for comparing spellings."""
    text = re.sub(r"\s+", "", text)
    return re.sub(r"\{(\w)\}", r"\1", text)
