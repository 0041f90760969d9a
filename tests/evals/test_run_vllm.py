"""The evaluation and its controls with the real vLLM engine on the CPU: one start for two
benchmarks, two seeds, and answers after other traces.
"""

import json
import os
import subprocess
from pathlib import Path

from tests.conftest import make_model_dir, record_of

from variational_reasoning.pipeline.rows import read_manifest, read_rows

ROOT = Path(__file__).parents[2]
PROGRAM = """
import dataclasses, json, sys
from pathlib import Path
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.controls.result import run_controls
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model, evaluate
from variational_reasoning.pipeline.rows import Identity, write_table

def controls(folder, rows, model):
    # A random model closes no trace, so the samples are written here.
    encode, decode = text_codec(load_tokenizer(str(model.folder)))
    samples = []
    for number, row in enumerate(rows):
        ids = encode(f"{number} and {number} it is.<|end_of_thought|>")
        sample = {"question_id": row["question_id"], "answer_id": 0, "token_ids": ids}
        samples.append(sample | {"text": decode(ids), "finish_reason": "stop", "seed": number})
    write_table(folder / "samples", "samples", samples, Identity({"made": "here"}, {}))
    benchmark = Benchmark("", folder, rows, num_samples=1)
    result = run_controls(benchmark, model)
    assert result == run_controls(benchmark, model)
    return result["kinds"]

def main():
    folder, reasoner = map(Path, sys.argv[1:])
    overrides = ["sampling.engine=vllm", "sampling.enforce_eager=true", "cutoff_len=1400", "eval.context=cutoff_len"]
    config = load_config("evals/paper.yaml", [*overrides, "eval.max_new_tokens=8", "eval.temperature=1"])
    model = Model("tiny", reasoner, make_renderer("chatml"), config)
    rows = [{"question_id": i, "question": f"What is 3 + {i}?", "check": '{"kind": "exact", "gold": "7"}'} for i in "456"]
    for seed in (0, 1):
        model.config = dataclasses.replace(config, seed=seed)
        benchmarks = [Benchmark(name, folder / str(seed) / name, rows, 8) for name in ("one", "two")]
        assert all(result["num_answers"] == 24 for _, result in evaluate(benchmarks, model))
    kinds = controls(folder / "controls", rows, model)
    (folder / "kinds.json").write_text(json.dumps(kinds))
    model.close()

if __name__ == "__main__":
    main()
"""


def test_one_engine_draws_independent_samples_of_two_benchmarks_and_two_seeds(
    infer_python, bpe_tokenizer, tmp_path
):
    reasoner = make_model_dir(
        tmp_path / "reasoner", bpe_tokenizer, seed=1, record=record_of("reasoner"), head_dim=32
    )
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "plugin"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [infer_python, str(program), str(tmp_path), str(reasoner)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = {
        (seed, name): read_rows(tmp_path / seed / name, "evals", ["token_ids", "seed"])
        for seed in "01"
        for name in ("one", "two")
    }
    ids, seeds = (
        {key: [str(row[column]) for row in found] for key, found in rows.items()}
        for column in ("token_ids", "seed")
    )
    assert (
        len({*ids["0", "one"], *ids["1", "one"]})
        == len({*seeds["0", "one"], *seeds["1", "one"]})
        == 48
    )
    assert (
        seeds["0", "one"] == seeds["0", "two"]
    )  # they are the question's, whatever benchmark it is in
    manifest = read_manifest(tmp_path / "0/one/samples", "samples")
    assert "vllm" in manifest["execution"] and manifest["config"]["sampling.engine"] == "vllm"

    kinds = json.loads((tmp_path / "kinds.json").read_text(encoding="utf-8"))
    wanted = ["own", "again", "donor", "random", "shuffled", "replaced", "continued", "none"]
    assert list(kinds) == wanted
    assert all(found["num_answers"] == 3 for found in kinds.values())
    assert kinds["own"]["changed"] == 0 and kinds["none"]["symbols"] == 0
    answers = read_rows(tmp_path / "controls/controls", "controls", ["control", "text", "given"])
    own = {row["text"] for row in answers if row["control"] == "own"}
    assert len(own) == 3  # a seed of its own per question
    manifest = read_manifest(tmp_path / "controls/controls", "controls")
    assert "vllm" in manifest["execution"] and manifest["config"]["sampling.engine"] == "vllm"
