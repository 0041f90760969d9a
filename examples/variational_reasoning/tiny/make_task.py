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

import random
import sys
from pathlib import Path

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline import embedded

MODULUS = 7
NUM_OPERANDS = 6
OPERATORS = "+-*"
DETAILED_SHARE = 0.3
TERSE_KEEP = 0.4
NUM_TRAIN, NUM_TEST = 400, 500

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
WORDS = (
    *OPERATORS,
    *(str(n) for n in range(MODULUS)),
    *(f"={n}" for n in range(MODULUS)),
)
"""17 tokens after the tags: an operator, an operand, or a computed value with its equals sign."""


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


TASK = embedded.EmbeddedTask(
    name="tiny",
    words=WORDS,
    pattern="=?[0-9]|[-+*]",
    document=pretraining_document,
    stream="pretrain",
    num_tokens=PRETRAIN_TOKENS,
    recipe={
        "vocabulary": (*embedded.TAGS, *WORDS),
        "modulus": MODULUS,
        "tokens": PRETRAIN_TOKENS,
        "chain_share": CHAIN_SHARE,
        "shortest_break": SHORTEST_BREAK,
        "dense_share": DENSE_SHARE,
        "stray_share": STRAY_SHARE,
        "seed": embedded.BASE_SEED,
    },
)


def main(arguments: list[str]) -> None:
    sizes = {"train": str(NUM_TRAIN), "test": str(NUM_TEST)}
    defaults = {"base": "runs/tiny-base", "run": "runs/tiny", "seed": "0", **sizes}
    defaults["dense"] = "false"
    values = embedded.read_task_words(defaults, arguments, numbers=("seed", "train", "test"))
    if values["dense"] not in ("true", "false"):
        raise SystemExit(f"dense is {values['dense']!r}; it is true or false")
    try:
        embedded.write_base(TASK, Path(values["base"]))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    numbers = (int(values[name]) for name in ("seed", "train", "test"))
    rows = task_rows(*numbers, is_dense=values["dense"] == "true")
    embedded.write_source(Path(values["run"]) / "source", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
