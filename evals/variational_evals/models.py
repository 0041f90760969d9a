"""The prompt that a model is evaluated with, and the number of GPUs that it is spread over.

A reasoner of ours gets exactly the ids of its training, which `method.prompts` renders without a
chat template. It is recognized by the record that training writes next to it, or by its name on the
hub. Nothing is guessed about any other model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from variational_reasoning.method.prompts import Renderer, make_renderer, renderer_of_record
from variational_reasoning.model_record import RECORD_NAME, read_record


@dataclass
class Invocation:
    """SkyThought's command in this process: its seed, and the prompts if the model is a reasoner."""

    seed: int = 0
    renderer: Renderer | None = None


INVOCATION = Invocation()
"""Global, because SkyThought passes neither to the functions that need them."""

ACCOUNT = "zhouxiangxin"
REASONERS = frozenset(
    f"{ACCOUNT}/{name}"
    for name in (
        "Initial-Reasoning-4B",
        "Initial-Reasoning-7B",
        "Initial-Reasoning-8B",
        "Initial-Reasoning-32B",
        "Variational-Reasoning-4B-Acc",
        "Variational-Reasoning-4B-GML",
        "Variational-Reasoning-8B-Acc",
        "Variational-Reasoning-8B-GML",
        "Variational-Reasoning-32B-Acc",
        "Variational-Reasoning-32B-GML",
        "Variational-Reasoning-PA-7B-Acc",
        "Variational-Reasoning-PA-7B-GML",
        "Variational-Reasoning-PB-7B-Acc",
        "Variational-Reasoning-PB-7B-GML",
    )
)
"""The published models that answer questions. All of them write ChatML."""
POSTERIORS = frozenset(
    f"{ACCOUNT}/Variational-Posterior-{name}"
    for name in ("PB-4B", "PA-7B", "PB-7B", "PB-8B", "PA-32B")
)
"""The published models that cannot be evaluated: their prompt has the reference answer in it."""

EXAMPLES = Path(__file__).parents[2] / "examples" / "variational_reasoning"
ABSTRACT = {"leapeto/Qwen3-4B-AbstractCoT-warmup": EXAMPLES / "qwen3_4b_abstract"}
"""Published models of abstract traces (arXiv 2604.22709), to the folder of their prompts."""

PAPER_TENSOR_PARALLEL = ((3e9, 1), (20e9, 4), (float("inf"), 8))
"""(parameters below, GPUs): the paper's 4 for 4B to 8B and 8 for 32B; a small model needs one."""


def reasoner_renderer(model: str) -> Renderer | None:
    """The prompts of a reasoner of ours, or None for an unknown model.

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
    if model in ABSTRACT:
        return abstract_renderer(model)
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


def abstract_renderer(name: str) -> Renderer:
    """The prompts of a published model of abstract traces. Args: name: a key of `ABSTRACT`."""
    folder = ABSTRACT[name]
    return make_renderer(str(folder / "chat_format.json"), str(folder / "prompts.yaml"))


def stop_strings(renderer: Renderer, more: Iterable[str] = ()) -> list[str]:
    """The texts that end a response: those of the prompt family, and those of the user."""
    return list(dict.fromkeys((*renderer.answer_stops, *more)))


def tensor_parallel_size(model: str, num_processes: int = 1) -> int:
    """The default number of GPUs that one copy of a model is spread over; 1 without GPUs.

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
