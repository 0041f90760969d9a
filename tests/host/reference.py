"""An independent computation of the step that the trainer must take: one row at a time, full
logits, autograd.

Shares no code with the plugin but the system prompt's bytes.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import variational_reasoning

SYSTEM = (
    Path(variational_reasoning.__file__).parent / "method/system_prompts/reasoner_system.txt"
).read_text(encoding="utf-8")


def row_ids(tokenizer, question: str, trace: str, solution: str) -> tuple[list[int], list[int]]:
    """(prompt ids, target ids) of a reasoner row in ChatML; the target is tokenized in two pieces
    around `<|end_of`.
    """
    prompt = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n<|begin_of_thought|>\n\n"
    )
    pieces = (
        f"{trace}<|end_of",
        f"_thought|>\n\n<|begin_of_solution|>{solution}<|end_of_solution|><|im_end|>",
    )
    return tokenizer.encode(prompt, add_special_tokens=False), [
        token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)
    ]


def row_nll(model, prompt_ids: list[int], target_ids: list[int]) -> torch.Tensor:
    """Sum of -log p of the target's tokens, in nats."""
    logits = model(input_ids=torch.tensor([prompt_ids + target_ids])).logits[0]
    log_probs = logits.log_softmax(-1)
    start = len(prompt_ids)
    return -sum(log_probs[start + i - 1, token] for i, token in enumerate(target_ids))


def step_gradient(
    model_folder: str, rows: list[tuple], constant_loss_normalizer: float, dtype=torch.float64
) -> dict[str, torch.Tensor]:
    """Gradient of 1/N sum_i w_i sum_t CE(i, t) / C for every parameter."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=dtype, attn_implementation="eager"
    )
    loss = sum(weight * row_nll(model, *row_ids(tokenizer, *texts)) for *texts, weight in rows) / (
        len(rows) * constant_loss_normalizer
    )
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def relative_error(ours: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> float:
    """Largest over parameters of |ours - reference| / |reference|."""
    assert set(ours) == set(reference)
    return max(
        ((ours[name].double() - r.double()).norm() / r.double().norm()).item()
        for name, r in reference.items()
    )
