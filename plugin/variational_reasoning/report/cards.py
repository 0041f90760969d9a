"""Cards: the README.md next to a run's train files, and next to each model that was trained in it.

Everything in a card is read from manifests, from the record next to the model and from evaluations.
So a card always describes what was run. The host writes its own README.md at the end of a training,
and ours replaces it.

Metadata may only name what the hub can link to. A base model or data set that is a local folder or
file is named in the text, but not in the header.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.prompts import (
    REASONER,
    Renderer,
    renderer_of_record,
)
from variational_reasoning.model_record import read_record
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.controls.describe import (
    control_cells,
    following_cells,
    verdict,
)
from variational_reasoning.pipeline.controls.result import read_controls
from variational_reasoning.pipeline.rows import MANIFEST
from variational_reasoning.report.evaluations import Evaluation, read_evaluations
from variational_reasoning.report.runs import StageFacts, read_stages
from variational_reasoning.report.scores import listed
from variational_reasoning.report.training import training_folders

CARD = "README.md"
TEMPLATES = Path(__file__).parent
UNKNOWN = "unknown"
CITATION = """```bibtex
@article{zhou2025variational,
  title={Variational Reasoning for Language Models},
  author={Zhou, Xiangxin and Liu, Zichen and Wang, Haonan and Du, Chao and Lin, Min and
          Li, Chongxuan and Wang, Liang and Pang, Tianyu},
  journal={arXiv preprint arXiv:2509.22637},
  year={2025}
}
```"""
HYPER_PARAMETERS = (
    "finetuning_type",
    "lora_rank",
    "lora_alpha",
    "lora_target",
    "deepspeed",
    "constant_loss_normalizer",
    "cutoff_len",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "packing",
    "neat_packing",
    "seed",
)
"""Keys of a training YAML that a card shows, where they are set."""


def write_cards(config: Config) -> list[Path]:
    """Write the cards of run_dir/train and of the models in run_dir/models.

    A model without a record was not trained with this plugin, and gets no card.

    Raises: ValueError when the run has neither.
    """
    run = config.folder()
    evaluations = read_evaluations(run / "evals")
    written = []
    if any((run / "train").glob("*.manifest.json")):
        written.append(run / "train" / CARD)
        written[-1].write_text(data_card(config), encoding="utf-8")
    for model in sorted(path for path in run.glob("models/*") if path.is_dir()):
        record = read_record(model)
        if record is not None and record.get("prompt_kind"):
            text = model_card(config, model, record, evaluations)
            written.append(model / CARD)
            written[-1].write_text(text, encoding="utf-8")
    if not written:
        raise ValueError(
            f"{run} has no train files and no trained models; run stage 0 or a training first"
        )
    return written


def data_card(config: Config) -> str:
    """The card of run_dir/train: a configuration per Parquet file, with its recipe and counts."""
    from huggingface_hub import DatasetCardData

    folder = config.folder("train")
    manifests = {}
    for path in sorted(folder.glob("*.manifest.json")):
        name = path.name.removesuffix(".manifest.json")
        manifests[name] = read_json_object(path, "run its stage again")
    data = DatasetCardData(
        license=config.cards.data_license,
        task_categories=["text-generation"],
        pretty_name=f"{config.data.name}: train files of variational reasoning",
        source_datasets=[config.data.train] if is_hub_name(config.data.train) else None,
        tags=["variational-reasoning", "reasoning"],
        configs=[{"config_name": name, "data_files": f"{name}.parquet"} for name in manifests],
    )
    tables = {name: config.folder(name) for name in ("traces", "answers", "verdicts")}
    for name in ("reasoner", "posterior"):
        tables[f"log-likelihoods, {name}"] = config.folder("trace_logps", name)
    models = {}
    for name, table in tables.items():
        manifest = _manifest(table)
        if manifest is not None:
            models[name] = manifest
    facts = read_stages(config.folder(), {})
    return _card(
        data.to_yaml(),
        "data_card.md",
        config=config,
        license_name=config.cards.data_license,
        files={name: _recipe(manifest) for name, manifest in manifests.items()},
        models=models,
        stages=_stage_rows(facts, lambda name: not name.startswith("train ")),
    )


def model_card(
    config: Config, model: Path, record: Mapping[str, Any], evaluations: Mapping[str, Evaluation]
) -> str:
    """The card of one model.

    Args:
        record: what the trainer wrote next to it.
        evaluations: of the run; those of this model are taken.
    """
    from huggingface_hub import ModelCardData

    kind = record["prompt_kind"]
    base = str(record["model"]["path"])
    is_adapter = (model / "adapter_config.json").is_file()
    role = "final"
    if kind.startswith("posterior"):
        role = "posterior"
    elif model.name == "reasoner":
        role = "reasoner"
    mine = {}
    for name, evaluation in evaluations.items():
        evaluated = Path(evaluation.result.get("model", ""))
        if evaluated.resolve() == model.resolve():
            mine[name] = evaluation
    data = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        license=config.cards.model_license,
        base_model=base if is_hub_name(base) else None,
        datasets=[config.data.train] if is_hub_name(config.data.train) else None,
        tags=["variational-reasoning", "reasoning", role, "llama-factory"],
        model_name=model.name,
        eval_results=_eval_results(mine, config) or None,
    )
    renderer = renderer_of_record(record, source=str(model))
    state = training_folders(config.folder()).get(model.name, model) / "trainer_state.json"
    num_steps = None
    if state.is_file():
        num_steps = read_json_object(state, "train again").get("global_step")
    settings = record.get("yaml", {})
    shown = {name: settings[name] for name in HYPER_PARAMETERS if name in settings}
    facts = read_stages(config.folder(), {})
    return _card(
        data.to_yaml(),
        "model_card.md",
        config=config,
        license_name=config.cards.model_license,
        name=model.name,
        role=role,
        base=base,
        is_adapter=is_adapter,
        record=record,
        prompt_kind=kind,
        chat_format=renderer.chat_format.name,
        prompt_family=renderer.family.name,
        is_abstract=renderer.is_abstract,
        controls=_controls(mine, config),
        evaluations={_task(name, config): evaluation.result for name, evaluation in mine.items()},
        hyper_parameters=shown,
        num_steps=num_steps,
        stages=_stage_rows(facts, lambda name: _belongs(name, model.name, role)),
        transformers_code=transformers_snippet(kind, renderer, config),
        vllm_code=vllm_snippet(kind, renderer, config),
    )


def prompt_snippet(kind: str, renderer: Renderer) -> str:
    """Python that sets `prompt` from `question` (and `hint`) to exactly what the renderer gives."""
    marks = {"\0question\0": "question"}
    lines = ['question = "What is 1 + 1?"']
    hint = None
    if kind != REASONER:
        hint = "\0hint\0"
        marks[hint] = "hint"
        lines.append(r'hint = "The answer is \\boxed{2}."')
    text = renderer.prompt(kind, "\0question\0", hint)
    # Cut at the marks, which a family has in either order: a, question, b, hint, c.
    pieces = []
    names = []
    for part in re.split(f"({'|'.join(marks)})", text):
        if part in marks:
            names.append(marks[part])
        else:
            pieces.append(part)
    for number, piece in enumerate(pieces):
        literals = [f"    {part!r}" for part in piece.splitlines(keepends=True) or [""]]
        lines += [f"part_{number} = (", *literals, ")"]
    joined = "part_0"
    for number, name in enumerate(names, 1):
        joined += f" + {name} + part_{number}"
    return "\n".join([*lines, f"prompt = {joined}"])


def transformers_snippet(kind: str, renderer: Renderer, config: Config) -> str:
    """A program that samples from the model with transformers."""
    end_of_turn = renderer.chat_format.end_of_turn
    return f"""from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or its name on the hub
{prompt_snippet(kind, renderer)}

tokenizer = AutoTokenizer.from_pretrained(path)
end_of_turn = tokenizer.encode({end_of_turn!r}, add_special_tokens=False)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
ids = tokenizer.encode(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
output = model.generate(
    ids,
    do_sample=True,
    temperature={config.eval.temperature},
    top_p={config.eval.top_p},
    top_k=0,
    max_length={config.cutoff_len},
    eos_token_id=end_of_turn[-1],
)
print(tokenizer.decode(output[0, ids.shape[1] :]))"""


def vllm_snippet(kind: str, renderer: Renderer, config: Config) -> str:
    """A program that samples from the model with vLLM."""
    return f"""from vllm import LLM, SamplingParams

path = "."  # this folder, or its name on the hub
{prompt_snippet(kind, renderer)}

if __name__ == "__main__":
    llm = LLM(path, max_model_len={config.cutoff_len})
    ids = llm.get_tokenizer().encode(prompt, add_special_tokens=False)
    parameters = SamplingParams(
        temperature={config.eval.temperature},
        top_p={config.eval.top_p},
        max_tokens={config.cutoff_len} - len(ids),
        stop={_stops(kind, renderer)!r},
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
    )
    print(llm.generate({{"prompt_token_ids": ids}}, parameters)[0].outputs[0].text)"""


def is_hub_name(text: str) -> bool:
    """Whether `text` can be a name on the hub and is nothing on this machine."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not text or Path(text).exists() or Path(text).suffix in (".json", ".jsonl", ".parquet"):
        return False
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def _eval_results(evaluations: Mapping[str, Evaluation], config: Config) -> list[Any]:
    """Evaluations in the form of the hub's metadata, Avg@k in percent."""
    from huggingface_hub import EvalResult

    results = []
    for name, evaluation in evaluations.items():
        _, _, benchmark = name.partition("/")
        result = EvalResult(
            task_type="text-generation",
            dataset_type=benchmark or config.data.name,
            dataset_name=_task(name, config),
            metric_type="accuracy",
            metric_name=f"Avg@{evaluation.result['num_samples']}",
            metric_value=round(100 * evaluation.result["avg"], 2),
        )
        results.append(result)
    return results


def _stops(kind: str, renderer: Renderer) -> list[str]:
    if kind == REASONER:
        return list(renderer.answer_stops)
    return [renderer.texts(kind).close, renderer.chat_format.end_of_turn]


def _controls(names: Iterable[str], config: Config) -> dict[str, dict[str, Any]]:
    """The tables of controls by task, of the evaluations that have some."""
    found = {}
    for name in names:
        result = read_controls(config.folder("evals", name))
        if result is None or not result["kinds"]:
            continue
        following = following_cells(result)
        found[_task(name, config)] = {
            "table": control_cells(result).to_markdown(),
            "following": following.to_markdown() if following else "",
            "verdict": verdict(result),
        }
    return found


def _task(name: str, config: Config) -> str:
    """The name of an evaluation in a card: its benchmark, or the run's own questions."""
    own_questions = f"{config.data.name} ({config.eval.split} questions of the run)"
    return name.partition("/")[2] or own_questions


def _belongs(stage: str, name: str, role: str) -> bool:
    """Whether a stage is part of the recipe of a model."""
    if role == "final":
        trainings = (f"train {name}", "train reasoner", "train posterior")
        return stage in trainings or not stage.startswith("train ")
    if role == "posterior" and stage.endswith("_from_reasoner"):
        return True
    return stage in ("prepare_data", f"train {name}")


def _stage_rows(stages: Mapping[str, StageFacts], is_wanted: Any) -> list[dict[str, Any]]:
    rows = []
    for name, facts in stages.items():
        if is_wanted(name):
            rows.append({"name": name, "facts": facts, "reasons": listed(facts.reasons)})
    return rows


def _recipe(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the data card says about one file."""
    figures = manifest.get("figures", {})
    output = manifest.get("config", {}).get("output", {})
    recipe = []
    for key, value in output.items():
        if key != "name" and value is not None:
            recipe.append(f"{key} {value}")
    return {
        "rows": manifest["rows"],
        "columns": manifest["columns"],
        "recipe": ", ".join(recipe),
        "mean_weight": figures.get("mean_weight"),
        "mean_tokens": figures.get("mean_tokens"),
        "counts": listed(figures.get("counts", {})),
        "seed": manifest.get("seed"),
    }


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    return read_json_object(path, "run its stage again") if path.is_file() else None


def _card(header: str, template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    body = environment.from_string(text).render(citation=CITATION, **values)
    return f"---\n{header.strip()}\n---\n\n{body}"
