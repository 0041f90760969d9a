"""Stage 7 on answers tables that the real writers made, with real worker processes where math needs
them.
"""

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline import verify
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.rows import (
    Identity,
    open_stage,
    read_rows,
    table_digest,
    write_table,
)

LEAD = make_renderer("chatml").answer_lead
END = "<|end_of_solution|>"
EXACT = {"kind": "exact", "gold": "5"}
HANG = r"\sum_{k=0}^{1000}(2+\sqrt{3})^{k}"
MATH = {"kind": "math", "gold": "x+1"}


def write_run(folder: Path, questions, settings=None, shard=2):
    """questions: id to (check, answer texts); each answer is after trace 0. Returns the
    configuration.
    """
    rows = [
        {
            "question_id": name,
            "question": f"What of {name}?",
            "trace": "t",
            "solution": "s",
            "source": "made",
            "check": json.dumps(check),
            "split": "train",
        }
        for name, (check, _) in questions.items()
    ]
    write_table(folder / "questions", "questions", rows, Identity({"made": "here"}, {}))
    answers = [
        {
            "question_id": name,
            "trace_id": 0,
            "answer_id": number,
            "token_ids": [1],
            "text": text,
            "finish_reason": "stop" if text.endswith(END) else "length",
            "seed": 0,
        }
        for name, (_, texts) in questions.items()
        for number, text in enumerate(texts)
    ]
    digest = table_digest(folder / "questions", "questions")
    write_table(folder / "answers", "answers", answers, Identity({"questions": digest}, {}))
    section = {"workers": 1, "timeout_seconds": 5, "questions_per_shard": shard} | (settings or {})
    (folder / "pipeline.yaml").write_text(json.dumps({"run_dir": str(folder), "verify": section}))
    return load_config(folder / "pipeline.yaml")


def verdicts(config):
    rows = read_rows(config.folder("verdicts"), "verdicts")
    return {(row["question_id"], row["answer_id"]): (row["verdict"], row["reason"]) for row in rows}


def solution(text):
    return LEAD + text + END


def test_every_answer_gets_its_own_verdict(tmp_path):
    texts = [
        solution("5"),
        solution("6"),
        LEAD + "5",
        "<|begin_of_thought|>again" + solution("5"),
        "nothing<|end_of_solution|>",
        solution(" "),
    ]
    questions = {
        "q0": (EXACT, texts),
        "q1": (MATH, [solution(r"\boxed{1+x}"), solution(r"\boxed{x+2}"), solution("1+x")]),
        "q2": (
            {"kind": "countdown", "numbers": [2, 3], "target": 6, "gold": "2*3"},
            [solution("3*2"), solution("3+2")],
        ),
    }
    config = write_run(tmp_path, questions)
    summary = verify.verify_answers(config)
    found = verdicts(config)
    assert [found["q0", i] for i in range(6)] == [
        ("correct", ""),
        ("wrong", ""),
        ("no_answer", "the answer was cut (finish_reason length)"),
        ("malformed", "more than the tags stands between trace and solution"),
        ("no_answer", "no <|end_of_solution|> in the answer"),
        ("no_answer", "the solution is empty"),
    ]
    assert [found["q1", i][0] for i in range(3)] == ["correct", "wrong", "no_answer"]
    assert [found["q2", i][0] for i in range(2)] == ["correct", "wrong"]
    assert summary.manifest["counts"] == {"correct": 3, "wrong": 3, "no_answer": 4, "malformed": 1}
    assert "correct 3, wrong 3, no_answer 4, malformed 1" in verify.describe_verdicts(summary)


@pytest.mark.slow
def test_the_same_verdicts_with_one_and_two_workers_and_hung_answers(tmp_path):
    answers = [
        solution(rf"\boxed{{{text}}}")
        for text in ("1+x", HANG, "x+2", "x+1.0", HANG.replace("1000", "1100"))
    ]
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        config = write_run(
            folder, {"q0": (MATH, answers)}, {"workers": workers, "timeout_seconds": 3}
        )
        summary = verify.verify_answers(config)
        found.append({key: value[0] for key, value in verdicts(config).items()})
        assert summary.manifest["workers_replaced"] == 2
    assert found[0] == found[1]
    assert [found[0]["q0", i] for i in range(5)] == [
        "correct",
        "timeout",
        "wrong",
        "correct",
        "timeout",
    ]


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    questions = {f"q{i}": (EXACT, [solution("5"), solution("6")]) for i in range(5)}
    config = write_run(tmp_path, questions)
    verify.verify_answers(config)
    rows = read_rows(config.folder("verdicts"), "verdicts")
    (tmp_path / "verdicts/manifest.json").unlink()
    (tmp_path / "verdicts/shard-00001.parquet").unlink()
    kept = (tmp_path / "verdicts/shard-00000.parquet").stat().st_mtime_ns
    assert verify.verify_answers(config).did_something
    assert (tmp_path / "verdicts/shard-00000.parquet").stat().st_mtime_ns == kept
    again = read_rows(config.folder("verdicts"), "verdicts")
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]
    summary = verify.verify_answers(config)
    assert not summary.did_something
    assert "nothing to do" in verify.describe_verdicts(summary)


@pytest.mark.slow
def test_a_killed_run_keeps_its_shards_and_goes_on(tmp_path):
    hang = solution(rf"\boxed{{{HANG}}}")
    questions = {f"q{i}": (MATH, [hang, solution(r"\boxed{1+x}")]) for i in range(5)}
    config = write_run(tmp_path, questions, {"timeout_seconds": 1}, shard=1)
    script = Path(__file__).parents[2] / "scripts/verify_answers.py"
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "pipeline.yaml"], stderr=subprocess.DEVNULL
    ) as process:
        first = tmp_path / "verdicts/shard-00000.parquet"
        deadline = time.monotonic() + 120
        while not first.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    kept = first.stat().st_mtime_ns
    assert not (tmp_path / "verdicts/manifest.json").exists()
    verify.verify_answers(config)
    assert first.stat().st_mtime_ns == kept
    expected = {(f"q{i}", j): ("timeout", "correct")[j] for i in range(5) for j in range(2)}
    assert {key: verdict for key, (verdict, _) in verdicts(config).items()} == expected


def test_other_answers_are_refused(tmp_path):
    config = write_run(tmp_path, {"q0": (EXACT, [solution("5")])})
    verify.verify_answers(config)
    for path in [*(tmp_path / "answers").iterdir(), *(tmp_path / "questions").iterdir()]:
        path.unlink()
    config = write_run(tmp_path, {"q0": (EXACT, [solution("6")])})
    with pytest.raises(
        ValueError, match=r"(?s)verdicts was filled from something else.*inputs.answers"
    ):
        verify.verify_answers(config)


def test_golds_that_their_own_check_rejects_refuse_or_are_excluded(tmp_path):
    countdown = {"kind": "countdown", "numbers": [2, 3], "target": 7, "gold": "2*3"}
    questions = {"q0": (EXACT, [solution("5")]), "q1": (countdown, [solution("2*3")])}
    config = write_run(tmp_path, questions)
    with pytest.raises(
        ValueError,
        match=r"(?s)1 of 2 gold answers .*verify.bad_golds: exclude.*question q1: wrong: equals 6",
    ):
        verify.verify_answers(config)
    assert not (tmp_path / "verdicts").exists()
    summary = verify.verify_answers(
        load_config(tmp_path / "pipeline.yaml", ["verify.bad_golds=exclude"])
    )
    assert verdicts(config)["q1", 0] == ("unverifiable", verify.BAD_GOLD_REASON)
    assert verdicts(config)["q0", 0] == ("correct", "")
    assert summary.manifest["excluded_questions"] == {"q1": verify.BAD_GOLD_REASON}
    assert "1 the gold answer is not accepted" in verify.describe_verdicts(summary)


PROGRAM = {
    "kind": "program",
    "tests": {"inputs": ["3\n", "4\n"], "outputs": ["6\n", "8\n"]},
    "solution": ["print(int(input()) * 2)", "print(2 * int(input()))"],
}


def fenced(program):
    return solution(f"Double it.\n```python\n{program}\n```\n")


def test_programs_are_judged_in_a_sandbox_and_rows_name_its_tier(tmp_path, capsys):
    answers = [
        fenced("print(int(input()) * 2)"),
        fenced("print(6)"),
        fenced("print("),
        solution("6"),
        fenced("1 / 0"),
    ]
    config = write_run(tmp_path, {"q0": (PROGRAM, answers), "q1": (EXACT, [solution("5")])})
    summary = verify.verify_answers(config)
    found = [verdicts(config)["q0", i][0] for i in range(5)]
    assert found == ["correct", "wrong", "compile_error", "no_answer", "runtime_error"]
    rows = read_rows(config.folder("verdicts"), "verdicts")
    tiers = {(row["question_id"], row["answer_id"]): row["tier"] for row in rows}
    assert tiers["q0", 0] in ("T3", "T2") and tiers["q1", 0] == ""
    assert f"programs ran in tier {tiers['q0', 0]}" in verify.describe_verdicts(summary)
    assert "programs run in tier T" in capsys.readouterr().out


def test_programs_whose_own_solution_fails_refuse_or_are_excluded(tmp_path):
    bad = PROGRAM | {"solution": ["print(int(input()) * 2)", "print(6)"]}
    untried = {key: value for key, value in PROGRAM.items() if key != "solution"}
    questions = {
        name: (check, [fenced("print(int(input()) * 2)")])
        for name, check in (("bad", bad), ("untried", untried))
    }
    config = write_run(tmp_path, questions)
    with pytest.raises(
        ValueError, match=r"(?s)1 of 2 gold answers .*question bad: wrong: test 2 of 2"
    ):
        verify.verify_answers(config)
    verify.verify_answers(load_config(tmp_path / "pipeline.yaml", ["verify.bad_golds=exclude"]))
    assert verdicts(config)["bad", 0] == ("unverifiable", verify.BAD_GOLD_REASON)
    assert verdicts(config)["untried", 0][0] == "correct"


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("{'inputs': []}", "tests is not valid JSON"),
        ({"outputs": ["1"]}, "tests lacks the list 'inputs'"),
        ({"inputs": [], "outputs": []}, "inputs is empty"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
    ],
)
def test_faulty_records_are_refused_by_id_before_any_program_runs(tmp_path, tests, message):
    check = {"kind": "program", "tests": tests}
    config = write_run(tmp_path, {"q7": (check, [fenced("open('x')")])})
    with pytest.raises(ValueError, match=rf"(?s)1 questions have checks.*question q7: .*{message}"):
        verify.verify_answers(config)
    assert not (tmp_path / "verdicts").exists()


def test_too_many_undecided_answers_stop_the_run(tmp_path):
    # math-verify cannot read this gold, so a different text is undecided and the gold itself is
    # accepted as text
    check = {"kind": "math", "gold": "$$"}
    config = write_run(tmp_path, {"q0": (check, [solution(r"\boxed{\alpha ???}")])})
    try:
        verify.verify_answers(config)
    except ValueError as error:
        assert "max_fault_fraction" in str(error) or "gold answers are not accepted" in str(error)
    else:
        pytest.fail("an unreadable gold went through")


@pytest.fixture
def undecided(tmp_path):
    """Eight answers, one in each shard. The golds of q1 and q5 equal themselves, and no checker can
    read them.
    """
    questions = {f"q{i}": (MATH, [solution(r"\boxed{1+x}")]) for i in range(8)}
    for name in ("q1", "q5"):
        questions[name] = ({"kind": "math", "gold": "???"}, [solution(r"\boxed{5}")])
    settings = {"max_fault_fraction": 0.2}
    write_run(tmp_path, questions, settings, shard=1)
    return tmp_path / "pipeline.yaml"


@pytest.mark.slow
def test_undecided_answers_are_counted_over_what_is_on_disk(undecided):
    """2 of 8 with a limit of 0.2: one process stops at the second, however often it is run."""
    for attempt in (["shard=0/1"], [], ["shard=1/2"], ["shard=0/2"]):
        try:
            summary = verify.verify_answers(load_config(undecided, attempt))
        except ValueError as error:
            assert "no checker decides 2 of 8 answers, above verify.max_fault_fraction" in str(
                error
            )
        else:
            assert summary.manifest is None
    config = load_config(undecided, ["verify.max_fault_fraction=0.3"])
    assert not (config.folder("verdicts") / "manifest.json").exists()
    assert verify.verify_answers(config).manifest["counts"]["unverifiable"] == 2
    with pytest.raises(ValueError, match="no checker decides 2 of 8 answers"):
        verify.verify_answers(load_config(undecided))


def test_golds_are_settled_once_for_all_processes(tmp_path, capsys, monkeypatch):
    """What the first process found is what the others go by, even if they would find otherwise.
    The table is of an earlier release, with one shard for all golds.
    """
    questions = {f"q{i}": (EXACT, [solution("5")]) for i in range(2)}
    write_run(tmp_path, questions, shard=1)
    path = tmp_path / "pipeline.yaml"
    first = load_config(path, ["shard=0/2", "verify.bad_golds=exclude"])
    verify.verify_answers(first)
    folder = verify.golds_folder(first)
    assert [row["verdict"] for row in read_rows(folder, "golds")] == ["correct", "correct"]
    assert "golds against themselves" in capsys.readouterr().out
    # as if the first process had run out of time on q1's gold
    identity = json.loads((folder / "stage.json").read_text())
    shutil.rmtree(folder)
    rows = [
        {"question_id": "q0", "verdict": "correct", "reason": ""},
        {"question_id": "q1", "verdict": "checker_error", "reason": "no time"},
    ]
    known = {name: identity[name] for name in ("inputs", "config", "model", "seed")}
    stage = open_stage(folder, "golds", Identity(**known), ["q0", "q1"], 2)
    stage.write_shard(0, rows)
    monkeypatch.setattr(verify, "try_golds", None)  # a call is an error
    second = load_config(path, ["shard=1/2", "verify.bad_golds=exclude"])
    manifest = verify.verify_answers(second).manifest
    assert manifest["excluded_questions"] == {"q1": verify.BAD_GOLD_REASON}


def test_processes_share_the_golds_and_none_waits_for_another(tmp_path, monkeypatch):
    """Process 0 of 2 does its own two shards first, then those that process 1 has not done yet."""
    write_run(tmp_path, {f"q{i}": (EXACT, [solution("5")]) for i in range(4)}, shard=1)
    tried = []
    real = verify.try_golds

    def noted(checks, solutions, pool):
        tried.extend(checks)
        return real(checks, solutions, pool)

    monkeypatch.setattr(verify, "try_golds", noted)
    path = tmp_path / "pipeline.yaml"
    first = load_config(path, ["shard=0/2"])
    job = verify.golds_job(first)
    assert [len(units) for units in job.stage.shards] == [1, 1, 1, 1]
    other = job.load()
    with closing(other):  # process 1 is through with its first shard
        for index, shard in other.fill([(1, ["q1"])], lambda num: None):
            job.stage.write_shard(index, *shard)
    tried.clear()
    assert verify.settled_golds(first) == {}
    assert tried == ["q0", "q2", "q3"]
    verdicts_of_first = verify.verify_answers(first)
    assert verdicts_of_first.manifest is None  # process 1 has its own answers to do
    assert tried == ["q0", "q2", "q3"]
    verify.verify_answers(load_config(path, ["shard=1/2"]))
    assert tried == ["q0", "q2", "q3"]
    rows = read_rows(verify.golds_folder(first), "golds")
    assert [row["question_id"] for row in rows] == ["q0", "q1", "q2", "q3"]


def test_a_restart_reads_no_check_to_find_what_is_missing(tmp_path, monkeypatch):
    config = write_run(tmp_path, {f"q{i}": (EXACT, [solution("5")]) for i in range(2)}, shard=1)
    verify.verify_answers(config)
    manifest = config.folder("verdicts") / "manifest.json"
    expected = manifest.read_text()
    manifest.unlink()
    monkeypatch.setattr(verify, "parse_check", None)  # a call is an error
    verify.verify_answers(config)
    found, before = json.loads(manifest.read_text()), json.loads(expected)
    different = ("seconds", "shards_found_finished")
    assert {name for name in before if found[name] != before[name]} <= set(different)


def test_golds_that_another_process_refuses_and_removes(tmp_path, monkeypatch):
    config = write_run(tmp_path, {"q0": (EXACT, [solution("5")])})

    def removed(checks, solutions, pool):
        shutil.rmtree(verify.golds_folder(config))
        return {}

    monkeypatch.setattr(verify, "try_golds", removed)
    with pytest.raises(ValueError, match="golds was removed .* another process of the stage"):
        verify.verify_answers(config)


def test_a_refusal_for_golds_leaves_nothing_that_a_corrected_run_would_trip_over(tmp_path):
    config = write_run(tmp_path, {"q0": ({"kind": "math", "gold": "$$"}, [solution("5")])})
    with pytest.raises(ValueError, match="1 of 1 gold answers are not accepted"):
        verify.verify_answers(config)
    assert not config.folder("verdicts").exists()


def test_faulty_checks_are_listed_by_question(tmp_path):
    config = write_run(
        tmp_path,
        {"q0": ({"kind": "math"}, [solution("5")]), "q1": ({"kind": "mth"}, [solution("5")])},
    )
    with pytest.raises(
        ValueError,
        match=r"(?s)2 questions have checks.*question q0: .*lacks 'gold'.*question q1: .*'mth'",
    ):
        verify.verify_answers(config)


def test_the_command(tmp_path):
    write_run(tmp_path, {"q0": (EXACT, [solution("5")]), "q1": ({"kind": "none"}, [solution("5")])})
    script = Path(__file__).parents[2] / "scripts/verify_answers.py"
    command = [sys.executable, script, tmp_path / "pipeline.yaml"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "error: 1 of 2 questions cannot be verified" in refused.stderr
    done = subprocess.run(
        [*command, "verify.unverifiable=accept"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "correct 1, unverifiable 1" in done.stdout


CHECK_SCRIPT = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    good = row["trace"] == "good" and row["question"] == "What of q0?" and row["check"]["gold"]
    print(json.dumps({"accepted": bool(good), "reason": "another term"}))
"""


def with_traces(folder, texts):
    """A traces table with these texts by (question, trace)."""
    rows = [
        {
            "question_id": name,
            "trace_id": trace_id,
            "token_ids": [1],
            "text": text,
            "finish_reason": "stop",
            "is_well_formed": True,
            "is_retokenized": False,
            "seed": 0,
            "prompt_kind": "posterior_b",
            "temperature": 1.0,
        }
        for (name, trace_id), text in texts.items()
    ]
    write_table(folder / "traces", "traces", rows, Identity({}, {}))


def test_a_right_answer_after_a_trace_that_fails_its_check_is_not_accepted(tmp_path):
    script = tmp_path / "check.py"
    script.write_text(CHECK_SCRIPT)
    settings = {"trace_check": f"{sys.executable} {script}"}
    questions = {
        "q0": (EXACT, [solution("5"), solution("6")]),
        "q1": (EXACT, [solution("5"), solution("6")]),
    }
    config = write_run(tmp_path, questions, settings)
    with_traces(tmp_path, {("q0", 0): "good", ("q1", 0): "good"})
    summary = verify.verify_answers(config)
    assert verdicts(config) == {
        ("q0", 0): ("correct", ""),
        ("q0", 1): ("wrong", ""),
        ("q1", 0): ("wrong_trace", "another term"),
        ("q1", 1): ("wrong", ""),  # a wrong answer stays one, whatever its trace
    }
    assert summary.manifest["counts"] == {"correct": 1, "wrong": 2, "wrong_trace": 1}
    assert "fails verify.trace_check: 1 of 2" in verify.describe_verdicts(summary)
    # another check is another table
    script.write_text(CHECK_SCRIPT + "\n# changed")
    with pytest.raises(ValueError, match="verify.trace_check_files"):
        verify.verify_answers(config)
    without = load_config(folder_config(config), ["verify.trace_check=null"])
    with pytest.raises(ValueError, match="verify.trace_check"):
        verify.verify_answers(without)


def folder_config(config):
    return Path(config.run_dir) / "pipeline.yaml"


def test_a_trace_check_that_cannot_be_run_is_refused_when_the_file_is_read(tmp_path):
    with pytest.raises(ValueError, match="neither one of no_mention_of_hint nor a command"):
        write_run(tmp_path, {"q0": (EXACT, [solution("5")])}, {"trace_check": "no_such_check"})
