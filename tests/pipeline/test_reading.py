"""Finished tables as their readers see them: summaries, rows of some questions, and shards that
were changed.
"""

import json

import pyarrow.parquet as pq
import pytest

from variational_reasoning.files import file_digest
from variational_reasoning.pipeline.reading import SUMMARY, TableReader
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    read_rows,
    table_digest,
    write_table,
)

LENGTHS = {("q0", 0): 3, ("q0", 1): 1, ("q1", 0): 4, ("q1", 1): 2, ("q2", 0): 5}


def trace(question_id: str, trace_id: int, num_tokens: int) -> dict:
    return {
        "question_id": question_id,
        "trace_id": trace_id,
        "token_ids": list(range(num_tokens)),
        "text": "x" * num_tokens,
        "finish_reason": "stop",
        "is_well_formed": num_tokens > 1,
        "is_retokenized": False,
        "seed": 7,
        "prompt_kind": "reasoner",
        "temperature": 0.7,
    }


@pytest.fixture
def folder(tmp_path):
    """Three shards: q0 in the first, q1 in the second, q2 in the third."""
    rows = [trace(*key, length) for key, length in LENGTHS.items()]
    write_table(tmp_path / "traces", "traces", rows, Identity({"made": "here"}, {}), 2)
    return tmp_path / "traces"


def test_the_summary_has_every_row_and_no_text(folder):
    reader = TableReader(folder, "traces")
    summary = reader.summary
    keys = zip(summary["question_id"].to_pylist(), summary["trace_id"].to_pylist(), strict=True)
    assert dict(zip(keys, summary["num_tokens"].to_pylist(), strict=True)) == LENGTHS
    assert summary["shard"].to_pylist() == [0, 0, 1, 1, 2]
    assert summary["is_well_formed"].to_pylist() == [True, False, True, True, True]
    assert not {"text", "token_ids"} & set(summary.column_names)
    assert reader.question_ids() == ["q0", "q1", "q2"]
    assert reader.digest == table_digest(folder, "traces")


def test_a_second_reader_reads_no_shard_to_plan(folder):
    first = TableReader(folder, "traces").summary
    for path in folder.glob("shard-*.parquet"):
        path.unlink()
    assert TableReader(folder, "traces").summary.equals(first)


def test_rows_of_some_questions_touch_their_shards_only(folder):
    _ = TableReader(folder, "traces").summary
    (folder / "shard-00000.parquet").unlink()
    reader = TableReader(folder, "traces")
    rows = reader.rows_of(["q2", "q1", "absent"], ["token_ids"])
    assert {name: [row["token_ids"] for row in group] for name, group in rows.items()} == {
        "q1": [[0, 1, 2, 3], [0, 1]],
        "q2": [[0, 1, 2, 3, 4]],
    }
    assert set(rows["q1"][0]) == {"question_id", "trace_id", "token_ids"}
    with pytest.raises(ValueError, match="shard-00000.parquet is missing"):
        reader.rows_of(["q0"], ["text"])


def test_a_changed_shard_is_named_where_it_is_read(folder):
    _ = TableReader(folder, "traces").summary
    path = folder / "shard-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 1), path)
    reader = TableReader(folder, "traces")
    assert len(reader.rows_of(["q0"], ["text"])["q0"]) == 2
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed after it was written"):
        reader.rows_of(["q1"], ["text"])
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed"):
        list(reader.scan(["text"]))


def test_a_summary_of_another_table_is_made_again(folder, tmp_path):
    _ = TableReader(folder, "traces").summary
    rows = [trace("q0", 0, 9)]
    write_table(tmp_path / "other", "traces", rows, Identity({"made": "there"}, {}))
    (tmp_path / "other" / SUMMARY).write_bytes((folder / SUMMARY).read_bytes())
    assert TableReader(tmp_path / "other", "traces").summary["num_tokens"].to_pylist() == [9]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    assert TableReader(folder, "traces").summary.num_rows == 5
    assert not (folder / SUMMARY).exists()


def test_a_column_that_came_later_is_null_in_the_shards_of_a_run_begun_before(folder):
    """An earlier release wrote the first shard, without trained_tokens; this one the others."""
    manifest = json.loads((folder / MANIFEST).read_text())
    path = folder / "shard-00000.parquet"
    older = pq.read_table(path).drop_columns(["trained_tokens", "is_trained_as_sampled"])
    pq.write_table(older, path)
    manifest["shards"][0]["sha256"] = file_digest(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    reader = TableReader(folder, "traces")
    assert reader.summary["trained_tokens"].to_pylist() == [None] * 5
    assert reader.summary["num_tokens"].to_pylist() == list(LENGTHS.values())
    table = reader.table_of(["q0", "q2"], ["trained_tokens"])
    assert table.to_pylist() == [
        {"question_id": name, "trace_id": k, "trained_tokens": None}
        for name, k in (("q0", 0), ("q0", 1), ("q2", 0))
    ]
    assert read_rows(folder, "traces", ["trained_tokens"]) == [{"trained_tokens": None}] * 5
