r"""Plain rules for sets: intervals, conditions, families, functions in pieces (kind `math`)."""

import re

from .forms import Interval, condition, intervals, pieces
from .lists import brackets, split_list
from .matching import Same, all_same, in_any_order
from .spelling import squeezed

_RELATION = re.compile(r"[<>]|\\le|\\ge")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")


def interval_unions(gold: str, answer: str, same: Same) -> bool | None:
    r"""`[0, \infty)` and `x \ge 0`, unions in any order."""
    want = intervals(gold)
    found = intervals(answer)
    if want is None or found is None or len(want) != len(found):
        return None
    are_pairs = gold.startswith("(") and answer.startswith("(") and len(want) == 1
    if are_pairs:
        return None  # two points, as well as two intervals
    if _RELATION.search(gold) and _RELATION.search(answer):
        wanted_names = set(_LETTER.findall(gold)) - {"U"}
        found_names = set(_LETTER.findall(answer)) - {"U"}
        if len(wanted_names) == len(found_names) == 1 and wanted_names != found_names:
            return None  # `x > 2` and `y > 2`

    def same_ends(left: Interval, right: Interval) -> bool | None:
        left_brackets, *left_ends = left
        right_brackets, *right_ends = right
        if left_brackets != right_brackets:
            return False
        return all_same(map(same, left_ends, right_ends))

    return in_any_order(want, found, same_ends)


def conditions(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\{x \mid x \ne 2\}` and `x \ne 2` or a union of intervals: the condition is compared."""
    want = condition(gold)
    found = condition(answer)
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
    r"""`2k\pi` and `2k\pi, k \in \mathbb{Z}`: one side may leave out a parameter's set.

    Where both name a set, the sets must agree.
    """
    want = _without_domain(gold)
    found = _without_domain(answer)
    if want is None and found is None:
        return None
    wanted_value, wanted_set = want or (gold, None)
    found_value, found_set = found or (answer, None)
    if wanted_set and found_set and wanted_set != found_set:
        return False
    return same(wanted_value, found_value)


def _without_domain(text: str) -> tuple[str, str] | None:
    r"""(`2k\pi`, `Z`) of `2k\pi, k \in \mathbb{Z}`.

    None where no domain of a name in the text comes last.
    """
    if r"\forall" in text or r"\exists" in text:
        return None
    family = _FAMILY.fullmatch(text)
    if family:
        text = f"{family[1]}, {family[2]}"
    for pattern in (_DOMAIN, _SPOKEN_DOMAIN):
        match = pattern.fullmatch(text)
        if not match:
            continue
        rest = match["rest"].rstrip(" ,;(")
        names = re.findall("[a-zA-Z]", match["names"] or "")
        for name in names:
            if not re.search(rf"(?<![\\a-zA-Z]){name}|(?<=pi){name}", rest):
                return None
        spoken = match["set"].split(" ")[0]
        written = re.sub(r"\\mathbb|[ {}]", "", match["set"])
        return rest, _SETS.get(spoken, written)
    return None


_PARAMETER = re.compile(r"(?<![\\a-zA-Z])[klmn](?![a-zA-Z(_])")
_ANY_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z(_])")


def parameters(gold: str, answer: str, same: Same) -> bool | None:
    r"""`k\pi` and `n\pi`, `(1 + 2x, x)` and `(1 + 2t, t)`: a parameter has another name."""
    is_family = re.search(r"[+=,]|^ ?(?:\d* ?[klmn] ?\\pi|\d* ?\\pi ?[klmn]) ?$", gold)
    if _is_tuple(gold) and _is_tuple(answer):
        pattern = _ANY_LETTER
    elif r"\pi" in gold and r"\pi" in answer and is_family:
        pattern = _PARAMETER
    else:
        return None
    wanted_names = set(pattern.findall(gold))
    found_names = set(pattern.findall(answer))
    if len(wanted_names) != 1 or len(found_names) != 1 or wanted_names == found_names:
        return None
    if found_names <= {"e", "i"}:
        return None  # constants, not parameters
    (name,) = wanted_names
    return same(gold, pattern.sub(name, answer))


def _is_tuple(text: str) -> bool:
    held = brackets(text)
    if held is None or held[0] != "()":
        return False
    return len(split_list(held[1])) > 1


_BOUND = re.compile(r"\\(?:sum|prod) ?_ ?\{ ?([a-zA-Z]) ?=")


def bound_names(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\sum_{k=1}^{n} k^2` and `\sum_{i=1}^{n} i^2`: the one index has another name."""
    want = _BOUND.findall(gold)
    found = _BOUND.findall(answer)
    if len(want) != 1 or len(found) != 1 or want == found:
        return None
    new_name = want[0]
    if re.search(rf"(?<![\\a-zA-Z]){new_name}(?![a-zA-Z])", answer):
        return None  # it is taken
    renamed = re.sub(rf"(?<![\\a-zA-Z]){found[0]}(?![a-zA-Z])", new_name, answer)
    return same(gold, renamed)


def functions_in_pieces(gold: str, answer: str, same: Same) -> bool | None:
    r"""`\begin{cases} x & x \ge 0 \\ -x & x < 0 \end{cases}`: pieces in any order."""
    want = pieces(gold)
    found = pieces(answer)
    if want is None and found is None:
        return None
    if want is None or found is None:
        return False

    def same_piece(left: tuple[str, str], right: tuple[str, str]) -> bool | None:
        left_value, left_condition = left
        right_value, right_condition = right
        has_same_value = same(left_value, right_value)
        if squeezed(left_condition) == squeezed(right_condition):
            return has_same_value
        return all_same([has_same_value, same(left_condition, right_condition)])

    return in_any_order(want, found, same_piece)
