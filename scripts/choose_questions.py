"""A fixed, published subset of questions, for data.question_ids."""

from pathlib import Path

from variational_reasoning.pipeline.commands import read_words, run_command
from variational_reasoning.pipeline.questions.subsets import choose_ids, format_ids
from variational_reasoning.pipeline.rows import read_rows

USAGE = """usage: python scripts/choose_questions.py FROM count=N seed=N to=FILE
FROM is a run folder, whose train questions are chosen from, or rows=N for the row numbers 0 to N - 1 (data.ids: row).
Chosen are the ids with the smallest sha256 of "<seed> <id>"; an existing FILE is not overwritten."""
KEYS = ("count", "seed", "to")


def main() -> None:
    places, pairs = read_words(USAGE)
    values = dict(pair.split("=", 1) for pair in pairs)
    source = values.pop("rows", None)
    origin = f"rows={source}" if source else " ".join(places)
    if sorted(values) != sorted(KEYS) or len(places) + (source is not None) != 1:
        raise ValueError(f"the arguments do not fit: {' '.join(places + pairs) or 'none'}\n{USAGE}")
    count, seed = _whole(values["count"], "count"), _whole(values["seed"], "seed")
    if source is not None:
        ids = [str(number) for number in range(_whole(source, "rows"))]
    else:
        rows = read_rows(Path(origin, "questions"), "questions", ["question_id", "split"])
        ids = [row["question_id"] for row in rows if row["split"] == "train"]
    chosen = choose_ids(ids, count, seed)
    header = [
        f"{count} of {len(ids)} question ids, made by",
        f"python scripts/choose_questions.py {origin} count={count} seed={seed} to=FILE",
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
