"""Bad training YAMLs are refused before anything is loaded or written, with all their faults at
once.
"""

import json
import math

import pytest

from variational_reasoning.host.args import split_arguments, uses_our_features
from variational_reasoning.method.families import FAMILIES, family_to_dict


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """The host's own `get_train_args`, with the plugin in place."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from llamafactory.hparams import get_train_args
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    return get_train_args


def refused(parse, config) -> str:
    with pytest.raises(ValueError, match="variational_reasoning") as caught:
        parse(config)
    return str(caught.value)


def test_a_good_yaml_is_parsed(world, parse):
    _, data_args, _, finetuning_args, _ = parse(world.config(constant_loss_normalizer="12.5"))
    config = finetuning_args.variational.config
    assert config is data_args.variational
    assert (
        config.constant_loss_normalizer,
        config.prompt_kind,
        config.renderer.chat_format.name,
        config.overlong,
    ) == (
        12.5,
        "reasoner",
        "chatml",
        "drop",
    )
    yaml = finetuning_args.variational.yaml
    assert yaml["learning_rate"] == 100.0 and yaml["prompt_kind"] == "reasoner"


@pytest.mark.parametrize("value", [0, -1, "0", "zero", math.nan, math.inf, True, [1]])
def test_constants_of_zero_or_below_and_nonsense(world, parse, value):
    message = refused(parse, world.config(constant_loss_normalizer=value))
    assert (
        "constant_loss_normalizer" in message and repr(value) in message and "above zero" in message
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {"constant_loss_normalizr": "auto"},
            "unknown key `constant_loss_normalizr`; did you mean `constant_loss_normalizer`?",
        ),
        (
            {"model_name_or_path": "no/such/folder"},
            "model_name_or_path: the folder 'no/such/folder' does not exist",
        ),
        ({"dataset": "rowz"}, "dataset: 'rowz' is not in"),
        ({"dataset": "rowz"}, "did you mean 'rows'?"),
        ({"dataset_dir": "nowhere"}, "dataset_dir: nowhere/dataset_info.json does not exist"),
        (
            {"prompt_kind": "posterior"},
            "prompt_kind: 'posterior' is not one of reasoner, posterior_a, posterior_b",
        ),
        ({"prompt_kind": None}, "prompt_kind: is missing"),
        ({"chat_format": None}, "chat_format: is missing"),
        (
            {"chat_format": "qwen"},
            "chat_format 'qwen' is neither one of chatml, llama3, gemma, mistral, template nor an "
            "existing .json file",
        ),
        ({"add_tokens": "<a>,<TOKEN_B>"}, "<TOKEN_B> belongs to abstract traces, and every"),
        (
            {"finetuning_type": "lora", "additional_target": "embed_tokens,lm_head"},
            "additional_target: lm_head would be trained as a copy apart from the embedding",
        ),
        ({"add_special_tokens": "<beginabstract>"}, "extend the base once with scripts/extend_"),
        ({"overlong": "cut"}, "overlong: 'cut' is not one of drop, truncate, error, cut_chain"),
        (
            {"overlong": "cut_chain"},
            "overlong: cut_chain shortens a verbal chain before symbols, which the prompt kind "
            "reasoner does not show",
        ),
        ({"rows_per_step": 0}, "rows_per_step: 0 is not a whole number of data rows above zero"),
        ({"rows_per_step": "8.5"}, "rows_per_step: '8.5' is not a whole number"),
        (
            {"rows_per_step": 16},
            "rows_per_step: 16, but per_device_train_batch_size 8 x gradient_accumulation_steps 1 "
            "x "
            "1 process(es) = 8; remove per_device_train_batch_size and gradient_accumulation_steps",
        ),
        (
            {"rows_per_step": 8, "packing": True},
            "rows_per_step: is not supported together with packing (the rows of a step are packed",
        ),
        (
            {"rows_per_step": 8, "tokens_per_micro_batch": "1e4"},
            "tokens_per_micro_batch: '1e4' is not a whole number of tokens above zero",
        ),
        (
            {"tokens_per_micro_batch": 100},
            "tokens_per_micro_batch: has no effect without rows_per_step; set both",
        ),
        (
            {"rows_per_step": 8, "constant_loss_normalizer": None},
            "rows_per_step: the host's own loss is not a sum over rows",
        ),
        (
            {"rows_per_step": 8, "streaming": True},
            "rows_per_step: is not supported together with streaming",
        ),
        (
            {"rows_per_step": 8, "auto_find_batch_size": True},
            "rows_per_step: is not supported together with auto_find_batch_size",
        ),
        (
            {"rows_per_step": 8, "dataloader_drop_last": True},
            "rows_per_step: is not supported together with dataloader_drop_last",
        ),
        (
            {"rows_per_step": 8, "use_badam": True},
            "rows_per_step: is not supported together with a layer-wise optimizer",
        ),
        (
            {"rows_per_step": 8, "use_galore": True, "galore_layerwise": True},
            "rows_per_step: is not supported together with a layer-wise optimizer",
        ),
        (
            {"template": "qwen"},
            "template: 'qwen' would wrap texts that `chat_format` already renders",
        ),
        ({"stage": "pt"}, "stage: 'pt' does not fit constant_loss_normalizer; only `sft` does"),
        (
            {"use_dft_loss": True},
            "use_dft_loss: is not supported together with constant_loss_normalizer",
        ),
        (
            {"ignore_pad_token_for_loss": False},
            "ignore_pad_token_for_loss: false (padding is never a target): is not supported",
        ),
        ({"use_eaft_loss": True}, "use_eaft_loss: is not supported"),
        ({"use_asft_loss": True}, "use_asft_loss: is not supported"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: is not supported"),
        ({"enable_liger_kernel": True}, "enable_liger_kernel (its fused loss would bypass ours"),
        ({"use_unsloth": True}, "use_unsloth (its fused loss would bypass ours"),
        ({"use_kt": True}, "use_kt (KTransformers)"),
        ({"use_hyper_parallel": True}, "use_hyper_parallel: is not supported"),
        ({"train_on_prompt": True}, "train_on_prompt"),
        ({"tokenized_path": "cache"}, "tokenized_path (the host would ignore a changed weight"),
        ({"predict_with_generate": True}, "predict_with_generate (sampling is a stage of its own)"),
        (
            {"streaming": True, "constant_loss_normalizer": "auto"},
            "`auto` cannot see all rows of a stream",
        ),
        ({"do_train": False, "constant_loss_normalizer": "auto"}, "`auto` needs a training set"),
    ],
)
def test_one_fault(world, parse, overrides, expected):
    assert expected in refused(parse, world.config(**overrides))
    assert not (world.root / "out").exists()


def test_a_broken_dataset_info_is_named(world, parse):
    (world.root / "broken").mkdir()
    (world.root / "broken/dataset_info.json").write_text("{", encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"broken/dataset_info.json is not valid JSON .* set dataset_dir to another folder",
    ):
        parse(world.config(dataset_dir=str(world.root / "broken")))


def test_rows_per_step_with_grouping_by_length_or_fsdp(world, parse, monkeypatch):
    import transformers

    grouping = {"group_by_length": True}
    if transformers.__version__ >= "5":
        grouping = {"train_sampling_strategy": "group_by_length"}
    message = refused(parse, world.config(rows_per_step=8, **grouping))
    assert "rows_per_step: is not supported together with grouping by length" in message
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    message = refused(parse, world.config(rows_per_step=8))
    assert "rows_per_step: is not supported together with fsdp; remove one of them" in message


def test_the_batch_numbers_of_a_deepspeed_file():
    from types import SimpleNamespace

    from variational_reasoning.host.args import _deepspeed_batch

    fixed = SimpleNamespace(deepspeed={"train_batch_size": 96, "gradient_accumulation_steps": 12})
    assert _deepspeed_batch(fixed) == [
        ("train_batch_size", 96),
        ("train_micro_batch_size_per_gpu", None),
        ("gradient_accumulation_steps", 12),
    ]


def test_rows_per_step_alone_and_its_default(world, parse):
    batch = {"per_device_train_batch_size": None, "gradient_accumulation_steps": None}
    for cutoff_len, limit in [(1024, 8192), (16384, 24576), (32768, 49152)]:
        config = world.config(rows_per_step=192, cutoff_len=cutoff_len, **batch)
        _, _, training_args, finetuning_args, _ = parse(config)
        run = finetuning_args.variational
        assert (run.rows_per_step, run.tokens_per_micro_batch) == (192, limit)
        assert training_args.per_device_train_batch_size == 1
        assert training_args.gradient_accumulation_steps == 1
        assert "per_device_train_batch_size" not in run.yaml
    run = parse(world.config(rows_per_step=8, tokens_per_micro_batch=500, **batch))[3].variational
    assert run.tokens_per_micro_batch == 500


def test_rows_per_step_that_fit(world, parse):
    # 2 rows x 4 accumulated x 1 process
    parse(
        world.config(
            per_device_train_batch_size=2, gradient_accumulation_steps=4, rows_per_step="8"
        )
    )
    parse(world.config(do_train=False, do_eval=True, eval_dataset="rows", rows_per_step=96))


def test_several_faults_are_reported_together(world, parse):
    message = refused(
        parse,
        world.config(
            constant_loss_normalizer=0,
            model_name_or_path="no/such/folder",
            dataset="rowz",
            prompt_kinds="x",
        ),
    )
    for part in (
        "1. unknown key `prompt_kinds`",
        "constant_loss_normalizer: 0",
        "'rowz'",
        "'no/such/folder'",
    ):
        assert part in message


def test_a_posterior_yaml_refuses_reasoner_rows(world, parse):
    from variational_reasoning.method.prompts import make_renderer

    prompt, response = make_renderer("chatml").render("reasoner", "What?", "Hm.", "4")
    world.add("rendered", [{"prompt": prompt, "response": response}], formatting="weighted_sft")
    message = refused(parse, world.config(dataset="rendered", prompt_kind="posterior_b"))
    assert "data set 'rendered', row 1, column 'prompt': is laid out for reasoner" in message
    parse(world.config(dataset="rendered", prompt_kind="reasoner"))


def test_keys_without_a_data_set_in_our_formats_are_not_ignored(world, parse):
    world.add(
        "stock",
        [{"instruction": "a", "output": "b"}],
        columns={"prompt": "instruction", "response": "output"},
    )
    message = refused(parse, world.config(dataset="stock", template="qwen", chat_format=None))
    assert (
        "prompt_kind: has no effect, because no data set of this run is weighted_sft or reasoning"
        in message
    )
    parse(world.config(dataset="stock", template="qwen", chat_format=None, prompt_kind=None))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"flash_attn": "fa2"},
            "flash_attn: fa2 takes no mask that hides the chain from the answer (prompt_kind "
            "abstract_bottleneck); set it to sdpa",
        ),
        (
            {"flash_attn": "fa2", "bottleneck_attention": "flex"},
            "bottleneck_attention: flex, but flash_attn: fa2 chooses another attention; remove",
        ),
        (
            {"flash_attn": "disabled", "bottleneck_attention": "flex"},
            "bottleneck_attention: flex, but flash_attn: disabled chooses another attention",
        ),
        (
            {"torch_compile": True, "bottleneck_attention": "flex"},
            "bottleneck_attention: flex is compiled by itself, and not tested in a model that is "
            "compiled as a whole; remove torch_compile",
        ),
        (
            {"bottleneck_attention": "flash"},
            "bottleneck_attention: 'flash' is not one of auto, flex",
        ),
        (
            {"prompt_kind": "abstract_posterior", "bottleneck_attention": "flex"},
            "bottleneck_attention: has no effect, because nothing is hidden in rows of the prompt "
            "kind abstract_posterior; only abstract_bottleneck has the mask",
        ),
        (
            {"prompt_kind": "reasoner", "overlong": "cut_chain"},
            "overlong: cut_chain shortens a verbal chain before symbols, which the prompt kind "
            "reasoner does not show; set it to drop, truncate or error, or choose",
        ),
        (
            {"trace_loss_weight": -0.5},
            "trace_loss_weight: -0.5 is not a number of zero or more",
        ),
        (
            {"prompt_kind": "abstract_posterior", "trace_loss_weight": 0.5},
            "trace_loss_weight: has no effect, because the rows are not symbols and an answer",
        ),
        (
            {"constant_loss_normalizer": None, "trace_loss_weight": 0.5},
            "trace_loss_weight: the host's own loss would ignore it; set",
        ),
    ],
)
def test_what_does_not_fit_rows_of_symbols(world, parse, settings, expected):
    row = {"question": "Q", "chain": "One.", "trace": "<TOKEN_A>", "solution": "1"}
    world.add("abstract", [row], formatting="abstract")
    kind = {"prompt_kind": "abstract_bottleneck"} | settings
    config = world.config(dataset="abstract", prompt_family="abstract", **kind)
    assert expected in refused(parse, config)


@pytest.mark.parametrize("overlong", ["drop", "cut_chain"])
def test_settings_that_fit_rows_of_symbols(world, parse, overlong):
    row = {"question": "Q", "chain": "One.", "trace": "<TOKEN_A>", "solution": "1"}
    world.add("abstract", [row], formatting="abstract")
    config = world.config(
        dataset="abstract",
        prompt_family="abstract",
        prompt_kind="abstract_bottleneck",
        flash_attn="sdpa",
        bottleneck_attention="flex",
        overlong=overlong,
    )
    run = parse(config)[3].variational
    assert run.bottleneck_attention == "flex" and run.config.overlong == overlong


def test_the_mask_goes_with_the_kinds_property_whatever_its_name(world, parse, tmp_path):
    """A family of a file may call the kind of phase A otherwise than `abstract` does."""
    values = family_to_dict(FAMILIES["abstract"]) | {"name": "mine"}
    values["kinds"]["phase_a"] = values["kinds"].pop("abstract_bottleneck")
    family = tmp_path / "mine.yaml"
    family.write_text(json.dumps(values), encoding="utf-8")
    row = {"question": "Q", "chain": "One.", "trace": "<TOKEN_A>", "solution": "1"}
    world.add("abstract", [row], formatting="abstract")
    kinds = {"phase_a": (True, True), "abstract_posterior": (False, False)}
    kinds["reasoner"] = (False, True)
    for kind, expected in kinds.items():
        config = world.config(dataset="abstract", prompt_family=str(family), prompt_kind=kind)
        found = parse(config)[3].variational.config
        assert (found.is_bottleneck, found.has_parts) == expected, kind
    config = world.config(dataset="abstract", prompt_family=str(family), prompt_kind="phase_a")
    message = refused(parse, config | {"flash_attn": "fa2"})
    assert "hides the chain from the answer (prompt_kind phase_a)" in message


def test_missing_columns_and_files_are_seen_before_loading(world, parse):
    world.add("short", [{"question": "a", "trace": "b"}], formatting="reasoning")
    assert (
        "dataset 'short': column 'solution' (solution) is missing; the file has question, trace"
        in refused(parse, world.config(dataset="short"))
    )
    (world.data / "short.jsonl").unlink()
    assert "does not exist; run the stage that writes it first" in refused(
        parse, world.config(dataset="short")
    )


def write_files(folder, names_and_bytes):
    folder.mkdir()
    for name, content in names_and_bytes.items():
        (folder / name).write_bytes(content)


ROW = {"question": "What?", "trace": "Hm.", "solution": "4", "weight": 0.5}
LINE = json.dumps(ROW).encode() + b"\n"
CSV = b"question,trace,solution,weight\nWhat?,Hm.,four,0.5\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", LINE * 2),
        ("array.jsonl", b"[" + LINE + b"," + LINE + b"]"),
        ("marked.jsonl", b"\xef\xbb\xbf" + LINE),
        ("table.csv", CSV),
        ("folder", {"a.jsonl": b"", "b.jsonl": LINE}),
    ],
)
def test_what_the_host_can_read_is_read_before_loading(world, parse, name, content):
    if isinstance(content, dict):
        write_files(world.data / name, content)
    else:
        (world.data / name).write_bytes(content)
    world.info["made"] = {"file_name": name, "formatting": "reasoning"}
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    parse(world.config(dataset="made"))
    # The row was seen: a column that it lacks is named.
    world.info["made"]["columns"] = {"question": "problem"}
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    message = refused(parse, world.config(dataset="made"))
    assert "column 'problem' (question) is missing; the file has question, trace" in message


def test_an_arrow_file_is_read_before_loading(world, parse):
    import datasets

    datasets.Dataset.from_list([ROW]).save_to_disk(world.root / "saved")
    (source,) = (world.root / "saved").glob("*.arrow")
    source.rename(world.data / "table.arrow")
    world.info["made"] = {"file_name": "table.arrow", "formatting": "reasoning"}
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    parse(world.config(dataset="made"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jsonl", b"", "cannot be read (it is empty)"),
        ("blank.jsonl", b"\n\n", "cannot be read (it has no rows)"),
        ("none.json", b"[]", "cannot be read (it has no rows)"),
        ("broken.jsonl", b"{", "cannot be read (JSON parse error"),
        ("folder", {}, "cannot be read (the folder holds no file)"),
        (
            "folder",
            {"a.jsonl": b"", "b.csv": b""},
            "file types .csv, .jsonl: all files of a data set",
        ),
        (
            "rows.yaml",
            LINE,
            "file types .yaml: all files of a data set must have one type, which is one of",
        ),
    ],
)
def test_what_cannot_be_read_is_said_with_its_reason(world, parse, name, content, expected):
    if isinstance(content, dict):
        write_files(world.data / name, content)
    else:
        (world.data / name).write_bytes(content)
    world.info["made"] = {"file_name": name, "formatting": "reasoning"}
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    message = refused(parse, world.config(dataset="made"))
    assert f"dataset 'made': '{world.data / name}' " in message and expected in message


def test_a_data_set_folder_on_the_hub_is_read(world, parse, monkeypatch):
    # The hub's cache as `hf_hub_download` leaves it, so that no network is needed.
    cache = world.root / "hub/datasets--owner--sets"
    (cache / "snapshots/abc").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc")
    info = {"far": {"hf_hub_url": "owner/rows", "formatting": "reasoning"}}
    (cache / "snapshots/abc/dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(world.root / "hub"))
    config = world.config(dataset="far", dataset_dir="REMOTE:owner/sets")
    *_, finetuning_args, _ = parse(config)
    assert finetuning_args.variational.config.prompt_kind == "reasoner"
    assert "prompt_kind: is missing" in refused(parse, config | {"prompt_kind": None})
    assert uses_our_features({"dataset": "far", "dataset_dir": "REMOTE:owner/sets"})
    assert "did you mean 'far'?" in refused(parse, config | {"dataset": "fars"})
    message = refused(parse, config | {"dataset_dir": "REMOTE:owner/other"})
    assert (
        "dataset_info.json of REMOTE:owner/other does not exist or is empty, or cannot" in message
    )


def test_command_line_words_are_split_like_a_yaml():
    words = [
        "--stage",
        "sft",
        "--constant_loss_normalizer",
        "auto",
        "--prompt-kind=reasoner",
        "--lr",
        "1",
    ]
    ours, rest, faults = split_arguments(words, set())
    assert ours == {"constant_loss_normalizer": "auto", "prompt_kind": "reasoner"}
    assert rest == ["--stage", "sft", "--lr", "1"] and not faults


def test_which_yamls_use_our_features(world):
    assert uses_our_features({"constant_loss_normalizer": 1})
    assert uses_our_features(["--constant_loss_normalizer", "1"])
    assert uses_our_features({"dataset": "rows", "dataset_dir": str(world.data)})
    assert uses_our_features(["--dataset", "rows", "--dataset_dir", str(world.data)])
    assert not uses_our_features({"dataset": "other", "dataset_dir": str(world.data)})
    assert not uses_our_features({"learning_rate": 1})


def test_the_best_checkpoint_by_token_nll_is_the_lowest(world, parse):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}
    best |= {"save_strategy": "steps", "save_steps": 1, "eval_dataset": "rows"}
    config = world.config(**best, metric_for_best_model="eval_token_nll")
    assert parse(config)[2].greater_is_better is False
    assert "greater_is_better: true would choose the worst" in refused(
        parse, config | {"greater_is_better": True}
    )
    accuracy = config | {"metric_for_best_model": "eval_accuracy", "compute_accuracy": True}
    assert parse(accuracy)[2].greater_is_better is True


def test_batches_that_are_sent_between_processes_are_refused_for_data_sets_in_memory(world, parse):
    dispatch = {"accelerator_config": {"dispatch_batches": True}}
    assert "accelerator_config.dispatch_batches: true" in refused(parse, world.config(**dispatch))
    parse(world.config(**dispatch, streaming=True))


def test_a_key_that_the_host_does_not_know_is_refused_by_the_host(world, run_exp):
    with pytest.raises(ValueError, match="not_a_key"):
        run_exp(world.config(not_a_key=1))
