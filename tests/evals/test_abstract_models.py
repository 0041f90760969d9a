"""evals/run.py with models of abstract traces: the paper's ten benchmarks, and the published
checkpoint's prompts and decoding.
"""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evals.conftest import ROWS
from tests.evals.test_run import run  # noqa: F401, a fixture
from tests.evals.test_skythought import trained_abstract_ids

from variational_evals.models import reasoner_renderer
from variational_evals.tasks import load_questions
from variational_reasoning.method.abstract import BEGIN, END, symbol_names
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.model_record import RECORD_NAME, write_record
from variational_reasoning.pipeline.config import Config, EvalConfig, load_config
from variational_reasoning.pipeline.engines import load_tokenizer
from variational_reasoning.pipeline.evaluate import ResponseSampler
from variational_reasoning.pipeline.rows import read_rows

ROOT = Path(__file__).parents[2]
RENDERER = make_renderer("chatml", "abstract")


@pytest.fixture
def small_tasks(hub_cache, monkeypatch):
    """The benchmarks as the suite reads them, with the rows of the fixtures."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.syspath_prepend(ROOT / "evals")
    module = importlib.import_module("run")

    def load(task):
        return load_questions(replace(task, num_questions=None))

    monkeypatch.setattr(module, "load_questions", load)


@pytest.fixture
def reasoner(abstract_dir, tmp_path) -> Path:
    """The random model with four symbols, as a training leaves it."""
    folder = tmp_path / "reasoner"
    shutil.copytree(abstract_dir, folder)
    write_record(folder, {"prompt_kind": "reasoner"} | RENDERER.to_record())
    return folder


@pytest.mark.slow
def test_the_ten_benchmarks_ask_with_the_ids_of_training(
    reasoner,
    small_tasks,
    run,  # noqa: F811, the fixture
    tmp_path,
    monkeypatch,
):
    asked: dict[str, list[int]] = {}
    texts: dict[str, str] = {}
    plan = ResponseSampler.plan

    def remember(self, units):
        found = plan(self, units)
        for request in found.requests:
            asked[request.key[0]] = list(request.prompt_ids)
            texts[request.key[0]] = self.questions[request.key[0]]["question"]
        return found

    monkeypatch.setattr(ResponseSampler, "plan", remember)
    settings = [f"run_dir={tmp_path}/results", "sampling.device=cpu", "sampling.max_symbols=3"]
    settings += ["eval.max_new_tokens=8", "eval.trace_temperature=1.0"]
    settings += [f"eval.tasks.{number}.num_samples=1" for number in range(len(ROWS))]
    run(ROOT / "evals/paper.yaml", f"model={reasoner}", "name=tiny", *settings)

    tokenizer = load_tokenizer(str(reasoner))
    end = tokenizer.convert_tokens_to_ids(END)
    symbols = tokenizer.convert_tokens_to_ids([f"<TOKEN_{letter}>" for letter in "ABCD"])
    separator = tokenizer.encode("\n", add_special_tokens=False)  # the model's, by its record
    assert len(ROWS) == 10
    for task in ROWS:
        samples = read_rows(tmp_path / "results/tiny-seed0" / task / "samples", "samples")
        assert samples
        for row in samples:
            place = row["token_ids"].index(end)
            assert 1 <= place <= 3 and set(row["token_ids"][:place]) <= set(symbols)
            assert row["token_ids"][place + 1 :][: len(separator)] == separator
    trained = trained_abstract_ids(reasoner, tmp_path / "training", list(texts.values()))
    assert list(asked.values()) == trained


PUBLISHED = "leapeto/Qwen3-4B-AbstractCoT-warmup"
EXAMPLE = "examples/variational_reasoning/qwen3_4b_abstract/published.yaml"


def test_the_decoding_of_the_published_checkpoint(monkeypatch):
    """As its card describes it: the prompt of the golden file, symbols at 0.7, a greedy answer."""
    monkeypatch.chdir(ROOT)
    config = load_config(EXAMPLE)
    golden = (ROOT / "tests/golden/abstract_published_reasoner_prompt.txt").read_text()
    assert config.renderer.prompt("reasoner", "What is 3 + 4?") == golden
    assert config.renderer == reasoner_renderer(PUBLISHED)
    asked = (config.eval.trace_temperature, config.eval.temperature)
    assert asked == (0.7, 0.0) and config.eval.top_p == 1
    assert (config.sampling.min_symbols, config.sampling.max_symbols) == (0, 128)
    assert config.eval.max_new_tokens == 8192 + 128 + 1
    assert [task.task for task in config.eval.tasks] == [
        task.task for task in load_config("evals/paper.yaml").eval.tasks
    ]


def test_a_copy_of_the_published_checkpoint_is_asked_as_its_card_says(
    abstract_dir,
    small_tasks,
    run,  # noqa: F811, the fixture
    tmp_path,
    monkeypatch,
):
    """A folder without a record: its symbols are known by their names, though they are special
    tokens there.
    """
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "copy"
    shutil.copytree(abstract_dir, folder)
    (folder / RECORD_NAME).unlink()
    tokenizer = load_tokenizer(str(folder))
    names = [BEGIN, END, *symbol_names(4)]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.save_pretrained(folder)
    ids = tokenizer.encode("".join(names), add_special_tokens=False)
    assert len(ids) == 6 and tokenizer.decode(ids, skip_special_tokens=True) == ""
    settings = [f"run_dir={tmp_path}/results", "sampling.device=cpu", "sampling.dtype=float32"]
    settings += ["eval.max_new_tokens=140", "eval.tasks=[{task: vr_math500, num_samples: 1}]"]
    run(Path(EXAMPLE), f"model={folder}", *settings)
    [result_file] = (tmp_path / "results").rglob("result.json")
    result = json.loads(result_file.read_text(encoding="utf-8"))
    assert result["prompt"].endswith("<think>\n\n</think>\n\n<beginabstract>")
    assert result["settings"]["sampling.max_symbols"] == 128
    assert result["settings"]["eval.trace_temperature"] == 0.7
    samples = read_rows(result_file.parent / "samples", "samples")
    assert samples and all(END in row["text"] for row in samples)


def test_the_questions_of_a_benchmark_as_those_of_a_run(small_tasks):
    module = importlib.import_module("run")
    config = replace(Config(), eval=EvalConfig(file="vr_math500"))
    questions = module.run_questions(config)
    assert [row["question_id"] for row in questions] == ["vr_math500/0", "vr_math500/1"]
    assert module.own_benchmark(config, "m").folder == Path("runs/tiny/evals/m")
