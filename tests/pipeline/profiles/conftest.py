"""Tiny random models of five families, with the tokenizers and chat templates of their kind."""

import json
from pathlib import Path

import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = "<|begin_of_text|>{{ strftime_now('%d %b %Y') }}" + CHATML  # writes today's date
GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MODELS = {
    # family: (control tokens, end of turn, chat template, the chat format that is chosen)
    "qwen3": (("<|im_start|>", "<|im_end|>"), "<|im_end|>", CHATML, "template"),
    "qwen2": (("<|im_start|>", "<|im_end|>"), "<|im_end|>", None, "chatml"),
    "llama": (
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        LLAMA3,
        "llama3",
    ),
    "gemma": (
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        GEMMA,
        "template",
    ),
    "mistral": (("<s>", "</s>", "[INST]", "[/INST]"), "</s>", None, "mistral"),
}


def make_tokenizer(specials: tuple[str, ...], end_of_turn: str, template: str | None):
    """One token per printable character, so that a random model closes its thought now and then."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(32, 127)]
    vocabulary = ["<pad>", *specials, "<think>", "</think>", "\n", *letters]
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(vocabulary)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token=end_of_turn,
        clean_up_tokenization_spaces=False,
    )
    own = [*specials, "<think>", "</think>"]
    fast.add_special_tokens({"additional_special_tokens": [t for t in own if t != end_of_turn]})
    fast.chat_template = template
    return fast


def make_folder(folder: Path, family: str) -> Path:
    """A random two-layer model of the family, whose next token is nearly uniform."""
    from tests.host.conftest import make_model

    specials, end_of_turn, template, _ = MODELS[family]
    tokenizer = make_tokenizer(specials, end_of_turn, template)
    tokenizer.save_pretrained(folder)
    make_model(folder, len(tokenizer), family, initializer_range=0.02, max_position_embeddings=2048)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A function that gives the folder of a family's model, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make_folder(tmp_path_factory.mktemp(family), family)
        return made[family]

    return get


@pytest.fixture
def questions_file(tmp_path) -> Path:
    """Thirty questions with answers, in columns of other names."""
    path = tmp_path / "questions.jsonl"
    rows = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
