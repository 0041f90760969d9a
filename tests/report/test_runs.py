"""Scores, stages and the command, by hand, on tables that the real writers made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.report.tables import write_traces

from variational_reasoning.pipeline.rows import Identity, write_table
from variational_reasoning.pipeline.work.timings import read_timings, record, timed
from variational_reasoning.report.evaluations import pass_curve
from variational_reasoning.report.report import read_runs, summary, write_report
from variational_reasoning.report.runs import read_run
from variational_reasoning.report.scores import benchmark_name, benchmarks
from variational_reasoning.report.training import read_trainings

SCRIPT = Path(__file__).parents[2] / "scripts/report.py"


def write_evaluation(run: Path, name: str, correct: list[list[bool]]):
    """correct: per question, per sample."""
    rows = [
        {
            "question_id": f"q{i}",
            "answer_id": j,
            "token_ids": [1, 2],
            "text": "t",
            "finish_reason": "stop",
            "seed": 0,
            "verdict": "correct" if is_correct else "wrong",
            "reason": "",
            "tier": "",
        }
        for i, samples in enumerate(correct)
        for j, is_correct in enumerate(samples)
    ]
    write_table(run / "evals" / name, "evals", rows, Identity({}, {}))
    shares = [sum(samples) / len(samples) for samples in correct]
    result = {
        "name": name,
        "avg": sum(shares) / len(shares),
        "num_answers": len(rows),
        "verdicts": {"correct": sum(map(sum, correct))},
        "num_samples": len(correct[0]),
        "mean_tokens": 2.0,
        "truncated": 0.25,
        "no_answer": 0.0,
    }
    (run / "evals" / name / "result.json").write_text(json.dumps(result))


def report(folders: list[Path]) -> str:
    return summary(read_runs(folders))


def test_an_adapter_is_reported_from_where_it_was_trained(tmp_path):
    rows = {"count": 10, "mean_target_tokens": 3.0, "dropped_longer_than_cutoff_len": 2}
    files = {
        "adapters/reasoner/variational_reasoning.json": {
            "rows": rows,
            "model": {"path": "Qwen/Qwen3-8B-Base"},
        },
        "adapters/reasoner/train_results.json": {"epoch": 3.0},
        "adapters/reasoner/trainer_state.json": {"log_history": [{"step": 1, "loss": 2.0}]},
        "models/reasoner/variational_reasoning.json": {
            "rows": rows
        },  # the merged model keeps the record alone
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    record(tmp_path, "train reasoner", 1.0)
    assert read_run(tmp_path).stages["train reasoner"] == (
        12,
        10,
        90,
        {"longer than cutoff_len": 2},
    )  # 10 x 3 x 3 epochs
    assert "| train reasoner | 1.0 | 90 |" in report([tmp_path])
    assert read_trainings(tmp_path) == [("reasoner", {"loss": ([1], [2.0])})]


def test_a_suite_is_one_command_with_the_tokens_of_its_tasks(tmp_path):
    write_evaluation(tmp_path, "final/vr_aime24", [[True], [False]])
    write_evaluation(tmp_path, "final/vr_aime25", [[True]])
    record(tmp_path, "evaluate_final", 4.0)
    assert "| evaluate_final | 4.0 | 6 |" in report([tmp_path])  # three answers of two tokens


def test_other_questions_are_refused(tmp_path):
    write_evaluation(tmp_path, "reasoner", [[True]])
    write_evaluation(tmp_path, "final", [[True], [True]])
    with pytest.raises(
        ValueError, match=r"final: 1 questions were asked of one model only, such as \['q1'\]"
    ):
        report([tmp_path])


def test_one_run(tmp_path):
    write_evaluation(tmp_path, "final", [[True, True], [True, False]])
    write_evaluation(tmp_path, "reasoner", [[True, False], [True, False]])
    write_evaluation(tmp_path, "base", [[False, False], [False, False]])
    record(tmp_path, "prepare_data", 2.0)
    record(tmp_path, "train_reasoner", 10.0)
    record(tmp_path, "prepare_data", 0.5)
    text = report([tmp_path])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    # final 1, 1/2: mean 75 %, error sqrt(1/8 / 2) = 25; difference 1/2, 0: +25 with the same error
    assert lines[0].startswith("| model | Avg@2 | against reasoner |")
    assert lines[2].startswith("| base | 0.0 ± 0.0 | -50.0 ± 0.0 |")
    assert lines[3].startswith("| reasoner | 50.0 ± 0.0 |  |")
    assert lines[4] == "| final | 75.0 ± 25.0 | +25.0 ± 25.0 | 2.0 | 25.0% | 0.0% | 1 |"
    assert "| prepare_data | 2.5 |  |" in lines
    assert "| all | 12.5 |  |" in lines


def test_several_runs_have_errors_over_runs(tmp_path):
    runs = [tmp_path / "0", tmp_path / "1"]
    for run, final in zip(
        runs, ([[True, True], [True, True]], [[True, False], [True, True]]), strict=True
    ):
        write_evaluation(run, "reasoner", [[True, False], [True, False]])
        write_evaluation(run, "final", final)
    # final 100 and 75: mean 87.5, error 12.5; gains 50 and 25: +37.5, error 12.5
    assert "| final | 87.5 ± 12.5 | +37.5 ± 12.5 | 2.0 | 25.0% | 0.0% | 2 |" in report(runs)


def test_health_and_warnings_are_shown(tmp_path):
    health = {
        "malformed_share": 0.2,
        "copies_share": 0.1,
        "coverage": None,
        "mean_effective_sample_size": 3.5,
        "num_traces_per_question": 8,
        "num_questions_without_weights": 2,
        "warnings": ["malformed_share is 0.2, outside 0 to 0.05: too short"],
    }
    (tmp_path / "health.json").write_text(json.dumps(health))
    text = report([tmp_path])
    assert f"| {tmp_path} | 20.0% | 10.0% | not measured | 3.50 of 8 | 2 |" in text
    assert "**Warning**" in text
    assert "No model is evaluated yet" in text


def test_questions_that_teach_nothing_and_figures_without_expert_traces(tmp_path):
    health = {
        "malformed_share": 0.0,
        "copies_share": None,
        "coverage": 0.5,
        "mean_effective_sample_size": None,
        "num_traces_per_question": 8,
        "num_questions_without_weights": 2,
        "num_questions": 1200,
        "num_questions_never_right": 3,
        "num_questions_always_right": 0,
        "warnings": [],
    }
    (tmp_path / "health.json").write_text(json.dumps(health))
    text = report([tmp_path])
    assert f"| {tmp_path} | 0.0% | not measured | 50.0% | none of 8 | 2 |" in text
    assert "of 1,200 questions 3 are never and 0 always answered right" in text


def test_timings_skip_what_did_nothing_and_refuse_a_broken_line(tmp_path):
    with timed(tmp_path, "one"):
        pass
    with timed(tmp_path, "two") as timing:
        timing.did_something = False
    assert list(read_timings(tmp_path)) == ["one"]
    with (tmp_path / "timings.jsonl").open("a") as stream:
        stream.write('{"stage": "x"}\n')
    with pytest.raises(ValueError, match=r"timings.jsonl, line 2 is not"):
        read_timings(tmp_path)


def test_evaluations_of_different_k_are_refused(tmp_path):
    write_evaluation(tmp_path, "a", [[True]])
    write_evaluation(tmp_path, "b", [[True, True]])
    with pytest.raises(ValueError, match=r"different numbers of samples per question: \[1, 2\]"):
        report([tmp_path])


def test_a_failed_sample_does_not_stop_the_report(tmp_path):
    """q1's only sample failed: it is left out, where both were asked the same questions."""
    runs = [tmp_path / "0", tmp_path / "1"]
    for run in runs:
        write_evaluation(run, "reasoner", [[False], [True]])
        write_evaluation(run, "final", [[True]])
    for path in tmp_path.glob("*/evals/*/result.json"):
        result = json.loads(path.read_text()) | {"questions": "0a", "settings": {"num_samples": 1}}
        path.write_text(json.dumps(result))
    text = report([runs[0]])
    assert "| final | 100.0 | +100.0 |" in text
    assert f"{runs[0]}: final and reasoner: 1 question is not compared" in text
    assert "| final | 100.0 ± 0.0 | +100.0 ± 0.0 |" in report(runs)


def test_seeds_that_lost_different_numbers_of_samples(tmp_path):
    runs = [tmp_path / "0", tmp_path / "1"]
    write_evaluation(runs[0], "reasoner", [[True, True]])
    write_evaluation(runs[1], "reasoner", [[True]])
    for path in tmp_path.glob("*/evals/*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"num_samples": 2}}))
    written = write_report(runs, tmp_path / "report.md")
    assert "| reasoner | 100.0 ± 0.0 |" in written.markdown and "Avg@2" in written.markdown
    assert len(written.pictures) == 1


def test_an_unfinished_evaluation_is_named(tmp_path):
    write_evaluation(tmp_path, "reasoner", [[True]])
    (tmp_path / "evals/final/samples").mkdir(parents=True)
    (tmp_path / "evals/final/samples/stage.json").write_text("{}")
    text = report([tmp_path])
    assert f"{tmp_path}: final is not finished and not in this report" in text


def test_pass_curve_by_hand(tmp_path):
    write_evaluation(tmp_path, "final", [[True, False, False], [True, True, False]])
    # k = 1: (1/3 + 2/3) / 2; k = 2: 1 - C(2,2)/C(3,2) = 2/3 and 1; k = 3: 1
    curve = pass_curve(read_run(tmp_path).evaluations["final"])
    assert [estimate.mean for estimate in curve] == pytest.approx([0.5, 5 / 6, 1.0])


def test_benchmarks_next_to_the_papers_figures(tmp_path):
    write_evaluation(tmp_path, "final/vr_math500", [[True, True], [True, False]])
    write_evaluation(tmp_path, "final/other", [[True, True]])
    (tmp_path / "models/final").mkdir(parents=True)
    (tmp_path / "models/final/train_results.json").write_text("{}")
    record = {"model": {"path": "Qwen/Qwen3-4B-Base"}}
    (tmp_path / "models/final/variational_reasoning.json").write_text(json.dumps(record))
    (table,) = benchmarks([read_run(tmp_path)]).tables
    assert table.columns == ["model", "math500"]
    assert table.rows[:2] == [
        ["final (this run)", "75.0 ± 25.0"],
        ["Qwen3-4B-Base (paper)", "45.3"],
    ]
    assert ["PB-Acc-4B (paper)", "88.3"] in table.rows and not any(
        "8B" in row[0] for row in table.rows
    )
    assert [benchmark_name(name) for name in ("AIME24", "livecodebench_easy", "aime")] == [
        "aime24",
        "livecodebench_easy",
        None,
    ]


def test_stages_count_rows_tokens_and_reasons(tmp_path):
    write_traces(
        tmp_path,
        {"q0": "", "q1": ""},
        {("q0", 0): {"verdicts": ("correct", "wrong")}, ("q1", 0): {}},
    )
    rows = [{"question_id": "q0", "trace_id": 0, "answer_id": 0, "token_ids": [1], "text": "7"}]
    rows[0] |= {"finish_reason": "stop", "seed": 0}
    folder = tmp_path / "answers"
    write_table(folder, "answers", rows, Identity({}, {"sampling.num_answers": 2}))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["counts"] = {"tokens": 9, "traces": 2, "malformed": 1, "no_room": 1, "stop": 1}
    manifest["dropped"] = [{"question_id": "q1", "reason": "no room in cutoff_len 8"}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_evaluation(tmp_path, "final", [[True, False]])
    (tmp_path / "models/reasoner").mkdir(parents=True)
    record = {"rows": {"count": 10, "dropped_longer_than_cutoff_len": 2, "mean_target_tokens": 3.5}}
    (tmp_path / "models/reasoner/variational_reasoning.json").write_text(json.dumps(record))
    (tmp_path / "models/reasoner/train_results.json").write_text('{"epoch": 4.0}')
    stages = read_run(tmp_path).stages
    assert stages["prepare_data"] == (3, 2, None, {"empty trace": 1})
    # two traces without answers of two each, and one answer
    assert stages["sample_answers"] == (5, 1, 9, {"malformed": 1, "no room in cutoff_len 8": 1})
    assert stages["train reasoner"] == (12, 10, 140, {"longer than cutoff_len": 2})
    assert stages["evaluate_final"] == (2, 2, 4, {"correct": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder is named"),
        (["nowhere"], "there is no run folder nowhere"),
        (["."], "holds no evaluation, timing or train file"),
        ([".", "."], "none of them twice"),
        ([".", "basline=x"], "unknown options basline"),
        ([".", "output=page.html"], "must end in .md"),
    ],
)
def test_the_command_refuses_with_exit_code_2(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_writes_the_page(tmp_path):
    write_evaluation(tmp_path, "reasoner", [[True, False]])
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.md").read_text() in done.stdout
    assert "| reasoner | 50.0 |" in done.stdout
    assert "and 1 plots in report_figures/" in done.stdout
    assert (tmp_path / "report_figures/pass_at_k.png").read_bytes().startswith(b"\x89PNG")
