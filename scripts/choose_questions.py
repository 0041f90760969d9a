"""A fixed, published subset of questions, for data.question_ids."""

import sys
from pathlib import Path

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.questions.subsets import choose_ids, format_ids
from variational_reasoning.pipeline.rows import read_rows

USAGE = """usage: python scripts/choose_questions.py FROM count=N seed=N to=FILE
FROM is a run folder, whose train questions are chosen from, or rows=N for the row numbers 0 to N - 1 (data.ids: row).
Chosen are the ids with the smallest sha256 of "<seed> <id>"; an existing FILE is not overwritten."""
KEYS = ("count", "seed", "to")


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    values = dict(argument.split("=", 1) for argument in arguments[1:] if "=" in argument)
    if not arguments or sorted(values) != sorted(KEYS) or len(arguments) != len(KEYS) + 1:
        raise ValueError(f"the arguments do not fit: {' '.join(arguments) or 'none'}\n{USAGE}")
    count, seed = _whole(values["count"], "count"), _whole(values["seed"], "seed")
    if arguments[0].startswith("rows="):
        ids = [str(number) for number in range(_whole(arguments[0].removeprefix("rows="), "rows"))]
    else:
        rows = read_rows(Path(arguments[0], "questions"), "questions", ["question_id", "split"])
        ids = [row["question_id"] for row in rows if row["split"] == "train"]
    chosen = choose_ids(ids, count, seed)
    header = [
        f"{count} of {len(ids)} question ids, made by",
        f"python scripts/choose_questions.py {' '.join(arguments[:1])} count={count} seed={seed} to=FILE",
    ]
    with Path(values["to"]).open("x", encoding="utf-8") as stream:
        stream.write(format_ids(chosen, header))
    print(f"chose {count} of {len(ids)} ids; wrote {values['to']}")


def _whole(text: str, name: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r} is not a whole number of 0 or more")
    return int(text)


if __name__ == "__main__":
    run_command(main)
