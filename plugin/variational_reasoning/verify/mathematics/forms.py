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
    if match:
        name, value = match[1], match[2]
        if "=" not in value and not re.search(r"[<>]|\\le|\\ge", value):
            return re.sub(r"[ {}]", "", name), value.strip()
    word = re.fullmatch(r"([a-zA-Z]{3,}) ?[:=] ?(.+)", text)  # `Tom: 9`
    if word:
        return word[1].lower(), word[2].strip()
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
    parts = _UNION.split(text)
    found = []
    for part in parts:
        part = part.strip().strip(",").strip()
        part = _MEMBER.sub("", part)
        interval = _point(part) if len(parts) > 1 else None
        if interval is None:
            interval = _bracketed(part) or _related(part) or _half_line(part)
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
    if match is None:
        return None
    sign = match["sign"] or ""
    return _HALF_LINES[sign.replace(" ", "")]


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
        if len(cells) == 1:  # `x, if x > 0`: a comma and a word in place of the sign
            comma = re.search(r", ?(?=(?:if|for|when|otherwise) ?)", row)
            if comma:
                cells = [row[: comma.start()], row[comma.end() :]]
        if len(cells) != 2:
            return None
        value = cells[0].strip(" ,")
        said = cells[1].strip(" ,.;")
        found.append((value, _CONDITION_WORD.sub("", said)))
    if len(found) < 2 or not any(_RELATION.search(said) for _, said in found):
        return None
    if len(found) == 2:
        (_, first_condition), (last_value, last_condition) = found
        sides = _RELATION.split(first_condition)
        if _OTHERWISE.fullmatch(last_condition) and len(sides) == 3:
            left, relation, right = sides
            found[1] = (last_value, f"{left} {_COMPLEMENTS[relation]} {right}")
    return found


def _point(part: str) -> Interval | None:
    """`x = 2` or `\\{2\\}`, which only a union makes an interval of."""
    point = _POINT.fullmatch(part)
    if point:
        return "[]", point[1], point[1]
    held = brackets(part)
    if held is None:
        return None
    kind, content = held
    if kind == "{}" and len(split_list(content)) == 1:
        return "[]", content, content
    return None


def _bracketed(part: str) -> Interval | None:
    """`[2, 5)`."""
    held = brackets(part)
    if held is None or held[0] == "{}" or _RELATION.search(part):
        return None
    kind, content = held
    ends = split_list(content)
    if len(ends) != 2:
        return None
    return kind, ends[0], ends[1]


def _related(part: str) -> Interval | None:
    """`x > a` and `a < x \\le b`, from either side."""
    sides = _RELATION.split(part)
    if len(sides) == 3:
        left, relation, right = sides
        if not _VARIABLE.fullmatch(left):  # `2 < x` is `x > 2`
            left, relation, right = right, _TURNED[relation], left
        if not _VARIABLE.fullmatch(left) or _VARIABLE.fullmatch(right):
            return None
        is_strict = relation in ("<", ">")
        if relation in ("<", r"\le"):
            return "()" if is_strict else "(]", r"-\infty", right
        return "()" if is_strict else "[)", right, r"\infty"
    if len(sides) == 5 and _VARIABLE.fullmatch(sides[2]):
        low, first, _, second, high = sides
        if first in (">", r"\ge"):  # `5 > x \ge 2` is `2 \le x < 5`
            low, high = high, low
            first, second = _TURNED[second], _TURNED[first]
        if first not in ("<", r"\le") or second not in ("<", r"\le"):
            return None
        opening = "(" if first == "<" else "["
        closing = ")" if second == "<" else "]"
        return opening + closing, low, high
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
    if not re.fullmatch("[A-J]{2,10}", letters):
        return None
    in_order = sorted(set(letters))
    return in_order if list(letters) == in_order else None


def is_words(text: str) -> bool:
    """Whether this is language: words of three letters or more, no digit and no operator."""
    bare = re.sub(r"[\s.,;:'\"!?()-]", "", text)
    if not re.fullmatch(r"[a-zA-Z]{2,}", bare) or _is_function(bare):
        return False
    return bool(re.search(r"[a-zA-Z]{3,}|^(?:no|No|NO)$", text))


def _is_function(bare: str) -> bool:
    return bool(re.match(r"(?:sin|cos|tan|log|ln|sqrt|exp|pi)(?![a-z]{2})", bare))


def counted(text: str) -> str | None:
    """The number of `7 stuffed goats`, where nothing but words of counting comes after it."""
    match = re.fullmatch(r"(-?\d[\d,]*(?:\.\d+)?)((?: [A-Za-z][a-z]{2,})+)", text)
    if not match:
        return None
    number, things = match[1], match[2].lower()
    if re.search(r"million|billion|thousand|hundred|dozen|percent|half|pairs?|score", things):
        return None
    return number


def is_prose(text: str) -> bool:
    """Whether the text says something in words, so that no comparison of values can decide it."""
    long_words = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}(?![a-zA-Z])", text)
    return len(long_words) >= 4


def words(text: str) -> str:
    """Words for comparison: lower case, one space, no articles, forms of be and punctuation."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    kept = []
    for word in text.split():
        if word not in ("the", "a", "an", "is", "are"):
            kept.append(word)
    return " ".join(kept)
