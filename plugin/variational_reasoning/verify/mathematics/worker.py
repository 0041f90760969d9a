"""The process in which Math-Verify runs: one JSON line in, one JSON line out, under limits (stage
7).

Started by `pool` as `python -m variational_reasoning.verify.mathematics.worker MEMORY_MIB SECONDS`.
Line in: [golds, solution]; line out: [verdict, reason]. Wall time is the parent's to bound, by
killing this process. Should the parent die in the middle, the limit of processor time ends a
comparison that would otherwise run for ever.
"""

import json
import os
import resource
import sys

from ..verdicts import Verdict
from .algebra import READING_ERRORS
from .answers import compare_symbolically


def main(memory_mib: int, seconds: float) -> None:
    """Answer lines until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a library prints must not stand between the replies
    import math_verify  # noqa: F401  before the first line, so that no comparison pays for it

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))
    replies.write('"ready"\n')
    replies.flush()
    hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in sys.stdin:
        golds, solution = json.loads(line)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft_limit = int(usage.ru_utime + usage.ru_stime + seconds) + 2
        if hard_limit == resource.RLIM_INFINITY or soft_limit < hard_limit:
            resource.setrlimit(resource.RLIMIT_CPU, (soft_limit, hard_limit))
        try:
            verdict, reason, *_ = compare_symbolically(golds, solution)
        except MemoryError:
            verdict, reason = Verdict.MEMORY_LIMIT, f"above {memory_mib} MiB"
        except RecursionError:
            verdict, reason = Verdict.MALFORMED, "nested too deeply to be read"
        except READING_ERRORS as error:
            verdict, reason = (
                Verdict.CHECKER_ERROR,
                f"math-verify: {type(error).__name__}: {error}"[:300],
            )
        replies.write(json.dumps([verdict.value, reason]) + "\n")
        replies.flush()
        if verdict is Verdict.MEMORY_LIMIT:
            return  # its allocator is full of holes; the parent starts a fresh process


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
