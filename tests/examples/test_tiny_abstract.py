"""The profile tiny_abstract on a few questions, with a random base: every command once."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from variational_reasoning.method.abstract import symbol_names
from variational_reasoning.pipeline.rows import Identity, read_rows, write_table

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "variational_reasoning"
BOTTLENECK_TEXTS = ("question", "trace", "solution", "chain")


def copied_profile(place: Path) -> Path:
    """A copy that trains for two steps, without the training of the base."""
    folder = place / "profile"
    shutil.copytree(EXAMPLES / "tiny_abstract", folder)
    (folder / "0_pretrain_base.yaml").unlink()
    path = folder / "pipeline.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("base=runs/tiny-base", f"base={place}/base")
    text = text.replace("base: runs/tiny-base/model", f"base: {place}/base/init")
    text = text.replace("train=2000", "train=24 test=6").replace("clusters: 64", "clusters: 8")
    text = text.replace("rounds: 3", "rounds: 2").replace("sampled_at: 0.7", "sampled_at: null")
    path.write_text(text, encoding="utf-8")
    for recipe in folder.glob("[29]_train_*.yaml"):
        text = recipe.read_text(encoding="utf-8")
        text = re.sub(r"max_steps: \d+", "max_steps: 2", text)
        recipe.write_text(text.replace("rows_per_step: 32", "rows_per_step: 8"), encoding="utf-8")
    return folder


@pytest.fixture
def profile(tmp_path) -> Path:
    """See `copied_profile`."""
    return copied_profile(tmp_path)


def run(profile: Path, *words: str) -> str:
    bin_folder = str(Path(sys.executable).parent)
    env = os.environ | {"PATH": bin_folder + os.pathsep + os.environ["PATH"], "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "scripts/run.py", str(profile), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """(folder, output) of a run of an arm of given traces and of both loops."""
    place = tmp_path_factory.mktemp("tiny_abstract")
    return place / "run", run(copied_profile(place), *finished_words(place / "run"))


def finished_words(folder: Path) -> list[str]:
    """What that run is called with."""
    finals = "finals=clustered,posterior_weighted,published,published_a"
    words = [finals, "eval.max_new_tokens=16", "sampling.num_traces=2"]
    # Of 24 questions, so that a stage has shards.
    return [f"run={folder}", *words, "sampling.questions_per_shard=4"]


@pytest.mark.slow
@pytest.mark.host
def test_the_mechanics_on_a_few_questions(finished):
    folder, output = finished
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


@pytest.mark.slow
@pytest.mark.host
def test_the_published_loop_on_a_few_questions(finished):
    folder, _ = finished
    evaluated = {path.parent.name for path in folder.glob("evals/*/result.json")}
    arms = {"base", "clustered", "start", "posterior_weighted"}
    assert evaluated == {*arms, "published_1", "published_2"}
    # Phase A of round 1 has random symbols, that of round 2 what the model before sampled.
    first = pq.read_table(folder / "train/tiny_abstract_published_first.parquet")
    assert first.column_names == ["question_id", "trace_id", *BOTTLENECK_TEXTS, "weight"]
    second = folder / "published/round2/train/tiny_abstract_published_a.parquet"
    rows = pq.read_table(second).to_pylist()
    traces = read_rows(folder / "published/round2/traces", "traces")
    assert {row["prompt_kind"] for row in traces} == {"abstract_posterior"}
    sampled = {(row["question_id"], row["trace_id"]): row["text"] for row in traces}
    assert {(row["question_id"], row["trace_id"]): row["trace"] for row in rows} == sampled
    # Phase B: the question alone.
    own = read_rows(folder / "published/round2/from_reasoner/traces", "traces")
    assert {row["prompt_kind"] for row in own} == {"reasoner"}
    oracle = json.loads((folder / "evals/published_a_2/oracle.json").read_text(encoding="utf-8"))
    assert oracle["num_questions"] == 6 and 0 <= oracle["accuracy"] <= 1


@pytest.mark.slow
@pytest.mark.host
def test_the_posterior_loop_on_a_few_questions(finished):
    folder, _ = finished
    place = folder / "posterior/round1"
    traces = read_rows(place / "traces", "traces")
    assert {row["prompt_kind"] for row in traces} == {"abstract_posterior"}
    assert len(traces) == 24 * 2
    by_question: dict[str, float] = defaultdict(float)
    for row in pq.read_table(place / "train/tiny_abstract_posterior_weighted.parquet").to_pylist():
        by_question[row["question_id"]] += row["weight"]
        assert row["log_rho"] is not None
    assert len(by_question) == 24
    assert all(weight == pytest.approx(1) for weight in by_question.values())


LAST_PHASE = """
import sys
from pathlib import Path

sys.path.insert(0, "scripts")
import sequence_arms
from sequence import read_plan
from sequence_arms import ArmPlan, Rounds

run = sys.argv[2]
of_arms = ArmPlan(read_plan(sys.argv[1:]))
rounds = Rounds(of_arms, of_arms.loops[-1], f"{run.removeprefix('run=')}/published/round1/models/published")
rounds._evaluate = lambda *of_model: True  # which adds nothing to the loop
rounds.run(2)
"""


@pytest.mark.slow
@pytest.mark.host
def test_a_loop_that_is_killed_in_a_stage_goes_on_with_the_same_bytes(finished, tmp_path):
    """Round 2 is killed as soon as phase B has sampled its first shard of six; on a busy machine it
    may have come further.
    """
    folder, _ = finished
    profile, words = folder.parent / "profile", finished_words(folder)
    place = folder / "published/round2"
    traces, files = place / "from_reasoner/traces", bytes_of(place)
    shutil.rmtree(traces)
    shutil.rmtree(place / "models/published")
    for path in place.glob("train/tiny_abstract_published.*"):
        path.unlink()
    left = run(profile, *words, "dry_run=true").splitlines()
    left = [line for line in left if "published/round2" in line and not line.endswith("# done")]
    assert [re.findall(r"sample_traces|build_arms|train_published", line)[0] for line in left] == [
        "sample_traces",
        "build_arms",
        "train_published",
    ]
    program = tmp_path / "last_phase.py"
    program.write_text(LAST_PHASE, encoding="utf-8")
    command = [sys.executable, str(program), str(profile), *words]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        while not (traces / "shard-00000.parquet").is_file() and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert bytes_of(place) == files


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The shards, train files and weights below a folder."""
    paths = [*folder.rglob("*.parquet"), *folder.rglob("*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


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
        "evaluate_arm",
        "train_clustered",
        "evaluate_arm",
        "evaluate_arm",
        "compare_arms",
        "report",
    ]
    assert not (tmp_path / "run").exists()
    starts = [w for line in words for w in line if w.startswith("model_name_or_path=")]
    assert [Path(start).name for start in starts] == ["init", "extended"]


def stages(output: str) -> list[tuple[str, dict[str, str]]]:
    """(script or training, its key=value) of a dry run."""
    found = []
    for line in output.splitlines():
        words = line.split()
        name = Path(words[1] if words[0] == "python" else words[2]).stem
        pairs = dict(word.split("=", 1) for word in words[2:] if "=" in word)
        found.append((re.sub(r"^\d_", "", name), pairs))
    return found


def test_a_dry_run_of_the_published_loop(profile, tmp_path):
    run_folder = tmp_path / "run"
    words = ["finals=published,published_a", "rounds=2", "dry_run=true"]
    found = stages(run(profile, f"run={run_folder}", *words))
    loop = found[[name for name, _ in found].index("build_arms") + 1 : -3]
    phase_b = ["sample_traces", "build_arms", "train_published", "evaluate_arm"]
    assert [name for name, _ in loop] == [
        *["prepare_data", "train_published_first", "bottleneck_oracle", *phase_b],
        *["prepare_data", "sample_traces", "build_arms"],
        *["train_published_a", "bottleneck_oracle", *phase_b],
    ]
    # Every training goes on from the one before it, the first from untrained symbols.
    models = [pairs for name, pairs in loop if name.startswith("train_")]
    starts = [pairs["model_name_or_path"] for pairs in models]
    assert starts[0] == str(run_folder / "models/extended")
    assert starts[1:] == [pairs["output_dir"] for pairs in models[:-1]]
    assert [pairs["seed"] for pairs in models] == ["0", "0", "1000", "1000"]
    # Phase A samples with the chain in view, phase B without it.
    samplings = [pairs for name, pairs in loop if name == "sample_traces"]
    of_reasoner = [pairs.get("sampling.traces_from") == "reasoner" for pairs in samplings]
    assert of_reasoner == [True, False, True]
    assert [pairs["models.reasoner"] for pairs in samplings] == starts[1:]
    assert {pairs["posterior"] for pairs in samplings} == {"prompted"}
    assert {pairs["sampling.collapse.mode"] for pairs in samplings} == {"report"}
    names = [pairs["name"] for name, pairs in loop if name in ("evaluate_arm", "bottleneck_oracle")]
    assert names == ["published_a_1", "published_1", "published_a_2", "published_2"]
    assert not run_folder.exists()


def test_a_dry_run_of_the_posterior_loop(profile, tmp_path):
    run_folder = tmp_path / "run"
    words = ["finals=posterior_weighted,policy", "dry_run=true"]
    found = stages(run(profile, f"run={run_folder}", *words))
    loop = found[[name for name, _ in found].index("build_arms") + 1 : -3]
    assert [name for name, _ in loop] == [
        *["train_start", "train_posterior_start", "prepare_data"],
        *["sample_traces", "score_traces", "score_traces", "build_dataset"],
        *["sample_traces", "build_arms"],
        *["train_posterior_weighted", "evaluate_arm", "train_policy", "evaluate_arm"],
        "evaluate_arm",
    ]
    sampling = dict(loop)["score_traces"]
    assert sampling["models.reasoner"] == str(run_folder / "models/start")
    assert sampling["models.posterior"] == str(run_folder / "models/posterior_start")
    for name in ("train_posterior_weighted", "train_policy"):
        assert dict(loop)[name]["model_name_or_path"] == str(run_folder / "models/start")
    assert loop[-1][1]["name"] == "start"


def test_given_traces_have_one_round(profile):
    path = profile / "pipeline.yaml"
    text = path.read_text(encoding="utf-8")
    start, stop = text.index("loops:"), text.index("build:")
    path.write_text(text[:start] + text[stop:], encoding="utf-8")
    command = [sys.executable, "scripts/run.py", str(profile), "rounds=2", "dry_run=true"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "have one round" in done.stderr


def test_the_answer_that_a_trace_implies():
    """`eval.controls.implied_answer` of the profile."""
    script = runpy.run_path(str(EXAMPLES / "tiny_abstract/implied_answer.py"))
    implied = script["implied_answer"]
    meanings = {(0, "<TOKEN_A>"): 1, (1, "<TOKEN_A>"): 4, (0, "<TOKEN_B>"): 6}
    # 3 + 5 = 1, then 1 * 4 = 4 modulo 7.
    for trace in ("<TOKEN_A><TOKEN_A>", "+5=1*4=4", "=1=4"):
        assert implied("3+5*4", trace, False, meanings) == "4"
    # Cut after the first step: the other is done from the value that it names.
    assert implied("3+5*4", "<TOKEN_B>", True, meanings) == "3"
    assert implied("3+5*4", "+5=2", True, meanings) == "1"
    # A whole trace without its last step names no result, nor does a symbol that is not known here.
    for trace in ("<TOKEN_A>", "<TOKEN_A><TOKEN_B>", "=1=4=4", "+5=1*", ""):
        assert implied("3+5*4", trace, False, meanings) is None


def test_what_symbols_name(tmp_path):
    script = runpy.run_path(str(EXAMPLES / "tiny_abstract/implied_answer.py"))
    assert script["read_meanings"](tmp_path) == {}
    steps, clusters = [], []
    # Cluster 0 is always 3 in the first place; cluster 1 is 2 or 5.
    for number, (cluster, value) in enumerate([(0, "3"), (0, "3"), (1, "2"), (1, "5")]):
        ids = {"question_id": f"q{number}", "step": 0}
        steps.append(ids | {"text": "", "value": value, "token_ids": [1], "vector": [0.0]})
        clusters.append(ids | {"cluster": cluster})
    write_table(tmp_path / "steps", "steps", steps, Identity({}, {}))
    write_table(tmp_path / "step_clusters", "step_clusters", clusters, Identity({}, {}))
    assert script["read_meanings"](tmp_path) == {(0, "<TOKEN_A>"): 3}
