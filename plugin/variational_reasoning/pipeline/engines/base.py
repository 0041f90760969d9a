"""What the stages need of a text generator, and what both engines share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from variational_reasoning.method.prompts import Decode, Encode
from variational_reasoning.packages import need


class Span(NamedTuple):
    """An abstract trace, with which a sample begins: symbols, then the end (arXiv 2604.22709).

    Only symbols and the end can be drawn, from their renormalized distribution. With min_symbols 1
    and max_symbols 3:

        symbols so far    0          1, 2                  3
        can be drawn      symbols    symbols or the end    the end

    so every sample holds the end once, after the last symbol. Then follow separator_ids, which are
    not drawn, unless the sample ends with the trace.
    """

    symbol_ids: tuple[int, ...]
    end_id: int
    min_symbols: int
    max_symbols: int
    temperature: float
    separator_ids: tuple[int, ...] = ()

    @property
    def least_room(self) -> int:
        """Tokens of the longest trace, its end, the separator, and one of an answer."""
        return self.max_symbols + 1 + len(self.separator_ids) + 1

    def allowed_ids(self, num_symbols: int) -> tuple[int, ...]:
        """What can follow after so many symbols."""
        if num_symbols >= self.max_symbols:
            return (self.end_id,)
        if num_symbols < self.min_symbols:
            return self.symbol_ids
        return (*self.symbol_ids, self.end_id)


class Request(NamedTuple):
    """One sample to draw. `key` is the caller's and only appears in errors.

    span: the sample begins with an abstract trace. Unless the end of the trace is among the stops,
    it goes on with the separator, and then without a constraint.
    """

    key: tuple
    prompt_ids: Sequence[int]
    max_new_tokens: int
    seed: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    span: Span | None = None


class Completion(NamedTuple):
    """What was sampled, the stop string or end-of-text token included; or why the engine could
    not.
    """

    token_ids: list[int]
    finish_reason: Literal["stop", "length", "error"]
    error: str = ""


class Engine(ABC):
    """A loaded model that draws samples."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._prompt_tokens = 0
        self._computed = 0
        """Of the prompt tokens, those that were not shared."""
        self._sampled = 0

    @abstractmethod
    def stream(
        self, groups: Iterable[Sequence[Request]], progress: Callable[[int], Any] | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Draw the samples of group after group.

        Args:
            groups: taken one by one, as the engine has room: the next may begin while the one
                before it ends.
            progress: called with the number of requests that have just ended.

        Yields: (number of the group, its results in the order of its requests) when it is done, not
        always in order.

        Raises: ValueError for an empty prompt or no room for a new token, with the request's key.
        """

    @abstractmethod
    def execution(self) -> dict[str, Any]:
        """How the samples are computed: what a manifest should record of device and kernels."""

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int], Any] | None = None
    ) -> list[Completion]:
        """The samples of one group, in the order of its requests."""
        [(_, results)] = self.stream([requests], progress)
        return results

    def statistics(self) -> dict[str, int]:
        """Counts since the engine was made; prompt_tokens_shared were not computed again because
        another sample's were.
        """
        return {
            "prompt_tokens_computed": self._computed,
            "prompt_tokens_shared": self._prompt_tokens - self._computed,
            "sampled_tokens": self._sampled,
        }

    def close(self) -> None:  # noqa: B027
        """End what the engine has started."""


def check_requests(requests: Sequence[Request]) -> None:
    """Raises: ValueError for a request that asks for nothing, or continues nothing, with its key;
    and for abstract traces that are all drawn with one seed.
    """
    _refuse_one_seed(requests)
    for request in requests:
        if not request.prompt_ids or request.max_new_tokens < 1:
            raise ValueError(
                f"request {request.key}: {len(request.prompt_ids)} prompt tokens and room for "
                f"{request.max_new_tokens} new ones; both must be at least 1"
            )
        if request.span is not None and request.max_new_tokens <= request.span.max_symbols:
            raise ValueError(
                f"request {request.key}: room for {request.max_new_tokens} new tokens, but its "
                f"trace may have {request.span.max_symbols} symbols and its end"
            )


def _refuse_one_seed(requests: Sequence[Request]) -> None:
    """One seed gives all traces the same noise, which is enough to make them alike.

    Raises: ValueError.
    """
    seeds = [each.seed for each in requests if each.span and each.span.temperature > 0]
    if len(seeds) > 1 and len(set(seeds)) == 1:
        raise ValueError(
            f"{len(seeds)} requests for abstract traces have one seed, {seeds[0]}; their "
            "traces would be drawn with the same noise, and be alike. Give every request a seed of "
            "its own (pipeline.sample.sample_seed)"
        )


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of a local model folder; never from the hub."""
    transformers = need("transformers", "train")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model has positions for, from its config.json; None when that does not say.

    A factor by which the rotary embedding is stretched counts in full, also where a family has it
    in the number already: this is a limit on what is surely wrong.
    """
    config = config.get("text_config") or config
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not positions:
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    factor = max(rope.get("factor") or 1, 1)
    return int(positions * factor)


def text_codec(tokenizer: Any) -> tuple[Encode, Decode]:
    """(encode, decode) as method.prompts wants them: nothing is added, nothing is skipped, nothing
    is cleaned up.
    """

    def encode(text: str) -> list[int]:
        try:
            return tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:
            raise ValueError(_unreadable(tokenizer, text, error)) from error

    def decode(token_ids: Sequence[int]) -> str:
        return tokenizer.decode(
            list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    return encode, decode


def _unreadable(tokenizer: Any, text: str, error: Exception) -> str:
    """Why a tokenizer without a token for the unknown cannot read a text."""
    known = set().union(*tokenizer.get_vocab())
    unknown = sorted(set(text) - known)
    if not unknown:
        return f"the tokenizer cannot read the text {text[:80]!r}: {error}"
    place = text.index(unknown[0])
    around = text[max(place - 40, 0) : place + 40]
    listed = ", ".join(map(repr, unknown[:5]))
    return (
        f"the tokenizer does not know {listed}, such as in {around!r}; "
        "remove it from the text, or use a model whose tokenizer reads any text"
    )


def end_tokens(generation_config: Any, tokenizer: Any) -> set[int]:
    """Ids that end a text: those of the model's generation configuration and the tokenizer's."""
    ends = getattr(generation_config, "eos_token_id", None)
    if not isinstance(ends, list):
        ends = [ends]
    all_ends = {*ends, tokenizer.eos_token_id}
    return all_ends - {None}
