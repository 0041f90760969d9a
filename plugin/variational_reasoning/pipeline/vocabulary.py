"""A model with the symbols and delimiters of abstract traces (arXiv 2604.22709, section 3.1).

Once, before the first training: each name becomes one plain added token. Its rows of the input and
of the output embedding are initialized here, and nowhere else: the host's token keys
(`add_tokens`, `resize_vocab`) would initialize trained rows again in a later round.

A table that is larger than the vocabulary, as Qwen3's (151,669 tokens in 151,936 rows), is used in
place; a table that is too small grows to the next multiple of 64 rows. Tied tables stay tied.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from variational_reasoning.faults import list_names
from variational_reasoning.files import read_json_object
from variational_reasoning.method.abstract import (
    BEGIN,
    END,
    NUM_SYMBOLS,
    TraceVocabulary,
    find_vocabulary,
    symbol_names,
)
from variational_reasoning.model_record import read_record, write_record
from variational_reasoning.packages import need
from variational_reasoning.pipeline.options import above

if TYPE_CHECKING:
    import torch

ROWS_MULTIPLE = 64
"""A table that grows has a multiple of so many rows: matrix products on GPUs are faster then."""


@dataclass(frozen=True)
class ExtendOptions:
    """The words of scripts/extend_vocabulary.py.

    init: `mean_noise`, the mean row plus noise; `zeros`; or `steps`, the mean row of the tokens
    that a symbol's cluster of steps is made of, from the file `clusters`.
    noise: standard deviation of the noise, in the units of the embedding.
    untie: give the head a table of its own, a copy of the embedding, where the base ties the two.
    An adapter that trains whole copies of both needs it; see docs/abstract.md.
    clusters: a JSON file, {"clusters": [{"<token id>": count, ...}, ...]}, one per symbol.
    """

    base: str = ""
    out: str = ""
    symbols: int = above(0, default=NUM_SYMBOLS)
    init: Literal["mean_noise", "zeros", "steps"] = "mean_noise"
    noise: float = above(0, default=1e-3)
    seed: int = above(-1, default=0)
    untie: bool = False
    clusters: str | None = None

    def faults(self) -> list[str]:
        """What does not fit apart from the types."""
        faults = []
        if self.base and not (Path(self.base) / "config.json").is_file():
            faults.append(f"base={self.base!r} is not the folder of a model (no config.json)")
        if self.out and Path(self.out).exists():
            faults.append(f"out={self.out!r} exists; choose a new folder, or remove it")
        needs_clusters = self.init == "steps"
        has_clusters = self.clusters is not None
        if needs_clusters != has_clusters:
            faults.append("init=steps needs clusters=FILE, and no other init takes one")
        elif self.clusters is not None and not Path(self.clusters).is_file():
            faults.append(f"clusters={self.clusters!r} does not exist")
        return faults


def vocabulary_of(tokenizer: Any, source: str) -> TraceVocabulary | None:
    """The trace vocabulary of a tokenizer of transformers, None where it has none.

    Raises: ValueError for one that is not whole (`find_vocabulary`).
    """
    known = tokenizer.get_vocab()

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    return find_vocabulary(known.get, encode, source)


def extend(options: ExtendOptions) -> TraceVocabulary:
    """Write `options.out`: the model of `options.base` with the vocabulary of abstract traces.

    Its record is the base's, and how the vocabulary was made. The folder appears whole or not at
    all.

    Raises: ValueError for a base that has some of these tokens already, whose table is smaller than
    its vocabulary, or whose tokenizer splits a new token; and for clusters that do not fit.
    """
    transformers = need("transformers", "train")
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.base, local_files_only=True)
    names = (BEGIN, END, *symbol_names(options.symbols))
    _check_absent(tokenizer, names, options.base)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.base, dtype="auto", local_files_only=True
    )
    num_before = len(tokenizer)
    num_rows = model.get_input_embeddings().weight.shape[0]
    if num_rows < num_before:
        raise ValueError(
            f"{options.base}: its embedding has {num_rows} rows, fewer than its tokenizer's "
            f"{num_before} tokens; its tokenizer does not belong to it. Put the tokenizer that it "
            "was trained with into its folder"
        )
    clusters = _read_clusters(options, num_before)
    tokens = [transformers.AddedToken(name, special=False, normalized=False) for name in names]
    tokenizer.add_tokens(tokens)
    vocabulary = vocabulary_of(tokenizer, options.out)
    assert vocabulary is not None  # they have just been added
    if len(tokenizer) > num_rows:
        model.resize_token_embeddings(
            len(tokenizer), pad_to_multiple_of=ROWS_MULTIPLE, mean_resizing=False
        )
    if options.untie:
        _untie(model)
    _initialize(model, vocabulary, num_before, clusters, options)
    _save(model, tokenizer, options, vocabulary)
    return vocabulary


def _untie(model: Any) -> None:
    """Give the head a table of its own, which begins as a copy of the embedding."""
    import torch

    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    if head.weight is table:
        head.weight = torch.nn.Parameter(table.detach().clone())
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False


def _check_absent(tokenizer: Any, names: Sequence[str], base: str) -> None:
    """Raises: ValueError for a base that has one of these tokens."""
    known = tokenizer.get_vocab()
    present = [name for name in names if name in known]
    if present:
        raise ValueError(
            f"{base} already has {list_names(present, 3)}; extending it again would initialize "
            "rows that may be trained. Extend the model that it came from, or use it as it is"
        )


def _read_clusters(options: ExtendOptions, vocab_size: int) -> list[dict[int, float]] | None:
    """Per symbol the share of each token of its cluster's steps; None without a file."""
    if options.clusters is None:
        return None
    content = read_json_object(options.clusters, "write it again with scripts/cluster_steps.py")
    counts = content.get("clusters")
    if not isinstance(counts, list) or len(counts) != options.symbols:
        found = len(counts) if isinstance(counts, list) else "no list of"
        raise ValueError(
            f"{options.clusters}: holds {found} clusters, not one for each of "
            f"{options.symbols} symbols"
        )
    shares = []
    for number, entry in enumerate(counts):
        where = f"{options.clusters}: cluster {number}"
        shares.append(_shares(entry, where, vocab_size))
    return shares


def _shares(entry: Any, where: str, vocab_size: int) -> dict[int, float]:
    """{"5": 3, "9": 1} becomes {5: 0.75, 9: 0.25}."""
    if not isinstance(entry, Mapping) or not entry:
        raise ValueError(f"{where} is {json.dumps(entry)[:60]}; needs token ids with their counts")
    counts = {}
    for text, count in entry.items():
        is_id = text.isdecimal() and int(text) < vocab_size
        is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if not is_id or not is_count:
            raise ValueError(
                f"{where}: {text!r}: {count!r} is not a token id below {vocab_size} with a count "
                "above 0"
            )
        counts[int(text)] = count
    total = sum(counts.values())
    return {token: count / total for token, count in counts.items()}


def _initialize(
    model: Any,
    vocabulary: TraceVocabulary,
    num_before: int,
    clusters: list[dict[int, float]] | None,
    options: ExtendOptions,
) -> None:
    """Set the new rows of the input embedding and, where it is another table, of the output's."""
    import torch

    tables = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None and output.weight is not tables[0]:
        tables.append(output.weight)
    generator = torch.Generator().manual_seed(options.seed)
    ids = [vocabulary.begin_id, vocabulary.end_id, *vocabulary.symbol_ids]
    with torch.no_grad():
        for table in tables:
            old = table[:num_before].double()
            rows = _new_rows(old, len(ids), clusters, options, generator)
            table[ids] = rows.to(table.dtype)


def _new_rows(
    old: "torch.Tensor",
    count: int,
    clusters: list[dict[int, float]] | None,
    options: ExtendOptions,
    generator: "torch.Generator",
) -> "torch.Tensor":
    """The rows of begin, end and the symbols, float64 [count, width].

    With `steps`, symbols whose clusters hold the same tokens start alike but for the noise.
    """
    import torch

    if options.init == "zeros":
        return old.new_zeros(count, old.shape[1])
    rows = old.mean(dim=0).repeat(count, 1)
    for place, shares in enumerate(clusters or (), start=2):  # 0 and 1 are the delimiters
        weights = old.new_tensor(list(shares.values()))
        rows[place] = weights @ old[list(shares)]
    noise = torch.randn(count, old.shape[1], generator=generator, dtype=old.dtype)
    return rows + options.noise * noise


def _save(model: Any, tokenizer: Any, options: ExtendOptions, vocabulary: TraceVocabulary) -> None:
    """Write the folder under a temporary name, and give it its own when it is whole."""
    out = Path(options.out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = read_record(options.base) or {}
        record["trace_vocabulary"] = {
            "base": options.base,
            "symbols": options.symbols,
            "begin_id": vocabulary.begin_id,
            "end_id": vocabulary.end_id,
            "symbol_ids": [vocabulary.symbol_ids[0], vocabulary.symbol_ids[-1]],
            "init": options.init,
            "untie": options.untie,
            "noise": options.noise,
            "seed": options.seed,
        }
        write_record(temporary, record)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
