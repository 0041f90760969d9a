"""Shares of a stage: processes that do not talk to each other, one of them killed; failed rows; a
disk that is full.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pipeline.test_sample import shard_bytes, well_formed_traces
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.rows import read_manifest, read_rows, shard_name
from variational_reasoning.pipeline.sample import sample_answers, sample_traces
from variational_reasoning.pipeline.score import score_traces
from variational_reasoning.pipeline.verify import verify_answers
from variational_reasoning.pipeline.work.job import share_of
from variational_reasoning.pipeline.work.launch import own_share
from variational_reasoning.pipeline.work.summary import describe_table

ROOT = Path(__file__).parents[3]


def start(path: Path, *pairs: str, script: str = "sample_traces", **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, f"scripts/{script}.py", str(path), *pairs],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {}),
        **options,
    )


def test_shares_are_disjoint_complete_and_balanced():
    """The paper's workload: 16,710 questions x 8 log-normal traces of mean 6k and cv 0.8, in shards
    of 64 questions.
    """
    draw = np.random.default_rng(0)
    sigma = np.sqrt(np.log(1 + 0.8**2))
    lengths = draw.lognormal(np.log(6000) - sigma**2 / 2, sigma, size=(16710, 8)).clip(max=32000)
    costs = {f"q{i}": float((row + row**2 / 27000).sum()) for i, row in enumerate(lengths)}
    units = list(costs)
    shards = [units[i : i + 64] for i in range(0, len(units), 64)]
    shares = [share_of(shards, costs.__getitem__, i, 8) for i in range(8)]
    assert sorted(shard for share in shares for shard in share) == list(range(len(shards)))
    loads = [sum(costs[unit] for shard in share for unit in shards[shard]) for share in shares]
    assert max(loads) / (sum(loads) / 8) < 1.02


def test_shares_come_from_slurm_and_torchrun(make_run, monkeypatch):
    path = make_run()
    assert own_share(load_config(path)) == (0, 1)
    assert own_share(load_config(path, ["shard=3/4"])) == (3, 4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert own_share(load_config(path)) == (1, 2)
    assert own_share(load_config(path, ["shard=3/4"])) == (7, 8)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="RANK is first and WORLD_SIZE 2"):
        own_share(load_config(path))
    with pytest.raises(ValueError, match=r"shard: '4/4' is not of the form i/n"):
        load_config(path, ["shard=4/4"])
    with pytest.raises(ValueError, match="has no meaning with launcher ray"):
        load_config(path, ["shard=1/4", "launcher=ray"])


@pytest.mark.slow
def test_three_processes_share_a_stage_and_one_is_killed(make_run):
    settings = {
        "sampling": {"questions_per_shard": 1, "max_trace_tokens": 30},
        "scoring": {"questions_per_shard": 1},
    }
    whole = load_config(make_run(num_questions=9, name="whole", **settings))
    sample_traces(whole)
    path = make_run(num_questions=9, name="shared", **settings)
    folder = load_config(path).folder("traces")
    processes = [
        start(path, "shard=0/3"),
        start(path, "shard=1/3"),
        start(path, env={"RANK": "2", "WORLD_SIZE": "3"}),
    ]
    while processes[1].poll() is None and not any(folder.glob("shard-*.parquet")):
        time.sleep(0.01)
    time.sleep(random.Random(0).uniform(0, 0.2))
    processes[1].send_signal(signal.SIGKILL)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert processes[0].returncode == processes[2].returncode == 0, outputs
    assert shard_bytes(folder).items() <= shard_bytes(whole.folder("traces")).items()
    done = start(path, "shard=1/3")
    output, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    assert "27 rows in 9 shards" in output
    assert shard_bytes(folder) == shard_bytes(whole.folder("traces"))
    assert (
        read_manifest(folder, "traces")["counts"]
        == read_manifest(whole.folder("traces"), "traces")["counts"]
    )


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "launcher"), [("sample_answers", []), ("score_traces", TORCHRUN)]
)
def test_everything_killed_at_random_points_twice_gives_the_same_bytes(make_run, script, launcher):
    """One process, and torchrun with both its ranks: nobody is left to end a shard or to write a
    manifest.
    """
    settings = {
        "sampling": {"questions_per_shard": 1, "max_answer_tokens": 30},
        "scoring": {"questions_per_shard": 1},
    }
    whole, path = (
        make_run(num_questions=60, name=name, **settings) for name in ("whole", "killed")
    )
    for each in (whole, path):
        well_formed_traces(load_config(each))
    stage, table, pairs = sample_answers, "answers", []
    if script == "score_traces":
        stage, table, pairs = (
            lambda c: score_traces(c, "reasoner"),
            "trace_logps/reasoner",
            ["model=reasoner"],
        )
    stage(load_config(whole))
    wanted, folder = shard_bytes(load_config(whole).folder(table)), load_config(path).folder(table)
    draw, found = random.Random(script), {}
    for _ in range(2):
        command = [sys.executable, *launcher, f"scripts/{script}.py", str(path), *pairs]
        run = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        while run.poll() is None and len(list(folder.glob("shard-*.parquet"))) == len(found):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        ranks = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for pid in [run.pid, *map(int, ranks)]:
            os.kill(pid, signal.SIGKILL)
        run.wait()
        assert len(ranks) == (2 if launcher else 0)
        assert len(shard_bytes(folder)) > len(
            found
        )  # each attempt went on where the one before it was killed
        found = shard_bytes(folder)
        assert found.items() < wanted.items()
    stage(load_config(path))
    assert shard_bytes(folder) == wanted and not list(folder.glob("*.tmp"))


@pytest.mark.slow
def test_the_other_stages_share_too(make_run):
    tables = (
        sample_answers,
        lambda c: score_traces(c, "reasoner"),
        lambda c: score_traces(c, "posterior"),
        verify_answers,
    )
    folders = ("answers", "trace_logps/reasoner", "trace_logps/posterior", "verdicts")
    settings = {
        "scoring": {"questions_per_shard": 1},
        "verify": {"questions_per_shard": 2, "workers": 1},
    }
    paths = [make_run(num_questions=5, name=name, **settings) for name in ("whole", "shared")]
    for path in paths:
        well_formed_traces(load_config(path))
    for stage, name in zip(tables, folders, strict=True):
        stage(load_config(paths[0]))
        first = stage(load_config(paths[1], ["shard=1/2"]))
        assert first.manifest is None
        assert stage(load_config(paths[1], ["shard=0/2"])).manifest["rows"] > 0
        rows = [read_rows(load_config(path).folder(name), name.split("/")[0]) for path in paths]
        for row in rows[0] + rows[1]:
            row.pop("seconds", None)  # of a verdict
        assert rows[0] == rows[1]


def test_shares_of_different_counts_on_one_folder_lose_and_spoil_nothing(make_run):
    """0/2 and 1/3 of six shards: some are both's, some nobody's; whoever comes next does what is
    left.
    """
    settings = {"sampling": {"questions_per_shard": 1}}
    whole, path = (make_run(num_questions=6, name=name, **settings) for name in ("whole", "shared"))
    sample_traces(load_config(whole))
    first = sample_traces(load_config(path, ["shard=0/2"]))
    second = sample_traces(load_config(path, ["shard=1/3"]))
    assert (first.missing, second.missing) == (3, 2) and second.manifest is None
    assert "2 shards are still missing" in describe_table(second)
    assert sample_traces(load_config(path)).manifest["shards_found_finished"] == 4
    assert shard_bytes(load_config(path).folder("traces")) == shard_bytes(
        load_config(whole).folder("traces")
    )


def break_the_posterior(config) -> None:
    """The embedding of one id is not finite, and only q001's question holds it: its rows fail."""
    weights_file = config.model_folder("posterior") / "model.safetensors"
    weights = load_file(weights_file)
    tokenizer = json.loads((config.model_folder("posterior") / "tokenizer.json").read_text())
    weights["model.embed_tokens.weight"][tokenizer["model"]["vocab"]["A"]] = torch.nan
    save_file(weights, weights_file, metadata={"format": "pt"})


def test_failed_rows_are_recorded_and_end_a_stage_only_beyond_the_fraction(make_run):
    path = make_run(num_questions=3, sampling={"max_failed_fraction": 0.5})
    config = load_config(path)
    break_the_posterior(config)
    with pytest.raises(
        ValueError,
        match=r"3 of 9 rows failed, above sampling\.max_failed_fraction 0\.1.*not finite.*'q001'",
    ):
        sample_traces(load_config(path, ["sampling.max_failed_fraction=0.1"]))
    summary = sample_traces(config)
    assert summary.manifest["rows"] == 6 and summary.manifest["counts"]["failed"] == 3
    assert [(row["question_id"], row["trace_id"]) for row in summary.manifest["failed"]] == [
        ("q001", k) for k in range(3)
    ]
    assert "failed: 3 the model's logits are not finite" in describe_table(summary)


def test_the_failure_limit_counts_what_is_on_disk(make_run):
    """3 of 9 rows fail, all of them in shard 1, which a more patient run left on disk."""
    settings = {"max_failed_fraction": 0.5, "questions_per_shard": 1}
    path = make_run(num_questions=3, sampling=settings)
    patient = load_config(path)
    break_the_posterior(patient)
    sample_traces(load_config(path, ["shard=0/3"]))
    sample_traces(load_config(path, ["shard=1/3"]))
    strict = load_config(path, ["sampling.max_failed_fraction=0.1"])
    folder = strict.folder("traces")
    failing = shard_name(1)
    refusal = rf"3 of 9 rows failed.* remove from \S+: {failing}\."
    for _ in range(4):
        with pytest.raises(ValueError, match=refusal):
            sample_traces(strict)
    for index in range(3):
        share = [f"shard={index}/3", "sampling.max_failed_fraction=0.1"]
        with pytest.raises(ValueError, match=refusal):
            sample_traces(load_config(path, share))
    assert not (folder / "manifest.json").exists()

    assert sample_traces(patient).manifest["counts"]["failed"] == 3
    # a finished table is refused too, and what the message says can be done
    with pytest.raises(ValueError, match=rf"remove from \S+: manifest\.json, {failing}\."):
        sample_traces(strict)
    wanted = shard_bytes(folder)
    for name in ("manifest.json", failing):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="3 of 9 rows failed.*Nothing of it was written"):
        sample_traces(strict)
    sample_traces(patient)
    assert shard_bytes(folder) == wanted


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_finished_shards_valid(make_run):
    """No file may grow beyond 300 bytes, so that the shards that are left cannot be written."""
    path = make_run(num_questions=6)
    config = load_config(path)
    sample_traces(config)
    folder = config.folder("traces")
    wanted = shard_bytes(folder)
    for name in (shard_name(1), "manifest.json"):
        (folder / name).unlink()
    limited = start(path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)))
    _, errors = limited.communicate(timeout=120)
    assert limited.returncode == 2 and "Traceback" not in errors
    assert "could not be written" in errors and "finished files are valid: make room" in errors
    assert shard_bytes(folder).items() < wanted.items() and not list(folder.glob("shard-*.tmp"))
    sample_traces(config)
    assert shard_bytes(folder) == wanted


NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-ec"]


@pytest.mark.slow
def test_a_file_system_that_is_full_leaves_finished_shards_valid(make_run, tmp_path):
    """A real one, of as many pages as three of six shards need."""
    probe = subprocess.run(
        [*NAMESPACE, f"mount -t tmpfs -o size=4k none {tmp_path}"], capture_output=True
    )
    if probe.returncode:
        pytest.skip("this machine does not let users mount a tmpfs of their own")
    path = make_run(num_questions=6, sampling={"questions_per_shard": 1})
    config = load_config(path)
    sample_traces(config)
    folder, kept = config.folder("traces"), tmp_path / "kept"
    wanted = shard_bytes(folder)
    files = [folder / "stage.json", *(folder / shard_name(index) for index in range(3))]
    pages = sum(-(-file.stat().st_size // 4096) for file in files)
    shutil.rmtree(folder)
    folder.mkdir()
    stage = f"{sys.executable} scripts/sample_traces.py {path}"
    script = f"mount -t tmpfs -o size={4 * pages}k none {folder}; {stage} || code=$?; cp -r {folder} {kept}; exit $code"
    done = subprocess.run(
        [*NAMESPACE, script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "No space left on device" in done.stderr
        and "make room and run the same command again" in done.stderr
    )
    assert shard_bytes(kept) == {name: wanted[name] for name in map(shard_name, range(3))}
    assert not list(kept.glob("*.tmp"))
    folder.rmdir()
    kept.rename(folder)
    sample_traces(config)
    assert shard_bytes(folder) == wanted


ARRAYS = {
    "0-3": ("2", (0, 3, 4, 1), None, "2/4"),
    "1-4": ("2", (1, 4, 4, 1), None, "1/4"),
    "0-15:2": ("6", (0, 14, 8, 2), None, "3/8"),
    "5": ("5", (5, 5, 1, 1), None, "0/1"),
    "3,7": ("7", (3, 7, 2, 1), None, "7/8"),
    "3,7 of 16": ("7", (3, 7, 2, 1), "16", "7/16"),
}
"""Array to its task, Slurm's MIN, MAX, COUNT and STEP, SHARES, and the share that the task does."""


@pytest.mark.parametrize("array", ARRAYS)
def test_the_share_of_a_slurm_task(tmp_path, array):
    task, numbers, shares, expected = ARRAYS[array]
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\necho "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROCESSES": "1"}
    environment |= {"SLURM_ARRAY_TASK_ID": task} | ({"SHARES": shares} if shares else {})
    for name, number in zip(("MIN", "MAX", "COUNT", "STEP"), numbers, strict=True):
        environment[f"SLURM_ARRAY_TASK_{name}"] = str(number)
    command = ["bash", "examples/variational_reasoning/slurm.sh", "sample_traces", "config.yaml"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"scripts/sample_traces.py config.yaml shard={expected}\n"
    assert ("sparse array" in done.stderr) == (array == "3,7")


@pytest.mark.slow
def test_the_slurm_example_does_a_whole_stage(make_run):
    """Two array tasks of two processes each, one after the other, as a queue may run them."""
    path = make_run(num_questions=5, sampling={"questions_per_shard": 1})
    for index in range(2):
        array = {
            "SLURM_ARRAY_TASK_ID": str(index + 1),
            "SLURM_ARRAY_TASK_MIN": "1",
            "SLURM_ARRAY_TASK_COUNT": "2",
        }
        environment = os.environ | array | {"SLURM_GPUS_ON_NODE": "2", "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        command = ["bash", "examples/variational_reasoning/slurm.sh", "sample_traces", str(path)]
        subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120
        )
    assert read_manifest(load_config(path).folder("traces"), "traces")["rows"] == 15
