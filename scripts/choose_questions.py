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
    num_rows = values.pop("rows", None)
    num_sources = len(places) + (num_rows is not None)
    if sorted(values) != sorted(KEYS) or num_sources != 1:
        given = " ".join(places + pairs) or "none"
        raise ValueError(f"the arguments do not fit: {given}\n{USAGE}")
    count = _whole(values["count"], "count")
    seed = _whole(values["seed"], "seed")
    ids = []
    if num_rows is not None:
        origin = f"rows={num_rows}"
        ids = [str(number) for number in range(_whole(num_rows, "rows"))]
    else:
        (origin,) = places
        rows = read_rows(Path(origin, "questions"), "questions", ["question_id", "split"])
        for row in rows:
            if row["split"] == "train":
                ids.append(row["question_id"])
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
