"""Stage 0 on real files of every layout, with what it drops and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.hub import (
    PUBLISHED,
    client_environment,
    published_rows,
    serve,
    write_repository,
)
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.questions import prepare
from variational_reasoning.pipeline.questions.usable_rows import NOT_LAID_OUT
from variational_reasoning.pipeline.rows import read_manifest, read_rows
from variational_reasoning.pipeline.train_files import register_datasets

CHATML = make_renderer("chatml")
ROWS = [
    {
        "question": "What is 3 + 4?",
        "trace": "First, 3 + 4 = 7.",
        "solution": r"It is \boxed{7}.",
        "source": "sums",
    },
    {
        "question": "And 1 + 1?",
        "trace": "It is 2, surely.",
        "solution": r"\boxed{2}",
        "source": "sums",
    },
    {"question": "Prove it.", "trace": "Well.", "solution": "Obvious.", "source": "proofs"},
]


def write_config(folder: Path, base: Path, train, name="train.jsonl", **data):
    """A configuration whose data.train holds these rows (or this text); returns the YAML's path."""
    path = folder / name
    if isinstance(train, str):
        path.write_text(train)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(train), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(train))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in train))
    values = {"run_dir": str(folder / "run"), "base": str(base), "cutoff_len": 2000}
    values["data"] = {"name": "own", "train": str(path)} | data
    (folder / "pipeline.yaml").write_text(json.dumps(values))
    return folder / "pipeline.yaml"


def prepared(config_path, *overrides):
    config = load_config(config_path, overrides)
    return prepare.prepare_data(config), read_rows(config.folder("questions"), "questions")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.parquet"])
def test_columns_from_every_file_type(tmp_path, tiny_model_dir, name):
    path = write_config(tmp_path, tiny_model_dir, ROWS, name)
    summary, rows = prepared(path)
    assert [row["question"] for row in rows] == [row["question"] for row in ROWS]
    assert [json.loads(row["check"]) for row in rows] == [
        {"kind": "math", "gold": "7"},
        {"kind": "math", "gold": "2"},
        {"kind": "none"},
    ]
    assert {row["split"] for row in rows} == {"train"}
    assert summary.num_rows == {"train": 3}
    train = pq.read_table(tmp_path / "run/train/own_posterior.parquet").to_pylist()
    assert train[0] == ROWS[0] | {"question_id": rows[0]["question_id"]}
    assert json.loads((tmp_path / "run/train/dataset_info.json").read_text()) == {
        "own_reasoner": {"file_name": "own_reasoner.parquet", "formatting": "reasoning"},
        "own_posterior": {"file_name": "own_posterior.parquet", "formatting": "reasoning"},
    }
    assert "checks of kind none" in prepare.describe_preparation(summary)


QUESTIONS_ONLY = [
    {"question": "What is 3 + 4?", "gold": "7"},
    {"question": "And 1 + 1?", "solution": r"Two: \boxed{2}", "trace": "One more than one."},
    {"question": "Write it.", "check": {"kind": "program", "tests": {"inputs": [], "outputs": []}}},
    {"question": "Which of these?", "gold": ["B", "C"], "trace": " "},
    {"question": "Why?"},
]


def test_questions_with_an_answer_a_solution_or_tests_need_no_trace(tmp_path, tiny_model_dir):
    rows = [dict(row) for row in QUESTIONS_ONLY]
    rows[2]["check"] = {"kind": "program", "tests": PROGRAM_TESTS}
    path = write_config(tmp_path, tiny_model_dir, rows)
    with pytest.raises(ValueError, match="text is needed"):
        prepared(path)
    summary, table = prepared(path, "data.traces=optional")
    assert [(row["trace"], row["solution"]) for row in table] == [
        ("", "7"),  # the answer is the solution, so the posterior's hint and what GML scores
        ("One more than one.", r"Two: \boxed{2}"),
        ("", ""),
        ("", "B"),
    ]
    assert summary.dropped["train"] == {"no solution, answer, check or tests": 1}
    # only the row with a trace trains reasoner and posterior
    train = pq.read_table(tmp_path / "run/train/own_reasoner.parquet").to_pylist()
    assert [row["question"] for row in train] == ["And 1 + 1?"]
    assert "stages 1 and 2 train on 1 rows" in prepare.describe_preparation(summary)


def test_a_data_set_without_any_trace_needs_another_start(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, QUESTIONS_ONLY[:1])
    with pytest.raises(ValueError, match="lacks the columns 'trace'"):
        prepared(path)
    with pytest.raises(ValueError, match="no row has a trace.*posterior: prompted or own_traces"):
        prepared(path, "data.traces=optional")
    for start in ("prompted", "own_traces"):
        # its tokenizer is that of the model that the run starts from
        named = [f"posterior={start}", "base=null", f"models.reasoner={tiny_model_dir}"]
        summary, [row] = prepared(path, *named, f"run_dir={tmp_path / start}")
        assert (row["trace"], row["solution"]) == ("", "7") and summary.train_files == []
        assert "no row has a trace" in prepare.describe_preparation(summary)
    with pytest.raises(ValueError, match="data.format: 'text' takes question and trace out of one"):
        prepared(path, "posterior=prompted", "data.format=text")


def test_ids_are_given_or_a_hash_of_the_content(tmp_path, tiny_model_dir):
    rows = [ROWS[0] | {"id": 17}, ROWS[1] | {"id": None}]
    _, first = prepared(write_config(tmp_path, tiny_model_dir, rows))
    (tmp_path / "again").mkdir()
    _, second = prepared(write_config(tmp_path / "again", tiny_model_dir, [rows[1], rows[0]]))
    assert first[0]["question_id"] == "17"
    assert len(first[1]["question_id"]) == 16
    assert {row["question_id"] for row in first} == {row["question_id"] for row in second}


PROGRAM_TESTS = {"inputs": ["1"], "outputs": ["2"]}


def test_other_column_names_golds_and_checks(tmp_path, tiny_model_dir):
    rows = [
        {"q": "a?", "think": "t", "sol": "s", "g": "5", "check": None},
        {"q": "b?", "think": "t", "sol": "s", "g": None, "check": {"kind": "exact", "gold": "six"}},
        {
            "q": "c?",
            "think": "t",
            "sol": "s",
            "g": None,
            "check": json.dumps({"kind": "program", "tests": PROGRAM_TESTS}),
        },
    ]
    names = {"question": "q", "trace": "think", "solution": "sol", "gold": "g"}
    _, table = prepared(write_config(tmp_path, tiny_model_dir, rows, columns=names))
    assert [json.loads(row["check"]) for row in table] == [
        {"kind": "math", "gold": "5"},
        {"kind": "exact", "gold": "six"},
        {"kind": "program", "tests": PROGRAM_TESTS},
    ]


def test_conversations_as_in_bespoke_stratos(tmp_path, tiny_model_dir):
    text = (
        "<|begin_of_thought|>\n\nHm, 7.\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\nIt is \\boxed{7}.\n\n<|end_of_solution|>"
    )
    rows = [
        {
            "system": "s",
            "conversations": [
                {"from": "user", "value": "3+4?"},
                {"from": "assistant", "value": text},
            ],
        },
        {
            "system": "s",
            "conversations": [
                {"from": "user", "value": "x?"},
                {"from": "assistant", "value": "no tags"},
            ],
        },
        {"system": "s", "conversations": [{"from": "user", "value": "only a question"}]},
    ]
    summary, table = prepared(write_config(tmp_path, tiny_model_dir, rows, format="conversations"))
    assert (table[0]["question"], table[0]["trace"], table[0]["solution"]) == (
        "3+4?",
        "Hm, 7.\n\n",
        "\n\nIt is \\boxed{7}.\n\n",
    )
    assert summary.dropped == {"train": {"not one question and one answer with all four tags": 2}}


def test_whole_chats_are_taken_apart_as_they_are_rendered(tmp_path, tiny_model_dir):
    rows = []
    for row in ROWS:
        prompt, response = CHATML.render("reasoner", row["question"], row["trace"], row["solution"])
        rows.append({"text": prompt + response + "<|im_end|>"})
    _, table = prepared(write_config(tmp_path, tiny_model_dir, rows, format="text"))
    assert [(r["question"], r["trace"], r["solution"]) for r in table] == [
        (r["question"], r["trace"], r["solution"]) for r in ROWS
    ]


def test_unusable_rows_are_dropped_with_their_reason(tmp_path, tiny_model_dir):
    rows = [
        *ROWS,
        ROWS[0] | {"trace": "another"},
        ROWS[0] | {"question": " "},
        ROWS[0] | {"question": "a", "trace": ""},
        ROWS[0] | {"question": "b", "solution": ""},
        ROWS[0] | {"question": "c <|begin_of_thought|>"},
        ROWS[0] | {"question": "g <|im_start|>system"},
        ROWS[0] | {"question": "d", "trace": "x <|end_of_explanation|> y"},
        ROWS[0] | {"question": "e", "solution": "x<|im_end|>"},
        ROWS[0] | {"question": "f", "trace": "very long " * 500},
    ]
    summary, table = prepared(write_config(tmp_path, tiny_model_dir, rows))
    assert len(table) == 3
    assert summary.dropped["train"] == {
        "duplicate question": 1,
        "empty question": 1,
        "empty trace": 1,
        "empty solution": 1,
        "tags in the question": 2,
        "tags in the trace": 1,
        "tags in the solution": 1,
        "longer than cutoff_len 2000": 1,
    }


def test_the_cutoff_is_the_one_of_training_to_the_token(tmp_path, tiny_model_dir):
    encode, _ = text_codec(load_tokenizer(str(tiny_model_dir)))
    lengths = []
    for kind in ("reasoner", "posterior_b"):
        prompt, response = CHATML.render(
            kind, *(ROWS[0][name] for name in ("question", "trace", "solution"))
        )
        lengths.append(len(encode(prompt)) + len(CHATML.encode_target(response, encode)))
    path = write_config(tmp_path, tiny_model_dir, ROWS[:1])
    with pytest.raises(
        ValueError, match=rf"no usable train row remains.*longer than cutoff_len {max(lengths) - 1}"
    ):
        prepared(path, f"cutoff_len={max(lengths) - 1}")
    summary, [row] = prepared(path, f"cutoff_len={max(lengths)}")
    assert summary.num_rows == {"train": 1}
    parts = [row[name] for name in ("prompt_tokens", "trace_tokens", "solution_tokens")]
    assert sum(parts) == lengths[0]  # of the reasoner


def test_test_questions_need_no_trace_and_are_none_of_the_training_questions(
    tmp_path, tiny_model_dir
):
    rows = [
        {"question": "New?", "gold": "9", "trace": None, "solution": None},
        ROWS[0] | {"gold": "7"},
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write_config(
        tmp_path, tiny_model_dir, ROWS, test=str(tmp_path / "test.jsonl"), max_train_questions=2
    )
    summary, table = prepared(path)
    assert summary.num_rows == {"train": 2, "test": 1}
    assert summary.dropped == {
        "train": {"beyond data.max_train_questions": 1},
        "test": {"question of the train split": 1},
    }
    assert [row["question_id"] for row in read_train(tmp_path)] == [
        row["question_id"] for row in table[:2]
    ]
    assert (table[2]["split"], table[2]["trace"]) == ("test", "")


def read_train(folder):
    return pq.read_table(folder / "run/train/own_reasoner.parquet").to_pylist()


def test_a_second_run_changes_nothing_and_other_rows_are_refused(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, ROWS)
    assert prepared(path)[0].did_something
    before = (tmp_path / "run/train/own_reasoner.parquet").stat().st_mtime_ns
    assert not prepared(path)[0].did_something
    assert (tmp_path / "run/train/own_reasoner.parquet").stat().st_mtime_ns == before
    write_config(tmp_path, tiny_model_dir, ROWS[:2])
    with pytest.raises(
        ValueError, match=r"(?s)questions was filled from something else.*inputs.train"
    ):
        prepared(path)


def test_other_entries_of_dataset_info_stay(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    register_datasets(tmp_path, {"a": "weighted_sft"})
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == {
        "mine": {"file_name": "mine.json"},
        "a": {"file_name": "a.parquet", "formatting": "weighted_sft"},
    }
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(ValueError, match=r"dataset_info.json holds list, not an object"):
        register_datasets(tmp_path, {"a": "weighted_sft"})


@pytest.mark.parametrize(
    ("train", "name", "message"),
    [
        (
            [{"question": "a", "think": "b"}],
            "t.jsonl",
            r"lacks the columns 'trace' \(trace\), 'solution' \(solution\); it has",
        ),
        (
            [ROWS[0], ROWS[1] | {"trace": 7}],
            "t.jsonl",
            r"(?s)1 rows cannot be read:.*row 2: trace is int; text is needed",
        ),
        (
            [ROWS[0] | {"id": "x"}, ROWS[1] | {"id": "x"}],
            "t.jsonl",
            "1 question ids are there more than once, such as 'x'",
        ),
        (
            [ROWS[0] | {"check": {"kind": "mth"}}],
            "t.jsonl",
            "row 1: check kind 'mth' is not one of",
        ),
        ('{"question": 1}\nnot json\n', "t.jsonl", "line 2 is not valid JSON"),
        ("[1]\n", "t.jsonl", r"line 1 is not an object: \[1\]"),
        ('{"a": 1}', "t.json", "holds dict; a .json file is a list of rows"),
        ("", "t.jsonl", "has no row"),
        ("a,b", "t.csv", "files of type '.csv' are not read"),
        ("no parquet", "t.parquet", "is not a Parquet file"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, tiny_model_dir, train, name, message):
    path = write_config(tmp_path, tiny_model_dir, train, name)
    with pytest.raises(ValueError, match=message):
        prepared(path)
    assert not (tmp_path / "run").exists()


def test_faulty_settings_are_refused_together(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, ROWS, columns={"qestion": "q"})
    with pytest.raises(
        ValueError, match=r"(?s)base: there is no model folder nowhere.*data.columns: \['qestion'\]"
    ):
        prepared(path, "base=nowhere")
    with pytest.raises(ValueError, match="base is not set"):
        prepared(path, "base=null")
    with pytest.raises(ValueError) as caught:
        prepared(path, "base=Qwen/Nobody", "data.train=none.jsonl", "data.columns={}")
    assert "by base=$(hf download --quiet Qwen/Nobody)" in str(caught.value)
    assert f"there is no file none.jsonl (named in the section data) in {Path.cwd()}; for" in str(
        caught.value
    )


PUBLISHED_17K = {
    "columns": {
        "question": "question_content",
        "trace": "think_content",
        "solution": "solution_content",
    },
    "sources": str(PUBLISHED / "Bespoke-Stratos-17k-Source.jsonl"),
    "ids": "row",
    "check_kinds": {"ruc": "none"},
    "tests": [
        {"source": "apps", "file": str(PUBLISHED / "apps.jsonl")},
        {"source": "taco", "file": str(PUBLISHED / "TACO_subset.jsonl")},
    ],
}


@pytest.fixture
def published(tmp_path, tiny_model_dir):
    """The pipeline.yaml of the published 17K tables, five rows of them."""
    return write_config(
        tmp_path, tiny_model_dir, published_rows("Bespoke-Stratos-17k-Reformatted"), **PUBLISHED_17K
    )


def test_the_published_tables_with_their_sources_and_tests(published):
    summary, rows = prepared(published)
    assert [(row["question_id"], row["source"]) for row in rows] == [
        ("0", "numina/123"),
        ("1", "apps/1"),
        ("2", "taco/0"),
        ("3", "ruc/2"),
        ("4", "numina/7"),
    ]
    assert summary.check_kinds == {"math": 2, "program": 2, "none": 1}
    assert (summary.num_expert_rows, summary.unusable_tests) == (5, {})


def test_a_mixed_data_set_gives_each_question_once_with_its_original_row(tmp_path, tiny_model_dir):
    rows = published_rows("Variational-Posterior-4B-Acc-mix")
    summary, table = prepared(
        write_config(tmp_path, tiny_model_dir, rows, format="prompt_response")
    )
    assert summary.dropped == {"train": {"duplicate question": 5}}
    assert {row["source"] for row in table} == {"-2"}


def test_examples_of_another_chat_format_are_dropped(tmp_path, tiny_model_dir):
    rows = published_rows("Bespoke-Stratos-17k-Train-Posterior-PA")
    rows[0]["prompt"] = rows[0]["prompt"].replace("<|im_start|>", "<|start|>")
    rows[1]["response"] = rows[1]["response"].replace("explanation", "thought")
    summary, table = prepared(
        write_config(tmp_path, tiny_model_dir, rows, format="prompt_response", ids="row")
    )
    assert [row["question_id"] for row in table] == ["2", "3", "4"]
    assert summary.dropped == {"train": {"not one whole example of this chat_format": 2}}


@pytest.mark.parametrize(
    ("hold_out", "experts"), [(False, ["0", "1", "2", "3", "4"]), (True, ["0", "2", "4"])]
)
def test_listed_questions_go_on_and_the_others_may_be_held_out(
    published, tmp_path, hold_out, experts
):
    (tmp_path / "ids.txt").write_text("# a comment\n3\n1\n")
    summary, rows = prepared(
        published, f"data.question_ids={tmp_path}/ids.txt", f"data.hold_out={json.dumps(hold_out)}"
    )
    assert [row["question_id"] for row in rows] == ["1", "3"]
    for role, ids in (("reasoner", experts), ("posterior", experts), ("chosen", ["1", "3"])):
        table = pq.read_table(tmp_path / f"run/train/own_{role}.parquet").to_pylist()
        assert [row["question_id"] for row in table] == ids
    assert (summary.num_rows, summary.num_expert_rows) == ({"train": 2}, len(experts))
    assert f"stages 1 and 2 train on {len(experts)} rows" in prepare.describe_preparation(summary)
    assert read_manifest(tmp_path / "run/questions", "questions")["num_expert_rows"] == len(experts)


def test_listed_questions_whose_rows_are_dropped_are_counted(tmp_path, tiny_model_dir, capsys):
    rows = [row | {"id": name} for row, name in zip([*ROWS, ROWS[0]], "abcd", strict=True)]
    (tmp_path / "ids.txt").write_text("d\nb\n")
    path = write_config(tmp_path, tiny_model_dir, rows, question_ids=str(tmp_path / "ids.txt"))
    assert [row["question_id"] for row in prepared(path)[1]] == ["b"]
    assert "takes 1 of the 2 questions" in (out := capsys.readouterr().out)
    assert "dropped: {'duplicate question': 1}" in out
    manifest = read_manifest(tmp_path / "run/questions", "questions")
    assert manifest["dropped_ids"] == {"train": {"duplicate question": ["d"]}}


@pytest.mark.parametrize(
    ("ids", "overrides", "message"),
    [
        (
            "1\n77\nx\n",
            (),
            r"2 of its 3 ids are none of .*, such as \['77', 'x'\]; ids there are such as '0' "
            r"\(data.ids: row\)",
        ),
        ("1\n1\n", (), "1 ids are there more than once"),
        ("", (), "has no id"),
        ("0\n1\n2\n3\n4\n", ("data.hold_out=true",), "no row remains for stages 1 and 2"),
        ("1\n", ("data.ids=content",), r"1 of its 1 ids are none of .*data.ids: content"),
        ("4\n", ("data.max_train_questions=4",), "none of its questions is usable"),
    ],
)
def test_lists_of_questions_that_do_not_fit(published, tmp_path, ids, overrides, message):
    (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(ValueError, match=message):
        prepared(published, f"data.question_ids={tmp_path}/ids.txt", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["report", "drop"])
def test_questions_of_a_benchmark_are_reported_or_dropped(published, tmp_path, mode):
    # With 13 words: the first shares 16 in a row, which are 4 runs; the second has exactly the
    # words of a short question.
    problems = [
        "A rectangle has sides of length 3 and 7; what is the square of the length?",
        "why does ICE float on water",
        "Simplify",
    ]
    (tmp_path / "bench.jsonl").write_text(
        "".join(json.dumps({"problem": text}) + "\n" for text in problems)
    )
    benchmark = {"name": "mini", "file": str(tmp_path / "bench.jsonl"), "column": "problem"}
    settings = json.dumps({"mode": mode, "benchmarks": [benchmark]})
    summary, rows = prepared(published, f"data.decontaminate={settings}")
    assert [row["question_id"] for row in rows] == (
        ["0", "1", "2", "3", "4"] if mode == "report" else ["1", "2", "4"]
    )
    assert summary.dropped["train"] == ({} if mode == "report" else {"in the benchmark mini": 2})
    report = json.loads((tmp_path / "run/questions/decontamination.json").read_text())
    assert report == summary.contamination
    assert [
        (match["question_id"], match["row"], match["shared_ngrams"]) for match in report["matches"]
    ] == [
        ("0", 1, 4),
        ("3", 2, 1),
    ]
    assert "mini: 2 (2 of its 3 questions)" in prepare.describe_preparation(summary)
    with pytest.raises(
        ValueError, match=r"(?s)was filled from something else.*ngram_words: there 13, now 8"
    ):
        prepared(published, f"data.decontaminate={settings}", "data.decontaminate.ngram_words=8")


def test_a_filter_that_drops_everything_is_refused(tmp_path, tiny_model_dir):
    (tmp_path / "bench.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    settings = {
        "mode": "drop",
        "benchmarks": [{"name": "b", "file": str(tmp_path / "bench.jsonl")}],
    }
    with pytest.raises(ValueError, match="every one of the 1 train questions is in a benchmark"):
        prepared(write_config(tmp_path, tiny_model_dir, ROWS[:1], decontaminate=settings))
    settings["benchmarks"][0]["column"] = "problem"
    with pytest.raises(
        ValueError, match="row 1: no text in the column 'problem'; it has question, trace"
    ):
        prepared(write_config(tmp_path, tiny_model_dir, ROWS[:1], decontaminate=settings))


def test_faulty_data_settings_are_refused_together(tmp_path, tiny_model_dir):
    benchmark = {"name": "b", "file": "x"}
    faulty = {
        "hold_out": True,
        "check_kinds": {"ruc": "nono"},
        "tests": [{"source": "apps"}],
        "decontaminate": {"benchmarks": [benchmark, benchmark]},
    }
    with pytest.raises(ValueError) as raised:
        prepared(write_config(tmp_path, tiny_model_dir, ROWS, **faulty))
    assert str(raised.value).splitlines() == [
        "data.check_kinds.ruc: 'nono' is not one of math, exact, none",
        "data.hold_out is true, but data.question_ids names no questions to hold out",
        "data.tests.0: needs a name and a file",
        "data.decontaminate.benchmarks: 'b' is there twice",
    ]


def test_a_broken_manifest_of_a_train_file_is_named(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, ROWS)
    prepared(path)
    manifest = tmp_path / "run/train/own_reasoner.manifest.json"
    manifest.write_text("{")
    with pytest.raises(
        ValueError,
        match=r"own_reasoner.manifest.json is not valid JSON.*remove it and run the stage again",
    ):
        prepared(path)


def test_the_hub_is_not_asked_unless_allowed(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, ROWS)
    with pytest.raises(
        FileNotFoundError, match=r"there is no file some/name.*set data.allow_hub: true"
    ):
        prepared(path, "data.train=some/name")


@pytest.mark.slow
def test_the_command(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, ROWS)
    script = Path(__file__).parents[3] / "scripts/prepare_data.py"
    done = subprocess.run(
        [sys.executable, script, path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "train: 3 questions; none dropped" in done.stdout
    refused = subprocess.run(
        [sys.executable, script, path, "data.train=no.jsonl"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "there is no file no.jsonl" in refused.stderr


def test_rows_that_name_another_split_are_left_out(tmp_path, tiny_model_dir):
    splits = ["train", "test", None]
    rows = [row | {"split": split} for row, split in zip(ROWS, splits, strict=True)]
    path = write_config(tmp_path, tiny_model_dir, rows)
    summary, taken = prepared(path)
    assert [row["question"] for row in taken] == [ROWS[0]["question"], ROWS[2]["question"]]
    assert summary.dropped == {"train": {"of the split 'test', not train": 1}}
    train = pq.read_table(tmp_path / "run/train/own_reasoner.parquet").to_pylist()
    assert ROWS[1]["question"] not in [row["question"] for row in train]
    # The same file gives the test questions; the split is part of the table's identity now.
    path = write_config(tmp_path, tiny_model_dir, rows, test=str(tmp_path / "train.jsonl"))
    _, taken = prepared(path, f"run_dir={tmp_path / 'other'}")
    assert [(row["question"], row["split"]) for row in taken][-1] == (ROWS[1]["question"], "test")
    path = write_config(tmp_path, tiny_model_dir, rows[:2])
    with pytest.raises(ValueError, match="no usable train row remains; dropped: .*not validation"):
        prepared(path, "data.train_split=validation", f"run_dir={tmp_path / 'third'}")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_half_a_surrogate_pair_is_named_with_its_row(tmp_path, tiny_model_dir, name):
    text = "\n".join(json.dumps(row) for row in ROWS).replace("surely", "\\ud800")
    text = text if name == "train.jsonl" else f"[{text.replace(chr(10), ',')}]"
    path = write_config(tmp_path, tiny_model_dir, text, name)
    with pytest.raises(ValueError, match=r"(line|row) 2, column 'trace' holds '\\ud800'"):
        prepared(path)


def think_row(number: int) -> dict:
    """A row as Dolci-Think-SFT-7B has it; every third has a block that is too short."""
    chain = f"{number} and one make {number + 1}. " * (12 if number % 3 else 2)
    answer = f"<think>\n{chain}\n</think>\n\nIt is \\boxed{{{number + 1}}}."
    turns = (("user", f"{number} + 1?"), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


DOLCI = {"format": "think_messages", "stream_rows": 60, "stream_buffer": 50, "stream_seed": 42}
"""The published checkpoint's way to read it, in small: a shuffled part of the stream, then the
first rows that can be used (data.max_train_questions)."""


def test_chains_of_words_are_no_train_files_of_symbols(tmp_path, tiny_model_dir):
    copy = tmp_path / "copy"
    copy.mkdir()
    lines = [json.dumps(think_row(number)) + "\n" for number in range(90)]
    (copy / "train.jsonl").write_text("".join(lines))
    path = write_config(tmp_path, tiny_model_dir, "", **DOLCI, max_train_questions=20)
    here = f"data.train={copy}"
    summary, table = prepared(path, here, "prompt_family=abstract")
    assert len(table) == 20 and all(len(row["trace"]) >= 200 for row in table)
    numbers = [int(row["question"].partition(" ")[0]) for row in table]
    assert numbers != sorted(numbers) and all(number % 3 for number in numbers)
    assert [row["solution"] for row in table] == [f"It is \\boxed{{{n + 1}}}." for n in numbers]
    reasons = summary.dropped["train"]
    assert sum(reasons.values()) == 40 and len(reasons) == 2
    assert {"beyond data.max_train_questions", NOT_LAID_OUT["think_messages"]} == reasons.keys()
    # Stages 1 and 2 would train on words, so there are no files for them.
    assert summary.train_files == [] and not (tmp_path / "run/train").exists()
    said = prepare.describe_preparation(summary)
    assert "20 rows have a verbal chain; scripts/build_arms.py makes train files" in said
    # In a family of words the same data are what stages 1 and 2 train on.
    summary, _ = prepared(path, here, "prompt_family=think", f"run_dir={tmp_path / 'words'}")
    assert [file.name for file in summary.train_files] == [
        "own_reasoner.parquet",
        "own_posterior.parquet",
    ]


@pytest.mark.slow
def test_think_messages_of_the_hub(tmp_path, tiny_model_dir):
    rows = [think_row(number) for number in range(90)]
    write_repository(tmp_path / "hub", "Dolci-Think-SFT-7B", rows, account="allenai")
    local, hub = tmp_path / "hub/allenai/Dolci-Think-SFT-7B", "allenai/Dolci-Think-SFT-7B"
    path = write_config(tmp_path, tiny_model_dir, "", **DOLCI, allow_hub=True)
    with serve(tmp_path / "hub") as endpoint:
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts/prepare_data.py"), str(path), f"data.train={hub}"],
            env=os.environ | client_environment(endpoint, tmp_path / "home"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "reads 60 train rows from allenai/Dolci-Think-SFT-7B" in done.stdout
    streamed = read_rows(tmp_path / "run/questions", "questions")
    # A copy in a folder gives the same rows in the same order.
    _, copied = prepared(path, f"data.train={local}", f"run_dir={tmp_path / 'copied'}")
    assert streamed == copied and 30 < len(copied) <= 60
