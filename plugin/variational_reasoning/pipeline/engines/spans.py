"""Abstract traces in a batch: which ids each row may draw, until its answer begins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from variational_reasoning.pipeline.engines.base import Request, Span

if TYPE_CHECKING:
    import torch


_NO_ID = -1
"""The end of a request without a span: no token has this id."""


class OpenSpans:
    """The requests of a batch whose next id is constrained.

    A trace begins its sample, so at step t an open one has t symbols. Requests and rows are
    numbered as in the engine's batch: `rows` names the request of each row. Example, a trace of one
    symbol, with a separator of one id:

        step         0         1      2            3
        drawn        symbol    end    separator    answer
        place        0         0      1            not open
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        num = len(requests)
        self.is_open = np.zeros(num, dtype=bool)
        """Of each request: whether its next id is constrained."""
        self._ends = np.full(num, _NO_ID)
        self._num_forced = np.zeros(num, dtype=int)
        self._places = np.zeros(num, dtype=int)
        """0 in the trace, k where the separator's k-th id is next."""
        self._members: dict[Span, np.ndarray] = {}
        """Which requests have this span: [requests] bool. Most batches have one span for all."""
        for number, request in enumerate(requests):
            span = request.span
            if span is None:
                continue
            self.is_open[number] = True
            self._ends[number] = span.end_id
            self._num_forced[number] = len(span.separator_ids)
            if span not in self._members:
                self._members[span] = np.zeros(num, dtype=bool)
            is_member = self._members[span]
            is_member[number] = True

    def constrain(
        self, logits: "torch.Tensor", temperature: "torch.Tensor", rows: np.ndarray, step: int
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Logits and temperatures of the rows, with those of open traces in place.

        Args:
            logits: [rows, vocabulary]. temperature: [rows]. rows: [rows] requests.

        Returns: the logits of ids that cannot be drawn are minus infinity.
        """
        import torch

        for span, is_member in self._members.items():
            is_concerned = self.is_open & is_member
            # What may be drawn at place 0, in the trace, and at each place of the separator.
            of_places = [span.allowed_ids(step)]
            for forced in span.separator_ids:
                of_places.append((forced,))
            for place, ids in enumerate(of_places):
                is_here = is_concerned & (self._places == place)
                rows_here = np.flatnonzero(is_here[rows])
                if len(rows_here) == 0:
                    continue
                which = torch.from_numpy(rows_here).to(logits.device)
                logits = _allow_only(ids, logits, which)
                temperature = temperature.index_fill(0, which, span.temperature)
        return logits, temperature

    def record(self, rows: np.ndarray, drawn: np.ndarray) -> None:
        """Move on the rows whose end, or an id of whose separator, has been drawn.

        Args:
            rows: [rows] requests. drawn: [rows] ids.
        """
        is_in_separator = self._places[rows] > 0
        is_end = drawn == self._ends[rows]
        moved = rows[is_in_separator | is_end]
        self._places[moved] += 1
        # A closed request moves on, too; nobody asks for its place any more.
        self.is_open &= self._places <= self._num_forced


def _allow_only(
    ids: Sequence[int], logits: "torch.Tensor", which: "torch.Tensor"
) -> "torch.Tensor":
    """The logits, with minus infinity for all other ids in these rows."""
    import torch

    allowed = torch.tensor(ids, device=logits.device)
    # Everything is forbidden, and then these ids get their logits back.
    unconstrained = logits[which]
    constrained = torch.full_like(unconstrained, -torch.inf)
    constrained[:, allowed] = unconstrained[:, allowed]
    return logits.index_copy(0, which, constrained)
