"""Text generation on token ids: `transformers` as the embedded default, `vllm` where it is installed (stages 3, 6,
evaluation).

An engine takes requests and returns results in the same order. Every request has its own seed, and its random stream
is a function of that seed and the step alone: the number for step t is a hash of (seed, t), and the token is read off
the inverse cumulative distribution. So the same request gives the same tokens whatever it is batched with, up to
float noise in the logits, and no two rows share their noise.

What keeps the embedded engine fast: requests are sorted by prompt length, so that a batch needs no or little padding;
the prompt of several samples is computed once and its keys and values are expanded; finished rows leave the batch;
and stop strings are looked for only in rows whose newest token can end one."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from variational_reasoning.method.prompts import Decode, Encode
from variational_reasoning.pipeline.config import Config

if TYPE_CHECKING:
    import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_COMPACT_BELOW = 0.85
"""Finished rows leave when fewer than this share is still running: leaving copies the cache, staying computes in
vain."""


class Request(NamedTuple):
    """One sample to draw. `key` is the caller's and only appears in errors."""

    key: tuple
    prompt_ids: Sequence[int]
    max_new_tokens: int
    seed: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float


class Result(NamedTuple):
    """What was sampled, the stop string or end-of-text token included."""

    token_ids: list[int]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """What the stages need of a text generator."""

    tokenizer: Any

    def generate(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Result]:
        """Draw all samples; `progress` is called with the number of requests that have just ended."""

    def statistics(self) -> dict[str, int]:
        """Counts since the engine was made, such as prompt tokens computed and shared."""


def open_engine(config: Config, model_folder: str) -> Engine:
    """The engine that `sampling.engine` names, with the model loaded.

    Raises: ModuleNotFoundError with the install command when the engine is not installed.
    """
    if config.sampling.engine == "vllm":
        return VllmEngine(config, model_folder)
    model = load_model(model_folder, config.sampling.dtype, config.sampling.device)
    return TransformersEngine(model, load_tokenizer(model_folder), config.sampling.batch_tokens)


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of a local model folder; never from the hub."""
    transformers = _need("transformers", "train")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def text_codec(tokenizer: Any) -> tuple[Encode, Decode]:
    """(encode, decode) as method.prompts wants them: nothing is added, nothing is skipped, nothing is cleaned up."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def decode(token_ids: Sequence[int]) -> str:
        return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    return encode, decode


def load_model(folder: str, dtype: str, device: str) -> Any:
    """A causal language model from a local folder, in evaluation mode.

    Args:
        dtype: a torch dtype's name.
        device: a torch device, or auto for the first GPU when there is one.

    Raises: ModuleNotFoundError with the install command when transformers is not installed.
    """
    transformers = _need("transformers", "train")
    torch = _need("torch", "train")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device).eval()


def _need(module: str, extra: str) -> Any:
    """Import a heavy module, or say how to install it."""
    try:
        return __import__(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        message = f"{module} is not installed in this environment; install it: pip install -e '.[{extra}]'"
        raise ModuleNotFoundError(message, name=module) from error


def uniforms(seeds: np.ndarray, step: int) -> np.ndarray:
    """One uniform number in [0, 1) per seed: the 53 upper bits of a SplitMix64 hash of (seed, step).

    Args:
        seeds: [rows] uint64.
        step: index of the token, from 0.

    Returns: [rows] float64.
    """
    with np.errstate(over="ignore"):  # the hash is arithmetic modulo 2**64
        mixed = _mix(_mix(seeds + _GOLDEN) + np.uint64(step + 1) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pick_tokens(
    logits: "torch.Tensor", uniform: "torch.Tensor", temperature: "torch.Tensor", top_p: "torch.Tensor"
) -> "torch.Tensor":
    """The token at which each row's cumulative distribution passes its uniform number.

    Args:
        logits: [rows, vocabulary] float32.
        uniform: [rows] float64 in [0, 1).
        temperature: [rows] float32; 0 takes the largest logit.
        top_p: [rows] float32; below 1, only the smallest set of most likely tokens that reaches it can be drawn.

    Returns: [rows] int64; -1 where the logits are not finite.
    """
    import torch

    greedy = temperature == 0
    probs = torch.softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], dim=-1)
    if bool((top_p < 1).any()):
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        probs = probs.scatter(1, order, ordered.masked_fill(before >= top_p[:, None], 0.0))
    cumulative = probs.double().cumsum(dim=-1)
    total = cumulative[:, -1]
    tokens = torch.searchsorted(cumulative, (uniform * total)[:, None], right=True)[:, 0]
    if bool(greedy.any()):
        tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)
    return torch.where(total.isfinite() & (total > 0), tokens, -1)


class TransformersEngine:
    """Any causal language model of transformers, with a key-value cache, on one device."""

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int) -> None:
        """
        Args:
            batch_tokens: at most this many tokens (rows x longest prompt and its new tokens) are in the cache at once.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self._decode = text_codec(tokenizer)[1]
        self._vocabulary = len(tokenizer)
        self._pieces: list[str] | None = None
        self._can_end: dict[frozenset[str], np.ndarray] = {}
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self._eos = {token for token in [*ends, tokenizer.eos_token_id] if token is not None}
        self._computed = self._shared = self._sampled = 0

    def statistics(self) -> dict[str, int]:
        """Prompt tokens computed, prompt tokens that another sample had computed already, and sampled tokens."""
        return {
            "prompt_tokens_computed": self._computed,
            "prompt_tokens_shared": self._shared,
            "sampled_tokens": self._sampled,
        }

    def generate(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Result]:
        """See Engine.

        Raises: ValueError for an empty prompt or logits that are not finite, with the request's key.
        """
        import torch

        results: list[Result | None] = [None] * len(requests)
        with torch.inference_mode():
            for batch in self._batches(requests):
                rows = [requests[i] for i in batch]
                for i, result in zip(batch, self._generate_batch(rows), strict=True):
                    results[i] = result
                if progress:
                    progress(len(batch))
        return results  # type: ignore[return-value]

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Indices of requests, batch by batch: samples of one prompt and prompts of one length stand together."""
        for request in requests:
            if not request.prompt_ids or request.max_new_tokens < 1:
                raise ValueError(
                    f"request {request.key}: {len(request.prompt_ids)} prompt tokens and room for "
                    f"{request.max_new_tokens} new ones; both must be at least 1"
                )
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), tuple(requests[i].prompt_ids)))
        batch: list[int] = []
        room = 0
        for i in order:
            length = len(requests[i].prompt_ids)
            longer = batch and length > len(requests[batch[-1]].prompt_ids)
            rows = len(batch) + 1
            new_room = max(room, requests[i].max_new_tokens)
            tokens = rows * (length + new_room)
            # a change of length costs a mask and padding, so a batch that is half full ends there
            if batch and (tokens > self.batch_tokens or (longer and 2 * tokens > self.batch_tokens)):
                yield batch
                batch, new_room = [], requests[i].max_new_tokens
            batch.append(i)
            room = new_room
        if batch:
            yield batch

    def _generate_batch(self, requests: list[Request]) -> list[Result]:
        import torch
        from transformers import DynamicCache

        device = self.model.device
        prompts = list(dict.fromkeys(tuple(request.prompt_ids) for request in requests))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        longest = max(len(prompt) for prompt in prompts)
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = None
        if any(len(prompt) < longest for prompt in prompts):
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        self._computed += sum(len(prompt) for prompt in prompts)
        self._shared += sum(len(r.prompt_ids) for r in requests) - sum(len(prompt) for prompt in prompts)

        cache = DynamicCache()
        logits = self._forward(torch.tensor(padded, device=device), mask, cache)
        which = torch.tensor([place[tuple(request.prompt_ids)] for request in requests], device=device)
        if len(prompts) < len(requests):
            cache.batch_select_indices(which)
            logits = logits[which]
            mask = mask[which] if mask is not None else None

        num = len(requests)
        seeds = np.array([request.seed for request in requests], dtype=np.uint64)
        limits = np.array([request.max_new_tokens for request in requests])
        temperature = torch.tensor([float(request.temperature) for request in requests], device=device)
        top_p = torch.tensor([float(request.top_p) for request in requests], device=device)
        can_end = self._tokens_that_can_end(requests)
        sampled = np.zeros((num, int(limits.max())), dtype=np.int64)
        lengths = np.zeros(num, dtype=np.int64)
        stopped = np.zeros(num, dtype=bool)
        done = np.zeros(num, dtype=bool)
        rows = np.arange(num)  # the request of each row in the cache; rows that are done stay for a while
        for step in range(int(limits.max())):
            uniform = torch.from_numpy(uniforms(seeds[rows], step)).to(device)
            tokens = pick_tokens(logits, uniform, temperature, top_p)
            drawn = tokens.cpu().numpy()
            alive = ~done[rows]
            live, new = rows[alive], drawn[alive]
            if (new < 0).any():
                key = requests[int(live[new < 0][0])].key
                raise ValueError(f"request {key}: the model's logits are not finite at new token {step}")
            sampled[live, step] = new
            lengths[live] = step + 1
            for row in live[can_end[new]]:
                stopped[row] = self._ends(requests[row], sampled[row, : step + 1])
            done[live] = stopped[live] | (limits[live] == step + 1)
            alive = ~done[rows]
            if not alive.any():
                break
            if alive.mean() < _COMPACT_BELOW:
                keep = torch.from_numpy(np.flatnonzero(alive)).to(device)
                cache.batch_select_indices(keep)
                tokens, temperature, top_p = tokens[keep], temperature[keep], top_p[keep]
                mask = mask[keep] if mask is not None else None
                rows = rows[alive]
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._forward(tokens.clamp(min=0)[:, None], mask, cache)
        self._sampled += int(lengths.sum())
        return [Result(sampled[i, : lengths[i]].tolist(), "stop" if stopped[i] else "length") for i in range(num)]

    def _forward(self, input_ids: "torch.Tensor", mask: "torch.Tensor | None", cache: Any) -> "torch.Tensor":
        """Logits of the last position, [rows, tokenizer vocabulary] float32; `cache` grows by the new positions."""
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if self._keeps_logits:
            options["logits_to_keep"] = 1
        if mask is not None:
            options["attention_mask"] = mask
            options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        logits = self.model(input_ids=input_ids, **options).logits[:, -1]
        # rows beyond the tokenizer's vocabulary only pad the matrix; an id from there would have no text
        return logits[:, : self._vocabulary].float()

    def _tokens_that_can_end(self, requests: Sequence[Request]) -> np.ndarray:
        """[vocabulary] bool: ids that end a text, or whose piece holds the last character of a stop string."""
        if self._pieces is None:
            self._pieces = self.tokenizer.batch_decode(
                [[i] for i in range(self._vocabulary)], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        lasts = frozenset(stop[-1] for request in requests for stop in request.stop)
        if lasts in self._can_end:
            return self._can_end[lasts]
        if any(ord(last) > 127 for last in lasts):
            return np.ones(self._vocabulary, dtype=bool)  # such a character may be split over several tokens
        can_end = np.array([any(last in piece for last in lasts) for piece in self._pieces])
        can_end[[token for token in self._eos if token < self._vocabulary]] = True
        self._can_end[lasts] = can_end
        return can_end

    def _ends(self, request: Request, token_ids: np.ndarray) -> bool:
        """Whether the newest token ends the row; the tail is decoded only when its piece alone does not show it."""
        last = int(token_ids[-1])
        if last in self._eos or any(stop in self._pieces[last] for stop in request.stop):  # type: ignore[index]
            return True
        # a token holds at least one byte, so that many tokens hold any stop string that the newest one completes
        reach = max((len(stop.encode()) for stop in request.stop), default=0)
        tail = self._decode(token_ids[-reach:].tolist()) if reach else ""
        return any(stop in tail for stop in request.stop)


class VllmEngine:
    """vLLM's offline engine: paged cache, continuous batching, prefix caching across the samples of a question.

    A first, simple form: the vLLM tests and tuning belong to the sampling-at-scale work, and it has not been run where
    this was written (no GPU). Requests are sorted so that those with a common prefix are neighbours.
    """

    def __init__(self, config: Config, model_folder: str) -> None:
        """Raises: ModuleNotFoundError with the install command when vLLM is not installed."""
        vllm = _need("vllm", "vllm")
        self._vllm = vllm
        self._engine = vllm.LLM(
            model=str(model_folder),
            dtype=config.sampling.dtype,
            max_model_len=config.cutoff_len,
            tensor_parallel_size=config.sampling.tensor_parallel_size,
            gpu_memory_utilization=config.sampling.gpu_memory_utilization,
            enable_prefix_caching=True,
            generation_config="vllm",  # not the model folder's sampling defaults: ours are explicit
        )
        self.tokenizer = load_tokenizer(model_folder)
        self._sampled = 0

    def statistics(self) -> dict[str, int]:
        """Sampled tokens."""
        return {"sampled_tokens": self._sampled}

    def generate(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Result]:
        """See Engine."""
        order = sorted(range(len(requests)), key=lambda i: tuple(requests[i].prompt_ids))
        prompts = [self._vllm.TokensPrompt(prompt_token_ids=list(requests[i].prompt_ids)) for i in order]
        params = [
            self._vllm.SamplingParams(
                seed=requests[i].seed,
                temperature=requests[i].temperature,
                top_p=requests[i].top_p,
                max_tokens=requests[i].max_new_tokens,
                stop=list(requests[i].stop),
                include_stop_str_in_output=True,
                skip_special_tokens=False,
                spaces_between_special_tokens=False,
            )
            for i in order
        ]
        results: list[Result | None] = [None] * len(requests)
        for i, output in zip(order, self._engine.generate(prompts, params, use_tqdm=progress is not None), strict=True):
            sample = output.outputs[0]
            if sample.finish_reason not in ("stop", "length"):
                raise ValueError(f"request {requests[i].key}: vLLM ended it with {sample.finish_reason!r}")
            results[i] = Result(list(sample.token_ids), sample.finish_reason)
            self._sampled += len(sample.token_ids)
        if progress:
            progress(len(requests))
        return results  # type: ignore[return-value]
