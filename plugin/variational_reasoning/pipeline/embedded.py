"""What the embedded tasks of examples/ have in common: everything that they need is generated here,
without any network and to the same bytes for the same seed.

A task says which tokens there are, what a pretraining document is and what its questions are. From
that come a tokenizer of words, a random model, the pretraining text and the source files:

    <base>/init/                                the tokenizer and a Qwen3 with random weights
    <base>/pretrain.jsonl, dataset_info.json    the pretraining text, shared by all seeds
    <base>/recipe.json                          what the base was made from; it is written last
    <run>/source/{train,test}.jsonl             rows of questions, for scripts/prepare_data.py
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from variational_reasoning.packages import need

PAD, QUESTION, END_OF_TURN = "<|pad|>", "<|question|>", "<|end_of_turn|>"
TAGS = (
    PAD,
    QUESTION,
    END_OF_TURN,
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
)
"""The special tokens, which come first in every vocabulary."""

BASE_SEED = 0
"""One base serves every seed of a demo; only questions, traces and sampling change with `seed`."""
_DOCUMENTS_AT_ONCE = 1000


@dataclass(frozen=True)
class EmbeddedTask:
    """A task whose base model is made here.

    words: all tokens after the tags.
    pattern: a regular expression of one word; the text between tags is split at its matches.
    document: draws a pretraining document.
    stream: what the documents' random numbers are named after, so that two tasks differ.
    num_tokens: of the pretraining text, at least.
    recipe: what the base depends on, as recipe.json says it. A base of another recipe is refused.
    """

    name: str
    words: Sequence[str]
    pattern: str
    document: Callable[[random.Random], str]
    stream: str
    num_tokens: int
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token, in the order of the ids."""
        return (*TAGS, *self.words)


def make_tokenizer(task: EmbeddedTask) -> Any:
    """A word-level tokenizer whose decoding is the exact inverse of its encoding; an unknown
    character is an error.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    transformers = need("transformers", "train")
    ids = {token: number for number, token in enumerate(task.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(task.pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        clean_up_tokenization_spaces=False,
    )
    others = [tag for tag in TAGS if tag not in (PAD, END_OF_TURN)]
    fast.add_special_tokens({"additional_special_tokens": others})
    return fast


def make_model(task: EmbeddedTask) -> Any:
    """A Qwen3 of about 0.7 M parameters with random weights, the same ones every time."""
    torch = need("torch", "train")
    transformers = need("transformers", "train")
    torch.manual_seed(BASE_SEED)
    vocabulary = task.vocabulary
    config = transformers.Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=vocabulary.index(PAD),
        bos_token_id=None,
        eos_token_id=vocabulary.index(END_OF_TURN),
        # 0.02 suits large widths. At width 128 the arithmetic then takes three times as long to
        # learn.
        initializer_range=0.08,
    )
    return transformers.Qwen3ForCausalLM(config)


def write_base(task: EmbeddedTask, folder: Path) -> None:
    """Tokenizer, random model and pretraining text; skipped when an earlier call finished with the
    same recipe.

    Raises: ValueError for a folder with the base of another recipe.
    """
    done = folder / "recipe.json"
    recipe = json.dumps(task.recipe, indent=2) + "\n"
    if done.is_file():
        if done.read_text(encoding="utf-8") != recipe:
            raise ValueError(
                f"{done} belongs to another base than make_task.py describes; delete {folder} or "
                "name another"
            )
        print(f"base: {folder} is there")
        return
    tokenizer = make_tokenizer(task)
    for target in (make_model(task), tokenizer):
        target.save_pretrained(folder / "init")
    num_documents, num_tokens = _write_documents(task, tokenizer, folder / "pretrain.jsonl")
    entry = {"file_name": "pretrain.jsonl", "columns": {"prompt": "text"}}
    info = json.dumps({f"{task.name}_pretrain": entry}, indent=2) + "\n"
    (folder / "dataset_info.json").write_text(info, encoding="utf-8")
    done.write_text(recipe, encoding="utf-8")
    print(
        f"base: wrote {folder}: {num_documents} pretraining documents, {num_tokens} tokens, "
        f"vocabulary {len(task.vocabulary)}"
    )


def _write_documents(task: EmbeddedTask, tokenizer: Any, path: Path) -> tuple[int, int]:
    """Whole batches of documents until there are enough tokens: (documents, tokens)."""
    rng = random.Random(f"{task.stream} {BASE_SEED}")
    num_documents = 0
    num_tokens = 0
    with path.open("w", encoding="utf-8") as file:
        while num_tokens < task.num_tokens:
            texts = [task.document(rng) for _ in range(_DOCUMENTS_AT_ONCE)]
            ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
            num_tokens += sum(len(row) + 1 for row in ids)  # and the end of turn
            num_documents += len(texts)
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return num_documents, num_tokens


def write_source(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A seed's questions as JSONL, one file per split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows_of_split in rows.items():
        path = folder / f"{split}.jsonl"
        lines = [json.dumps(row) + "\n" for row in rows_of_split]
        path.write_text("".join(lines), encoding="utf-8")
        print(f"task: wrote {path}: {len(lines)} questions")


def read_task_words(
    defaults: Mapping[str, str], words: Sequence[str], numbers: Sequence[str] = ("seed",)
) -> dict[str, str]:
    """The words `key=value` of a make_task.py, over the defaults.

    Args:
        numbers: keys whose value is a whole number of zero or more.

    Raises: SystemExit that lists every fault; the exit code is 1.
    """
    given = {}
    for word in words:
        key, _, value = word.partition("=")
        given[key] = value
    allowed = ", ".join(defaults)
    faults = [f"unknown key {key!r}; allowed: {allowed}" for key in given if key not in defaults]
    values = {**defaults, **given}
    for name in numbers:
        if not values[name].isdecimal():
            faults.append(f"{name} must be a whole number of zero or more, not {values[name]!r}")
    if faults:
        raise SystemExit("\n".join(faults))
    return values
