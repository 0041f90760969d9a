"""The commands of the Qwen3 profiles whose traces are symbols, as run.py would give them."""

import subprocess
import sys

from tests.conftest import ROOT
from tests.examples.test_tiny_abstract import stages


def dry_run(profile: str, *words: str) -> list[tuple[str, dict[str, str]]]:
    command = [sys.executable, "scripts/run.py", profile, "base=models/b", "dry_run=true", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return stages(done.stdout)


def test_the_published_loop_with_adapters():
    found = dry_run("qwen3_4b_abstract_lora", "finals=published", "rounds=2")
    phase_b = ["sample_traces", "build_arms", "train_published", "export", "evaluate_arm"]
    assert [name for name, _ in found] == [
        *["prepare_data", "extend_vocabulary", "build_arms"],  # no clusters are needed
        *["prepare_data", "train_published_first", "export", *phase_b],
        *["prepare_data", "sample_traces", "build_arms"],
        *["train_published_a", "export", *phase_b],
        *["compare_arms", "report"],
    ]
    vocabulary = dict(found)["extend_vocabulary"]
    assert (vocabulary["init"], vocabulary["untie"]) == ("mean_noise", "true")
    assert (vocabulary["symbols"], vocabulary["base"]) == ("64", "models/b")
    # A new adapter in each phase, on the merged model of the one before it.
    models = [pairs["export_dir"] for name, pairs in found if name == "export"]
    starts = [pairs for name, pairs in found if name.startswith("train_")]
    assert [pairs["model_name_or_path"] for pairs in starts] == [vocabulary["out"], *models[:-1]]


def test_the_posterior_loop_with_full_fine_tuning():
    words = ["finals=posterior_weighted,policy,no_chain", "vocabulary.init=steps"]
    found = dry_run("qwen3_4b_abstract", *words)
    assert [name for name, _ in found] == [
        *["prepare_data", "cluster_steps", "extend_vocabulary", "build_arms"],
        *["train_start", "train_posterior_start", "prepare_data"],
        *["sample_traces", "score_traces", "score_traces", "build_dataset"],
        *["sample_traces", "build_arms"],
        *["train_posterior_weighted", "evaluate_arm", "train_policy", "evaluate_arm"],
        *["evaluate_arm", "train_no_chain", "evaluate_arm", "compare_arms", "report"],
    ]
    vocabulary = dict(found)["extend_vocabulary"]
    assert vocabulary["init"] == "steps" and "untie" not in vocabulary
    assert vocabulary["clusters"].endswith("step_clusters/clusters.json")
    assert vocabulary["noise"] == "0.02"
