"""Every name of SkyThought that we add to or replace.

All of them are checked first, then they are replaced together, once.

    added to                      with                    why
    tasks TASK_NAMES_TO_YAML      the definitions         `--task vr_...`
    tasks TASK_HANDLER_MAP        VariationalTaskHandler  our own questions, checks and verdicts

    replaced                      with                    why
    cli set_seed                  remember_seed           the seed reaches samples and folder name
    models ModelConfig
      .from_model_id              choose_prompt           our models get the prompt of training
    inference_and_check
      inference                   generate                exact ids, both stops, a seed per sample
      score_responses             score                   our tasks are scored by our verifier

All are in modules of `skythought.evals`. A replacement calls the original for tasks and models that
are not ours. The exception is an unknown model: it is refused instead of being run without a
prompt. If SkyThought does not fit, nothing is replaced, and our tasks refuse to run.
"""

import functools
from collections.abc import Callable
from typing import Any

from variational_evals.host_fit import found_faults
from variational_evals.models import (
    ABSTRACT,
    INVOCATION,
    abstract_renderer,
    reasoner_renderer,
)
from variational_evals.tasks import definitions
from variational_reasoning.method.chat_formats import CHAT_FORMATS
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.seam import Seam, faults, replace_all

PROMPT_NAMES = {f"vr_{name}": make_renderer(name) for name in CHAT_FORMATS}
PROMPT_NAMES |= {f"vr_{folder.name}": abstract_renderer(name) for name, folder in ABSTRACT.items()}
"""Values of `--system-prompt-name` in addition to SkyThought's: the paper's reasoner in a chat
format, and the prompts of a published model of abstract traces, for a copy in a folder."""

NO_PROMPT = "vr_none"
"""The value for a model that runs with its chat template and no system prompt."""


_seam = functools.partial(Seam, "skythought.evals")


def _remember_seed(original: Callable) -> Callable:
    @functools.wraps(original)
    def remember_seed(seed: int) -> None:
        INVOCATION.seed = seed
        original(seed)

    return remember_seed


def _choose_prompt(original: Callable) -> classmethod:
    @functools.wraps(original)
    def choose_prompt(
        cls: type,
        model_id: str,
        system_prompt_name: str | None = None,
        system_prompt: str | None = None,
        assistant_prefill: str | None = None,
    ) -> Any:
        from skythought.evals import models

        from variational_evals.generation import ReasonerConfig, SeededConfig

        renderer = PROMPT_NAMES.get(system_prompt_name or "") or reasoner_renderer(model_id)
        INVOCATION.renderer = renderer
        if renderer is not None:
            given = {"--system-prompt": system_prompt, "--assistant-prefill": assistant_prefill}
            if system_prompt_name not in (None, *PROMPT_NAMES):
                given["--system-prompt-name"] = system_prompt_name
            refused = [name for name, value in given.items() if value]
            if refused:
                raise ValueError(
                    f"{model_id} is a reasoner, and its prompt is that of its training; leave out "
                    f"{', '.join(refused)}"
                )
            return ReasonerConfig(
                model_id=model_id,
                system_prompt=renderer.texts("reasoner").system,
                assistant_prefill=renderer.texts("reasoner").opening,
                renderer=renderer,
                seed=INVOCATION.seed,
            )
        known = models.get_system_prompt_keys()  # this also loads the table of models
        is_in_table = model_id in models.base.ALL_MODEL_CONFIGS["models"]
        if not (system_prompt_name or system_prompt or is_in_table):
            raise ValueError(
                f"nothing says which prompt {model_id} was trained on: it is not a folder with a "
                "record of a reasoner, not a published model of the paper, and not in SkyThought's "
                f"table. Name one: --system-prompt-name {' | '.join(PROMPT_NAMES)} for the paper's "
                "prompt in this chat format or for the prompt of the published model of abstract "
                f"traces, {NO_PROMPT} for the model's chat template and no system prompt, or one "
                f"of SkyThought's ({', '.join(known)}), or give --system-prompt TEXT"
            )
        name = system_prompt_name
        if name == NO_PROMPT:
            name = None
        stock = original(model_id, name, system_prompt, assistant_prefill)
        return SeededConfig(**stock.model_dump(), seed=INVOCATION.seed)

    return classmethod(choose_prompt)


def _generate(original: Callable) -> Callable:
    @functools.wraps(original)
    def generate(
        conversations: Any,
        backend: Any,
        backend_params: Any,
        model_config: Any,
        sampling_params: Any,
        **kwargs: Any,
    ) -> Any:
        from variational_evals import generation

        if isinstance(model_config, generation.ReasonerConfig):
            return generation.generate(
                conversations, backend, backend_params, model_config, sampling_params
            )
        if isinstance(model_config, generation.SeededConfig):
            backend_params = generation.with_seed(backend, backend_params, model_config.seed)
        return original(
            conversations, backend, backend_params, model_config, sampling_params, **kwargs
        )

    return generate


def _score(original: Callable) -> Callable:
    @functools.wraps(original)
    def score(handler: Any, id_to_results: Any, max_workers: int = 32) -> Any:
        from variational_evals.handler import VariationalTaskHandler

        if isinstance(handler, VariationalTaskHandler):
            return handler.score(id_to_results)
        return original(handler, id_to_results, max_workers=max_workers)

    return score


REPLACED = (
    _seam("cli", "set_seed", ("seed",), _remember_seed),
    _seam(
        "models",
        "ModelConfig.from_model_id",
        ("model_id", "system_prompt_name", "system_prompt"),
        _choose_prompt,
    ),
    _seam(
        "inference_and_check",
        "inference",
        ("conversations", "backend", "backend_params", "model_config", "sampling_params"),
        _generate,
    ),
    _seam(
        "inference_and_check",
        "score_responses",
        ("handler", "id_to_results", "max_workers"),
        _score,
    ),
)


def activate(name: str) -> None:
    """Called after `skythought.evals.tasks` and `skythought.evals.cli` have been executed."""
    if name == "skythought.evals.tasks":
        from skythought.evals import tasks

        from variational_evals.handler import HANDLER_NAME, VariationalTaskHandler

        tasks.TASK_HANDLER_MAP[HANDLER_NAME] = VariationalTaskHandler
        for task, path in definitions().items():
            tasks.TASK_NAMES_TO_YAML[task] = str(path)
        return
    found_faults[:] = faults(REPLACED)
    if not found_faults:
        replace_all(REPLACED)
