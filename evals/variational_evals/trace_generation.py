"""Sampling from a model of abstract traces under SkyThought: symbols first, then the answer.

A response begins with symbols, among which nothing else may be drawn (arXiv 2604.22709). vLLM gets
two requests for it, as in `evals/run.py`, from the same engine of ours:

    1.  prompt ids                          only symbols and the end can be drawn
    2.  prompt ids, trace, end, separator   the answer, without a constraint

SkyThought's command line has no option for the constraint. Three names in --backend-args are ours
and do not reach vLLM; they are in summary.json and in the name of the result folder, as all of
--backend-args are:

    --backend-args max_symbols=128,min_symbols=1,trace_temperature=0.7
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import vllm
from skythought.evals.util.response import Response
from tqdm import tqdm

from variational_reasoning.faults import list_faults
from variational_reasoning.pipeline.config import Config, SamplingConfig
from variational_reasoning.pipeline.engines import (
    Completion,
    Engine,
    Request,
    Span,
    VllmEngine,
    text_codec,
)
from variational_reasoning.pipeline.evaluate import model_context
from variational_reasoning.pipeline.sample import sample_seed


@dataclass(frozen=True)
class TraceSettings:
    """Our names in --backend-args; see `sampling` and `eval` in docs/configuration.md.

    trace_temperature: of the symbols; None for that of the answer.
    """

    min_symbols: int = SamplingConfig.min_symbols
    max_symbols: int = SamplingConfig.max_symbols
    trace_temperature: float | None = None

    def faults(self) -> list[str]:
        """What is wrong with the values."""
        faults = []
        for name, least in (("min_symbols", 0), ("max_symbols", 1)):
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or value < least:
                faults.append(f"{name}={value!r} is not a whole number of {least} or more")
        temperature = self.trace_temperature
        is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
        if temperature is not None and not (is_number and temperature >= 0):
            faults.append(f"trace_temperature={temperature!r} is not a number of 0 or more")
        if not faults and self.min_symbols > self.max_symbols:
            faults.append(f"min_symbols={self.min_symbols} is above max_symbols={self.max_symbols}")
        return faults


def take_settings(given: Mapping[str, Any]) -> tuple[TraceSettings, dict[str, Any]]:
    """(our settings, what is left for vLLM) of --backend-args.

    Raises: ValueError that lists every value of ours that does not fit.
    """
    names = {spec.name for spec in fields(TraceSettings)}
    settings = TraceSettings(**{name: given[name] for name in names & given.keys()})
    if faults := settings.faults():
        raise ValueError(list_faults("--backend-args: symbols of abstract traces", faults))
    return settings, {name: value for name, value in given.items() if name not in names}


def configuration(
    folder: str, arguments: Mapping[str, Any], seed: int, settings: TraceSettings
) -> Config:
    """What our engine and its constraint are made from.

    Args:
        folder: of the model. arguments: of vLLM's engine.

    Raises: ValueError for a model whose context is neither given nor known.
    """
    context = arguments.get("max_model_len") or model_context(Path(folder))
    sampling = SamplingConfig(
        engine="vllm", min_symbols=settings.min_symbols, max_symbols=settings.max_symbols
    )
    return Config(cutoff_len=context, seed=seed, sampling=sampling)


def open_engine(config: Config, folder: str, arguments: Mapping[str, Any]) -> VllmEngine:
    """Our engine with SkyThought's arguments; a type that they do not name is the model's own."""
    options = {"dtype": "auto"} | dict(arguments) | {"max_model_len": config.cutoff_len}
    return VllmEngine(config, folder, **options)


def refuse_other_parameters(params: vllm.SamplingParams) -> None:
    """Raises: ValueError for --sampling-params that our engine does not have."""
    taken = vllm.SamplingParams(
        n=params.n,
        temperature=params.temperature,
        top_p=params.top_p,
        max_tokens=params.max_tokens,
        stop=params.stop,
    )
    names = params.__struct_fields__
    others = [
        name
        for name in names
        if not name.startswith("_") and getattr(params, name) != getattr(taken, name)
    ]
    if others:
        raise ValueError(
            f"--sampling-params: {', '.join(others)} cannot be set for a model of abstract traces; "
            "temperature, top_p, max_tokens, n and stop can (--seed gives the seed)"
        )


def trace_requests(
    question_ids: Sequence[str | int],
    prompts: Sequence[Sequence[int]],
    params: vllm.SamplingParams,
    seed: int,
    lengths: Sequence[int],
    stop: Sequence[str],
    span: Span,
) -> list[Request]:
    """Two samples of the questions A and B become the requests A A B B.

    Args:
        lengths: new tokens that each question may get.

    Raises: ValueError for a question without room for the longest trace and an answer.
    """
    if min(lengths) < span.least_room:
        raise ValueError(
            f"a response may have {min(lengths)} tokens, but a trace of up to {span.max_symbols} "
            f"symbols, its end, the separator and an answer need {span.least_room}; raise "
            "max_tokens or max_model_len, or lower max_symbols in --backend-args"
        )
    requests = []
    for question_id, ids, length in zip(question_ids, prompts, lengths, strict=True):
        for answer_id in range(params.n):
            request = Request(
                key=(question_id, answer_id),
                prompt_ids=ids,
                max_new_tokens=length,
                seed=sample_seed(seed, f"eval/{question_id}", answer_id),
                stop=tuple(stop),
                temperature=params.temperature,
                top_p=params.top_p,
                span=span,
            )
            requests.append(request)
    return requests


def draw(engine: Engine, requests: Sequence[Request], num_samples: int) -> list[Response]:
    """SkyThought's responses, one per question. Closes the engine."""
    _, decode = text_codec(engine.tokenizer)
    with closing(engine), tqdm(total=len(requests), unit="answer") as bar:
        samples = engine.generate(requests, bar.update)
    _warn_of_failures(samples)
    responses = []
    for start in range(0, len(requests), num_samples):
        ids = [sample.token_ids for sample in samples[start : start + num_samples]]
        response = Response(
            response=[decode(sample) for sample in ids],
            num_completion_tokens=list(map(len, ids)),
            num_input_tokens=len(requests[start].prompt_ids),
        )
        responses.append(response)
    return responses


def _warn_of_failures(samples: Sequence[Completion]) -> None:
    failed = [sample.error for sample in samples if sample.error]
    if failed:
        print(
            f"warning: {len(failed)} of {len(samples)} samples failed in the engine, such as: "
            f"{failed[0]}. They are empty and count as not correct; evals/run.py leaves them out"
        )
