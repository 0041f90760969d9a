"""The example YAMLs: read by the host's parser, in agreement with each other; each recipe is run
for two steps.
"""

import importlib.util
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from tests.host.conftest import ROWS, make_model, make_tokenizer, run_exp  # noqa: F401, run_exp is a fixture

from variational_reasoning.method.families import load_family
from variational_reasoning.model_record import read_record
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.vocabulary import ExtendOptions, extend

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "variational_reasoning"
PROFILES = sorted(path.parent.name for path in EXAMPLES.glob("*/pipeline.yaml"))
TRAININGS = sorted(EXAMPLES.glob("*/[0-9]_*.yaml"))
RECIPES = [path for path in TRAININGS if not path.parent.name.startswith("tiny")]
"""tiny is run as a whole by test_end_to_end, tiny_abstract by test_tiny_abstract; tiny_questions has
tiny's layout."""
ABSTRACT = [path for path in RECIPES if "_abstract" in path.parent.name]
"""Recipes of arXiv 2604.22709, whose traces are symbols."""
THINK = [path for path in RECIPES if "_think" in path.parent.name]
"""Recipes that start from questions, as new_profile.py writes them."""
FOR_CPU = [path for path in RECIPES if path.parent.name == "smollm2_135m"]
PAPER = [path for path in RECIPES if path not in (*ABSTRACT, *THINK, *FOR_CPU)]
"""Recipes with the settings of arXiv 2509.22637."""
SYMBOLS = "<TOKEN_B><TOKEN_A>"
BLOCKS = ["model", "method", "variational", "dataset", "output", "train", "eval"]


@cache
def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.fixture(scope="session")
def random_models(tmp_path_factory) -> dict[str, Path]:
    """A two-layer model of each architecture, with a byte-level tokenizer; the key is how names of
    its models begin.
    """
    folders = {
        "Qwen/Qwen3-": "qwen3",
        "Qwen/Qwen2.5-": "qwen2",
        "runs/tiny": "qwen3",
        "runs/smollm2-135m": "llama",
    }
    for prefix, family in folders.items():
        folders[prefix] = tmp_path_factory.mktemp(family)
        size = len(make_tokenizer(folders[prefix]))
        make_model(
            folders[prefix], size, family, tie_word_embeddings=True, max_position_embeddings=32768
        )
    for profile, untie in (("qwen3_4b_abstract", False), ("qwen3_4b_abstract_lora", True)):
        out = tmp_path_factory.mktemp(profile) / "extended"
        base = str(folders["Qwen/Qwen3-"])
        extend(ExtendOptions(base=base, out=str(out), symbols=4, noise=0.1, untie=untie))
        folders[f"runs/{profile}/"] = out
    return folders


@pytest.fixture
def model_of(random_models):
    """The random model that stands for a YAML's."""
    return lambda values: next(
        f for prefix, f in random_models.items() if values["model_name_or_path"].startswith(prefix)
    )


def family_from_root(values: dict) -> str:
    """The prompt family of a YAML, with its file's whole path."""
    family = values.get("prompt_family", "paper")
    return str(ROOT / family) if family.endswith(".yaml") else family


def chat_format_from_root(values: dict) -> str:
    """The chat format of a YAML, with its file's whole path."""
    name = values.get("chat_format", "chatml")
    return str(ROOT / name) if name.endswith(".json") else name


@pytest.fixture(scope="session")
def train_folder(tmp_path_factory) -> Path:
    """A folder as stage 0 and 8 leave it, with a few rows under every name that an example uses."""
    import pyarrow
    import pyarrow.parquet

    from variational_reasoning.method.prompts import make_renderer

    folder = tmp_path_factory.mktemp("train")
    info = json.loads((ROOT / "data" / "dataset_info.json").read_text(encoding="utf-8"))
    local = {}
    for values in map(read, TRAININGS):
        name, entry = values["dataset"], info[values["dataset"]]
        rows = []
        for question, chain, solution, weight in ROWS:
            formatting, trace = entry.get("formatting"), chain
            texts = {"question": question, "solution": solution}
            if formatting == "reasoning":
                rows.append(texts | {"trace": trace})
            elif formatting == "abstract":
                rows.append(texts | {"trace": SYMBOLS, "chain": chain, "weight": weight})
            elif formatting == "weighted_sft":
                renderer = make_renderer(chat_format_from_root(values), family_from_root(values))
                if renderer.is_abstract:
                    trace = SYMBOLS
                prompt, response = renderer.render(
                    values["prompt_kind"], question, trace, solution, chain
                )
                rows.append({"prompt": prompt, "response": response, "weight": weight})
            else:
                rows.append({"text": question + trace})
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
        local[name] = entry | {"file_name": f"{name}.parquet"}
    (folder / "dataset_info.json").write_text(json.dumps(local), encoding="utf-8")
    return folder


@pytest.mark.parametrize("path", TRAININGS, ids=label)
def test_the_hosts_parser_takes_the_yaml(path, train_folder, model_of, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from llamafactory.hparams import get_train_args
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    values = dict(read(path))
    deepspeed = values.pop("deepspeed", None)  # the host would keep it for the whole process
    assert deepspeed is None or json.loads(Path(deepspeed).read_text(encoding="utf-8"))[
        "zero_optimization"
    ]["stage"] in (2, 3)
    here = {
        "dataset_dir": str(train_folder),
        "model_name_or_path": str(model_of(values)),
        "bf16": False,
    }
    _, data_args, training_args, finetuning_args, _ = get_train_args(values | here)
    assert data_args.cutoff_len == values["cutoff_len"]
    assert training_args.learning_rate == values["learning_rate"]
    assert finetuning_args.finetuning_type == values["finetuning_type"]
    if "constant_loss_normalizer" in values:
        config = finetuning_args.variational.config
        assert config.constant_loss_normalizer == "auto"
        assert config.prompt_kind == values["prompt_kind"]


@pytest.mark.parametrize("path", TRAININGS, ids=label)
def test_blocks_stand_in_the_hosts_order_and_the_header_names_the_command(path):
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    expected = (
        BLOCKS if "constant_loss_normalizer" in text else [b for b in BLOCKS if b != "variational"]
    )
    assert blocks == expected
    header = text.partition("###")[0]
    assert f"llamafactory-cli train {path.relative_to(ROOT)}" in header
    assert "Reads" in header and "Writes" in header


def test_dataset_info_names_every_data_set_of_a_yaml_and_no_other_local_file():
    info = json.loads((ROOT / "data" / "dataset_info.json").read_text(encoding="utf-8"))
    named = {}
    for path in TRAININGS:
        values = read(path)
        assert values["dataset_dir"] == "data" or path.parent.name.startswith("tiny")
        named[values["dataset"]] = path
    assert named.keys() == {name for name, entry in info.items() if "hf_hub_url" not in entry}
    for name, path in named.items():
        if "constant_loss_normalizer" in read(path):
            config = load_config(path.parent / "pipeline.yaml", _chat_format_from_root(path.parent))
            run_dir = config.run_dir
            roles = ("_reasoner", "_posterior", "_chosen", "_solution", "_expert")
            is_of_stage_0 = name.endswith(roles)
            formatting = "reasoning" if is_of_stage_0 else "weighted_sft"
            if config.arms:
                run_dir, formatting = place_of_an_arm(config, read(path))
            assert info[name] == {
                "file_name": f"../{run_dir}/train/{name}.parquet",
                "formatting": formatting,
            }


def _chat_format_from_root(folder: Path) -> list[str]:
    values = read(folder / "pipeline.yaml")
    name = values["chat_format"]
    family = [f"prompt_family={family_from_root(values)}"] if "prompt_family" in values else []
    return family + ([f"chat_format={ROOT / name}"] if name.endswith(".json") else [])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_yamls_of_a_profile_agree(profile):
    folder = EXAMPLES / profile
    config = load_config(folder / "pipeline.yaml", _chat_format_from_root(folder))
    trainings = {path.name: read(path) for path in sorted(folder.glob("[129]_*.yaml"))}
    roles = {"1_train_reasoner.yaml": "reasoner", "2_train_posterior.yaml": "posterior"}
    targets = {output.name: output.target for output in config.build.outputs}
    roles |= {
        f"{'9' if target == 'reasoner' else '2'}_train_{name}.yaml": name
        for name, target in targets.items()
    }
    arms = {
        f"{2 if arm.target == 'posterior' else 9}_train_{arm.name}.yaml": arm for arm in config.arms
    }
    if arms:  # which need no stages 1 and 2
        for name in ("1_train_reasoner.yaml", "2_train_posterior.yaml"):
            del roles[name]
        roles |= {name: arm.name for name, arm in arms.items()}
    datasets = {name: f"{config.data.name}_{role}" for name, role in roles.items()}
    if config.data.question_ids:  # the SFT baseline of the subset, which no stage 8 is needed for
        roles["9_train_sft.yaml"], datasets["9_train_sft.yaml"] = (
            "sft",
            f"{config.data.name}_chosen",
        )
    if config.posterior != "trained":  # nothing but models.reasoner is there in round 1
        assert config.models.reasoner == config.base and config.models.allow_unrecorded
        for name in ("1_train_reasoner.yaml", "2_train_posterior.yaml"):
            del roles[name]
    if profile == "tiny_questions":  # control arms whose files make_task.py writes
        for role in ("solution", "expert"):
            roles[f"9_train_{role}.yaml"] = role
            datasets[f"9_train_{role}.yaml"] = f"tiny_questions_{role}"
    assert sorted(trainings) == sorted(roles)
    for name, values in trainings.items():
        is_of_all_questions = config.data.question_ids and name[0] in "12"
        assert values["cutoff_len"] == (16384 if is_of_all_questions else config.cutoff_len)
        assert values["chat_format"] == read(folder / "pipeline.yaml")["chat_format"]
        if arms:
            check_training_of_an_arm(config, values, roles[name])
            continue
        assert values.get("prompt_family") == read(folder / "pipeline.yaml").get("prompt_family")
        assert values["dataset"] == datasets[name]
        kind = "adapters" if values["finetuning_type"] == "lora" else "models"
        assert values["output_dir"] == f"{config.run_dir}/{kind}/{roles[name]}"
        assert values["model_name_or_path"] == config.base
        assert values["prompt_kind"] == (
            config.posterior_prompt if name.startswith("2_") else "reasoner"
        )


def check_training_of_an_arm(config, values, name):
    """The training YAML of an arm, or of a train file that a loop's stage 8 writes."""
    arm = {arm.name: arm for arm in config.arms}.get(name)
    output = "adapters" if values["finetuning_type"] == "lora" else "models"
    kinds = {"reasoner": "reasoner", "bottleneck": "abstract_bottleneck"}
    kinds["posterior"] = "abstract_posterior"
    loops = {output: loop for loop in config.loops for output in trained_in(loop)}
    family = loops[name].family if arm is None else arm.family
    family = family or (config.prompt_family if config.prompt_family != "paper" else None)
    assert family_from_root(values) == family_from_root({"prompt_family": family or "paper"})
    assert values["prompt_kind"] == kinds["reasoner" if arm is None else arm.target]
    assert values["dataset"] == f"{config.data.name}_{name}"
    extended = f"{config.run_dir}/models/extended"
    if name not in loops:  # given traces
        assert values["output_dir"] == f"{config.run_dir}/{output}/{name}"
        writes_symbols = family is not None and load_family(family).is_abstract
        assert values["model_name_or_path"] == (extended if writes_symbols else config.base)
        return
    folder = f"{config.run_dir}/{loops[name].name}/round"
    assert values["output_dir"].startswith(folder)
    assert values["output_dir"].endswith(f"/{output}/{name}")
    start = loops[name].reasoner
    known = [f"{config.run_dir}/models/{start}" if start else extended]
    known += [f"{folder}{number}/models/{each}" for number in (1, 2) for each in loops]
    assert values["model_name_or_path"] in known


def place_of_an_arm(config, values) -> tuple[str, str]:
    """(folder, format) of a train file: in the run, or in the round of a loop that writes it."""
    name = values["dataset"].removeprefix(f"{config.data.name}_")
    is_apart = values["prompt_kind"] != "reasoner"  # the tiny chat format cannot tell the chain
    sampled = [each for loop in config.loops for phase in loop.phases for each in phase.train]
    folder = config.run_dir
    if name in sampled:
        folder = str(Path(values["output_dir"]).parents[1])
    return folder, "abstract" if is_apart else "weighted_sft"


def trained_in(loop) -> list[str]:
    names = [name for phase in loop.phases for name in phase.train]
    return names + ([loop.first] if loop.first else [])


def test_the_settings_of_the_1k_runs():
    """design of arXiv 2509.22637, App. C: all 8 traces by weight, not mixed; and the same for K = 1
    .. 32.
    """
    folder = EXAMPLES / "qwen2_5_7b_1k"
    config = load_config(folder / "pipeline.yaml")
    kept = {"selection": "weighted", "mix": 0, "fallback": "drop", "num_traces": None}
    assert [output.estimator for output in config.build.outputs] == ["acc", "gml", "likelihood"]
    for output in config.build.outputs:
        assert {key: getattr(output, key) for key in kept} == kept
    ids = [
        line
        for line in (ROOT / config.data.question_ids).read_text(encoding="utf-8").splitlines()
        if line[:1] != "#"
    ]
    assert len(set(ids)) == 1000 and config.data.ids == "row" and not config.data.hold_out
    scaling = load_config(folder / "k_scaling.yaml")
    assert scaling.sampling.num_traces == 32
    assert [(o.estimator, o.num_traces, o.selection) for o in scaling.build.outputs] == [
        (estimator, k, "weighted") for estimator in ("acc", "gml") for k in (1, 2, 4, 8, 16, 32)
    ]
    changed = {"run_dir", "models", "build"}
    ours, theirs = (read(folder / name) for name in ("k_scaling.yaml", "pipeline.yaml"))
    assert {key: ours[key] for key in ours.keys() - changed - {"data", "sampling"}} == {
        key: theirs[key] for key in theirs.keys() - changed - {"data", "sampling"}
    }
    assert ours["data"] | {"name": 0} == theirs["data"] | {"name": 0}
    assert ours["sampling"] | {"num_traces": 8} == theirs["sampling"]


BATCHES = {"reasoner": 96, "posterior": 16, "final_acc": 192, "final_gml": 192}
BATCHES_1K = BATCHES | {
    "final_acc": 16 * 8,
    "final_gml": 16 * 8,
    "final_likelihood": 16 * 8,
    "sft": 16,
}


@pytest.mark.parametrize("path", PAPER, ids=label)
def test_the_papers_hyperparameters(path):
    """arXiv 2509.22637, App. C; with LoRA, which the paper has not, another learning rate."""
    values, profile, role = read(path), path.parent.name, path.stem.partition("_train_")[2]
    is_1k = profile.endswith("_1k") and path.stem.startswith("9")
    rows = (BATCHES_1K if is_1k else BATCHES)[role]
    assert values["rows_per_step"] == rows
    assert not values.keys() & {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert values["flash_attn"] == "fa2"
    limit = {"qwen2_5_32b": 16384}.get(profile)
    assert values.get("tokens_per_micro_batch") == limit
    if role == "posterior":
        expected = (10, 0.05, 0.9, 0.95, 1e-4, 16384)
    elif is_1k:
        expected = (5, 0.1, 0.9, 0.95, 1e-4, 32768)
    else:
        expected = (3, 0.1, 0.9, 0.999, 0.0, 16384)
    names = (
        "num_train_epochs",
        "warmup_ratio",
        "adam_beta1",
        "adam_beta2",
        "weight_decay",
        "cutoff_len",
    )
    assert tuple(values[name] for name in names) == expected
    rate = 1e-4 if values["finetuning_type"] == "lora" else 1e-5
    assert (values["learning_rate"], values["lr_scheduler_type"], values["adam_epsilon"]) == (
        rate,
        "cosine",
        1e-8,
    )
    assert (values["max_grad_norm"], values["bf16"]) == (1.0, True)
    zero = {"qwen2_5_32b": "zero3.json", "qwen3_8b_lora": ""}.get(profile, "zero2.json")
    assert Path(values.get("deepspeed", "")).name == zero


@pytest.mark.parametrize("path", FOR_CPU, ids=label)
def test_the_settings_of_a_recipe_for_a_cpu(path):
    values = read(path)
    assert values["use_cpu"] and values["flash_attn"] == "sdpa"
    assert not values.keys() & {"deepspeed", "per_device_train_batch_size"}


@pytest.mark.parametrize("path", THINK, ids=label)
def test_the_settings_of_a_start_from_questions(path):
    """As new_profile.py chooses them for the machine that the header names."""
    values, is_lora = read(path), path.parent.name.endswith("_lora")
    assert (values["finetuning_type"] == "lora") == is_lora
    assert ("deepspeed" in values) == (not is_lora)
    assert values["learning_rate"] == (1e-4 if is_lora else 1e-5)
    assert (values["cutoff_len"], values["bf16"], values["flash_attn"]) == (16384, True, "fa2")
    assert not values.keys() & {"per_device_train_batch_size", "gradient_accumulation_steps"}


@pytest.mark.parametrize("path", ABSTRACT, ids=label)
def test_the_settings_of_abstract_traces(path):
    """Of the published checkpoint with LoRA; with full fine-tuning what the paper says: epochs. The
    rest are ours.
    """
    values, is_lora = read(path), path.parent.name.endswith("_lora")
    is_masked = values["prompt_kind"] == "abstract_bottleneck"
    assert values["flash_attn"] == ("sdpa" if is_masked else "fa2")
    assert ("trace_loss_weight" in values) == is_masked
    kept = ("lr_scheduler_type", "warmup_ratio", "adam_beta1", "adam_beta2", "adam_epsilon")
    assert [values[name] for name in kept] == ["cosine", 0.05, 0.9, 0.95, 1e-8]
    assert (values["weight_decay"], values["max_grad_norm"], values["bf16"]) == (0, 1, True)
    changed = ("num_train_epochs", "learning_rate", "rows_per_step", "cutoff_len")
    assert [values[name] for name in changed] == (
        [1, 1e-4, 32, 8192] if is_lora else [3, 1e-5, 128, 24576]
    )
    if not is_lora:
        return
    assert values["additional_target"] == "embed_tokens,lm_head"
    assert (values["lora_rank"], values["lora_alpha"], values["lora_dropout"]) == (32, 64, 0)
    targets = values["lora_target"].split(",")
    assert targets == [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


def test_the_data_and_loops_of_the_published_checkpoint(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = EXAMPLES / "qwen3_4b_abstract_lora/pipeline.yaml"
    config = load_config(path)
    data, loops = config.data, {loop.name: loop for loop in config.loops}
    assert (data.train, data.format) == ("allenai/Dolci-Think-SFT-7B", "think_messages")
    assert (data.stream_buffer, data.stream_seed) == (20000, 42)
    assert (data.min_chain, data.min_answer) == (200, 5)
    assert config.vocabulary.untie and config.vocabulary.init == "mean_noise"
    assert (config.steps.clusters, config.sampling.max_symbols) == (64, 128)
    first = {arm.name: arm for arm in config.arms}[loops["published"].first]
    assert (first.trace, first.count, first.target) == ("random", [8, 64], "bottleneck")
    assert loops["published"].rounds == 3
    # Its stages read chains, although the reasoner itself samples.
    of_loop = load_config(path, loops["published"].settings)
    assert of_loop.posterior == "prompted" and not of_loop.traces_are_optional
    full = load_config(EXAMPLES / "qwen3_4b_abstract/pipeline.yaml")
    assert full.loops == config.loops and not full.vocabulary.untie
    assert full.build == config.build
    card = load_config(EXAMPLES / "qwen3_4b_abstract/published.yaml")
    for own in (config, full):
        assert own.renderer == card.renderer


NAMES = {"model_name_or_path", "dataset", "output_dir"}


@pytest.mark.parametrize("path", ABSTRACT, ids=label)
def test_trainings_of_one_kind_differ_in_their_names_alone(path):
    """So that two steps of one of them stand for all."""
    values = read(path)
    [same] = [each for each in RUN if each.parent == path.parent and is_alike(each, path)]
    assert values.keys() == read(same).keys()
    for key in values.keys() - NAMES:
        assert values[key] == read(same)[key], key


def is_alike(first: Path, second: Path) -> bool:
    return read(first)["prompt_kind"] == read(second)["prompt_kind"]


RUN = [path for path in RECIPES if path not in ABSTRACT]
RUN += [
    path
    for path in ABSTRACT
    if path.stem.partition("_train_")[2] in ("published", "published_a", "posterior_start")
]


@pytest.mark.host
@pytest.mark.parametrize("path", RUN, ids=label)
def test_two_steps_on_a_tiny_random_model(
    path,
    train_folder,
    model_of,
    tmp_path,
    run_exp,  # noqa: F811, the fixture
    monkeypatch,
):
    """In this process, since a command of its own takes 10 s; test_launchers starts the real
    command.
    """
    monkeypatch.chdir(ROOT)
    values, model, output = read(path), model_of(read(path)), tmp_path / "model"
    run_exp(
        {key: value for key, value in values.items() if key != "deepspeed"}
        | {
            "model_name_or_path": str(model),
            "dataset_dir": str(train_folder),
            "output_dir": str(output),
            "bf16": False,
            "rows_per_step": 4,
            "preprocessing_num_workers": None,
            "dataloader_num_workers": 0,
            "max_steps": 2,
            "plot_loss": False,
            "save_strategy": "no",
        }
    )
    record = read_record(output)
    assert (record["prompt_kind"], record["loss"]["name"]) == (
        values["prompt_kind"],
        "weighted Dr. SFT",
    )
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 2
    if values["finetuning_type"] == "lora":
        _check_export(path.parent / "export.yaml", model, output, tmp_path / "merged")


def test_the_constant_of_a_recipe_for_many_gpus_is_computed_in_one_process(
    train_folder, random_models, tmp_path, monkeypatch, capsys
):
    spec = importlib.util.spec_from_file_location(
        "compute_normalizer", ROOT / "scripts/compute_normalizer.py"
    )
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    model = random_models["Qwen/Qwen2.5-"]
    here = (f"model_name_or_path={model}", f"dataset_dir={train_folder}", f"output_dir={tmp_path}")
    here += ("preprocessing_num_workers=1", "dataloader_num_workers=0")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        sys, "argv", ["", str(EXAMPLES / "qwen2_5_32b/9_train_final_acc.yaml"), *here]
    )
    command.main()
    printed = capsys.readouterr().out
    # The weights of ROWS: (.25 + .75 + 1 + .5 + 0 + .125 + .625 + .875) / 8 = .515625
    assert (
        "rows               8 (0 dropped" in printed
        and "weights            mean 0.515625" in printed
    )
    mean_tokens, constant_loss_normalizer = (
        float(re.search(f"{name} (\\d+\\.\\d+)", printed)[1]) for name in ("mean", "normalizer:")
    )
    assert constant_loss_normalizer == pytest.approx(0.515625 * mean_tokens, rel=1e-6)


def _check_export(path: Path, model: Path, adapter: Path, merged: Path) -> None:
    """The merged model has the base's weights and the adapter's change, and the record of its
    prompt.
    """
    import torch
    from llamafactory.train.tuner import export_model
    from safetensors.torch import load_file

    folders = {
        "model_name_or_path": str(model),
        "adapter_name_or_path": str(adapter),
        "export_dir": str(merged),
    }
    export_model(read(path) | folders | {"infer_dtype": "float32"})
    assert read_record(merged) == read_record(adapter) | {"exported_from": str(adapter)}
    before, after = (load_file(folder / "model.safetensors") for folder in (model, merged))
    change = load_file(adapter / "adapter_model.safetensors")
    for name, table in change.items():
        if "lora_" not in name:  # a whole copy of the embedding or the head
            place = name.removeprefix("base_model.model.")
            assert not torch.equal(table, before[place])
            torch.testing.assert_close(after[place], table)
    prefix, settings = (
        "base_model.model.",
        json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")),
    )
    scale = settings["lora_alpha"] / settings["r"]
    names = {
        name.removeprefix(prefix).removesuffix(".lora_A.weight")
        for name in change
        if "lora_A" in name
    }
    assert len(names) == 2 * 7  # layers x linear parts; the head is left alone
    for name in names:
        product = change[f"{prefix}{name}.lora_B.weight"] @ change[f"{prefix}{name}.lora_A.weight"]
        assert product.abs().max() > 0
        torch.testing.assert_close(
            after[f"{name}.weight"],
            before[f"{name}.weight"] + scale * product,
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.sh")), ids=label)
def test_shell_scripts_are_whole(path):
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, check=False).stderr == b""
