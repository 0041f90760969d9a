"""Text generation on token ids: `transformers` as the embedded default, `vllm` where it is
installed (stages 3, 6, evaluation).

An engine takes groups of requests and gives each group's results in its order. Every request has
its own seed, so no two rows share their noise, and what a request gives does not depend on what it
is batched with, up to float noise in the logits. Prompts with a common prefix share its
computation: the eight answers of a trace, the eight traces of a question, and the system prompt of
all."""

import importlib.util

from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines.base import (
    Completion,
    Engine,
    Request,
    Span,
    context_length,
    load_tokenizer,
    text_codec,
)
from variational_reasoning.pipeline.engines.transformers import (
    TransformersEngine,
    attention_kernel,
    load_model,
)
from variational_reasoning.pipeline.engines.vllm import VllmEngine

__all__ = [
    "Completion",
    "Engine",
    "Request",
    "Span",
    "TransformersEngine",
    "VllmEngine",
    "attention_kernel",
    "context_length",
    "engine_name",
    "load_model",
    "load_tokenizer",
    "open_engine",
    "text_codec",
]


def open_engine(config: Config, model_folder: str) -> Engine:
    """The engine that `sampling.engine` names, with the model loaded.

    Raises: ModuleNotFoundError with the install command when the engine is not installed.
    """
    if engine_name(config) == "vllm":
        return VllmEngine(config, model_folder)
    model = load_model(model_folder, config.sampling.dtype, config.sampling.device)
    return TransformersEngine(model, load_tokenizer(model_folder), config.sampling.batch_tokens)


def engine_name(config: Config) -> str:
    """What sampling.engine says; auto is vllm on a GPU where it is installed, and transformers
    elsewhere.
    """
    if config.sampling.engine != "auto":
        return config.sampling.engine
    has_vllm = importlib.util.find_spec("vllm") is not None
    if has_vllm and need("torch", "train").cuda.is_available():
        return "vllm"
    return "transformers"
