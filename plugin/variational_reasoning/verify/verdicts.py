"""What a verifier may say about an answer (stage 7). Only `correct` counts as correct; nothing here
is truthy by accident."""

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """One word per outcome; the values are what tables store.

    correct: a real comparison accepted the answer. wrong: a real comparison rejected it.
    no_answer: no complete answer is where the prompt asks for it. malformed: there is one, but
    it cannot be read. timeout, memory_limit, output_limit, runtime_error, compile_error: the answer
    used up a limit, or its program failed. wrong_trace: the answer is right, but the trace before
    it fails verify.trace_check. checker_error: the checker failed, which says nothing about the
    answer. unverifiable: no checker here can decide it.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    MALFORMED = "malformed"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    WRONG_TRACE = "wrong_trace"
    CHECKER_ERROR = "checker_error"
    UNVERIFIABLE = "unverifiable"

    def __bool__(self) -> bool:
        raise TypeError(
            "a verdict has no truth value: write `verdict is Verdict.CORRECT` (this one is "
            f"{self.value!r})"
        )


UNDECIDED = (Verdict.CHECKER_ERROR, Verdict.UNVERIFIABLE)
"""Verdicts that say nothing about the answer. They are never `wrong`: stages count them and stop
when there are many."""


class Result(NamedTuple):
    """A verdict, why (empty when there is nothing to add), the wall seconds that it took, and for a
    program the tier of isolation that it ran in (`T3`; else empty)."""

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    tier: str = ""
