"""What the probes find in real architectures, and that they leave no trace."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from variational_reasoning.host.probes import (
    added_loss,
    head_is_plain,
    pack_fault,
    without_trace,
)

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}


def model_of(family: str, **overrides) -> torch.nn.Module:
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **(SMALL | overrides))
    config._attn_implementation = "eager"
    return AutoModelForCausalLM.from_config(config).train()


def pack() -> dict[str, torch.Tensor]:
    """Rows of three and five tokens in one pack, with the dense mask of the host's neat packing."""
    rows = torch.tensor([1, 1, 1, 2, 2, 2, 2, 2])
    sees = (rows[:, None] == rows[None, :]).tril()
    mask = torch.zeros(8, 8).masked_fill(~sees, torch.finfo(torch.float32).min)
    return {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]]),
        "attention_mask": mask[None, None],
    }


@pytest.mark.parametrize(
    ("family", "keys", "is_plain"),
    [("llama", {}, True), ("gemma2", {}, False), ("granite", {"logits_scaling": 2.0}, False)],
)
def test_heads(family, keys, is_plain):
    model = model_of(family, **keys)
    assert head_is_plain(model, model.get_output_embeddings(), pack()) == is_plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("coefficient", [0.0, 0.001, 10.0])
def test_router_losses_are_found(family, coefficient, dtype):
    keys = EXPERTS | {"router_aux_loss_coef": coefficient, "moe_intermediate_size": 16}
    model = model_of(family, output_router_logits=True, **keys).to(dtype)
    assert (added_loss(model, pack()) is None) == (coefficient == 0.0)
    silent = model_of(family, output_router_logits=False, **keys).to(dtype)
    assert added_loss(silent, pack()) is None


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "opt"])
def test_plain_models_add_nothing(family):
    assert added_loss(model_of(family), pack()) is None


def test_a_second_head_that_adds_to_the_loss_is_found():
    """As multi-token prediction does, in a model of no known name."""
    model = model_of("llama")
    forward = model.forward

    def with_second_head(*args, labels=None, **kwargs):
        outputs = forward(*args, labels=labels, **kwargs)
        if labels is not None:
            shifted = torch.nn.functional.cross_entropy(outputs.logits[0, :-2], labels[0, 2:])
            outputs.loss = outputs.loss + 0.1 * shifted
        return outputs

    model.forward = with_second_head
    assert "where the cross entropy is" in added_loss(model, pack())


@pytest.mark.parametrize("family", ["llama", "qwen3", "mixtral", "gpt2", "opt"])
@pytest.mark.parametrize("has_head", [True, False])
def test_packs_of_attention_with_positions_are_sound(family, has_head):
    model = model_of(family, **EXPERTS)
    head = model.get_output_embeddings() if has_head else None
    assert pack_fault(model, head, pack()) is None


LEAKING = {
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        **EXPERTS,
    },
}


@pytest.mark.parametrize("family", LEAKING)
def test_packs_leak_through_layers_that_are_not_attention(family):
    model = model_of(family, **LEAKING[family])
    fault = pack_fault(model, model.get_output_embeddings(), pack())
    assert fault is not None and "changes with the tokens of the row before it" in fault


def test_a_model_that_counts_positions_by_itself():
    model = model_of("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    fault = pack_fault(model, model.get_output_embeddings(), pack())
    assert fault is not None and "does not use the position ids" in fault


def test_a_model_in_which_only_distances_count_needs_no_positions():
    model = model_of("llama")
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    assert pack_fault(model, model.get_output_embeddings(), pack()) is None


def test_probes_leave_no_trace():
    model = model_of("gpt2", resid_pdrop=0.5)
    model.register_buffer("count", torch.zeros(()))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with without_trace(model):
        torch.rand(1)
        model.count += 1
        assert model.training and not torch.is_grad_enabled()
    assert model.count == 0 and torch.equal(torch.rand(2), expected)


class Modes(TrainerCallback):
    """Counts passes of the first layer in evaluation mode."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.in_evaluation = 0
        next(iter(model.modules())).register_forward_pre_hook(self.count)

    def count(self, module, args):
        self.in_evaluation += not module.training


def test_training_makes_no_pass_in_evaluation_mode(world, run_exp):
    """4-bit weights of bitsandbytes are laid out anew in one, and train wrongly from then on."""
    modes = Modes()
    run_exp(world.config(), callbacks=[modes])
    assert modes.in_evaluation == 0


def test_a_router_loss_is_refused_by_name(world, run_exp):
    with pytest.raises(ValueError, match="moe_aux_loss_coef .* is not supported together with"):
        run_exp(world.config(moe_aux_loss_coef=10.0))


def test_a_router_loss_of_the_models_own_config_is_refused(world, run_exp, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world.model)
    keys = {"router_aux_loss_coef": 0.01, "output_router_logits": True}
    model_of("mixtral", **EXPERTS, **keys, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MixtralForCausalLM adds to the loss: its loss is"):
        run_exp(world.config(model_name_or_path=str(tmp_path)))
    assert not (world.root / "out/model.safetensors").exists()


def test_packing_of_a_model_that_mixes_rows_is_refused(world, run_exp, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world.model)
    keys = LEAKING["lfm2"]
    model = model_of("lfm2", **keys, vocab_size=len(tokenizer), max_position_embeddings=4096)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = world.config(model_name_or_path=str(tmp_path), packing=True, cutoff_len=2048)
    with pytest.raises(ValueError, match="does not keep the rows of a pack apart"):
        run_exp(config)
