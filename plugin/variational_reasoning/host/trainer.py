"""The host's SFT trainer with the step gradient of weighted Dr. SFT (method.losses).

It also writes the record next to the model.

Per optimizer step, `get_batch_samples` counts the data rows of all micro-batches on all ranks (N),
and every micro-batch contributes sum_i w_i sum_t CE / (N C), times the number of ranks because data
parallelism averages gradients.

With `rows_per_step`, one item of the data loader is this rank's share of a whole step (host.steps),
and N is known without asking the other ranks.

The head of the model is tapped. During our forward pass its `forward` takes the labels along and
returns the two sums of the loss in place of the logits. That needs a model that returns its head's
output as it is (host.probes tells). A model that scales or caps its logits takes the path with full
logits, as does a head that is not a plain linear layer. The log says which path is taken.
"""

import functools
import itertools
import math
import operator
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import DistributedType
from datasets import Dataset, IterableDataset
from llamafactory.extras import logging
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from torch.utils.data import DataLoader

from variational_reasoning import __version__
from variational_reasoning.host.args import FLEX
from variational_reasoning.host.attention import (
    bottleneck_fault,
    bottleneck_mask,
    flex_fault,
    supports_packs,
    use_flex_attention,
    use_row_attention,
)
from variational_reasoning.host.bottleneck import count_trace_targets, layout_of, rows_of
from variational_reasoning.host.dataset import CUTS, LOGGER, ROW_COLUMNS, SEGMENTS
from variational_reasoning.host.formats import ID_COLUMNS
from variational_reasoning.host.probes import added_loss, head_is_plain, pack_fault, tapped
from variational_reasoning.host.steps import (
    CompletedBatches,
    MarkedRows,
    MicroBatchSampler,
    StepCollator,
    StepFacts,
    StepRows,
    StepSampler,
    measure_rows,
)
from variational_reasoning.method.balance import RowCost, row_cost
from variational_reasoning.method.losses import (
    dr_sft_loss,
    target_mask,
    trace_targets,
    weighted_nll_from_hidden,
    weighted_nll_from_logits,
)
from variational_reasoning.model_record import write_record
from variational_reasoning.packages import installed_version

logger = logging.get_logger(LOGGER)

STEPS_TO_LOG = 50
"""The first steps of the first epoch, of which the log gives means."""


class RowCollator:
    """Attaches the rows' weights after the host's collator, which would cast them to the compute
    dtype.

    Names are text, which accelerate's dispatcher of streams cannot carry, so they can be left out.

    is_bottleneck: whether answers must not see the chain. has_parts: whether targets of traces are
    counted apart.
    """

    def __init__(
        self,
        collator: Any,
        with_names: bool = True,
        is_bottleneck: bool = False,
        has_parts: bool = False,
    ):
        self.collator = collator
        self.with_names = with_names
        self.is_bottleneck = is_bottleneck
        self.has_parts = has_parts

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate examples; the added entries have one line per example, padded to the most rows in
        one.

        Returns: the host's batch, row_weights float32 [batch, rows] padded with 0, row_targets
            int64 [batch, rows] padded with -1, row_names as nested lists. With parts,
            row_trace_targets int64 [batch, rows] padded with 0. Under the bottleneck, row_layout
            (host.bottleneck), and attention_mask [batch, tokens], which counts tokens.
        """
        in_traces = []
        are_tokens = []
        layouts = []
        weights = []
        targets = []
        names = []
        for feature in features:
            segments = feature.pop(SEGMENTS, None)
            if self.has_parts:
                in_traces.append(count_trace_targets(feature["labels"], segments))
            if self.is_bottleneck:
                # In a pack it holds the numbers of rows, of which padding has 0.
                are_tokens.append(torch.tensor(feature["attention_mask"]) > 0)
                layouts.append(rows_of(segments))
            weights.append(feature.pop("row_weights"))
            targets.append(feature.pop("row_targets"))
            names.append(feature.pop("row_names"))
            for name in (*ID_COLUMNS, CUTS):
                feature.pop(name, None)
        batch = self.collator(features)
        batch["row_weights"] = _rectangle(weights, 0.0, torch.float32)
        batch["row_targets"] = _rectangle(targets, -1, torch.int64)
        if self.has_parts:
            batch["row_trace_targets"] = _rectangle(in_traces, 0, torch.int64)
        if self.is_bottleneck:
            batch["row_layout"] = layout_of(layouts)
            batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
            for line, is_token in zip(batch["attention_mask"], are_tokens, strict=True):
                line[: len(is_token)] = is_token
        if self.with_names:
            batch["row_names"] = names
        return batch


def _rectangle(lists: list[list[Any]], padding: float, dtype: torch.dtype) -> torch.Tensor:
    """Lists as the lines of one tensor: [1, 2], [3] and padding 0 give [[1, 2], [3, 0]]."""
    width = max(map(len, lists))
    lines = []
    for values in lists:
        missing = width - len(values)
        lines.append(values + [padding] * missing)
    return torch.tensor(lines, dtype=dtype)


class VariationalTrainer(CustomSeq2SeqTrainer):
    """The host's trainer for runs that use our keys or formats.

    With `constant_loss_normalizer` None the loss is the host's own.
    """

    def __init__(self, *, finetuning_args: Any, data_collator: Any, **kwargs: Any) -> None:
        run = finetuning_args.variational
        self._is_bottleneck: bool = run.config.is_bottleneck
        # Only our loss can tell the parts of a row apart.
        self._has_parts: bool = run.config.has_parts and run.constant_loss_normalizer is not None
        collator = RowCollator(
            data_collator,
            with_names=not isinstance(kwargs.get("train_dataset"), IterableDataset),
            is_bottleneck=self._is_bottleneck,
            has_parts=self._has_parts,
        )
        super().__init__(finetuning_args=finetuning_args, data_collator=collator, **kwargs)
        self.config = run.config
        self.constant_loss_normalizer: float | None = run.constant_loss_normalizer
        self.facts = run.facts
        self._inputs: dict[str, Any] = run.inputs
        self._tokens_in_step: torch.Tensor | None = None
        self._trace_loss_weight: float = run.trace_loss_weight
        self._is_flex = run.bottleneck_attention == FLEX
        self._nll_since_log = torch.zeros((), device=self.args.device)
        # The same for targets of traces and of answers apart, and their counts in the step.
        self._part_nll_since_log = torch.zeros(2, device=self.args.device)
        self._part_targets_in_step = torch.ones(2, device=self.args.device)
        self._steps_since_log = 0
        # Over an evaluation: sum_i w_i sum_t CE, sum_t CE, rows, targets; then sum_t CE of traces
        # and of answers, and their targets.
        self._eval_sums = torch.zeros(8, dtype=torch.float64, device=self.args.device)
        self._step_facts: StepFacts | None = None
        self._steps: StepSampler | None = None
        self._head: torch.nn.Linear | None = None
        self._head_is_settled = False
        if self.constant_loss_normalizer is not None:
            # The base class would divide a loss that has no function of its own by the accumulation
            # steps.
            self.compute_loss_func = self._refuse_base_loss
            self._refuse_split_rows()
            self._head = self._plain_head()
        self._log_start()
        if self._is_bottleneck:
            self._set_up_bottleneck()
        if run.rows_per_step is not None and self.args.do_train:
            self._plan_steps(run.rows_per_step, run.tokens_per_micro_batch)

    def _plan_steps(self, rows_per_step: int, token_limit: int) -> None:
        """Decide how steps are arranged, and say what that gives."""
        if self.args.n_gpu > 1 or self.args.gradient_accumulation_steps != 1:
            raise ValueError(
                f"rows_per_step: one process on {self.args.n_gpu} GPUs and accumulation over "
                f"{self.args.gradient_accumulation_steps} batches are not supported; start one "
                "process per GPU and remove gradient_accumulation_steps"
            )
        model = self._base()
        self._is_packed = supports_packs(model.config) and not self.args.torch_compile
        if self._is_packed:
            use_row_attention(model)
        self._token_limit = token_limit
        self._row_cost: RowCost = row_cost(model.config.get_text_config())
        is_in_order = (
            self.finetuning_args.disable_shuffling
            or getattr(self.args, "train_sampling_strategy", None) == "sequential"
        )
        seed = self.args.data_seed
        if seed is None:
            seed = self.args.seed
        steps = self._step_sampler(
            self.train_dataset,
            rows_per_step,
            seed=None if is_in_order else seed,
            epoch=self._epoch,
        )
        self._steps = steps
        self._refuse_rows_above(token_limit, steps)
        self._log_steps(steps)

    def _set_up_bottleneck(self) -> None:
        """Refuse a model that would not keep answers from the chain; say how attention is computed.

        Raises: ValueError.
        """
        config = self._base().config
        fault = bottleneck_fault(config)
        if fault is not None:
            raise ValueError(f"prompt_kind {self.config.prompt_kind}: {fault}")
        if self._is_flex:
            fault = flex_fault(config, self.args.device)
            if fault is not None:
                raise ValueError(f"bottleneck_attention: flex: {fault}")
            use_flex_attention(self._base())
        elif not self.args.torch_compile:
            use_row_attention(self._base())
        logger.info_rank0(
            "variational_reasoning: answers do not see the verbal chain (a bottleneck mask, with "
            f"{config._attn_implementation} attention); symbols weigh "
            f"{self._trace_loss_weight:g} in the loss"
        )

    def _epoch(self) -> int:
        """The epoch of the next step, also after a resume."""
        assert self._steps is not None
        return self.state.global_step // len(self._steps)

    def _base(self) -> Any:
        """The model without the wrappers of a launcher and of adapters."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _step_sampler(self, dataset: Dataset, rows_per_step: int, **options: Any) -> StepSampler:
        return StepSampler(
            measure_rows(dataset, self._row_cost, self._has_parts),
            rows_per_step,
            rank=self.args.process_index,
            ranks=self.args.world_size,
            token_limit=self._token_limit,
            is_packed=self._is_packed,
            **options,
        )

    def _refuse_rows_above(self, token_limit: int, steps: StepSampler) -> None:
        tokens = steps.table.tokens
        longest = max(tokens)
        if longest <= token_limit:
            return
        row = self.train_dataset[tokens.index(longest)]
        name = row["row_names"][0]
        raise ValueError(
            f"tokens_per_micro_batch: {token_limit}, but {name} has {longest} tokens; "
            f"allowed are {longest} and more, or lower cutoff_len"
        )

    def _log_steps(self, sampler: StepSampler) -> None:
        """What the first steps of the first epoch will be like."""
        shares = list(itertools.islice(sampler, STEPS_TO_LOG))
        facts = functools.reduce(operator.add, (share.facts for share in shares))
        num_micro_steps = sum(len(share.micro_batches) for share in shares)
        per_step = num_micro_steps / len(shares)
        layout = "packs without padding"
        if not self._is_packed:
            config = self._base().config
            layout = (
                f"padded micro-batches (packs are not supported for {config.model_type} with "
                f"{config._attn_implementation} attention"
                f"{' and torch_compile' if self.args.torch_compile else ''})"
            )
        logger.info_rank0(
            f"variational_reasoning: {sampler.rows_per_step} rows per step on {sampler.ranks} "
            f"process(es), in {per_step:.1f} {layout} of at most "
            f"{sampler.token_limit} tokens each; useful tokens {facts.useful_share:.4f}, "
            f"imbalance {facts.imbalance:.4f}, of which indivisible rows force "
            f"{facts.least_imbalance:.4f}"
        )

    def _refuse_base_loss(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            "weighted Dr. SFT must not go through the base class's loss; please report this"
        )

    def _refuse_split_rows(self) -> None:
        parallelism = getattr(self.accelerator, "parallelism_config", None)
        for name in ("cp_size", "sp_size", "tp_size"):
            size = getattr(parallelism, name, None) or 1
            if size > 1:
                raise ValueError(
                    f"parallelism_config.{name} > 1: rows split over ranks are not supported with "
                    "constant_loss_normalizer"
                )

    def _log_start(self) -> None:
        if self.constant_loss_normalizer is None:
            counted = ""
            if self.facts is not None:
                counted = f"; {self.facts.describe_length()}"
            logger.info_rank0(
                "variational_reasoning: the host's own loss; rows in our formats, all of weight 1"
                + counted
            )
            return
        source = (
            "auto, mean weight x mean target tokens"
            if self.config.constant_loss_normalizer == "auto"
            else "as given"
        )
        logger.info_rank0(
            "variational_reasoning: weighted Dr. SFT (arXiv 2509.22637, App. C): "
            "sum_i w_i sum_t CE / (N C); C = constant_loss_normalizer = "
            f"{self.constant_loss_normalizer:.6g} target tokens per row ({source})"
        )
        if self.facts is not None:
            weights = self.facts.weight_summary()
            logger.info_rank0(
                f"variational_reasoning: {self.facts.rows} rows, "
                f"{self.facts.mean_target_tokens():.2f} target tokens per row; "
                f"weights: count {weights['count']}, mean {weights['mean']:.6g}, "
                f"min {weights['min']:.6g}, max {weights['max']:.6g}; "
                f"{self.facts.describe_length()}"
            )

    def _plain_head(self) -> torch.nn.Linear | None:
        """The head, if its `forward` can be tapped; otherwise the log says why the full logits are
        needed.
        """
        head = self._base().get_output_embeddings()
        if self.is_fsdp_enabled:
            reason = "FSDP shards the head"
        elif self.args.torch_compile:
            reason = "torch_compile is on"
        elif type(head) is not torch.nn.Linear or "forward" in vars(head):
            reason = f"the model's head is {type(head).__name__}, not a plain linear layer"
        else:
            return head
        self._log_full_path(reason)
        return None

    def _log_full_path(self, reason: str) -> None:
        logger.warning_rank0(
            f"variational_reasoning: the loss takes the path with full logits, because {reason}; "
            "its memory grows with length x vocabulary"
        )

    def get_train_dataloader(self) -> DataLoader:
        """The base class's; with rows_per_step, a loader of whole optimizer steps."""
        if self._steps is None:
            return super().get_train_dataloader()
        return self._loader(self.train_dataset, self._steps, self._step_collator())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The base class's; with rows_per_step, arranged as the training set.

        Where metrics are computed, batches hold the rows in order, as the metrics expect.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        is_plain = self._steps is None or not isinstance(dataset, Dataset)
        if self._steps is None or is_plain or self.compute_metrics is not None:
            return super().get_eval_dataloader(eval_dataset)
        steps = self._step_sampler(dataset, self._steps.rows_per_step)
        # Rows of an evaluation may be longer than those of the training; one alone needs less
        # memory.
        steps.token_limit = max(self._token_limit, *steps.table.tokens)
        return self._loader(dataset, MicroBatchSampler(steps), self._step_collator().only)

    def _step_collator(self) -> StepCollator:
        attention = self._base().config._attn_implementation if self._is_packed else None
        return StepCollator(self.data_collator, attention)

    def _loader(self, dataset: Dataset, sampler: Any, collate: Callable) -> DataLoader:
        """A loader that accelerate does not see: every process has its own share already."""
        return DataLoader(
            StepRows(dataset),
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            # Its own, so that the loader draws nothing from the generator that dropout uses.
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """The base class's; rows that accelerate repeats at the end carry a mark."""
        is_plain = self.constant_loss_normalizer is None or self.args.world_size == 1
        if is_plain or not isinstance(dataset, Dataset):
            return super()._get_dataloader(dataset, *args, **kwargs)
        loader = super()._get_dataloader(MarkedRows(dataset), *args, **kwargs)
        shard = loader.batch_sampler
        if isinstance(shard, BatchSamplerShard) and not shard.drop_last:
            # A split batch is one batch of all ranks.
            ranks = 1 if shard.split_batches else self.args.world_size
            shard.batch_sampler = CompletedBatches(shard.batch_sampler, ranks)
        return loader

    def get_total_train_batch_size(self, args: Any) -> int:
        """The base class's; with rows_per_step, that number."""
        if self._steps is None:
            return super().get_total_train_batch_size(args)
        return self._steps.rows_per_step

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """FLOPs of forward and backward pass over these inputs, without recomputation."""
        if "share" in inputs:
            return inputs["share"].flops
        return super().floating_point_ops(inputs)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One micro-batch, as the base class's; with rows_per_step, this rank's share of a step."""
        if "share" not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        facts = inputs["share"].facts
        self._tokens_in_step = facts.num_targets
        self._count_parts(facts.num_trace_targets, facts.num_targets)
        self._steps_since_log += 1
        if self._step_facts is None:
            self._step_facts = facts
        else:
            self._step_facts += facts
        loss = torch.zeros((), device=self.args.device)
        last = len(inputs["micro_batches"]) - 1
        for number, batch in enumerate(inputs["micro_batches"]):
            with self._accumulating(model, is_last=number == last):
                loss = loss + super().training_step(model, batch, facts.num_rows)
        return loss

    def _accumulating(self, model: Any, is_last: bool) -> AbstractContextManager:
        """The context of one of a step's micro-batches; gradients are exchanged after the last."""
        # accelerate's wrapper of DeepSpeed takes the boundary of a step from here.
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        if is_last or self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return nullcontext()
        return self.accelerator.no_sync(model)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The base class's, which under DeepSpeed casts every floating tensor: not the weights."""
        weights = inputs.get("row_weights")
        if weights is None:
            return super()._prepare_inputs(inputs)
        others = {name: value for name, value in inputs.items() if name != "row_weights"}
        prepared = super()._prepare_inputs(others)
        prepared["row_weights"] = weights.to(self.args.device)
        layout = prepared.pop("row_layout", None)
        if layout is not None:
            # Only now, so that no cast of a launcher and no counter of tokens sees the mask.
            model = self._base()
            prepared["attention_mask"] = bottleneck_mask(
                layout,
                prepared["input_ids"].shape[1],
                model.config._attn_implementation,
                next(model.parameters()).dtype,
            )
        return prepared

    def _count_parts(self, num_trace: Any, num_targets: Any) -> None:
        """Keep how many targets of the step are of traces and of answers."""
        if not self._has_parts:
            return
        num_answer = num_targets - num_trace
        counts = torch.tensor([float(num_trace), float(num_answer)])
        # A step may have none of one part, whose sum is then 0: 0 / 1.
        self._part_targets_in_step = counts.clamp(min=1).to(self.args.device)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The base class's micro-batches of one optimizer step; counts N, data rows, not tokens."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if self.constant_loss_normalizer is None or not batches or "share" in batches[0]:
            return batches, num_items
        # Rows, targets, and targets in traces, of this rank.
        by_batch = torch.stack([_count_batch(batch) for batch in batches])
        counts = by_batch.sum(0).to(self.args.device)
        num_rows, num_targets, num_in_traces = self._over_ranks(counts)
        self._tokens_in_step = num_targets
        self._count_parts(num_in_traces, num_targets)
        self._steps_since_log += 1
        return batches, num_rows

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """A micro-batch's share of the step's loss; in evaluation, the mean over the batch's rows.

        Raises: RuntimeError for a loss that is not finite, with the names of the rows.
        """
        inputs = dict(inputs)
        row_weights, row_targets, row_names = (inputs.pop(name, None) for name in ROW_COLUMNS)
        if self.constant_loss_normalizer is None:
            return super().compute_loss(
                model, inputs, return_outputs, num_items_in_batch=num_items_in_batch
            )
        row_trace_targets = inputs.pop("row_trace_targets", None)
        labels = inputs.pop("labels")
        # Weights 0.5 and 2 of rows with two targets and one: 0.5 0.5 2. Padding has -1 targets.
        num_repeats = row_targets.flatten().clamp(min=0)
        target_weights = torch.repeat_interleave(row_weights.flatten(), num_repeats)
        if len(target_weights) != target_mask(labels).sum():
            raise RuntimeError(
                f"{len(target_weights)} weighted targets, but other labels, in the rows "
                f"{_listed(row_names)}"
            )
        in_trace = None
        if row_trace_targets is not None:
            in_trace = trace_targets(row_targets.flatten(), row_trace_targets.flatten())
            of_symbols = target_weights * self._trace_loss_weight
            target_weights = torch.where(in_trace, of_symbols, target_weights)
        (weighted, parts), outputs = self._sums(
            model, inputs, labels, target_weights, in_trace, needs_logits=return_outputs
        )
        if not math.isfinite(weighted.item()):
            raise RuntimeError(f"the loss is {weighted.item()} in the rows {_listed(row_names)}")
        if model.training:
            loss = self._training_loss(weighted, parts, num_items_in_batch)
        else:
            num_rows = (row_targets >= 0).sum()
            loss = self._evaluation_loss(weighted, parts, num_rows, len(target_weights), in_trace)
        return (loss, outputs) if return_outputs else loss

    def _training_loss(
        self, weighted: torch.Tensor, parts: torch.Tensor, num_rows_in_step: Any
    ) -> torch.Tensor:
        """A micro-batch's share of the step's loss; also adds its plain sums to those of the log.

        Args:
            weighted, parts: as `_sums` returns them.
        """
        assert self.constant_loss_normalizer is not None
        assert self._tokens_in_step is not None  # counted before the step's first batch
        self._nll_since_log += parts.sum().float() / self._tokens_in_step
        if self._has_parts:
            self._part_nll_since_log += parts.float() / self._part_targets_in_step
        share = dr_sft_loss(weighted, num_rows_in_step, self.constant_loss_normalizer)
        # Data parallelism averages the gradients of the ranks, and the step's loss is their sum.
        return share * self.args.world_size

    def _evaluation_loss(
        self,
        weighted: torch.Tensor,
        parts: torch.Tensor,
        num_rows: torch.Tensor,
        num_targets: int,
        in_trace: torch.Tensor | None,
    ) -> torch.Tensor:
        """The mean over a batch's rows; also adds the batch to the sums of the evaluation.

        The base class averages what is returned over batches; `evaluation_loop` divides the sums
        instead.
        """
        assert self.constant_loss_normalizer is not None
        sums = [weighted, parts.sum(), num_rows, torch.tensor(num_targets)]
        if in_trace is not None:
            sums += [*parts, in_trace.sum(), (~in_trace).sum()]
        values = torch.stack([each.to(self._eval_sums) for each in sums])
        self._eval_sums[: len(sums)] += values
        return dr_sft_loss(weighted, num_rows.clamp(min=1), self.constant_loss_normalizer)

    def _sums(
        self,
        model: Any,
        inputs: dict[str, Any],
        labels: torch.Tensor,
        target_weights: torch.Tensor,
        in_trace: torch.Tensor | None,
        needs_logits: bool,
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], Any]:
        """(weighted, plain) sums of the cross entropies, and the model's outputs.

        The plain sum is [] or, with `in_trace`, [2]: of traces, and of all else.
        """
        mask = target_mask(labels)
        targets = labels[:, 1:][mask]
        if not self._head_is_settled:
            self._settle_head(model, inputs)
        if self._head is None or (needs_logits and self.compute_metrics is not None):
            outputs = model(**inputs)
            at_targets = outputs.logits[:, :-1][mask]
            both = weighted_nll_from_logits(at_targets, targets, target_weights, in_trace)
            return both, outputs
        head = self._head

        def sums(hidden: torch.Tensor) -> torch.Tensor:
            at_targets = hidden[:, :-1][mask]
            weighted, plain = weighted_nll_from_hidden(
                at_targets,
                head.weight,
                targets,
                target_weights,
                head.bias,
                in_trace=in_trace,
            )
            return torch.cat([weighted.view(1), plain.view(-1)])

        with tapped(head, sums):
            outputs = model(**inputs)
        # Taken from the outputs, because on the way there the hooks by which ZeRO-3 gathers the
        # head's weight are set.
        weighted = outputs.logits[0]
        plain = outputs.logits[1:].detach()
        return (weighted, plain), outputs

    def _settle_head(self, model: Any, inputs: dict[str, Any]) -> None:
        """Ask the model, once, what it does with its head, its labels and its packs.

        The head is kept if the model returns its output as it is.

        Raises: ValueError for a model that adds terms to its loss or mixes the rows of a pack.
        """
        self._head_is_settled = True
        name = type(self._base()).__name__
        term = added_loss(model, inputs)
        if term is not None:
            raise ValueError(
                f"{name} adds to the loss: {term}. Such a term is not a sum over rows, so it is "
                "not supported together with constant_loss_normalizer; switch it off in the "
                "model's config.json (output_router_logits: false for a router loss)"
            )
        if self._head is not None and head_is_plain(model, self._head, inputs):
            logger.info_rank0(
                "variational_reasoning: the loss is computed in chunks from hidden states, "
                "without full logits"
            )
        elif self._head is not None:
            self._log_full_path("the model changes its head's output or does not call its head")
            self._head = None
        fault = None
        if "position_ids" in inputs and self._steps is None:  # steps only pack tested model types
            fault = pack_fault(model, self._head, inputs)
        if fault is not None:
            raise ValueError(
                f"packing: {name} does not keep the rows of a pack apart: {fault}; remove `packing`"
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds `token_nll`, the token mean per step that the host's own loss would be, so that
        curves compare; of rows with symbols and an answer also that mean for each of them.
        """
        # Logs of evaluations, and of the end, have no `loss`.
        is_of_training = "loss" in logs
        if is_of_training and self.constant_loss_normalizer is not None and self._steps_since_log:
            logs.update(self._means_since_log())
        if is_of_training and self._step_facts is not None:
            logs["useful_tokens"] = round(self._step_facts.useful_share, 4)
            logs["imbalance"] = round(self._step_facts.imbalance, 4)
            self._step_facts = None
        super().log(logs, *args, **kwargs)

    def _means_since_log(self) -> dict[str, float]:
        """Token means of the steps since the last log, which are forgotten then."""
        totals = torch.cat([self._nll_since_log.view(1), self._part_nll_since_log])
        totals = self._over_ranks(totals)
        means = [round(total / self._steps_since_log, 6) for total in totals.tolist()]
        self._nll_since_log.zero_()
        self._part_nll_since_log.zero_()
        self._steps_since_log = 0
        token_nll, of_symbols, of_answer = means
        if not self._has_parts:
            return {"token_nll": token_nll}
        return {
            "token_nll": token_nll,
            "token_nll_symbols": of_symbols,
            "token_nll_answer": of_answer,
        }

    def _over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a vector over all processes."""
        if self.args.world_size == 1:
            return values
        return self.accelerator.gather(values.unsqueeze(0)).sum(0)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The base class's loop, with the loss and `token_nll` over all rows of the data set.

        Both are quotients of sums over rows, and so do not depend on batches, packs or ranks:
        loss = sum_i w_i sum_t CE / (rows C), token_nll = sum_t CE / targets.
        """
        self._eval_sums.zero_()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.constant_loss_normalizer is None:
            return output
        weighted, plain, num_rows, num_targets, *parts = self._over_ranks(self._eval_sums)
        loss = dr_sft_loss(weighted, num_rows, self.constant_loss_normalizer)
        token_nll = plain / num_targets
        output.metrics[f"{metric_key_prefix}_loss"] = loss.item()
        output.metrics[f"{metric_key_prefix}_token_nll"] = token_nll.item()
        if self._has_parts:
            of_symbols, of_answer, num_symbols, num_answer = parts
            of_symbols = of_symbols / num_symbols.clamp(min=1)
            of_answer = of_answer / num_answer.clamp(min=1)
            output.metrics[f"{metric_key_prefix}_token_nll_symbols"] = of_symbols.item()
            output.metrics[f"{metric_key_prefix}_token_nll_answer"] = of_answer.item()
        return output

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """The base class's, and the record of what the model was trained on, in checkpoints too."""
        super().save_model(*args, **kwargs)
        if self.args.should_save:
            folder = args[0] if args else kwargs.get("output_dir")
            write_record(folder or self.args.output_dir, self._record())

    def _record(self) -> dict[str, Any]:
        versions: dict[str, Any] = {
            "variational_reasoning": __version__,
            "python": platform.python_version(),
        }
        for name in ("llamafactory", "transformers", "torch", "deepspeed", "peft"):
            versions[name] = installed_version(name)
        record = self._inputs | {
            "loss": {"name": "the host's own"},
            "versions": versions,
        }
        if self.constant_loss_normalizer is not None:
            record["loss"] = {
                "name": "weighted Dr. SFT",
                "constant_loss_normalizer": self.constant_loss_normalizer,
                "unit": "target tokens per row",
                "is_auto": self.config.constant_loss_normalizer == "auto",
            }
            if self._has_parts:
                record["loss"]["trace_loss_weight"] = self._trace_loss_weight
        if self.facts is not None:
            rows: dict[str, Any] = {
                "count": self.facts.rows,
                "dropped_longer_than_cutoff_len": self.facts.dropped,
            }
            if self.facts.cut:
                rows["chains_cut_to_cutoff_len"] = self.facts.cut
            rows["mean_target_tokens"] = self.facts.mean_target_tokens()
            rows["weights"] = self.facts.weight_summary()
            record["rows"] = rows
        return record


def _count_batch(batch: dict[str, Any]) -> torch.Tensor:
    """int64 [3]: rows, targets, and targets in traces of a micro-batch.

    A row_targets of -1 is padding or a repeated row (host.steps), which does not count.
    """
    num_rows = (batch["row_targets"] >= 0).sum()
    num_targets = target_mask(batch["labels"]).sum()
    num_in_traces = torch.zeros_like(num_targets)
    if "row_trace_targets" in batch:
        num_in_traces = batch["row_trace_targets"].sum()
    return torch.stack([num_rows, num_targets, num_in_traces])


def _listed(row_names: list[list[str]] | None) -> str:
    """The names of all rows of a batch, for a message."""
    if not row_names:
        return "of a stream, whose names are not known"
    return "; ".join(itertools.chain.from_iterable(row_names))
