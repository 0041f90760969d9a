"""The questions table, as the stages after it read it."""

from typing import Any

from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.rows import read_rows


def training_questions(config: Config) -> list[dict[str, Any]]:
    """The questions of the train split, in the table's order. Raises: ValueError when there is none."""
    rows = read_rows(
        config.folder("questions"),
        "questions",
        ["question_id", "question", "trace", "solution", "split"],
    )
    rows = [row for row in rows if row["split"] == "train"]
    if not rows:
        raise ValueError(f"{config.folder('questions')} has no question whose split is train")
    return rows
