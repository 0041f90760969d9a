"""Real tiny models, tokenizers and runs, made here: no download, no network."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models of a few thousand parameters: a second thread costs more than it computes, a hundredfold on
# a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
TEXT = [
    "<|im_start|>system\nYour role as an assistant<|im_end|>\n<|im_start|>user\nWhat is 3 + "
    "4?<|im_end|>\n",
    "<|im_start|>assistant\n<|begin_of_thought|>\n\nFirst, 3 + 4 = 7.<|end_of_thought|>\n\n",
    "<|begin_of_solution|>The answer is \\boxed{7}.<|end_of_solution|><|im_end|>",
    "<|begin_of_explanation|>\n\nIt is 7.<|end_of_explanation|>",
]
QUESTIONS = [
    ("What is 3 + 4?", "First, 3 + 4 = 7.", "\\boxed{7}"),
    ("And 1 + 1?", "It is 2, surely.", "The sum is \\boxed{2}."),
]


# How Qwen2.5 and Qwen3 (digits one by one) and Llama 3 (digits up to three) split a text before
# they merge bytes.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {"qwen": _SPLIT.replace("DIGITS", ""), "llama3": _SPLIT.replace("DIGITS", "{1,3}")}


def make_bpe_tokenizer(
    extra_tokens: tuple[str, ...] = (),
    vocabulary: int = 340,
    specials: tuple[str, ...] = (),
    family="",
):
    """A byte-level BPE tokenizer that is trained on the tags without pre-tokenization, so that it
    merges across them.

    Args:
        family: qwen or llama3 splits texts as these tokenizers do before it merges (and composes
            characters, for qwen).
        extra_tokens: pieces added to the vocabulary as they are; the longest match wins, wherever
            it begins.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if family:
        split = pre_tokenizers.Split(Regex(SPLITS[family]), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.pre_tokenizer])
        tokenizer.normalizer = normalizers.NFC() if family == "qwen" else None
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    if extra_tokens:
        tokenizer.add_tokens(list(extra_tokens))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def make_model_dir(
    folder: Path, tokenizer, seed: int = 0, record: dict | None = None, **shape
) -> Path:
    """A random Qwen3 with this tokenizer, saved; with a training's record when one is given."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from variational_reasoning.model_record import write_record

    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    config = Qwen3Config(**({"vocab_size": len(tokenizer)} | sizes | shape))
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if record is not None:
        write_record(folder, record)
    return folder


def record_of(kind: str, chat_format: str = "chatml") -> dict:
    """What a training would write next to a model."""
    from variational_reasoning.method.prompts import make_renderer

    return {"prompt_kind": kind} | make_renderer(chat_format).to_record()


LONGEST_FIRST = (
    "tests/test_end_to_end.py",
    "tests/test_transformers_4.py",
    "tests/examples/test_tiny_abstract.py",
    "tests/host/test_steps.py",
    "tests/host/test_launchers.py",
    "tests/pipeline/test_vllm.py",
    "tests/pipeline/work/test_ray_cluster.py",
    "tests/evals/test_skythought.py",
    "tests/evals/test_abstract_models.py",
    "tests/evals/test_run_vllm.py",
)
"""Files of minutes. `make test` gives whole files to its two processes: a long file that begins
last would leave one of them without work.
"""


def place_in_queue(item: pytest.Item) -> int:
    """0 for the longest file; one number for all files that are short."""
    name = str(item.path.relative_to(ROOT))
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`infer` for every test that uses the inference environment, `host` for all of tests/host.

    In the processes of pytest-xdist, the longest files come first. A run of one process keeps the
    order of the tree.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=place_in_queue)
    for item in items:
        if "infer_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.infer)
        if ROOT / "tests/host" in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def bpe_tokenizer():
    """A byte-level BPE tokenizer of 340 pieces; the tags are ordinary text to it."""
    return make_bpe_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory, bpe_tokenizer) -> Path:
    """The folder of a random Qwen3 of two layers, without a record."""
    return make_model_dir(tmp_path_factory.mktemp("tiny_model"), bpe_tokenizer)


@pytest.fixture(scope="session")
def abstract_dir(tmp_path_factory) -> Path:
    """The folder of a random Qwen3 with four symbols, whose rows differ."""
    from variational_reasoning.pipeline.vocabulary import ExtendOptions, extend

    folder = tmp_path_factory.mktemp("abstract")
    base = make_model_dir(folder / "base", make_bpe_tokenizer(), head_dim=32)
    extend(ExtendOptions(base=str(base), out=str(folder / "model"), symbols=4, noise=0.2))
    return folder / "model"


@pytest.fixture
def make_run(tmp_path, bpe_tokenizer) -> Callable[..., Path]:
    """A function that makes a run with a questions table and two recorded random models, and
    returns its pipeline.yaml.
    """
    from variational_reasoning.pipeline.rows import Identity, write_table

    def make(num_questions: int = 6, name: str = "run", num_test: int = 0, **settings) -> Path:
        run_dir = tmp_path / name
        rows = []
        for i in range(num_questions + num_test):
            question, trace, solution = QUESTIONS[i % len(QUESTIONS)]
            row = {
                "question_id": f"q{i:03d}",
                "question": f"{question} ({i})",
                "trace": trace,
                "solution": solution,
                "source": "made",
                "check": json.dumps({"kind": "exact", "gold": solution}),
                "split": "train" if i < num_questions else "test",
            }
            rows.append(row)
        write_table(run_dir / "questions", "questions", rows, Identity({"made": "here"}, {}))
        make_model_dir(
            run_dir / "models/reasoner", bpe_tokenizer, seed=1, record=record_of("reasoner")
        )
        make_model_dir(
            run_dir / "models/posterior", bpe_tokenizer, seed=2, record=record_of("posterior_b")
        )
        values = {
            "run_dir": str(run_dir),
            "cutoff_len": 1400,
            "sampling": {
                "num_traces": 3,
                "num_answers": 2,
                "temperature": 1.0,
                "max_trace_tokens": 12,
            }
            | {
                "max_answer_tokens": 6,
                "questions_per_shard": 2,
                "device": "cpu",
                "batch_tokens": 100000,
            },
            "scoring": {"questions_per_shard": 2, "device": "cpu"},
            "eval": {"num_samples": 2, "max_new_tokens": 8, "answers_per_shard": 4},
        }
        for key, value in settings.items():
            values[key] = (
                values[key] | value if isinstance(value, dict) and key in values else value
            )
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(values))  # JSON is YAML
        return path

    return make


@pytest.fixture(scope="session")
def infer_python() -> str:
    """The interpreter of the inference environment (make infer-env, or VR_INFER_PYTHON)."""
    named = os.environ.get("VR_INFER_PYTHON")
    python = named or str(ROOT / ".venv-infer/bin/python")
    if not named and not Path(python).is_file():
        pytest.skip(
            "there is no environment with vLLM here: make infer-env, or set VR_INFER_PYTHON"
        )
    return python
