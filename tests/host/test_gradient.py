"""The step gradient of weighted Dr. SFT is the same for every way of splitting the same eight rows."""

import pytest
import torch
from transformers import TrainerCallback

from .conftest import ROWS, make_model
from .reference import relative_error, step_gradient


class GradientCapture(TrainerCallback):
    """Keeps the gradients of the first optimizer step; casts the model beforehand, to float64 if
    asked.
    """

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.gradients: dict[str, torch.Tensor] = {}
        self.history: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        model.to(self.dtype)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {
            name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
        }

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.history.append(dict(logs))


SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.mark.parametrize(("batch", "accumulation"), SPLITS)
def test_micro_batches_in_float64(world, run_exp, batch, accumulation):
    capture = GradientCapture(torch.float64)
    splits = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    run_exp(world.config(model_name_or_path=world.float64_model, **splits), callbacks=[capture])
    assert relative_error(capture.gradients, step_gradient(world.float64_model, ROWS, 50.0)) < 1e-9


@pytest.mark.parametrize("packing", ["packing", "neat_packing"])
@pytest.mark.parametrize(("batch", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_packs_in_float32(world, run_exp, packing, batch, accumulation):
    # Rows have 348 to 376 tokens, so two go into a pack of 1,000.
    capture = GradientCapture(torch.float32)
    config = world.config(
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        cutoff_len=1000,
        **{packing: True},
    )
    run_exp(config, callbacks=[capture])
    assert relative_error(capture.gradients, step_gradient(world.model, ROWS, 50.0)) < 1e-5


@pytest.mark.parametrize("attention", ["sdpa", "disabled"])
def test_packs_of_a_length_that_is_not_a_multiple_of_8(world, run_exp, attention):
    # The host's collator pads ids to a multiple of 8 but not positions, so the packs must be one.
    capture = GradientCapture(torch.float32)
    packing = {"packing": True, "cutoff_len": 997, "flash_attn": attention}
    run_exp(world.config(**packing), callbacks=[capture])
    assert relative_error(capture.gradients, step_gradient(world.model, ROWS, 50.0)) < 1e-5


@pytest.mark.parametrize(
    ("family", "path", "overrides"),
    [
        ("qwen3", "chunks from hidden states", {"tie_word_embeddings": False}),
        ("llama", "chunks from hidden states", {"tie_word_embeddings": True}),
        # These scale or cap their head's output, so the loss takes the path with full logits.
        (
            "gemma2",
            "full logits",
            {"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8, "sliding_window": 1024},
        ),
        ("granite", "full logits", {"logits_scaling": 4.0}),
        ("cohere", "full logits", {"logit_scale": 0.25}),
    ],
)
def test_architectures_in_float32(world, run_exp, host_log, tmp_path, family, path, overrides):
    from transformers import AutoTokenizer

    folder = tmp_path / family
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(folder)
    make_model(folder, len(tokenizer), family, **overrides)
    capture = GradientCapture(torch.float32)
    config = world.config(
        model_name_or_path=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    run_exp(config, callbacks=[capture])
    assert relative_error(capture.gradients, step_gradient(str(folder), ROWS, 50.0)) < 1e-5
    assert path in host_log.text


def test_gradient_checkpointing_changes_nothing(world, run_exp):
    captures = []
    for disabled in (False, True):
        captures.append(GradientCapture(torch.float64))
        config = world.config(
            model_name_or_path=world.float64_model, disable_gradient_checkpointing=disabled
        )
        run_exp(config, callbacks=[captures[-1]])
    assert relative_error(captures[0].gradients, captures[1].gradients) < 1e-12


def test_a_row_of_weight_zero_adds_nothing_but_counts(world, run_exp):
    # Without the row of weight 0, N falls from 8 to 7: the same sum, divided by 7 C instead of 8 C.
    rows = [row for row in ROWS if row[3] > 0]
    world.add_rows("without", rows)
    captures = [GradientCapture(torch.float64), GradientCapture(torch.float64)]
    model = {"model_name_or_path": world.float64_model}
    run_exp(world.config(**model), callbacks=[captures[0]])
    run_exp(
        world.config(**model, dataset="without", per_device_train_batch_size=7),
        callbacks=[captures[1]],
    )
    scaled = {name: gradient * 7 / 8 for name, gradient in captures[1].gradients.items()}
    assert relative_error(captures[0].gradients, scaled) < 1e-9


def test_token_nll_is_the_loss_of_stock_sft(world, run_exp):
    # The host's own loss on the same rows is the token mean; ours is logged next to the Dr. SFT
    # loss.
    world.add_rows("ones", [(*row[:3], 1.0) for row in ROWS])
    stock, ours = GradientCapture(torch.float64), GradientCapture(torch.float64)
    splits = {"dataset": "ones", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    run_exp(world.config(**splits, constant_loss_normalizer=None), callbacks=[stock])
    run_exp(world.config(**splits), callbacks=[ours])
    assert "token_nll" not in stock.history[0]
    assert ours.history[0]["token_nll"] == pytest.approx(stock.history[0]["loss"], abs=1e-4)


def test_auto_is_mean_weight_times_mean_target_tokens(world, run_exp):
    from transformers import AutoTokenizer

    from .reference import row_ids

    tokenizer = AutoTokenizer.from_pretrained(world.model)
    lengths = [len(row_ids(tokenizer, *texts)[1]) for *texts, _ in ROWS]
    constant = sum(row[3] for row in ROWS) / 8 * sum(lengths) / 8
    capture = GradientCapture(torch.float64)
    run_exp(
        world.config(model_name_or_path=world.float64_model, constant_loss_normalizer="auto"),
        callbacks=[capture],
    )
    assert (
        relative_error(capture.gradients, step_gradient(world.float64_model, ROWS, constant)) < 1e-9
    )
