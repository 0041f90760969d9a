"""How the weight of a run's train files falls on easy, middle and hard questions (section 3).

The files are read as they are trained, so this shows the real effect of a question weight, a mix or
a fallback. P is the share of a question's sampled answers that are verified. A file with three
questions of P = 1/8, 1/2 and 1, whose rows weigh 1, 1 and 2:

    hard      25.0 % of the weight, 33.3 % of the questions
    middle    25.0 %                33.3 %
    always    50.0 %                33.3 %
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from variational_reasoning.pipeline.train_files import check_file

DIFFICULTIES = ("never", "hard", "middle", "easy", "always")
"""P = 0, up to 1/4, up to 3/4, below 1, and 1."""


class WeightShares(NamedTuple):
    """One train file, by DIFFICULTIES.

    weights, questions: shares of the file's weight and of its questions, [5] each.
    mean_accuracy: the mean of P by weight. num_unknown: questions whose P is not known.
    """

    weights: np.ndarray
    questions: np.ndarray
    mean_accuracy: float
    num_questions: int
    num_unknown: int


def read_weight_shares(path: Path) -> WeightShares | None:
    """The shares of one train file of stage 8; None where no P is known.

    Raises: ValueError for a file that was changed after its manifest was written.
    """
    check_file(path)
    table = pq.read_table(path, columns=["question_id", "weight", "question_accuracy"])
    by_question = table.group_by("question_id", use_threads=False)
    # P is the same in all rows of a question.
    grouped = by_question.aggregate([("weight", "sum"), ("question_accuracy", "max")])
    accuracy = np.array(grouped["question_accuracy_max"].to_pylist(), dtype=float)
    weight = grouped["weight_sum"].to_numpy()
    is_known = ~np.isnan(accuracy)
    num_known = int(is_known.sum())
    if num_known == 0:
        return None
    num_unknown = len(is_known) - num_known
    accuracy = accuracy[is_known]
    weight = weight[is_known]
    total = weight.sum()
    weighted_accuracy = (accuracy * weight).sum()
    place = difficulty_of(accuracy)
    weights = np.bincount(place, weights=weight, minlength=len(DIFFICULTIES))
    questions = np.bincount(place, minlength=len(DIFFICULTIES))
    return WeightShares(
        weights=weights / total,
        questions=questions / num_known,
        mean_accuracy=float(weighted_accuracy / total),
        num_questions=num_known,
        num_unknown=num_unknown,
    )


def difficulty_of(accuracy: np.ndarray) -> np.ndarray:
    """Index into DIFFICULTIES of each P in [0, 1]; a bound belongs to the harder side."""
    place = np.searchsorted([0.0, 0.25, 0.75], accuracy, side="left")
    return np.where(accuracy >= 1, 4, place)


def read_all_shares(folder: Path) -> dict[str, WeightShares | None]:
    """The shares of every weighted train file of a run, by name."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "train").glob("*.parquet")):
        if "question_accuracy" in pq.read_schema(path).names:
            found[path.stem] = read_weight_shares(path)
    return found
