"""Steps of phase A through the real host, against a reference with full logits and a dense mask."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from variational_reasoning.host.bottleneck import DENSE_ROW, dense_mask, layout_of
from variational_reasoning.method.abstract import BEGIN, END, symbol_names

from .conftest import make_model, make_tokenizer
from .reference import relative_error
from .test_gradient import GradientCapture
from .test_launchers import TORCHRUN, deepspeed_config
from .test_steps import STEPS, distributed_gradients

ROWS = [
    ("What is 1 + 1?", "One and one make two.", "<TOKEN_A><TOKEN_B>", "2", 0.5),
    ("What is 2 + 2?", "Two, three, four.", "<TOKEN_C>", "4", 1.0),
    ("Say x.", "x is a letter of the alphabet, and a short one.", "<TOKEN_D><TOKEN_A>", "x", 2.0),
]
LONG = ("Count.", "One, and then two. " * 50, "<TOKEN_B><TOKEN_C>", "3", 0.25)
"""A row of more than DENSE_ROW tokens, which takes two attention calls."""

COLUMNS = ("question", "chain", "trace", "solution", "weight")
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def write_model(folder: Path, family: str, **options) -> str:
    """A model with four symbols."""
    tokenizer = make_tokenizer(folder)
    tokenizer.add_tokens([BEGIN, END, *symbol_names(4)])
    tokenizer.save_pretrained(folder)
    make_model(folder, len(tokenizer), family, **options)
    return str(folder)


@pytest.fixture(scope="module")
def abstract_model(tmp_path_factory):
    """GPT-2, which computes in float64 throughout."""
    return write_model(tmp_path_factory.mktemp("abstract"), "gpt2", **NO_DROPOUT)


def abstract_config(world, model: str, rows=ROWS, **settings) -> dict:
    """A step of phase A on these rows."""
    name = f"abstract{len(rows)}"
    world.add(name, [dict(zip(COLUMNS, row, strict=True)) for row in rows], formatting="abstract")
    phase = {"prompt_family": "abstract", "prompt_kind": "abstract_bottleneck"}
    values = {"model_name_or_path": model, "dataset": name, "trace_loss_weight": 0.125}
    return world.config(**(values | phase | settings))


EVALUATED = {"do_eval": True, "learning_rate": 0.0}
"""An evaluation after a step that changes nothing."""


class Reference:
    """The step's gradient and the figures of its log, row by row under a dense mask, in float64.

    gradients: of 1/N sum_i w_i (factor x symbols + answer) / C, by parameter.
    log: mean nll of all targets, of those of traces, and of those of answers.
    """

    def __init__(self, folder: str, rows=ROWS, factor: float = 0.125):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="sdpa"
        )

        def encode(text):
            return tokenizer.encode(text, add_special_tokens=False)

        loss, in_traces, in_answers = 0.0, [], []
        for row in rows:
            question, chain, trace, solution, weight = row
            x = encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
            c, z = encode(chain), encode(BEGIN + trace + END)
            separator = encode("\n")
            ids = x + c + z + separator + encode(f"{solution}<|im_end|>")
            assert len(ids) > DENSE_ROW or row is not LONG
            y_start = len(x + c + z)
            layout = layout_of([[(len(ids), (len(x), len(x + c), y_start))]])
            mask = dense_mask(layout, len(ids))
            logits = model(input_ids=torch.tensor([ids]), attention_mask=mask).logits[0]
            nll = torch.nn.functional.cross_entropy(
                logits[:-1], torch.tensor(ids[1:]), reduction="none"
            )
            symbols = nll[len(x + c) : y_start - 1]
            answer = nll[y_start + len(separator) - 1 :]
            loss = loss + weight * (factor * symbols.sum() + answer.sum())
            in_traces += symbols.tolist()
            in_answers += answer.tolist()
        (loss / (len(rows) * 50.0)).backward()
        self.gradients = {name: p.grad for name, p in model.named_parameters()}
        targets = {
            "token_nll": in_traces + in_answers,
            "token_nll_symbols": in_traces,
            "token_nll_answer": in_answers,
        }
        self.log = {name: math.fsum(nlls) / len(nlls) for name, nlls in targets.items()}

    def check_log(self, entry: dict) -> None:
        """The log rounds to six digits after the point."""
        for name, value in self.log.items():
            assert entry[name] == pytest.approx(value, abs=2e-5), name

    def check_evaluation(self, folder: Path) -> None:
        """Of an evaluation on the same rows, with the weights that the step began with."""
        results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
        for name, value in self.log.items():
            assert results[f"eval_{name}"] == pytest.approx(value, rel=1e-5), name


BATCHES = {
    "padded": {"per_device_train_batch_size": 3},
    "accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    "eager": {"per_device_train_batch_size": 3, "flash_attn": "disabled"},
    "packed": {"per_device_train_batch_size": 1, "packing": True, "cutoff_len": 400},
    "steps": STEPS | {"rows_per_step": 3},
}


@pytest.mark.parametrize("how", BATCHES.values(), ids=BATCHES)
def test_the_gradient_in_float64(world, run_exp, abstract_model, how):
    capture = GradientCapture(torch.float64)
    config = abstract_config(world, abstract_model, eval_dataset="abstract3", **EVALUATED, **how)
    run_exp(config, callbacks=[capture])
    reference = Reference(abstract_model)
    assert relative_error(capture.gradients, reference.gradients) < 1e-9
    reference.check_log(capture.history[0])
    reference.check_evaluation(world.root / "out")


@pytest.mark.parametrize("how", ["padded", "packed", "steps"])
def test_the_gradient_with_flex_attention(world, run_exp, abstract_model, unfused_flex, how):
    """A whole step with BlockMasks. The kernel of a GPU is replaced by torch's unfused product."""
    rows = [*ROWS, LONG]
    settings = BATCHES[how] | {"bottleneck_attention": "flex"}
    if how == "steps":
        settings["rows_per_step"] = 4
    else:
        settings |= {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1}
    if how == "packed":
        settings |= {"gradient_accumulation_steps": 1, "cutoff_len": 1024}
    capture = GradientCapture(torch.float64)
    run_exp(abstract_config(world, abstract_model, rows, **settings), callbacks=[capture])
    reference = Reference(abstract_model, rows)
    assert relative_error(capture.gradients, reference.gradients) < 1e-9
    reference.check_log(capture.history[0])
    assert unfused_flex.calls > 0


def test_flex_attention_is_refused_where_it_cannot_train(world, run_exp, abstract_model):
    config = abstract_config(world, abstract_model, bottleneck_attention="flex")
    with pytest.raises(ValueError, match="bottleneck_attention: flex: FlexAttention has no backw"):
        run_exp(config)


@pytest.mark.slow
def test_two_processes_in_float64(world, abstract_model, tmp_path):
    """One launch: rows alone, an uneven number of them, packs, balanced steps; and LoRA that trains
    whole tables of an untied model.
    """
    untied = write_model(tmp_path / "untied", "gpt2", **NO_DROPOUT, tie_word_embeddings=False)
    rows = [*ROWS, LONG]
    lora = {
        "finetuning_type": "lora",
        "lora_target": "c_attn",
        "additional_target": "wte,lm_head",
        "learning_rate": 1.0,
        "do_eval": None,
        "eval_dataset": None,
    }
    rows_alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    cases = {
        "alone": (abstract_model, rows, rows_alone),
        "uneven": (abstract_model, ROWS, rows_alone),
        "packed": (abstract_model, rows, {"packing": True, "per_device_train_batch_size": 1}),
        "steps": (abstract_model, rows, STEPS | {"rows_per_step": 4}),
        "uneven steps": (abstract_model, ROWS, STEPS | {"rows_per_step": 3}),
        "lora": (untied, rows, STEPS | {"rows_per_step": 4} | lora),
    }
    configs, references = [], []
    for number, (model, data, settings) in enumerate(cases.values()):
        evaluated = EVALUATED | {"eval_dataset": f"abstract{len(data)}"}
        settings = evaluated | settings | {"output_dir": str(tmp_path / str(number))}
        configs.append(abstract_config(world, model, data, **settings))
        references.append(Reference(model, data))
    found = distributed_gradients(world, 2, configs)
    for name, config, [gradients], reference in zip(cases, configs, found, references, strict=True):
        state = json.loads((Path(config["output_dir"]) / "trainer_state.json").read_text("utf-8"))
        reference.check_log(state["log_history"][0])
        if name == "lora":
            # The adapter begins as the model itself, so its tables have the gradient of these.
            tables = ("transformer.wte", "lm_head")
            gradients = {table: _table_gradient(gradients, table) for table in tables}
            expected = {table: reference.gradients[f"{table}.weight"] for table in tables}
        else:
            expected = reference.gradients
            reference.check_evaluation(Path(config["output_dir"]))
        assert relative_error(gradients, expected) < 1e-9, name
    _check_merged(untied, configs[-1]["output_dir"], tmp_path / "merged")


def _table_gradient(gradients: dict, table: str) -> torch.Tensor:
    [name] = [name for name in gradients if f"{table}.modules_to_save" in name]
    return gradients[name]


def _check_merged(base: str, adapter: str, folder: Path) -> None:
    """Merged, saved and loaded again, the model is the trained one: its head is not lost."""
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        trained = PeftModel.from_pretrained(model, adapter)
        expected = trained(input_ids=ids).logits
        trained.merge_and_unload().save_pretrained(folder)
        found = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_zero_3_and_what_it_saves(world, tmp_path):
    """Balanced steps on two ranks; the saved model is the one that a single process would have."""
    model = write_model(tmp_path / "model", "qwen3", tie_word_embeddings=True)
    rows = [*ROWS, LONG]
    config = abstract_config(
        world,
        model,
        rows,
        deepspeed=deepspeed_config(world, 3),
        tokens_per_micro_batch=600,
        **STEPS | {"rows_per_step": 4},
    )
    result = world.cli(config, **TORCHRUN)
    assert result.returncode == 0, result.stderr[-4000:]
    reference = Reference(model, rows)
    before, after = world.weights(model), world.weights()
    steps = {name: (before[name].double() - after[name].double()) / 100.0 for name in before}
    assert relative_error(steps, reference.gradients) < 1e-5
    state = json.loads((world.root / "out/trainer_state.json").read_text(encoding="utf-8"))
    reference.check_log(state["log_history"][0])
    # Saved and loaded again: the symbols keep their ids, and head and embedding stay one table.
    ids = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (model, world.root / "out")]
    assert ids[0] == ids[1] and symbol_names(4)[3] in ids[1]
    loaded = AutoModelForCausalLM.from_pretrained(world.root / "out")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, after["model.embed_tokens.weight"])
