"""Stage 8 against train files that an earlier implementation made: every row, weight and count.

`tests/golden/stage8.json` was written by the release whose stage 8 joined Python dictionaries
(commit 31ac1bb), from the runs that `random_run` draws: duplicates, copies of the data set's trace,
cut and malformed traces, undecided verdicts, rows near cutoff_len, every selection, estimator,
fallback and target.
"""

import json
import math
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.build.test_datasets import sampled, write_run
from variational_reasoning.pipeline.build.datasets import build_datasets

GOLDEN = Path(__file__).parents[2] / "golden/stage8.json"
NUM_RUNS = 12
VERDICTS = (True, True, False, False, "no_answer", "unverifiable", "checker_error")
OUTPUTS = (
    {"estimator": "acc", "selection": "best", "mix": 1, "fallback": "original"},
    {"estimator": "acc", "selection": "weighted", "weight_cap": 0.6, "fallback": "gml"},
    {"estimator": "gml", "selection": "weighted", "mix": 0.5},
    {"estimator": "acc", "selection": "unweighted", "mix": 1.3, "mix_fallback": True},
    {"estimator": "acc", "selection": "random", "ratio": "sum", "verified_only": True},
    {"estimator": "likelihood", "selection": "longest", "ratio": "none"},
    {"estimator": "acc", "selection": "weighted", "question_weight": "grpo", "ratio": "none"},
)
OF_THE_REASONER = (
    {"target": "posterior", "selection": "weighted", "ratio": "none", "hint": "verified"},
    {"target": "posterior", "selection": "best", "ratio": "none", "fallback": "original", "mix": 1},
)


def random_run(number: int):
    """(questions, outputs, settings) as `write_run` takes them."""
    rng = random.Random(number)
    questions = {}
    num_traces = rng.choice((1, 2, 4))
    for place in range(rng.choice((3, 6))):
        traces = []
        for trace_id in range(num_traces):
            text = rng.choice(("expert", "same", "long " * rng.randint(1, 60), f"é {place}"))
            correct = tuple(rng.choice(VERDICTS) for _ in range(2))
            is_well_formed = rng.random() < 0.85
            traces.append(
                sampled(
                    trace_id,
                    text,
                    rng.uniform(-1, 1),
                    correct,
                    answer_logp=-rng.uniform(0, 9),
                    is_well_formed=is_well_formed,
                    finish="stop" if rng.random() < 0.9 else "length",
                    trace_tokens=rng.randint(2, 9),
                )
            )
        questions[f"q{rng.randint(0, 99):02d}{place}"] = traces
    sampler = "reasoner" if number % 4 == 3 else "posterior"
    chosen = OF_THE_REASONER if sampler == "reasoner" else rng.sample(OUTPUTS, 3)
    outputs = [output | {"name": f"o{place}"} for place, output in enumerate(chosen)]
    return questions, outputs, {"sampler": sampler, "cutoff_len": rng.choice((1000, 1150, 3000))}


def build(folder: Path, base: Path, number: int) -> dict:
    """The run's rows and figures by file, or its error."""
    questions, outputs, settings = random_run(number)
    config = write_run(folder, base, questions, outputs, **settings)
    try:
        files = build_datasets(config).files
    except ValueError as error:
        return {"error": str(error).replace(str(folder), "RUN").partition(" (")[0]}
    found = {}
    for file in files:
        rows = pq.read_table(file.path).to_pylist()
        for row in rows:
            row["prompt"] = row["prompt"].rpartition("What of")[2]
        found[file.path.stem] = {"rows": rows, "figures": file.figures}
    return found


def assert_close(ours, golden) -> None:
    if isinstance(golden, dict):
        assert ours.keys() == golden.keys()
        for name in golden:
            assert_close(ours[name], golden[name])
    elif isinstance(golden, list):
        assert len(ours) == len(golden)
        for mine, theirs in zip(ours, golden, strict=True):
            assert_close(mine, theirs)
    elif isinstance(golden, float) and ours is not None:
        assert math.isclose(ours, golden, rel_tol=1e-12, abs_tol=1e-12)
    else:
        assert ours == golden


@pytest.mark.slow
def test_the_rows_are_those_of_the_earlier_implementation(tmp_path, tiny_model_dir):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden) == NUM_RUNS
    num_rows = 0
    for number, expected in enumerate(golden):
        found = build(tmp_path / str(number), tiny_model_dir, number)
        assert_close(json.loads(json.dumps(found)), expected)
        num_rows += sum(len(file["rows"]) for file in expected.values() if "rows" in file)
    assert num_rows > 100
