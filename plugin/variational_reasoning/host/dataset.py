"""Our data formats inside the host's data loading, and what lets weights and ids reach the trainer.

The host maps every data set twice: to texts (`align_dataset`) and to ids (a processor). It drops
all columns that it does not know. Ours keep lists per example in addition to the host's
columns, with one entry per data row in it (several when packed):

    row_weights   float, the row's weight
    row_targets   int, how many of the example's targets are the row's, in order
    row_names     text, data set, row number and ids, for messages
    row_segments  int, four per row: its tokens of x, of the verbal chain, of the trace with its
                  delimiters, and of the answer; they add up to the row's length
    row_cuts      int, tokens that the row's verbal chain lost to `overlong: cut_chain`

A pack of a row with two targets (weight 0.5) and a row with three (weight 2):

    labels        -100 -100 7 8 -100 5 6 9 -100       row_weights [0.5, 2.0]   row_targets [2, 3]

A weight is tied to its targets by their order alone, so padding, trimming and packing cannot
separate them.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, IterableDataset, Value
from llamafactory.data.processor.processor_utils import greedy_knapsack
from llamafactory.data.processor.supervised import (
    MAX_SU_SEQ_IDX,
    PackingParams,
    SupervisedDatasetProcessor,
)
from llamafactory.extras import logging

from variational_reasoning import __version__
from variational_reasoning.host.formats import (
    CUT_CHAIN,
    ID_COLUMNS,
    RowRenderer,
    map_columns,
    read_dataset_info,
)
from variational_reasoning.method.losses import IGNORE_INDEX, auto_constant_loss_normalizer
from variational_reasoning.training_identity import file_identity

LOGGER = "llamafactory.variational_reasoning"
"""A child of the host's logger, so that our lines appear among its own."""

logger = logging.get_logger(LOGGER)

ROW_COLUMNS = ("row_weights", "row_targets", "row_names")
SEGMENTS = "row_segments"
CUTS = "row_cuts"
MEDIA_COLUMNS = ("images", "videos", "audios")

CACHE_KEY = f"{__version__}, layout 4"
"""Part of the key under which `datasets` caches our rows; raise the number when rows change."""

PADDING_MULTIPLE = 8
"""The host's collator pads ids and masks to a multiple of this, but not positions."""

_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
_OUR_FEATURES = {
    "_weight": Value("float64"),
    "_name": Value("string"),
    **{f"_{name}": Value("string") for name in ID_COLUMNS},
}
_ALIGNED_FEATURES = Features(
    # The types that the host infers itself, so that data sets of both kinds can be concatenated.
    {
        "_prompt": _MESSAGES,
        "_response": _MESSAGES,
        "_system": Value("string"),
        "_tools": Value("string"),
        **{f"_{name}": Value("null") for name in MEDIA_COLUMNS},
        **_OUR_FEATURES,
    }
)

_INTS = pa.list_(pa.int32())
_BOUNDARIES = pa.list_(pa.int64())
_ROW_TYPES = {
    "input_ids": _INTS,
    "attention_mask": pa.list_(pa.int8()),
    "labels": _INTS,
    "row_weights": pa.list_(pa.float64()),
    "row_targets": pa.list_(pa.int64()),
    "row_names": pa.list_(pa.string()),
    SEGMENTS: pa.list_(pa.int64()),
    CUTS: pa.list_(pa.int64()),
    **{name: pa.list_(pa.string()) for name in ID_COLUMNS},
}
_PACK_TYPES = _ROW_TYPES | {
    "attention_mask": _INTS,  # the number of a pack's row, which may exceed 127
    "position_ids": _INTS,
    "packing_params": pa.struct(
        {
            "sequence_boundaries": _BOUNDARIES,
            **{f"{name}_subseq_ids": _BOUNDARIES for name in ("image", "video", "audio")},
            "right_padding_length": pa.int64(),
        }
    ),
}
"""Types are fixed, not inferred: a worker whose rows have no ids would infer another type than the
others, and a batch without a row none at all (huggingface/datasets#8046, #6188)."""


def longest_row(data_args: Any) -> int:
    """The YAML's `cutoff_len`, which the host lowers by one when it packs."""
    return data_args.cutoff_len + 1 if data_args.packing else data_args.cutoff_len


def align(
    dataset: Dataset | IterableDataset, dataset_attr: Any, data_args: Any, training_args: Any
) -> Dataset | IterableDataset:
    """Rows of one of our data sets as texts in the host's aligned columns; the same for streams.

    Raises: ValueError for an empty data set, missing columns, and rows that do not fit (with data
        set, row and column). Of a stream, a row that does not fit is found when it is read.
    """
    source = str(dataset_attr)
    config = data_args.variational
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"data set {source!r} has no rows")
    columns, faults = map_columns(
        source,
        dataset_attr.formatting,
        dataset_attr.variational_columns,
        list(first),
    )
    if faults:
        raise ValueError("\n".join(faults))
    renderer = RowRenderer(
        source,
        dataset_attr.formatting,
        columns,
        config.prompt_kind,
        config.renderer,
        numbers=_sampled_numbers(dataset),
        part=_part(dataset, dataset_attr.split),
    )
    # Of a data set that is not a stream, `refuse_ignored_weights` sees all weights together.
    must_be_one = data_args.streaming and config.constant_loss_normalizer is None
    align_row = RowAligner(renderer, must_be_one)
    options = {
        "with_indices": True,
        "remove_columns": list(first),
        "features": _ALIGNED_FEATURES,
    }
    if not data_args.streaming:
        is_writer = training_args.local_process_index == 0
        options |= {
            "num_proc": data_args.preprocessing_num_workers,
            "load_from_cache_file": not (data_args.overwrite_cache and is_writer),
            "desc": f"Rendering {source}",
        }
    return dataset.map(align_row, **options)


@dataclass
class RowAligner:
    """Maps a row of one of our data sets to the host's aligned columns and ours.

    Its fields are the key of the cached result.
    """

    renderer: RowRenderer
    must_be_one: bool
    cache_key: str = CACHE_KEY

    def __call__(self, example: dict[str, Any], index: int) -> dict[str, Any]:
        """The aligned row. Raises: ValueError for rows that do not fit, with the row's name."""
        row = self.renderer(example, index)
        words = [f"{self.renderer.source} {self.renderer.place(index)}"]
        for column in ID_COLUMNS:
            if row[column] is not None:
                words.append(f"{column} {row[column]}")
        name = ", ".join(words)
        if self.must_be_one and row["weight"] != 1:
            raise ValueError(
                f"{name}: has the weight {row['weight']:g}, which the host's own loss would "
                "ignore; set `constant_loss_normalizer` in the YAML to a number"
            )
        aligned: dict[str, Any] = {
            "_prompt": [{"role": "user", "content": text} for text in row["prompt"]],
            "_response": [{"role": "assistant", "content": row["response"]}],
            "_system": "",
            "_tools": "",
        }
        for column in MEDIA_COLUMNS:
            aligned[f"_{column}"] = None
        aligned["_weight"] = row["weight"]
        aligned["_name"] = name
        for column in ID_COLUMNS:
            aligned[f"_{column}"] = row[column]
        return aligned


def with_our_columns(aligned: IterableDataset) -> IterableDataset:
    """A stream of the host's aligned rows with our columns, all of them empty.

    Streams have no schema: whatever maps a mixture takes its columns from the first row, so all
    rows need the same ones. (`concatenate_datasets` adds them where there is a schema.)
    """
    return aligned.map(_add_our_columns)


def _add_our_columns(example: dict[str, Any]) -> dict[str, Any]:
    return example | dict.fromkeys(_OUR_FEATURES)


def _sampled_numbers(dataset: Dataset | IterableDataset) -> Sequence[int] | None:
    """Row in the file by row in the data set, for a data set that the host sampled (num_samples).

    The host draws 3 of 5 rows: rows 0, 1, 2 here may be rows 4, 0, 3 of the file.
    """
    indices = getattr(dataset, "_indices", None)
    if indices is None:
        return None
    return indices.column(0).to_numpy()


def _part(dataset: Dataset | IterableDataset, split: str | None) -> str:
    """What the numbers of rows count within, where that is not the whole file."""
    if isinstance(dataset, IterableDataset) and dataset.num_shards > 1:
        return " of a shard of the stream"  # each worker of a data loader counts for itself
    return f" of {split}" if "[" in str(split) else ""


@dataclass
class Row:
    """A tokenized data row.

    input_ids, labels: int32 [length]; a label is a target unless it is IGNORE_INDEX.
    segments: tokens of x, chain, trace and answer (module docstring). cut: tokens that the chain
    lost.
    index: which of the batch's examples it is. ids: by name, None where it has none.
    """

    index: int
    input_ids: np.ndarray
    labels: np.ndarray
    segments: list[int]
    cut: int
    weight: float
    name: str
    ids: dict[str, str | None]

    def columns(self) -> dict[str, Any]:
        """The columns that do not depend on packing."""
        is_target = self.labels != IGNORE_INDEX
        columns: dict[str, Any] = {
            "input_ids": self.input_ids,
            "labels": self.labels,
            "row_weights": [self.weight],
            "row_targets": [int(is_target.sum())],
            "row_names": [self.name],
            SEGMENTS: self.segments,
            CUTS: [self.cut],
        }
        for name, value in self.ids.items():
            columns[name] = [value]
        return columns


class Encoded(NamedTuple):
    """A row as ids: labels of the same length, segments, and tokens cut from its chain."""

    input_ids: list[int]
    labels: list[int]
    segments: list[int]
    cut: int


PromptIds = tuple[list[int], list[int], list[int]]
"""Ids of x, chain and opening (PromptParts)."""

TargetIds = tuple[list[int], list[int], list[int]]
"""Ids of trace, lead and answer (TargetParts)."""


@dataclass
class RowProcessor(SupervisedDatasetProcessor):
    """Tokenizes rows of both kinds, one per example.

    Rows of ours that are too long are dropped, cut or refused.
    """

    cache_key: str = CACHE_KEY

    def __post_init__(self) -> None:
        renderer = self.data_args.variational.renderer
        if renderer is None:
            return
        renderer.check_codec(self._encode, self.tokenizer.decode, self.tokenizer.name_or_path)
        chat_format = renderer.chat_format
        num_pieces = len(self._encode(chat_format.end_of_turn))
        if num_pieces > 1:
            logger.warning_rank0(
                "variational_reasoning: the tokenizer has no token for "
                f"{chat_format.end_of_turn!r}, the end of turn of chat_format {chat_format.name}. "
                f"It is trained as {num_pieces} ordinary tokens, and generation may not stop at "
                "it. Use the chat format of this model's family, or a .json file whose "
                "`end_of_turn` is one of its tokens"
            )

    def preprocess_dataset(self, examples: Mapping[str, Sequence[Any]]) -> Any:
        """The host's batched map function.

        A row of the host's formats is encoded by the host and has weight 1.

        Returns: an Arrow table for a batch of a map-style data set, lists for one of a stream.
        """
        rows = self._encode_rows(examples)
        columns = defaultdict(list)
        for row in rows:
            mask = np.ones(len(row.input_ids), np.int8)
            columns["attention_mask"].append(mask)
            for name, value in row.columns().items():
                columns[name].append(value)
        kept = [row.index for row in rows]
        return _batch(columns, _ROW_TYPES, examples, kept)

    def _encode_rows(self, examples: Mapping[str, Sequence[Any]]) -> list[Row]:
        nothing = [None] * len(examples["_prompt"])
        weights = examples.get("_weight", nothing)
        names = examples.get("_name", nothing)
        ids = {name: examples.get(f"_{name}", nothing) for name in ID_COLUMNS}
        rows = []
        for i, weight in enumerate(weights):
            if weight is not None:
                encoded = self._encode_ours(examples, i)
                name = names[i]
            else:
                encoded = self._encode_hosts(examples, i)
                weight = 1.0
                name = "row of the host's formats"
            if encoded is None:
                continue
            # Nothing predicts the first token; in a pack, the row before must not.
            encoded.labels[0] = IGNORE_INDEX
            row = Row(
                index=i,
                input_ids=np.array(encoded.input_ids, np.int32),
                labels=np.array(encoded.labels, np.int32),
                segments=encoded.segments,
                cut=encoded.cut,
                weight=weight,
                name=name,
                ids={column: values[i] for column, values in ids.items()},
            )
            rows.append(row)
        return rows

    def _encode_ours(self, examples: Mapping[str, Sequence[Any]], i: int) -> Encoded | None:
        """A row in our formats, or None for one that is dropped.

        Of an abstract row, with the ids of x, a chain of two tokens, begin, one symbol, end, the
        separator, an answer of one token and the end of turn:

            labels     -100 -100 -100 -100    z end    -100 y eos
            segments   1, 2, 3, 3
        """
        config = self.data_args.variational
        cutoff_len = longest_row(self.data_args)
        prompt_texts = [part["content"] for part in examples["_prompt"][i]]
        prompt = self._encode_prompt(prompt_texts)
        [message] = examples["_response"][i]
        target = self._encode_target(message["content"])
        cut = 0
        if config.overlong == CUT_CHAIN:
            length = sum(map(len, (*prompt, *target)))
            prompt, cut = _with_shorter_chain(prompt, excess=length - cutoff_len)
        prompt_ids = list(itertools.chain.from_iterable(prompt))
        target_ids = list(itertools.chain.from_iterable(target))
        room = cutoff_len - len(prompt_ids)
        if len(target_ids) > room:
            if config.overlong == "error":
                raise ValueError(
                    f"{examples['_name'][i]}: {len(prompt_ids)} + {len(target_ids)} tokens do not "
                    f"fit cutoff_len {cutoff_len}; raise cutoff_len, or set `overlong: drop` or "
                    "`overlong: truncate`"
                )
            if config.overlong in ("drop", CUT_CHAIN) or room <= 0:
                return None
            target_ids = target_ids[:room]  # `truncate`: the end of turn is lost, too
        ids = prompt_ids + target_ids
        return Encoded(
            input_ids=ids,
            labels=_labels(prompt_ids, target_ids, target),
            segments=_segments(len(ids), prompt, target),
            cut=cut,
        )

    def _encode_prompt(self, texts: Sequence[str]) -> PromptIds:
        """Ids of x, chain and opening (PromptParts); a text that comes whole is all x."""
        if len(texts) == 1:
            return self._encode_part(texts[0]), [], []
        x, chain, opening = map(self._encode_part, texts)
        return x, chain, opening

    def _encode_target(self, response: str) -> TargetIds:
        """Ids of trace, lead and answer (TargetParts)."""
        parts = self.data_args.variational.renderer.target_parts(response)
        trace, lead, answer = map(self._encode_part, parts)
        return trace, lead, answer

    def _encode_part(self, text: str) -> list[int]:
        """Ids of a part of a row, which may be empty: some tokenizers give ids for no text."""
        return self._encode(text) if text else []

    def _encode_hosts(self, examples: Mapping[str, Sequence[Any]], i: int) -> Encoded | None:
        prompt = examples["_prompt"][i]
        response = examples["_response"][i]
        # The host's own rule for an example that it cannot use.
        if len(prompt) % 2 != 1 or len(response) != 1:
            logger.warning_rank0(f"Dropped invalid example: {prompt + response}")
            return None
        input_ids, labels = self._encode_data_example(
            prompt=prompt,
            response=response,
            system=examples["_system"][i],
            tools=examples["_tools"][i],
            images=examples["_images"][i] or [],
            videos=examples["_videos"][i] or [],
            audios=examples["_audios"][i] or [],
        )
        if not input_ids:
            return None
        # One turn after another: no part of it is a trace.
        segments = [len(input_ids), 0, 0, 0]
        return Encoded(input_ids, list(labels), segments, cut=0)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def _labels(prompt_ids: list[int], target_ids: list[int], target: TargetIds) -> list[int]:
    """Labels of a row: the ids of its target, except for those of the lead.

    Args:
        target_ids: those of `target`, perhaps truncated.
    """
    trace, lead, _ = target
    labels = list(target_ids)
    # The lead, a separator, is never sampled: engines put it there.
    lead_stop = min(len(trace) + len(lead), len(labels))
    for position in range(len(trace), lead_stop):
        labels[position] = IGNORE_INDEX
    return [IGNORE_INDEX] * len(prompt_ids) + labels


def _segments(length: int, prompt: PromptIds, target: TargetIds) -> list[int]:
    """Tokens of x, chain, trace and answer in a row of so many tokens, perhaps truncated.

    The opening belongs to the trace and the lead to the answer. Example: parts of 1, 2, 1 and of
    2, 1, 2 tokens have the segments 1 2 3 3, and 1 2 2 0 if the row is truncated to 5.
    """
    x, chain, opening = map(len, prompt)
    trace = len(target[0])
    through_trace = min(x + chain + opening + trace, length)
    return [x, chain, through_trace - x - chain, length - through_trace]


def _with_shorter_chain(prompt: PromptIds, excess: int) -> tuple[PromptIds, int]:
    """(prompt, tokens cut): the chain without its last `excess` tokens, if it keeps one.

    Example: a chain of 5 tokens keeps 2 for an excess of 3, and stays whole for one of 5.
    """
    x, chain, opening = prompt
    if excess <= 0 or excess >= len(chain):
        return prompt, 0
    num_kept = len(chain) - excess
    return (x, chain[:num_kept], opening), excess


@dataclass
class PackedRowProcessor(RowProcessor):
    """The same rows in packs of cutoff_len, laid out as the host's neat packing lays them out."""

    def preprocess_dataset(self, examples: Mapping[str, Sequence[Any]]) -> Any:
        """The host's batched map function.

        Raises: ValueError for rows with images, videos or audios.
        """
        capacity = longest_row(self.data_args)
        by_length = defaultdict(list)
        for row in self._encode_rows(examples):
            if any(examples[f"_{name}"][row.index] for name in MEDIA_COLUMNS):
                raise ValueError(
                    f"{row.name}: packing of images, videos or audios is not supported here"
                )
            length = len(row.input_ids)
            if length <= capacity:
                by_length[length].append(row)
        # The host's algorithm arranges lengths, so any row of a length can take its place.
        lengths: list[int] = []
        for length, rows in by_length.items():
            lengths += [length] * len(rows)
        columns = defaultdict(list)
        # A knapsack is a list of lengths whose sum fits: [5, 3] for a capacity of 9.
        for knapsack in greedy_knapsack(lengths, capacity):
            rows = [by_length[length].pop() for length in knapsack]
            for name, value in self._pack(rows).items():
                columns[name].append(value)
        return _batch(columns, _PACK_TYPES, examples, kept=None)

    def _pack(self, rows: list[Row]) -> dict[str, Any]:
        """One example of several rows. All packs of a run have the same length.

        With cutoff_len 9, rows of 3 and 4 tokens go into a pack of 16, the multiple of 8 above 9:

            attention_mask   1 1 1 2 2 2 2 0 0 0 0 0 0 0 0 0
            position_ids     0 1 2 0 1 2 3 0 0 0 0 0 0 0 0 0
        """
        lengths = [len(row.input_ids) for row in rows]
        boundaries = np.cumsum([0, *lengths]).tolist()
        multiples = math.ceil(longest_row(self.data_args) / PADDING_MULTIPLE)
        padding = multiples * PADDING_MULTIPLE - boundaries[-1]
        pack: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for name, values in row.columns().items():
                pack[name].append(values)
        # The host's neat packing tells rows apart by their number, and restarts positions in each.
        numbers = []
        positions = []
        for number, length in enumerate(lengths, 1):
            numbers.append(np.full(length, number, np.int32))
            positions.append(np.arange(length, dtype=np.int32))
        input_ids = _padded(pack.pop("input_ids"), padding, self.tokenizer.pad_token_id)
        labels = _padded(pack.pop("labels"), padding, IGNORE_INDEX)
        # The host counts the padding as a last sequence.
        if padding:
            boundaries.append(boundaries[-1] + padding)
        params = PackingParams(
            sequence_boundaries=boundaries,
            image_subseq_ids=[MAX_SU_SEQ_IDX],
            video_subseq_ids=[MAX_SU_SEQ_IDX],
            audio_subseq_ids=[MAX_SU_SEQ_IDX],
            right_padding_length=padding,
        )
        columns: dict[str, Any] = {}
        for name, lists in pack.items():
            columns[name] = list(itertools.chain.from_iterable(lists))
        return columns | {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": _padded(numbers, padding, 0),
            "position_ids": _padded(positions, padding, 0),
            "packing_params": asdict(params),
        }


def _padded(parts: list[np.ndarray], padding: int, value: int) -> np.ndarray:
    at_end = np.full(padding, value, np.int32)
    return np.concatenate([*parts, at_end])


def _batch(
    columns: Mapping[str, list[Any]],
    types: Mapping[str, pa.DataType],
    examples: Mapping[str, Sequence[Any]],
    kept: list[int] | None,
) -> pa.Table | dict[str, list[Any]]:
    """Columns as the output of a map function.

    Args:
        columns: of the new examples. types: of every column. examples: the batch they come from.
        kept: which of the batch's examples they are, whose media they keep; None for packs.

    Returns: a table of these types for a batch of a map-style data set, lists for a stream's, which
        has no types.
    """
    table = getattr(examples, "pa_table", None)
    count = len(columns.get("input_ids", []))
    if table is None:
        lists = {name: list(map(_as_list, columns.get(name, []))) for name in types}
        for name in MEDIA_COLUMNS:
            if kept is None:
                lists[name] = [None] * count
            else:
                media = examples[f"_{name}"]
                lists[name] = [media[i] for i in kept]
        return lists
    arrays = {name: _array(columns.get(name, []), kind) for name, kind in types.items()}
    for name in MEDIA_COLUMNS:
        if kept is None:
            arrays[name] = pa.nulls(count)
        else:
            media = table[f"_{name}"]
            arrays[name] = media.take(pa.array(kept, pa.int64()))
    return pa.table(arrays)


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array; lists of numbers without a Python object per number.

    Example: [5, 6] and [7] are the numbers 5 6 7 with the offsets 0 2 3.
    """
    if not values or not isinstance(values[0], np.ndarray):
        return pa.array(values, kind)
    numbers = pa.array(np.concatenate(values), kind.value_type)
    ends = np.cumsum([0, *map(len, values)])
    offsets = pa.array(ends, pa.int32())
    return pa.ListArray.from_arrays(offsets, numbers, kind)


@dataclass
class RowFacts:
    """What a tokenized data set holds: the figures that C comes from, and those a run reports.

    dropped: rows that do not fit cutoff_len. cut: rows whose verbal chain was shortened to fit.
    weights: float64 [rows]. target_tokens: int64 [rows].
    """

    rows: int
    dropped: int | None
    cut: int
    weights: torch.Tensor
    target_tokens: torch.Tensor

    def weight_summary(self) -> dict[str, float]:
        """Count, mean, min and max of the rows' weights."""
        return {
            "count": self.rows,
            "mean": self.weights.mean().item(),
            "min": self.weights.min().item(),
            "max": self.weights.max().item(),
        }

    def describe_length(self) -> str:
        """What became of rows longer than cutoff_len, for the log."""
        text = f"dropped {self.dropped} rows longer than cutoff_len"
        if self.cut:
            text += f", cut the verbal chain of {self.cut} rows to fit it"
        return text

    def mean_target_tokens(self) -> float:
        """Mean number of targets of a row."""
        return self.target_tokens.double().mean().item()


def gather_facts(tokenized: Dataset, num_aligned: int) -> RowFacts:
    """Facts of a tokenized map-style data set; `num_aligned` is its number of rows before that."""
    needed = tokenized.select_columns(["row_weights", "row_targets", CUTS])
    columns = needed.with_format("arrow")[:]

    def flat(name: str) -> np.ndarray:
        return columns[name].combine_chunks().flatten().to_numpy()

    weights = flat("row_weights")
    target_tokens = flat("row_targets")
    cuts = flat(CUTS)
    return RowFacts(
        rows=len(weights),
        dropped=num_aligned - len(weights),
        cut=int((cuts > 0).sum()),
        weights=torch.tensor(weights, dtype=torch.float64),
        target_tokens=torch.tensor(target_tokens, dtype=torch.int64),
    )


def refuse_ignored_weights(config: Any, facts: RowFacts, is_eval: bool) -> None:
    """Raise ValueError when weights other than 1 would be ignored because the loss is off.

    Args:
        config: the run's VariationalConfig. facts: of the set that `is_eval` says.
    """
    if config.constant_loss_normalizer is not None or torch.all(facts.weights == 1):
        return
    which = "an evaluation set" if is_eval else "the training set"
    raise ValueError(
        f"{which} has weights from {facts.weights.min():g} to {facts.weights.max():g}, which the "
        "host's own loss would ignore; set `constant_loss_normalizer: auto` in the YAML"
    )


def settle_constant_loss_normalizer(config: Any, facts: RowFacts | None) -> float | None:
    """C of a run: None for the host's own loss, the given number, or the training set's own.

    Args:
        config: the run's VariationalConfig. facts: of the training set; None for a stream.
    """
    constant = config.constant_loss_normalizer
    if not isinstance(constant, str):
        return constant
    assert facts is not None  # args.check refuses `auto` for streams
    return auto_constant_loss_normalizer(facts.weights, facts.target_tokens)


def source_hashes(data_args: Any) -> dict[str, dict[str, str]]:
    """Where the training rows come from.

    Returns: by data set, file and SHA-256 of a local file or folder, the hub's name of any other.
    """
    info, where = read_dataset_info(data_args.dataset_dir)
    sources = {}
    for name in data_args.dataset or []:
        entry = info.get(name, {})
        folder = Path(where).parent
        path = folder / entry.get("file_name", "")
        if "file_name" in entry and path.exists():
            sources[name] = file_identity(path)
        else:
            given = entry.get("hf_hub_url") or entry.get("file_name") or name
            sources[name] = {"name": str(given)}
    return sources
