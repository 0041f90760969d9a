"""The profile tiny_abstract on a few questions, with a random base: every command once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.method.abstract import symbol_names
from variational_reasoning.pipeline.rows import read_rows

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "variational_reasoning"


@pytest.fixture
def profile(tmp_path) -> Path:
    """A copy that trains two arms for two steps, without the training of the base."""
    folder = tmp_path / "profile"
    shutil.copytree(EXAMPLES / "tiny_abstract", folder)
    (folder / "0_pretrain_base.yaml").unlink()
    path = folder / "pipeline.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("base=runs/tiny-base", f"base={tmp_path}/base")
    text = text.replace("base: runs/tiny-base/model", f"base: {tmp_path}/base/init")
    text = text.replace("train=2000", "train=24 test=6").replace("clusters: 64", "clusters: 8")
    path.write_text(text, encoding="utf-8")
    for recipe in folder.glob("9_train_*.yaml"):
        recipe.write_text(
            recipe.read_text(encoding="utf-8")
            .replace("max_steps: 600", "max_steps: 2")
            .replace("rows_per_step: 32", "rows_per_step: 8"),
            encoding="utf-8",
        )
    return folder


def run(profile: Path, *words: str) -> str:
    bin_folder = str(Path(sys.executable).parent)
    env = os.environ | {"PATH": bin_folder + os.pathsep + os.environ["PATH"], "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "scripts/run.py", str(profile), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.host
def test_the_mechanics_on_a_few_questions(profile, tmp_path):
    folder = tmp_path / "run"
    output = run(profile, f"run={folder}", "finals=clustered", "eval.max_new_tokens=16")
    assert "symbol tells" in output
    table = (folder / "arms.md").read_text(encoding="utf-8")
    assert table.startswith("| arm | accuracy | tokens |") and "| clustered |" in table
    traces = read_rows(folder / "first_traces/clusters", "traces")
    assert len(traces) == 24
    # Five steps, so five symbols and the end delimiter.
    assert {len(row["token_ids"]) for row in traces} == {6}
    known = "|".join(symbol_names(8))
    assert all(re.fullmatch(f"({known}){{5}}", row["text"]) for row in traces)
    random_traces = read_rows(folder / "first_traces/random", "traces")
    assert len({row["text"] for row in random_traces}) > 12
    result = json.loads((folder / "evals/clustered/result.json").read_text(encoding="utf-8"))
    assert result["num_questions"] == 6
    controls = json.loads((folder / "evals/clustered/controls.json").read_text(encoding="utf-8"))
    # After two steps few traces are closed, or none.
    assert controls["num_questions"] + controls["num_without_trace"] == 6


def test_a_dry_run_prints_every_command_in_order(profile, tmp_path):
    output = run(profile, f"run={tmp_path}/run", "finals=verbal,clustered", "dry_run=true")
    words = [line.split() for line in output.splitlines()]
    names = [
        Path(line[1]).stem if line[0] == "python" else Path(line[2]).stem.removeprefix("9_")
        for line in words
    ]
    assert names == [
        "make_task",
        "prepare_data",
        "cluster_steps",
        "extend_vocabulary",
        "build_arms",
        "train_verbal",
        "train_clustered",
        *["run", "trace_controls"] * 3,
        "compare_arms",
        "report",
    ]
    assert not (tmp_path / "run").exists()
    starts = [w for line in words for w in line if w.startswith("model_name_or_path=")]
    assert [Path(start).name for start in starts] == ["init", "extended"]


def test_given_traces_have_one_round(profile):
    command = [sys.executable, "scripts/run.py", str(profile), "rounds=2", "dry_run=true"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "have one round" in done.stderr
