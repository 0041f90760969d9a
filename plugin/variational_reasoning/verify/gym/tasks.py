"""The tasks of the library reasoning-gym: its questions, and its verdicts on answers.

The library's verifiers are made for answers of people. Nine of them hand the answer's text to
Python: four call `eval`, five call sympy's `parse_expr`, which does. What a model wrote is not run
here: `eval` reads literals only, and an answer for `parse_expr` must be an expression of numbers,
letters and well-known functions. These nine are those of version 0.1.25, so another version is
refused.
"""

import ast
import difflib
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from variational_reasoning.packages import installed_version, need

from ..mathematics.boxes import last_boxed
from ..verdicts import Verdict

PACKAGE, VERSION = "reasoning-gym", "0.1.25"

LEFT_OUT = {"composite": "it is made of other tasks; name those, joined by +"}
"""Tasks that are not offered, and why."""

_EVALUATED = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
"""Modules whose verifiers call eval on the answer."""

_PARSED = (
    "countdown",
    "intermediate_integration",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
)
"""Tasks whose verifiers call sympy's parse_expr on the answer."""

_BOARDS = ("arc_agi", "rearc")
"""Tasks whose verifiers compare the answer with a board of tuples, which a table in JSON holds as
lists: to Python, [[1, 2]] is not equal to ((1, 2),).
"""

_FUNCTIONS = {
    *("sqrt", "exp", "log", "ln", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos"),
    *("atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "Abs", "pi"),
}
_SIGNS = re.compile(r"[0-9A-Za-z+\-*/^().,\s]*", re.ASCII)
_NAMES = re.compile(r"[A-Za-z][0-9A-Za-z]*")


def load_library() -> Any:
    """The module reasoning_gym, whose verifiers evaluate nothing any more.

    Raises: ModuleNotFoundError where it is not installed; ValueError for a version whose verifiers
        were not read.
    """
    library = need("reasoning_gym", "gym")
    found = installed_version(PACKAGE)
    if found != VERSION:
        raise ValueError(
            f"{PACKAGE} {found} is installed; some of its verifiers run what an answer says, and "
            f"only those of {VERSION} are guarded here: pip install {PACKAGE}=={VERSION}"
        )
    import importlib

    for name in _EVALUATED:
        module: Any = importlib.import_module(f"reasoning_gym.{name}")
        module.eval = ast.literal_eval
    return library


def task_fault(name: str) -> str | None:
    """What is wrong with a task's name. Raises as `load_library`."""
    load_library()
    from reasoning_gym.factory import DATASETS

    if name in LEFT_OUT:
        return f"{name!r} is not offered: {LEFT_OUT[name]}"
    if name in DATASETS:
        return None
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name!r} is not one of the {len(DATASETS)} tasks of {PACKAGE}{hint}"


def open_task(name: str, settings: Mapping[str, Any], **more: Any) -> Any:
    """The library's data set of a task. Raises: ValueError for settings that do not fit."""
    library = load_library()
    try:
        return library.create_dataset(name, **settings, **more)
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        from reasoning_gym.factory import DATASETS

        known = [key for key in DATASETS[name][1].__dataclass_fields__ if key not in more]
        raise ValueError(
            f"{PACKAGE}: {name} does not take the settings {dict(settings)} ({error}); it has "
            f"{', '.join(known)}"
        ) from error


def answer_of(solution: str) -> str:
    r"""The answer in a solution: the inside of its last box, or the whole where there is none.

    "So it is \boxed{4}." -> "4"    " 4\n" -> "4"
    """
    boxed = last_boxed(solution)
    return (solution if boxed is None else boxed).strip()


def is_expression(answer: str) -> bool:
    """Whether an answer holds numbers, letters and well-known functions only.

    "2*(3 + x)**2" and "sqrt(2)" do; "x.__class__", "open(1)" and "'a'" do not.
    """
    if not _SIGNS.fullmatch(answer) or re.search(r"\.\s*[A-Za-z]", answer):
        return False
    return all(len(name) == 1 or name in _FUNCTIONS for name in _NAMES.findall(answer))


def compare(check: Mapping[str, Any], solution: str) -> tuple[Verdict, str]:
    """The verdict of a task's own verifier, which gives 1 for a right answer.

    Args:
        check: of kind reasoning_gym, without faults.
        solution: the text inside the solution tags.
    """
    task, answer = check["task"], answer_of(solution)
    if task in _PARSED and not is_expression(answer):
        return Verdict.MALFORMED, "more than an expression of numbers, letters and functions"
    verifier = _verifier(task, json.dumps(check.get("settings", {}), sort_keys=True))
    try:
        score = verifier.score_answer(answer, _as_generated(task, check["entry"]))
    except (MemoryError, RecursionError):
        raise  # decided by the worker
    except Exception as error:  # noqa: BLE001, the library's verifiers raise what they like
        reason = f"{PACKAGE}: {task}: {type(error).__name__}: {error}"
        return Verdict.CHECKER_ERROR, reason[:300]
    return (Verdict.CORRECT, "") if score >= 1 else (Verdict.WRONG, f"score {score:.3g}")


def _as_generated(task: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A question as the library made it, from what JSON kept of it."""
    if task not in _BOARDS:
        return entry
    metadata = entry["metadata"]
    board = tuple(tuple(row) for row in metadata["output"])
    return {**entry, "metadata": {**metadata, "output": board}}


@functools.lru_cache(maxsize=64)
def _verifier(task: str, settings: str) -> Any:
    return open_task(task, json.loads(settings), seed=0)
