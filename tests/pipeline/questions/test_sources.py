"""Published data sets in every layout, by file, folder and hub name, into our tables."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.hub import (
    ACCOUNT,
    PUBLISHED,
    client_environment,
    published_rows,
    serve,
    write_repository,
)
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.config import DataConfig
from variational_reasoning.pipeline.questions.sources import (
    Stream,
    join_sources,
    read_source,
    to_columns,
)

CHATML = make_renderer("chatml")
NAMES = sorted(path.stem for path in PUBLISHED.glob("*.jsonl"))
REFORMATTED = {
    "question": "question_content",
    "trace": "think_content",
    "solution": "solution_content",
}
TEXTS = [
    tuple(row[name] for name in ("question_content", "think_content", "solution_content"))
    for row in published_rows("Bespoke-Stratos-17k-Reformatted")
]


def texts_of(name, **data):
    rows, _ = read_source(str(PUBLISHED / f"{name}.jsonl"), "train", allow_hub=False)
    table = to_columns(rows, name, CHATML, DataConfig(**data))
    return [(row["question"], row["trace"], row["solution"]) for row in table]


def test_all_published_layouts_hold_the_same_questions():
    # The conversations have the tags and the white space of Bespoke-Stratos-17k; the others are
    # their renderings.
    assert texts_of("Bespoke-Stratos-17k-Reformatted", columns=REFORMATTED) == TEXTS
    assert texts_of("Bespoke-Stratos-17k", format="conversations") == TEXTS
    assert texts_of("Bespoke-Stratos-17k-Train-Posterior-PA", format="prompt_response") == TEXTS
    assert texts_of("Bespoke-Stratos-17k-Train-Posterior-PB", format="prompt_response") == TEXTS
    for estimator in ("Acc", "GML"):  # the original rows come first, then the chosen traces
        mixed = texts_of(f"Variational-Posterior-4B-{estimator}-mix", format="prompt_response")
        assert mixed[: len(TEXTS)] == TEXTS
        assert [question for question, _, _ in mixed[len(TEXTS) :]] == [
            question for question, _, _ in TEXTS
        ]


def test_published_columns():
    columns = {name: set(published_rows(name)[0]) for name in NAMES}
    assert columns["Bespoke-Stratos-17k"] == {"system", "conversations"}
    assert columns["Bespoke-Stratos-17k-Train-Posterior-PA"] == {"prompt", "response"}
    assert columns["Variational-Posterior-4B-Acc-mix"] == {
        "prompt",
        "response",
        "source",
        "average_correctness",
    }
    assert columns["Variational-Posterior-4B-GML-mix"] == {"prompt", "response", "source"}
    codes = Counter(row["source"] for row in published_rows("Variational-Posterior-4B-Acc-mix"))
    assert codes[-2] == len(TEXTS) and codes[-1] == 1


@pytest.mark.slow
def test_hub_names_and_folders(tmp_path):
    for name in NAMES:
        write_repository(tmp_path / "hub", name, published_rows(name))
    rows, digest = read_source(
        str(tmp_path / "hub" / ACCOUNT / "TACO_subset"), "train", allow_hub=False
    )
    assert rows == published_rows("TACO_subset")
    program = (
        "import json, sys\n"
        "from variational_reasoning.pipeline.questions.sources import read_source\n"
        "print(json.dumps({name: read_source(name, 'train', True) for name in sys.argv[1:]}))\n"
    )
    with serve(tmp_path / "hub") as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", program, *(f"{ACCOUNT}/{name}" for name in NAMES)],
            env=os.environ | client_environment(endpoint, tmp_path / "home"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: found[f"{ACCOUNT}/{name}"][0] for name in NAMES} == {
        name: published_rows(name) for name in NAMES
    }
    assert found[f"{ACCOUNT}/TACO_subset"][1] == digest


@pytest.mark.parametrize(
    ("text", "split"), [('{"a": 1}\n{"a": {"b": 1}}\n', "train"), ('{"a": 1}\n', "test")]
)
def test_folders_that_datasets_cannot_read(tmp_path, text, split):
    (tmp_path / "train.jsonl").write_text(text)
    with pytest.raises(
        ValueError, match=rf"{tmp_path.name}: `datasets` cannot read its split {split}"
    ):
        read_source(str(tmp_path), split, allow_hub=False)


def test_lines_end_at_newlines_only(tmp_path):
    # U+2028 and U+0085 are line ends to str.splitlines, and ordinary characters of a JSON text.
    row = {"question": "a\u2028b\u0085c", "trace": "t", "solution": "s"}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8"
    )
    assert read_source(str(tmp_path / "rows.jsonl"), "train", allow_hub=False)[0] == [row]


def test_sources_join_row_by_row():
    rows, beside = (
        published_rows("Bespoke-Stratos-17k-Reformatted"),
        published_rows("Bespoke-Stratos-17k-Source"),
    )
    joined = join_sources(rows, "rows", beside, "beside", "source")
    assert [row["source"] for row in joined] == [
        "numina/123",
        "apps/1",
        "taco/0",
        "ruc/2",
        "numina/7",
    ]
    assert [row | {"source": None} for row in rows] == [row | {"source": None} for row in joined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "beside has 4 rows, rows has 5"),
        (
            lambda rows: [*rows[1:], rows[0]],
            r"row 1 of beside differs from that of rows: 'solution_content' is",
        ),
        (lambda rows: [{"source": None}, *rows[1:]], "row 1 has no text in the column 'source'"),
    ],
)
def test_sources_that_do_not_fit(change, message):
    rows = published_rows("Bespoke-Stratos-17k-Reformatted")
    with pytest.raises(ValueError, match=message):
        join_sources(
            rows, "rows", change(published_rows("Bespoke-Stratos-17k-Source")), "beside", "source"
        )
    with pytest.raises(ValueError, match="row 1 has a 'source' of its own: 'mine'"):
        join_sources([{"source": "mine"}], "rows", [{"source": "numina/1"}], "beside", "source")


def think(chain: str, answer: str) -> dict:
    content = f"<think>\n{chain}\n</think>\n\n{answer}"
    return {"role": "assistant", "content": content}


def test_messages_with_a_think_block():
    user = {"role": "user", "content": "3+4?"}
    chain, answer = "Three and four. " * 20, "It is 7."
    rows = [
        [user, think(chain, answer)],
        [{"role": "system", "content": "Be brief."}, user, think(chain, answer)],
        [user, think(chain[:150], answer)],  # a block that is too short
        [user, think(chain, "7")],  # an answer that is too short
        [user, think(chain, answer), user],  # the user is last
        [user, think(chain, answer), user, think(chain, answer)],  # more turns
        [user, {"role": "assistant", "content": answer}],  # no block
        [user, think(chain + "<think>", answer)],
        [user, {"role": "assistant", "content": None}],
        None,
    ]
    data = DataConfig(format="think_messages")
    table = to_columns([{"messages": row} for row in rows], "dolci", CHATML, data)
    parts = ("3+4?", chain.strip(), answer)
    found = [(row["question"], row["trace"], row["solution"]) for row in table]
    assert found == [parts] * 2 + [(None, None, None)] * 8

    shorter = DataConfig(format="think_messages", min_chain=100, min_answer=1)
    found = to_columns([{"messages": row} for row in rows], "dolci", CHATML, shorter)
    assert [row["question"] is not None for row in found] == [True] * 4 + [False] * 6


def test_a_part_of_a_shuffled_stream(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps({"number": number}) + "\n" for number in range(100)]
    (folder / "train.jsonl").write_text("".join(lines))

    def numbers(**values):
        stream = Stream(**({"rows": 10, "buffer": 100, "seed": 42} | values))
        rows, _ = read_source(str(folder), "train", False, stream)
        return [row["number"] for row in rows]

    assert len(set(numbers())) == 10
    assert numbers() == numbers() != numbers(seed=43)
    assert max(numbers()) >= 30 > max(numbers(buffer=1))  # a small buffer sees the beginning only
