"""evals/report.py on verdicts that are written out, and as a command."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.pipeline.evaluate import summarize
from variational_reasoning.pipeline.rows import Identity, write_table

ROOT = Path(__file__).parents[2]


def write_evaluation(
    folder: Path, model: str, task: str, shares: dict[str, str], seed: int = 0, **changes
) -> Path:
    """What an evaluation leaves.

    shares: question to its samples: c for correct, w wrong, n no answer, u undecided.
    """
    verdicts = {"c": "correct", "w": "wrong", "n": "no_answer", "u": "checker_error"}
    rows = [
        {
            "question_id": question,
            "answer_id": m,
            "token_ids": [1] * 10,
            "text": "",
            "seed": m,
            "reason": "",
            "tier": "",
        }
        | {"verdict": verdicts[letter], "finish_reason": "length" if letter == "n" else "stop"}
        for question, letters in shares.items()
        for m, letter in enumerate(letters)
    ]
    place = folder / f"{model}-seed{seed}" / task
    write_table(place, "evals", rows, Identity({"rows": json.dumps(shares)}, {}))
    result = {
        "name": model,
        "task": task,
        "model": f"models/{model}",
        **summarize(rows),
        "dropped": 0,
        "failed": 0,
        "seed": seed,
        "questions": "0a",
        "settings": {"cutoff_len": 100, "sampling.dtype": "float32"},
        "prompt": "<|im_start|>user\nHow | many?",
        "versions": [{"python": "3.12.1", "vllm": "0.32.0"}],
        "execution": {"device": "cpu"},
        "about": {},
    }
    (place / "result.json").write_text(json.dumps(result | changes))
    return folder


@pytest.fixture
def report(monkeypatch, capsys):
    """The command in this process, as a function from its arguments to what it prints."""
    monkeypatch.syspath_prepend(ROOT / "evals")
    main = importlib.import_module("report").main  # evals/report.py

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def results(tmp_path) -> Path:
    """Two models on AIME24 and on a task of their own, one of them also on AMC23."""
    folder = tmp_path / "results"
    # shares 1/2, 0, 1: mean 1/2, error 1/2 / sqrt(3) = 28.9 points; Pass@2 is 1, 0, 1
    write_evaluation(folder, "base", "vr_aime24", {"a": "cw", "b": "wn", "c": "cc"})
    # shares 1, 0, 1; against base +1/2, 0, 0
    write_evaluation(folder, "final", "vr_aime24", {"a": "cc", "b": "ww", "c": "cc"})
    write_evaluation(folder, "base", "vr_file", {"x": "w", "y": "w"})
    write_evaluation(folder, "final", "vr_file", {"x": "c", "y": "w"})
    write_evaluation(folder, "final", "vr_amc23", {"q": "ccwn"})
    return folder


def test_figures_by_hand(results, report):
    text = report(results, "baseline=base", "paper=PB-Acc-4B,RLT-7B")
    assert "| model | AIME24 Avg@2 | AMC23 Avg@4 | vr_file Avg@1 |" in text
    assert "| base | 50.0 ± 28.9 |  | 0.0 ± 0.0 |" in text
    assert "| final | 66.7 ± 33.3 | 50.0 | 50.0 ± 50.0 |" in text
    assert (
        "| PB-Acc-4B (paper) | 31.7 | 75.6 |  |" in text
        and "RLT-7B (paper)" in text
        and "PB-GML-4B" not in text
    )
    assert "| AIME24 | base | 2 | 3 | 10 | 16.7% | 16.7% | @1 50.0 ± 28.9, @2 66.7 ± 33.3 |" in text
    # 2 of 4 correct: Pass@2 is 1 - 1/6, Pass@4 is 1
    assert "| AMC23 | final | 4 | 1 | 10 | 25.0% | 25.0% | @1 50.0, @2 83.3, @4 100.0 |" in text
    assert "AMC23, final: 25% of the answers are truncated" in text
    # +1/2, 0, 0: a resample's mean is 0 with chance 8/27 and 1/2 with chance 1/27 > 2.5 %
    assert "| final | AIME24 | +16.7 | +0.0 to +50.0 |" in text
    # 1, 0 on vr_file: mean 1/2; both together (1/6 + 1/2) / 2
    assert (
        "| final | vr_file | +50.0 | +0.0 to +100.0 |" in text
        and "| final | mean of 2 tasks | +33.3 | " in text
    )
    assert "~~~~~~~~text\n<|im_start|>user\nHow | many?\n" in text and "vllm 0.32.0" in text
    assert (results / "report.md").read_text() in text
    with (results / "report.csv").open() as stream:
        rows = {(row["source"], row["model"], row["task"]): row for row in csv.DictReader(stream)}
    assert float(rows["measured", "base", "AIME24"]["pass@2"]) == pytest.approx(2 / 3, rel=1e-15)
    assert float(rows["measured", "final", "AMC23"]["pass@3"]) == 1.0
    assert (
        rows["measured", "final", "vr_file"]["pass@2"] == ""
        and rows["paper", "RLT-7B", "AIME24"]["avg"] == "0.2281"
    )
    assert ("paper", "RLT-7B", "vr_file") not in rows and len(rows) == 5 + 2 * 2
    for name in ("scores.png", "pass_at_k.png"):
        assert (results / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_not_the_same_is_said_and_never_compared(results, report):
    write_evaluation(
        results, "other", "vr_aime24", {"a": "cc", "d": "cc", "c": "cc"}, questions="0b"
    )
    write_evaluation(
        results,
        "other",
        "vr_file",
        {"x": "c", "y": "u"},
        settings={"cutoff_len": 50, "sampling.dtype": "float32"},
    )
    text = report(results, "baseline=base")
    assert (
        "AIME24: other and base differ in questions" in text and "| other | AIME24 | +" not in text
    )
    assert (
        "vr_file: other and base differ in cutoff_len" in text
        and "| other | vr_file | +50.0 |" in text
    )
    assert "vr_file, other: no checker decides 1 answers" in text


def test_a_question_whose_only_sample_failed_is_left_out_of_comparisons(results, report):
    """One of 3 samples failed, which is allowed: the question is not in the verdicts at all."""
    write_evaluation(results, "failed", "vr_file", {"x": "c"}, failed=1)
    text = report(results, "baseline=base")
    assert "| failed | vr_file | +100.0 | +100.0 to +100.0 |" in text
    assert "vr_file: failed and base: 1 question is not compared" in text
    assert "vr_file, failed: 1 samples failed in the engine and do not count" in text
    # without a question in common there is nothing to compare, and the others are still shown
    write_evaluation(results, "none", "vr_file", {"y": "c"}, failed=1)
    text = report(results, "baseline=failed")
    assert (
        "vr_file: none and failed: 2 questions are not compared" in text
        and "| base | vr_file |" in text
    )


def test_a_question_that_lost_samples_counts_up_to_the_k_that_it_has(results, report):
    settings = {"cutoff_len": 100, "sampling.dtype": "float32", "num_samples": 3}
    shares = {"a": "cww", "b": "cw", "c": "w"}
    write_evaluation(results, "lost", "vr_aime25", shares, failed=3, settings=settings)
    text = report(results)
    # Pass@1 (1/3 + 1/2 + 0) / 3, Pass@2 over a and b (2/3 + 1) / 2, Pass@3 over a
    assert (
        "| AIME25 | lost | 3 | 3 | 10 | 0.0% | 0.0% | @1 27.8 ± 14.7, @2 83.3 ± 16.7, @3 100.0 |"
        in text
    )
    assert "AIME25 Avg@3" in text


def test_the_folder_of_one_model_or_of_one_task(results, report, tmp_path):
    assert "| final | 66.7 ± 33.3 | 50.0 | 50.0 ± 50.0 |" in report(results / "final-seed0")
    assert "| final | 50.0 |" in report(results / "final-seed0/vr_amc23")
    # of a run, the folder of a model holds the result itself
    write_evaluation(tmp_path / "run", "x", "", {"a": "cw"})
    assert "| x | 50.0 |" in report(tmp_path / "run/x-seed0")


def test_unfinished_evaluations_are_named(results, report, tmp_path):
    def begin(place: Path, num_sampled: int, is_whole: bool, num_judged: int) -> None:
        for table, count in ((place / "samples", num_sampled), (place, num_judged)):
            table.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (table / f"shard-{number:05d}.parquet").touch()
        (place / "samples/stage.json").write_text("{}")
        if is_whole:
            (place / "samples/manifest.json").write_text("{}")

    begin(results / "slow-seed0/vr_aime24", 3, False, 0)
    begin(results / "final-seed0/vr_aime25", 5, True, 2)
    text = report(results)
    assert (
        "slow-seed0/vr_aime24 is not finished and not in this report: 3 shards of answers are "
        "sampled. Run evals/run.py again" in text
    )
    assert (
        "final-seed0/vr_aime25 is not finished and not in this report: all answers are sampled, "
        "2 shards of them are judged" in text
    )
    begin(tmp_path / "only/model-seed0/vr_aime24", 0, False, 0)
    with pytest.raises(ValueError, match="holds no finished evaluation") as caught:
        report(tmp_path / "only")
    assert "model-seed0/vr_aime24 is not finished" in str(caught.value)


def test_seeds_of_one_model_are_kept_apart(results, report, tmp_path):
    again = write_evaluation(
        tmp_path / "again", "final", "vr_aime24", {"a": "cc", "b": "ww", "c": "cw"}, seed=1
    )
    text = report(results, again)
    assert "| final seed 0 | " in text and "| final seed 1 | 50.0 ± 28.9 |" in text
    assert (tmp_path / "report.md").is_file()


def test_refusals(results, report, tmp_path):
    twice = write_evaluation(tmp_path / "twice", "base", "vr_aime24", {"a": "c"})
    (tmp_path / "empty").mkdir()
    cases = {
        (): "no folder is named",
        (results, "colour=red"): r"unknown options colour",
        (results, "baseline=nobody"): "baseline='nobody' is not one of base, final",
        (results, "paper=70B"): "paper='70B' fits no model or backbone",
        (tmp_path / "empty",): r"holds no result\.json, neither in itself",
        (tmp_path / "nowhere",): "there is no folder",
        (results, twice): "both hold base, seed 0, AIME24",
    }
    for arguments, message in cases.items():
        with pytest.raises(ValueError, match=message):
            report(*arguments)


def test_the_command_refuses_without_a_traceback(tmp_path):
    command = [sys.executable, "evals/report.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: ")
        and "Traceback" not in done.stderr
    )
