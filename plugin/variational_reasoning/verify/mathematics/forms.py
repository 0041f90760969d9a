r"""Answers read as plain forms: labeled values, intervals, choices, words (check kind `math`)."""

import re

from .lists import brackets, split_list

_SUBSCRIPT = r"_(?:\{[^{}]{1,20}\}|\\?[a-zA-Z]++|\d++)"

_LABEL = re.compile(
    rf"((?:[A-Z][A-Z0-9']*+|[a-z][0-9']*+)(?:{_SUBSCRIPT})*+'?(?:\((?:[a-zA-Z](?:, ?[a-zA-Z])*+"
    rf"|-?\d{{1,4}})\))?|\\[a-zA-Z]++(?:{_SUBSCRIPT})?"
    rf"|\((?:[a-zA-Z]|\\ell)(?:\([a-zA-Z]\))?(?:, ?(?:[a-zA-Z]|\\ell)(?:\([a-zA-Z]\))?)++ ?\)"
    rf"|\\angle ?[A-Z]++) ?= ?(.+)"
)
"""Possessive, because a text of many underscores must not be read in exponentially many ways."""


def label(text: str) -> tuple[str | None, str]:
    """(label, value) of `x = 5` and `(p, q) = (3, 2)`; (None, text) for anything else."""
    match = _LABEL.fullmatch(text)
    if match and "=" not in match[2] and not re.search(r"[<>]|\\le|\\ge", match[2]):
        return re.sub(r"[ {}]", "", match[1]), match[2].strip()
    if match := re.fullmatch(r"([a-zA-Z]{3,}) ?[:=] ?(.+)", text):
        return match[1].lower(), match[2].strip()
    return None, text


_RELATION = re.compile(r"\s*(\\le|\\ge|<|>)\s*")

_VARIABLE = re.compile(
    r"[a-zA-Z](?:_\{?\w\}?)?|\\(?:theta|alpha|beta|gamma|lambda|varphi|mu|phi)|[a-z]\([a-z]\)"
)
_MEMBER = re.compile(rf"^(?:{_VARIABLE.pattern}) ?\\in ?")
_BUILDER = re.compile(
    rf"\\\{{ ?(?:{_VARIABLE.pattern}) ?(?:\\in ?\\mathbb ?\{{R\}} ?)?(?:\||:|\\mid) ?(.+?) ?\\\}}"
)
_POINT = re.compile(rf"(?:{_VARIABLE.pattern}) ?= ?([^=<>]+)")
_UNION = re.compile(r"\s*(?:\\cup(?![a-zA-Z])|(?<![a-zA-Z])or(?![a-zA-Z])|\\lor|\bU\b)\s*")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}

Interval = tuple[str, str, str]
"""Brackets such as `[)`, low end, high end."""


def condition(text: str) -> str | None:
    r"""What is after the bar of `\{x \mid x > 2\}`, else None."""
    match = _BUILDER.fullmatch(text)
    return match[1] if match else None


def intervals(text: str) -> list[Interval] | None:
    r"""A union of intervals from `[a, b) \cup ...`, `x \in ...`, `a < x \le b`, `x > a`,
    `\mathbb{R}`; else None.
    """
    text = _MEMBER.sub("", text)
    text = condition(text) or text
    parts = [_MEMBER.sub("", part.strip().strip(",").strip()) for part in _UNION.split(text)]
    found = []
    for part in parts:
        interval = _point(part) if len(parts) > 1 else None
        interval = interval or _bracketed(part) or _related(part) or _half_line(part)
        if interval is None:
            return None
        kind, low, high = interval
        found.append((kind, _without_plus(low), _without_plus(high)))
    return found


def _without_plus(end: str) -> str:
    return re.sub(r"\s*\+\s*\\infty", r"\\infty", end)


_HALF_LINE = re.compile(
    r"\\mathbb ?\{? ?R ?\}?(?: ?[_^] ?\{? ?(?P<sign>[+-]|(?:>|<|\\ge|\\le) ?0) ?\}?)?"
)
_HALF_LINES = {
    "": ("()", r"-\infty", r"\infty"),
    "+": ("()", "0", r"\infty"),
    "-": ("()", r"-\infty", "0"),
    ">0": ("()", "0", r"\infty"),
    "<0": ("()", r"-\infty", "0"),
    r"\ge0": ("[)", "0", r"\infty"),
    r"\le0": ("(]", r"-\infty", "0"),
}


def _half_line(part: str) -> Interval | None:
    r"""`\mathbb{R}`, `\mathbb{R}^+`, `\mathbb{R}_{\ge 0}`."""
    match = _HALF_LINE.fullmatch(part)
    return _HALF_LINES[(match["sign"] or "").replace(" ", "")] if match else None


_PIECES = re.compile(
    r"(?:[a-zA-Z](?:\([a-z]\))? ?= ?)?\(? ?\\begin\{(?:d?cases|array)\}(?:\{[clr|@{}]+\})?"
    r"(.+?)\\end\{(?:d?cases|array)\} ?\)?"
)
_CONDITION_WORD = re.compile(r"^,? ?(?:if|for|when|where)? ?")
_OTHERWISE = re.compile(r"(?:otherwise|else)", re.IGNORECASE)
_COMPLEMENTS = {">": r"\le", "<": r"\ge", r"\ge": "<", r"\le": ">"}


def pieces(text: str) -> list[tuple[str, str]] | None:
    r"""(value, condition) of each row of a function in pieces, such as
    `\begin{cases} x & x \ge 0 \\ -x & x < 0 \end{cases}`; None for anything else.

    `otherwise` after `x \ge 0` is `x < 0`.
    """
    match = _PIECES.fullmatch(text)
    if not match:
        return None
    found = []
    for row in match[1].split(r"\\"):
        if not row.strip():
            continue
        cells = row.split("&")
        if len(cells) == 1 and (said := re.search(r", ?(?=(?:if|for|when|otherwise) ?)", row)):
            cells = [row[: said.start()], row[said.end() :]]
        if len(cells) != 2:
            return None
        value, condition_text = cells[0].strip(" ,"), cells[1].strip(" ,.;")
        found.append((value, _CONDITION_WORD.sub("", condition_text)))
    if len(found) < 2 or not any(_RELATION.search(said) for _, said in found):
        return None
    if len(found) == 2 and _OTHERWISE.fullmatch(found[1][1]):
        sides = _RELATION.split(found[0][1])
        if len(sides) == 3:
            left, relation, right = sides
            found[1] = (found[1][0], f"{left} {_COMPLEMENTS[relation]} {right}")
    return found


def _point(part: str) -> Interval | None:
    """`x = 2` or `\\{2\\}`, which only a union makes an interval of."""
    point, held = _POINT.fullmatch(part), brackets(part)
    if point:
        return "[]", point[1], point[1]
    if held and held[0] == "{}" and len(split_list(held[1])) == 1:
        return "[]", held[1], held[1]
    return None


def _bracketed(part: str) -> Interval | None:
    held = brackets(part)
    if held is None or held[0] == "{}" or _RELATION.search(part):
        return None
    ends = split_list(held[1])
    return (held[0], ends[0], ends[1]) if len(ends) == 2 else None


def _related(part: str) -> Interval | None:
    """`x > a` and `a < x \\le b`, from either side."""
    pieces = _RELATION.split(part)
    if len(pieces) == 3:
        left, relation, right = pieces
        if not _VARIABLE.fullmatch(left):
            left, relation, right = right, _TURNED[relation], left
        if not _VARIABLE.fullmatch(left) or _VARIABLE.fullmatch(right):
            return None
        is_strict = relation in ("<", ">")
        if relation in ("<", r"\le"):
            return "()" if is_strict else "(]", r"-\infty", right
        return "()" if is_strict else "[)", right, r"\infty"
    if len(pieces) == 5 and _VARIABLE.fullmatch(pieces[2]):
        low, first, _, second, high = pieces
        if first in (">", r"\ge"):
            low, first, second, high = high, _TURNED[second], _TURNED[first], low
        if first in ("<", r"\le") and second in ("<", r"\le"):
            return ("(" if first == "<" else "[") + (")" if second == "<" else "]"), low, high
    return None


_CHOICE = re.compile(r"\(? ?([A-J]) ?\)?(?: ?[.:)])?(?: (.*))?", re.DOTALL)


def choice(text: str) -> tuple[str, str] | None:
    """(letter, what follows) of a multiple-choice answer such as `(B)`, `B.` or `B) 12`."""
    match = _CHOICE.fullmatch(text)
    if not match:
        return None
    rest = (match[2] or "").strip()
    is_marked = re.match(r"\(? ?[A-J] ?[.:)]", text)
    if rest and not is_marked:
        return None  # a letter and more without a mark between them is not a choice
    return match[1], rest


def choices(text: str) -> list[str] | None:
    """The letters of an answer that chooses several: `ABD`, `A, B and D`, in alphabetical order."""
    letters = re.sub(r"(?<![a-zA-Z])and(?![a-zA-Z])|[\s,;()]", "", text)
    return (
        list(letters)
        if re.fullmatch("[A-J]{2,10}", letters) and letters == "".join(sorted(set(letters)))
        else None
    )


def is_words(text: str) -> bool:
    """Whether this is language: words of three letters or more, no digit and no operator."""
    bare = re.sub(r"[\s.,;:'\"!?()-]", "", text)
    return (
        bool(re.fullmatch(r"[a-zA-Z]{2,}", bare))
        and bool(re.search(r"[a-zA-Z]{3,}|^(?:no|No|NO)$", text))
        and not _is_function(bare)
    )


def _is_function(bare: str) -> bool:
    return bool(re.match(r"(?:sin|cos|tan|log|ln|sqrt|exp|pi)(?![a-z]{2})", bare))


def counted(text: str) -> str | None:
    """The number of `7 stuffed goats`, where nothing but words of counting comes after it."""
    match = re.fullmatch(r"(-?\d[\d,]*(?:\.\d+)?)((?: [A-Za-z][a-z]{2,})+)", text)
    if not match or re.search(
        r"million|billion|thousand|hundred|dozen|percent|half|pairs?|score", match[2].lower()
    ):
        return None
    return match[1]


def is_prose(text: str) -> bool:
    """Does the text say something in words, so that no comparison of values can decide it?"""
    return len(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}(?![a-zA-Z])", text)) >= 4


def words(text: str) -> str:
    """Words for comparison: lower case, one space, no articles and punctuation."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in text.split() if word not in ("the", "a", "an", "is", "are"))
