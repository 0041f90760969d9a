"""Questions of the library reasoning-gym: `data.train: reasoning_gym:chain_sum` (stage 0, and the
evaluation).

A task is an endless stream of questions, which its settings and data.gym.seed fix. Equal questions
count once. The first ones are for training and those after them for the test, whether or not both
are asked for, so that the two never share a question:

    the stream        q0  q1  q0  q2  q3  q4 ...
    train_size 2      q0  q1
    test_size 2                   q2  q3

A question whose own gold its verifier rejects is left out and counted: no answer to it could be
right.

Several tasks are joined by +, `reasoning_gym:chain_sum+gcd`, and share the sizes equally.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from variational_reasoning.pipeline.config import GymConfig
from variational_reasoning.verify.gym.tasks import compare, open_task, task_fault
from variational_reasoning.verify.verdicts import Verdict

PREFIX = "reasoning_gym:"
SOURCE = "reasoning_gym"
_PATIENCE = 20
"""A small task repeats itself. Its stream ends after 20 * (50 + the questions found so far) entries
in a row that bring nothing new.
"""


def is_gym(source: str | None) -> bool:
    """Whether a data set is named as a task of reasoning-gym."""
    return bool(source) and str(source).startswith(PREFIX)


def gym_faults(source: str, gym: GymConfig) -> list[str]:
    """What is wrong with the name of such a data set, and with the tasks of data.gym."""
    names = _task_names(source)
    faults = []
    for name in names:
        fault = task_fault(name)
        if fault:
            faults.append(f"{source}: {fault}")
    for name in sorted(set(names)):
        if names.count(name) > 1:
            faults.append(f"{source}: the task {name!r} is there twice")
    for name, settings in gym.tasks.items():
        if not isinstance(settings, dict):
            faults.append(f"data.gym.tasks.{name}: {settings!r} is not a section of settings")
    if len(names) > min(gym.train_size, gym.test_size):
        faults.append(
            f"{source}: {len(names)} tasks share data.gym.train_size ({gym.train_size}) and "
            f"test_size ({gym.test_size}); each needs one question at least"
        )
    return faults


def gym_rows(source: str, split: str, gym: GymConfig) -> tuple[list[dict[str, Any]], str]:
    """(rows with our columns, sha256 of them) of the questions of one split.

    Args:
        source: reasoning_gym:NAME, or several names. split: train or test.

    Raises: ValueError for a task or settings that do not exist, and for a task with too few
        different questions.
    """
    faults = gym_faults(source, gym)
    if faults:
        raise ValueError("\n".join(faults))
    names = _task_names(source)
    rows = []
    for number, name in enumerate(names):
        train_size = _share(gym.train_size, number, len(names))
        test_size = _share(gym.test_size, number, len(names))
        rows += _task_rows(name, split, train_size, test_size, gym)
    text = json.dumps(rows, sort_keys=True)
    return rows, hashlib.sha256(text.encode()).hexdigest()


def _task_names(source: str) -> list[str]:
    return source.removeprefix(PREFIX).split("+")


def _share(size: int, number: int, count: int) -> int:
    """Questions of task `number` of `count`: 10 among 3 are 4, 3 and 3."""
    has_one_more = number < size % count
    return size // count + has_one_more


def _task_rows(
    name: str, split: str, train_size: int, test_size: int, gym: GymConfig
) -> list[dict[str, Any]]:
    """The rows of one task and split."""
    settings = gym.tasks.get(name, {})
    # train_size 2, test_size 2: places 0 and 1 are for training, 2 and 3 for the test.
    first, last = 0, train_size
    if split == "test":
        first, last = train_size, train_size + test_size
    entries = _Entries(name, settings, gym.seed)
    rows = []
    for place, row in enumerate(entries.different(last)):
        if place >= first:
            rows.append(row)
    if len(rows) < last - first:
        found = first + len(rows) if rows else "fewer"
        raise ValueError(
            f"reasoning-gym: {name} with the settings {settings} has {found} different questions"
            f"{entries.about_rejected()}; data.gym asks for train_size {train_size} and test_size "
            f"{test_size}. Ask for fewer, or give it other settings in data.gym.tasks.{name}"
        )
    if entries.num_rejected:
        print(f"reasoning-gym: {name}{entries.about_rejected()}")
    return rows


class _Entries:
    """The stream of a task, in the order of its numbers."""

    def __init__(self, name: str, settings: dict[str, Any], seed: int) -> None:
        self.name = name
        self.settings = settings
        self.seed = seed
        self.num_rejected = 0
        self._first_rejected = ""

    def different(self, count: int) -> Iterator[dict[str, Any]]:
        """Rows of the first `count` different questions whose gold is accepted, or of all there
        are."""
        # Question i of the library's seed s is question i - 1 of its seed s + 1, so neighboring
        # seeds would share nearly all. A hash sets them far apart.
        hashed = hashlib.sha256(f"{self.seed} {self.name}".encode()).digest()
        start = int.from_bytes(hashed[:4], "big")
        size = _PATIENCE * (count + 50)
        task = open_task(self.name, self.settings, seed=start, size=size)
        seen: set[str] = set()
        number = 0
        found = 0
        fruitless = 0  # entries since the last one that was taken
        while found < count and fruitless <= _PATIENCE * (found + 50):
            entry = task[number]
            row = None
            question = entry["question"].strip()
            if question not in seen:
                seen.add(question)
                row = _row(self.name, self.settings, number, entry)
            if row is not None and self._is_accepted(row):
                found += 1
                fruitless = 0
                yield row
            else:
                fruitless += 1
            number += 1

    def about_rejected(self) -> str:
        """How many questions were left out, for a message; empty for none."""
        if not self.num_rejected:
            return ""
        return (
            f": {self.num_rejected} more are left out, because the task's verifier does not accept "
            f"their own answer, such as {self._first_rejected}"
        )

    def _is_accepted(self, row: dict[str, Any]) -> bool:
        """Whether a question's own gold passes its check; one without a gold has nothing to try."""
        check = row["check"]
        if "gold" not in check:
            return True
        verdict, reason = compare(check, check["gold"])
        if verdict is Verdict.CORRECT:
            return True
        self.num_rejected += 1
        if not self._first_rejected:
            self._first_rejected = f"{row['question_id']} ({reason or verdict})"
        return False


def _row(name: str, settings: dict[str, Any], number: int, entry: Any) -> dict[str, Any]:
    """A row with our columns; what the task's verifier needs is in its check."""
    check = {"kind": "reasoning_gym", "task": name, "entry": entry}
    if settings:
        check["settings"] = settings
    if entry["answer"] is not None:
        check["gold"] = entry["answer"]
    try:
        check = json.loads(json.dumps(check))
    except TypeError as error:
        raise ValueError(
            f"reasoning-gym: question {number} of {name} cannot be stored ({error}); choose "
            "another task"
        ) from error
    return {
        "question_id": f"{name}-{number}",
        "question": entry["question"],
        "source": f"{SOURCE}/{name}",
        "check": check,
    }
