"""Our data formats inside the host's data loading, and what lets weights and ids reach the trainer.

The host maps every data set twice: to texts (`align_dataset`) and to ids (a processor), and drops all columns it does not
know. Ours keep, beside the host's columns, three lists per example, one entry per data row in it (several when packed):

    row_weights   float, the row's weight
    row_targets   int, how many of the example's targets are the row's, in order
    row_names     text, data set, row number and ids, for messages

A weight is thus tied to its targets by their order alone, so padding, trimming and packing cannot separate them.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Value
from llamafactory.data.processor.processor_utils import greedy_knapsack
from llamafactory.data.processor.supervised import (
    MAX_SU_SEQ_IDX,
    PackingParams,
    SupervisedDatasetProcessor,
)
from llamafactory.extras import logging

from variational_reasoning.host.formats import (
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

_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
_ALIGNED_FEATURES = Features(
    # The host's columns with the types that it infers itself, so that data sets of both kinds can be concatenated.
    {
        "_prompt": _MESSAGES,
        "_response": _MESSAGES,
        "_system": Value("string"),
        "_tools": Value("string"),
    }
    | {name: Value("null") for name in ("_images", "_videos", "_audios")}
    | {"_weight": Value("float64"), "_name": Value("string")}
    | {f"_{name}": Value("string") for name in ID_COLUMNS}
)


def align(dataset, dataset_attr, data_args, training_args):
    """Rows of one of our data sets as texts in the host's aligned columns; the same for streams.

    Raises: ValueError for an empty data set, missing columns, and rows that do not fit (data set, row, column).
    """
    source, config = str(dataset_attr), data_args.variational
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"data set {source!r} has no rows")
    columns, faults = map_columns(
        source, dataset_attr.formatting, dataset_attr.variational_columns, list(first)
    )
    if faults:
        raise ValueError("\n".join(faults))
    renderer = RowRenderer(
        source, dataset_attr.formatting, columns, config.prompt_kind, config.renderer
    )

    def to_aligned(example: dict[str, Any], index: int) -> dict[str, Any]:
        row = renderer(example, index)
        ids = {f"_{name}": row[name] for name in ID_COLUMNS}
        given = [f"{name} {row[name]}" for name in ID_COLUMNS if row[name] is not None]
        return {
            "_prompt": [{"role": "user", "content": row["prompt"]}],
            "_response": [{"role": "assistant", "content": row["response"]}],
            "_system": "",
            "_tools": "",
            "_images": None,
            "_videos": None,
            "_audios": None,
            "_weight": row["weight"],
            "_name": ", ".join([f"{source} row {index + 1}", *given]),
            **ids,
        }

    options = {"with_indices": True, "remove_columns": list(first), "features": _ALIGNED_FEATURES}
    if not data_args.streaming:
        options |= {
            "num_proc": data_args.preprocessing_num_workers,
            "load_from_cache_file": not data_args.overwrite_cache
            or training_args.local_process_index != 0,
            "desc": f"Rendering {source}",
        }
    return dataset.map(to_aligned, **options)


@dataclass
class RowProcessor(SupervisedDatasetProcessor):
    """Tokenizes rows of both kinds, one row per example, and drops, cuts or refuses rows of ours that are too long."""

    def __post_init__(self) -> None:
        renderer = self.data_args.variational.renderer
        if renderer is not None:
            renderer.check_codec(self._ids, self.tokenizer.decode, self.tokenizer.name_or_path)

    def preprocess_dataset(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The host's batched map function; a row of the host's formats is encoded by the host and has weight 1."""
        columns = defaultdict(list)
        for row in self._encode_rows(examples):
            for name, value in row.items():
                columns[name].append(value)
        return columns

    def _encode_rows(self, examples: dict[str, list[Any]]) -> list[dict[str, Any]]:
        count = len(examples["_prompt"])
        weights = examples.get("_weight", [None] * count)
        rows = []
        for i in range(count):
            is_ours = weights[i] is not None
            encoded = self._encode_ours(examples, i) if is_ours else self._encode_hosts(examples, i)
            if encoded is None:
                continue
            input_ids, labels = encoded
            labels = [
                IGNORE_INDEX,
                *labels[1:],
            ]  # nothing predicts the first token; in a pack the row before must not
            rows.append(
                {
                    "input_ids": input_ids,
                    "attention_mask": [1] * len(input_ids),
                    "labels": labels,
                    "images": examples["_images"][i],
                    "videos": examples["_videos"][i],
                    "audios": examples["_audios"][i],
                    "row_weights": [weights[i] if is_ours else 1.0],
                    "row_targets": [sum(label != IGNORE_INDEX for label in labels)],
                    "row_names": [examples["_name"][i] if is_ours else "row of the host's formats"],
                }
                | {name: [examples[f"_{name}"][i]] for name in ID_COLUMNS if f"_{name}" in examples}
            )
        return rows

    def _encode_ours(
        self, examples: dict[str, list[Any]], i: int
    ) -> tuple[list[int], list[int]] | None:
        config = self.data_args.variational
        prompt_ids = self._ids(examples["_prompt"][i][0]["content"])
        target_ids = config.renderer.encode_target(
            examples["_response"][i][0]["content"], self._ids
        )
        room = self.data_args.cutoff_len - len(prompt_ids)
        if len(target_ids) > room:
            if config.overlong == "error":
                raise ValueError(
                    f"{examples['_name'][i]}: {len(prompt_ids)} + {len(target_ids)} tokens do not fit cutoff_len "
                    f"{self.data_args.cutoff_len}; raise cutoff_len, or set `overlong: drop` or `overlong: truncate`"
                )
            if config.overlong == "drop" or room <= 0:
                return None
            target_ids = target_ids[:room]
        return prompt_ids + target_ids, [IGNORE_INDEX] * len(prompt_ids) + target_ids

    def _encode_hosts(
        self, examples: dict[str, list[Any]], i: int
    ) -> tuple[list[int], list[int]] | None:
        prompt, response = examples["_prompt"][i], examples["_response"][i]
        if (
            len(prompt) % 2 != 1 or len(response) != 1
        ):  # the host's own rule for an example that it cannot use
            logger.warning_rank0(f"Dropped invalid example: {prompt + response}")
            return None
        return self._encode_data_example(
            prompt=prompt,
            response=response,
            system=examples["_system"][i],
            tools=examples["_tools"][i],
            images=examples["_images"][i] or [],
            videos=examples["_videos"][i] or [],
            audios=examples["_audios"][i] or [],
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


@dataclass
class PackedRowProcessor(RowProcessor):
    """The same rows in packs of cutoff_len, laid out as the host's neat packing lays them out."""

    def preprocess_dataset(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The host's batched map function. Raises: ValueError for rows with images, videos or audios."""
        by_length = defaultdict(list)
        for row in self._encode_rows(examples):
            if row["images"] or row["videos"] or row["audios"]:
                raise ValueError(
                    f"{row['row_names'][0]}: packing of images, videos or audios is not supported here"
                )
            if len(row["input_ids"]) <= self.data_args.cutoff_len:
                by_length[len(row["input_ids"])].append(row)
        lengths = [length for length, rows in by_length.items() for _ in rows]
        columns = defaultdict(list)
        for knapsack in greedy_knapsack(lengths, self.data_args.cutoff_len):
            pack = self._pack([by_length[length].pop() for length in knapsack])
            for name, value in pack.items():
                columns[name].append(value)
        return columns

    def _pack(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        pack = {name: [] for name in rows[0] if name not in ("images", "videos", "audios")} | {
            "position_ids": []
        }
        boundaries = [0]
        for number, row in enumerate(rows, 1):
            length = len(row["input_ids"])
            row = row | {"attention_mask": [number] * length, "position_ids": list(range(length))}
            for name in pack:
                pack[name] += row[name]
            boundaries.append(boundaries[-1] + length)
        # One token more than the cutoff, as the host pads, so that no pack is ever entirely free of padding.
        padding = self.data_args.cutoff_len + 1 - len(pack["input_ids"])
        for name, value in (
            ("input_ids", self.tokenizer.pad_token_id),
            ("position_ids", 0),
            ("labels", IGNORE_INDEX),
            ("attention_mask", 0),
        ):
            pack[name] += [value] * padding
        params = PackingParams(
            sequence_boundaries=[*boundaries, boundaries[-1] + padding],
            image_subseq_ids=[MAX_SU_SEQ_IDX],
            video_subseq_ids=[MAX_SU_SEQ_IDX],
            audio_subseq_ids=[MAX_SU_SEQ_IDX],
            right_padding_length=padding,
        )
        return pack | {
            "packing_params": asdict(params),
            "images": None,
            "videos": None,
            "audios": None,
        }


@dataclass
class RowFacts:
    """What a tokenized data set holds: the figures that C comes from, and those that a run reports."""

    rows: int
    dropped: int | None
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

    def mean_target_tokens(self) -> float:
        """Mean number of targets of a row."""
        return self.target_tokens.double().mean().item()


def gather_facts(tokenized: Dataset, num_aligned: int) -> RowFacts:
    """Facts of a tokenized map-style data set; `num_aligned` is its number of rows before tokenization."""
    columns = tokenized.select_columns(["row_weights", "row_targets"]).with_format("arrow")[:]
    flat = [
        column.combine_chunks().flatten().to_numpy()
        for column in (columns["row_weights"], columns["row_targets"])
    ]
    weights, target_tokens = (
        torch.tensor(flat[0], dtype=torch.float64),
        torch.tensor(flat[1], dtype=torch.int64),
    )
    return RowFacts(len(weights), num_aligned - len(weights), weights, target_tokens)


def settle_constant_loss_normalizer(config, facts: RowFacts | None) -> float | None:
    """C of a run: the given number, or the training set's own.

    Raises: ValueError when weights other than 1 would be ignored because the loss is off.
    """
    if config.constant_loss_normalizer is None:
        if facts is not None and not torch.all(facts.weights == 1):
            raise ValueError(
                f"the training set has weights from {facts.weights.min():g} to {facts.weights.max():g}, which the host's own "
                "loss would ignore; set `constant_loss_normalizer: auto` in the YAML"
            )
        return None
    return (
        auto_constant_loss_normalizer(facts.weights, facts.target_tokens)
        if config.constant_loss_normalizer == "auto"
        else config.constant_loss_normalizer
    )


def source_hashes(data_args) -> dict[str, dict[str, str]]:
    """Where the training rows come from.

    Returns: {data set: {"file", "sha256"}} for local files and folders, {"name"} of the hub for others.
    """
    info, where = read_dataset_info(data_args.dataset_dir)
    sources = {}
    for name in data_args.dataset or []:
        entry = info.get(name, {})
        path = Path(where).parent / entry.get("file_name", "")
        if "file_name" in entry and path.exists():
            sources[name] = file_identity(path)
        else:
            sources[name] = {"name": str(entry.get("hf_hub_url") or entry.get("file_name") or name)}
    return sources
