"""How a reasoner's responses are sampled under SkyThought: exact prompt ids, both stops, a seed of
its own for every sample.

The same requests as `evals/run.py` makes: ids from `method.prompts`, the seed a hash of the run's
seed, the question and the sample. All requests go to the engine at once; SkyThought's --batch-size
has no effect.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import vllm
from skythought.evals.common.entities import Backend, BackendParameters, SamplingParameters
from skythought.evals.models import ModelConfig
from skythought.evals.util.response import Response

from variational_evals.models import stop_strings, tensor_parallel_size
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.engines import text_codec
from variational_reasoning.pipeline.sample import sample_seed


class SeededConfig(ModelConfig):
    """SkyThought's settings of a model, and the run's seed: it is in summary.json and in the
    result folder's hash.
    """

    seed: int


class ReasonerConfig(SeededConfig):
    """The settings of a reasoner of ours. The two texts of SkyThought's fields are for its records;
    the ids that the engine gets are rendered in the chat format."""

    renderer: Renderer


class Conversation(list):
    """SkyThought's list of messages, with the id of its question, which the seeds depend on."""

    question_id: str


def with_seed(backend: Backend, backend_params: BackendParameters, seed: int) -> BackendParameters:
    """The settings of vLLM's engine with the run's seed, unless the user gave one; other backends
    have none.
    """
    if backend != Backend.VLLM or "seed" in backend_params.params:
        return backend_params
    return BackendParameters(params=backend_params.params | {"seed": seed})


def generate(
    conversations: Sequence[Sequence[dict[str, str]]],
    backend: Backend,
    backend_params: BackendParameters,
    model_config: ReasonerConfig,
    sampling_params: SamplingParameters,
) -> list[Response]:
    """All samples of all questions, by vLLM, as SkyThought's `inference` returns them.

    Raises: ValueError for a backend that would render the prompt with a chat template, or a
    question without room.
    """
    if backend != Backend.VLLM:
        raise ValueError(
            f"--backend {backend.value} renders prompts with the model's chat template, which is "
            "not the prompt that "
            f"{model_config.model_id} was trained on; use --backend vllm, or evals/run.py for "
            "several GPUs"
        )
    engine = vllm.LLM(
        model=model_config.model_id, **engine_settings(model_config.model_id, backend_params.params)
    )
    prompts = prompt_ids(conversations, model_config.renderer, engine.get_tokenizer())
    _, decode = text_codec(engine.get_tokenizer())
    params = request_parameters(
        conversations,
        prompts,
        model_config,
        sampling_params.params,
        engine.model_config.max_model_len,
    )
    n = sampling_params.params.n
    requests = [vllm.TokensPrompt(prompt_token_ids=ids) for ids in prompts for _ in range(n)]
    outputs = [output.outputs[0] for output in engine.generate(requests, params)]
    samples = [outputs[start : start + n] for start in range(0, len(outputs), n)]
    return [
        Response(
            response=[decode(sample.token_ids) for sample in group],
            num_completion_tokens=[len(sample.token_ids) for sample in group],
            num_input_tokens=len(ids),
        )
        for ids, group in zip(prompts, samples, strict=True)
    ]


def prompt_ids(
    conversations: Sequence[Sequence[dict[str, str]]], renderer: Renderer, tokenizer: Any
) -> list[list[int]]:
    """The ids that training has before each target; of a conversation only the user's text is
    read.
    """
    encode, decode = text_codec(tokenizer)
    renderer.check_codec(encode, decode, tokenizer.name_or_path)
    questions = [
        next(message["content"] for message in each if message["role"] == "user")
        for each in conversations
    ]
    return [encode(renderer.prompt("reasoner", question)) for question in questions]


def engine_settings(model: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the engine is made with: --backend-args, and what they leave open."""
    import torch

    settings: dict[str, Any] = {}
    if "tensor_parallel_size" not in given:
        settings["tensor_parallel_size"] = tensor_parallel_size(model)
        print(
            f"tensor_parallel_size {settings['tensor_parallel_size']} (another: --backend-args "
            "tensor_parallel_size=N)"
        )
    if not torch.cuda.is_available():
        settings["enable_chunked_prefill"] = (
            False  # a CPU's generator with a seed does not survive a prefill in parts
        )
    return settings | given


def request_parameters(
    conversations: Sequence[Sequence[dict[str, str]]],
    prompts: Sequence[Sequence[int]],
    model_config: ReasonerConfig,
    params: vllm.SamplingParams,
    max_model_len: int,
) -> list[vllm.SamplingParams]:
    """Parameters of every sample, question by question: one sample each, with its seed, its room,
    and all stops.

    Prints how many get less than the command's max_tokens, because the context ends. Raises:
    ValueError for no room at all.
    """
    given_stops = [params.stop] if isinstance(params.stop, str) else params.stop or []
    rooms = [max_model_len - len(ids) for ids in prompts]
    if min(rooms) < 1:
        raise ValueError(
            f"a prompt has {max_model_len - min(rooms)} tokens, and max_model_len is "
            f"{max_model_len}"
        )
    wanted = params.max_tokens or max_model_len
    short = [room for room in rooms if room < wanted]
    if short:
        print(
            f"max_tokens {wanted}: {len(short)} of {len(rooms)} questions get less, {min(short)} "
            "at least, because prompt and "
            f"response share max_model_len {max_model_len}"
        )
    return [
        msgspec.structs.replace(
            params,
            n=1,
            seed=sample_seed(
                model_config.seed, f"eval/{getattr(conversation, 'question_id', number)}", answer_id
            ),
            max_tokens=min(wanted, room),
            stop=stop_strings(model_config.renderer, given_stops),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
        )
        for number, (conversation, room) in enumerate(zip(conversations, rooms, strict=True))
        for answer_id in range(params.n)
    ]
