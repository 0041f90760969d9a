"""Finished tables as their readers see them: summaries, rows of some questions, and shards that
were changed.
"""

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from variational_reasoning.files import file_digest
from variational_reasoning.pipeline import reading
from variational_reasoning.pipeline.reading import STATES, SUMMARY, TableReader
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    check_shard,
    open_stage,
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


@pytest.fixture
def hashed(monkeypatch):
    """Names of the shards whose bytes are compared with their digest."""
    names = []

    def noted(path, sha256):
        names.append(path.name)
        check_shard(path, sha256)

    monkeypatch.setattr(reading, "check_shard", noted)
    return names


def test_a_second_reader_reads_no_shard_to_plan(folder, hashed, monkeypatch):
    first = TableReader(folder, "traces").summary
    assert hashed == [f"shard-0000{number}.parquet" for number in range(3)]
    hashed.clear()
    monkeypatch.setattr(reading, "read_parquet", None)  # a call is an error
    assert TableReader(folder, "traces").summary.equals(first)
    assert hashed == []


def test_rows_of_some_questions_touch_their_shards_only(folder, hashed):
    _ = TableReader(folder, "traces").summary
    reader = TableReader(folder, "traces")
    assert reader.question_ids() == ["q0", "q1", "q2"]
    (folder / "shard-00000.parquet").unlink()
    hashed.clear()
    rows = reader.rows_of(["q2", "q1", "absent"], ["token_ids"])
    assert {name: [row["token_ids"] for row in group] for name, group in rows.items()} == {
        "q1": [[0, 1, 2, 3], [0, 1]],
        "q2": [[0, 1, 2, 3, 4]],
    }
    assert set(rows["q1"][0]) == {"question_id", "trace_id", "token_ids"}
    assert hashed == ["shard-00001.parquet", "shard-00002.parquet"]
    with pytest.raises(ValueError, match="shard-00000.parquet is missing"):
        reader.rows_of(["q0"], ["text"])


def shorten(path):
    """Take all rows but the first out of a shard."""
    pq.write_table(pq.read_table(path).slice(0, 1), path)


def test_a_changed_shard_is_named_where_it_is_read(folder):
    reader = TableReader(folder, "traces")
    assert reader.question_ids() == ["q0", "q1", "q2"]
    assert len(reader.rows_of(["q1"], ["is_well_formed"])["q1"]) == 2
    path = folder / "shard-00001.parquet"
    shorten(path)  # after this process has read it once
    assert len(reader.rows_of(["q0"], ["text"])["q0"]) == 2
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed after it was written"):
        reader.rows_of(["q1"], ["text"])
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed"):
        list(reader.scan(["text"]))


def test_a_shard_that_was_changed_after_the_summary_is_named_where_the_summary_is_read(folder):
    _ = TableReader(folder, "traces").summary
    shorten(folder / "shard-00001.parquet")
    reader = TableReader(folder, "traces")
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed after it was written"):
        _ = reader.summary
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed"):
        TableReader(folder, "traces").rows_of(["q0"], ["text"])
    (folder / "shard-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.parquet is missing"):
        TableReader(folder, "traces").question_ids()


def test_one_changed_byte_is_seen_by_the_time_of_the_change(folder):
    """The size is the same."""
    _ = TableReader(folder, "traces").summary
    path = folder / "shard-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    written = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(written, written + 10**9))
    with pytest.raises(ValueError, match=r"shard-00000\.parquet was changed"):
        _ = TableReader(folder, "traces").summary


def test_a_copy_of_a_table_is_hashed_once(folder, tmp_path, hashed):
    first = TableReader(folder, "traces").summary
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied, copy_function=shutil.copy)  # with new times
    for number, path in enumerate(sorted(copied.glob("shard-*.parquet"))):
        os.utime(path, ns=(number, number))
    hashed.clear()
    assert TableReader(copied, "traces").summary.equals(first)
    assert len(hashed) == 3
    assert TableReader(copied, "traces").summary.equals(first)
    assert len(hashed) == 3


def test_the_summary_of_an_earlier_release_goes_on_after_its_shards_were_hashed(folder, hashed):
    first = TableReader(folder, "traces").summary
    (folder / STATES).unlink()
    hashed.clear()
    assert TableReader(folder, "traces").summary.equals(first)
    assert TableReader(folder, "traces").summary.equals(first)
    assert len(hashed) == 3


def test_a_summary_has_the_same_bytes_whenever_its_shards_were_written(folder):
    _ = TableReader(folder, "traces").summary
    expected = (folder / SUMMARY).read_bytes()
    for number, path in enumerate(sorted(folder.glob("shard-*.parquet"))):
        os.utime(path, ns=(number, number))
    _ = TableReader(folder, "traces").summary
    assert (folder / SUMMARY).read_bytes() == expected
    (folder / SUMMARY).unlink()
    _ = TableReader(folder, "traces").summary
    assert (folder / SUMMARY).read_bytes() == expected


@pytest.mark.parametrize("text", ["", "{", '{"table": "another", "shards": {}}'])
def test_states_that_cannot_be_used_cost_one_more_hash_of_each_shard(folder, hashed, text):
    first = TableReader(folder, "traces").summary
    (folder / STATES).write_text(text)
    hashed.clear()
    assert TableReader(folder, "traces").summary.equals(first)
    assert TableReader(folder, "traces").summary.equals(first)
    assert len(hashed) == 3


@pytest.mark.parametrize("damage", ["cut", "bits"])
def test_a_damaged_summary_is_made_again(folder, damage):
    first = TableReader(folder, "traces").summary
    path = folder / SUMMARY
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-20]
    else:  # in the values of the first column
        data[40] ^= 1
    path.write_bytes(data)
    assert TableReader(folder, "traces").summary.equals(first)
    assert bytes(data) != path.read_bytes()


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


def test_the_shards_of_a_finished_stage_are_compared_with_the_manifest(folder):
    plan = json.loads((folder / "stage.json").read_text())
    identity = Identity(plan["inputs"], plan["config"])
    units = [json.dumps(list(key)) for key in LENGTHS]
    stage = open_stage(folder, "traces", identity, units, 2)
    assert len(stage.read_shard(1)) == 2
    shorten(folder / "shard-00001.parquet")
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed after it was written"):
        stage.read_shard(1)
    assert len(stage.read_shard(0)) == 2


def test_some_columns_of_the_summary_are_those_of_the_whole(folder, hashed):
    columns = ["trace_id", "num_tokens"]
    first = TableReader(folder, "traces")
    assert first.columns_of_summary(columns).equals(first.summary.select(columns))
    second = TableReader(folder, "traces")
    hashed.clear()
    assert second.columns_of_summary(columns).equals(first.summary.select(columns))
    assert "summary" not in vars(second)  # it was not read as a whole
    assert hashed == []


def test_a_changed_shard_is_named_where_some_columns_of_the_summary_are_read(folder):
    _ = TableReader(folder, "traces").summary
    shorten(folder / "shard-00001.parquet")
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed after it was written"):
        TableReader(folder, "traces").columns_of_summary(["trace_id"])
