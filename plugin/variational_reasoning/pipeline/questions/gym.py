"""Questions of the library reasoning-gym: `data.train: reasoning_gym:chain_sum` (stage 0, and the
evaluation).

A task is an endless stream of questions, which its settings and data.gym.seed fix. Equal questions
count once. The first ones are for training and those after them for the test, whether or not both
are asked for, so that the two never share a question:

    the stream        q0  q1  q0  q2  q3  q4 ...
    train_size 2      q0  q1
    test_size 2                   q2  q3

Several tasks are joined by +, `reasoning_gym:chain_sum+gcd`, and share the sizes equally.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from variational_reasoning.pipeline.config import GymConfig
from variational_reasoning.verify.gym.tasks import open_task, task_fault

PREFIX = "reasoning_gym:"
SOURCE = "reasoning_gym"
_PATIENCE = 20
"""So many questions in a row that were all there before end the stream of a small task, times the
questions that were found."""


def is_gym(source: str | None) -> bool:
    """Whether a data set is named as a task of reasoning-gym."""
    return bool(source) and str(source).startswith(PREFIX)


def gym_faults(source: str, gym: GymConfig) -> list[str]:
    """What is wrong with the name of such a data set, and with the tasks of data.gym."""
    names = _task_names(source)
    faults = [f"{source}: {fault}" for name in names if (fault := task_fault(name))]
    repeated = {name for name in names if names.count(name) > 1}
    faults += [f"{source}: the task {name!r} is there twice" for name in sorted(repeated)]
    faults += [
        f"data.gym.tasks.{name}: {settings!r} is not a section of settings"
        for name, settings in gym.tasks.items()
        if not isinstance(settings, dict)
    ]
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
    if faults := gym_faults(source, gym):
        raise ValueError("\n".join(faults))
    names = _task_names(source)
    rows = []
    for number, name in enumerate(names):
        sizes = [_share(size, number, len(names)) for size in (gym.train_size, gym.test_size)]
        rows += _task_rows(name, split, sizes[0], sizes[1], gym)
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return rows, digest


def _task_names(source: str) -> list[str]:
    return source.removeprefix(PREFIX).split("+")


def _share(size: int, number: int, count: int) -> int:
    """Questions of task `number` of `count`: 10 among 3 are 4, 3 and 3."""
    return size // count + (number < size % count)


def _task_rows(
    name: str, split: str, train_size: int, test_size: int, gym: GymConfig
) -> list[dict[str, Any]]:
    settings = gym.tasks.get(name, {})
    first, last = (0, train_size) if split == "train" else (train_size, train_size + test_size)
    rows = []
    for place, (number, entry) in enumerate(_different_entries(name, settings, gym.seed, last)):
        if place >= first:
            rows.append(_row(name, settings, number, entry))
    if len(rows) < last - first:
        found = first + len(rows) if rows else "fewer"
        raise ValueError(
            f"reasoning-gym: {name} with the settings {settings} has {found} different questions; "
            f"data.gym asks for train_size {train_size} and test_size {test_size}. Ask for fewer, "
            f"or give it harder settings in data.gym.tasks.{name}"
        )
    return rows


def _different_entries(
    name: str, settings: dict[str, Any], seed: int, count: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number in the stream, entry) of the first `count` different questions, or of all there
    are."""
    # Question i of the library's seed s is question i - 1 of its seed s + 1, so neighboring seeds
    # would share nearly all. A hash sets them far apart.
    start = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")
    task = open_task(name, settings, seed=start, size=_PATIENCE * (count + 50))
    seen: set[str] = set()
    number = fruitless = 0
    while len(seen) < count and fruitless <= _PATIENCE * (len(seen) + 50):
        entry = task[number]
        if entry["question"].strip() in seen:
            fruitless += 1
        else:
            fruitless = 0
            seen.add(entry["question"].strip())
            yield number, entry
        number += 1


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
