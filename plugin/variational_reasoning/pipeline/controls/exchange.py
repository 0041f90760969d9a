"""Other traces for the same questions, as ids.

    own        a c d b e     the trace that the model wrote in its evaluation
    again      a c d b e     the same, answered with another seed: how much chance alone changes
    donor      b b a e d     the trace of another question
    random     c e e a d     as many tokens, each at random among those of all traces
    shuffled   d e a c b     its own tokens in another order
    replaced   a c a b e     one token in the middle is another; what follows it stays
    continued  a c a ...     the same token is another, and the model writes what follows it
    none                     nothing between the opening and the closing tag
    chain      a c d b a     the trace that the verbal chain gives: an upper bound

An exchange is a function of the seed, the question and the sample. What is exchanged are the tokens
before the closing tag. A tokenizer may merge the end of a trace with it, and that token stays:

    text     It is 7.<|end_of_thought|>
    tokens   It| is| 7|.<|end|_of_thought|>       body: It| is| 7      closing: .<|end
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from variational_reasoning.method.prompts import Decode, Encode
from variational_reasoning.method.steps import split_steps

KINDS = (
    "own",
    "again",
    "donor",
    "random",
    "shuffled",
    "replaced",
    "continued",
    "none",
    "chain",
)

Key = tuple[str, int]
"""question_id and answer_id of a sample."""


class Trace(NamedTuple):
    """The ids of a trace through its boundary. closing is empty where the model goes on with it."""

    body: list[int]
    closing: list[int]

    @property
    def token_ids(self) -> list[int]:
        """All of them."""
        return [*self.body, *self.closing]


Places = Callable[[Sequence[int]], Sequence[int]]
"""From a trace to the indices of those of its tokens that can be replaced."""


class Exchange:
    """Traces in place of those that a model wrote."""

    def __init__(
        self,
        own: Mapping[Key, Trace],
        seed: int,
        boundary: Sequence[int],
        chains: Mapping[str, Trace] | None = None,
        places: Places | None = None,
    ) -> None:
        """
        Args:
            own: the traces of the model, of two questions at least.
            boundary: what closes an empty trace.
            chains: question_id to the trace that its verbal chain gives, where there is one.
            places: all tokens by default.
        """
        self.own = own
        self.seed = seed
        self.chains = chains or {}
        self.boundary = list(boundary)
        self.places = places or all_places
        pieces: set[int] = set()
        for trace in own.values():
            pieces.update(trace.body)
        self.pieces = sorted(pieces)

    def kinds_of(self, key: Key) -> list[str]:
        """The kinds that there are for a sample, in the order of KINDS."""
        absent = set()
        if key[0] not in self.chains:
            absent.add("chain")
        if self._middle(key) is None:
            absent.add("continued")
        return [kind for kind in KINDS if kind not in absent]

    def trace(self, kind: str, key: Key) -> Trace:
        """The trace of one of `kinds_of`; of `continued` only what is given."""
        question_id, answer_id = key
        if kind == "none":
            return Trace([], self.boundary)
        if kind == "chain":
            return self.chains[question_id]
        if kind == "donor":
            donor = self._donors[key]
            return self.own[donor]
        own = self.own[key]
        body = list(own.body)
        rng = random.Random(f"controls {self.seed} {kind} {question_id} {answer_id}")
        if kind == "random" and body:
            body = rng.choices(self.pieces, k=len(body))
        if kind == "shuffled":
            rng.shuffle(body)
        place = self._middle(key)
        if kind in ("replaced", "continued") and place is not None:
            body[place] = self._other_piece(key, place)
            if kind == "continued":
                return Trace(body[: place + 1], [])
        return Trace(body, own.closing)

    @cached_property
    def _donors(self) -> dict[Key, Key]:
        """Each sample's donor: a sample of the next question in a random circle.

        Of the circle a, b, c with 2, 1 and 2 samples: a0 <- b0, a1 <- b0, b0 <- c0, c0 <- a0,
        c1 <- a1.
        """
        samples: dict[str, list[Key]] = {}
        for key in sorted(self.own):
            question_id, _ = key
            samples.setdefault(question_id, []).append(key)
        circle = sorted(samples)
        rng = random.Random(f"controls {self.seed} donor")
        rng.shuffle(circle)
        next_ones = circle[1:] + circle[:1]
        donors = {}
        for question_id, giver in zip(circle, next_ones, strict=True):
            given = samples[giver]
            for number, key in enumerate(samples[question_id]):
                # A giver with fewer samples gives them again.
                donors[key] = given[number % len(given)]
        return donors

    def _middle(self, key: Key) -> int | None:
        """The index of the token that is replaced; None where there is no other one."""
        places = self.places(self.own[key].body)
        if not places or len(self.pieces) < 2:
            return None
        middle = len(places) // 2
        return places[middle]

    def _other_piece(self, key: Key, place: int) -> int:
        """Another token, of those that other traces have at this place if there is one."""
        question_id, answer_id = key
        # Of `replaced` for both kinds, so that `continued` begins as `replaced` does.
        rng = random.Random(f"controls {self.seed} replaced {question_id} {answer_id}")
        body = self.own[key].body
        piece = body[place]
        middle = len(self.places(body)) // 2
        others = _without(self._seen[middle], piece)
        if not others:
            others = _without(self.pieces, piece)
        return rng.choice(others)

    @cached_property
    def _seen(self) -> dict[int, list[int]]:
        """The tokens of all traces at the places that some trace has in its middle."""
        bodies = [trace.body for trace in self.own.values()]
        places = [self.places(body) for body in bodies]
        # Of traces with 5, 4 and 2 places: the places 2 and 1.
        middles = {len(found) // 2 for found in places}
        seen = {}
        for middle in middles:
            pieces = set()
            for body, found in zip(bodies, places, strict=True):
                if middle < len(found):
                    index = found[middle]
                    pieces.add(body[index])
            seen[middle] = sorted(pieces)
        return seen


def _without(pieces: Sequence[int], piece: int) -> list[int]:
    """The pieces but for one."""
    return [each for each in pieces if each != piece]


def closed_trace(ids: Sequence[int], boundary: str, decode: Decode) -> Trace | None:
    """The trace of ids through the boundary; None where they do not end with it."""
    text = decode(ids)
    if not text.endswith(boundary):
        return None
    trace = text.removesuffix(boundary)
    # From the end: the boundary is a few tokens.
    cut = len(ids)
    while cut > 0:
        head = decode(ids[:cut])
        if len(head) <= len(trace) and trace.startswith(head):
            break
        cut -= 1
    body = list(ids[:cut])
    closing = list(ids[cut:])
    return Trace(body, closing)


def chain_of(text: str, boundary: str, encode: Encode, decode: Decode) -> Trace:
    """The trace with this text, with the ids that a training has for it."""
    ids = encode(text + boundary)
    found = closed_trace(ids, boundary, decode)
    assert found is not None  # the text ends with it
    return found


def all_places(trace: Sequence[int]) -> Sequence[int]:
    """Every token."""
    return range(len(trace))


def value_places(pattern: str, decode: Decode) -> Places:
    """The last tokens of the steps' values, for verbal traces of a task that knows these.

    Of "+5=1*4=4" with the tokens "+", "5", "=1", "*", "4", "=4" and a pattern whose group `value`
    is the digit after "=": 2 and 5. A trace without such a step, or whose tokens are not whole
    characters, has all places.
    """

    def places(trace: Sequence[int]) -> Sequence[int]:
        text = decode(trace)
        lengths = [len(decode([piece])) for piece in trace]
        if sum(lengths) != len(text):
            return all_places(trace)
        # owner[i] is the token that character i belongs to: tokens "+5", "=" give [0, 0, 1].
        owner: list[int] = []
        for index, length in enumerate(lengths):
            owner += [index] * length
        found = []
        for step in split_steps(text, pattern):
            if step.value:
                value_start = step.start + step.text.rindex(step.value)
                last = value_start + len(step.value) - 1
                found.append(owner[last])
        return found or all_places(trace)

    return places


def has_values(pattern: str) -> bool:
    """Whether steps.pattern says what a step found out."""
    return "value" in re.compile(pattern).groupindex
