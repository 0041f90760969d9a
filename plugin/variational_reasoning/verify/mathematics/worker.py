"""The process in which Math-Verify runs (stage 7).

Started by `pool` as `python -m variational_reasoning.verify.mathematics.worker MEMORY_MIB SECONDS`.
Line in: [golds, solution]; line out: [verdict, reason], under the limits of `limited.serve`.
"""

import sys

from ..limited import AnswerComparison, serve
from ..verdicts import Verdict
from .algebra import READING_ERRORS
from .answers import compare_symbolically


def load() -> AnswerComparison:
    """Import Math-Verify."""
    import math_verify  # noqa: F401

    return compare


def compare(golds: list[str], solution: str) -> tuple[Verdict, str]:
    """The verdict on a solution; what Math-Verify cannot read is the checker's failure."""
    try:
        verdict, reason, *_ = compare_symbolically(golds, solution)
    except (MemoryError, RecursionError):
        raise  # the loop's to decide
    except READING_ERRORS as error:
        return Verdict.CHECKER_ERROR, f"math-verify: {type(error).__name__}: {error}"[:300]
    return verdict, reason


if __name__ == "__main__":
    serve(load, int(sys.argv[1]), float(sys.argv[2]))
