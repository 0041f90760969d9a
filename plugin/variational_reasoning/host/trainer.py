"""The host's SFT trainer with the step gradient of weighted Dr. SFT (method.losses), and the record beside the model.

Per optimizer step, `get_batch_samples` counts the data rows of all micro-batches on all ranks (N), and every micro-batch
contributes sum_i w_i sum_t CE / (N C), times the number of ranks because data parallelism averages gradients.

The head of the model is tapped: during our forward pass its `forward` takes the labels along and returns the two sums of
the loss in place of the logits. That needs a model that returns its head's output as it is. Before the first step, one
forward pass whose head computes the last position alone shows whether it does; a model that scales or caps its logits
takes the path with full logits, as does a head that is not a plain linear layer. The log says which path is taken.
"""

import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import IterableDataset
from llamafactory.extras import logging
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

from variational_reasoning import __version__
from variational_reasoning.host.dataset import LOGGER, ROW_COLUMNS
from variational_reasoning.host.formats import ID_COLUMNS
from variational_reasoning.method.losses import (
    dr_sft_loss,
    target_mask,
    weighted_nll_from_hidden,
    weighted_nll_from_logits,
)
from variational_reasoning.model_record import write_record
from variational_reasoning.packages import installed_version

logger = logging.get_logger(LOGGER)


class RowCollator:
    """Attaches the rows' weights after the host's collator, which would cast them to the compute dtype.

    Names are text, which accelerate's dispatcher of streams cannot carry, so they can be left out.
    """

    def __init__(self, collator, with_names: bool = True):
        self.collator = collator
        self.with_names = with_names

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate examples; the added entries have one line per example, padded to the most rows in one.

        Returns: the host's batch, row_weights float32 [batch, rows] padded with 0, row_targets int64 [batch, rows]
            padded with -1, row_names as nested lists.
        """
        rows = [[feature.pop(name) for name in ROW_COLUMNS] for feature in features]
        for feature in features:
            for name in ID_COLUMNS:
                feature.pop(name, None)
        batch = self.collator(features)
        width = max(len(weights) for weights, _, _ in rows)
        batch["row_weights"] = torch.tensor(
            [w + [0.0] * (width - len(w)) for w, _, _ in rows], dtype=torch.float32
        )
        batch["row_targets"] = torch.tensor(
            [t + [-1] * (width - len(t)) for _, t, _ in rows], dtype=torch.int64
        )
        if self.with_names:
            batch["row_names"] = [names for _, _, names in rows]
        return batch


@contextmanager
def tapped(
    head: torch.nn.Linear, forward: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """While open, `head(hidden)` is `forward(hidden)`; hooks on the module, such as ZeRO-3's, still run around it."""
    head.forward = forward
    try:
        yield
    finally:
        del head.forward


class VariationalTrainer(CustomSeq2SeqTrainer):
    """The host's trainer for runs that use our keys or formats.

    With `constant_loss_normalizer` None the loss is the host's own.
    """

    def __init__(self, *, finetuning_args, data_collator, **kwargs):
        run = finetuning_args.variational
        collator = RowCollator(
            data_collator, with_names=not isinstance(kwargs.get("train_dataset"), IterableDataset)
        )
        super().__init__(finetuning_args=finetuning_args, data_collator=collator, **kwargs)
        self.config = run.config
        self.constant_loss_normalizer: float | None = run.constant_loss_normalizer
        self.facts = run.facts
        self._inputs: dict[str, Any] = run.inputs
        self._tokens_in_step: torch.Tensor | None = None
        self._nll_since_log = torch.zeros((), device=self.args.device)
        self._steps_since_log = 0
        self._eval_sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self._head: torch.nn.Linear | None = None
        self._head_is_settled = False
        if self.constant_loss_normalizer is not None:
            # The base class would divide a loss that has no function of its own by the accumulation steps.
            self.compute_loss_func = self._refuse_base_loss
            self._refuse_split_rows()
            self._head = self._plain_head()
        self._log_start()

    def _refuse_base_loss(self, *args, **kwargs):
        raise RuntimeError(
            "weighted Dr. SFT must not go through the base class's loss; please report this"
        )

    def _refuse_split_rows(self) -> None:
        parallelism = getattr(self.accelerator, "parallelism_config", None)
        for name in ("cp_size", "sp_size", "tp_size"):
            if parallelism is not None and (getattr(parallelism, name, 1) or 1) > 1:
                raise ValueError(
                    f"parallelism_config.{name} > 1: rows split over ranks are not supported with constant_loss_normalizer"
                )

    def _log_start(self) -> None:
        if self.constant_loss_normalizer is None:
            logger.info_rank0(
                "variational_reasoning: the host's own loss; rows in our formats, all of weight 1"
            )
            return
        source = (
            "auto, mean weight x mean target tokens"
            if self.config.constant_loss_normalizer == "auto"
            else "as given"
        )
        logger.info_rank0(
            "variational_reasoning: weighted Dr. SFT (arXiv 2509.22637, App. C): sum_i w_i sum_t CE / (N C); "
            f"C = constant_loss_normalizer = {self.constant_loss_normalizer:.6g} target tokens per row ({source})"
        )
        if self.facts is not None:
            weights = self.facts.weight_summary()
            logger.info_rank0(
                f"variational_reasoning: {self.facts.rows} rows, {self.facts.mean_target_tokens():.2f} target tokens per row; "
                f"weights: count {weights['count']}, mean {weights['mean']:.6g}, min {weights['min']:.6g}, "
                f"max {weights['max']:.6g}; dropped {self.facts.dropped} rows longer than cutoff_len"
            )

    def _plain_head(self) -> torch.nn.Linear | None:
        """The head, if its `forward` can be tapped; otherwise the log says why the full logits are needed."""
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        head = model.get_output_embeddings()
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
            f"variational_reasoning: the loss takes the path with full logits, because {reason}; its memory grows with "
            "length x vocabulary"
        )

    def get_batch_samples(self, *args, **kwargs):
        """The base class's micro-batches of one optimizer step; counts N, data rows, instead of tokens."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if self.constant_loss_normalizer is None or not batches:
            return batches, num_items
        rows = sum((batch["row_targets"] >= 0).sum() for batch in batches)
        tokens = sum(target_mask(batch["labels"]).sum() for batch in batches)
        counts = torch.stack([rows, tokens]).to(self.args.device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.unsqueeze(0)).sum(0)
        self._tokens_in_step = counts[1]
        self._steps_since_log += 1
        return batches, counts[0]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """A micro-batch's share of the step's loss; in evaluation, the mean over the batch's rows.

        Raises: RuntimeError for a loss that is not finite, with the names of the rows.
        """
        inputs = dict(inputs)
        row_weights, row_targets, row_names = (inputs.pop(name, None) for name in ROW_COLUMNS)
        if self.constant_loss_normalizer is None:
            return super().compute_loss(
                model, inputs, return_outputs, num_items_in_batch=num_items_in_batch
            )
        labels = inputs.pop("labels")
        target_weights = torch.repeat_interleave(
            row_weights.flatten(), row_targets.flatten().clamp(min=0)
        )
        if len(target_weights) != target_mask(labels).sum():
            raise RuntimeError(
                f"{len(target_weights)} weighted targets, but other labels, in the rows {_listed(row_names)}"
            )
        (weighted, plain), outputs = self._sums(
            model, inputs, labels, target_weights, needs_logits=return_outputs
        )
        if not math.isfinite(weighted.item()):
            raise RuntimeError(f"the loss is {weighted.item()} in the rows {_listed(row_names)}")
        if not model.training:
            # The base class counts tokens here; an evaluation's batches are averaged by their number of rows.
            loss = dr_sft_loss(weighted, (row_targets >= 0).sum(), self.constant_loss_normalizer)
            self._eval_sums += torch.stack(
                [plain.double(), torch.tensor(len(target_weights)).to(plain)]
            )
        else:
            loss = (
                dr_sft_loss(weighted, num_items_in_batch, self.constant_loss_normalizer)
                * self.args.world_size
            )
            self._nll_since_log += plain.float() / self._tokens_in_step
        return (loss, outputs) if return_outputs else loss

    def _sums(self, model, inputs, labels, target_weights, needs_logits):
        """(weighted, plain) sums of the cross entropies, and the model's outputs."""
        mask = target_mask(labels)
        targets = labels[:, 1:][mask]
        if self._head is not None and not self._head_is_settled:
            self._settle_head(model, inputs)
        if self._head is None or (needs_logits and self.compute_metrics is not None):
            outputs = model(**inputs)
            return weighted_nll_from_logits(
                outputs.logits[:, :-1][mask], targets, target_weights
            ), outputs
        head = self._head

        def sums(hidden: torch.Tensor) -> torch.Tensor:
            at_targets = hidden[:, :-1][mask]
            return torch.stack(
                weighted_nll_from_hidden(
                    at_targets, head.weight, targets, target_weights, head.bias
                )
            )

        with tapped(head, sums):
            outputs = model(**inputs)
        # Taken from the outputs, because on the way there the hooks by which ZeRO-3 gathers the head's weight are set.
        weighted, plain = outputs.logits
        return (weighted, plain.detach()), outputs

    def _settle_head(self, model, inputs) -> None:
        """Keep the head if the model returns its output as it is; a pass without gradient tells."""
        head, seen = self._head, []

        def last_position(hidden: torch.Tensor) -> torch.Tensor:
            seen.append(torch.nn.functional.linear(hidden[:, -1:], head.weight, head.bias))
            return seen[-1]

        was_training = model.training
        model.eval()
        with torch.no_grad(), tapped(head, last_position):
            returned = model(**inputs).logits
        model.train(was_training)
        was_called = len(seen) == 1 and returned.shape == seen[0].shape
        self._head_is_settled = was_called and torch.equal(returned.to(seen[0]), seen[0])
        if self._head_is_settled:
            logger.info_rank0(
                "variational_reasoning: the loss is computed in chunks from hidden states, without full logits"
            )
        else:
            self._log_full_path("the model changes its head's output or does not call its head")
            self._head = None

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds `token_nll`, the token mean per step that the host's own loss would be, so that curves compare."""
        if self.constant_loss_normalizer is not None and "loss" in logs and self._steps_since_log:
            total = self._nll_since_log.clone()
            if self.args.world_size > 1:
                total = self.accelerator.gather(total.unsqueeze(0)).sum()
            logs["token_nll"] = round(total.item() / self._steps_since_log, 6)
            self._nll_since_log.zero_()
            self._steps_since_log = 0
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        """The base class's loop, with `token_nll` over all tokens of the evaluation set."""
        self._eval_sums.zero_()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.constant_loss_normalizer is not None:
            sums = self._eval_sums
            if self.args.world_size > 1:
                sums = self.accelerator.gather(sums.unsqueeze(0)).sum(0)
            output.metrics[f"{metric_key_prefix}_token_nll"] = (sums[0] / sums[1]).item()
        return output

    def save_model(self, *args, **kwargs):
        """The base class's, and the record of what the model was trained on, in checkpoints too."""
        super().save_model(*args, **kwargs)
        if self.args.should_save:
            folder = args[0] if args else kwargs.get("output_dir")
            write_record(folder or self.args.output_dir, self._record())

    def _record(self) -> dict[str, Any]:
        record = self._inputs | {
            "loss": {"name": "the host's own"},
            "versions": {"variational_reasoning": __version__, "python": platform.python_version()}
            | {
                name: installed_version(name)
                for name in ("llamafactory", "transformers", "torch", "deepspeed", "peft")
            },
        }
        if self.constant_loss_normalizer is not None:
            record["loss"] = {
                "name": "weighted Dr. SFT",
                "constant_loss_normalizer": self.constant_loss_normalizer,
                "unit": "target tokens per row",
                "is_auto": self.config.constant_loss_normalizer == "auto",
            }
        if self.facts is not None:
            record["rows"] = {
                "count": self.facts.rows,
                "dropped_longer_than_cutoff_len": self.facts.dropped,
                "mean_target_tokens": self.facts.mean_target_tokens(),
                "weights": self.facts.weight_summary(),
            }
        return record


def _listed(row_names: list[list[str]] | None) -> str:
    return "; ".join(
        name
        for names in row_names or [["of a stream, whose names are not known"]]
        for name in names
    )
