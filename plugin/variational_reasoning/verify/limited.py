"""The loop of a worker process that compares answers under limits (stage 7).

    in    [question, solution]     one JSON line; `compare` takes the question
    out   [verdict, reason]        one JSON line

The parent limits the wall time by killing this process. If the parent dies during a comparison, the
limit of processor time ends it.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from .verdicts import Verdict

AnswerComparison = Callable[[Any, str], tuple[Verdict, str]]


def serve(load: Callable[[], AnswerComparison], memory_mib: int, seconds: float) -> None:
    """Answer lines until standard input ends.

    Args:
        load: imports what the comparison needs, before the first line, so that no comparison pays
            for it. The comparison gives (verdict, reason), and decides itself what its own library
            raises; only MemoryError and RecursionError are decided here.
        memory_mib: address space of this process.
        seconds: processor time of one comparison is two seconds more.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a library prints must not get between the replies
    compare = load()
    memory = memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    replies.write('"ready"\n')
    replies.flush()
    for line in sys.stdin:
        question, solution = json.loads(line)
        _allow_more_processor_time(seconds)
        try:
            verdict, reason = compare(question, solution)
        except MemoryError:
            verdict, reason = Verdict.MEMORY_LIMIT, f"above {memory_mib} MiB"
        except RecursionError:
            verdict, reason = Verdict.MALFORMED, "nested too deeply to be read"
        replies.write(json.dumps([verdict.value, reason]) + "\n")
        replies.flush()
        if verdict is Verdict.MEMORY_LIMIT:
            return  # the memory is fragmented now; the parent starts a fresh process


def _allow_more_processor_time(seconds: float) -> None:
    """Move this process's limit of processor time for the next comparison.

    The kernel counts from the start of the process. One that has used 7.3 s, and may use 5 s more,
    gets a limit of 14 s. Its hard limit, if it has one, stays as it is.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    wanted = int(used + seconds) + 2
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CPU)
    if hard_limit == resource.RLIM_INFINITY or wanted < hard_limit:
        resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard_limit))
