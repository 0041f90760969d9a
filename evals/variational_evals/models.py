"""Which prompt a model is evaluated with, and over how many GPUs it is spread.

A reasoner of ours gets exactly the ids of its training, rendered by `method.prompts`; no chat
template is involved. It is known by the record that training writes next to it, or by its name on
the hub. Nothing is guessed about any other model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from variational_reasoning.method.prompts import Renderer, make_renderer, renderer_of_record
from variational_reasoning.model_record import RECORD_NAME, read_record


@dataclass
class Run:
    """What this process runs: the seed of the command line, and the prompts of our reasoner."""

    seed: int = 0
    renderer: Renderer | None = None


RUN = Run()
"""SkyThought hands neither to the functions that need them."""

ACCOUNT = "zhouxiangxin"
REASONERS = frozenset(
    f"{ACCOUNT}/{name}"
    for name in (
        *(f"Initial-Reasoning-{size}" for size in ("4B", "7B", "8B", "32B")),
        *(
            f"Variational-Reasoning-{size}-{score}"
            for size in ("4B", "8B", "32B")
            for score in ("Acc", "GML")
        ),
        *(
            f"Variational-Reasoning-{prompt}-7B-{score}"
            for prompt in ("PA", "PB")
            for score in ("Acc", "GML")
        ),
    )
)
"""The published models that answer questions; all of them write ChatML."""
POSTERIORS = frozenset(
    f"{ACCOUNT}/Variational-Posterior-{name}"
    for name in ("PB-4B", "PA-7B", "PB-7B", "PB-8B", "PA-32B")
)
"""The published models that cannot be evaluated: their prompt has the reference answer in it."""

PAPER_TENSOR_PARALLEL = ((3e9, 1), (20e9, 4), (float("inf"), 8))
"""(parameters below, GPUs): the paper's 4 for 4B to 8B and 8 for 32B; a small model needs one."""


def reasoner_renderer(model: str) -> Renderer | None:
    """The prompts of a reasoner of ours, or None for a model of which nothing is known.

    Args:
        model: a local folder or a name on the hub.

    Raises: ValueError for a posterior, and for a record that does not say the prompt.
    """
    if model in POSTERIORS:
        raise ValueError(
            f"{model} is a posterior: it reads the reference answer, and cannot be evaluated on "
            "questions alone"
        )
    if model in REASONERS:
        return make_renderer("chatml")
    record = read_record(model) if Path(model).is_dir() else None
    if record is None:
        return None
    path = Path(model) / RECORD_NAME
    kind = record.get("prompt_kind")
    if kind not in (None, "reasoner"):
        raise ValueError(
            f"{path} says that the model was trained on the prompt {kind!r}; only a reasoner can "
            "be evaluated"
        )
    if kind is None or record.get("chat_format") is None:
        return None
    return renderer_of_record(record, source=str(path))


def stop_strings(renderer: Renderer, more: Iterable[str] = ()) -> list[str]:
    """Where a response ends: as the prompt family says, and at what the user adds."""
    return list(dict.fromkeys((*renderer.answer_stops, *more)))


def tensor_parallel_size(model: str, num_processes: int = 1) -> int:
    """GPUs that one copy of a model is spread over, when the user does not say; 1 without GPUs.

    Reads the model's configuration (from the hub for a name), not its weights.

    Args:
        num_processes: among which the machine's GPUs are divided.
    """
    import torch
    import transformers

    num_gpus = torch.cuda.device_count() // num_processes
    if num_gpus < 2:
        return 1
    config = transformers.AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        num_parameters = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    return fitting_size(num_parameters, config.num_attention_heads, num_gpus)


def fitting_size(num_parameters: float, num_heads: int, num_gpus: int) -> int:
    """The paper's size for so many parameters, or a smaller one if GPUs or heads do not allow it.

    32 B on 4 GPUs: 8 in the paper, 4 here. 12 heads and 8 GPUs: 4, because 8 does not divide 12.
    """
    size = next(size for limit, size in PAPER_TENSOR_PARALLEL if num_parameters < limit)
    while size > num_gpus or num_heads % size:
        size //= 2
    return size
