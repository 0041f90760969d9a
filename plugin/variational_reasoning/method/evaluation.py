"""What an evaluation says about a model: Avg@k, Pass@k, two models on the same questions.

Of n samples of a question, c are correct. Over questions (App. D, Fig. 2, Tables 1 to 6),

    Avg@n  = mean of c / n                       standard error: s / sqrt(number of questions)
    Pass@k = mean of 1 - C(n - c, k) / C(n, k)   unbiased for every k <= n

Pass@k is the chance that k of the n samples, taken without replacement, hold a correct one.

The error is over questions, and n samples of one question count as one value: they share the
question, so counting them as independent would make every error too small. Two models are compared
question by question, because most of the spread is between questions and cancels in a difference.
"""

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

BENCHMARKS = {
    "math": ("math500", "aime24", "aime25", "amc23", "olympiadbench"),
    "general": (
        "gpqa_diamond",
        "livecodebench_easy",
        "livecodebench_medium",
        "livecodebench_hard",
        "mmlu_pro",
    ),
}
"""The paper's benchmarks, in the two groups that its tables average over."""

_RESAMPLED_AT_ONCE = 2**22
"""Values that a bootstrap holds in memory at a time."""


class Estimate(NamedTuple):
    """A mean and its standard error; None for the error where there is a single value."""

    mean: float
    standard_error: float | None


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class PaperResult(NamedTuple):
    """A row of the paper's tables: model, what it was trained from, Avg@k in [0, 100] by task."""

    model: str
    backbone: str
    scores: dict[str, float]


def mean_and_error(values: Sequence[float]) -> Estimate:
    """Mean, and sample standard deviation over the square root of n.

    Raises: ValueError for no values.
    """
    if not values:
        raise ValueError("there are no values to take a mean of")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, None)
    squares = [(value - mean) ** 2 for value in values]
    variance = math.fsum(squares) / (len(values) - 1)
    return Estimate(mean, math.sqrt(variance / len(values)))


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k) of one question, in [0, 1].

    Binomials are exact integers, and their quotient is rounded once, so no n is too large.

    Raises: ValueError unless 1 <= k <= num_samples and 0 <= num_correct <= num_samples.
    Source: arXiv 2107.03374, Eq. 1; arXiv 2509.22637, Fig. 2.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"k is {k}; with {num_samples} samples of a question it must be from 1 to {num_samples}"
        )
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct is {num_correct}, outside 0..{num_samples}")
    num_wrong = num_samples - num_correct
    subsets = math.comb(num_samples, k)
    all_wrong = math.comb(num_wrong, k)
    return (subsets - all_wrong) / subsets


def paired_differences(
    model: Mapping[str, float], baseline: Mapping[str, float], where: str
) -> list[float]:
    """Model minus baseline by question, from maps of question_id to the share of correct samples.

    Args:
        where: what is compared, for the error.

    Raises: ValueError when the two were not asked the same questions.
    """
    if model.keys() != baseline.keys():
        only = sorted(model.keys() ^ baseline.keys())
        raise ValueError(
            f"{where}: {len(only)} questions were asked of one model only, such as {only[:3]}; "
            "evaluate both models on the same questions, under names of their own"
        )
    return [model[question_id] - baseline[question_id] for question_id in model]


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    seed: int = 0,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """The mean over groups of each group's mean, with the percentile bootstrap's interval.

    Every resample takes as many values of each group as it has, with replacement. A group is a
    benchmark and a value a question, so the interval of an average over benchmarks keeps their
    sizes apart.

    Args:
        groups: values, such as `paired_differences`; none may be empty.
        seed: of the resamples; the same seed gives the same interval.

    Raises: ValueError for no groups or an empty one, and for a confidence outside (0, 1).
    """
    if not groups or not all(groups):
        raise ValueError("there must be at least one group, and at least one value in each")
    import torch

    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(num_resamples, dtype=torch.float64)
    for group in groups:
        values = torch.tensor(group, dtype=torch.float64)
        total += _resampled_means(values[:, None], num_resamples, generator)[:, 0]
    low, high = _bounds(total / len(groups), confidence)
    means = [math.fsum(group) / len(group) for group in groups]
    mean = math.fsum(means) / len(groups)
    return Interval(mean, low.item(), high.item())


def bootstrap_columns(
    values: Collection[Collection[float]],
    seed: int = 0,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Interval]:
    """The same for each column of a table whose lines are resampled whole.

    Args:
        values: [Q, K], also a NumPy array; a line is a question, so its K columns stay together.

    Raises: ValueError for a confidence outside (0, 1).
    """
    import torch

    table = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    lows, highs = _bounds(_resampled_means(table, num_resamples, generator), confidence)
    bounds = zip(table.mean(dim=0).tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [Interval(*each) for each in bounds]


def _resampled_means(
    values: "torch.Tensor", num_resamples: int, generator: "torch.Generator"
) -> "torch.Tensor":
    """[R, K] means over resampled lines of values [Q, K].

    A resample of the lines a, b, c is a count for each, such as 2, 0, 1 for a, c, a; its mean is
    the product of the counts and the values, over the number of lines.
    """
    import torch

    num_lines = len(values)
    means = []
    at_once = max(1, _RESAMPLED_AT_ONCE // num_lines)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start), num_lines
        chosen = torch.randint(num_lines, size, generator=generator)
        counts = torch.zeros(size, dtype=torch.float64)
        counts.scatter_add_(1, chosen, torch.ones_like(counts))
        means.append(counts @ values / num_lines)
    return torch.cat(means)


def _bounds(means: "torch.Tensor", confidence: float) -> "tuple[torch.Tensor, torch.Tensor]":
    """The percentiles of resampled means, along their first dimension."""
    import torch

    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    tail = (1 - confidence) / 2
    shares = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.quantile(means, shares, dim=0)
    return low, high


def paper_results() -> list[PaperResult]:
    """The rows of the paper's tables, in their order.

    Source: arXiv 2509.22637, Tables 1 to 3, 5 and 6.
    """
    path = Path(__file__).with_name("paper_results.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for group in BENCHMARKS.values() for name in group]
    results = []
    for row in rows:
        scores = {name: float(row[name]) for name in names}
        results.append(PaperResult(row["model"], row["backbone"], scores))
    return results
