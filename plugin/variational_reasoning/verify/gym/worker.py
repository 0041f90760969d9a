"""The process in which reasoning-gym's verifiers run (stage 7).

Started by `pool` as `python -m variational_reasoning.verify.gym.worker MEMORY_MIB SECONDS`.
Line in: [check, solution]; line out: [verdict, reason], under the limits of `limited.serve`.
"""

import sys

from ..limited import AnswerComparison, serve
from .tasks import compare, load_library


def load() -> AnswerComparison:
    """Import the library and what its verifiers need."""
    load_library()
    import sympy  # noqa: F401

    return compare


if __name__ == "__main__":
    serve(load, int(sys.argv[1]), float(sys.argv[2]))
