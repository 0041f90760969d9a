"""Evaluations on disk (evals/run.py): results, what is unfinished, Pass@k, comparing two models.

An evaluation is a folder with result.json, the verdicts, and their samples. For a named folder,
evaluations are searched in three places:

    RESULTS                 the folder itself
    RESULTS/NAME            a model of a run, or a task of a model
    RESULTS/NAME/TASK       a task of a model of a suite
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from variational_reasoning.files import read_json_object
from variational_reasoning.method.evaluation import (
    Estimate,
    mean_and_error,
    paired_differences,
    pass_at_k,
)
from variational_reasoning.pipeline.rows import MANIFEST, STAGE, read_table
from variational_reasoning.verify.verdicts import Verdict

RESULT = "result.json"
REMEDY = "run the command that wrote it again"


class Evaluation(NamedTuple):
    """One model on one set of questions: result.json, and (correct, all) samples by question_id.

    `counts` lacks a question if all its samples failed in the engine, or its prompt fills the
    context.
    """

    result: dict[str, Any]
    counts: dict[str, tuple[int, int]]

    @property
    def shares(self) -> dict[str, float]:
        """The share of correct samples by question_id, in [0, 1]."""
        shares = {}
        for name, (correct, samples) in self.counts.items():
            shares[name] = correct / samples
        return shares

    @property
    def score(self) -> Estimate:
        """Avg@k in [0, 1], with its standard error over questions."""
        return mean_and_error(list(self.shares.values()))

    @property
    def num_samples(self) -> int:
        """k: the requested samples. A question may have fewer, if some have failed."""
        settings = self.result.get("settings", {})
        return int(settings.get("num_samples") or self.result["num_samples"])


class Comparison(NamedTuple):
    """Two models by question: differences of their shares, and how many questions are left out."""

    differences: list[float]
    num_left_out: int


def read_evaluations(folder: Path) -> dict[str, Evaluation]:
    """The finished evaluations of a folder by their path below it, or its own name.

    Raises: ValueError for verdicts that are unfinished or were changed.
    """
    found = {}
    for path in _folders_with(folder, RESULT):
        found[_name(path, folder)] = _read(path)
    return found


def read_unfinished(folder: Path) -> dict[str, str]:
    """What was begun and has no result yet, by path below the folder: how far it is."""
    found = {}
    for samples in _folders_with(folder, f"samples/{STAGE}"):
        if (samples / RESULT).is_file():
            continue
        if (samples / "samples" / MANIFEST).is_file():
            num_judged = len(list(samples.glob("shard-*.parquet")))
            state = f"all answers are sampled, {num_judged} shards of them are judged"
        else:
            num_sampled = len(list(samples.glob("samples/shard-*.parquet")))
            state = f"{num_sampled} shards of answers are sampled"
        found[_name(samples, folder)] = state
    return found


def unfinished_warning(where: str, state: str) -> str:
    """One line on an evaluation that has no result yet."""
    return f"{where} is not finished and not in this report: {state}. Run evals/run.py again"


def pass_curve(evaluation: Evaluation) -> list[Estimate]:
    """Pass@k for k = 1 .. n over questions, in [0, 1], n being the most samples of a question.

    A question that has lost samples to a failing engine counts up to the k that it has: of two
    questions with 4 and 3 samples, Pass@3 is over both and Pass@4 over the first.

    Source: arXiv 2509.22637, Fig. 2.
    """
    # Questions with the same counts have the same value, which is computed once.
    kinds = Counter(evaluation.counts.values())
    most = max(samples for _, samples in kinds)
    curve = []
    for k in range(1, most + 1):
        values: list[float] = []
        for (correct, samples), num_questions in kinds.items():
            if samples >= k:
                values += [pass_at_k(samples, correct, k)] * num_questions
        curve.append(mean_and_error(values))
    return curve


def compare(model: Evaluation, baseline: Evaluation, where: str) -> Comparison:
    """Model minus baseline by question.

    Where both were asked the same questions, those that one of them has no answer to are left out.
    Their samples failed in the engine, or their prompts fill the context.

    Args:
        where: what is compared, for the error.

    Raises: ValueError when they were asked different questions.
    """
    ours = model.shares
    theirs = baseline.shares
    asked = model.result.get("questions")
    if asked is None or asked != baseline.result.get("questions"):
        return Comparison(paired_differences(ours, theirs, where), 0)
    in_one = ours.keys() ^ theirs.keys()
    for name in in_one:
        ours.pop(name, None)
        theirs.pop(name, None)
    return Comparison(paired_differences(ours, theirs, where), len(in_one))


def left_out_warning(where: str, num_left_out: int) -> str:
    """One line on the questions that a comparison could not use."""
    questions = "1 question is" if num_left_out == 1 else f"{num_left_out} questions are"
    return (
        f"{where}: {questions} not compared, because one of the two models has no answer there "
        "(the samples failed in the engine, or the prompt fills the context)"
    )


def _folders_with(folder: Path, name: str) -> list[Path]:
    """The folder itself and those one and two below, where they have such a file; in order."""
    found: list[Path] = []
    for above in ("", "*/", "*/*/"):
        found += folder.glob(above + name)
    # Of `samples/stage.json` in a folder F, the path is F/samples/stage.json: two parts less.
    depth = len(Path(name).parts)
    return sorted(path.parents[depth - 1] for path in found)


def _name(path: Path, folder: Path) -> str:
    return path.resolve().name if path == folder else str(path.relative_to(folder))


def _read(folder: Path) -> Evaluation:
    table = read_table(folder, "evals", ["question_id", "answer_id", "verdict"])
    is_correct = pc.equal(table["verdict"], str(Verdict.CORRECT))
    table = table.append_column("correct", is_correct.cast("int64"))
    by_question = table.group_by("question_id", use_threads=False)
    groups = by_question.aggregate([("correct", "sum"), ("correct", "count")])
    counts = {}
    for row in groups.to_pylist():
        counts[row["question_id"]] = (row["correct_sum"], row["correct_count"])
    return Evaluation(read_json_object(folder / RESULT, REMEDY), counts)
