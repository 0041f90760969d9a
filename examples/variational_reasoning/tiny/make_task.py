"""The embedded task `chain`: questions, expert traces, tokenizer, random model and pretraining text
(tiny profile, stage 0).

A question is six operands with + - *, evaluated from left to right modulo 7: `3+5*4-2*6+1`. A trace
has one step per operation: operator, operand and the running value, `+5=1*4=4-2=2*6=5+1=6`. The
running values may be left out, except the last. The expert's trace is detailed (all values) with
probability 0.3, otherwise terse (each inner value kept with probability 0.4). Both
are correct, but a model cannot do several operations in one forward pass, so terse traces are poor
teachers: correct data of mixed quality, as real long traces are. The method has to find that out by
itself; nothing in the rows says which is which.

The base model's pretraining text is dense chains, and traces of a writer who can do one step at a
time and stops anywhere. So it copies the steps, computes one of them, and repeats the last value as
its answer; that a question asks for all its steps is learnt in stage 1.

    python examples/variational_reasoning/tiny/make_task.py base=runs/tiny-base run=runs/tiny seed=0
        [train=400] [test=500] [dense=false]

tiny_abstract asks for 2,000 questions with dense traces (all values), train=2000 dense=true.

Writes, without any network and to the same bytes for the same seed:
    <base>/init/                       tokenizer, configuration and random weights of a Qwen3 with 0.66 M parameters
    <base>/pretrain.jsonl, dataset_info.json   the pretraining text; the base is shared by all seeds of the demo
    <run>/source/{train,test}.jsonl    rows of question, trace, solution, check and split, for scripts/prepare_data.py
"""

import json
import random
import sys
from pathlib import Path

from variational_reasoning.method.prompts import make_renderer

MODULUS = 7
NUM_OPERANDS = 6
OPERATORS = "+-*"
DETAILED_SHARE = 0.3
TERSE_KEEP = 0.4
NUM_TRAIN, NUM_TEST = 400, 500

BASE_SEED = 0
"""One base serves every seed of the demo; only questions, traces and sampling change with `seed`.
"""
PRETRAIN_TOKENS = 1_400_000
CHAIN_SHARE = 0.2
"""Share of the pretraining documents that are bare dense chains of 2 to 10 operands; the others are
traces that break off.
"""
SHORTEST_BREAK = 2
"""Steps after which a broken-off trace may stop, from here to the full five, all equally likely."""
DENSE_SHARE = 0.5
"""Share of the broken-off traces that write every value; the others keep each with a probability
that is drawn per trace.
"""
STRAY_SHARE = 0.3
"""Share of the broken-off traces with a number in solution tags, unrelated to the question, between
question and thought.

The base thus copies from the question wherever the thought begins, but learns nothing about the use
of a hint.
"""

CHAT_FORMAT = Path(__file__).parent / "chat_format.json"
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
VOCABULARY = (
    *TAGS,
    *OPERATORS,
    *(str(n) for n in range(MODULUS)),
    *(f"={n}" for n in range(MODULUS)),
)
"""24 tokens: a tag, an operator, an operand, or a computed value with its equals sign."""


def apply(value: int, step: str) -> int:
    """The running value after one operation, such as `*4`."""
    operand = int(step[1:])
    return {"+": value + operand, "-": value - operand, "*": value * operand}[step[0]] % MODULUS


def draw_question(rng: random.Random, num_operands: int) -> tuple[str, list[str], list[int]]:
    """A random question.

    Returns: (question, steps, values): per operation the text of operator and operand, and the
    running value after it.
    """
    value = rng.randrange(MODULUS)
    question, steps, values = str(value), [], []
    for _ in range(num_operands - 1):
        step = f"{rng.choice(OPERATORS)}{rng.randrange(MODULUS)}"
        value = apply(value, step)
        steps.append(step)
        values.append(value)
    return question + "".join(steps), steps, values


def write_trace(steps: list[str], values: list[int], kept: list[bool]) -> str:
    """The steps, each followed by its running value where `kept` says so."""
    return "".join(
        step + (f"={value}" if keep else "")
        for step, value, keep in zip(steps, values, kept, strict=True)
    )


def expert_trace(rng: random.Random, steps: list[str], values: list[int]) -> str:
    """A correct trace as the expert writes it: detailed or terse, the last value always there."""
    detailed = rng.random() < DETAILED_SHARE
    inner = [detailed or rng.random() < TERSE_KEEP for _ in steps[:-1]]
    return write_trace(steps, values, [*inner, True])


def task_rows(
    seed: int, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST, is_dense: bool = False
) -> dict[str, list[dict]]:
    """Training and test rows of one seed; no question occurs twice.

    Args:
        is_dense: every trace writes all values, instead of the expert's mixture.
    """
    rng = random.Random(f"chain {seed}")
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    seen = set()
    while len(seen) < num_train + num_test:
        question, steps, values = draw_question(rng, NUM_OPERANDS)
        if question in seen:
            continue
        seen.add(question)
        split = "train" if len(rows["train"]) < num_train else "test"
        trace = expert_trace(rng, steps, values)
        if is_dense:
            trace = write_trace(steps, values, [True] * len(steps))
        solution = str(values[-1])
        rows[split].append(
            {
                "question_id": f"chain-{seed}-{split}-{len(rows[split]):04d}",
                "question": question,
                "trace": trace,
                "solution": solution,
                "source": "chain",
                "check": {"kind": "exact", "gold": solution},
                "split": split,
            }
        )
    return rows


def careless_trace(rng: random.Random, question: str, steps: list[str]) -> tuple[str, str]:
    """A trace by a writer who can do one step at a time: where the value before is not written, the
    next one is a guess.

    Returns: (trace, the last value that it writes, or the first operand if it writes none).
    """
    keep = 1.0 if rng.random() < DENSE_SHARE else rng.random()
    trace, written, is_written = "", int(question[0]), True
    for step in steps:
        trace += step
        if rng.random() < keep:
            written = apply(written, step) if is_written else rng.randrange(MODULUS)
            trace += f"={written}"
            is_written = True
        else:
            is_written = False
    return trace, str(written)


def pretraining_document(rng: random.Random) -> str:
    """A dense chain, or a question with a dense trace that breaks off; the host closes each
    document with the end of turn.
    """
    if rng.random() < CHAIN_SHARE:
        question, steps, values = draw_question(rng, rng.randint(2, 10))
        return question[0] + write_trace(steps, values, [True] * len(steps))
    question, steps, _ = draw_question(rng, NUM_OPERANDS)
    num_steps = rng.randint(SHORTEST_BREAK, len(steps))
    trace, answer = careless_trace(rng, question, steps[:num_steps])
    renderer = make_renderer(str(CHAT_FORMAT))
    prompt, response = renderer.render("reasoner", question, trace, answer)
    if rng.random() < STRAY_SHARE:
        prompt = renderer.prompt("posterior_b", question, hint=str(rng.randrange(MODULUS)))
    return prompt + response


def make_tokenizer():
    """A word-level tokenizer whose decoding is the exact inverse of its encoding; an unknown
    character is an error.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("=?[0-9]|[-+*]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        clean_up_tokenization_spaces=False,
    )
    fast.add_special_tokens(
        {"additional_special_tokens": [tag for tag in TAGS if tag not in (PAD, END_OF_TURN)]}
    )
    return fast


def make_model():
    """A Qwen3 of 0.66 M parameters with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(BASE_SEED)
    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=VOCABULARY.index(PAD),
        bos_token_id=None,
        eos_token_id=VOCABULARY.index(END_OF_TURN),
        initializer_range=0.08,  # 0.02 suits large widths; at width 128 the arithmetic then takes three times as long to learn
    )
    return Qwen3ForCausalLM(config)


def write_base(folder: Path) -> None:
    """Tokenizer, random model and pretraining text; skipped when an earlier call finished with the
    same settings.
    """
    recipe = {
        "vocabulary": VOCABULARY,
        "modulus": MODULUS,
        "tokens": PRETRAIN_TOKENS,
        "chain_share": CHAIN_SHARE,
        "shortest_break": SHORTEST_BREAK,
        "dense_share": DENSE_SHARE,
        "stray_share": STRAY_SHARE,
        "seed": BASE_SEED,
    }
    done = folder / "recipe.json"
    recipe_text = json.dumps(recipe, indent=2) + "\n"
    if done.is_file():
        if done.read_text(encoding="utf-8") != recipe_text:
            raise ValueError(
                f"{done} belongs to another base than make_task.py describes; delete {folder} or "
                f"name another"
            )
        print(f"base: {folder} is there")
        return
    tokenizer = make_tokenizer()
    for target in (make_model(), tokenizer):
        target.save_pretrained(folder / "init")
    rng = random.Random(f"pretrain {BASE_SEED}")
    num_tokens = num_documents = 0
    with (folder / "pretrain.jsonl").open("w", encoding="utf-8") as file:
        while num_tokens < PRETRAIN_TOKENS:
            batch = [pretraining_document(rng) for _ in range(1000)]
            num_tokens += sum(
                len(ids) + 1 for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]
            )
            num_documents += len(batch)
            file.writelines(json.dumps({"text": text}) + "\n" for text in batch)
    dataset_info = {"tiny_pretrain": {"file_name": "pretrain.jsonl", "columns": {"prompt": "text"}}}
    (folder / "dataset_info.json").write_text(
        json.dumps(dataset_info, indent=2) + "\n", encoding="utf-8"
    )
    done.write_text(recipe_text, encoding="utf-8")
    print(
        f"base: wrote {folder}: {num_documents} pretraining documents, {num_tokens} tokens, "
        f"vocabulary {len(VOCABULARY)}"
    )


def write_source(
    folder: Path,
    seed: int,
    num_train: int = NUM_TRAIN,
    num_test: int = NUM_TEST,
    is_dense: bool = False,
) -> None:
    """The seed's questions as JSONL."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in task_rows(seed, num_train, num_test, is_dense).items():
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"task: wrote {path}: {len(rows)} questions, seed {seed}")


def main(arguments: list[str]) -> None:
    values = {
        "base": "runs/tiny-base",
        "run": "runs/tiny",
        "seed": "0",
        "train": str(NUM_TRAIN),
        "test": str(NUM_TEST),
        "dense": "false",
    }
    given = dict(argument.partition("=")[::2] for argument in arguments)
    faults = [
        f"unknown key {key!r}; allowed: {', '.join(values)}" for key in given if key not in values
    ]
    values |= given
    faults += [
        f"{name} must be a whole number of zero or more, not {values[name]!r}"
        for name in ("seed", "train", "test")
        if not values[name].isdecimal()
    ]
    if values["dense"] not in ("true", "false"):
        faults.append(f"dense is {values['dense']!r}; it is true or false")
    if faults:
        raise SystemExit("\n".join(faults))
    try:
        write_base(Path(values["base"]))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    write_source(
        Path(values["run"]) / "source",
        int(values["seed"]),
        int(values["train"]),
        int(values["test"]),
        values["dense"] == "true",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
