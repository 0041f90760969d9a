"""How much memory a training takes, by the arithmetic of docs/scale.md.

Full fine-tuning of P parameters keeps, in bytes per parameter, bf16 weights (2), gradient sums (4),
master weights (4) and Adam (8). On n GPUs:

    one GPU, no DeepSpeed    18 P
    ZeRO-2                   2 P + 16 P / n
    ZeRO-3                   18 P / n
    LoRA with A parameters   2 P + 16 A

A micro-batch of t tokens adds, with gradient checkpointing, the inputs of all layers, one layer's
recomputation and the head:

    2 t (layers x hidden)  +  2 t (7 width + 10 hidden)  +  4 vocabulary x hidden  +  0.5 GB

For Qwen3-8B and t = 24,576 that is 7.2 + 6.2 + 3.0 GB. GB are 10^9 bytes, per GPU.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.files import read_json_object
from variational_reasoning.pipeline.engines.base import context_length

GB = 1e9
USABLE = 0.9
"""Share of a GPU's memory that the arithmetic may fill; the rest is for fragments and buffers."""

RANK = 64
"""Of a LoRA adapter."""


class ModelShape(NamedTuple):
    """What the memory depends on, from a model's folder.

    layers, hidden, width (feed-forward), vocabulary: as in its config.json. adapter: parameters of
    LoRA on every linear layer but the head. context: tokens; None where the file does not say.
    """

    architecture: str
    parameters: int
    layers: int
    hidden: int
    width: int
    vocabulary: int
    adapter: int
    context: int | None


def read_shape(folder: Path) -> ModelShape:
    """The shape of a model.

    Raises: ValueError for a folder without a config.json that says it.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"base: {folder} has no config.json, so it is not a model folder")
    whole = read_json_object(path, "choose another model folder")
    config = whole.get("text_config") or whole
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    missing = [name for name in names if not isinstance(config.get(name), int)]
    if missing:
        raise ValueError(
            f"base: {path} has no {', '.join(missing)}, so the memory of a training is not known; "
            "copy the profile of a similar model and edit it"
        )
    layers, hidden, width, vocabulary = (config[name] for name in names)
    of_matrices = 0  # parameters of a layer
    of_adapter = 0
    for inputs, outputs in _linear_layers(config, hidden, width):
        of_matrices += inputs * outputs
        of_adapter += RANK * (inputs + outputs)
    parameters = _stored_parameters(folder)
    if parameters is None:
        num_tables = 1 if config.get("tie_word_embeddings") else 2
        parameters = layers * of_matrices + num_tables * vocabulary * hidden
    architectures = whole.get("architectures") or [config.get("model_type", "unknown")]
    return ModelShape(
        architecture=architectures[0],
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        width=width,
        vocabulary=vocabulary,
        adapter=layers * of_adapter,
        context=context_length(whole),
    )


def _linear_layers(config: Mapping[str, Any], hidden: int, width: int) -> Iterator[tuple[int, int]]:
    """(inputs, outputs) of one layer's matrices: query, key, value, output, gate, up, down."""
    heads = config.get("num_attention_heads") or 1
    keys = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or hidden // heads
    yield hidden, heads * size
    yield hidden, keys * size
    yield hidden, keys * size
    yield heads * size, hidden
    yield hidden, width
    yield hidden, width
    yield width, hidden


def _stored_parameters(folder: Path) -> int | None:
    """Parameters in a folder's safetensors files, from their headers; None where there are none."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        # Eight bytes for the length of the header, then the header, then the weights.
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                total += prod(entry["shape"])
    return total or None


@dataclass(frozen=True)
class WayToTrain:
    """A way to train that fits.

    zero: stage of ZeRO, 0 without DeepSpeed. tokens: of a micro-batch; None for the plugin's
    default. states, activations: GB per GPU.
    """

    is_lora: bool
    zero: int
    tokens: int | None
    states: float
    activations: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        if self.is_lora:
            return f"LoRA of rank {RANK}"
        if self.zero:
            return f"full fine-tuning with ZeRO-{self.zero}"
        return "full fine-tuning"


def state_gigabytes(shape: ModelShape, is_lora: bool, zero: int, gpus: int) -> float:
    """Weights, gradients and optimizer of one GPU."""
    parameters = shape.parameters
    if is_lora:
        return (2 * parameters + 16 * shape.adapter) / GB
    if zero == 2:
        return (2 * parameters + 16 * parameters / gpus) / GB
    if zero == 3:
        return 18 * parameters / max(gpus, 1) / GB
    return 18 * parameters / GB


def activation_gigabytes(shape: ModelShape, tokens: int) -> float:
    """Activations and loss of a micro-batch."""
    inputs = 2 * tokens * shape.layers * shape.hidden
    recomputed = 2 * tokens * (7 * shape.width + 10 * shape.hidden)
    head = 4 * shape.vocabulary * shape.hidden
    return (inputs + recomputed + head) / GB + 0.5


def default_tokens(cutoff_len: int) -> int:
    """tokens_per_micro_batch where a YAML does not name it."""
    return max(8192, cutoff_len * 3 // 2)


def ways_to_train(shape: ModelShape, gpus: int, lora: str, cutoff_len: int) -> Iterator[WayToTrain]:
    """What a machine could do, the best first: full before LoRA, little communication before much,
    and each with the default micro-batch before one of a single longest row.

    Args:
        lora: auto, true or false.
    """
    kinds = []  # (is_lora, zero)
    if lora in ("auto", "false") and gpus > 1:
        kinds += [(False, 2), (False, 3)]
    elif lora in ("auto", "false"):
        kinds.append((False, 0))
    if lora in ("auto", "true"):
        kinds.append((True, 0))
    for is_lora, zero in kinds:
        states = state_gigabytes(shape, is_lora, zero, gpus)
        for tokens in (None, cutoff_len):
            activations = activation_gigabytes(shape, tokens or default_tokens(cutoff_len))
            yield WayToTrain(is_lora, zero, tokens, states, activations)


def fitting_training(
    shape: ModelShape, gpus: int, gpu_gb: float, lora: str, cutoff_len: int
) -> WayToTrain | None:
    """The best way to train that fits the GPUs, or None. Without a GPU everything fits."""
    for way in ways_to_train(shape, gpus, lora, cutoff_len):
        if gpus == 0 or way.states + way.activations <= USABLE * gpu_gb:
            return way
    return None


def parallel_size(shape: ModelShape, gpus: int, gpu_gb: float) -> int | None:
    """GPUs of one sampling engine: the smallest power of two on which bf16 weights and 4 GB of
    cache fit; None where no number does."""
    size = 1
    while size <= max(gpus, 1):
        weights = 2 * shape.parameters / GB / size
        if gpus == 0 or weights + 4 <= USABLE * gpu_gb:
            return size
        size *= 2
    return None
