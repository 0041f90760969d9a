"""The vLLM engine with the real package on the CPU, in the environment of its own that `make
infer-env` builds.

VR_INFER_PYTHON names that environment's interpreter, and then everything here must run; without it,
.venv-infer of this checkout is taken, and where there is none these tests are skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_model_dir, record_of
from tests.pipeline.test_sample import shard_bytes, well_formed_traces
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.rows import read_manifest, read_rows
from variational_reasoning.pipeline.sample import sample_seed

ROOT = Path(__file__).parents[2]


def infer(python: str, *command: str, path: Path = ROOT / "plugin") -> subprocess.CompletedProcess:
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = f"{ROOT / 'plugin'}:{path}"
    done = subprocess.run(
        [python, *command], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=400
    )
    assert done.returncode == 0, (
        f"{' '.join([python, *command])}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    )
    return done


@pytest.fixture
def make_vllm_run(make_run, bpe_tokenizer):
    """make_run with models of a head size that vLLM has a kernel for."""

    def make(**settings) -> Path:
        sampling = {"enforce_eager": True, "engine": "vllm"} | settings.pop("sampling", {})
        path = make_run(sampling=sampling, **settings)
        config = load_config(path)
        for seed, (name, kind) in enumerate(
            (("reasoner", "reasoner"), ("posterior", "posterior_b"))
        ):
            make_model_dir(
                config.model_folder(name), bpe_tokenizer, seed + 1, record_of(kind), head_dim=32
            )
        return path

    return make


def test_stage_3_has_the_rows_of_the_embedded_engine_and_resumes_to_the_same_bytes(
    make_vllm_run, infer_python
):
    greedy = {"temperature": 0, "max_trace_tokens": 24, "questions_per_shard": 3}
    path = make_vllm_run(sampling=greedy)
    embedded = make_vllm_run(name="embedded", sampling=greedy | {"engine": "transformers"})
    for each in (path, embedded):
        done = infer(infer_python, "scripts/sample_traces.py", str(each))
        assert "18 rows in 2 shards" in done.stdout
        assert "trace/s" in done.stderr and "Processed prompts" not in done.stderr  # one bar, ours
    folder = load_config(path).folder("traces")
    rows, wanted = (
        read_rows(load_config(each).folder("traces"), "traces") for each in (path, embedded)
    )
    assert (
        rows == wanted
    )  # ids, text, finish reasons, seeds: at temperature 0 both take the most likely token
    assert read_manifest(folder, "traces")["versions"][0].keys() >= {"torch", "transformers"}

    before = shard_bytes(folder)
    (folder / "shard-00001.parquet").unlink()
    (folder / "manifest.json").unlink()
    done = infer(infer_python, "scripts/sample_traces.py", str(path))
    assert shard_bytes(folder) == before
    assert read_manifest(folder, "traces")["shards_found_finished"] == 1


def test_stage_6_shares_prefixes_and_its_samples_are_no_copies(make_vllm_run, infer_python):
    path = make_vllm_run(num_questions=4, sampling={"num_answers": 4, "max_answer_tokens": 10})
    config = load_config(path)
    well_formed_traces(config)
    done = infer(infer_python, "scripts/sample_answers.py", str(path))
    rows = read_rows(config.folder("answers"), "answers")
    assert [(r["question_id"], r["trace_id"], r["answer_id"]) for r in rows] == [
        (f"q{i:03d}", k, m) for i in range(4) for k in range(2) for m in range(4)
    ]
    assert all(
        r["seed"] == sample_seed(0, r["question_id"], r["trace_id"], r["answer_id"]) for r in rows
    )
    for i in range(
        4
    ):  # both traces of a question are equal, so these are eight samples of one prompt
        assert len({tuple(r["token_ids"]) for r in rows if r["question_id"] == f"q{i:03d}"}) == 8
    assert len({tuple(r["token_ids"]) for r in rows if r["trace_id"] == r["answer_id"] == 0}) == 4
    assert "prompt tokens" in done.stdout and "were shared by samples" in done.stdout


ENGINES = """
import json, sys
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.engines import Request, TransformersEngine, VllmEngine, load_model

def main():
    path, = sys.argv[1:]
    config = load_config(path)
    folder = str(config.model_folder("reasoner"))
    vllm = VllmEngine(config, folder, logits_processors=["deadly:Deadly"])
    embedded = TransformersEngine(load_model(folder, "float32", "cpu"), vllm.tokenizer, 100000)
    prompt = vllm.tokenizer.encode("What is 3 + 4? First,", add_special_tokens=False)
    def request(key, ids, seed, stop=(), new=12, temperature=1.0):
        return Request((key,), ids, new, seed, stop, temperature, 1.0)
    answer = {}
    steps = []
    many = [request(i, prompt, 1000 + i) for i in range(12)]
    answer["many"] = vllm.generate(many, steps.append)
    answer["steps"] = sum(steps)
    answer["again"] = vllm.generate(many[::-1])[::-1]
    others = [request(i, [5 + i, *prompt], 500 + i) for i in range(6)]
    answer["others"] = vllm.generate(others)
    crowd = [request(i, [5 + i] * 150, i + 1, new=3) for i in range(40)]  # 6,000 prompt tokens: more than one step takes
    answer["crowd"] = [result.finish_reason for result in vllm.generate(crowd)]
    answer["one_seed"] = vllm.generate([request(i, prompt, 7) for i in range(4)])
    # stop strings: cut out of what an undisturbed greedy sample says
    pairs = []
    for i in range(30):
        ids = [9 + 7 * i, *prompt]
        [free] = embedded.generate([request("free", ids, 1, temperature=0.0, new=20)])
        text = embedded.tokenizer.decode(free.token_ids)
        windows = [text[j : j + 2] for j in range(1, len(text) - 1) if text[j : j + 2].isascii()]
        if not windows:
            continue
        stopped = request("stop", ids, 1, stop=(windows[-1],), temperature=0.0, new=20)
        pairs.append([embedded.generate([stopped])[0], vllm.generate([stopped])[0]])
    answer["pairs"] = pairs
    ends = [request(i, [3 + i, *prompt], i, new=300, temperature=2.0) for i in range(30)]
    answer["ends"] = [vllm.generate(ends), embedded.generate(ends)]
    answer["eos"] = vllm.tokenizer.eos_token_id
    # groups overlap, one of them is empty, and a row kills the engine whenever it runs
    deadly = [request("deadly", [339] * 8, 1)]
    groups = [many[:1], [], deadly]
    answer["groups"] = sorted(vllm.stream(groups, steps.append))
    answer["deaths"] = vllm.statistics()["engine_deaths"]
    answer["steps_with_deaths"] = len(steps)
    answer["execution"] = vllm.execution()
    vllm.close()
    print(json.dumps(answer))

if __name__ == "__main__":
    main()
"""


DEADLY = """
import os, signal
from vllm.v1.sample.logits_processor import LogitsProcessor

class Deadly(LogitsProcessor):
    "Kills the process that computes, when a request with eight times the id 339 enters its batch."

    def __init__(self, vllm_config, device, is_pin_memory):
        pass

    def is_argmax_invariant(self):
        return True

    def apply(self, logits):
        return logits

    def update_state(self, update):
        if update and any(prompt == [339] * 8 for _, _, prompt, _ in update.added):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_engine_next_to_the_embedded_one_and_one_that_dies(
    make_vllm_run, infer_python, tmp_path
):
    script = tmp_path / "engines.py"
    script.write_text(ENGINES)
    (tmp_path / "deadly.py").write_text(DEADLY)
    output = infer(infer_python, str(script), str(make_vllm_run()), path=tmp_path).stdout
    [answer] = [json.loads(line) for line in output.splitlines() if line.startswith('{"many"')]
    ids = [tuple(token_ids) for token_ids, _, _ in answer["many"] + answer["others"]]
    assert len(set(ids)) == 18  # samples of one prompt, and first samples of different prompts
    assert (
        answer["steps"] == 12 and answer["again"] == answer["many"]
    )  # same seeds, same ids, whatever the order
    assert len(answer["crowd"]) == 40 and "error" not in answer["crowd"]
    assert (
        len({tuple(token_ids) for token_ids, _, _ in answer["one_seed"]}) == 1
    )  # what issue 50440 of vLLM is about
    assert answer["pairs"] and all(
        ours == theirs and ours[1] == "stop" for ours, theirs in answer["pairs"]
    )
    for results in answer["ends"]:
        ended = [token_ids for token_ids, reason, _ in results if reason == "stop"]
        assert ended and all(token_ids[-1] == answer["eos"] for token_ids in ended)
        assert all(len(token_ids) == 300 for token_ids, reason, _ in results if reason == "length")
    # once together with the other request, once alone; the other has the ids that it has without
    # it
    [[_, together], [_, empty], [_, [killer]]] = answer["groups"]
    assert killer[1] == "error" and "died on it twice" in killer[2]
    assert together == answer["many"][:1] and empty == []
    assert answer["deaths"] == 2 and answer["steps_with_deaths"] == 12 + 2
    # as many as vLLM's LLM runs at once on a CPU; 128 would be for an engine whose use it does not
    # know
    assert answer["execution"]["requests_at_once"] == 256 and answer["execution"]["device"] == "cpu"


@pytest.mark.slow
def test_a_broken_environment_fails_and_is_not_skipped(tmp_path):
    code = (
        "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1]]))"
    )
    test = f"{Path(__file__)}::test_the_engine_next_to_the_embedded_one_and_one_that_dies"
    environment = os.environ | {"VR_INFER_PYTHON": "/bin/false"}
    done = subprocess.run(
        [sys.executable, "-c", code, test],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "1 failed" in done.stdout
