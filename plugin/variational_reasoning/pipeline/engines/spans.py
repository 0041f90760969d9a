"""Abstract traces in a batch: which ids each row may draw, while its trace is open."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from variational_reasoning.pipeline.engines.base import Request, Span

if TYPE_CHECKING:
    import torch


class OpenSpans:
    """The requests of a batch whose traces are not closed yet.

    A trace begins its sample, so at step t an open one has t symbols. Requests and rows are
    numbered as in the engine's batch: `rows` names the request of each row.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.is_open = np.array([request.span is not None for request in requests])
        self._ends = np.array([request.span.end_id if request.span else -1 for request in requests])
        self._members: dict[Span, np.ndarray] = {}
        for number, request in enumerate(requests):
            if request.span is not None:
                is_member = self._members.setdefault(request.span, np.zeros(len(requests), bool))
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
            concerned = np.flatnonzero((self.is_open & is_member)[rows])
            if not len(concerned):
                continue
            which = torch.from_numpy(concerned).to(logits.device)
            allowed = torch.tensor(span.allowed_ids(step), device=logits.device)
            constrained = torch.full_like(logits[which], -torch.inf)
            constrained[:, allowed] = logits[which][:, allowed]
            logits = logits.index_copy(0, which, constrained)
            temperature = temperature.index_fill(0, which, span.temperature)
        return logits, temperature

    def record(self, rows: np.ndarray, drawn: np.ndarray) -> None:
        """Close the traces whose end has been drawn.

        Args:
            rows: [rows] requests. drawn: [rows] ids.
        """
        self.is_open[rows[drawn == self._ends[rows]]] = False
