"""Stages 4 and 5: log-likelihoods of every trace, and of the reference solution after it (terms of rho, before Eq. 8).

For a question x, a trace z and a model: trace_logp = sum over the trace's ids of log p(z_t | prompt, z_<t), in nats,
on the ids that were sampled, boundary included. For the reasoner also answer_logp, the same sum over the ids of the
reference solution that follow prompt, trace and the fixed tags; the tags themselves are not counted. The posterior's
prompt holds the solution as the hint, so it is not asked for an answer.

The logits of a whole sequence never exist: the model's body gives hidden states, and the head is applied to chunks of
the positions that are needed, with the log-softmax in float32. A row's numbers do not depend on the rows beside it:
padding stands on the right, where no earlier position can see it, so no mask is needed and the causal kernels stay
usable. The paper compares at temperature 1; `scoring.temperature` divides the logits, and at_sampling_temperature adds
the same sums for the distribution that the traces were really drawn from.

A model that does not fit one GPU is spread by layers over those that are visible (scoring.device: split): transformers
and accelerate maintain that, it needs no launcher and no collective, and throughput comes from processes, not from it."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from variational_reasoning.method.prompts import (
    chat_format_to_dict,
    encode_answer,
    load_chat_format,
    render_prompt,
)
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import (
    attention_kernel,
    context_length,
    load_model,
    load_tokenizer,
    text_codec,
)
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    open_stage,
    read_rows,
    table_digest,
)
from variational_reasoning.pipeline.sample import (
    Summary,
    check_context,
    check_prompt_kind,
    check_vocabulary,
    training_questions,
)
from variational_reasoning.pipeline.work.job import Job, Shard, ShardByShard, run

if TYPE_CHECKING:
    import torch

SCORED_MODELS = ("reasoner", "posterior")
VOCABULARY_TILE = 1024
"""Ids whose logits a CPU computes at once: 512 positions x 1,024 ids x 4 bytes are 2 MiB."""
LENGTH_STEP = 128
"""On a GPU a batch's padded length is a multiple of this. cuDNN's attention, which torch prefers on an H100 or H200, makes a
plan for every new shape, on the host and while the GPU waits; so few shapes come back often, for 1 % more padding."""
QUADRATIC_TOKENS = 27_000
"""Length at which attention takes as long as all else (27.3k for Qwen3-4B); only the balance of shares depends on it."""


class ScoredSequence(NamedTuple):
    """A row to score: ids, and the spans [start, stop) of ids whose log-likelihoods are summed; start is at least 1."""

    key: tuple
    token_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


def score_traces(config: Config, model_name: str) -> Summary:
    """Stage 4 (reasoner) or 5 (posterior): log-likelihoods of the well-formed traces, into run_dir/trace_logps/<model>.

    Malformed traces are counted and not scored: their ids do not end with the boundary, so the ratio would compare
    different events. Rows beyond cutoff_len are dropped and counted, because no training could use them. Values that are
    not finite are failed rows. With scoring.score_only: verified, traces without a verified answer are skipped and
    counted, except those that a build output with the fallback gml could still choose.

    Args:
        model_name: reasoner or posterior.

    Raises: ValueError for another name, a model trained on another prompt, another tokenizer, and too many failed rows.
    """
    if model_name not in SCORED_MODELS:
        raise ValueError(f"model={model_name!r} is not one of {', '.join(SCORED_MODELS)}")
    return run(reasoner_job if model_name == "reasoner" else posterior_job, config)


def reasoner_job(config: Config) -> Job:
    """Check what stage 4 reads and open its table."""
    return _job(config, "reasoner", "reasoner")


def posterior_job(config: Config) -> Job:
    """Check what stage 5 reads and open its table."""
    return _job(config, "posterior", config.posterior_prompt)


def _job(config: Config, name: str, kind: str) -> Job:
    chat_format = load_chat_format(config.chat_format)
    folder, model_folder = config.folder("trace_logps", name), config.model_folder(name)
    check_prompt_kind(model_folder, kind, chat_format, config)
    check_context(model_folder, config)
    questions = {row["question_id"]: row for row in training_questions(config)}
    columns = ["question_id", "trace_id", "token_ids", "is_well_formed", "temperature"]
    traces = read_rows(config.folder("traces"), "traces", columns)
    by_question = group_by(traces, "question_id")
    units = [question_id for question_id in questions if question_id in by_question]
    settings = ("cutoff_len", "scoring.temperature", "scoring.dtype", "scoring.score_only")
    identity_config = {
        "prompt_kind": kind,
        "chat_format": chat_format_to_dict(chat_format),
        **resolved(config, *settings),
    }
    identity_config |= resolved(config, "scoring.at_sampling_temperature", "scoring.token_logps")
    inputs = {
        "questions": table_digest(config.folder("questions"), "questions"),
        "traces": table_digest(config.folder("traces"), "traces"),
    }
    unwanted: set[tuple[str, int]] = set()
    if config.scoring.score_only == "verified":
        keep = any(output.fallback == "gml" for output in config.build.outputs)
        unwanted = traces_of_zero_accuracy(
            read_rows(
                config.folder("verdicts"), "verdicts", ["question_id", "trace_id", "verdict"]
            ),
            keep,
        )
        inputs["verdicts"] = table_digest(config.folder("verdicts"), "verdicts")
        identity_config["kept_for_fallback"] = keep
    temperatures = {trace["temperature"] for trace in traces}
    if config.scoring.at_sampling_temperature and (len(temperatures) > 1 or 0 in temperatures):
        raise ValueError(
            f"scoring.at_sampling_temperature needs traces of one temperature above 0; {config.folder('traces')} has "
            f"{sorted(temperatures)}"
        )

    def cost(unit: str) -> float:
        lengths = [
            len(t["token_ids"])
            for t in by_question[unit]
            if t["is_well_formed"] and (unit, t["trace_id"]) not in unwanted
        ]
        return sum(length + length**2 / QUADRATIC_TOKENS for length in lengths)

    def load() -> TraceScorer:
        tokenizer = load_tokenizer(str(model_folder))
        check_vocabulary(config, tokenizer, model_folder)
        model = load_model(
            str(model_folder), config.scoring.dtype, config.scoring.device, config.scoring.attention
        )
        extra = [temperatures.pop()] if config.scoring.at_sampling_temperature else []
        scorer = Scorer(model, config, extra)
        if scorer.note:
            print(scorer.note)
        return TraceScorer(config, kind, questions, by_question, unwanted, tokenizer, scorer)

    return Job(
        stage=open_stage(
            folder,
            "trace_logps",
            Identity(inputs, identity_config, model_identity(model_folder)),
            units,
            config.scoring.questions_per_shard,
        ),
        title=f"reads {len(traces)} traces of {len(units)} questions, {name} {model_folder} ({kind}); writes {folder}",
        row="trace",
        size=lambda unit: len(by_question[unit]),
        cost=cost,
        load=load,
        max_failed_fraction=config.scoring.max_failed_fraction,
        gpus=1,
    )


def traces_of_zero_accuracy(
    verdicts: Iterable[Mapping[str, Any]], keep_for_fallback: bool
) -> set[tuple[str, int]]:
    """(question_id, trace_id) of traces that were judged and have no verified answer: Acc gives them weight zero.

    Args:
        keep_for_fallback: leave out those of questions that have no verified answer at all; the fallback gml scores them.
    """
    is_verified: dict[tuple[str, int], bool] = {}
    for row in verdicts:
        key = (row["question_id"], row["trace_id"])
        is_verified[key] = is_verified.get(key, False) or row["verdict"] == "correct"
    covered = {question_id for (question_id, _), good in is_verified.items() if good}
    return {
        key
        for key, good in is_verified.items()
        if not good and (key[0] in covered or not keep_for_fallback)
    }


class TraceScorer(ShardByShard):
    """The worker of stages 4 and 5."""

    def __init__(
        self,
        config: Config,
        kind: str,
        questions: Mapping[str, Mapping[str, Any]],
        by_question: Mapping[str, Sequence[Mapping[str, Any]]],
        unwanted: set[tuple[str, int]],
        tokenizer: Any,
        scorer: "Scorer",
    ) -> None:
        self.config, self.kind, self.questions, self.by_question = (
            config,
            kind,
            questions,
            by_question,
        )
        self.unwanted, self.tokenizer, self.scorer = unwanted, tokenizer, scorer
        self.chat_format = load_chat_format(config.chat_format)
        self.encode, self.decode = text_codec(tokenizer)
        self.end_of_turn = len(self.encode(self.chat_format.end_of_turn))
        self.num_tokens = 0

    def facts(self) -> dict[str, Any]:
        """See Worker."""
        execution = (
            resolved(self.config, "scoring.batch_tokens", "scoring.chunk_positions")
            | self.scorer.execution()
        )
        return {"execution": execution}

    def statistics(self) -> dict[str, int]:
        """See Worker."""
        return {"tokens": self.num_tokens}

    def fill_one(self, index: int, units: Sequence[str], progress: Callable[[int], Any]) -> Shard:
        """See ShardByShard."""
        counts = Counter(traces=0, malformed=0, no_room=0, tokens=0)
        sequences, dropped = [], []
        for question_id in units:
            self._prepare(question_id, sequences, dropped, counts)
        progress(counts["traces"] - len(sequences))
        failures: dict[tuple, str] = {}
        rows = []
        scored = self.scorer.token_logps(sequences, failures, progress)
        for sequence, spans in zip(sequences, scored, strict=True):
            if sequence.key not in failures:
                rows.append(self._row(sequence, spans))
        failed = [
            {"question_id": key[0], "trace_id": key[1], "reason": reason}
            for key, reason in failures.items()
        ]
        if failed:
            counts["failed"] = len(failed)
        self.num_tokens += counts["tokens"]
        return Shard(rows, counts, dropped, failed)

    def _prepare(
        self,
        question_id: str,
        sequences: list[ScoredSequence],
        dropped: list[dict],
        counts: Counter,
    ) -> None:
        config, kind, row = self.config, self.kind, self.questions[question_id]
        hint = None if kind == "reasoner" else row["solution"]
        prompt_ids = self.encode(render_prompt(kind, self.chat_format, row["question"], hint))
        answer_ids, start, stop = [], 0, 0
        if kind == "reasoner":
            answer_ids, start, stop = encode_answer(
                self.chat_format, row["solution"], self.encode, self.decode
            )
        for trace in self.by_question[question_id]:
            key = (question_id, trace["trace_id"])
            counts["traces"] += 1
            if not trace["is_well_formed"]:
                counts["malformed"] += 1
                continue
            if key in self.unwanted:
                counts["zero_accuracy"] += 1
                continue
            begin = len(prompt_ids)
            end = begin + len(trace["token_ids"])
            spans = [(begin, end)] + ([(end + start, end + stop)] if kind == "reasoner" else [])
            token_ids = prompt_ids + trace["token_ids"] + answer_ids
            if len(token_ids) + self.end_of_turn > config.cutoff_len:
                counts["no_room"] += 1
                reason = f"longer than cutoff_len {config.cutoff_len}"
                ids = {"question_id": question_id, "trace_id": key[1]}
                dropped.append(ids | {"reason": reason, "tokens": len(token_ids)})
                continue
            sequences.append(ScoredSequence(key, token_ids, spans))
            counts["tokens"] += len(token_ids)

    def _row(self, sequence: ScoredSequence, spans: Sequence["torch.Tensor"]) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(("answer_logp", "answer_tokens"))
        row |= {
            "question_id": sequence.key[0],
            "trace_id": sequence.key[1],
            "temperature": self.scorer.temperatures[0],
        }
        for name, logps in zip(
            ("trace", "answer"), spans, strict=False
        ):  # the posterior has no answer
            sums = logps.sum(dim=1).tolist()
            row |= {f"{name}_logp": sums[0], f"{name}_tokens": logps.shape[1]}
            if len(sums) > 1:
                row |= {
                    f"{name}_logp_at_sampling": sums[1],
                    "sampling_temperature": self.scorer.temperatures[1],
                }
            if self.config.scoring.token_logps:
                row[f"{name}_token_logps"] = logps[0].tolist()
        return row


class Scorer:
    """Token log-likelihoods under one model."""

    def __init__(self, model: Any, config: Config, more_temperatures: Sequence[float] = ()) -> None:
        """
        Args:
            more_temperatures: besides scoring.temperature; the logits are computed once for all.
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
                f"{type(model).__name__} does not split into a body and a linear head; its logits of whole batches are "
                "computed, which takes memory in proportion to length x vocabulary"
            )

    def execution(self) -> dict[str, Any]:
        """How the numbers are computed, for a manifest."""
        import torch

        device = self.model.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        facts = {
            "device": name,
            "attention": attention_kernel(self.model),
            "dtype": str(self.model.dtype),
        }
        return facts | {"compiled": self.is_compiled}

    def score(self, sequences: Sequence[ScoredSequence]) -> list[list[float]]:
        """One sum of log p per span, in nats, at scoring.temperature, for each row in the order given.

        Raises: ValueError with the row's key for an empty span, a span without a token before it, and NaN or infinity.
        """
        failures: dict[tuple, str] = {}
        scored = self.token_logps(sequences, failures)
        for key, reason in failures.items():
            raise ValueError(f"row {key}: {reason}")
        return [[float(logps[0].sum()) for logps in spans] for spans in scored]

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

        Returns: for each row and span a tensor [temperatures, tokens of the span] float64 on the CPU.
        """
        import torch

        # equal rows have equal numbers; a sharp posterior repeats itself often
        places: dict[tuple, list[int]] = {}
        for i, sequence in enumerate(sequences):
            if reason := _fault(sequence, self._context):
                failures[sequence.key] = reason
            else:
                places.setdefault((tuple(sequence.token_ids), tuple(sequence.spans)), []).append(i)
        results: list[list[torch.Tensor]] = [[] for _ in sequences]
        batches = self._batches(
            {group[0]: len(sequences[group[0]].token_ids) for group in places.values()}
        )
        copies = {group[0]: group for group in places.values()}
        if progress and failures:
            progress(len(failures))
        with torch.inference_mode():
            while batches:
                batch = batches.pop(0)
                try:
                    scored = self._score_batch([sequences[i] for i in batch])
                except torch.OutOfMemoryError as error:
                    if len(batch) > 1:
                        batches[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                        torch.cuda.empty_cache()
                        continue
                    scored = [
                        f"{len(sequences[batch[0]].token_ids)} tokens do not fit the memory: {str(error)[:200]}"
                    ]
                for i, spans in zip(batch, scored, strict=True):
                    for copy in copies[i]:
                        if isinstance(spans, str):
                            failures[sequences[copy].key] = spans
                        else:
                            results[copy] = spans
                    if progress:
                        progress(len(copies[i]))
        for i, sequence in enumerate(sequences):
            sums = [float(logps.sum()) for logps in results[i]]
            if not all(math.isfinite(value) for value in sums):
                results[i] = []
                failures[sequence.key] = (
                    f"its log-likelihood is {sums}; check the model's weights, or score with scoring.dtype=float32"
                )
        return results

    def _batches(self, lengths: Mapping[int, int]) -> list[list[int]]:
        """Rows of similar length together; the longest first, so that too large a batch fails at the start."""
        batches: list[list[int]] = []
        for i in sorted(lengths, key=lambda i: -lengths[i]):
            if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > self.batch_tokens:
                batches.append([])
            batches[-1].append(i)
        return batches

    def _score_batch(self, sequences: list[ScoredSequence]) -> list[list["torch.Tensor"]]:
        import torch

        longest = max(len(sequence.token_ids) for sequence in sequences)
        columns = math.ceil(longest / self.length_step) * self.length_step
        ids = torch.zeros(len(sequences), min(columns, self._context or columns), dtype=torch.long)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence.token_ids)] = torch.as_tensor(sequence.token_ids)
        rows = torch.cat(
            [torch.full((b - a,), i) for i, s in enumerate(sequences) for a, b in s.spans]
        )
        targets_at = torch.cat([torch.arange(a, b) for s in sequences for a, b in s.spans])
        output = _forward(
            self.model if self._body is None else self._body, ids.to(self.model.device)
        )
        # the logits at position t - 1 give the log-likelihood of token t
        whole = output.logits if self._body is None else output.last_hidden_state
        needed = whole[rows.to(whole.device), (targets_at - 1).to(whole.device)].to(self._device)
        del output, whole
        targets = ids[rows, targets_at].to(needed.device)
        logps = torch.empty(
            len(self.temperatures), len(rows), dtype=torch.float64, device=needed.device
        )
        for begin in range(0, len(rows), self.chunk_positions):
            end = begin + self.chunk_positions
            logps[:, begin:end] = self._chunk_logps(needed[begin:end], targets[begin:end])
        logps = logps.cpu()
        lengths = [stop - start for sequence in sequences for start, stop in sequence.spans]
        parts = iter(logps.split(lengths, dim=1))
        return [[next(parts) for _ in sequence.spans] for sequence in sequences]

    def _chunk_logps(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """log p of the targets, [temperatures, positions] float32 or float64; log-sum-exp over tiles of the vocabulary.

        Args:
            hidden: [positions, hidden size], or logits where the model does not split.
            targets: [positions] int64.
        """
        import torch

        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        chosen = torch.zeros(len(targets), dtype=wide, device=hidden.device)
        normalizer = torch.full(
            (len(self.temperatures), len(targets)), -math.inf, dtype=wide, device=hidden.device
        )
        for first, logits in self._tiles(hidden):
            places = targets - first
            found = logits.gather(1, places.clamp(0, logits.shape[1] - 1)[:, None])[:, 0].to(wide)
            # in place: small tensors that stay, one for each tile, would keep the allocator from using a tile's memory again
            torch.where((places >= 0) & (places < logits.shape[1]), found, chosen, out=chosen)
            for total, temperature in zip(normalizer, self.temperatures, strict=True):
                torch.logaddexp(total, _log_sum_exp(logits, temperature, wide), out=total)
        return chosen / normalizer.new_tensor(self.temperatures)[:, None] - normalizer

    def _tiles(self, hidden: "torch.Tensor") -> Iterator[tuple[int, "torch.Tensor"]]:
        """(first id, logits of the ids from there). On a CPU a tile stays in the cache; a GPU does all ids at once."""
        import torch

        if self._head is None:
            yield 0, hidden
        elif (
            type(self._head) is not torch.nn.Linear
            or hidden.device.type != "cpu"
            or self._head.weight.is_meta
        ):
            yield (
                0,
                self._head(hidden),
            )  # meta: a hook of accelerate fetches the weight for the call
        else:
            for first in range(0, self._head.out_features, VOCABULARY_TILE):
                ids = slice(first, first + VOCABULARY_TILE)
                bias = None if self._head.bias is None else self._head.bias[ids]
                yield first, torch.nn.functional.linear(hidden, self._head.weight[ids], bias)


def _compile_layers(model: Any) -> None:
    """Let torch fuse what stands between a layer's matrix products: norms, rotations, gates, which a GPU spends a fifth of
    its time on otherwise. The layers share their code, so it is compiled once for one row and once for more.

    Raises: ValueError for a model that does not say what its layers are.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(
            f"scoring.compile: {type(model).__name__} does not say what its layers are; set it to false"
        )
    for layer in layers:
        layer.compile(dynamic=True)


def _forward(model: Any, ids: "torch.Tensor") -> Any:
    """The model's output for ids [rows, length], which hold padding on the right only.

    The mask of ones says that there is nothing to mask, so that attention runs its causal kernel without one. With no
    mask at all, transformers 4.57 looks for packed rows and then hands every kernel a mask of length x length (its issue
    41856): no flash attention, and the keys copied for every head.
    """
    return model(input_ids=ids, attention_mask=ids.new_ones(ids.shape), use_cache=False)


def _log_sum_exp(
    logits: "torch.Tensor", temperature: float, dtype: "torch.dtype"
) -> "torch.Tensor":
    """log sum exp(logits / temperature) of each row, computed in `dtype`: [positions].

    x_0 - log_softmax(x)_0 is the same as logsumexp(x), which takes twice as long on a CPU and copies the logits on a GPU.
    """
    scaled = logits if temperature == 1 else logits.to(dtype) / temperature
    return scaled[:, 0].to(dtype) - scaled.log_softmax(dim=-1, dtype=dtype)[:, 0]


def _fault(sequence: ScoredSequence, context: int | None) -> str:
    """Why a row cannot be scored at all, or nothing.

    Args:
        context: tokens that the model has positions for, where it says so.
    """
    num = len(sequence.token_ids)
    if context and num > context:
        return f"{num} tokens are more than the model has positions for, {context} (max_position_embeddings in its config.json)"
    for start, stop in sequence.spans:
        if not 1 <= start < stop <= num:
            return f"nothing to score in the span [{start}, {stop}) of {num} ids; a trace or a solution is empty"
    return ""


def _body_and_head(model: Any) -> tuple[Any, Any, Any]:
    """(body, head, the logits' device) when head(body(x)) equals the model's logits on a probe, else (None, None, device).

    The probe finds what an attribute cannot tell: a scale or a soft cap that a family puts between head and logits, and on
    which device the head of a model that is split computes (a tied head stands with the embedding, on the first).
    """
    import torch

    body = getattr(model, getattr(model, "base_model_prefix", ""), None)
    head = model.get_output_embeddings()
    if body is None or body is model or head is None:
        return None, None, model.device
    probe = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        output = _forward(body, probe)
        if not hasattr(output, "last_hidden_state"):
            return None, None, model.device
        apart = head(output.last_hidden_state)
        whole = _forward(model, probe).logits
    fits = apart.shape == whole.shape and torch.allclose(
        apart.float(), whole.to(apart.device).float(), rtol=1e-3, atol=1e-3
    )
    return (body, head, apart.device) if fits else (None, None, whole.device)
