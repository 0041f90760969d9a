"""How weight falls on easy and hard questions, with shares by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variational_reasoning.files import file_digest
from variational_reasoning.report import diagnostics
from variational_reasoning.report.difficulty import (
    DIFFICULTIES,
    difficulty_of,
    read_weight_shares,
)


def write_train(folder, name, rows):
    path = folder / "train" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    ids, weights, accuracies = zip(*rows, strict=True)
    columns = {"question_id": ids, "weight": weights}
    columns["question_accuracy"] = pa.array(accuracies, pa.float64())
    pq.write_table(pa.table(columns), path)
    return path


def test_bounds_belong_to_the_harder_side():
    accuracy = np.array([0.0, 0.01, 0.25, 0.26, 0.75, 0.76, 1.0])
    names = [DIFFICULTIES[place] for place in difficulty_of(accuracy)]
    assert names == ["never", "hard", "hard", "middle", "middle", "easy", "always"]


def test_shares_of_weight_and_of_questions(tmp_path):
    # P = 1/8 in two rows of 1/2, 1/2 with weight 1, 1 with weight 2, and one that is not known
    rows = [
        ("h", 0.5, 0.125),
        ("h", 0.5, 0.125),
        ("m", 1.0, 0.5),
        ("a", 2.0, 1.0),
        ("u", 9.0, None),
    ]
    shares = read_weight_shares(write_train(tmp_path, "t", rows))
    assert shares.weights.tolist() == [0, 0.25, 0.25, 0, 0.5]
    assert shares.questions.tolist() == [0, 1 / 3, 1 / 3, 0, 1 / 3]
    assert shares.mean_accuracy == (0.125 + 0.5 + 2) / 4
    assert (shares.num_questions, shares.num_unknown) == (3, 1)


def test_a_train_file_that_was_changed_after_it_was_written_is_refused(tmp_path):
    path = write_train(tmp_path, "t", [("q", 1.0, 0.5)])
    manifest = {"shards": [{"name": path.name, "rows": 1, "sha256": file_digest(path)}]}
    path.with_suffix(".manifest.json").write_text(json.dumps(manifest))
    assert read_weight_shares(path).num_questions == 1
    write_train(tmp_path, "t", [("q", 1.0, 0.75)])
    with pytest.raises(ValueError, match=r"t\.parquet was changed after it was written"):
        read_weight_shares(path)


def test_the_section_has_a_row_per_file_and_names_those_without_verdicts(tmp_path):
    assert diagnostics.weight_by_difficulty(tmp_path).absent
    write_train(tmp_path, "rft", [("q", 0.25, 0.25), ("r", 1.0, 1.0)])
    write_train(tmp_path, "gml", [("q", 1.0, None)])
    section = diagnostics.weight_by_difficulty(tmp_path)
    [row] = section.tables[0].rows
    cells = ["0.0% (0.0%)", "20.0% (50.0%)", "0.0% (0.0%)", "0.0% (0.0%)", "80.0% (50.0%)"]
    assert row == ["rft", "2", *cells, "85.0%"]  # (1/4 * 1/4 + 1) / 1.25
    assert section.notes == ["Without verdicts: gml."]


def test_questions_that_are_left_out_are_counted(tmp_path):
    write_train(tmp_path, "rft", [("q", 0.25, 0.25), ("u", 1.0, None)])
    section = diagnostics.weight_by_difficulty(tmp_path)
    assert section.notes == ["Left out, questions without a decided answer: rft 1."]
