"""One entry and one function are all that another estimator needs."""

import json
import math
import os
import subprocess
import sys
import textwrap

import pyarrow.parquet as pq
import pytest
from tests.pipeline.build.test_datasets import sampled, write_run

from variational_reasoning.method.estimators import ESTIMATORS, Evidence

PROGRAM = """
import sys
from variational_reasoning.method.estimators import ESTIMATORS, Estimator, Evidence
import math

def log_smoothed(evidence):
    return math.log((evidence.num_correct + 1) / (evidence.num_answers + 2))

ESTIMATORS["laplace"] = Estimator(
    "laplace", "Laplace", ("answers", "verdicts"), log_smoothed, ratios=("sum", "mean")
)

from variational_reasoning.pipeline.build.datasets import build_datasets
from variational_reasoning.pipeline.config import load_config

config = load_config(sys.argv[1], ["build.outputs.0.estimator=laplace"])
build_datasets(config)
"""


@pytest.mark.slow
def test_another_estimator_is_one_entry_and_one_function(tmp_path, tiny_model_dir):
    """Weights of 1 of 2 and 2 of 2 answers: (1 + 1) / 4 to (2 + 1) / 4, so 0.4 and 0.6."""
    traces = [sampled(0, "a", 0.0, (True, False)), sampled(1, "b", 0.0, (True, True))]
    output = {"name": "w", "selection": "weighted"}
    write_run(tmp_path, tiny_model_dir, {"q0": traces}, [output])
    path = tmp_path / "pipeline.yaml"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "train/made_w.parquet").to_pylist()
    assert [row["weight"] for row in rows] == pytest.approx([0.4, 0.6], rel=1e-12)
    # it judges sampled answers, so the rows end with verified ones
    assert [row["answer_id"] is not None for row in rows] == [True, True]
    manifest = json.loads((tmp_path / "train/made_w.manifest.json").read_text())
    assert manifest["config"]["output"]["estimator"] == "laplace"


def test_every_estimator_says_what_it_needs():
    solution = Evidence(answer_logp=-4.0, answer_tokens=2)
    answers = Evidence(num_correct=1, num_answers=2)
    values = {"acc": math.log(0.5), "gml": -2.0, "likelihood": -4.0}
    for name, estimator in ESTIMATORS.items():
        known, unknown = (answers, solution) if estimator.samples_answers else (solution, answers)
        assert estimator.name == name
        assert estimator.is_known(known) and not estimator.is_known(unknown)
        assert estimator.log_term(known) == values[name]
        with pytest.raises(ValueError, match=f"estimator '{name}' needs"):
            estimator.log_term(unknown)
