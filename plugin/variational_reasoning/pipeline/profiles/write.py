"""The files of a profile: pipeline.yaml, one YAML per training, prompts and data."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import yaml

from variational_reasoning.method.families import PromptFamily, family_to_dict
from variational_reasoning.pipeline.profiles.choices import Choices, HeldOut
from variational_reasoning.pipeline.profiles.memory import RANK
from variational_reasoning.pipeline.profiles.options import ProfileOptions
from variational_reasoning.pipeline.questions.gym import is_gym

FINAL = "final_acc"
"""The final model: all K traces by their weights, judged by the accuracy of sampled answers."""
LEARNED = "posterior_weighted"
"""The train file of a posterior that learns from the reasoner's own traces (Eq. 9)."""


def write_profile(choices: Choices) -> list[Path]:
    """Write the whole folder; the paths, in the order of their names."""
    choices.folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, text in profile_files(choices).items():
        (choices.folder / name).write_text(text, encoding="utf-8")
        names.append(name)
    if choices.held_out:
        names += _write_rows(choices.held_out, choices.folder)
    return [choices.folder / name for name in sorted(names)]


def _write_rows(held_out: HeldOut, folder: Path) -> list[str]:
    """Training and test questions, row by row; the names of the files."""
    names = ["train.jsonl", "test.jsonl"]
    with ExitStack() as stack:
        files = {}
        for name in names:
            file = (folder / name).open("w", encoding="utf-8")
            files[name] = stack.enter_context(file)
        for row in held_out.rows():
            line = json.dumps(row, default=str)
            files[held_out.file_of(row)].write(line + "\n")
    return names


def profile_files(choices: Choices) -> dict[str, str]:
    """File name to text, without the rows."""
    files = {"pipeline.yaml": pipeline_text(choices)}
    if choices.start == "traces":
        files["1_train_reasoner.yaml"] = training_text(choices, "reasoner")
        files["2_train_posterior.yaml"] = training_text(choices, "posterior")
    else:
        files[f"2_train_{LEARNED}.yaml"] = training_text(choices, LEARNED)
    files[f"9_train_{FINAL}.yaml"] = training_text(choices, FINAL)
    if choices.family_text is not None:
        files["prompts.yaml"] = choices.family_text
    if choices.training is not None and choices.training.is_lora:
        files["export.yaml"] = export_text(choices)
    return files


def family_text(family: PromptFamily, name: str, instruction: str) -> str:
    """A prompt family that asks every question with an instruction after it."""
    told = {}
    for kind, texts in family.kinds.items():
        user = texts.user.replace("{question}", f"{{question}}\n\n{instruction}", 1)
        told[kind] = replace(texts, user=user)
    values = family_to_dict(replace(family, name=f"{family.name}_{name}", kinds=told))
    lines = [
        f"# The prompt family `{family.name}` with an instruction after each question, since the",
        "# checks read the answer where it says. To change it, edit it before stage 0.",
    ]
    for key in ("name", "boundary", "answer_open", "answer_close", "forbidden"):
        lines.append(f"{key}: {_text(values[key])}")
    lines.append("kinds:")
    for kind, texts in values["kinds"].items():
        lines.append(f"  {kind}:")
        lines += [f"    {key}: {_text(text)}" for key, text in texts.items()]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """A value as JSON, which is YAML: a line break is \\n and the text stays on one line."""
    return json.dumps(value, ensure_ascii=False)


def pipeline_text(choices: Choices) -> str:
    """pipeline.yaml."""
    options = choices.options
    is_start_of_questions = choices.start == "questions"
    lines = [
        f"# {choices.name}: all that the trainings do not say, for {machine(choices.options)}.",
        "# Written by scripts/new_profile.py. Never run at full size by its authors.",
        f"#   python scripts/run.py {choices.folder}",
        f"run_dir: {choices.run_dir}",
        "seed: 0",
        f"chat_format: {choices.chat_format}",
        f"prompt_family: {_quoted(choices.family)}",
        f"posterior_prompt: {choices.posterior_prompt}",
        f"cutoff_len: {choices.cutoff_len}  # prompt and response, as in the trainings",
        f"base: {_quoted(choices.base)}",
    ]
    if is_start_of_questions:
        lines += [
            "# prompted: the model itself, shown the solution, is the first posterior.",
            "# own_traces: it is trained on its own verified traces (docs/own_questions.md).",
            f"posterior: {options.posterior}",
            "models:",
            f"  reasoner: {_quoted(choices.base)}",
            "  allow_unrecorded: true  # this plugin did not train it",
        ]
    lines += ["", "data:", f"  name: {choices.name}", f"  train: {_quoted(choices.train)}"]
    lines.append(f"  test: {_quoted(choices.test) if choices.test else 'null'}")
    if options.allow_hub:
        lines.append("  allow_hub: true")
    named = {ours: theirs for ours, theirs in choices.columns.items() if ours != theirs}
    if named and not is_gym(choices.train):
        lines.append(f"  columns: {json.dumps(named)}")
    if is_gym(choices.train):
        lines += [
            "  gym:",
            f"    train_size: {options.train_size}",
            f"    test_size: {options.test_size}",
            "    tasks: {}  # a task's own settings, such as {chain_sum: {min_terms: 3}}",
        ]
    else:
        lines.append(f"  check_kind: {choices.check_kind}")
    dtype = "bfloat16" if choices.is_on_gpu else "float32"
    is_split = choices.is_on_gpu and choices.parallel > 1
    lines += [
        "",
        "sampling:",
        f"  engine: {'auto' if choices.is_on_gpu else 'transformers'}",
        f"  num_traces: {options.num_traces}  # K, per question",
        f"  num_answers: {options.num_answers}  # M, per trace",
        "  temperature: 0.7",
        f"  dtype: {dtype}",
        f"  tensor_parallel_size: {choices.parallel}  # GPUs per engine",
        "",
        "scoring:",
        f"  dtype: {dtype}",
        f"  device: {'split' if is_split else 'auto'}",
        "",
        "verify:",
        f"  workers: {8 if choices.is_on_gpu else 2}  # processes",
        "  bad_golds: exclude  # golds that their own check rejects are left out and counted",
        "  unverifiable: accept",
        "",
        "build:",
        "  outputs:",
        f"    - {{name: {FINAL}, estimator: acc, selection: weighted}}",
    ]
    if is_start_of_questions:
        lines += [
            "    # the posterior from the reasoner's own traces (posterior: own_traces)",
            f"    - {{name: {LEARNED}, target: posterior, ratio: none, selection: weighted}}",
        ]
    lines += ["", "eval:", "  num_samples: 8  # k of Avg@k", "  temperature: 0.7"]
    return "\n".join(lines) + "\n"


def training_text(choices: Choices, role: str) -> str:
    """One training YAML.

    Args:
        role: reasoner, posterior, LEARNED or FINAL.
    """
    training = choices.training
    assert training is not None
    stage = {"reasoner": 1, FINAL: 9}.get(role, 2)
    recipe = f"{stage}_train_{role}.yaml"
    output = f"{choices.run_dir}/{'adapters' if training.is_lora else 'models'}/{role}"
    dataset = f"{choices.name}_{role}"
    kind = choices.posterior_prompt if stage == 2 else "reasoner"
    lines = [
        f"# Stage {stage}: {_MEANINGS[role]}",
        f"# Reads {dataset} ({choices.run_dir}/train). Writes {output}.",
        f"#   llamafactory-cli train {choices.folder / recipe}",
        f"# For {machine(choices.options)}. Not measured.",
        "",
        "### model",
        f"model_name_or_path: {_quoted(choices.base)}",
        f"flash_attn: {'fa2' if choices.is_on_gpu else 'sdpa'}",
        "",
        "### method",
        "stage: sft",
        "do_train: true",
        *_method_lines(choices),
    ]
    if choices.refuses_system:
        lines.append("template: empty  # the host cannot read the model's own")
    lines += [
        "",
        "### variational",
        "constant_loss_normalizer: auto",
        f"prompt_kind: {kind}",
        f"chat_format: {choices.chat_format}",
        f"prompt_family: {_quoted(choices.family)}",
        "overlong: drop  # rows above cutoff_len are dropped and counted",
        f"rows_per_step: {rows_per_step(choices, role)}  # of one step, on any number of GPUs",
    ]
    if training.tokens is not None and choices.is_on_gpu:
        lines.append(f"tokens_per_micro_batch: {training.tokens}  # one longest row, for memory")
    num_preparing, num_loading = (8, 2) if choices.is_on_gpu else (1, 0)
    save_strategy = "epoch" if choices.is_on_gpu else '"no"'
    lines += [
        "",
        "### dataset",
        f"dataset_dir: {choices.run_dir}/train",
        f"dataset: {dataset}",
        f"cutoff_len: {choices.cutoff_len}  # the same number as in pipeline.yaml",
        f"preprocessing_num_workers: {num_preparing}",
        f"dataloader_num_workers: {num_loading}",
        "",
        "### output",
        f"output_dir: {output}",
        f"save_strategy: {save_strategy}",
        "save_total_limit: 1",
        "logging_steps: 1",
        "report_to: none  # or wandb, tensorboard, swanlab",
        "plot_loss: false",
        "",
        "### train",
        f"num_train_epochs: {choices.options.epochs}",
        f"learning_rate: {'1.0e-4' if training.is_lora else '1.0e-5'}  # not tuned",
        "lr_scheduler_type: cosine",
        "warmup_ratio: 0.1",
        "adam_beta1: 0.9",
        "adam_beta2: 0.95",
        "weight_decay: 0.0",
        "max_grad_norm: 1.0",
        "bf16: true" if choices.is_on_gpu else "use_cpu: true",
        "ddp_timeout: 180000000  # seconds",
        "seed: 0",
        "",
        "### eval",
        "# None here: the models are compared by sampling, with evals/run.py.",
    ]
    return "\n".join(lines) + "\n"


_MEANINGS = {
    "reasoner": "the initial reasoning model, trained on the traces.",
    "posterior": "the posterior, which sees the solution before it writes the trace.",
    LEARNED: "the posterior, on the reasoner's own verified traces by weight (Eq. 9). Only with\n"
    "# posterior: own_traces.",
    FINAL: "the final model, on all traces by their weights.",
}


def _method_lines(choices: Choices) -> list[str]:
    """What of the model is trained, and how its states are spread."""
    training = choices.training
    assert training is not None
    if training.is_lora:
        return [
            "finetuning_type: lora",
            "lora_target: all  # every linear layer but the head",
            f"lora_rank: {RANK}",
            f"lora_alpha: {2 * RANK}",
            "lora_dropout: 0.0",
        ]
    lines = ["finetuning_type: full"]
    if training.zero:
        lines.append(
            f"deepspeed: examples/variational_reasoning/deepspeed/zero{training.zero}.json"
        )
    return lines


def export_text(choices: Choices) -> str:
    """export.yaml, which merges an adapter into its model."""
    name = "reasoner" if choices.start == "traces" else FINAL
    return (
        "# Merges an adapter into its base, since the other stages take whole models.\n"
        "# scripts/run.py does it after every training.\n"
        f"#   llamafactory-cli export {choices.folder / 'export.yaml'}\n\n"
        "### model\n"
        f"model_name_or_path: {_quoted(choices.base)}  # the same as in the training YAMLs\n"
        f"adapter_name_or_path: {choices.run_dir}/adapters/{name}\n"
        "finetuning_type: lora\n\n"
        "### export\n"
        f"export_dir: {choices.run_dir}/models/{name}\n"
        "export_size: 5  # GB per file\n"
        "export_device: cpu\n"
        f"infer_dtype: {'bfloat16' if choices.is_on_gpu else 'float32'}\n"
    )


def rows_per_step(choices: Choices, role: str) -> int:
    """A batch that gives an epoch some hundred steps, between 8 and 64 rows."""
    rows = choices.num_train
    is_of_given_traces = choices.start == "traces" and role != FINAL
    if not is_of_given_traces:
        rows *= 4  # a guess: several of the sampled traces of a question become rows
    size = 8
    while size < 64 and rows // size > 200:
        size *= 2
    return size


def machine(options: ProfileOptions) -> str:
    """What the profile is for."""
    if options.gpus == 0:
        return "a CPU"
    return gpus_text(options.gpus, options.gpu_gb)


def gpus_text(count: int, memory: float) -> str:
    """`1 GPU of 24 GB`, `8 GPUs of 80 GB`."""
    plural = "" if count == 1 else "s"
    return f"{count} GPU{plural} of {memory:g} GB"


def _quoted(text: str | None) -> str:
    """A text as a YAML value on one line."""
    return yaml.safe_dump(text, width=10**6).splitlines()[0]
