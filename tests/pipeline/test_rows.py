"""Tables on disk: schemas, shards, manifests, resume, refusals."""

import json
import os
import platform
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    index_by,
    open_stage,
    read_manifest,
    read_parquet,
    read_rows,
    read_table,
    table_digest,
    write_table,
)
from variational_reasoning.pipeline.tables import TABLES
from variational_reasoning.pipeline.train_files import write_file

IDENTITY = Identity(
    {"questions": "aa"},
    {"cutoff_len": 8, "sampling": {"top_p": 1.0}},
    {"path": "m", "fingerprint": "f"},
    3,
)


def verdict(question_id: str, trace_id: int = 0, answer_id: int = 0) -> dict:
    return {"question_id": question_id, "trace_id": trace_id, "answer_id": answer_id} | {
        "verdict": "correct",
        "reason": "",
        "seconds": 0.5,
        "tier": "",
    }


def fill(stage, only: set[int] | None = None) -> None:
    for index, units in stage.pending():
        if only is None or index in only:
            rows = [verdict(unit, k) for unit in units for k in range(2)]
            stage.write_shard(
                index, rows, {"answers": len(rows)}, [{"question_id": units[0], "reason": "test"}]
            )


UNITS = ["a", "b", "c", "d", "e"]


def test_end_tokens_and_tokenizer_settings_are_part_of_the_model(tmp_path, tiny_model_dir):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    first = model_identity(folder)
    open_stage(tmp_path / "new", "verdicts", Identity({}, {}, first), UNITS, 2)
    fingerprint_only = {name: first[name] for name in ("path", "fingerprint")}
    open_stage(tmp_path / "old", "verdicts", Identity({}, {}, fingerprint_only), UNITS, 2)

    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    second = model_identity(folder)
    assert second["fingerprint"] == first["fingerprint"]
    with pytest.raises(ValueError, match=r"model\.settings_fingerprint: there '\w+', now '\w+'"):
        open_stage(tmp_path / "new", "verdicts", Identity({}, {}, second), UNITS, 2)
    # a run that an earlier release began recorded no settings, and goes on
    open_stage(tmp_path / "old", "verdicts", Identity({}, {}, second), UNITS, 2)


def ended_process() -> int:
    """The id of a process that is not alive any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_shards_of_living_processes_stay(tmp_path):
    """The last shard is another process's too, which is still writing it."""
    stage = open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2)
    ended = ended_process()
    node = platform.node()
    living = tmp_path / f"shard-00002.parquet.{node}.{os.getppid()}.tmp"
    dead = tmp_path / f"shard-00002.parquet.{node}.{ended}.tmp"
    elsewhere = tmp_path / f"shard-00002.parquet.other-{node}.{ended}.tmp"
    old = tmp_path / f"shard-00001.parquet.other-{node}.{ended}.tmp"
    for path in (living, dead, elsewhere, old):
        path.write_text("half a shard")
    os.utime(old, (0, 0))
    fill(stage)
    stage.finish()
    assert living.exists() and elsewhere.exists()
    assert not dead.exists() and not old.exists()


def test_a_stage_from_begin_to_end(tmp_path):
    stage = open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2)
    assert not stage.is_complete and [units for _, units in stage.pending()] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    fill(stage)
    manifest = stage.finish(summary={"x": 1})
    assert (
        manifest["rows"] == 10
        and manifest["counts"] == {"answers": 10}
        and manifest["summary"] == {"x": 1}
    )
    assert [row["question_id"] for row in manifest["dropped"]] == ["a", "c", "e"]
    assert (
        manifest["inputs"] == {"questions": "aa"}
        and manifest["seed"] == 3
        and manifest["versions"][0]["python"]
    )
    assert manifest["columns"] == TABLES["verdicts"].columns.names
    rows = read_rows(tmp_path, "verdicts")
    assert rows[3] == verdict("b", 1)
    assert read_table(tmp_path, "verdicts", ["verdict"]).column_names == ["verdict"]
    assert open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2).is_complete


def test_resumed_in_any_order_gives_the_same_bytes(tmp_path):
    fill(whole := open_stage(tmp_path / "whole", "verdicts", IDENTITY, UNITS, 2))
    whole.finish()
    fill(open_stage(tmp_path / "parts", "verdicts", IDENTITY, UNITS, 2), only={1})
    (
        tmp_path / "parts" / f"shard-00000.parquet.{platform.node()}.{ended_process()}.tmp"
    ).write_bytes(b"half a shard of a killed process")
    stage = open_stage(tmp_path / "parts", "verdicts", IDENTITY, UNITS, 2)
    assert [index for index, _ in stage.pending()] == [0, 2] and stage.num_found == 1
    fill(stage)
    assert stage.finish()["shards_found_finished"] == 1
    for path in sorted((tmp_path / "whole").glob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    assert table_digest(tmp_path / "whole", "verdicts") == table_digest(
        tmp_path / "parts", "verdicts"
    )
    assert not list((tmp_path / "parts").glob("*.tmp"))


@pytest.mark.parametrize("finished", [True, False])
def test_another_identity_is_refused_and_each_difference_is_named(tmp_path, finished):
    fill(
        stage := open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2),
        only=None if finished else {0},
    )
    if finished:
        stage.finish()
    other = Identity(
        {"questions": "bb"},
        {"cutoff_len": 9, "sampling": {"top_p": 0.9}},
        {"path": "n", "fingerprint": "g"},
        4,
    )
    with pytest.raises(ValueError) as error:
        open_stage(tmp_path, "verdicts", other, UNITS, 2)
    for line in (
        "config.cutoff_len: there 8, now 9",
        "config.sampling.top_p: there 1.0, now 0.9",
        "inputs.questions: there 'aa', now 'bb'",
        "model.fingerprint: there 'f', now 'g'",
        "seed: there 3, now 4",
        f"Remove {tmp_path}",
    ):
        assert line in str(error.value)
    assert "model.path" not in str(error.value)
    with pytest.raises(ValueError, match="units"):
        open_stage(tmp_path, "verdicts", IDENTITY, UNITS[::-1], 2)
    with pytest.raises(ValueError, match="table: there 'verdicts', now 'answers'"):
        open_stage(tmp_path, "answers", IDENTITY, UNITS, 2)


def test_a_shard_that_is_there_is_never_replaced(tmp_path):
    """Two processes did the same shard; the manifest may be made of the first one's before the
    second's is written.
    """
    stage = open_stage(tmp_path, "verdicts", IDENTITY, ["a"], 1)
    stage.write_shard(0, [verdict("a")])
    before = (tmp_path / "shard-00000.parquet").read_bytes()
    stage.finish()
    stage.write_shard(0, [verdict("a") | {"seconds": 0.7}])
    assert (tmp_path / "shard-00000.parquet").read_bytes() == before and not list(
        tmp_path.glob("*.tmp")
    )
    assert read_rows(tmp_path, "verdicts") == [verdict("a")]


def test_a_moved_model_is_the_same_model(tmp_path):
    open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2)
    moved = Identity(IDENTITY.inputs, IDENTITY.config, {"path": "elsewhere", "fingerprint": "f"}, 3)
    open_stage(tmp_path, "verdicts", moved, UNITS, 2)


def test_what_does_not_fit_a_table_is_refused(tmp_path):
    def write(*rows):
        write_table(tmp_path / "t", "verdicts", list(rows), IDENTITY)

    with pytest.raises(ValueError, match="no row"):
        write()
    with pytest.raises(
        ValueError,
        match=r"row 1 of verdicts: missing columns \['seconds'\], unknown columns \['second'\]",
    ):
        bad = verdict("b")
        bad["second"] = bad.pop("seconds")
        write(verdict("a"), bad)
    with pytest.raises(ValueError, match="repeated"):
        write(verdict("a"), verdict("a"))
    with pytest.raises(ValueError, match="row 0 has no value in the column 'verdict'"):
        write(verdict("a") | {"verdict": None})
    assert not (tmp_path / "t" / "manifest.json").exists()
    with pytest.raises(ValueError, match="does not fit"):
        write_table(tmp_path / "u", "verdicts", [verdict("a") | {"seconds": "long"}], IDENTITY)


def test_an_id_in_two_shards_and_missing_shards_do_not_finish(tmp_path):
    stage = open_stage(tmp_path, "verdicts", IDENTITY, ["a", "b"], 1)
    stage.write_shard(0, [verdict("a")])
    with pytest.raises(ValueError, match="1 of 2 shards are missing"):
        stage.finish()
    stage.write_shard(1, [verdict("a")])
    with pytest.raises(ValueError, match="1 ids of the table verdicts are there more than once"):
        stage.finish()


def test_a_table_of_dropped_rows_only_is_an_error_with_the_reasons(tmp_path):
    stage = open_stage(tmp_path, "verdicts", IDENTITY, ["a"], 1)
    stage.write_shard(0, [], {"malformed": 3}, [{"question_id": "a", "reason": "too long"}])
    with pytest.raises(
        ValueError,
        match=r"would have no row; counts: \{'malformed': 3\}, reasons: \{'too long': 1\}",
    ):
        stage.finish()


def test_work_units_must_be_there_once(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        open_stage(tmp_path, "verdicts", IDENTITY, [], 1)
    with pytest.raises(ValueError, match="repeated"):
        open_stage(tmp_path, "verdicts", IDENTITY, ["a", "a"], 1)


def test_unfinished_changed_and_foreign_tables_are_not_read(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_rows(tmp_path / "absent", "verdicts")
    fill(stage := open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2), only={0})
    with pytest.raises(ValueError, match="is not finished; run its stage again"):
        read_rows(tmp_path, "verdicts")
    fill(stage)
    stage.finish()
    with pytest.raises(ValueError, match="'answers' is needed"):
        read_manifest(tmp_path, "answers")
    shard = tmp_path / "shard-00001.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(ValueError, match=r"shard-00001\.parquet was changed"):
        read_rows(tmp_path, "verdicts")
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.parquet is missing"):
        read_rows(tmp_path, "verdicts")
    with pytest.raises(ValueError, match="lacks shards"):
        open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2)


def test_rows_without_a_plan_are_not_taken_over(tmp_path):
    (tmp_path / "shard-00000.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="nobody knows what they are"):
        open_stage(tmp_path, "verdicts", IDENTITY, UNITS, 2)


def test_one_file_with_its_manifest(tmp_path):
    optional = {f.name: None for f in TABLES["train"].columns if f.nullable}
    row = {
        "question_id": "a",
        "source": -2,
        "prompt": "p",
        "response": "r",
        "weight": 1.0,
    } | optional
    path = tmp_path / "train" / "tiny_reasoner.parquet"
    manifest = write_file(path, "train", [row], IDENTITY, policy="original")
    assert pq.read_table(path).to_pylist() == [row]
    assert json.loads((tmp_path / "train" / "tiny_reasoner.manifest.json").read_text()) == manifest
    assert manifest["policy"] == "original"
    with pytest.raises(ValueError, match="more than once"):
        write_file(path, "train", [row, row], IDENTITY)


def test_joins_are_by_key():
    rows = [verdict("b"), verdict("a"), verdict("a", 1)]
    assert group_by(rows, "question_id")["a"] == rows[1:]
    assert index_by(rows, "question_id", "trace_id")["a", 1] is rows[2]
    with pytest.raises(ValueError, match="same"):
        index_by(rows, "question_id")


def test_an_optional_column_that_the_file_lacks_is_null_also_when_it_is_asked_for(tmp_path):
    row = {"question_id": "q", "trace_id": 0, "trace_logp": -1.0, "trace_tokens": 2}
    row |= {"answer_logp": None, "answer_tokens": None, "temperature": 1.0}
    write_table(tmp_path / "t", "trace_logps", [row], Identity({}, {}))
    path = next((tmp_path / "t").glob("shard-*.parquet"))
    old = pq.read_table(path).drop_columns(["early_answer_logp"])
    pq.write_table(old, tmp_path / "old.parquet")
    columns = ["trace_logp", "early_answer_logp"]
    part = read_parquet(tmp_path / "old.parquet", "trace_logps", columns)
    assert part.to_pylist() == [{"trace_logp": -1.0, "early_answer_logp": None}]
    assert set(read_parquet(tmp_path / "old.parquet", "trace_logps").column_names) == set(
        TABLES["trace_logps"].columns.names
    )
    pq.write_table(old.drop_columns(["trace_logp"]), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match="lacks the columns .*trace_logp"):
        read_parquet(tmp_path / "bad.parquet", "trace_logps", columns)
