"""How many tokens a training counts in a row of stage 8, and whether the row fits cutoff_len.

The tables have the numbers of nearly all texts: the stages that wrote them had the tokenizer at
hand. What they do not have (tables of earlier releases, hints of the posterior) is counted here,
and a prompt only where its bytes leave a doubt:

    cutoff_len 16384, response of 5000 tokens, prompt of 1200 bytes     at most 3600 tokens: fits
    cutoff_len 16384, response of 15000 tokens, the same prompt         the prompt is tokenized
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import Encode
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec

_TOKENS_PER_BYTE = 3
"""The most that a byte of text can become: one token per byte, after a normalization (NFC) that can
make three bytes of one."""


class Lengths:
    """Counts with the tokenizer of the training; `forget` between blocks of questions."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.renderer = config.renderer
        self._counted: dict[str, int] = {}

    def forget(self) -> None:
        """Drop what was counted: the next questions have other texts."""
        self._counted.clear()

    def measure(self, text: str, token_ids: Sequence[int]) -> tuple[int, bool]:
        """(tokens of a trace and its boundary as a training has them, whether they are these)."""
        ids = self._encode(text + self.renderer.boundary)
        is_same = ids == list(token_ids)
        return len(ids), is_same

    def of_trace(self, text: str, known: int | None) -> int:
        """Tokens of a trace with its boundary."""
        if known is not None:
            return known
        return self._count(text + self.renderer.boundary)

    def of_rest(self, target: str, solution: str, known: int | None) -> int:
        """Tokens of what follows the boundary in a response, end of turn included.

        Args:
            known: of the reasoner's response with this solution; the posterior's has none.
        """
        if target != REASONER:
            closing = self.renderer.texts(self.config.posterior_prompt).close
            _, rest = self.renderer.split_target(closing)
            return self._count(rest)
        if known is not None:
            return known
        parts = self.renderer.answer_parts(solution)
        return self._count(*parts)

    def fits(
        self, target: str, question: Mapping[str, Any], solution: str, num_tokens: int
    ) -> bool:
        """Whether prompt and response fit cutoff_len.

        Args:
            solution: the hint of a posterior's prompt.
            num_tokens: of the response.
        """
        room = self.config.cutoff_len - num_tokens
        if target == REASONER:
            known = question["prompt_tokens"]
            if known is not None:
                return known <= room
            parts = self.renderer.prompt_parts(REASONER, question["question"])
        else:
            shows_trace = self.renderer.family.hint == "trace"
            hint = question["trace"] if shows_trace else solution
            kind = self.config.posterior_prompt
            parts = self.renderer.prompt_parts(kind, question["question"], hint)
        # The prompt is tokenized only where its bytes leave a doubt (see the example above).
        num_bytes = len("".join(parts).encode())
        if num_bytes * _TOKENS_PER_BYTE <= room:
            return True
        return self._count(*parts) <= room

    def _count(self, *texts: str) -> int:
        """Tokens of texts that become ids apart."""
        total = 0
        for text in texts:
            if not text:
                continue  # an empty part has no ids
            if text not in self._counted:
                # Kept, because the next output of a question has most of its texts again.
                self._counted[text] = len(self._encode(text))
            total += self._counted[text]
        return total

    @cached_property
    def _encode(self) -> Encode:
        model = self.config.base or self.config.model_folder("reasoner")
        encode, _ = text_codec(load_tokenizer(str(model)))
        return encode
