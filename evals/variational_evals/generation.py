"""Sampling a reasoner's responses under SkyThought: exact prompt ids, both stops, a seed per sample.

The requests are those of `evals/run.py`. The ids come from `method.prompts`. The seed is a hash of
the run's seed, the question and the sample. All requests go to the engine at once, so SkyThought's
--batch-size has no effect.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import vllm
from huggingface_hub import snapshot_download
from skythought.evals.common.entities import Backend, BackendParameters, SamplingParameters
from skythought.evals.models import ModelConfig
from skythought.evals.util.response import Response

from variational_evals import trace_generation
from variational_evals.models import stop_strings, tensor_parallel_size
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.sample import abstract_span, sample_seed


class SeededConfig(ModelConfig):
    """SkyThought's settings of a model, and the run's seed.

    Both are in summary.json, and in the hash that names the result folder.
    """

    seed: int


class ReasonerConfig(SeededConfig):
    """The settings of a reasoner of ours.

    SkyThought only records its two fields of texts. The ids for the engine are rendered in the chat
    format.
    """

    renderer: Renderer


class Conversation(list):
    """SkyThought's list of messages, with the id of its question, which the seeds depend on."""

    question_id: str


def with_seed(backend: Backend, backend_params: BackendParameters, seed: int) -> BackendParameters:
    """The settings of vLLM's engine with the run's seed, unless the user gave one.

    Other backends have no seed.
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
            f"not the prompt that {model_config.model_id} was trained on; use --backend vllm, or "
            "evals/run.py for several GPUs"
        )
    if model_config.renderer.is_abstract:
        return generate_with_traces(
            conversations, backend_params.params, model_config, sampling_params.params
        )
    settings = engine_settings(model_config.model_id, backend_params.params)
    engine = vllm.LLM(model=model_config.model_id, **settings)
    prompts = prompt_ids(conversations, model_config.renderer, engine.get_tokenizer())
    _, decode = text_codec(engine.get_tokenizer())
    params = request_parameters(
        conversations,
        prompts,
        model_config,
        sampling_params.params,
        engine.model_config.max_model_len,
    )
    # With two samples, questions A and B are the requests A A B B.
    n = sampling_params.params.n
    requests = []
    for ids in prompts:
        requests += [vllm.TokensPrompt(prompt_token_ids=ids)] * n
    outputs = iter(engine.generate(requests, params))
    responses = []
    for ids in prompts:
        samples = [next(outputs).outputs[0].token_ids for _ in range(n)]
        response = Response(
            response=[decode(sample) for sample in samples],
            num_completion_tokens=list(map(len, samples)),
            num_input_tokens=len(ids),
        )
        responses.append(response)
    return responses


def generate_with_traces(
    conversations: Sequence[Sequence[dict[str, str]]],
    backend_args: dict[str, Any],
    model_config: ReasonerConfig,
    params: vllm.SamplingParams,
) -> list[Response]:
    """`generate` for a model of abstract traces: symbols under their constraint, then the answer.

    Raises: ValueError for --backend-args and --sampling-params that do not fit, and for a question
    without room for a trace and an answer.
    """
    traces, given = trace_generation.take_settings(backend_args)
    trace_generation.refuse_other_parameters(params)
    model, seed = model_config.model_id, model_config.seed
    folder = model if Path(model).is_dir() else snapshot_download(model)
    arguments = engine_settings(folder, given)
    config = trace_generation.configuration(folder, arguments, seed, traces)
    tokenizer = load_tokenizer(folder)
    trace_temperature = traces.trace_temperature
    if trace_temperature is None:
        trace_temperature = params.temperature
    prompts = prompt_ids(conversations, model_config.renderer, tokenizer)
    requests = trace_generation.trace_requests(
        [question_id_of(each, number) for number, each in enumerate(conversations)],
        prompts,
        params,
        seed,
        lengths=response_lengths(prompts, params.max_tokens, config.cutoff_len),
        stop=stop_strings(model_config.renderer, given_stops(params)),
        span=abstract_span(config, tokenizer, trace_temperature, model_config.renderer),
    )
    engine = trace_generation.open_engine(config, folder, arguments)
    return trace_generation.draw(engine, requests, params.n)


def prompt_ids(
    conversations: Sequence[Sequence[dict[str, str]]], renderer: Renderer, tokenizer: Any
) -> list[list[int]]:
    """The ids that training has before each target.

    Only the user's text of a conversation is read.
    """
    encode, decode = text_codec(tokenizer)
    renderer.check_codec(encode, decode, tokenizer.name_or_path)
    ids = []
    for messages in conversations:
        question = next(each["content"] for each in messages if each["role"] == "user")
        ids.append(renderer.encode_prompt("reasoner", question, None, encode))
    return ids


def engine_settings(model: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the engine: --backend-args, and defaults for what they do not set."""
    import torch

    settings: dict[str, Any] = {}
    if "tensor_parallel_size" not in given:
        settings["tensor_parallel_size"] = tensor_parallel_size(model)
        print(
            f"tensor_parallel_size {settings['tensor_parallel_size']} (another: --backend-args "
            "tensor_parallel_size=N)"
        )
    if not torch.cuda.is_available():
        # On a CPU a generator with a seed is lost when a prompt is computed in parts.
        settings["enable_chunked_prefill"] = False
    return settings | given


def request_parameters(
    conversations: Sequence[Sequence[dict[str, str]]],
    prompts: Sequence[Sequence[int]],
    model_config: ReasonerConfig,
    params: vllm.SamplingParams,
    max_model_len: int,
) -> list[vllm.SamplingParams]:
    """Parameters of every sample, question by question: its seed, its room, and all stops.

    Raises: ValueError for a prompt that fills the context.
    """
    lengths = response_lengths(prompts, params.max_tokens, max_model_len)
    for_all = msgspec.structs.replace(
        params,
        n=1,
        stop=stop_strings(model_config.renderer, given_stops(params)),
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
    )
    found = []
    for number, (conversation, length) in enumerate(zip(conversations, lengths, strict=True)):
        question_id = question_id_of(conversation, number)
        for answer_id in range(params.n):
            seed = sample_seed(model_config.seed, f"eval/{question_id}", answer_id)
            own = msgspec.structs.replace(for_all, seed=seed, max_tokens=length)
            found.append(own)
    return found


def question_id_of(conversation: Sequence[dict[str, str]], number: int) -> str | int:
    """What the seeds of a question depend on: its id, or its place for a task of SkyThought's."""
    return getattr(conversation, "question_id", number)


def given_stops(params: vllm.SamplingParams) -> list[str]:
    """The stops of --sampling-params."""
    stops = params.stop or []
    return [stops] if isinstance(stops, str) else list(stops)


def response_lengths(
    prompts: Sequence[Sequence[int]], max_tokens: int | None, max_model_len: int
) -> list[int]:
    """The new tokens that each question may get: what is asked for, or what the context leaves.

    Prints how many get less than the command's max_tokens.

    Raises: ValueError for a prompt that fills the context.
    """
    rooms = [max_model_len - len(ids) for ids in prompts]
    if min(rooms) < 1:
        raise ValueError(
            f"a prompt has {max_model_len - min(rooms)} tokens, and max_model_len is "
            f"{max_model_len}"
        )
    wanted = max_tokens or max_model_len
    short = [room for room in rooms if room < wanted]
    if short:
        print(
            f"max_tokens {wanted}: {len(short)} of {len(rooms)} questions get less, {min(short)} "
            f"at least, because prompt and response share max_model_len {max_model_len}"
        )
    return [min(wanted, room) for room in rooms]
