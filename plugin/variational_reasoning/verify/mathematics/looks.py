r"""Commands that change how an answer looks and not what it says: size, color, underlines,
environments (check kind `math`).

\color{red}{\large 840}                          840
\underline{\frac{1}{2}}                          \frac{1}{2}
\begin{aligned} x &= 1 \\ y &= 4 \end{aligned}   x = 1, y = 4
"""

import re

from .lists import closing_bracket

_SIZES = (
    "tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm|tt|sf|em|bfseries|itshape"
    "|displaystyle|textstyle|scriptstyle|centering|noindent|bold"
)
_SWITCH = re.compile(rf"\\(?:{_SIZES})(?![a-zA-Z]) ?")
"""Changes all that follows: `\\large 840`, `\\large{840}`."""

_OPTION = r"(?:\[[a-zA-Z]*\])? ?"
_COLOR_NAME = r"\{[a-zA-Z0-9!,.# ]*\}"
_COLORED = re.compile(
    rf"\\(?:color{_OPTION}{_COLOR_NAME}|textcolor{_OPTION}{_COLOR_NAME}|colorbox{_COLOR_NAME}"
    rf"|fcolorbox{_COLOR_NAME}{_COLOR_NAME}) ?"
)
_WRAPPER = re.compile(
    r"\\(?:underline|underbar|uline|uuline|bm|pmb|ensuremath|emph|mathstrut|fbox|boxed|framebox"
    r"|mathord|mathop|mathrel|mathbin"
    r"|mathnormal|textup|textmd|textsl|textsc|textsf|texttt|smash|vcenter|hl) ?(?=\{)"
)
_SPACES = re.compile(
    r"\\(?:hspace|vspace|kern|hskip|mkern|phantom|hphantom|vphantom|tag|label)\*? ?(?:\{[^{}]*\}"
    r"|-?[\d.]+ ?(?:em|ex|pt|mu|cm|mm))"
)
_HTML = re.compile(r"</?(?:b|i|u|em|strong|span|font|mark|center|p|br)(?: [^<>]*)?/?>")
_MARKDOWN = re.compile(r"(\*\*|__)([^*_].*[^*_]|[^*_])\1")

_ALIGNED = re.compile(
    r"\\begin\{(aligned|align|alignedat|gathered|gather|split|equation|eqnarray|array|cases"
    r"|dcases|rcases)(\*?)\}"
    r"(?:\{[^{}]*\})?(.+?)\\end\{\1\2\}",
    re.DOTALL,
)
_BRACE_OF_A_SYSTEM = re.compile(r"\\\{ ?(?=\\begin\{(?:array|aligned|alignedat|gathered|cases)\})")
_ROW = re.compile(r"\s*\\\\(?:\[[^\[\]]*\])?\s*")


def without_looks(text: str) -> str:
    """The text without commands, tags and marks for its looks."""
    text = _HTML.sub("", text)
    if match := _MARKDOWN.fullmatch(text.strip()):
        text = match[2]
    if "\\" not in text:
        return text
    text = _SPACES.sub(" ", text)
    text = _unwrapped(text, _COLORED)
    text = _unwrapped(text, _WRAPPER)
    return _SWITCH.sub("", text)


def _unwrapped(text: str, command: re.Pattern[str]) -> str:
    r"""The text without a command and the braces of its argument, if it has one.

    `2\underline{3}` becomes `2{3}`: braces stay where a digit before or after would join the
    content.
    """
    position = 0
    while match := command.search(text, position):
        start, after = match.start(), match.end()
        position = start
        if not text.startswith("{", after):
            text = text[:start] + text[after:]
            continue
        stop = closing_bracket(text, after)
        if stop is None:
            text = text[:start] + text[after:]
            continue
        is_apart = not re.search(r"[\w}^_] ?$", text[:start])
        is_apart = is_apart and not re.match(r" ?[\w{^]", text[stop + 1 :])
        inner = text[after + 1 : stop] if is_apart else text[after : stop + 1]
        text = text[:start] + inner + text[stop + 1 :]
    return text


def without_alignment(text: str) -> str:
    r"""Rows of equations as a list, `x &= 3 + 4 \\ &= 7` as one chain.

    Functions in pieces, matrices and vectors stay as they are.
    """
    text = _BRACE_OF_A_SYSTEM.sub("", text)
    return _ALIGNED.sub(_rows, text)


def _rows(match: re.Match[str]) -> str:
    name, rows = match[1], [row for row in _ROW.split(match[3]) if row.strip()]
    if name in ("array", "cases", "dcases", "rcases"):
        if not all(re.fullmatch(r"[^=]+=[^=]+", row) for row in rows):
            return match[0]  # values with conditions, or a matrix
        if any("&" in row and not re.search(r"& ?=|= ?&", row) for row in rows):
            return match[0]
    chained = ""
    for row in rows:
        row = row.replace("&", " ").strip().rstrip(" ,.;")
        if not chained:
            chained = row
        elif row.startswith(("=", r"\implies", r"\Rightarrow")):
            chained += f" {row}"
        else:
            chained += f", {row}"
    return chained
