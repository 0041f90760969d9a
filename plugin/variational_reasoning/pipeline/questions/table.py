"""The questions table, as the stages after it read it."""

from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.reading import TableReader


def training_questions(config: Config) -> tuple[TableReader, list[str]]:
    """The questions table, and the ids of its train split in the table's order.

    Raises: ValueError when there is none.
    """
    reader = TableReader(config.folder("questions"), "questions")
    rows = reader.columns_of_summary(["question_id", "split"])
    train = []
    for row in rows.to_pylist():
        if row["split"] == "train":
            train.append(row["question_id"])
    if not train:
        raise ValueError(f"{config.folder('questions')} has no question whose split is train")
    return reader, train
