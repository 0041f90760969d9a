"""Questions of reasoning-gym in stage 0 and in the evaluation."""

import importlib.util
import json

import pytest

from tests.conftest import ROOT
from variational_reasoning.pipeline.config import GymConfig, load_config
from variational_reasoning.pipeline.questions import gym as gym_module
from variational_reasoning.pipeline.questions.gym import gym_faults, gym_rows
from variational_reasoning.pipeline.questions.prepare import prepare_data
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.gym import tasks
from variational_reasoning.verify.verdicts import Verdict

pytest.importorskip("reasoning_gym", reason="needs reasoning-gym: pip install -e '.[gym]'")

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
"""chain_sum with one operation on two digits: 200 questions at most."""


def questions(split: str, source: str = "reasoning_gym:chain_sum", **sizes) -> list[str]:
    rows, _ = gym_rows(source, split, GymConfig(**sizes))
    return [row["question"] for row in rows]


def test_train_and_test_share_no_question_also_where_questions_repeat():
    gym = {"train_size": 60, "test_size": 40, "tasks": {"chain_sum": SMALL}}
    train, test = questions("train", **gym), questions("test", **gym)
    assert (len(set(train)), len(set(test))) == (60, 40)
    assert not set(train) & set(test)


def test_the_same_seed_gives_the_same_rows_and_a_neighboring_one_others():
    same = gym_rows("reasoning_gym:chain_sum", "train", GymConfig(train_size=30))
    assert same == gym_rows("reasoning_gym:chain_sum", "train", GymConfig(train_size=30))
    first, second = (questions("train", train_size=200, seed=seed) for seed in (0, 1))
    assert len(set(first) & set(second)) < 20


def test_several_tasks_share_the_sizes():
    rows, _ = gym_rows("reasoning_gym:chain_sum+gcd", "train", GymConfig(train_size=5))
    assert [row["source"] for row in rows] == ["reasoning_gym/chain_sum"] * 3 + [
        "reasoning_gym/gcd"
    ] * 2
    assert all(check_faults(row["check"]) == [] for row in rows)
    assert len({row["question_id"] for row in rows}) == 5


def rejecting(monkeypatch, *numbers: int) -> None:
    """The verifier of every task rejects the golds of the questions with these numbers."""
    rejected = {
        gym_rows("reasoning_gym:gcd", "train", GymConfig())[0][n]["question"] for n in numbers
    }

    def judge(check, solution):
        is_wrong = check["entry"]["question"] in rejected
        return (Verdict.WRONG, "score 0.01") if is_wrong else tasks.compare(check, solution)

    monkeypatch.setattr(gym_module, "compare", judge)


def test_a_question_whose_own_gold_is_rejected_is_left_out(monkeypatch, capsys):
    gym = {"source": "reasoning_gym:gcd", "train_size": 4, "test_size": 2}
    before = questions("train", **gym) + questions("test", **gym)
    rejecting(monkeypatch, 1, 4)
    train, test = questions("train", **gym), questions("test", **gym)
    # Of the stream q0 q1 q2 q3 q4 q5 ... the second and the fifth are gone.
    assert train[:3] == [before[0], before[2], before[3]]
    assert train[3] == before[5] and not set(train) & set(test)
    assert not {before[1], before[4]} & {*train, *test}
    assert "2 more are left out, because the task's verifier does not accept" in (
        capsys.readouterr().out
    )


def test_a_task_with_too_few_questions_says_how_many_golds_were_rejected(monkeypatch):
    monkeypatch.setattr(gym_module, "compare", lambda *_: (Verdict.WRONG, "score 0"))
    with pytest.raises(ValueError, match=r"has fewer different questions: \d+ more are left out"):
        questions("test", "reasoning_gym:gcd", train_size=2, test_size=2)


def test_a_task_with_too_few_questions_is_refused():
    with pytest.raises(ValueError, match=r"chain_sum .* different questions; data.gym asks for"):
        questions("test", train_size=400, tasks={"chain_sum": SMALL})


@pytest.mark.parametrize(
    ("source", "gym", "expected"),
    [
        ("reasoning_gym:chain_sums", {}, "did you mean 'chain_sum'?"),
        ("reasoning_gym:composite", {}, "'composite' is not offered: it is made of other tasks"),
        ("reasoning_gym:gcd+gcd", {}, "the task 'gcd' is there twice"),
        ("reasoning_gym:gcd", {"tasks": {"gcd": 3}}, "data.gym.tasks.gcd: 3 is not a section"),
        ("reasoning_gym:gcd+lcm", {"test_size": 1}, "2 tasks share data.gym.train_size (1000)"),
    ],
)
def test_names_and_sizes_that_do_not_fit(source, gym, expected):
    assert any(expected in fault for fault in gym_faults(source, GymConfig(**gym)))


def test_settings_that_a_task_does_not_have():
    with pytest.raises(ValueError, match=r"chain_sum does not take .*; it has .*min_terms"):
        questions("train", tasks={"chain_sum": {"min_term": 2}})


@pytest.fixture
def gym_config(tmp_path, tiny_model_dir):
    """A pipeline.yaml whose questions are those of a task."""

    def write(**values):
        settings = {
            "run_dir": str(tmp_path / "run"),
            "base": str(tiny_model_dir),
            "prompt_family": "think",
            "posterior": "prompted",
            "data": {
                "train": "reasoning_gym:chain_sum",
                "test": "reasoning_gym:chain_sum",
                "gym": {"train_size": 6, "test_size": 4},
            },
        }
        path = tmp_path / "pipeline.yaml"
        path.write_text(json.dumps(settings | values))  # JSON is YAML
        return load_config(path)

    return write


def test_stage_0_and_the_evaluation_read_a_task(gym_config):
    config = gym_config()
    summary = prepare_data(config)
    assert summary.num_rows == {"train": 6, "test": 4}
    assert summary.check_kinds == {"reasoning_gym": 10}
    rows = read_rows(config.folder("questions"), "questions")
    checks = [json.loads(row["check"]) for row in rows]
    assert all(row["trace"] == "" for row in rows)
    train = [
        (row["solution"], check["gold"])
        for row, check in zip(rows, checks, strict=True)
        if row["split"] == "train"
    ]
    assert all(solution == gold for solution, gold in train)  # what the posterior sees

    spec = importlib.util.spec_from_file_location("evals_run", ROOT / "evals/run.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    evaluated = gym_config(eval={"file": "reasoning_gym:chain_sum"})
    asked = {row["question"] for row in command.run_questions(evaluated)}
    assert asked == {row["question"] for row in rows if row["split"] == "test"}


def test_a_task_cannot_train_stages_1_and_2(gym_config):
    with pytest.raises(ValueError, match="has questions without traces; set posterior: prompted"):
        prepare_data(gym_config(posterior="trained"))
