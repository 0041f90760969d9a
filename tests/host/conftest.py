"""A tiny world for the real LLaMA-Factory: model folders, a tokenizer, data sets, and YAMLs that
train on them.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from variational_reasoning.method.families import FAMILIES

ROOT = Path(__file__).parents[2]
ROWS = [
    # (question, trace, solution, weight); lengths differ, weights are exact in float32, one is zero
    ("What is 1 + 1?", "One and one.", "2", 0.25),
    ("What is 2 + 2?", "Two and two make four, which is what we want.", "4", 0.75),
    (
        "What is 3 + 5?",
        "Three. Then five more.\n\nFour, five, six, seven, eight.",
        "\\boxed{8}",
        1.0,
    ),
    ("Say x.", "x", "x", 0.5),
    ("What is 7 - 7?", "Nothing remains of seven when seven is taken from it.", "0", 0.0),
    ("What is 9 - 2?", "Nine, eight, seven.", "7", 0.125),
    ("What is 6 / 3?", "Six has three twos; so each of three gets two.", "2", 0.625),
    ("What is 4 * 4?", "Four fours: four, eight, twelve, sixteen.", "16", 0.875),
]


def make_tokenizer(folder: Path):
    """A byte-level BPE tokenizer that knows ChatML's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [
            *(texts.system for texts in FAMILIES["paper"].kinds.values()),
            *(text for row in ROWS for text in row[:3]),
        ],
        trainer,
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    return fast


def make_model(folder: Path, vocab_size: int, family: str = "qwen3", **overrides: Any):
    """A random two-layer model of a real architecture; weights of size 0.2 so that gradients are
    not tiny.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    values = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = AutoConfig.for_model(family, **(values | overrides))
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model


class World:
    """Paths and helpers of one test."""

    def __init__(self, root: Path, shared: Path):
        self.root = root
        self.shared = shared
        self.data = root / "data"
        self.data.mkdir()
        self.info: dict[str, Any] = {}
        self.add_rows("rows", ROWS)

    @property
    def model(self) -> str:
        return str(self.shared / "model")

    @property
    def float64_model(self) -> str:
        """GPT-2, whose layers compute in their parameters' dtype; the others' norms go through
        float32.
        """
        return str(self.shared / "gpt2")

    def add(self, name: str, rows: list[dict[str, Any]], **entry: Any) -> None:
        """Write a JSONL data set and name it in dataset_info.json."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.data / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        self.info[name] = {"file_name": f"{name}.jsonl", **entry}
        (self.data / "dataset_info.json").write_text(json.dumps(self.info), encoding="utf-8")

    def add_rows(self, name: str, rows: list[tuple]) -> None:
        columns = ("question", "trace", "solution", "weight")
        dicts = [
            dict(zip(columns, row, strict=True)) | {"question_id": f"q{i}"}
            for i, row in enumerate(rows)
        ]
        self.add(name, dicts, formatting="reasoning")

    def config(self, **overrides: Any) -> dict[str, Any]:
        """One SGD step over all rows of `rows`, in order, with weighted Dr. SFT; keys of value None
        are left out.
        """
        values = {
            "model_name_or_path": self.model,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset": "rows",
            "dataset_dir": str(self.data),
            "cutoff_len": 1024,
            "overwrite_cache": True,
            "preprocessing_num_workers": None,
            "output_dir": str(self.root / "out"),
            "overwrite_output_dir": True,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_steps": 1,
            "disable_shuffling": True,
            "optim": "sgd",
            "learning_rate": 100.0,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "constant_loss_normalizer": 50.0,
            "prompt_kind": "reasoner",
            "chat_format": "chatml",
        }
        return {key: value for key, value in (values | overrides).items() if value is not None}

    def cli(
        self, config: dict[str, Any], launcher: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess:
        """`llamafactory-cli train` as a user runs it; output is captured, the caller checks the
        exit code.
        """
        path = self.root / "train.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [*(launcher or ("llamafactory-cli", "train")), str(path)]
        bin_folder = str(Path(sys.executable).parent)
        env = os.environ | {
            "PATH": bin_folder + os.pathsep + os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(self.root / "cache"),
            **environment,
        }
        return subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=self.root,
            check=False,
        )

    def train_all(self, configs: dict[str, dict[str, Any]]) -> None:
        """Every training on two ranks, in one torchrun; each writes into a folder of its name."""
        configs = {
            name: config | {"output_dir": str(self.root / name)} for name, config in configs.items()
        }
        path = self.root / "trainings.json"
        path.write_text(json.dumps(configs), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", "2", "-m", "tests.host.trainings_worker", str(path)]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(self.root / "cache"),
        }
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-6000:]

    def weights(self, folder: str | None = None) -> dict[str, Any]:
        """All tensors of a saved model."""
        from safetensors.torch import load_file

        return load_file(Path(folder or self.root / "out") / "model.safetensors")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    tokenizer = make_tokenizer(folder / "model")
    make_model(folder / "model", len(tokenizer), tie_word_embeddings=True)
    tokenizer.save_pretrained(folder / "gpt2")
    make_model(
        folder / "gpt2", len(tokenizer), "gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    return folder


@pytest.fixture
def world(tmp_path, shared) -> World:
    return World(tmp_path, shared)


@pytest.fixture
def run_exp(monkeypatch, tmp_path) -> Callable:
    """The host's own `run_exp`, in this process; accelerate's process-wide state is forgotten
    afterwards.
    """
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "no"
    )  # the host writes it, so it must be taken back
    from llamafactory.train.tuner import run_exp

    yield run_exp
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def unfused_flex(monkeypatch):
    """FlexAttention on a CPU, backward too: without its kernel, as a product of whole matrices.

    torch refuses a backward pass there because its compiled kernel has none. `calls` counts.
    """
    import torch
    from torch.nn.attention import flex_attention as torch_flex

    from variational_reasoning.host import trainer

    counter = SimpleNamespace(calls=0)

    def count(*tensors):
        counter.calls += 1

    monkeypatch.setattr(torch_flex, "_validate_device", count)
    monkeypatch.setattr(trainer, "flex_fault", lambda *args: None)
    with torch.compiler.set_stance("force_eager"):
        yield counter


@pytest.fixture
def host_log(caplog):
    """Messages of the host's logger, ours among them."""
    logger = logging.getLogger("llamafactory")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
