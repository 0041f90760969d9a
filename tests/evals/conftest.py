"""Rows with each benchmark's own schema, made here, in the layout of the hub's cache; the inference
environment.
"""

import base64
import csv
import json
import pickle
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHER_YEAR = "https://artofproblemsolving.com/wiki/index.php/2022_AIME_I_Problems/Problem_1"
THIS_YEAR = {year: OTHER_YEAR.replace("2022", year) for year in ("2023", "2024")}


def packed(tests: list[dict]) -> str:
    """Private tests as LiveCodeBench packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def livecodebench_rows(difficulty: str) -> list[dict]:
    row = {"difficulty": difficulty, "platform": "made"}
    stdin = {"testtype": "stdin"}
    call = {"testtype": "functional"}
    return [
        row
        | {
            "question_content": "Print the double of the number.",
            "question_id": "a",
            "starter_code": "",
            "public_test_cases": json.dumps([{"input": "2\n", "output": "4\n"} | stdin]),
            "private_test_cases": packed([{"input": "-7\n", "output": "-14\n"} | stdin]),
            "metadata": "{}",
        },
        row
        | {
            "question_content": "Return the longest of the words.",
            "question_id": "b",
            "starter_code": "class Solution:\n    def longest(self, words: List[str]) -> str:\n    "
            "    ",
            "public_test_cases": json.dumps([{"input": '["a", "bb"]', "output": '"bb"'} | call]),
            "private_test_cases": packed([{"input": '["ccc", "bb"]', "output": '"ccc"'} | call]),
            "metadata": '{"func_name": "longest"}',
        },
        row | {"difficulty": "another"},
    ]


ROWS: dict[str, dict[str, list[dict]]] = {
    "vr_math500": {
        "test.jsonl": [
            {
                "problem": "Three quarters?",
                "solution": "",
                "answer": "\\frac{3}{4}",
                "unique_id": "test/made/1.json",
            },
            {
                "problem": "A point {x}?",
                "solution": "",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "level": 2,
            },
        ]
    },
    "vr_aime24": {
        "data/train-00000-of-00001.parquet": [
            {"id": 0, "problem": "Not this one.", "answer": "5", "url": OTHER_YEAR},
            {"id": 1, "problem": "How many?", "answer": "033", "url": THIS_YEAR["2024"]},
        ]
    },
    "vr_aime25": {
        "aime2025-I.jsonl": [{"question": "The first?", "answer": "70"}],
        "aime2025-II.jsonl": [{"question": "The second?", "answer": "468"}],
    },
    "vr_amc23": {
        "data/train-00000-of-00001.parquet": [
            {"id": 0, "problem": "Not this one.", "answer": 142.0, "url": OTHER_YEAR},
            {"id": 0, "problem": "How far?", "answer": 27.0, "url": THIS_YEAR["2023"]},
        ]
    },
    "vr_olympiadbench": {
        "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet": [
            {"question": "All roots?", "final_answer": ["$2$", "$-3$"], "is_multiple_answer": True},
            {
                "question": "All triples?",
                "final_answer": ["$(1,8,19), (2,7,13)$"],
                "is_multiple_answer": True,
            },
            {
                "question": "One value?",
                "final_answer": ["$\\frac{1}{2}$"],
                "is_multiple_answer": False,
            },
        ]
    },
    "vr_gpqa_diamond": {
        "gpqa_diamond.csv": [
            {"Question": "Which gas, in\ntwo lines?", "Correct Answer": "argon"}
            | {f"Incorrect Answer {number}": f"gas {number}" for number in (1, 2, 3)},
            {"Question": "Which metal?", "Correct Answer": "iron, pure"}
            | {f"Incorrect Answer {number}": f"metal {number}" for number in (1, 2, 3)},
        ]
    },
    "vr_mmlu_pro": {
        "data/test-00000-of-00001.parquet": [
            {
                "question_id": 70,
                "question": "Which?",
                "options": [" 10 ", "20", "30"],
                "answer": "B",
                "answer_index": 1,
            },
            {
                "question_id": 71,
                "question": "Why?",
                "options": ["no", "so", "as", "if"],
                "answer": "D",
                "answer_index": 3,
            },
        ]
    },
} | {
    f"vr_livecodebench_{difficulty}": {
        "test.jsonl": livecodebench_rows(difficulty)[:1],
        "test2.jsonl": livecodebench_rows(difficulty)[1:],
    }
    for difficulty in ("easy", "medium", "hard")
}
"""Task to file to rows."""


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory) -> Path:
    """A cache of the hub that holds every task's files at the commit of its definition."""
    from variational_evals.tasks import load_task

    root = tmp_path_factory.mktemp("hub")
    for name, files in ROWS.items():
        task = load_task(name)
        snapshot = (
            root / f"datasets--{task.dataset_path.replace('/', '--')}" / "snapshots" / task.revision
        )
        for file, rows in files.items():
            path = snapshot / file
            path.parent.mkdir(parents=True, exist_ok=True)
            earlier = (
                path.read_text(encoding="utf-8") if path.is_file() else ""
            )  # the LiveCodeBench tasks share files
            if path.suffix == ".parquet":
                import pyarrow
                import pyarrow.parquet

                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
            elif path.suffix == ".csv":
                with path.open("w", encoding="utf-8", newline="") as stream:
                    writer = csv.DictWriter(stream, rows[0])
                    writer.writeheader()
                    writer.writerows(rows)
            else:
                path.write_text(
                    earlier + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
                )
    return root
