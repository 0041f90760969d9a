"""How long a final train file takes until training starts, and how much memory that needs.

    python benchmarks/train_file.py [rows=3300]

Rows have 25 kB of text, as the paper's final file has (33,000 rows, about 200 million tokens).
The text and a BPE tokenizer of 32,000 pieces come from the sources of the installed transformers.
What runs is the host's own data loading with our format `reasoning`.

Prints the processor seconds of each step in one process, its peak memory, and what follows for
33,000 rows: seconds grow with the rows, and 16 workers share rendering and tokenizing.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

PAPER_ROWS, PAPER_WORKERS = 33_000, 16
ROW_BYTES = 25_000
VOCABULARY = 32_000


def corpus() -> str:
    """Some 30 MB of English and code: the sources of the installed transformers."""
    import transformers

    files = sorted(Path(transformers.__file__).parent.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
    return "\n".join(texts)


def write_world(folder: Path, rows: int) -> None:
    """A tokenizer, a model's configuration, and the train file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    text = corpus()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(text[:4_000_000].splitlines(keepends=True), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    Qwen3Config(vocab_size=VOCABULARY).save_pretrained(folder)
    draw = random.Random(0)
    starts = [draw.randrange(len(text) - ROW_BYTES) for _ in range(rows)]
    table = [
        {
            "question": f"What is {number}?",
            "trace": text[start : start + ROW_BYTES],
            "solution": "\\boxed{1}",
            "weight": draw.random(),
            "question_id": str(number),
        }
        for number, start in enumerate(starts)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / "rows.parquet")
    info = {"rows": {"file_name": "rows.parquet", "formatting": "reasoning"}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def timed(module: Any, name: str, seconds: dict[str, float]) -> None:
    """Add the time of every call of module.name to seconds[name]."""
    original: Callable[..., Any] = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0) + time.process_time() - start

    setattr(module, name, call)


def measure(folder: Path) -> tuple[dict[str, float], int]:
    """(seconds by step, tokens) of the host's own loading."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer, loader
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    from variational_reasoning.host import dataset as ours

    seconds: dict[str, float] = {}
    timed(loader, "load_dataset", seconds)
    timed(loader, "align_dataset", seconds)
    timed(loader, "_get_preprocessed_dataset", seconds)
    timed(ours, "gather_facts", seconds)
    timed(ours, "source_hashes", seconds)
    values = {
        "model_name_or_path": str(folder),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "cutoff_len": 32768,
        "preprocessing_num_workers": None,
        "output_dir": str(folder / "out"),
        "constant_loss_normalizer": "auto",
        "prompt_kind": "reasoner",
        "chat_format": "chatml",
        "report_to": "none",
    }
    start = time.process_time()
    model_args, data_args, training_args, _, _ = get_train_args(values)
    seconds["get_train_args"] = time.process_time() - start
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    column = data["train_dataset"].select_columns(["input_ids"]).with_format("arrow")[:]
    return seconds, column["input_ids"].combine_chunks().flatten().__len__()


def main() -> None:
    """Measure one number of rows and print the table."""
    options = {"rows": "3300"} | dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := set(options) - {"rows"}:
        raise SystemExit(f"unknown options {sorted(unknown)}; known: rows")
    rows = int(options["rows"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.fork() == 0:  # in a process of its own, whose memory does not count
            write_world(folder, rows)
            os._exit(0)
        os.wait()
        seconds, tokens = measure(folder)
    report(rows, tokens, seconds)


def report(rows: int, tokens: int, seconds: dict[str, float]) -> None:
    """Print what was measured, and what follows for the paper's file."""
    growth = PAPER_ROWS / rows
    tokenizing = seconds["_get_preprocessed_dataset"]
    tokenizing -= seconds["gather_facts"] + seconds["source_hashes"]
    steps = [
        ("keys and first row", seconds["get_train_args"], 1.0),
        ("read", seconds["load_dataset"], growth),
        ("render", seconds["align_dataset"], growth / PAPER_WORKERS),
        ("tokenize", tokenizing, growth / PAPER_WORKERS),
        ("weights and lengths", seconds["gather_facts"], growth),
        ("digest of the file", seconds["source_hashes"], growth),
    ]
    print(f"{rows} rows, {tokens / 1e6:.1f} million tokens; processor seconds")
    print(f"{'step':22} {'here':>8} {f'{PAPER_ROWS:,} rows, {PAPER_WORKERS} workers':>26}")
    total = 0.0
    for step, spent, factor in steps:
        total += spent * factor
        print(f"{step:22} {spent:8.2f} {spent * factor:26.1f}")
    print(f"{'sum':22} {'':8} {total:26.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
