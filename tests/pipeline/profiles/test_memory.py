"""The memory of a training: the table of docs/scale.md, from the shapes of published models."""

import json
import struct

import pytest

from variational_reasoning.pipeline.profiles.memory import (
    WayToTrain,
    activation_gigabytes,
    default_tokens,
    fitting_training,
    parallel_size,
    read_shape,
    state_gigabytes,
)

QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
}


@pytest.fixture
def shape(tmp_path):
    """The shape of Qwen3-8B, from its config.json alone."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    return read_shape(tmp_path)


def test_a_shape_from_config_json(shape):
    # per layer: query and output 2 x 4096 x 4096, key and value 2 x 4096 x 1024, 3 x 4096 x 12288
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288
    assert shape.parameters == 36 * layer + 2 * 151936 * 4096  # 8.19e9
    # LoRA of rank 64: inputs + outputs of the seven matrices
    sums = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert shape.adapter == 36 * 64 * sums  # 1.7e8, as the recipe says
    assert (shape.context, shape.architecture) == (40960, "Qwen3ForCausalLM")


def test_parameters_are_counted_where_the_weights_are_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    header = json.dumps({"__metadata__": {}, "a": {"shape": [3, 5]}, "b": {"shape": [2]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert read_shape(tmp_path).parameters == 17


def test_the_table_of_docs_scale(shape):
    # Of its row qwen3_8b: 33 GB of states and 16 GB of activations; 19 GB of states with LoRA.
    assert round(state_gigabytes(shape, False, 2, 8)) == 33
    assert round(activation_gigabytes(shape, 24576)) == 16
    assert round(state_gigabytes(shape, True, 0, 1)) == 19
    assert round(state_gigabytes(shape, False, 3, 8)) == 18
    assert round(state_gigabytes(shape, False, 0, 1)) == 147
    assert default_tokens(16384) == 24576 and default_tokens(1024) == 8192


@pytest.mark.parametrize(
    ("gpus", "gpu_gb", "lora", "expected"),
    [
        (8, 80, "auto", (False, 2, None)),  # 33 + 16 of 72
        (2, 120, "auto", (False, 2, None)),  # 82 + 16 of 108
        (4, 48, "auto", (True, 0, None)),  # ZeRO-3 takes 37 + 12 of 43; LoRA 19 + 16
        (1, 80, "auto", (True, 0, None)),
        (1, 36, "true", (True, 0, 16384)),  # 19 + 12 of 32: one longest row
        (1, 24, "auto", None),
        (1, 80, "false", None),
        (0, 1, "auto", (False, 0, None)),  # on a CPU nothing is refused
    ],
)
def test_the_best_way_that_fits(shape, gpus, gpu_gb, lora, expected):
    found = fitting_training(shape, gpus, gpu_gb, lora, 16384)
    assert (found and (found.is_lora, found.zero, found.tokens)) == expected


def test_gpus_of_one_engine(shape):
    assert [parallel_size(shape, 8, gb) for gb in (80, 24, 16, 8)] == [1, 1, 2, 8]
    assert parallel_size(shape, 1, 16) is None


def test_what_a_person_calls_it():
    names = [WayToTrain(lora, zero, None, 1, 1).name for lora, zero in ((True, 0), (False, 3))]
    assert names == ["LoRA of rank 64", "full fine-tuning with ZeRO-3"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [(None, "has no config.json"), ({"n_embd": 64}, "has no num_hidden_layers, hidden_size")],
)
def test_folders_that_say_nothing(tmp_path, config, expected):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=expected):
        read_shape(tmp_path)
