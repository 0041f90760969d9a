"""What a posterior's prompt shows as the hint of a question (stages 3 and 5).

`sampling.hint` says which, for controls: a wrong hint may work about as well as the right one
(arXiv 2608.09228), so a run can compare them.

    reference        the question's own solution, y' of the paper; or its own trace, for a prompt
                     family whose posterior sees that (`abstract`)
    answer           its final answer only (`final_answer`); in `abstract` in the chain's place, so
                     the symbols can tell of the answer, but not of the steps to it
    other_question   the solution (or trace) of another training question, the same in every stage
    none             an empty hint: the same model and prompt, without what is in it; in `abstract`
                     that is the reasoner's prompt

A question that has no such text (a program without a solution has no answer) is left out of
stage 3 with a reason. The sampled and the scored prompt are made here, so rho is of one prompt.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from variational_reasoning.method.families import REASONER
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.work.draws import draw
from variational_reasoning.verify.checks import gold_answers
from variational_reasoning.verify.mathematics.boxes import last_boxed

COLUMNS = ("question", "solution", "trace", "check")
"""The columns of a question's row that `Hints.of` and the prompt read."""


class Hints:
    """The hints of a run's training questions for one prompt kind."""

    def __init__(
        self, config: Config, kind: str, questions: TableReader, ids: Sequence[str]
    ) -> None:
        """Args: ids: all training questions, in the table's order.

        `other_question` needs the texts of all of them at once, the others none of these.
        """
        self.name = config.sampling.hint
        self.is_shown = kind != REASONER
        self._column = config.renderer.family.hint
        self._others: dict[str, str] = {}
        if self.is_shown and self.name == "other_question":
            rows_of = questions.rows_of(ids, [self._column])
            hints = {}
            for question_id in ids:
                [row] = rows_of[question_id]
                hints[question_id] = row[self._column]
            self._others = hints_of_others(hints, config.seed)

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The hint of a question; None for a prompt that shows none.

        Args:
            row: question_id, and COLUMNS.
        """
        if not self.is_shown:
            return None
        if self.name == "none":
            return ""
        if self.name == "answer":
            check = json.loads(row["check"])
            return final_answer(row["solution"], check) or ""
        if self.name == "other_question":
            return self._others.get(row["question_id"], "")
        return row[self._column]

    def lacks(self, hint: str | None) -> bool:
        """Whether a question cannot be asked for traces, because there is no such hint."""
        if not self.is_shown or self.name == "none":
            return False
        return not hint

    def dropped(self, question_id: str) -> dict[str, Any]:
        """The entry of a question without a hint in the manifest of the traces."""
        reason = f"no text for the hint ({self.name})"
        return {"question_id": question_id, "reason": reason, "tokens": 0}

    def identity(self) -> dict[str, str]:
        """What a manifest says of the hint; the reference is what its absence says."""
        if self.name == "reference" or not self.is_shown:
            return {}
        return {"sampling.hint": self.name}


def final_answer(solution: str, check: Mapping[str, Any]) -> str | None:
    """The short answer that a question has, or None.

    It is the gold of an `exact` check, else the last box of the solution, else the first gold.
    """
    golds = []
    for gold in gold_answers(dict(check)):
        if isinstance(gold, str):
            golds.append(gold)
    answer = last_boxed(solution)
    prefers_gold = check.get("kind") == "exact" or answer is None
    if golds and prefers_gold:
        answer = golds[0]
    if answer is None:
        return None
    return answer.strip() or None


def hints_of_others(hints: Mapping[str, str], seed: int) -> dict[str, str]:
    """For each question the hint of another one, which differs from its own.

    Questions form a ring in an order that the seed draws, and each takes the next hint that is
    not its own. With the order b, a, c and the hints a: 1, b: 2, c: 1

        b takes a's 1; a skips c, whose 1 is its own, and takes b's 2; c takes b's 2

    Questions that all have one hint get none, and so do those without one.
    """
    with_hint = [question_id for question_id, hint in hints.items() if hint]
    ring = sorted(
        with_hint,
        key=lambda question_id: draw(seed, "other question", question_id),
    )
    others = {}
    for place, question_id in enumerate(ring):
        for step in range(1, len(ring)):
            neighbor = ring[(place + step) % len(ring)]  # the first follows the last
            if hints[neighbor] != hints[question_id]:
                others[question_id] = hints[neighbor]
                break
    return others
