"""Abstract traces in a batch: which ids each row may draw, until its answer begins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from variational_reasoning.pipeline.engines.base import Request, Span

if TYPE_CHECKING:
    import torch


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
        spans = [request.span for request in requests]
        self.is_open = np.array([span is not None for span in spans])
        self._ends = np.array([span.end_id if span else -1 for span in spans])
        self._num_forced = np.array([len(span.separator_ids) if span else 0 for span in spans])
        self._places = np.zeros(len(spans), dtype=np.int64)
        """0 in the trace, k where the separator's k-th id is next."""
        self._members: dict[Span, np.ndarray] = {}
        for number, span in enumerate(spans):
            if span is not None:
                is_member = self._members.setdefault(span, np.zeros(len(spans), bool))
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
            for place in range(len(span.separator_ids) + 1):
                is_concerned = self.is_open & is_member & (self._places == place)
                concerned = np.flatnonzero(is_concerned[rows])
                if not len(concerned):
                    continue
                ids = span.allowed_ids(step) if place == 0 else span.separator_ids[place - 1]
                which = torch.from_numpy(concerned).to(logits.device)
                allowed = torch.tensor(ids, device=logits.device).view(-1)
                constrained = torch.full_like(logits[which], -torch.inf)
                constrained[:, allowed] = logits[which][:, allowed]
                logits = logits.index_copy(0, which, constrained)
                temperature = temperature.index_fill(0, which, span.temperature)
        return logits, temperature

    def record(self, rows: np.ndarray, drawn: np.ndarray) -> None:
        """Move on the rows whose end, or an id of whose separator, has been drawn.

        Args:
            rows: [rows] requests. drawn: [rows] ids.
        """
        in_separator = self._places[rows] > 0
        moves = in_separator | (drawn == self._ends[rows])
        self._places[rows[moves]] += 1
        self.is_open &= self._places <= self._num_forced
