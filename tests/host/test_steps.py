"""Balanced steps: the gradient of every arrangement is the same, and every row counts once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from variational_reasoning.host.steps import (
    CompletedBatches,
    MarkedRows,
    RowTable,
    StepSampler,
)
from variational_reasoning.host.trainer import VariationalTrainer
from variational_reasoning.method.balance import row_cost

from .conftest import ROWS, World, make_model
from .reference import relative_error, row_ids, row_nll, step_gradient
from .test_gradient import GradientCapture
from .test_launchers import deepspeed_config, splits, taken_step

STEPS = {
    "per_device_train_batch_size": None,
    "gradient_accumulation_steps": None,
    "rows_per_step": 8,
}


@pytest.mark.parametrize("limit", [434, 500, 900, 1800, 24576])
def test_the_gradient_of_packs_in_float64(world, run_exp, host_log, limit):
    # The longest row has 434 tokens, so 434 allows one row in each pack.
    capture = GradientCapture(torch.float64)
    config = world.config(
        model_name_or_path=world.float64_model, tokens_per_micro_batch=limit, **STEPS
    )
    run_exp(config, callbacks=[capture])
    reference = step_gradient(world.float64_model, ROWS, 50.0)
    assert relative_error(capture.gradients, reference) < 1e-9
    assert "packs without padding" in host_log.text
    assert capture.history[0]["useful_tokens"] == 1.0


@pytest.mark.parametrize("limit", [440, 900, 1800])
def test_the_gradient_of_padded_micro_batches_in_float64(world, run_exp, host_log, limit):
    capture = GradientCapture(torch.float64)
    config = world.config(
        model_name_or_path=world.float64_model,
        tokens_per_micro_batch=limit,
        flash_attn="disabled",
        **STEPS,
    )
    run_exp(config, callbacks=[capture])
    reference = step_gradient(world.float64_model, ROWS, 50.0)
    assert relative_error(capture.gradients, reference) < 1e-9
    assert "padded micro-batches (packs are not supported for gpt2 with eager" in host_log.text


ROOT = Path(__file__).parents[2]

slow = pytest.mark.slow


def distributed_gradients(world, processes: int, configs: list[dict]) -> list[list[dict]]:
    """The gradients of every step of each training, on this many processes."""
    path, result = world.root / "configs.json", world.root / "gradients.pt"
    path.write_text(json.dumps(configs), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc_per_node",
        str(processes),
        "-m",
        "tests.host.steps_worker",
        str(path),
        str(result),
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(world.root / "cache"),
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return torch.load(result)


@slow
@pytest.mark.parametrize("processes", [2, 3])
def test_the_gradient_on_several_processes_in_float64(world, processes):
    # Steps of 5 rows: the second one has the 3 rows that are left. Steps of 2 rows leave one of
    # three ranks idle. With a learning rate of zero, all steps see the same weights.
    configs, expected = [], []
    for rows_per_step, limit in [(8, 434), (8, 900), (5, 24576), (2, 500)]:
        config = world.config(
            model_name_or_path=world.float64_model,
            max_steps=None,
            num_train_epochs=1.0,
            learning_rate=0.0,
            tokens_per_micro_batch=limit,
            **STEPS | {"rows_per_step": rows_per_step},
        )
        configs.append(config)
        starts = range(0, len(ROWS), rows_per_step)
        expected.append([ROWS[start : start + rows_per_step] for start in starts])
    # The padded arrangement, for models that cannot train on packs.
    configs.append(configs[2] | {"flash_attn": "disabled"})
    expected.append(expected[2])
    # Without rows_per_step: accelerate repeats a row of the beginning to fill the last batch.
    configs.append(
        configs[2]
        | {"dataset": "seven", "rows_per_step": None, "tokens_per_micro_batch": None}
        | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    )
    configs[-1] = {key: value for key, value in configs[-1].items() if value is not None}
    world.add_rows("seven", ROWS[:7])
    per_step = 4 * processes
    expected.append([ROWS[:7][start : start + per_step] for start in range(0, 7, per_step)])
    found = distributed_gradients(world, processes, configs)
    for steps, rows_of_steps in zip(found, expected, strict=True):
        assert len(steps) == len(rows_of_steps)
        for gradients, rows in zip(steps, rows_of_steps, strict=True):
            reference = step_gradient(world.float64_model, rows, 50.0)
            assert relative_error(gradients, reference) < 1e-9


def test_every_rank_draws_the_same_rows_for_any_number_of_ranks():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 100, (50,), generator=generator).tolist()
    table = RowTable(tokens, [1] * 50, [float(length) for length in tokens])

    def rows_of_steps(ranks: int, epoch: int) -> list[list[int]]:
        steps: list[list[int]] = []
        counts = []
        for rank in range(ranks):
            sampler = StepSampler(
                table,
                12,
                rank=rank,
                ranks=ranks,
                token_limit=200,
                is_packed=True,
                seed=7,
                epoch=lambda: epoch,
            )
            shares = list(sampler)
            assert len(shares) == len(sampler) == 5
            counts.append([len(share.micro_batches) for share in shares])
            for number, share in enumerate(shares):
                rows = [row for batch in share.micro_batches for row in batch]
                steps += [[]] if rank == 0 else []
                steps[number] += rows
                assert share.facts.num_rows == (12 if number < 4 else 2)
        assert all(count == counts[0] for count in counts)
        return [sorted(rows) for rows in steps]

    first = rows_of_steps(1, 0)
    assert sorted(row for rows in first for row in rows) == list(range(50))
    assert rows_of_steps(2, 0) == rows_of_steps(5, 0) == first != rows_of_steps(1, 1)


def test_rows_that_are_repeated_to_fill_a_batch_are_marked():
    # 5 rows in batches of 2 on 3 ranks: the third batch is filled up, and three batches are needed.
    batches = BatchSampler(SequentialSampler(range(5)), 2, drop_last=False)
    assert list(CompletedBatches(batches, 3)) == [[0, 1], [2, 3], [4, ~0]]
    assert list(CompletedBatches(batches, 2)) == [[0, 1], [2, 3], [4, ~0], [~0, ~1]]
    assert len(CompletedBatches(batches, 2)) == 4
    row = {
        "input_ids": [5, 6, 7],
        "attention_mask": [1, 1, 1],
        "labels": [-100, 6, 7],
        "row_weights": [0.5],
        "row_targets": [2],
        "row_names": ["a"],
    }
    rows = MarkedRows(Dataset.from_list([row]))
    assert len(rows) == 1 and rows[0]["labels"] == [-100, 6, 7]
    marked = rows[~0]
    assert marked["labels"] == [-100] * 3 and marked["input_ids"] == [5, 6, 7]
    assert (marked["row_weights"], marked["row_targets"]) == ([0.0], [-1])


def test_a_longer_row_than_a_micro_batch_is_refused_with_its_name(world, run_exp):
    message = (
        "tokens_per_micro_batch: 400, but rows.jsonl row 3, question_id q2 has 434 tokens; "
        "allowed are 434 and more, or lower cutoff_len"
    )
    with pytest.raises(ValueError, match=message):
        run_exp(world.config(tokens_per_micro_batch=400, **STEPS))


def test_the_host_counts_tokens_and_flops_of_whole_steps(world, run_exp):
    config = world.config(
        tokens_per_micro_batch=900,
        include_num_input_tokens_seen="non_padding",
        max_steps=None,
        num_train_epochs=2.0,
        **STEPS | {"rows_per_step": 5},
    )
    capture = GradientCapture(torch.float32)
    run_exp(config, callbacks=[capture])
    state = json.loads((world.root / "out/trainer_state.json").read_text(encoding="utf-8"))
    assert (state["global_step"], state["max_steps"], state["epoch"]) == (4, 4, 2.0)
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    counts = []
    for row in ROWS:
        prompt, target = row_ids(tokenizer, *row[:3])
        counts.append((len(prompt) + len(target), len(target)))
    assert state["num_input_tokens_seen"] == 2 * sum(tokens for tokens, _ in counts)
    cost = row_cost(AutoConfig.from_pretrained(world.model))
    assert state["total_flos"] == pytest.approx(2 * 3 * sum(cost(*count) for count in counts))
    assert capture.history[0]["imbalance"] == 1.0


@slow
def test_resuming_gives_the_bytes_of_an_undisturbed_run(world, run_exp, tmp_path):
    # Steps of 3 rows, so 3 per epoch: checkpoint 2 is in the middle of the first epoch, 3 at its
    # end. Dropout shows whether the state of the random numbers goes on as it was.
    folder = tmp_path / "dropout"
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(folder)
    make_model(folder, len(tokenizer), "gpt2")
    config = world.config(
        model_name_or_path=str(folder),
        disable_shuffling=None,
        max_steps=None,
        num_train_epochs=3.0,
        learning_rate=0.1,
        optim="adamw_torch",
        save_strategy="steps",
        save_steps=1,
        tokens_per_micro_batch=900,
        output_dir=str(world.root / "whole"),
        **STEPS | {"rows_per_step": 3},
    )
    run_exp(config)
    whole = (world.root / "whole/model.safetensors").read_bytes()
    for checkpoint in (2, 3, 7):
        AcceleratorState._reset_state(reset_partial_state=True)
        resumed = world.root / f"from_{checkpoint}"
        changes = {
            "output_dir": str(resumed),
            "resume_from_checkpoint": str(world.root / f"whole/checkpoint-{checkpoint}"),
        }
        run_exp(config | changes)
        assert (resumed / "model.safetensors").read_bytes() == whole


EVALUATIONS = {
    "batches of 1": {"per_device_eval_batch_size": 1},
    "batches of 3": {"per_device_eval_batch_size": 3},
    "packed": {"packing": True, "cutoff_len": 1304, "per_device_eval_batch_size": 2},
    "steps": STEPS | {"rows_per_step": 3, "tokens_per_micro_batch": 900},
    "steps with accuracy": STEPS | {"rows_per_step": 3, "compute_accuracy": True},
}


def expected_evaluation(world) -> dict[str, float]:
    model = AutoModelForCausalLM.from_pretrained(world.model, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    weighted, plain, targets = 0.0, 0.0, 0
    with torch.no_grad():
        for *texts, weight in ROWS:
            prompt, target = row_ids(tokenizer, *texts)
            nll = row_nll(model, prompt, target).item()
            weighted, plain = weighted + weight * nll, plain + nll
            targets += len(target)
    return {"eval_loss": weighted / (len(ROWS) * 50), "eval_token_nll": plain / targets}


def check_evaluation(world, folder: str = "out") -> None:
    results = json.loads((world.root / folder / "eval_results.json").read_text(encoding="utf-8"))
    for name, value in expected_evaluation(world).items():
        assert results[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("how", EVALUATIONS.values(), ids=EVALUATIONS)
def test_the_evaluation_does_not_depend_on_batches_and_packs(world, run_exp, how):
    run_exp(world.config(eval_dataset="rows", do_eval=True, learning_rate=0.0, **how))
    check_evaluation(world)


def test_weights_reach_the_loss_exactly_under_deepspeed():
    """0.649546 is 0.648438 in bf16; 1e-8 is 0 in fp16."""
    weights = torch.tensor([[0.649546, 1e-8]])
    batch = {"row_weights": weights, "row_targets": torch.tensor([[1, 1]])}
    trainer = VariationalTrainer.__new__(VariationalTrainer)
    trainer.args = SimpleNamespace(device=torch.device("cpu"), past_index=-1)
    trainer.is_deepspeed_enabled = True
    for dtype in (torch.bfloat16, torch.float16):
        config = SimpleNamespace(dtype=lambda dtype=dtype: dtype)
        plugin = SimpleNamespace(hf_ds_config=config)
        state = SimpleNamespace(deepspeed_plugin=plugin)
        trainer.accelerator = SimpleNamespace(state=state)
        assert trainer._prepare_input(weights).dtype == dtype  # what the host does
        assert torch.equal(trainer._prepare_inputs(dict(batch))["row_weights"], weights)


ONE_ROW = STEPS | {"rows_per_step": 1, "max_steps": 1}
LORA = {"finetuning_type": "lora", "lora_rank": 4, "seed": 1, "learning_rate": 0.1, "max_steps": 3}
WEIGHTS = (1.0, 0.649546)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, shared) -> World:
    """The trainings of this file on two ranks, in one torchrun; each wrote into a folder of its
    name.
    """
    world = World(tmp_path_factory.mktemp("two_ranks"), shared)
    world.add_rows("one", ROWS[2:3])
    trainings = {
        "batches of 4": world.config(**splits(4, 1)),
        "packs": world.config(**splits(1, 2), cutoff_len=1000, neat_packing=True),
        "lora": world.config(dataset="one", **ONE_ROW | LORA),
    }
    evaluated = {"eval_dataset": "rows", "do_eval": True, "learning_rate": 0.0}
    # 8 rows on 2 ranks in batches of 3: accelerate repeats 4 of them.
    for how in ("batches of 3", "steps"):
        trainings[f"evaluation in {how}"] = world.config(**evaluated, **EVALUATIONS[how])
    for stage in (2, 3):
        # One row in each micro-batch: four micro-steps on two ranks.
        zero = {"deepspeed": deepspeed_config(world, stage)}
        trainings[f"zero {stage}"] = world.config(tokens_per_micro_batch=434, **zero, **STEPS)
    for weight in WEIGHTS:
        world.add_rows(f"weight_{weight}", [(*row[:3], weight) for row in ROWS])
        trainings[f"loss of {weight}"] = world.config(
            dataset=f"weight_{weight}",
            learning_rate=0.0,
            deepspeed=deepspeed_config(world, 2),
            tokens_per_micro_batch=900,
            use_cpu=True,
            bf16=True,
            **STEPS,
        )
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    for family, shape in (("qwen3", {}), ("qwen3_moe", experts)):
        folder = world.root / family
        tokenizer.save_pretrained(folder)
        make_model(folder, len(tokenizer), family, **shape)
        trainings[f"idle {family}"] = world.config(
            model_name_or_path=str(folder),
            dataset="one",
            deepspeed=deepspeed_config(world, 3),
            **ONE_ROW,
        )
    world.train_all(trainings)
    return world


@slow
@pytest.mark.parametrize("how", ["batches of 4", "packs"])
def test_two_ranks_without_balanced_steps(two_ranks, how):
    reference = step_gradient(two_ranks.model, ROWS, 50.0)
    assert relative_error(taken_step(two_ranks, how), reference) < 1e-5


@slow
@pytest.mark.parametrize("how", ["batches of 3", "steps"])
def test_the_evaluation_does_not_depend_on_ranks(two_ranks, how):
    check_evaluation(two_ranks, f"evaluation in {how}")


@slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_over_several_micro_steps(two_ranks, stage):
    reference = step_gradient(two_ranks.model, ROWS, 50.0)
    assert relative_error(taken_step(two_ranks, f"zero {stage}"), reference) < 1e-5


@slow
@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_an_idle_rank_under_zero_3(two_ranks, family):
    """One row on two ranks, with gradient checkpointing; a mixture of experts too."""
    folder = two_ranks.root / family
    # Files name the weights of experts one by one; the model and its gradients have them in one.
    before, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (folder, two_ranks.root / f"idle {family}")
    )
    # The experts' grouped product knows no float64.
    reference = step_gradient(str(folder), ROWS[2:3], 50.0, dtype=torch.float32)
    for name, gradient in reference.items():
        step = (before[name].double() - after[name].double()) / 100.0
        assert (step - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


@slow
def test_an_idle_rank_with_lora(two_ranks, world, run_exp):
    check_adapter(two_ranks.root / "lora", world, run_exp)


@slow
def test_an_idle_rank_with_lora_under_zero_3(world, run_exp):
    """By itself, because it ends in an error with transformers 4 (docs/limits.md)."""
    world.add_rows("one", ROWS[2:3])
    zero = {"deepspeed": deepspeed_config(world, 3)}
    world.train_all({"lora": world.config(dataset="one", **zero, **ONE_ROW | LORA)})
    check_adapter(world.root / "lora", world, run_exp)


def check_adapter(trained: Path, world, run_exp) -> None:
    """The adapter is the one that a single process trains."""
    world.add_rows("one", ROWS[2:3])
    run_exp(world.config(dataset="one", **ONE_ROW | LORA))
    found = load_file(trained / "adapter_model.safetensors")
    expected = load_file(world.root / "out/adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


@slow
def test_the_loss_under_deepspeed_has_the_exact_weights(two_ranks):
    """The same rows with weight 1 and 0.649546: the ratio of the losses is the weight.

    DeepSpeed has fp16 on a GPU only; the test above covers the cast.
    """
    losses = []
    for weight in WEIGHTS:
        path = two_ranks.root / f"loss of {weight}" / "train_results.json"
        losses.append(json.loads(path.read_text(encoding="utf-8"))["train_loss"])
    # The step's loss is the same but for the weight, which bf16 would make 0.648438.
    assert losses[1] / losses[0] == pytest.approx(0.649546, rel=1e-5)
