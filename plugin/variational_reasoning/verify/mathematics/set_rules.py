r"""Plain rules for sets: intervals, conditions, families with a parameter, functions in pieces
(check kind `math`).
"""

import re

from .forms import Interval, condition, intervals, pieces
from .lists import brackets, split_list
from .matching import Same, all_same, in_any_order
from .spelling import squeezed

_RELATION = re.compile(r"[<>]|\\le|\\ge")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")


def interval_unions(gold: str, answer: str, same: Same) -> bool | None:
    r"""`[0, \infty)` and `x \ge 0`, unions in any order."""
    want, found = intervals(gold), intervals(answer)
    if want is None or found is None or len(want) != len(found):
        return None
    are_pairs = gold.startswith("(") and answer.startswith("(") and len(want) == 1
    if are_pairs:
        return None  # two points, as well as two intervals
    if _RELATION.search(gold) and _RELATION.search(answer):
        names = [set(_LETTER.findall(text)) - {"U"} for text in (gold, answer)]
        if len(names[0]) == len(names[1]) == 1 and names[0] != names[1]:
            return None

    def same_ends(left: Interval, right: Interval) -> bool | None:
        if left[0] != right[0]:
            return False
        return all_same(same(a, b) for a, b in zip(left[1:], right[1:], strict=True))

    return in_any_order(want, found, same_ends)


def conditions(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\{x \mid x \ne 2\}` and `x \ne 2` or a union of intervals: the condition says it all."""
    want, found = condition(gold), condition(answer)
    if want is None and found is None:
        return None
    return same(want or gold, found or answer)


_DOMAIN = re.compile(
    r"(?P<rest>.+?) ?[,;]? ?\(?(?:(?:where|for|with|and) )?(?:(?:all|any|every|each"
    r"|some) )?\(? ?(?<![\\a-zA-Z])(?P<names>[a-zA-Z](?: ?, ?[a-zA-Z])*) ?"
    r"(?:\\in|is an?|are) ?(?:any |arbitrary )?(?P<set>\\mathbb ?\{?[A-Z]\}?"
    r"(?: ?[_^] ?\{?[+*-]\}?)?|[ZNRQC]|integers?|real(?: numbers?)?"
    r"|natural numbers?) ?\)?"
)
_FAMILY = re.compile(r"\\\{ ?(.+?) ?(?:\||:|\\mid) ?([a-z] ?\\in ?[^|:]+?) ?\\\}")
"""`\\{2k\\pi \\mid k \\in \\mathbb{Z}\\}`"""

_SPOKEN_DOMAIN = re.compile(
    r"(?P<rest>.+?) ?,? ?\(?(?:where|for|with) (?:(?:all|any|every|each|some) )?"
    r"(?P<set>integers?|reals?(?: numbers?)?|natural numbers?)"
    r"(?: (?P<names>[a-zA-Z]))?\)?"
)
_SETS = {"integer": "Z", "integers": "Z", "real": "R", "reals": "R"}


def domains(gold: str, answer: str, same: Same) -> bool | None:
    r"""`2k\pi` and `2k\pi, k \in \mathbb{Z}`: a parameter's set may be left out; two must agree."""
    want, found = _without_domain(gold), _without_domain(answer)
    if want is None and found is None:
        return None
    if want is not None and found is not None and want[1] != found[1]:
        return False
    return same(want[0] if want else gold, found[0] if found else answer)


def _without_domain(text: str) -> tuple[str, str] | None:
    r"""(`2k\pi`, `Z`) of `2k\pi, k \in \mathbb{Z}`.

    None where no domain of a name in the text comes last.
    """
    if r"\forall" in text or r"\exists" in text:
        return None
    if family := _FAMILY.fullmatch(text):
        text = f"{family[1]}, {family[2]}"
    for pattern in (_DOMAIN, _SPOKEN_DOMAIN):
        match = pattern.fullmatch(text)
        if not match:
            continue
        rest = match["rest"].rstrip(" ,;(")
        names = re.findall("[a-zA-Z]", match["names"] or "")
        if not all(re.search(rf"(?<![\\a-zA-Z]){name}|(?<=pi){name}", rest) for name in names):
            return None
        spoken = match["set"].split(" ")[0]
        return rest, _SETS.get(spoken) or re.sub(r"\\mathbb|[ {}]", "", match["set"])
    return None


_PARAMETER = re.compile(r"(?<![\\a-zA-Z])[klmn](?![a-zA-Z(_])")
_ANY_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z(_])")


def parameters(gold: str, answer: str, same: Same) -> bool | None:
    r"""`k\pi` and `n\pi`, `(1 + 2x, x)` and `(1 + 2t, t)`: a parameter has another name."""
    held = [brackets(text) for text in (gold, answer)]
    are_tuples = all(kind and kind[0] == "()" and len(split_list(kind[1])) > 1 for kind in held)
    is_family = re.search(r"[+=,]|^ ?(?:\d* ?[klmn] ?\\pi|\d* ?\\pi ?[klmn]) ?$", gold)
    if are_tuples:
        pattern = _ANY_LETTER
    elif r"\pi" in gold and r"\pi" in answer and is_family:
        pattern = _PARAMETER
    else:
        return None
    names = [set(pattern.findall(text)) for text in (gold, answer)]
    if len(names[0]) != 1 or len(names[1]) != 1 or names[0] == names[1] or names[1] <= {"e", "i"}:
        return None
    (new,) = names[0]
    return same(gold, pattern.sub(new, answer))


_BOUND = re.compile(r"\\(?:sum|prod) ?_ ?\{ ?([a-zA-Z]) ?=")


def bound_names(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\sum_{k=1}^{n} k^2` and `\sum_{i=1}^{n} i^2`: the one index has another name."""
    want, found = _BOUND.findall(gold), _BOUND.findall(answer)
    if len(want) != 1 or len(found) != 1 or want == found:
        return None
    if re.search(rf"(?<![\\a-zA-Z]){want[0]}(?![a-zA-Z])", answer):
        return None  # the new name is taken
    renamed = re.sub(rf"(?<![\\a-zA-Z]){found[0]}(?![a-zA-Z])", want[0], answer)
    return same(gold, renamed)


def functions_in_pieces(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\begin{cases} x & x \ge 0 \\ -x & x < 0 \end{cases}`: pieces in any order."""
    want, found = pieces(gold), pieces(answer)
    if want is None and found is None:
        return None
    if want is None or found is None:
        return False

    def same_piece(left: tuple[str, str], right: tuple[str, str]) -> bool | None:
        if squeezed(left[1]) == squeezed(right[1]):
            return same(left[0], right[0])
        return all_same([same(left[0], right[0]), same(left[1], right[1])])

    return in_any_order(want, found, same_piece)
