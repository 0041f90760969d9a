"""Cards: headers that the hub's own parser reads, and snippets whose prompt is the renderer's, byte
for byte.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from tests.report.tables import write_traces

from variational_reasoning.method.chat_formats import CHAT_FORMATS
from variational_reasoning.method.families import FAMILIES, family_from_dict, family_to_dict
from variational_reasoning.method.prompts import Renderer, make_renderer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.rows import Identity, digest_of, write_table
from variational_reasoning.pipeline.tables import TABLES
from variational_reasoning.pipeline.train_files import write_file
from variational_reasoning.report.cards import (
    is_hub_name,
    prompt_snippet,
    transformers_snippet,
    vllm_snippet,
    write_cards,
)

ROOT = Path(__file__).parents[2]


def write_model(folder: Path, kind: str, base: str) -> None:
    folder.mkdir(parents=True)
    record = {
        "prompt_kind": kind,
        **make_renderer("chatml").to_record(),
        "loss": {
            "name": "weighted Dr. SFT",
            "constant_loss_normalizer": 18.25,
            "unit": "target tokens per row",
        },
        "model": {"path": base},
        "sources": {"x_reasoner": {"file": "train/x_reasoner.parquet"}},
        "rows": {"count": 10, "dropped_longer_than_cutoff_len": 0, "mean_target_tokens": 3.5},
        "yaml": {
            "learning_rate": 1e-5,
            "num_train_epochs": 3.0,
            "output_dir": "/somewhere",
            "seed": 4,
        },
        "versions": {"variational_reasoning": "0.1.0", "llamafactory": "0.9.5"},
    }
    (folder / "variational_reasoning.json").write_text(json.dumps(record))
    (folder / "train_results.json").write_text('{"epoch": 3.0}')
    (folder / "trainer_state.json").write_text('{"global_step": 125, "log_history": []}')
    (folder / "README.md").write_text("the host's own")


@pytest.fixture
def run(tmp_path):
    """A run with a reasoner, a posterior, a final model that is evaluated, and train files of both
    formats.
    """
    folder = tmp_path / "run"
    write_traces(
        folder, {"q0": "a"}, {("q0", 0): {"logps": (-1.0, -2.0), "verdicts": ("correct",)}}
    )
    write_model(folder / "models/reasoner", "reasoner", "Qwen/Qwen3-4B-Base")
    write_model(folder / "models/posterior", "posterior_b", "Qwen/Qwen3-4B-Base")
    write_model(folder / "models/final_acc", "reasoner", "runs/base/model")
    row = {"question_id": "q0", "question": "?", "trace": "t", "solution": "s", "source": "a"}
    write_file(folder / "train/x_reasoner.parquet", "reasoning", [row], Identity({}, {}))
    row = dict.fromkeys(TABLES["train"].columns.names) | {
        "question_id": "q0",
        "source": 0,
        "prompt": "p",
        "response": "r",
        "weight": 1.0,
    }
    figures = {"rows": 1, "mean_weight": 1.0, "mean_tokens": 2.0, "counts": {"traces_chosen": 1}}
    identity = Identity(
        {}, {"output": {"name": "final_acc", "estimator": "acc", "selection": "best"}}, seed=3
    )
    write_file(
        folder / "train/x_final_acc.parquet",
        "train",
        [row | {"trace_id": 0, "answer_id": 0}],
        identity,
        figures=figures,
    )
    evaluation = folder / "evals/final_acc"
    row = {
        "question_id": "q0",
        "answer_id": 0,
        "token_ids": [1],
        "text": "t",
        "finish_reason": "stop",
        "seed": 0,
    }
    write_table(
        evaluation,
        "evals",
        [row | {"verdict": "correct", "reason": "", "tier": ""}],
        Identity({}, {}),
    )
    result = {
        "name": "final_acc",
        "model": str(folder / "models/final_acc"),
        "num_questions": 1,
        "num_samples": 8,
        "avg": 0.8312,
    }
    result |= {
        "standard_error": None,
        "mean_tokens": 9.0,
        "truncated": 0.5,
        "no_answer": 0.0,
        "num_answers": 1,
    }
    (evaluation / "result.json").write_text(json.dumps(result))
    return folder


def config_of(run: Path, *overrides: str):
    path = run.parent / "pipeline.yaml"
    path.write_text(f"run_dir: {run}\ndata: {{name: x, train: bespokelabs/Bespoke-Stratos-17k}}\n")
    return load_config(path, overrides)


def test_the_headers_are_what_the_hub_reads(run):
    written = write_cards(config_of(run, "cards.model_license=apache-2.0"))
    assert {str(path.relative_to(run)) for path in written} == {
        "train/README.md",
        "models/reasoner/README.md",
        "models/posterior/README.md",
        "models/final_acc/README.md",
    }
    data = DatasetCard.load(run / "train/README.md").data.to_dict()
    assert data["license"] == "unknown"
    assert data["configs"] == [
        {"config_name": name, "data_files": f"{name}.parquet"}
        for name in ("x_final_acc", "x_reasoner")
    ]
    final = ModelCard.load(run / "models/final_acc/README.md").data
    assert (final.library_name, final.pipeline_tag, final.license) == (
        "transformers",
        "text-generation",
        "apache-2.0",
    )
    assert final.base_model is None  # a folder, which the hub cannot link to; the text names it
    assert final.datasets == ["bespokelabs/Bespoke-Stratos-17k"]
    (result,) = final.eval_results
    assert (result.metric_value, result.metric_name, result.dataset_type) == (83.12, "Avg@8", "x")
    reasoner = ModelCard.load(run / "models/reasoner/README.md").data
    assert reasoner.base_model == "Qwen/Qwen3-4B-Base" and reasoner.eval_results is None
    assert "posterior" in ModelCard.load(run / "models/posterior/README.md").data.tags


def test_the_texts_say_how_it_was_made(run):
    write_cards(config_of(run))
    final = (run / "models/final_acc/README.md").read_text()
    for line in (
        "Trained from `runs/base/model`.",
        "| learning_rate | 1e-05 |",
        "| optimizer steps | 125 |",
        "| loss | weighted Dr. SFT, C = 18.25 target tokens per row |",
        "| train final_acc | 10 | 10 | 105 |  |",
        "| verify_answers | 1 | 1 |  |  |",
        "| x (test questions of the run) | 1 | 83.1 | 8 |  | 9 | 50.0 % |",
    ):
        assert line in final
    assert "/somewhere" not in final
    reasoner = (run / "models/reasoner/README.md").read_text()
    assert "train final_acc" not in reasoner and "Not evaluated." in reasoner
    data = (run / "train/README.md").read_text()
    assert (
        "| x_final_acc.parquet | 1 | 1 | 2.0 | estimator acc, selection best | traces chosen 1 | 3 "
        "|" in data
    )
    assert "| x_reasoner.parquet | 1 |  |  | the original rows |  |  |" in data


@pytest.mark.parametrize("kind", make_renderer("chatml").kinds)
@pytest.mark.parametrize(
    "chat_format",
    ["chatml", "llama3", str(ROOT / "examples/variational_reasoning/tiny/chat_format.json")],
)
def test_the_snippets_prompt_is_the_renderers(run, kind, chat_format):
    if chat_format.endswith(".json") and kind == "posterior_a":
        pytest.skip("its boundary does not begin posterior A's tag")
    form, config = make_renderer(chat_format), config_of(run)
    values: dict[str, str] = {}
    exec(prompt_snippet(kind, form), values)
    assert values["prompt"] == form.prompt(kind, values["question"], values.get("hint"))
    assert ("hint" in values) == (kind != "reasoner")
    for snippet in (transformers_snippet(kind, form, config), vllm_snippet(kind, form, config)):
        compile(snippet, "snippet", "exec")
        assert prompt_snippet(kind, form) in snippet and form.chat_format.end_of_turn in snippet


def test_the_snippet_of_a_family_that_shows_the_hint_before_the_question():
    values = family_to_dict(FAMILIES["think"])
    values["kinds"]["posterior"]["user"] = "A solution: {hint}\nQuestion: {question}"
    renderer = Renderer(family_from_dict(values, "memory"), CHAT_FORMATS["chatml"])
    found: dict[str, str] = {}
    exec(prompt_snippet("posterior", renderer), found)
    assert found["prompt"] == renderer.prompt("posterior", found["question"], found["hint"])


def test_the_transformers_snippet_runs(run, tmp_path):
    from tests.conftest import make_bpe_tokenizer
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_bpe_tokenizer()
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), 8)
    heads = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)
    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes, **heads)
    )
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    form, kind = make_renderer("chatml"), "reasoner"
    num_prompt = len(
        tokenizer.encode(form.prompt(kind, "What is 1 + 1?"), add_special_tokens=False)
    )
    code = transformers_snippet(kind, form, config_of(run, f"cutoff_len={num_prompt + 4}"))
    values: dict[str, object] = {}
    exec(code.replace('path = "."', f"path = {str(tmp_path / 'model')!r}"), values)
    assert values["ids"].shape[1] == num_prompt
    assert num_prompt < values["output"].shape[1] <= num_prompt + 4


def test_names_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/base").mkdir(parents=True)
    assert is_hub_name("Qwen/Qwen3-4B-Base")
    for text in ("", "runs/base", "runs/tiny/model", "data/train.jsonl", "gpt2", "a b/c"):
        assert not is_hub_name(text)


def test_a_run_without_anything_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no train files and no trained models"):
        write_cards(config_of(tmp_path / "nothing"))


def test_the_command_says_that_a_license_is_missing(run):
    config_of(run)
    command = [
        sys.executable,
        ROOT / "scripts/write_cards.py",
        run.parent / "pipeline.yaml",
        "cards.data_license=mit",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (
        "cards.model_license is not set" in done.stdout
        and "cards.data_license is not set" not in done.stdout
    )
    assert re.search(r"^license: mit$", (run / "train/README.md").read_text(), re.M)


def test_the_card_shows_the_controls_of_its_evaluation(run):
    config = config_of(run)
    write_cards(config)
    card = run / "models/final_acc/README.md"
    assert "Not tested. `python scripts/trace_controls.py`" in card.read_text()
    assert "use its trace" not in (run / "models/posterior/README.md").read_text()
    row = {"question_id": "q0", "answer_id": 0, "token_ids": [1], "text": "t", "seed": 0}
    row["finish_reason"] = "stop"
    folder = run / "evals/final_acc"
    digest = digest_of(write_table(folder / "samples", "samples", [row], Identity({}, {})))
    donor = {"accuracy": 0.125, "difference": -0.7, "changed": 0.8, "follows": 0.5, "keeps": 0.25}
    donor |= {"neither": 0.25, "num_told": 4, "intervals": {"difference": [-0.8, -0.6]}}
    result = {"samples": digest, "kinds": {"own": {"accuracy": 0.825}, "donor": donor}}
    (folder / "controls.json").write_text(json.dumps(result))
    write_cards(config)
    text = card.read_text()
    assert "| own | 82.5 |" in text and "| donor | 12.5 | -70.0 (-80.0 to -60.0) | 80.0 |" in text
    assert "| donor | 4 | 50.0 | 25.0 | 25.0 |" in text
    assert "The model uses its trace: with another question's its accuracy changes by -70.0" in text


def test_a_model_of_symbols_is_not_called_a_final_model(run):
    path = run / "models/final_acc/variational_reasoning.json"
    record = json.loads(path.read_text()) | make_renderer("chatml", "abstract").to_record()
    path.write_text(json.dumps(record))
    write_cards(config_of(run))
    text = (run / "models/final_acc/README.md").read_text()
    assert "a trace z of reserved symbols" in text and "importance weights" not in text
    assert "No independent reproduction has shown the published effect" in text
    assert "the programs below do not enforce that" in text
