"""The embedded engine: any causal language model of transformers, with a key-value cache, on one
device.

The random stream of a request is a function of its seed and the step alone: the number for step t
is a hash of (seed, t), and the token is read off the inverse cumulative distribution.

What keeps it fast: prompts of similar length are batched, so that little is padded; what prompts
have in common is computed once, level by level (`shared_prefixes`), and its keys and values are
copied; finished rows leave the batch; and stop strings are looked for only in rows whose newest
token can end one."""

import importlib.util
import inspect
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from variational_reasoning.packages import need
from variational_reasoning.pipeline.engines.base import (
    Completion,
    Engine,
    Request,
    check_requests,
    end_tokens,
    text_codec,
)
from variational_reasoning.pipeline.engines.spans import OpenSpans

if TYPE_CHECKING:
    import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_COMPACT_BELOW = 0.85
"""Finished rows leave when fewer than this share is still running: leaving copies the cache,
staying computes rows that are done."""
_LEAST_SHARED = 16
"""Ids that a prefix must add to the one before it: less is not worth a forward pass of its own."""

Prompt = tuple[int, ...]
KeysValues = list[tuple["torch.Tensor", "torch.Tensor"]]
"""(keys, values) of each layer, [heads, tokens, head size]."""
T = TypeVar("T")


def load_model(folder: str, dtype: str, device: str, attention: str = "auto") -> Any:
    """A causal language model from a local folder, in evaluation mode.

    Args:
        dtype: a torch dtype's name.
        device: a torch device; auto for a GPU when there is one, torchrun's own for this process;
            split for a model that does not fit one GPU: its layers are spread over all that are
            visible.
        attention: an attention kernel by transformers' name, or auto for its choice.

    Raises: ModuleNotFoundError with the install command when transformers is not installed;
    ValueError for a device or an attention kernel that is not there, and for weights that cannot be
    read.
    """
    transformers = need("transformers", "train")
    torch = need("torch", "train")
    from safetensors import SafetensorError

    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "local_files_only": True}
    if attention != "auto":
        options["attn_implementation"] = attention
    if device == "auto":
        device = _own_device()
    if device == "split":
        options["device_map"] = "auto"
    else:
        _check_device(device)
        if importlib.util.find_spec("accelerate"):
            # Straight to the device: eight processes of a node do not each hold the weights in the
            # host's memory first.
            options["device_map"] = {"": device}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), **options)
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {folder} cannot be read ({error}); copy or train the model again"
        ) from error
    except ImportError as error:
        if attention == "auto":
            raise
        raise ValueError(
            f"attention: {attention!r} cannot be used here; set it to auto. {error}"
        ) from error
    if "device_map" not in options:
        model = model.to(device)
    return model.eval()


def _own_device() -> str:
    """This process's GPU under torchrun, the first one elsewhere, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    local_rank = os.environ.get("LOCAL_RANK", 0)
    return f"cuda:{local_rank}"


def _check_device(device: str) -> None:
    """Raises: ValueError for a name that torch does not know, and for a GPU that is not there."""
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device: {device!r} is not a device that torch knows; allowed are auto, cpu, cuda, "
            "cuda:1, split"
        ) from error
    num = torch.cuda.device_count()
    index = wanted.index or 0  # `cuda` without a number is the first one
    if wanted.type == "cuda" and index >= num:
        raise ValueError(
            f"device: {device!r} is not there, torch sees {num} GPUs; set it to auto or cpu, or "
            "ask for a GPU"
        )


def attention_kernel(model: Any) -> str:
    """The attention implementation that transformers chose for a model."""
    return str(getattr(model.config, "_attn_implementation", None))


def uniforms(seeds: np.ndarray, step: int) -> np.ndarray:
    """One uniform number in [0, 1) per seed: the 53 upper bits of a SplitMix64 hash of (seed,
    step).

    Args:
        seeds: [rows] uint64.
        step: index of the token, from 0.

    Returns: [rows] float64.
    """
    with np.errstate(over="ignore"):  # the hash is arithmetic modulo 2**64
        mixed_seeds = _mix(seeds + _GOLDEN)
        offset = np.uint64(step + 1) * _GOLDEN
        mixed = _mix(mixed_seeds + offset)
    # A float64 holds 53 bits without rounding, so the result stays below 1.
    upper_bits = mixed >> np.uint64(11)
    return upper_bits.astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: every bit of x changes about half of the bits of the result."""
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pick_tokens(
    logits: "torch.Tensor",
    uniform: "torch.Tensor",
    temperature: "torch.Tensor",
    top_p: "torch.Tensor",
) -> "torch.Tensor":
    """The token at which each row's cumulative distribution passes its uniform number.

    Of three tokens with the probabilities 0.5, 0.3, 0.2 and the cumulative sums 0.5, 0.8, 1.0, the
    number 0.6 picks token 1. With top_p 0.7, token 2 is left out, since the tokens before it
    already hold 0.8; then 0.6 x 0.8 = 0.48 picks token 0.

    Args:
        logits: [rows, vocabulary] float32.
        uniform: [rows] float64 in [0, 1).
        temperature: [rows] float32; 0 takes the largest logit.
        top_p: [rows] float32; below 1, only the smallest set of most likely tokens that reaches it
            can be drawn.

    Returns: [rows] int64; -1 where the logits are not finite.
    """
    import torch

    is_greedy = temperature == 0
    divisor = torch.where(is_greedy, 1.0, temperature)
    probs = torch.softmax(logits / divisor[:, None], dim=-1)
    if bool((top_p < 1).any()):
        probs = _most_likely(probs, top_p)
    # The sums may end a little below or above 1, so the number is taken as a share of the last one.
    cumulative = probs.double().cumsum(dim=-1)
    total = cumulative[:, -1]
    wanted = uniform * total
    tokens = torch.searchsorted(cumulative, wanted[:, None], right=True)[:, 0]
    if bool(is_greedy.any()):
        tokens = torch.where(is_greedy, logits.argmax(dim=-1), tokens)
    is_valid = total.isfinite() & (total > 0)
    return torch.where(is_valid, tokens, -1)


def _most_likely(probs: "torch.Tensor", top_p: "torch.Tensor") -> "torch.Tensor":
    """The probabilities [rows, vocabulary], with 0 for tokens outside the smallest set that reaches
    top_p [rows].

    A token is outside when those that are more likely reach top_p without it.
    """
    ordered, order = probs.sort(dim=-1, descending=True)
    sum_before = ordered.cumsum(dim=-1) - ordered
    is_outside = sum_before >= top_p[:, None]
    kept = ordered.masked_fill(is_outside, 0.0)
    return probs.scatter(1, order, kept)


def shared_prefixes(prompts: Sequence[Prompt]) -> list[list[int]]:
    """For each prompt, the lengths of the prefixes that it shares with others, ascending.

    They are the system prompt's, the question's, the trace's. With letters for ids, and prefixes
    that must add 2 ids to the one before:

        prompt          agrees with the next in    result
        0  s s a a x    4                          [2, 4]
        1  s s a a y    2                          [2, 4]
        2  s s b b      -                          [2]

    All three share `ss`. The first two also share `ssaa`, which adds 2 ids.

    Args:
        prompts: sorted and different.

    Returns: lengths, each below the prompt's own length; neighbors differ by at least
    _LEAST_SHARED.
    """
    cuts: list[list[int]] = [[] for _ in prompts]
    # common[i] is for the prompts i and i + 1. A run of prompts agrees in as many ids as the least
    # of its neighbors, because the prompts are sorted.
    common = [_num_common(a, b) for a, b in itertools.pairwise(prompts)]

    def split(begin: int, end: int, start: int) -> None:
        """Prompts begin to end - 1 agree in `start` ids; cut the groups that agree in more."""
        least = start + _LEAST_SHARED
        for first, last in _runs(common, begin, end, least):
            length = min(common[first:last])
            after = last + 1
            for place in range(first, after):
                if length < len(prompts[place]):
                    cuts[place].append(length)
            split(first, after, length)

    split(0, len(prompts), 0)
    return cuts


def _runs(common: Sequence[int], begin: int, end: int, least: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of two prompts or more whose neighbors agree in `least` ids or
    more.

    With common = [4, 2] for three prompts, least = 3 gives (0, 1), and least = 2 gives (0, 2).
    """
    first = begin
    for place in range(begin, end):
        agrees_with_next = place < end - 1 and common[place] >= least
        if agrees_with_next:
            continue
        if place > first:
            yield first, place
        first = place + 1


def _num_common(a: Prompt, b: Prompt) -> int:
    """How many ids two prompts agree in before they differ."""
    num = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        num += 1
    return num


class _Batch:
    """The requests of a batch while they are drawn.

    Rows of the cache and requests have numbers of their own, because requests that are done leave
    the cache, and not at once. Of four requests, 1 ends at step 0 and 2 at step 1:

        after step    alive_rows()    rows
        0             T F T T         0 1 2 3    75 % run: request 1 leaves, rows becomes 0 2 3
        1             T F T           0 2 3      67 % run: request 2 leaves, rows becomes 0 3

    rows: the request of each row. sampled: [requests, num_steps] ids, of which request i has
    lengths[i]. stopped: an end was found. done: stopped, failed, or at its limit.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        num = len(requests)
        seeds = [request.seed for request in requests]
        limits = [request.max_new_tokens for request in requests]
        self.requests = requests
        self.seeds = np.array(seeds, dtype=np.uint64)
        self.limits = np.array(limits)
        self.num_steps = max(limits)
        self.rows = np.arange(num)
        self.sampled = np.zeros((num, self.num_steps), dtype=np.int64)
        self.lengths = np.zeros(num, dtype=np.int64)
        self.stopped = np.zeros(num, dtype=bool)
        self.done = np.zeros(num, dtype=bool)
        self.errors: dict[int, str] = {}

    def alive_rows(self) -> np.ndarray:
        """[rows] bool: whose requests are still drawn."""
        return ~self.done[self.rows]

    def keep_rows(self, is_kept: np.ndarray) -> None:
        """The other rows have left the cache."""
        self.rows = self.rows[is_kept]

    def record(
        self,
        step: int,
        drawn: np.ndarray,
        can_end: np.ndarray,
        ends: Callable[[Request, np.ndarray], bool],
    ) -> None:
        """Take the new token of every row; rows whose request is done have one that is not used.

        Args:
            drawn: [rows] ids, -1 where the logits were not finite.
            can_end: [vocabulary] bool: ids after which `ends` is worth asking.
            ends: whether a request is at its end after these ids.
        """
        is_alive = self.alive_rows()
        live = self.rows[is_alive]
        new = drawn[is_alive]
        has_failed = new < 0
        for request in live[has_failed]:
            message = f"the model's logits are not finite at new token {step}"
            self.errors[int(request)] = message
            self.done[request] = True
        live = live[~has_failed]
        new = new[~has_failed]
        length = step + 1
        self.sampled[live, step] = new
        self.lengths[live] = length
        # Most tokens cannot end a text, so only a few rows are asked one by one.
        for request in live[can_end[new]]:
            ids = self.sampled[request, :length]
            self.stopped[request] = ends(self.requests[request], ids)
        is_at_limit = self.limits[live] == length
        self.done[live] = self.stopped[live] | is_at_limit

    def completions(self) -> list[Completion]:
        """What each request got, in their order."""
        return [self._completion(request) for request in range(len(self.requests))]

    def _completion(self, request: int) -> Completion:
        if request in self.errors:
            return Completion([], "error", self.errors[request])
        length = self.lengths[request]
        ids = self.sampled[request, :length].tolist()
        return Completion(ids, "stop" if self.stopped[request] else "length")


class TransformersEngine(Engine):
    """See the module docstring."""

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int) -> None:
        """
        Args:
            batch_tokens: at most this many tokens (rows x longest prompt and its new tokens) are in
                a batch's cache at once, and at most as many again in the cache of shared prefixes;
                one row may have more.
        """
        super().__init__(tokenizer)
        self.model = model
        self.batch_tokens = batch_tokens
        self._decode = text_codec(tokenizer)[1]
        self._vocabulary = len(tokenizer)
        self._pieces: list[str] | None = None
        self._can_end: dict[frozenset[str], np.ndarray] = {}
        parameters = inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in parameters
        self._eos = end_tokens(model.generation_config, tokenizer)

    def execution(self) -> dict[str, Any]:
        """See Engine."""
        return {"device": str(self.model.device), "attention": attention_kernel(self.model)}

    def stream(
        self, groups: Iterable[Sequence[Request]], progress: Callable[[int], Any] | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See Engine; one group after the other."""
        if progress is None:
            progress = _ignore
        for number, requests in enumerate(groups):
            yield number, self._draw(requests, progress)

    def _draw(
        self, requests: Sequence[Request], progress: Callable[[int], Any]
    ) -> list[Completion]:
        """The samples of a group.

        Prompts go in blocks whose shared prefixes fit the cache, the requests of a block in batches
        of similar length. `numbers` are places in `requests`.
        """
        import torch

        check_requests(requests)
        numbers_of: dict[Prompt, list[int]] = {}
        for number, request in enumerate(requests):
            self._prompt_tokens += len(request.prompt_ids)
            prompt = tuple(request.prompt_ids)
            numbers_of.setdefault(prompt, []).append(number)
        prompts = sorted(numbers_of)
        results: dict[int, Completion] = {}
        with torch.inference_mode():
            for block in self._blocks(prompts, shared_prefixes(prompts)):
                numbers: list[int] = []
                for prompt in block:
                    numbers += numbers_of[prompt]
                for number, completion in self._draw_block(requests, numbers, block):
                    results[number] = completion
                    progress(1)
        return [results[number] for number in range(len(requests))]

    def _draw_block(
        self, requests: Sequence[Request], numbers: list[int], block: dict[Prompt, list[int]]
    ) -> Iterator[tuple[int, Completion]]:
        """(number, sample) of each of these requests; a batch that does not fit the memory is
        halved.
        """
        import torch

        def length(number: int) -> int:
            return len(requests[number].prompt_ids)

        def size(number: int) -> tuple[int, int]:
            return length(number), requests[number].max_new_tokens

        stems = self._compute_stems(block)
        stem_of = {}
        for prompt, cuts in block.items():
            stem_of[prompt] = _longest_prefix(prompt, cuts)
        by_length = sorted(numbers, key=length)
        batches = deque(self._batches(by_length, size))
        while batches:
            batch = batches.popleft()
            chosen = [requests[number] for number in batch]
            try:
                drawn = self._draw_batch(chosen, stem_of, stems)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if len(batch) > 1:
                    # extendleft puts its last item first: the first half is next.
                    half = len(batch) // 2
                    batches.extendleft([batch[half:], batch[:half]])
                    continue
                message = f"the row alone does not fit the memory: {str(error)[:200]}"
                drawn = [Completion([], "error", message)]
            yield from zip(batch, drawn, strict=True)

    def _blocks(
        self, prompts: Sequence[Prompt], cuts: Sequence[list[int]]
    ) -> Iterator[dict[Prompt, list[int]]]:
        """Runs of prompts with their prefixes' lengths. The prefixes of a run fit the cache
        together.
        """
        block: dict[Prompt, list[int]] = {}
        stems: set[Prompt] = set()
        num_tokens = 0
        for prompt, lengths in zip(prompts, cuts, strict=True):
            # Sorted prompts have their common prefixes in common with their neighbors, so most of
            # these are in the run already.
            prefixes = {prompt[:length] for length in lengths}
            added = sum(map(len, prefixes - stems))
            if block and num_tokens + added > self.batch_tokens:
                yield block
                block = {}
                stems = set()
                num_tokens = 0
                added = sum(map(len, prefixes))
            block[prompt] = lengths
            stems |= prefixes
            num_tokens += added
        if block:
            yield block

    def _compute_stems(self, block: dict[Prompt, list[int]]) -> dict[Prompt, KeysValues]:
        """Keys and values of every shared prefix of a block, each computed on top of the prefix
        before it.

        With the prompts of `shared_prefixes`: first `ss` on top of nothing, then `ssaa` on top of
        `ss`, of which two ids are computed.
        """
        stems: dict[Prompt, KeysValues] = {(): []}
        num_depths = max(len(cuts) for cuts in block.values())
        for depth in range(num_depths):
            parents: dict[Prompt, Prompt] = {}
            for prompt, cuts in block.items():
                if len(cuts) > depth:
                    length = cuts[depth]
                    prefix = prompt[:length]
                    parents[prefix] = _longest_prefix(prompt, cuts[:depth])
            by_length = sorted(parents, key=len)
            batches = self._batches(by_length, lambda prefix: (len(prefix), 0))
            for prefixes in batches:
                cache, _, _ = self._prefill(prefixes, parents, stems)
                for row, prefix in enumerate(prefixes):
                    stems[prefix] = _last_columns(cache, row, len(prefix))
        return stems

    def _batches(self, items: Sequence[T], size: Callable[[T], tuple[int, int]]) -> list[list[T]]:
        """Cut items into batches. A change of length costs a mask and padding, so a batch that is
        half full ends there.

        Example, batch_tokens = 100, every item may get 10 tokens:

            tokens of the items      10    10    12    12
            of the batch with it     20    40    66    44
            batches                  0     0     1     1      66 is more than half, and 12 is not 10

        Args:
            items: sorted by length.
            size: (tokens that an item has, tokens that it may get).
        """
        batches: list[list[T]] = []
        longest = room = 0
        for item in items:
            length, new = size(item)
            num_rows = 1
            if batches:
                num_rows += len(batches[-1])
            tokens = num_rows * (length + max(room, new))
            is_at_most_half = 2 * tokens <= self.batch_tokens
            is_as_long = length == longest and tokens <= self.batch_tokens
            fits = is_as_long or is_at_most_half
            if not batches or not fits:
                batches.append([])
                room = 0
            batches[-1].append(item)
            longest = length
            room = max(room, new)
        return batches

    def _prefill(
        self,
        prompts: Sequence[Prompt],
        stem_of: Mapping[Prompt, Prompt],
        stems: Mapping[Prompt, KeysValues],
    ) -> tuple[Any, "torch.Tensor", "torch.Tensor | None"]:
        """Keys and values of prompts, of which those of a prefix (the stem) are known.

        Rows are padded on the left. The same number of columns is computed for all rows, and the
        columns before them are copied from the stems. A prompt of 5 ids with a stem of 3, and one
        of 4 ids with a stem of 3:

            column    0 1 2 3 4
            5 ids     s s s x x      s copied from the stem, x computed
            4 ids     - s s x x      its last id of the stem is computed again

        Returns: (cache, logits after the last column, mask [rows, columns] or None when no row is
        padded).
        """
        import torch
        from transformers import DynamicCache

        device = self.model.device
        longest = 0
        computed = 0
        for prompt in prompts:
            num_unknown = len(prompt) - len(stem_of[prompt])
            longest = max(longest, len(prompt))
            computed = max(computed, num_unknown)
        copied = longest - computed
        cache = DynamicCache()
        if copied:
            _copy_stems(cache, prompts, computed, stem_of, stems)
        padded = []
        is_real = []
        for prompt in prompts:
            length = len(prompt)
            num_padding = longest - length
            padded.append((0,) * num_padding + prompt)
            is_real.append((0,) * num_padding + (1,) * length)
            self._computed += min(computed, length)
        ids = torch.tensor(padded, device=device)[:, copied:]
        mask = None
        is_padded = any(len(prompt) < longest for prompt in prompts)
        if is_padded:
            mask = torch.tensor(is_real, device=device)
        logits = self._forward(ids, mask, cache)
        return cache, logits, mask

    def _draw_batch(
        self,
        requests: list[Request],
        stem_of: Mapping[Prompt, Prompt],
        stems: Mapping[Prompt, KeysValues],
    ) -> list[Completion]:
        """The samples of requests whose keys and values fit the memory together."""
        import torch

        device = self.model.device
        cache, logits, mask = self._prefill_requests(requests, stem_of, stems)
        temperatures = [float(request.temperature) for request in requests]
        temperature = torch.tensor(temperatures, device=device)
        top_p = torch.tensor([float(request.top_p) for request in requests], device=device)
        can_end = self._tokens_that_can_end(requests)
        batch = _Batch(requests)
        spans = OpenSpans(requests)
        for step in range(batch.num_steps):
            # `logits` has a row for each row of the cache, also for requests that are done but have
            # not left it. Their draws are not used.
            noise = uniforms(batch.seeds[batch.rows], step)
            uniform = torch.from_numpy(noise).to(device)
            allowed = logits
            heat = temperature
            if spans.is_open.any():
                allowed, heat = spans.constrain(logits, temperature, batch.rows, step)
            tokens = pick_tokens(allowed, uniform, heat, top_p)
            drawn = tokens.cpu().numpy()
            spans.record(batch.rows, drawn)
            batch.record(step, drawn, can_end, self._ends)
            is_alive = batch.alive_rows()
            if not is_alive.any():
                break
            if is_alive.mean() < _COMPACT_BELOW:
                # Everything that has a row for each row of the cache loses the same ones.
                keep = torch.from_numpy(np.flatnonzero(is_alive)).to(device)
                cache.batch_select_indices(keep)
                tokens = tokens[keep]
                temperature = temperature[keep]
                top_p = top_p[keep]
                if mask is not None:
                    mask = mask[keep]
                batch.keep_rows(is_alive)
            if mask is not None:
                of_new_column = mask.new_ones(len(batch.rows), 1)
                mask = torch.cat([mask, of_new_column], dim=1)
            # A row that has failed holds -1, and stays until the next compaction.
            logits = self._forward(tokens.clamp(min=0)[:, None], mask, cache)
        self._sampled += int(batch.lengths.sum())
        return batch.completions()

    def _prefill_requests(
        self,
        requests: Sequence[Request],
        stem_of: Mapping[Prompt, Prompt],
        stems: Mapping[Prompt, KeysValues],
    ) -> tuple[Any, "torch.Tensor", "torch.Tensor | None"]:
        """`_prefill` with a row per request: a prompt of several requests is computed once and
        copied.

        Requests of the prompts A A B need the rows [0, 0, 1] of the two that were computed.
        """
        import torch

        rows = []
        row_of: dict[Prompt, int] = {}
        for request in requests:
            prompt = tuple(request.prompt_ids)
            row = row_of.setdefault(prompt, len(row_of))
            rows.append(row)
        cache, logits, mask = self._prefill(list(row_of), stem_of, stems)
        if len(row_of) == len(requests):
            return cache, logits, mask
        which = torch.tensor(rows, device=self.model.device)
        cache.batch_select_indices(which)
        if mask is not None:
            mask = mask[which]
        return cache, logits[which], mask

    def _forward(
        self, input_ids: "torch.Tensor", mask: "torch.Tensor | None", cache: Any
    ) -> "torch.Tensor":
        """Logits of the last position, [rows, tokenizer vocabulary] float32; `cache` grows by the
        new positions.
        """
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if self._keeps_logits:
            options["logits_to_keep"] = 1
        if mask is not None:
            # A position counts the real ids before it: the mask 0 0 1 1 1 gives 0 0 0 1 2.
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            num_new = input_ids.shape[1]
            options["attention_mask"] = mask
            options["position_ids"] = positions[:, -num_new:]
        output = self.model(input_ids=input_ids, **options)
        logits = output.logits[:, -1]
        # Rows beyond the tokenizer's vocabulary only pad the matrix. An id from there would have no
        # text.
        return logits[:, : self._vocabulary].float()

    def _tokens_that_can_end(self, requests: Sequence[Request]) -> np.ndarray:
        """[vocabulary] bool: ids that end a text, or whose piece holds the last character of a stop
        string.

        Example: the stop string `</end>` and the pieces `</`, `end`, `>.`. Only `>.` can end it.
        """
        if self._pieces is None:
            self._pieces = self.tokenizer.batch_decode(
                [[token] for token in range(self._vocabulary)],
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
        stops: set[str] = set()
        for request in requests:
            stops.update(request.stop)
        lasts = frozenset(stop[-1] for stop in stops)
        if lasts in self._can_end:
            return self._can_end[lasts]
        is_ascii = all(last.isascii() for last in lasts)
        if not is_ascii:
            # Such a character may be split over several tokens, and no piece shows it.
            return np.ones(self._vocabulary, dtype=bool)
        can_end = np.array([not lasts.isdisjoint(piece) for piece in self._pieces])
        for token in self._eos:
            if token < self._vocabulary:
                can_end[token] = True
        self._can_end[lasts] = can_end
        return can_end

    def _ends(self, request: Request, token_ids: np.ndarray) -> bool:
        """Whether the newest token ends the row.

        The tail is decoded only where the newest token's piece alone does not show it.
        """
        last = int(token_ids[-1])
        if last in self._eos:
            return True
        if not request.stop:
            return False
        assert self._pieces is not None  # _tokens_that_can_end has read them
        if any(stop in self._pieces[last] for stop in request.stop):
            return True
        # A token holds one byte at least. So as many tokens as the longest stop string has bytes
        # hold any stop string that the newest one completes.
        num_bytes = max(len(stop.encode()) for stop in request.stop)
        last_ids = token_ids[-num_bytes:].tolist()
        tail = self._decode(last_ids)
        return any(stop in tail for stop in request.stop)


def _ignore(num: int) -> None:
    """The progress of a caller who does not ask for it."""


def _longest_prefix(prompt: Prompt, cuts: Sequence[int]) -> Prompt:
    """The prompt up to the last of these lengths; the empty prefix without any."""
    return prompt[: cuts[-1]] if cuts else ()


def _last_columns(cache: Any, row: int, num: int) -> KeysValues:
    """Copies of the last `num` columns of one row of a cache: of every layer, keys and values."""
    copies = []
    for layer in cache.layers:
        keys = layer.keys[row, :, -num:].clone()
        values = layer.values[row, :, -num:].clone()
        copies.append((keys, values))
    return copies


def _copy_stems(
    cache: Any,
    prompts: Sequence[Prompt],
    num_computed: int,
    stem_of: Mapping[Prompt, Prompt],
    stems: Mapping[Prompt, KeysValues],
) -> None:
    """Fill an empty cache with the stems' columns, aligned on the right as `_prefill` shows.

    Args:
        num_computed: columns at the end of every row that are not copied.
    """
    longest = max(prompts, key=len)
    num_copied = len(longest) - num_computed
    # The longest prompt has more ids than are computed, so it has a stem.
    layers = stems[stem_of[longest]]
    for layer, (some_keys, some_values) in enumerate(layers):
        keys = _zero_columns(some_keys, len(prompts), num_copied)
        values = _zero_columns(some_values, len(prompts), num_copied)
        for row, prompt in enumerate(prompts):
            num_used = len(prompt) - num_computed
            if num_used <= 0:  # all of a short prompt is computed
                continue
            stem_keys, stem_values = stems[stem_of[prompt]][layer]
            first = num_copied - num_used  # the columns before it are padding
            keys[row, :, first:] = stem_keys[:, :num_used]
            values[row, :, first:] = stem_values[:, :num_used]
        cache.update(keys, values, layer)


def _zero_columns(like: "torch.Tensor", num_rows: int, num_columns: int) -> "torch.Tensor":
    """Zeros of the shape [rows, heads, columns, head size].

    Args:
        like: [heads, tokens, head size], of the same layer.
    """
    num_heads, _, head_size = like.shape
    return like.new_zeros(num_rows, num_heads, num_columns, head_size)
