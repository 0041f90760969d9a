"""The embedded task `own terms`: few questions with traces, many with solutions only (tiny_questions
profile, stage 0).

200 hidden terms, `t000` to `t199`, each mean `+ b` or `* b` modulo 7. A question applies four terms
to two start values. Two values fix the map, so a wrong program is right by luck in 1 of 42 cases.

    question   t012t034t101t00745        four terms, then the start values 4 and 5
    trace      45t012+301t034*202...     the start values; per term its meaning and the two values
    solution   +3*2+5*6=41               the four steps, and the final values
    check      exact, what follows the last `=`

The solution says what the reasoner cannot know, the meaning of the terms, so the hint matters: a
posterior turns a solution into a trace. It may also copy the steps from the hint next to a wrong term,
a right answer for a wrong reason, which the final values do not show. check_trace.py does.

The base model's pretraining text has other meanings of the terms in every document: it can copy,
calculate and follow a definition or given steps, and it knows no term.

    python examples/variational_reasoning/tiny_questions/make_task.py base=runs/tiny_questions-base run=runs/tiny_questions seed=0

Writes, without any network and to the same bytes for the same seed:
    <base>/init/                       tokenizer, configuration and random weights of a Qwen3 with 0.7 M parameters
    <base>/pretrain.jsonl, dataset_info.json   the pretraining text; the base is shared by all seeds
    <run>/source/{train,test}.jsonl    rows of question, trace (150 of them), solution, check and split
    <run>/train/tiny_questions_{solution,expert}.parquet   train files of two control arms
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline import embedded
from variational_reasoning.pipeline.rows import Identity
from variational_reasoning.pipeline.train_files import register_datasets, write_file_once

MODULUS = 7
DIGITS = "0123456"
NUM_TERMS = 200
NUM_STEPS = 4
NUM_EXPERT, NUM_SOLUTION, NUM_TEST = 150, 1000, 300
"""Training questions with a trace, with a solution only, and test questions."""

PRETRAIN_TOKENS = 2_600_000
EXPLICIT_SHARE, DEFINED_SHARE, GIVEN_SHARE = 0.4, 0.25, 0.1
"""Shares of the pretraining documents that have steps and no terms, that define their terms, and
that give the steps of their terms where a hint is. In the others the terms mean something that
cannot be known.
"""

CHAT_FORMAT = Path(__file__).parent / "chat_format.json"
TERMS = tuple(f"t{number:03d}" for number in range(NUM_TERMS))
WORDS = ("+", "*", "=", *DIGITS, *TERMS)
"""210 tokens after the tags: an operator, a value, or a term."""


def draw_step(rng: random.Random) -> str:
    """A random step that changes values and can be undone: `+1` to `+6`, `*2` to `*6`."""
    operator = rng.choice("+*")
    return operator + rng.choice(DIGITS[1:] if operator == "+" else DIGITS[2:])


def apply(values: str, step: str) -> str:
    """Both values after one step: `45` and `+3` give `01`, since 5 + 3 = 8 = 1 modulo 7."""
    operand = DIGITS.index(step[1])
    numbers = [DIGITS.index(value) for value in values]
    if step[0] == "+":
        results = [number + operand for number in numbers]
    else:
        results = [number * operand for number in numbers]
    return "".join(DIGITS[result % MODULUS] for result in results)


def write_trace(values: str, steps: Sequence[str], terms: Sequence[str]) -> tuple[str, str]:
    """(trace, final values). terms: what is written before each step, empty for nothing."""
    trace = values
    for term, step in zip(terms, steps, strict=True):
        values = apply(values, step)
        trace += term + step + values
    return trace, values


def write_solution(steps: Sequence[str], values: str) -> str:
    """The steps and the final values."""
    return "".join(steps) + "=" + values


def draw_values(rng: random.Random) -> str:
    """Two different start values."""
    return "".join(rng.sample(DIGITS, 2))


def task_rows(seed: int) -> dict[str, list[dict]]:
    """Training and test rows of one seed; every training row has its trace, and no question occurs
    twice.
    """
    rng = random.Random(f"own terms {seed}")
    meanings = {term: draw_step(rng) for term in TERMS}
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    num_train = NUM_EXPERT + NUM_SOLUTION
    seen = set()
    while len(seen) < num_train + NUM_TEST:
        terms, values = rng.sample(TERMS, NUM_STEPS), draw_values(rng)
        question = "".join(terms) + values
        if question in seen:
            continue
        seen.add(question)
        split = "train" if len(rows["train"]) < num_train else "test"
        steps = [meanings[term] for term in terms]
        trace, final = write_trace(values, steps, terms)
        rows[split].append(
            {
                "question_id": f"terms-{seed}-{split}-{len(rows[split]):04d}",
                "question": question,
                "trace": trace,
                "solution": write_solution(steps, final),
                "source": "own_terms",
                "check": {"kind": "exact", "gold": final, "after": "="},
                "split": split,
            }
        )
    return rows


def pretraining_document(rng: random.Random) -> str:
    """A document whose terms mean what only this document says, or nobody does."""
    renderer = make_renderer(str(CHAT_FORMAT))
    steps = [draw_step(rng) for _ in range(NUM_STEPS)]
    terms, values = rng.sample(TERMS, NUM_STEPS), draw_values(rng)
    kind = rng.random()
    if kind < EXPLICIT_SHARE:
        # The steps are in the question, or where a hint is; no term is named.
        steps = [draw_step(rng) for _ in range(2 * NUM_STEPS)]
        trace, final = write_trace(values, steps, [""] * len(steps))
        solution = write_solution(steps, final)
        if rng.random() < 0.5:
            prompt = renderer.prompt("posterior_b", values, hint=solution)
        else:
            prompt = renderer.prompt("reasoner", "".join(steps) + values)
    else:
        trace, final = write_trace(values, steps, terms)
        solution = write_solution(steps, final)
        question = "".join(terms) + values
        prompt = renderer.prompt("reasoner", question)
        if kind < EXPLICIT_SHARE + DEFINED_SHARE:
            defined = [term + step for term, step in zip(terms, steps, strict=True)]
            rng.shuffle(defined)
            prompt = renderer.prompt("reasoner", "".join(defined) + question)
        elif kind < EXPLICIT_SHARE + DEFINED_SHARE + GIVEN_SHARE:
            prompt = renderer.prompt("posterior_b", question, hint=solution)
    _, response = renderer.render("reasoner", "", trace, solution)
    return prompt + response


TASK = embedded.EmbeddedTask(
    name="tiny_questions",
    words=WORDS,
    pattern="t[0-9]{3}|[0-9]|[+*=]",
    document=pretraining_document,
    stream="pretrain own terms",
    num_tokens=PRETRAIN_TOKENS,
    recipe={
        "vocabulary": (*embedded.TAGS, *WORDS),
        "modulus": MODULUS,
        "steps": NUM_STEPS,
        "tokens": PRETRAIN_TOKENS,
        "explicit_share": EXPLICIT_SHARE,
        "defined_share": DEFINED_SHARE,
        "given_share": GIVEN_SHARE,
        "seed": embedded.BASE_SEED,
    },
)


def source_rows(rows: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The rows as a user would have them: only the first NUM_EXPERT have their trace."""
    train = [dict(row) for row in rows["train"]]
    for row in train[NUM_EXPERT:]:
        row["trace"] = ""
    return {"train": train, "test": rows["test"]}


def write_control_files(folder: Path, rows: Sequence[dict], seed: int) -> None:
    """Train files of two arms: the solutions without any trace, and the expert's traces for all."""
    names = ("question_id", "question", "trace", "solution", "source")
    expert = [{name: row[name] for name in names} for row in rows]
    # A thought is never empty: the start values stand for none.
    bare = [row | {"trace": row["question"][-2:]} for row in expert[NUM_EXPERT:]]
    files = {"solution": expert[:NUM_EXPERT] + bare, "expert": expert}
    for name, those in files.items():
        path = folder / f"tiny_questions_{name}.parquet"
        write_file_once(path, "reasoning", those, Identity({"task": name}, {}, seed=seed))
    register_datasets(folder, {f"tiny_questions_{name}": "reasoning" for name in files})


def main(arguments: list[str]) -> None:
    defaults = {"base": "runs/tiny_questions-base", "run": "runs/tiny_questions", "seed": "0"}
    values = embedded.read_task_words(defaults, arguments)
    seed, run = int(values["seed"]), Path(values["run"])
    try:
        embedded.write_base(TASK, Path(values["base"]))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    rows = task_rows(seed)
    embedded.write_source(run / "source", source_rows(rows))
    write_control_files(run / "train", rows["train"], seed)


if __name__ == "__main__":
    main(sys.argv[1:])
