"""evals/run.py rejudge=true: new verdicts on the same answers, resumed after kills, or none at all."""

import dataclasses
import importlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import make_model_dir, record_of
from tests.pipeline.test_sample import shard_bytes

from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.evaluate import (
    Benchmark,
    Model,
    benchmark_verdicts_job,
    evaluate,
    recorded_renderer,
    samples_job,
    write_result,
)
from variational_reasoning.pipeline.rejudge import describe_changes, open_samples, rejudge
from variational_reasoning.pipeline.rows import read_rows, replace_table

ROOT = Path(__file__).parents[2]
ANSWERS = ("7", "8")
"""What every question is answered with, the right one first."""
QUESTIONS = [
    {
        "question_id": f"q{i}",
        "question": "3 + 4?",
        "check": json.dumps({"kind": "exact", "gold": "7"}),
    }
    for i in range(4)
]


def write_samples(benchmark: Benchmark, model: Model) -> None:
    """Answers in the tags of a solution, as a model would have written them."""
    stage = samples_job(benchmark, model).stage
    for index, units in stage.pending():
        rows = [
            {
                "question_id": question_id,
                "answer_id": number,
                "token_ids": [1, 2],
                "text": f"z{model.renderer.answer_open}{answer}{model.renderer.answer_close}",
                "finish_reason": "stop",
                "seed": 0,
            }
            for question_id in units
            for number, answer in enumerate(ANSWERS)
        ]
        stage.write_shard(index, rows)
    stage.finish(execution={"device": "cpu"})


def write_old_verdicts(benchmark: Benchmark, model: Model) -> None:
    """What an older checker thought: everything is wrong."""
    samples = samples_job(benchmark, model).stage
    stage = benchmark_verdicts_job(benchmark, model, samples, None).stage
    for index, _ in stage.pending():
        verdict = {"verdict": "wrong", "reason": "", "tier": ""}
        stage.write_shard(index, [row | verdict for row in samples.read_shard(index)])
    stage.finish()
    write_result(benchmark, model)


@pytest.fixture
def model(tmp_path, bpe_tokenizer) -> Model:
    folder = make_model_dir(tmp_path / "m", bpe_tokenizer, record=record_of("reasoner"))
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps({"eval": {"answers_per_shard": 2}}))
    config = load_config(path, ["sampling.device=cpu"])
    return Model("m", folder, recorded_renderer(folder, config), config)


@pytest.fixture
def judged(tmp_path, model) -> Benchmark:
    """Four questions of two answers each, in four shards, with old verdicts; the model is gone."""
    benchmark = Benchmark("made", tmp_path / "results/m/made", QUESTIONS, 2)
    write_samples(benchmark, model)
    write_old_verdicts(benchmark, model)
    shutil.rmtree(model.folder)
    return benchmark


def average(benchmark: Benchmark) -> float:
    return json.loads((benchmark.folder / "result.json").read_text())["avg"]


def test_new_verdicts_take_the_place_of_the_old_ones_and_answers_stay(judged, model):
    answers = shard_bytes(judged.folder / "samples")
    before = json.loads((judged.folder / "result.json").read_text())
    assert before["avg"] == 0.0
    [(_, done)] = rejudge([judged], "m", model.config)
    assert done.result["avg"] == average(judged) == 0.5
    assert done.changes == Counter({("wrong", "correct"): 4, ("wrong", "wrong"): 4})
    assert describe_changes(done.changes) == "4 of 8 verdicts changed: wrong to correct 4"
    assert shard_bytes(judged.folder / "samples") == answers
    assert not (judged.folder / "rejudged").exists()
    changed = {"avg", "verdicts"}
    for name in before.keys() - changed:
        assert before[name] == done.result[name], name
    [(_, again)] = rejudge([judged], "m", model.config)
    assert describe_changes(again.changes) == "none of 8 verdicts changed"


def test_a_share_that_is_done_stays_and_the_old_verdicts_too_until_all_is_there(judged, model):
    old = shard_bytes(judged.folder)
    half = dataclasses.replace(model.config, shard="0/2")
    assert list(rejudge([judged], "m", half)) == [(judged, None)]
    assert shard_bytes(judged.folder) == old and average(judged) == 0.0
    first = shard_bytes(judged.folder / "rejudged")
    assert len(first) == 2
    [(_, done)] = rejudge([judged], "m", model.config)
    assert done.result["avg"] == 0.5 and first.items() <= shard_bytes(judged.folder).items()


def test_other_limits_are_refused_by_an_evaluation_and_taken_by_new_verdicts(
    judged, model, tmp_path, bpe_tokenizer
):
    make_model_dir(tmp_path / "m", bpe_tokenizer, record=record_of("reasoner"))
    verify = dataclasses.replace(model.config.verify, timeout_seconds=9.0)
    config = dataclasses.replace(model.config, verify=verify)
    other = Model("m", model.folder, model.renderer, config)
    with pytest.raises(ValueError, match=r"verify\.timeout_seconds: there 2\.0") as caught:
        list(evaluate([judged], other))
    assert "rejudge=true" in str(caught.value) and "Remove" not in str(caught.value)
    next(iter(judged.folder.glob("shard-*.parquet"))).unlink()
    with pytest.raises(ValueError, match=r"lacks shards; .*rejudge=true"):
        list(evaluate([judged], model))
    (judged.folder / "manifest.json").unlink()
    [(_, done)] = rejudge([judged], "m", config)
    assert done.changes is None and done.result["avg"] == 0.5
    assert [result["avg"] for _, result in evaluate([judged], other)] == [0.5]


def test_killed_at_any_step_of_changing_places(judged, model, tmp_path):
    """Nobody can take a mixture for a finished table, and both commands end what was begun."""
    samples = open_samples(judged, model.config)
    newer = dataclasses.replace(judged, folder=judged.folder / "rejudged")
    stage = benchmark_verdicts_job(newer, model, samples, None).stage
    for index, _ in stage.pending():
        verdict = {"verdict": "correct", "reason": "", "tier": ""}
        stage.write_shard(index, [row | verdict for row in samples.read_shard(index)])
    stage.finish()
    new = shard_bytes(newer.folder)
    names = [*sorted(new), "stage.json", "manifest.json"]
    for num_moved in range(len(names) + 1):
        folder = shutil.copytree(judged.folder, tmp_path / f"killed{num_moved}")
        (folder / "result.json").unlink()
        (folder / "manifest.json").unlink()
        for name in names[:num_moved]:
            (folder / "rejudged" / name).replace(folder / name)
        if num_moved < len(names):
            with pytest.raises(ValueError, match=r"is not finished|manifest"):
                read_rows(folder, "evals")
            replace_table(folder, folder / "rejudged")
        assert shard_bytes(folder) == new
        assert {row["verdict"] for row in read_rows(folder, "evals")} == {"correct"}
    folder = shutil.copytree(judged.folder, tmp_path / "again")
    (folder / "manifest.json").unlink()
    [(_, done)] = rejudge([dataclasses.replace(judged, folder=folder)], "m", model.config)
    assert done.result["avg"] == 0.5  # the checker of today, after what was begun


def test_what_cannot_be_judged_again_is_listed_at_once(judged, model, tmp_path):
    other_check = [row | {"check": '{"kind": "exact", "gold": "8"}'} for row in QUESTIONS]
    benchmarks = [
        dataclasses.replace(judged, questions=other_check),
        dataclasses.replace(judged, num_samples=3),
        Benchmark("new", tmp_path / "results/m/new", QUESTIONS, 2),
    ]
    with pytest.raises(ValueError, match="nothing is judged again") as caught:
        list(rejudge(benchmarks, "m", model.config))
    for message in (
        "the questions or their checks are not those that were sampled",
        "2 answers were sampled to each question, but num_samples is 3",
        "new/samples is not finished: evaluate first",
    ):
        assert message in str(caught.value)
    assert average(judged) == 0.0


def test_checkers_that_decide_nothing_leave_the_old_verdicts(tmp_path, model):
    undecidable = [row | {"check": '{"kind": "none"}'} for row in QUESTIONS]
    benchmark = Benchmark("made", tmp_path / "results/m/made", undecidable, 2)
    write_samples(benchmark, model)
    write_old_verdicts(benchmark, model)
    old = shard_bytes(benchmark.folder)
    with pytest.raises(ValueError, match="no checker decides 8 of 8 answers"):
        list(rejudge([benchmark], "m", model.config))
    assert shard_bytes(benchmark.folder) == old and average(benchmark) == 0.0


def test_the_command(judged, model, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "evals")
    main = importlib.import_module("run").main
    run_dir = tmp_path / "results"
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (run_dir / "evals").mkdir()
    (run_dir / "m/made").replace(run_dir / "evals/m")

    def call(*words: str) -> str:
        settings = [f"run_dir={run_dir}", f"eval.file={questions}", "eval.num_samples=2"]
        command = ["run.py", str(tmp_path / "suite.yaml"), *settings, *words]
        monkeypatch.setattr(sys, "argv", command)
        main()
        return capsys.readouterr().out

    output = call("name=m", "rejudge=true")
    assert "Avg@2 50.0" in output and "4 of 8 verdicts changed: wrong to correct 4" in output
    for words, message in (
        (["name=m", "rejudge=yes"], "rejudge='yes' is not true or false"),
        (["rejudge=true"], "missing: name="),
        (["name=../m", "rejudge=true"], "name='../m' cannot be the name of a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            call(*words)
