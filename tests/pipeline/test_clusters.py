"""Clusters of steps: what is centered, how they are numbered, what they tell."""

import random
import shutil

import pytest

from variational_reasoning.pipeline.clusters import (
    cluster_steps,
    describe,
    describe_clusters,
    directions,
    fit,
    step_vector,
)
from variational_reasoning.pipeline.config import load_config

pytest.importorskip("sklearn")


def chain_steps(num_questions: int = 60) -> list[dict]:
    """Two steps per question. The state is the value's direction, far away by the step's place."""
    rng, steps = random.Random(0), []
    for number in range(num_questions):
        for place in range(2):
            value = number % 3 if place == 0 else (number // 3) % 3
            vector = [rng.gauss(0, 0.01) for _ in range(8)]
            vector[value] += 1.0
            vector[7] += 50.0 * place
            steps.append(
                {
                    "question_id": f"q{number}",
                    "step": place,
                    "value": str(value),
                    "token_ids": [value, 9],
                    "vector": vector,
                }
            )
    return steps


def test_a_cluster_is_a_value_and_not_a_place():
    steps = chain_steps()
    labels = fit(steps, 3, seed=0, limit=1000)
    by_value = {step["value"]: set() for step in steps}
    for step, label in zip(steps, labels, strict=True):
        by_value[step["value"]].add(label)
    assert sorted(map(tuple, by_value.values())) == [(0,), (1,), (2,)]
    assert fit(steps, 3, seed=0, limit=1000) == labels
    assert len(set(fit(steps, 3, seed=0, limit=30))) == 3  # fitted on some, given to all


def test_the_state_at_the_end_of_a_step_can_be_left_out():
    torch = pytest.importorskip("torch")
    states = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])
    assert step_vector(states, "all").tolist() == [3.0, 3.0]
    assert step_vector(states, "all_but_last").tolist() == [2.0, 4.0]
    assert step_vector(states[:1], "all_but_last").tolist() == [1.0, 2.0]


def test_which_states_are_averaged_is_part_of_the_table(make_run, tiny_model_dir):
    path = make_run(steps={"pattern": r"[^ ]+ *[^ ]+ *", "clusters": 3})
    cluster_steps(load_config(path), tiny_model_dir)
    other = load_config(path, ["steps.states=all"])
    with pytest.raises(ValueError, match="steps.states"):
        cluster_steps(other, tiny_model_dir)


def test_directions_are_centered_by_place_and_of_length_one():
    points = directions(chain_steps())
    assert points.shape == (120, 8)
    assert abs((points**2).sum(1) - 1).max() < 1e-9
    lonely = [{"step": 0, "vector": [3.0, 4.0]}]
    assert directions(lonely).tolist() == [[0.0, 0.0]]


def test_too_few_steps_for_the_clusters_are_refused():
    with pytest.raises(ValueError, match=r"steps.clusters is 64, .* only 4 different"):
        fit(chain_steps(2), 64, seed=0, limit=100)


def test_what_the_symbols_tell():
    steps = chain_steps(9)
    labels = [int(step["value"]) for step in steps]
    answers = {f"q{number}": str((number // 3) % 3) for number in range(9)}
    figures = describe(steps, labels, answers, 3)
    # The second step's symbol is the answer; the first one tells nothing of it.
    assert figures["bits_about_answer"] == pytest.approx([0, 1.585], abs=1e-3)
    assert figures["bits_about_value"] == pytest.approx([1.585, 1.585], abs=1e-3)
    assert figures["clusters"][1] == {"1": 6, "9": 6}
    assert figures["sizes"] == [6, 6, 6]
    shown = describe_clusters(figures)
    assert "step 1: symbol tells 1.58 of 1.58 bits of the answer" in shown
    assert "mostly chance" in shown  # 3 different answers of 9 questions


def test_a_killed_command_goes_on_with_the_same_bytes(make_run, tiny_model_dir):
    config = load_config(make_run(steps={"pattern": r"[^ ]+ *", "clusters": 3}))
    figures = cluster_steps(config, tiny_model_dir)
    assert figures["num_questions"] == 6

    def files() -> dict[str, bytes]:
        paths = config.folder().glob("step*/shard-*.parquet")
        return {str(path): path.read_bytes() for path in paths}

    before = files()
    assert len(before) == 4  # three of states, one of clusters
    # Killed before the second shard of states.
    (config.folder("steps") / "manifest.json").unlink()
    (config.folder("steps") / "shard-00001.parquet").unlink()
    shutil.rmtree(config.folder("step_clusters"))
    assert cluster_steps(config, tiny_model_dir) == figures
    assert files() == before
    # Killed after the clusters, before what they tell.
    (config.folder("step_clusters") / "clusters.json").unlink()
    assert cluster_steps(config, tiny_model_dir) == figures
