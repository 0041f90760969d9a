"""The verifiers of reasoning-gym as a check kind: under limits, and without running an answer."""

import json

import pytest

from variational_reasoning.verify.checks import check_faults, check_inline, gold_solutions
from variational_reasoning.verify.gym import tasks
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import Verdict

pytest.importorskip("reasoning_gym", reason="needs reasoning-gym: pip install -e '.[gym]'")


def check_of(task: str, **settings) -> dict:
    """The check of a task's first question, as stage 0 stores it."""
    entry = tasks.open_task(task, settings, seed=3)[0]
    check = {"kind": "reasoning_gym", "task": task, "entry": entry, "gold": entry["answer"]}
    if settings:
        check["settings"] = settings
    return json.loads(json.dumps(check))


@pytest.mark.parametrize(
    "task", ["chain_sum", "countdown", "n_queens", "binary_matrix", "simple_integration", "gcd"]
)
def test_a_gold_passes_its_own_check(task):
    check = check_of(task)
    assert check_faults(check) == []
    assert check_inline(check, "7") is None  # a worker decides
    assert gold_solutions(check) == [check["gold"]]
    assert tasks.compare(check, check["gold"])[0] is Verdict.CORRECT


SLOW_TO_MAKE = ("intermediate_integration", "knight_swap")
"""Tasks that take seconds per question."""


@pytest.mark.slow
def test_every_tasks_gold_passes_its_own_check_after_a_table():
    tasks.load_library()
    from reasoning_gym.factory import DATASETS

    offered = set(DATASETS) - set(tasks.LEFT_OUT) - set(SLOW_TO_MAKE)
    without_gold, rejected = set(), {}
    for task in sorted(offered):
        check = check_of(task)
        if check["gold"] is None:
            without_gold.add(task)
            continue
        verdict, reason = tasks.compare(check, check["gold"])
        if verdict is not Verdict.CORRECT:
            rejected[task] = reason
    assert rejected == {}
    several_answers = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    assert without_gold == several_answers


def test_the_answer_is_in_the_box_or_the_whole():
    check = check_of("chain_sum")
    gold = check["gold"]
    assert tasks.compare(check, f"It is \\boxed{{{gold}}}.")[0] is Verdict.CORRECT
    assert tasks.compare(check, f" {gold}\n")[0] is Verdict.CORRECT
    verdict, reason = tasks.compare(check, f"{gold}0")
    assert verdict is Verdict.WRONG and reason.startswith("score ")


@pytest.mark.parametrize("task", ["n_queens", "binary_matrix", "spiral_matrix", "string_insertion"])
@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_what_an_answer_says_is_not_evaluated(task, form, tmp_path):
    attack = form.format(f"open({str(tmp_path / 'written')!r}, 'w')")
    assert tasks.compare(check_of(task), attack)[0] is not Verdict.CORRECT
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "task", ["countdown", "puzzle24", "simple_integration", "polynomial_multiplication"]
)
def test_what_an_answer_says_is_not_parsed_into_code(task, tmp_path):
    attack = f"open({str(tmp_path / 'written')!r}, 'w')"
    assert tasks.compare(check_of(task), attack)[0] is Verdict.MALFORMED
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*(3 + x)**2 - 0.5", True),
        ("sqrt(2)/2 + C", True),
        ("x.__class__", False),
        ("x. a", False),
        ("open(1)", False),
        ("'a'", False),
        ("lambda: 1", False),
        ("x_1", False),
        ("1;2", False),
        ("\uff4f", False),  # a letter that Python reads as o
    ],
)
def test_expressions(text, expected):
    assert tasks.is_expression(text) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"entry": {"question": "?"}}, "entry must be an object with question, answer"),
        ({"task": ""}, "task is ''"),
        ({"settings": 3}, "settings is 3"),
        ({"gold": ""}, "gold is ''"),
        ({"size": 3}, "unknown keys ['size']"),
    ],
)
def test_checks_at_fault(change, expected):
    assert any(expected in fault for fault in check_faults(check_of("gcd") | change))


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(tasks, "installed_version", lambda package: "0.2.0")
    with pytest.raises(ValueError, match=r"pip install reasoning-gym==0\.1\.25"):
        tasks.load_library()


@pytest.mark.slow
def test_workers_decide_under_their_limits():
    chain, countdown = check_of("chain_sum"), check_of("countdown")
    jobs = [
        Job("right", chain, chain["gold"]),
        Job("wrong", chain, "no number"),
        Job("hang", countdown, "9**9**9**9"),
        Job("after the hang", countdown, countdown["gold"]),
        Job("none", chain, None),
    ]
    with VerifierPool(1, seconds=3) as pool:
        verdicts = {name: result.verdict.value for name, result in pool.check(jobs)}
    assert verdicts == {
        "right": "correct",
        "wrong": "wrong",
        "hang": "timeout",
        "after the hang": "correct",
        "none": "no_answer",
    }
