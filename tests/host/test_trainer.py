"""What the trainer does in addition to the step gradient: LoRA, bf16, evaluation, ids, records, and
the refusals inside a run.
"""

import json

import pytest
import torch
from transformers import TrainerCallback

from variational_reasoning.host.trainer import RowCollator

from .conftest import ROWS
from .reference import relative_error, row_ids, row_nll


class NaiveGradient(TrainerCallback):
    """At the optimizer step, computes the same gradient naively with the very model that is
    trained.
    """

    def __init__(self, dtype, tokenizer):
        self.dtype, self.tokenizer = dtype, tokenizer
        self.error, self.history = None, []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        model.to(self.dtype)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide A's gradient
                torch.nn.init.normal_(parameter, std=0.1)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        (
            sum(
                weight * row_nll(model, *row_ids(self.tokenizer, *texts)) for *texts, weight in ROWS
            )
            / (8 * 50.0)
        ).backward()
        naive = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        self.error = relative_error(ours, naive)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.history.append(dict(logs))


@pytest.mark.parametrize("target", ["all", "all,lm_head"])
def test_lora(world, run_exp, host_log, target):
    from transformers import AutoTokenizer

    naive = NaiveGradient(torch.float32, AutoTokenizer.from_pretrained(world.model))
    splits = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    lora = {"finetuning_type": "lora", "lora_rank": 4}
    targets = {"lora_target": "q_proj,lm_head" if "lm_head" in target else "all"}
    run_exp(world.config(**lora, **targets, **splits), callbacks=[naive])
    assert naive.error < 2e-5
    path = (
        "full logits, because the model's head"
        if "lm_head" in target
        else "chunks from hidden states"
    )
    assert path in host_log.text


def test_bf16(world, run_exp):
    # Mixed precision: float32 parameters, bf16 arithmetic. The weights must not be rounded with it.
    from .reference import step_gradient

    class Capture(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.gradients = {name: p.grad.clone() for name, p in model.named_parameters()}

    capture = Capture()
    run_exp(world.config(bf16=True, use_cpu=True), callbacks=[capture])
    reference = step_gradient(world.model, ROWS, 50.0)
    total = torch.cat(
        [(capture.gradients[name].double() - g).flatten() for name, g in reference.items()]
    ).norm()
    assert total / torch.cat([g.flatten() for g in reference.values()]).norm() < 0.05


def test_weights_survive_the_collator_in_float32():
    # The host's collator casts every floating tensor to the compute dtype; 0.3 is 0.30078125 in
    # bf16.
    collator = RowCollator(
        lambda features: {"input_ids": torch.tensor([f["input_ids"] for f in features])}
    )
    features = [
        {
            "input_ids": [1],
            "row_weights": [0.3],
            "row_targets": [2],
            "row_names": ["a"],
            "question_id": ["q"],
        },
        {
            "input_ids": [2],
            "row_weights": [0.1, 0.2],
            "row_targets": [1, 0],
            "row_names": ["b", "c"],
        },
    ]
    batch = collator(features)
    assert batch["row_weights"].dtype == torch.float32
    torch.testing.assert_close(
        batch["row_weights"], torch.tensor([[0.3, 0.0], [0.1, 0.2]]), rtol=0, atol=0
    )
    assert batch["row_targets"].tolist() == [[2, -1], [1, 0]]
    assert batch["row_names"] == [["a"], ["b", "c"]]


@pytest.mark.parametrize("do_train", [True, False])
@pytest.mark.parametrize("compute_accuracy", [False, True])
def test_evaluation(world, run_exp, compute_accuracy, do_train):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = world.config(
        eval_dataset="rows",
        do_eval=True,
        per_device_eval_batch_size=4,
        learning_rate=1e-12,
        compute_accuracy=compute_accuracy,
        eval_strategy="steps",
        eval_steps=1,
        do_train=do_train,
    )
    run_exp(config)
    results = json.loads((world.root / "out/eval_results.json").read_text(encoding="utf-8"))
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(world.model),
        AutoTokenizer.from_pretrained(world.model),
    )
    with torch.no_grad():
        encoded = [row_ids(tokenizer, *row[:3]) for row in ROWS]
        nll = [row_nll(model, *ids).item() for ids in encoded]
    tokens = sum(len(target) for _, target in encoded)
    assert results["eval_token_nll"] == pytest.approx(sum(nll) / tokens, rel=1e-5)
    assert results["eval_loss"] == pytest.approx(
        sum(row[3] * value for row, value in zip(ROWS, nll, strict=True)) / (8 * 50), rel=1e-5
    )
    assert ("eval_accuracy" in results) == compute_accuracy


def test_record_is_written_next_to_model_and_checkpoints(world, run_exp):
    run_exp(world.config(constant_loss_normalizer="auto", save_strategy="steps", save_steps=1))
    record = json.loads((world.root / "out/variational_reasoning.json").read_text(encoding="utf-8"))
    assert record == json.loads(
        (world.root / "out/checkpoint-1/variational_reasoning.json").read_text(encoding="utf-8")
    )
    assert record["prompt_kind"] == "reasoner" and record["chat_format"]["name"] == "chatml"
    assert record["loss"]["is_auto"] and record["loss"]["unit"] == "target tokens per row"
    assert record["rows"]["weights"] == {"count": 8, "mean": 0.515625, "min": 0.0, "max": 1.0}
    assert record["loss"]["constant_loss_normalizer"] == pytest.approx(
        0.515625 * record["rows"]["mean_target_tokens"]
    )
    assert set(record["sources"]["rows"]) == {"file", "sha256"} and "fingerprint" in record["model"]
    assert record["yaml"]["learning_rate"] == 100.0


def test_secrets_are_masked_in_the_record(world, run_exp):
    secrets = {"hf_hub_token": "hf_abc", "hub_token": "hf_def", "swanlab_api_key": "key_ghi"}
    run_exp(world.config(**secrets))
    text = (world.root / "out/variational_reasoning.json").read_text(encoding="utf-8")
    assert not any(value in text for value in secrets.values())
    assert json.loads(text)["yaml"]["hub_token"] == "<HUB_TOKEN>"


def test_our_formats_with_the_hosts_own_loss(world, run_exp):
    world.add_rows("ones", [(*row[:3], 1.0) for row in ROWS])
    run_exp(world.config(dataset="ones", constant_loss_normalizer=None))
    record = json.loads((world.root / "out/variational_reasoning.json").read_text(encoding="utf-8"))
    assert record["loss"] == {"name": "the host's own"} and record["prompt_kind"] == "reasoner"


def test_a_loss_that_is_not_finite_names_the_rows(world, run_exp):
    class Poison(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)

    with pytest.raises(
        RuntimeError,
        match="the loss is nan in the rows rows.jsonl row 1, question_id q0; rows.jsonl row 2",
    ):
        run_exp(world.config(per_device_train_batch_size=2), callbacks=[Poison()])


def test_streaming_trains_the_same_step(world, run_exp):
    # A stream's step equals the step over the same rows from a map-style data set.
    weights = []
    for streaming in (False, True):
        extra = (
            {"streaming": True, "dataloader_num_workers": 1, "buffer_size": 1} if streaming else {}
        )
        run_exp(world.config(**extra))
        weights.append(world.weights())
    assert relative_error(weights[1], weights[0]) < 1e-6
