"""The vocabulary of abstract traces: M reserved symbols and two delimiters (arXiv 2604.22709).

A model writes a short sequence of symbols in place of a verbal chain of thought, then the answer:

    prompt      ... assistant turn <beginabstract>
    response    <TOKEN_Q><TOKEN_B><TOKEN_AC><endabstract>\\n{solution}

Each symbol and each delimiter is one token. They are plain added tokens, not special ones, so that
no decoding drops them. scripts/extend_vocabulary.py adds them to a model; a model that has them is
known by their names alone, so that published checkpoints are recognized too.
"""

import functools
import itertools
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

BEGIN = "<beginabstract>"
END = "<endabstract>"
"""The delimiters, by the paper's names."""

SYMBOL_OPENING = "<TOKEN_"
"""What begins the name of a symbol; no text of a data set may hold it."""

_SYMBOLS = re.compile(r"(?:<TOKEN_[A-Z]+>)*")

NUM_SYMBOLS = 64
"""M of the paper's main runs."""


@functools.cache
def symbol_names(count: int) -> tuple[str, ...]:
    """The first `count` symbols: <TOKEN_A> to <TOKEN_Z>, then <TOKEN_AA>, <TOKEN_AB> and so on.

    The 26th is <TOKEN_Z>, the 27th <TOKEN_AA>, the 64th <TOKEN_BL>.
    """
    return tuple(itertools.islice(_all_symbol_names(), count))


def _all_symbol_names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_uppercase, repeat=length):
            yield f"<TOKEN_{''.join(letters)}>"


def symbols_text(symbols: Sequence[int], count: int) -> str:
    """The text of a trace of the first `count` symbols; of 2 and 0, "<TOKEN_C><TOKEN_A>"."""
    names = symbol_names(count)
    return "".join(names[symbol] for symbol in symbols)


def has_only_symbols(trace: str) -> bool:
    """Whether a trace's text is nothing but symbols; so is an empty one."""
    return _SYMBOLS.fullmatch(trace) is not None


@dataclass(frozen=True)
class TraceVocabulary:
    """The ids of a model's delimiters and symbols.

    symbol_ids: in the order of `symbol_names`.
    """

    begin_id: int
    end_id: int
    symbol_ids: tuple[int, ...]

    @property
    def trace_ids(self) -> tuple[int, ...]:
        """What may be written between the delimiters: a symbol, or the end."""
        return (*self.symbol_ids, self.end_id)


def find_vocabulary(
    token_id: Callable[[str], int | None], encode: Callable[[str], list[int]], source: str
) -> TraceVocabulary | None:
    """The trace vocabulary of a tokenizer, or None where it has none of it.

    Args:
        token_id: the id of a whole token, None for an unknown one.
        encode: text to ids, nothing added.
        source: names the model in the error.

    Raises: ValueError that lists every token that is missing or that the tokenizer splits.
    """
    symbols = list(
        itertools.takewhile(lambda name: token_id(name) is not None, _all_symbol_names())
    )
    names = [BEGIN, END, *symbols]
    ids = {name: token_id(name) for name in names}
    if not symbols and ids[BEGIN] is None and ids[END] is None:
        return None
    faults = [f"{name} is missing" for name in (BEGIN, END) if ids[name] is None]
    if not symbols:
        faults.append(f"{symbol_names(1)[0]} is missing, so it has no symbols")
    for name, number in ids.items():
        found = encode(name)
        if number is not None and found != [number]:
            faults.append(f"{name} is the token {number}, but its text becomes {found}")
    if faults:
        listed = "; ".join(faults)
        raise ValueError(
            f"{source}: its vocabulary of abstract traces is not whole: {listed}. Extend a model "
            "that has none of it with scripts/extend_vocabulary.py"
        )
    begin, end, *rest = (ids[name] for name in names)
    return TraceVocabulary(begin, end, tuple(rest))  # type: ignore[arg-type]
