"""What a question's `check` says, and the verdict on one answer (stage 7).

    {"kind": "math", "gold": "\\\\frac{1}{2}"}            the last complete box, compared by value;
                                                       gold may be a list
    {"kind": "exact", "gold": "5"}                     the same tokens, after splitting at spaces
                                                       optional: "after": "####", the text whose
                                                       last place the answer follows
    {"kind": "countdown", "numbers": [3, 4, 5],        an expression
     "target": 17}                                     optional: "use_all": true, "gold": "3*4+5"
    {"kind": "program", "tests": {...}}                a fenced block of Python, run on every test
                                                       optional: "fn_name", "judge", "tolerance",
                                                       "solution" (the data set's own)
    {"kind": "reasoning_gym", "task": "chain_sum",     the task's own verifier; entry is the
     "entry": {...}}                                   library's, with question, answer and metadata
                                                       optional: "gold", "settings" of the task
    {"kind": "none"}                                   nothing to verify against: `unverifiable`

An answer is only the text inside the solution tags, whole. An answer that was cut has none.
"""

import json
from typing import Any

from .countdown import check_countdown, countdown_faults
from .mathematics.answers import compare_plainly
from .programs.records import program_faults
from .verdicts import Result, Verdict

CHECK_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "math": ({"gold"}, set()),
    "exact": ({"gold"}, {"after"}),
    "countdown": ({"numbers", "target"}, {"gold", "use_all"}),
    "program": ({"tests"}, {"fn_name", "solution", "judge", "tolerance"}),
    "reasoning_gym": ({"task", "entry"}, {"gold", "settings"}),
    "none": (set(), set()),
}
"""Kind to (needed keys, allowed further keys)."""

UNVERIFIABLE_KINDS = {
    "none": "the data give nothing to verify against",
}
"""Kinds that get `unverifiable` for every answer, and why."""


def parse_check(text: str) -> dict[str, Any]:
    """The check of a question from its JSON text.

    Raises: ValueError naming every fault: no JSON object, an unknown kind, missing, unknown or
    ill-typed keys.
    """
    try:
        check = json.loads(text)
    except (ValueError, RecursionError) as error:
        # An integer of more than 4,300 digits is a ValueError.
        raise ValueError(f"check is not valid JSON ({error}): {text[:80]!r}") from error
    faults = check_faults(check)
    if faults:
        raise ValueError("; ".join(faults))
    return check


def check_faults(check: Any) -> list[str]:
    """What is wrong with a check; empty when it is fine."""
    if not isinstance(check, dict):
        return [f"check is {check!r}, not an object such as {{'kind': 'math', 'gold': '7'}}"]
    kind = check.get("kind")
    if not isinstance(kind, str) or kind not in CHECK_KEYS:
        return [f"check kind {kind!r} is not one of {', '.join(CHECK_KEYS)}"]
    needed, further = CHECK_KEYS[kind]
    faults = [f"check of kind {kind} lacks {name!r}" for name in sorted(needed - check.keys())]
    unknown = sorted(check.keys() - needed - further - {"kind"})
    if unknown:
        faults.append(f"check of kind {kind} has unknown keys {unknown}")
    if faults:
        return faults
    if kind == "program":
        return program_faults(check)
    golds = gold_answers(check)
    has_golds = bool(golds) and all(map(_is_text, golds))
    if "gold" in check and not has_golds:
        faults.append(
            f"gold is {check['gold']!r}; it must be a text that is not empty, or a list of such"
        )
    if "after" in check and not _is_text(check["after"]):
        faults.append(f"after is {check['after']!r}; it must be a text that is not empty")
    if kind == "countdown":
        faults += countdown_faults(check)
    if kind == "reasoning_gym":
        faults += _gym_faults(check)
    return faults


def _is_text(value: Any) -> bool:
    """Whether a value is a text that is not empty."""
    return isinstance(value, str) and bool(value.strip())


def _gym_faults(check: dict[str, Any]) -> list[str]:
    """What is wrong with a check of kind reasoning_gym; whether the task exists is known where the
    library is."""
    faults = []
    task = check["task"]
    entry = check["entry"]
    needed = {"question", "answer", "metadata"}
    if not isinstance(task, str) or not task:
        faults.append(f"task is {task!r}; it must be the name of a task, such as chain_sum")
    if not isinstance(entry, dict) or not needed <= entry.keys():
        faults.append("entry must be an object with question, answer and metadata")
    if not isinstance(check.get("settings", {}), dict):
        faults.append(f"settings is {check['settings']!r}; it must be an object")
    return faults


def gold_answers(check: dict[str, Any]) -> list[Any]:
    """The golds of a check as a list; empty where it has none."""
    gold = check.get("gold", [])
    return list(gold) if isinstance(gold, list) else [gold]


def gold_solutions(check: dict[str, Any]) -> list[str]:
    """Each gold as a solution text in the form that the prompt asks for; its own check must accept
    every one of them."""
    if check["kind"] == "program":
        programs = check.get("solution", [])
        if isinstance(programs, str):
            programs = [programs]
        fence = "~" * 16  # no program holds a line of these
        solutions = []
        for program in programs:
            if program.strip():
                solutions.append(f"{fence}python\n{program}\n{fence}")
        return solutions
    golds = gold_answers(check)
    if check["kind"] == "math":
        return [f"\\boxed{{{gold}}}" for gold in golds]
    if "after" in check:
        return [f"{check['after']} {gold}" for gold in golds]
    return golds


def check_inline(check: dict[str, Any], solution: str | None) -> Result | None:
    """The verdict on a solution text where that is cheap and bounded, or None where a worker
    process must decide.

    Args:
        check: a check without faults.
        solution: the text inside the solution tags, or None for an answer that has none.
    """
    kind = check["kind"]
    if kind in UNVERIFIABLE_KINDS:
        return Result(Verdict.UNVERIFIABLE, UNVERIFIABLE_KINDS[kind])
    if solution is None:
        return Result(Verdict.NO_ANSWER, "the answer has no complete pair of solution tags")
    if not solution.strip():
        return Result(Verdict.NO_ANSWER, "the solution is empty")
    if kind == "exact":
        return _check_exact(check, solution)
    if kind == "countdown":
        return check_countdown(
            check["numbers"],
            check["target"],
            solution,
            check.get("use_all", False),
        )
    if kind in ("program", "reasoning_gym"):
        return None
    return compare_plainly(gold_answers(check), solution)


def _check_exact(check: dict[str, Any], solution: str) -> Result:
    """The verdict on a solution by its tokens, or by those after the last `after`."""
    answer = solution
    if "after" in check:
        _, found, answer = solution.rpartition(check["after"])
        if not found:
            return Result(Verdict.MALFORMED, f"there is no {check['after']!r} in the solution")
    tokens = answer.split()
    for gold in gold_answers(check):
        if tokens == gold.split():
            return Result(Verdict.CORRECT)
    return Result(Verdict.WRONG)
