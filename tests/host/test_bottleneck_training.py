"""One step of phase A through the real host, against a reference with full logits."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from variational_reasoning.host.bottleneck import dense_mask, layout_of
from variational_reasoning.method.abstract import BEGIN, END, symbol_names

from .conftest import make_model, make_tokenizer
from .reference import relative_error
from .test_gradient import GradientCapture

ROWS = [
    ("What is 1 + 1?", "One and one make two.", "<TOKEN_A><TOKEN_B>", "2", 0.5),
    ("What is 2 + 2?", "Two, three, four.", "<TOKEN_C>", "4", 1.0),
    ("Say x.", "x is a letter of the alphabet, and a short one.", "<TOKEN_D><TOKEN_A>", "x", 2.0),
]


@pytest.fixture(scope="module")
def abstract_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("abstract")
    tokenizer = make_tokenizer(folder)
    tokenizer.add_tokens([BEGIN, END, *symbol_names(4)])
    tokenizer.save_pretrained(folder)
    options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    make_model(folder, len(tokenizer), "gpt2", **options)
    return str(folder)


def reference(folder: str, factor: float) -> dict[str, torch.Tensor]:
    """Gradient of 1/N sum_i w_i (factor x symbols + answer) / C under a dense mask, in float64."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="sdpa"
    )

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    loss = 0.0
    for question, chain, trace, solution, weight in ROWS:
        x = encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        c, z = encode(chain), encode(BEGIN + trace + END)
        separator = encode("\n")
        ids = x + c + z + separator + encode(f"{solution}<|im_end|>")
        y_start = len(x + c + z)
        layout = layout_of([[(len(ids), (len(x), len(x + c), y_start))]])
        mask = dense_mask(layout, len(ids))
        logits = model(input_ids=torch.tensor([ids]), attention_mask=mask).logits[0]
        nll = torch.nn.functional.cross_entropy(
            logits[:-1], torch.tensor(ids[1:]), reduction="none"
        )
        symbols = nll[len(x + c) : y_start - 1].sum()
        answer = nll[y_start + len(separator) - 1 :].sum()
        loss = loss + weight * (factor * symbols + answer)
    (loss / (len(ROWS) * 50.0)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


BATCHES = {
    "padded": {"per_device_train_batch_size": 3},
    "accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    "eager": {"per_device_train_batch_size": 3, "flash_attn": "disabled"},
    "packed": {"per_device_train_batch_size": 1, "packing": True, "cutoff_len": 400},
    "steps": {
        "per_device_train_batch_size": None,
        "gradient_accumulation_steps": None,
        "rows_per_step": 3,
    },
}


@pytest.mark.parametrize("how", BATCHES.values(), ids=BATCHES)
def test_the_gradient_in_float64(world, run_exp, abstract_model, how):
    names = ("question", "chain", "trace", "solution", "weight")
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    world.add("abstract", rows, formatting="abstract")
    capture = GradientCapture(torch.float64)
    config = world.config(
        model_name_or_path=abstract_model,
        dataset="abstract",
        prompt_family="abstract",
        prompt_kind="abstract_bottleneck",
        trace_loss_weight=0.125,
        **how,
    )
    run_exp(config, callbacks=[capture])
    assert relative_error(capture.gradients, reference(abstract_model, 0.125)) < 1e-9
    assert capture.history[0]["token_nll_symbols"] > 0
    assert capture.history[0]["token_nll_answer"] > 0
