r"""One spelling for what answers write in many: glyphs, spaces, sizes, commands, text in formulas (check kind `math`)."""

import re
import unicodedata

from .lists import closing_bracket

_GLYPHS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/",
    "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "°": r"^{\circ}", "∅": r"\emptyset ", "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\varphi ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "√": r"\sqrt", "，": ",", "；": ";", "（": "(", "）": ")", "＝": "=", "＜": "<", "＞": ">", "：": ":", "…": r"\ldots ",
    "′": "'", "∘": r"\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "￥": "",
    "¥": "", "€": "", "£": "", "∖": r"\setminus ", "∀": r"\forall ", "∃": r"\exists ",
}  # fmt: skip

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")

_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞])")

_CIRCLED = re.compile("[①-⑳]+")

_MANGLED = re.compile(
    r"\t(?=imes|heta|an(?![a-z])|riangle|frac)|\f(?=rac)|\x08(?=eta|egin|inom|oxed|ar|mod)|\r(?=ight|ho|m\b)|\n(?=eq|otin)"
)
"""Control characters that stand for a backslash and a letter: what unescaping once too often leaves of `\\times`, `\\frac`."""

_UNMANGLED = {"\t": r"\t", "\f": r"\f", "\x08": r"\b", "\r": r"\r", "\n": r"\n"}

_QUANTIFIED = re.compile(
    r"(?<=\S),? (?:for|where) (?:all|any|every|each|some)(?![a-zA-Z]).*?(?=$|,? (?:and|or) [a-zA-Z(\\][^,;]*=)",
    re.DOTALL,
)
"""`for all x \\in ...`, up to the next part of a list."""

_SYSTEM = re.compile(
    r"\\begin\{(cases|aligned|gathered)\}([^&]+?)(?:\\\\\s*)?\\end\{\1\}", re.DOTALL
)
"""Equations one below the other."""

_SPACING = re.compile(
    r"(?<!\\)\\[,;:! ]|\\(?:quad|qquad|displaystyle|limits|nolimits|hfill|thinspace|medspace|enspace)(?![a-zA-Z])"
    r"|~|\u2009|\u00a0|\u202f"
)

_SIZES = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|bigl|bigr|Bigl|Bigr)(?![a-zA-Z])\s*\.?")

_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|boldsymbol|bf|rm)\*?\s*\{([^{}]*)\}"
)

_ALIASES = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\neq?(?![a-zA-Z]) *|(?<=\s)!= *"), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\langle(?![a-zA-Z]) ?"), "("),
    (re.compile(r" ?\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"(?<=\d)(\.\d+)[eE]([+-]?\d{1,3})(?![\w.])"), r"\1 \\times 10^{\2}"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
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
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt +([a-zA-Z])(?![a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
)


def tidy(text: str) -> str:
    r"""One spelling for what is written in many: glyphs, spacing, sizes, `\dfrac`, text commands, dollar signs."""
    text = _MANGLED.sub(lambda match: _UNMANGLED[match[0]], text).rstrip("\\^ \n")
    text = _CIRCLED.sub(lambda match: ", ".join(str(ord(sign) - 0x245F) for sign in match[0]), text)
    text = re.sub(
        "([²³⁴])√ ?(\\w)",
        lambda match: rf"\sqrt[{match[1].translate(_SUPERSCRIPTS)}]{{{match[2]}}}",
        text,
    )
    for glyph, command in _GLYPHS.items():
        if glyph in text:
            text = text.replace(glyph, command)
    text = re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text
    )
    text = re.sub("[₀-₉]+", lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = unicodedata.normalize("NFKC", text)
    if r"\\begin" in text:
        text = text.replace(r"\\", "\\")  # escaped twice
    elif r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    text = re.sub(r"\\[()\[\]]", " ", text) if re.match(r"\s*\\[(\[]", text) else text
    text = _SYSTEM.sub(lambda match: re.sub(r" ?\\\\ ?", ", ", match[2]), text)
    text = re.sub(r"\\\$|\$", "", text)
    text = _SIZES.sub("", text)
    for _ in range(3):
        text = _TEXT.sub(r" \1 ", text)
    text = re.sub(r"(?<!\\)\\! ?", "", text)
    text = re.sub(r"(?<=\d)\\[,! ](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", " ", _SPACING.sub(" ", text))  # before patterns that look for white space
    for pattern, replacement in _ALIASES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"√\s*(\d+|[a-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<=[^.])[.,;:]$", "", text).strip()
    text = _QUANTIFIED.sub("", text)
    while text.startswith("{") and closing_bracket(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
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
