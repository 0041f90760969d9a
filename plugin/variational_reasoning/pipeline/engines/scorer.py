"""Token log-likelihoods under one model, for rows of ids and spans of them (stages 4 and 5).

The logits of a whole sequence never exist. The model's body gives hidden states, and the head is
applied to chunks of the positions that are needed, with the log-softmax in float32.

A row's numbers do not depend on the other rows of its batch. Padding is on the right, where no
earlier position can see it, so no mask is needed and the causal kernels stay usable:

    row 0:  q1 q2 z1 z2 a1      row 1, two tokens shorter:  q1 q2 z1 0 0

A model that does not fit one GPU is spread by layers over those that are visible (scoring.device:
split). transformers and accelerate maintain that, and it needs no launcher and no collective.
Throughput comes from more processes.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines.base import Span, context_length
from variational_reasoning.pipeline.engines.transformers import attention_kernel

if TYPE_CHECKING:
    import torch

VOCABULARY_TILE = 1024
"""Ids whose logits a CPU computes at once: 512 positions x 1,024 ids x 4 bytes are 2 MiB."""

LENGTH_STEP = 128
"""On a GPU a batch's padded length is a multiple of this. cuDNN's attention, which torch prefers on
an H100 or H200, makes a plan for every new shape, on the host and while the GPU waits; so few
shapes come back often, for 1 % more padding."""


class ScoredSequence(NamedTuple):
    """A row to score: ids, and the spans [start, stop) of ids whose log-likelihoods are summed;
    start is at least 1.

    support: the first span is an abstract trace, whose likelihood is that of its constrained
    sampling.
    """

    key: tuple
    token_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    support: Span | None = None


class Scorer:
    """Token log-likelihoods under one model."""

    def __init__(self, model: Any, config: Config, more_temperatures: Sequence[float] = ()) -> None:
        """
        Args:
            more_temperatures: next to scoring.temperature; the logits are computed once for all.
        """
        self.model = model
        self.batch_tokens = config.scoring.batch_tokens
        self.chunk_positions = config.scoring.chunk_positions
        self.temperatures = (config.scoring.temperature, *more_temperatures)
        self._body, self._head, self._device = _body_and_head(model)
        self.length_step = LENGTH_STEP if model.device.type == "cuda" else 1
        self._context = context_length(model.config.to_dict())
        self.is_compiled = config.scoring.compile
        if self.is_compiled:
            _compile_layers(model)
        self.note = ""
        if self._body is None:
            self.note = (
                f"{type(model).__name__} does not split into a body and a linear head; its logits "
                "of whole batches are computed, which takes memory in proportion to length x "
                "vocabulary"
            )

    def execution(self) -> dict[str, Any]:
        """How the numbers are computed, for a manifest."""
        import torch

        device = self.model.device
        name = device.type
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        return {
            "device": name,
            "attention": attention_kernel(self.model),
            "dtype": str(self.model.dtype),
            "compiled": self.is_compiled,
        }

    def score(self, sequences: Sequence[ScoredSequence]) -> list[list[float]]:
        """One sum of log p per span, in nats, at scoring.temperature, for each row in the order
        given.

        Raises: ValueError with the row's key for an empty span, a span without a token before it,
        and NaN or infinity.
        """
        failures: dict[tuple, str] = {}
        scored = self.token_logps(sequences, failures)
        for key, reason in failures.items():
            raise ValueError(f"row {key}: {reason}")
        sums = []
        for spans in scored:
            sums.append([float(logps[0].sum()) for logps in spans])
        return sums

    def token_logps(
        self,
        sequences: Sequence[ScoredSequence],
        failures: dict[tuple, str],
        progress: Callable[[int], Any] | None = None,
    ) -> list[list["torch.Tensor"]]:
        """log p of every token of every span, in nats, for each row in the order given.

        Args:
            failures: gets the reason of each row that has no numbers; such a row's list is empty.
            progress: called with the number of rows that have just been done.

        Returns: for each row and span a tensor [temperatures, tokens of the span] float64 on the
        CPU.
        """
        import torch

        copies = self._different_rows(sequences, failures)
        results: list[list[torch.Tensor]] = [[] for _ in sequences]
        if progress and failures:
            progress(len(failures))
        with torch.inference_mode():
            for i, scored in self._scored(sequences, list(copies)):
                for copy in copies[i]:
                    if isinstance(scored, str):
                        failures[sequences[copy].key] = scored
                    else:
                        results[copy] = scored
                if progress:
                    progress(len(copies[i]))
        # One sum per span is NaN or infinite where any of its tokens is.
        for i, sequence in enumerate(sequences):
            sums = [float(logps.sum()) for logps in results[i]]
            if not all(map(math.isfinite, sums)):
                results[i] = []
                failures[sequence.key] = (
                    f"its log-likelihood is {sums}; check the model's weights, or score with "
                    "scoring.dtype=float32"
                )
        return results

    def _scored(
        self, sequences: Sequence[ScoredSequence], places: Sequence[int]
    ) -> Iterator[tuple[int, "list[torch.Tensor] | str"]]:
        """(place, a tensor per span) of the rows at these places; a text where a row alone does not
        fit the memory. A batch that does not fit is halved.
        """
        import torch

        batches = deque(self._batches({i: len(sequences[i].token_ids) for i in places}))
        while batches:
            batch = batches.popleft()
            try:
                scored = self._score_batch([sequences[i] for i in batch])
            except torch.OutOfMemoryError as error:
                if len(batch) > 1:
                    # extendleft puts its last item first: the first half is next.
                    half = len(batch) // 2
                    batches.extendleft([batch[half:], batch[:half]])
                    torch.cuda.empty_cache()
                    continue
                [place] = batch
                num_tokens = len(sequences[place].token_ids)
                yield place, f"{num_tokens} tokens do not fit the memory: {str(error)[:200]}"
                continue
            yield from zip(batch, scored, strict=True)

    def _different_rows(
        self, sequences: Sequence[ScoredSequence], failures: dict[tuple, str]
    ) -> dict[int, list[int]]:
        """The first of all rows that are equal, with the numbers of all of them.

        Equal rows have equal numbers, and a sharp posterior repeats itself often. Of the rows
        A B A, with a B that cannot be scored: {0: [0, 2]}, and a reason for B.
        """
        equal: dict[tuple, list[int]] = {}
        for i, sequence in enumerate(sequences):
            reason = _fault(sequence, self._context)
            if reason:
                failures[sequence.key] = reason
                continue
            asked = (tuple(sequence.token_ids), tuple(sequence.spans), sequence.support)
            equal.setdefault(asked, []).append(i)
        return {group[0]: group for group in equal.values()}

    def _batches(self, lengths: Mapping[int, int]) -> list[list[int]]:
        """Rows of similar length together. The longest come first, so that too large a batch fails
        at the start.

        With batch_tokens 20 and the lengths 9, 8, 5, 4, 4, where a batch is as long as its first
        row: [9, 8] has 18 tokens with its padding, and [5, 4, 4] has 15.
        """
        batches: list[list[int]] = []
        longest = 0
        longest_first = sorted(lengths, key=lambda i: -lengths[i])
        for i in longest_first:
            num_rows = 1
            if batches:
                num_rows += len(batches[-1])
            is_too_large = num_rows * longest > self.batch_tokens
            if not batches or is_too_large:
                batches.append([])
                longest = lengths[i]
            batches[-1].append(i)
        return batches

    def _score_batch(self, sequences: list[ScoredSequence]) -> list[list["torch.Tensor"]]:
        """log p of every token of every span, for each row: [temperatures, tokens]."""
        import torch

        ids = self._padded_ids(sequences)
        rows, targets_at = _places_of_targets(sequences)
        needed = self._states_before(ids, rows, targets_at)
        targets = ids[rows, targets_at].to(needed.device)
        shape = (len(self.temperatures), len(rows))
        logps = torch.empty(shape, dtype=torch.float64, device=needed.device)
        # Positions of constrained traces are done first, each trace by its own support. The head
        # does the others in chunks, so that the logits of a whole batch never exist.
        is_constrained = torch.zeros(len(rows), dtype=torch.bool)
        for trace, support in _constrained_traces(sequences):
            is_constrained[trace] = True
            of_trace = self._constrained_logps(needed[trace], targets[trace], support)
            logps[:, trace] = of_trace
        [others] = (~is_constrained).nonzero(as_tuple=True)
        others = others.to(needed.device)
        for chunk in others.split(self.chunk_positions):
            of_chunk = self._chunk_logps(needed[chunk], targets[chunk])
            logps[:, chunk] = of_chunk.to(logps.dtype)
        return _by_span(logps.cpu(), sequences)

    def _states_before(
        self, ids: "torch.Tensor", rows: "torch.Tensor", columns: "torch.Tensor"
    ) -> "torch.Tensor":
        """Hidden states from which the ids at these places are predicted, [places, hidden size]; or
        logits, where the model does not split.

        What is at column t - 1 gives the log-likelihood of the id at column t. The states of the
        whole batch are freed on return.
        """
        model = self.model if self._body is None else self._body
        output = _forward(model, ids.to(self.model.device))
        whole = output.logits if self._body is None else output.last_hidden_state
        rows = rows.to(whole.device)
        columns_before = (columns - 1).to(whole.device)
        return whole[rows, columns_before].to(self._device)

    def _padded_ids(self, sequences: Sequence[ScoredSequence]) -> "torch.Tensor":
        """[rows, columns] ids, with zeros on the right of rows that are shorter."""
        import torch

        # With steps of 128, 300 tokens become 384 columns, but no more than the model has positions
        # for.
        longest = max(len(sequence.token_ids) for sequence in sequences)
        num_steps = math.ceil(longest / self.length_step)
        columns = num_steps * self.length_step
        if self._context:
            columns = min(columns, self._context)
        ids = torch.zeros(len(sequences), columns, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            num = len(sequence.token_ids)
            ids[row, :num] = torch.as_tensor(sequence.token_ids)
        return ids

    def _chunk_logps(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """log p of the targets, [temperatures, positions] float32 or float64.

        The log-sum-exp goes over tiles of the vocabulary. For five ids in tiles of two, and the
        target 3, its logit comes from the second tile:

            tiles        0 1    2 3    4
            chosen       0      l_3    l_3
            normalizer   log(e^l_0 + e^l_1), then with e^l_2 + e^l_3, then with e^l_4

        Args:
            hidden: [positions, hidden size], or logits where the model does not split.
            targets: [positions] int64.
        """
        import torch

        wide = _wide_dtype(hidden)
        num = len(targets)
        chosen = torch.zeros(num, dtype=wide, device=hidden.device)
        shape = (len(self.temperatures), num)
        normalizer = torch.full(shape, -math.inf, dtype=wide, device=hidden.device)
        for first, logits in self._tiles(hidden):
            places = targets - first
            last = logits.shape[1] - 1
            # gather needs an index everywhere; what it finds for ids of other tiles is not used.
            inside = places.clamp(0, last)
            found = logits.gather(1, inside[:, None])[:, 0].to(wide)
            is_in_tile = (places >= 0) & (places <= last)
            # In place: small tensors that stay, one for each tile, would keep the allocator from
            # using a tile's memory again.
            torch.where(is_in_tile, found, chosen, out=chosen)
            for total, temperature in zip(normalizer, self.temperatures, strict=True):
                of_tile = _log_sum_exp(logits, temperature, wide)
                torch.logaddexp(total, of_tile, out=total)
        temperatures = normalizer.new_tensor(self.temperatures)
        return chosen / temperatures[:, None] - normalizer

    def _constrained_logps(
        self, hidden: "torch.Tensor", targets: "torch.Tensor", support: Span
    ) -> "torch.Tensor":
        """log p of a trace's ids under the distribution that its sampling draws from.

        Of a trace of two symbols and the end, with min_symbols 1 and max_symbols 2:

            place              0          1                     2
            normalized over    symbols    symbols and the end   the end, so log p is 0

        Args:
            hidden: [tokens, hidden size] before each id. targets: [tokens] int64.

        Returns: [temperatures, tokens]; minus infinity for an id that could not be drawn.
        Source: arXiv 2604.22709, pi_abs.
        """
        import torch

        device = hidden.device
        ids = torch.tensor([*support.symbol_ids, support.end_id], device=device)
        logits = self._logits_of(hidden, ids)
        logits = logits.to(_wide_dtype(hidden))
        # [tokens, ids]: what can be drawn at which place.
        place = torch.arange(len(targets), device=device)[:, None]
        is_end = ids == support.end_id
        is_symbol_allowed = ~is_end & (place < support.max_symbols)
        is_end_allowed = is_end & (place >= support.min_symbols)
        is_allowed = is_symbol_allowed | is_end_allowed
        logits = logits.masked_fill(~is_allowed, -math.inf)
        temperatures = logits.new_tensor(self.temperatures)
        scaled = logits / temperatures[:, None, None]
        logps = scaled.log_softmax(dim=-1)
        # One of the ids is the target, and the sum is over it alone.
        is_target = ids == targets[:, None]
        chosen = logps.masked_fill(~is_target, 0).sum(dim=-1)
        is_known = is_target.any(dim=-1)
        return chosen.masked_fill(~is_known, -math.inf)

    def _logits_of(self, hidden: "torch.Tensor", ids: "torch.Tensor") -> "torch.Tensor":
        """The logits of some ids only: [positions, ids]."""

        head = self._head
        if head is None:
            return hidden[:, ids]
        if _is_whole(head):
            return head(hidden)[:, ids]
        return _linear_of(head, ids, hidden)

    def _tiles(self, hidden: "torch.Tensor") -> Iterator[tuple[int, "torch.Tensor"]]:
        """(first id, logits of the ids from there). On a CPU a tile stays in the cache; a GPU does
        all ids at once.
        """
        head = self._head
        if head is None:
            yield 0, hidden
            return
        if _is_whole(head) or hidden.device.type != "cpu":
            yield 0, head(hidden)
            return
        for first in range(0, head.out_features, VOCABULARY_TILE):
            ids = slice(first, first + VOCABULARY_TILE)
            yield first, _linear_of(head, ids, hidden)


def _wide_dtype(hidden: "torch.Tensor") -> "torch.dtype":
    """The type of softmax and sums: float32, or float64 where the model computes in it."""
    import torch

    if hidden.dtype == torch.float64:
        return torch.float64
    return torch.float32


def _is_whole(head: Any) -> bool:
    """Whether a head can only be called for all ids at once."""
    import torch

    # A weight is meta where a hook of accelerate fetches it for the call of its module.
    return type(head) is not torch.nn.Linear or head.weight.is_meta


def _linear_of(head: Any, ids: "slice | torch.Tensor", hidden: "torch.Tensor") -> "torch.Tensor":
    """The logits of some ids by a linear head: [positions, ids]."""
    import torch

    bias = None
    if head.bias is not None:
        bias = head.bias[ids]
    return torch.nn.functional.linear(hidden, head.weight[ids], bias)


def _constrained_traces(sequences: Sequence[ScoredSequence]) -> list[tuple[slice, Span]]:
    """Where the constrained traces are among all positions that are scored, with their supports.

    A row with the spans [3, 5) and [6, 9), of which the first is a trace of symbols, and then a row
    whose trace has four ids: the slices 0:2 and 5:9.
    """
    found = []
    first = 0
    for sequence in sequences:
        lengths = [stop - start for start, stop in sequence.spans]
        if sequence.support is not None:
            trace = slice(first, first + lengths[0])
            found.append((trace, sequence.support))
        first += sum(lengths)
    return found


def _places_of_targets(
    sequences: Sequence[ScoredSequence],
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(rows, columns) of all ids whose log-likelihood is asked for, span by span.

    Row 0 with the spans [1, 3) and [3, 4), and row 1 with [2, 4):

        rows       0 0   0   1 1
        columns    1 2   3   2 3
    """
    import torch

    rows = []
    columns = []
    for row, sequence in enumerate(sequences):
        for start, stop in sequence.spans:
            num = stop - start
            rows.append(torch.full((num,), row))
            columns.append(torch.arange(start, stop))
    return torch.cat(rows), torch.cat(columns)


def _by_span(
    logps: "torch.Tensor", sequences: Sequence[ScoredSequence]
) -> list[list["torch.Tensor"]]:
    """Log-likelihoods in the order of `_places_of_targets`, cut into rows and their spans.

    With the rows of its example, the five columns of `logps` become [[0:2, 2:3], [3:5]].
    """
    found = []
    first = 0
    for sequence in sequences:
        spans = []
        for start, stop in sequence.spans:
            after = first + stop - start
            spans.append(logps[:, first:after])
            first = after
        found.append(spans)
    return found


def _compile_layers(model: Any) -> None:
    """Let torch fuse what is between a layer's matrix products: norms, rotations, gates.

    A GPU spends a fifth of its time on them otherwise. The layers share their code, so it is
    compiled once for one row and once for more.

    Raises: ValueError for a model that does not say what its layers are.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(
            f"scoring.compile: {type(model).__name__} does not say what its layers are; set it to "
            "false"
        )
    for layer in layers:
        layer.compile(dynamic=True)


def _forward(model: Any, ids: "torch.Tensor") -> Any:
    """The model's output for ids [rows, length], which hold padding on the right only.

    The mask of ones says that there is nothing to mask, so that attention runs its causal kernel
    without one. With no mask at all, transformers 4.57 looks for packed rows and then hands every
    kernel a mask of length x length (its issue 41856): no flash attention, and the keys copied for
    every head.
    """
    return model(input_ids=ids, attention_mask=ids.new_ones(ids.shape), use_cache=False)


def _log_sum_exp(
    logits: "torch.Tensor", temperature: float, dtype: "torch.dtype"
) -> "torch.Tensor":
    """log sum exp(logits / temperature) of each row, computed in `dtype`: [positions].

    x_0 - log_softmax(x)_0 is the same as logsumexp(x), which takes twice as long on a CPU and
    copies the logits on a GPU.
    """
    scaled = logits
    if temperature != 1:
        scaled = logits.to(dtype) / temperature
    first = scaled[:, 0].to(dtype)
    first_logp = scaled.log_softmax(dim=-1, dtype=dtype)[:, 0]
    return first - first_logp


def _fault(sequence: ScoredSequence, context: int | None) -> str:
    """Why a row cannot be scored at all, or nothing.

    Args:
        context: tokens that the model has positions for, where it says so.
    """
    num = len(sequence.token_ids)
    if context and num > context:
        return (
            f"{num} tokens are more than the model has positions for, {context} "
            "(max_position_embeddings in its config.json)"
        )
    for start, stop in sequence.spans:
        if not 1 <= start < stop <= num:
            return (
                f"nothing to score in the span [{start}, {stop}) of {num} ids; "
                "a trace or a solution is empty"
            )
    return ""


def _body_and_head(model: Any) -> tuple[Any, Any, Any]:
    """(body, head, the logits' device) when head(body(x)) equals the model's logits on a probe,
    else (None, None, device).

    The probe finds what an attribute cannot tell: a scale or a soft cap that a family puts between
    head and logits, and on which device the head of a model that is split computes (a tied head
    is with the embedding, on the first).
    """
    import torch

    name_of_body = getattr(model, "base_model_prefix", "")
    body = getattr(model, name_of_body, None)
    head = model.get_output_embeddings()
    if body is None or body is model or head is None:
        return None, None, model.device
    vocabulary = model.config.get_text_config().vocab_size
    probe = torch.arange(4, device=model.device)[None] % vocabulary
    with torch.inference_mode():
        output = _forward(body, probe)
        if not hasattr(output, "last_hidden_state"):
            return None, None, model.device
        apart = head(output.last_hidden_state)
        whole = _forward(model, probe).logits
    if apart.shape != whole.shape:
        return None, None, whole.device
    expected = whole.to(apart.device).float()
    if not torch.allclose(apart.float(), expected, rtol=1e-3, atol=1e-3):
        return None, None, whole.device
    return body, head, apart.device
