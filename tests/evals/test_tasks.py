"""Task definitions: the exact questions, golds that pass and wrong answers that do not, data that
are missing.
"""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.evals.conftest import ROWS
from tests.test_end_to_end import OFFLINE

from variational_evals.tasks import CHECKS, definitions, load_questions, load_task, task_names
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.verify import open_programs
from variational_reasoning.verify.checks import gold_solutions, parse_check
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import Verdict

ROOT = Path(__file__).parents[2]
PAPER = {
    "vr_math500": (500, 2),
    "vr_olympiadbench": (674, 2),
    "vr_aime24": (30, 32),
    "vr_aime25": (30, 32),
    "vr_amc23": (40, 32),
    "vr_gpqa_diamond": (198, 8),
    "vr_livecodebench_easy": (182, 8),
    "vr_livecodebench_medium": (206, 8),
    "vr_livecodebench_hard": (123, 8),
    "vr_mmlu_pro": (12032, 1),
}
"""Questions, and k of Avg@k (App. D)."""
BOX = "Return your final response within \\boxed{}. "
DOUBLE = "```python\nprint(2 * int(input()))\n```"
LONGEST = "```python\nclass Solution:\n    def longest(self, words):\n        return max(words, key=len)\n```"
CODE = "Generate an executable Python function generated from the given prompt. "


@pytest.fixture
def questions(hub_cache, monkeypatch):
    """A function from a task's name to its questions in the fixtures, read through the hub's
    library.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))

    def load(name: str) -> list[dict]:
        rows = sum(len(rows) for rows in ROWS[name].values())
        task = load_task(name)
        return load_questions(replace(task, num_questions=rows - (1 if task.where else 0)))

    return load


def test_definitions_are_complete():
    assert task_names() == sorted([*PAPER, "vr_file"])
    for name, path in definitions().items():
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = raw["preprocess_config"]
        assert own["task"] == name and raw["handler"] == "variational" and own["check"] in CHECKS
        assert own["version"] in raw["changelog"] and max(raw["changelog"]) == own["version"]
        if name in PAPER:
            task = load_task(name)
            assert (task.num_questions, task.num_samples) == PAPER[name]
            assert re.fullmatch(r"[0-9a-f]{40}", task.revision)


# Task to (question text, right answers, wrong answers) of its first row, then of its second.
ANSWERS = {
    "vr_math500": [
        (BOX + "Three quarters?", ["\\boxed{0.75}", "\\boxed{\\dfrac34}"], ["\\boxed{\\frac{4}{3}}", "It is 3/4.", ""]),
        (BOX + "A point {x}?", ["\\boxed{(3, \\pi/2)}"], ["\\boxed{(\\pi/2, 3)}"]),
    ],
    "vr_aime24": [
        (BOX + "How many?", ["\\boxed{33}", "\\boxed{033}"], ["\\boxed{34}", "\\boxed{33.001}", "\\boxed{3300}", "33"]),
    ],
    "vr_aime25": [
        ("The first?\n" + BOX.strip().removesuffix("."), ["\\boxed{70}"], ["\\boxed{0.7}", "\\boxed{71}"]),
        ("The second?\n" + BOX.strip().removesuffix("."), ["so \\boxed{468}"], ["\\boxed{70}"]),
    ],
    "vr_amc23": [(BOX + "How far?", ["\\boxed{27}"], ["\\boxed{27.5}", "\\boxed{2}"])],
    "vr_olympiadbench": [
        (BOX + "All roots?", ["\\boxed{-3, 2}", "\\boxed{2} and \\boxed{-3}"], ["\\boxed{2}", "\\boxed{2,-3,4}"]),
        (BOX + "All triples?", ["\\boxed{(2,7,13), (1,8,19)}"], ["\\boxed{(1,8,19)}"]),
        (BOX + "One value?", ["\\boxed{0.5}"], ["\\boxed{2}"]),
    ],
    "vr_mmlu_pro": [
        (BOX + "Which?\nAnswer Choices: (A) 10 (B) 20 (C) 30", ["\\boxed{B}", "\\boxed{(B)}", "\\boxed{20}"], ["\\boxed{C}"]),
        (BOX + "Why?\nAnswer Choices: (A) no (B) so (C) as (D) if", ["\\boxed{D}"], ["\\boxed{A}", "A or D: \\boxed{B}", "D"]),
    ],
} | {
    f"vr_livecodebench_{difficulty}": [
        (
            CODE + "The function should take stdin as input and print the output. Simply call the "
                "function after the "
            "definition. Print the double of the number.",
            [DOUBLE],
            ["```python\nprint(4)\n```", "```python\nraise SystemExit(\n```", "print(2 * "
                "int(input()))"],
        ),
        (
            CODE + "Return the function body without invoking it at the final solution. Return the "
                "longest of the words.\n\n"
            "class Solution:\n    def longest(self, words: List[str]) -> str:\n        ",
            [LONGEST],
            [LONGEST.replace("max", "min"), LONGEST.replace("longest", "another")],
        ),
    ]
    for difficulty in ("easy", "medium", "hard")
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_questions_and_verdicts(name, questions):
    rows = questions(name)
    assert [row["question"] for row in rows] == [text for text, _, _ in ANSWERS[name]]
    assert len({row["question_id"] for row in rows}) == len(rows)
    checks = {row["question_id"]: parse_check(row["check"]) for row in rows}
    jobs = {}
    for row, (_, right, wrong) in zip(rows, ANSWERS[name], strict=True):
        check = checks[row["question_id"]]
        for answer in [*right, *gold_solutions(check)]:
            jobs[row["question_id"], answer] = (
                Job((row["question_id"], answer), check, answer),
                True,
            )
        for answer in [*wrong, None]:
            jobs[row["question_id"], answer] = (
                Job((row["question_id"], answer), check, answer),
                False,
            )
    with VerifierPool(programs=open_programs(checks, Config())) as pool:
        found = dict(pool.check(job for job, _ in jobs.values()))
    assert {key: result.verdict is Verdict.CORRECT for key, result in found.items()} == {
        key: ok for key, (_, ok) in jobs.items()
    }


def test_gpqa_options_stand_in_an_order_of_the_question_alone(questions):
    rows = questions("vr_gpqa_diamond")
    assert questions("vr_gpqa_diamond") == rows
    for row, given in zip(rows, ROWS["vr_gpqa_diamond"]["gpqa_diamond.csv"], strict=True):
        head = f"{BOX[:-2]} and only include the letter choice (A, B, C, or D) as your final response. {given['Question']}\nA) "
        assert row["question"].startswith(head)
        gold = json.loads(row["check"])["gold"]
        options = dict(
            re.findall(r"([ABCD])\) (.+?)(?=, [BCD]\) |$)", row["question"].rpartition("\n")[2])
        )
        assert options[gold] == given["Correct Answer"] and len(set(options.values())) == 4
        with VerifierPool() as pool:
            jobs = [
                Job(letter, json.loads(row["check"]), f"Not A, not B: \\boxed{{{letter}}}")
                for letter in "ABCD"
            ]
            assert {
                letter for letter, result in pool.check(jobs) if result.verdict is Verdict.CORRECT
            } == {gold}


def test_data_that_do_not_fit_are_refused(hub_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    with pytest.raises(
        ValueError, match="gives 1 questions, not 30; the data are not those of the definition"
    ):
        load_questions(load_task("vr_aime24"))
    with pytest.raises(ValueError, match="lacks the column 'solved'"):
        load_questions(replace(load_task("vr_aime24"), answer_key="solved"))
    with pytest.raises(ValueError, match="'aime24' is not one of vr_aime24"):
        load_task("aime24")


def test_a_local_file(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="set the environment variable VR_FILE"):
        load_task("vr_file")
    path = tmp_path / "questions.jsonl"
    lines = [
        {"question": "1 + 1 = {?}", "gold": "2"},
        {"question_id": "b", "question": "?", "check": {"kind": "exact", "gold": "x"}},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("VR_FILE", str(path))
    rows = load_questions(load_task("vr_file"))
    assert [(row["question_id"], row["question"]) for row in rows] == [
        ("vr_file/0", "1 + 1 = {?}"),
        ("b", "?"),
    ]
    assert [json.loads(row["check"]) for row in rows] == [
        {"kind": "math", "gold": "2"},
        lines[1]["check"],
    ]
    path.write_text('{"question": "?", "gold": 2}\n{"question": "?"}')
    with pytest.raises(
        ValueError,
        match=r"2 rows .*cannot be used:\n  vr_file/0: gold is 2; .*\n  vr_file/1: lacks the "
        r"column 'gold'",
    ):
        load_questions(load_task("vr_file"))
    path.write_text("{")
    with pytest.raises(ValueError, match=r"questions\.jsonl, line 1 is not valid JSON"):
        load_questions(load_task("vr_file"))


def run_doctor(*arguments: str, offline=(), **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(ROOT / "plugin"), str(ROOT / "evals")])
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VR_FILE"))
    }
    env |= {"PYTHONPATH": paths, "VARIATIONAL_REASONING_DISABLE": "1"} | environment
    command = [*offline, sys.executable, "evals/doctor.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )


def test_without_a_network_cached_data_are_found_and_others_are_named(hub_cache, tmp_path):
    done = run_doctor(
        "download=all",
        offline=OFFLINE,
        HF_HUB_OFFLINE="" if OFFLINE else "1",
        HF_HUB_CACHE=str(hub_cache),
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("vr_") == 14
    )  # files of ten tasks: two each for AIME25 and the three of LiveCodeBench
    done = run_doctor(
        "download=vr_aime24", offline=OFFLINE, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)
    )
    assert done.returncode == 1
    assert (
        "of AI-MO/aimo-validation-aime is not in the local cache, and the hub cannot be reached"
        in done.stderr
    )
    assert "doctor.py download=vr_aime24" in done.stderr and "Traceback" not in done.stderr


class Gate(http.server.BaseHTTPRequestHandler):
    """A hub that knows GPQA and shows it to nobody."""

    def do_HEAD(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to dataset Idavidrein/gpqa is restricted.")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


def test_gated_data_say_how_to_get_access(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        hub = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path),
            "NO_PROXY": "127.0.0.1",
        }
        done = run_doctor("download=vr_gpqa_diamond", **hub)
    finally:
        server.shutdown()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "task vr_gpqa_diamond: Idavidrein/gpqa is gated, and this account has no access. Accept "
        "its terms on" in done.stderr
    )
    assert "hf auth login" in done.stderr and "HF_TOKEN" in done.stderr


@pytest.mark.slow
def test_doctor_without_a_hub_says_so_and_asks_once(tmp_path):
    """A proxy that nobody serves is no hub; every task has its line, and there is no traceback."""
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "evals/doctor.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith("vr_")]
    assert sum("not cached, and the hub does not answer (" in line for line in lines) == 10
