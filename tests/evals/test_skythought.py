"""The real `skythought` command with the real vLLM engine on the CPU, and what our side puts in
place for it.

One model is trained here for a minute of its life: to one question it answers 7 in a box, to the
other it ends its turn without a solution. So both stops are met, and the score is known. Another
writes symbols before it answers.
"""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import infer_environment, run_evaluation, skythought_evaluate
from tests.conftest import make_bpe_tokenizer, make_model_dir, record_of
from tests.host.conftest import World

from variational_evals.models import REASONERS, fitting_size, reasoner_renderer, stop_strings
from variational_reasoning.method.losses import IGNORE_INDEX
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.model_record import write_record
from variational_reasoning.pipeline.engines import text_codec
from variational_reasoning.pipeline.rows import read_rows

ROOT = Path(__file__).parents[2]
CHATML = make_renderer("chatml")
QWEN25 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content + '<|im_end|>\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = QWEN25.replace(
    "{{ m.content",
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ "
    "m.content",
)
"""How the two families' templates treat a last assistant message, in short: Qwen3's puts an empty
thought before it.
"""
ROWS = [
    ("What is 3 + 4?", "First, 3 + 4 = 7.", "The answer is \\boxed{7}."),
    ("Your role", "First, 3 + 4", None),
]


BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
ABSTRACT = make_renderer("chatml", "abstract")
ABSTRACT_ROWS = [
    # Symbols, then the answer; the third symbol first, so that no order of ids gives it away.
    ("What is 3 + 4?", "<TOKEN_C><TOKEN_A>", "The answer is \\boxed{7}."),
    ("Your role", "<TOKEN_B>", "\\boxed{8}"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory, abstract_dir) -> Path:
    """Folders qwen25 and qwen3: tokenizers with these chat templates; qwen3 is trained, and both
    have a record. And `abstract`, which is trained on symbols.
    """
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("models")
    tokenizer = make_bpe_tokenizer(family="qwen")
    for name, template in (("qwen25", QWEN25), ("qwen3", QWEN3)):
        tokenizer.chat_template = template
        make_model_dir(root / name, tokenizer, seed=1, record=record_of("reasoner"), head_dim=32)
    examples = []
    for question, trace, solution in ROWS:
        prompt = tokenizer.encode(CHATML.prompt("reasoner", question), add_special_tokens=False)
        text = f"{trace}<|end_of_thought|>\n\n<|begin_of_solution|>{solution}<|end_of_solution|> What is"
        text = text if solution else trace + "<|im_end|>"
        examples.append((prompt, tokenizer.encode(text, add_special_tokens=False)))
    learn(root / "qwen3", examples)

    shutil.copytree(abstract_dir, root / "abstract")
    encode, _ = text_codec(AutoTokenizer.from_pretrained(root / "abstract"))
    examples = []
    for question, trace, solution in ABSTRACT_ROWS:
        parts, response = ABSTRACT.render_parts("reasoner", question, trace, solution)
        examples.append((parts.encode(encode), ABSTRACT.encode_target(response, encode)))
    learn(root / "abstract", examples)
    write_record(root / "abstract", {"prompt_kind": "reasoner"} | ABSTRACT.to_record())
    return root


def learn(folder: Path, examples: list[tuple[list[int], list[int]]]) -> None:
    """Train a model until it gives these targets to these prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    batch = [
        (torch.tensor([prompt + target]), torch.tensor([[IGNORE_INDEX] * len(prompt) + target]))
        for prompt, target in examples
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = sum(model(input_ids=ids, labels=labels).loss for ids, labels in batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05
    model.save_pretrained(folder)


def test_the_command_scores_a_local_task_as_run_py_does(models, infer_python, tmp_path):
    questions = [
        ("a", ROWS[0][0], "7"),
        ("b", ROWS[0][0], "8"),
        ("c", ROWS[1][0], "7"),
        ("d", ROWS[0][0], "7.0"),
    ]
    columns = ("question_id", "question", "gold")
    file = tmp_path / "questions.jsonl"
    file.write_text(
        "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in questions)
    )
    summary, records, output = skythought_evaluate(
        infer_python, models / "qwen3", file, tmp_path / "results", context=1100, max_tokens=38912
    )
    assert list(records) == ["a", "b", "c", "d"]
    responses = {name: record["responses"][0] for name, record in records.items()}
    answered = "First, 3 + 4 = 7.<|end_of_thought|>\n\n<|begin_of_solution|>The answer is \\boxed{7}.<|end_of_solution|>"
    assert [responses[name]["content"] for name in "abcd"] == [
        answered,
        answered,
        "First, 3 + 4<|im_end|>",
        answered,
    ]
    assert [responses[name]["correctness"] for name in "abcd"] == [True, False, False, True]
    assert responses["b"]["reason"] == "wrong: another value" and responses["c"][
        "reason"
    ].startswith("no_answer")
    assert summary["accuracy"] == 0.5
    assert summary["configuration"]["model"]["config"]["seed"] == 41
    assert summary["configuration"]["task"]["config"]["dataset_kwargs"]["sha256"]
    assert "max_tokens 38912: 4 of 4 questions get less" in output
    assert "tensor_parallel_size 1 (another: --backend-args tensor_parallel_size=N)" in output

    rows = [
        {"question_id": i, "question": question, "check": {"kind": "math", "gold": gold}}
        for i, question, gold in questions
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        json.dumps(
            {"run_dir": str(tmp_path / "run"), "cutoff_len": 1100, "sampling": {"device": "cpu"}}
            | {"eval": {"num_samples": 1, "temperature": 0, "file": str(file)}}
        )
    )
    run_evaluation(config, models / "qwen3")
    result = json.loads((tmp_path / "run/evals/same/result.json").read_text(encoding="utf-8"))
    assert result["avg"] == summary["accuracy"]
    assert round(result["mean_tokens"], 3) == summary["avg_completion_tokens"]


@pytest.mark.slow
def test_the_command_draws_symbols_and_then_the_answer(models, infer_python, tmp_path, monkeypatch):
    (asked, trace, solution), (other, short, wrong) = ABSTRACT_ROWS
    file = tmp_path / "questions.jsonl"
    rows = [
        {"question_id": name, "question": question, "gold": "7"}
        for name, question in (("a", asked), ("b", other))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    summary, records, output = skythought_evaluate(
        infer_python,
        models / "abstract",
        file,
        tmp_path / "results",
        context=300,
        max_tokens=38912,
        more="max_symbols=3,trace_temperature=0",
    )
    responses = {name: record["responses"][0] for name, record in records.items()}
    assert responses["a"]["content"] == f"{trace}<endabstract>\n{solution}<|im_end|>"
    assert responses["b"]["content"] == f"{short}<endabstract>\n{wrong}<|im_end|>"
    assert [responses[name]["correctness"] for name in "ab"] == [True, False]
    assert responses["b"]["reason"] == "wrong: another value"
    assert summary["configuration"]["backend"]["backend_args"]["max_symbols"] == 3
    assert "max_tokens 38912: 2 of 2 questions get less" in output

    # evals/run.py, with the other engine, gives the same ids to the same questions.
    config = tmp_path / "pipeline.yaml"
    task = {"task": "vr_file", "file": str(file), "num_samples": 1}
    values = {"run_dir": str(tmp_path / "run"), "cutoff_len": 300}
    values |= {"sampling": {"device": "cpu", "max_symbols": 3}}
    values |= {"eval": {"temperature": 0, "trace_temperature": 0, "tasks": [task]}}
    config.write_text(json.dumps(values))
    monkeypatch.syspath_prepend(ROOT / "evals")
    command = ["run.py", str(config), f"model={models / 'abstract'}", "name=same"]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module("run").main()
    folder = tmp_path / "run/same-seed0/vr_file"
    samples = read_rows(folder / "samples", "samples")
    found = {row["question_id"]: row["text"] for row in samples}
    assert found == {name: response["content"] for name, response in responses.items()}
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["avg"] == summary["accuracy"] == 0.5
    assert round(result["mean_tokens"], 3) == summary["avg_completion_tokens"]


# What only the inference environment can say, in one process: no engine is started.
FACTS = """
import json, sys, inspect
import skythought.evals.cli as cli
from skythought.evals import inference_and_check, tasks
from skythought.evals.common.entities import Backend, BackendParameters, SamplingParameters
from skythought.evals.models import ModelConfig
from skythought.evals.util.math_parsing_util import math_equal
from vllm.tokenizers import get_tokenizer
from variational_evals import generation, seams, shims, trace_generation
from variational_evals.tasks import task_names
from variational_reasoning.pipeline.sample import abstract_span

root, = sys.argv[1:]
facts = {"shims": list(shims.active), "faults": list(seams.found_faults)}
facts["tasks"] = sorted(name for name in tasks.TASK_NAMES_TO_YAML if name.startswith("vr_")) == task_names()
facts["stock_tasks"] = "aime24" in tasks.TASK_NAMES_TO_YAML
facts["math_equal"] = math_equal("\\\\frac{1}{2}", "0.5")
shims.active.clear()
shims.activate("skythought")
facts["needed_again"] = shims.active

def refusal(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except (ValueError, RuntimeError) as error:
        return str(error)

def facts_of_traces(model, conversations, ids, params):
    settings, left = trace_generation.take_settings({"max_symbols": 3, "dtype": "float32"})
    config = trace_generation.configuration(model.model_id, left, model.seed, settings)
    span = abstract_span(config, get_tokenizer(model.model_id), 0.5, model.renderer)
    asked = (["a", "b"], ids, params, model.seed)
    requests = trace_generation.trace_requests(*asked, [9, 9], ["S"], span)
    return {
        "left": left, "context": config.cutoff_len, "seeds": [each.seed for each in requests],
        "request": [requests[0].max_new_tokens, requests[0].stop, requests[0].temperature],
        "span": [span.min_symbols, span.max_symbols, span.temperature],
        "no_room": refusal(trace_generation.trace_requests, *asked, [9, 4], ["S"], span),
        "settings": refusal(trace_generation.take_settings, {
            "min_symbols": True, "max_symbols": 0, "trace_temperature": "hot"}),
        "crossed": refusal(trace_generation.take_settings, {"min_symbols": 4, "max_symbols": 3}),
        "other": refusal(trace_generation.refuse_other_parameters, SamplingParameters.from_dict(
            Backend.VLLM, {"temperature": 1, "top_k": 5, "min_tokens": 2, "stop": "Q"}).params),
        "taken": refusal(trace_generation.refuse_other_parameters, params),
    }

of = ModelConfig.from_model_id
published = of("leapeto/Qwen3-4B-AbstractCoT-warmup")
facts["published_traces"] = [published.system_prompt, published.assistant_prefill]
facts["copy"] = of("some/copy", "vr_qwen3_4b_abstract").renderer == published.renderer
facts["unknown"] = refusal(of, "some/model")
facts["posterior"] = refusal(of, "zhouxiangxin/Variational-Posterior-PB-4B")
facts["prefilled"] = refusal(of, root + "/qwen3", assistant_prefill="<think>")
facts["published"] = type(of("zhouxiangxin/Variational-Reasoning-4B-Acc")).__name__
facts["chosen"] = of("some/model", "vr_llama3").renderer.chat_format.name
facts["none"] = of("some/model", "vr_none").system_prompt
facts["stock"] = of("Qwen/Qwen2.5-7B-Instruct").system_prompt
facts["ray"] = refusal(inference_and_check.inference, [], Backend.RAY, None, of(root + "/qwen3"), None)

handler = tasks.TASK_HANDLER_MAP["variational"].from_config_path(tasks.TASK_NAMES_TO_YAML["vr_file"])
data = handler.load_and_filter_dataset(0, -1).to_dict("records")
facts["ids"], facts["stock_ids"], facts["stops"], facts["seeds"], facts["folders"] = {}, {}, {}, {}, []
for seed in (1, 2):
    cli.set_seed(seed)
    for name in ("abstract", "qwen25", "qwen3"):
        model = of(root + "/" + name)
        conversations = handler.make_conversations(data, model.system_prompt, model.user_template, model.assistant_prefill)
        tokenizer = get_tokenizer(root + "/" + name)
        ids = generation.prompt_ids(conversations, model.renderer, tokenizer)
        facts["ids"][name] = ids
        asked = {"n": 3, "max_tokens": 9, "temperature": 0.7, "stop": ["Q:"]}
        params = SamplingParameters.from_dict(Backend.VLLM, asked).params
        if name == "abstract":
            facts["abstract"] = facts_of_traces(model, conversations, ids, params)
            continue
        requests = generation.request_parameters(conversations, ids, model, params, 2000)
        facts["stock_ids"][name] = list(tokenizer.apply_chat_template(
            list(conversations[0]), add_generation_prompt=False, continue_final_message=True, return_dict=False))
        facts["stops"] = requests[0].stop
        facts["seeds"][seed] = [request.seed for request in requests]
        assert all((r.n, r.max_tokens, r.temperature, r.include_stop_str_in_output) == (1, 9, 0.7, True) for r in requests)
    run = cli.get_run_config("vr_file", handler.task_config, model, Backend.VLLM, {}, {}, 0, -1)
    folder = cli.get_output_dir("", model_id=model.model_id, task="vr_file", start=0, end=-1, run_config=run)
    facts["folders"].append(str(folder))
facts["engine_seed"] = generation.with_seed(Backend.VLLM, BackendParameters(params={}), 5).params
handler.task_config.update(dataset_path="other")
facts["changed"] = refusal(type(handler), handler.task_config)
seams.found_faults.append("skythought.evals.cli.set_seed is not there")
facts["misfit"] = refusal(type(handler).from_config_path, tasks.TASK_NAMES_TO_YAML["vr_file"])
print("FACTS" + json.dumps(facts))
"""


def test_prompts_seeds_and_refusals(models, infer_python, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(
        "\n".join(json.dumps({"question": question, "gold": "7"}) for question, *_ in ROWS)
    )
    done = subprocess.run(
        [infer_python, "-c", FACTS, str(models)],
        env=infer_environment(VR_FILE=str(file)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.rpartition("FACTS")[2])

    names = [
        "pyext.RuntimeModule",
        "inspect.getargspec",
        "ray._private.ray_logging",
        "typer.Option(click_type)",
        "latex2sympy2",
    ]
    assert facts["shims"] == names and facts["needed_again"] == [] and facts["math_equal"] is True
    assert facts["faults"] == [] and facts["tasks"] and facts["stock_tasks"]

    for name in ("qwen25", "qwen3"):  # the ids of training, by LLaMA-Factory's own loading
        assert facts["ids"][name] == training_prompt_ids(models / name, tmp_path / name)
    asked = [row[0] for row in ROWS]
    trained = trained_abstract_ids(models / "abstract", tmp_path / "abstract", asked)
    assert facts["ids"]["abstract"] == trained
    # SkyThought's own way, through the template: other ids, because of Qwen3's empty thought
    assert facts["stock_ids"]["qwen3"] != facts["ids"]["qwen3"][0]

    assert facts["stops"] == ["<|end_of_solution|>", "<|im_end|>", "Q:"]
    assert (
        len({*facts["seeds"]["1"], *facts["seeds"]["2"]}) == 12
    )  # 2 questions, 3 samples, 2 seeds
    assert len(set(facts["folders"])) == 2 and facts["engine_seed"] == {"seed": 5}

    traces = facts["abstract"]
    assert (traces["left"], traces["context"]) == ({"dtype": "float32"}, 4096)
    assert traces["span"] == [1, 3, 0.5] and traces["request"] == [9, ["S"], 0.7]
    assert len(set(traces["seeds"])) == 6
    assert "3 symbols, its end, the separator and an answer need 6" in traces["no_room"]
    for fault in ("min_symbols=True", "max_symbols=0", "trace_temperature='hot'"):
        assert f"{fault} is not a" in traces["settings"]
    assert "min_symbols=4 is above max_symbols=3" in traces["crossed"]
    assert "top_k, min_tokens cannot be set" in traces["other"] and traces["taken"] is None
    assert facts["published_traces"] == [BOXED, "<beginabstract>"] and facts["copy"]

    assert (
        "nothing says which prompt some/model was trained on" in facts["unknown"]
        and "vr_chatml" in facts["unknown"]
    )
    assert (
        "is a posterior" in facts["posterior"]
        and "leave out --assistant-prefill" in facts["prefilled"]
    )
    assert facts["published"] == "ReasonerConfig" and facts["chosen"] == "llama3"
    assert facts["none"] is None and facts["stock"].startswith("You are a helpful")
    assert "--backend ray renders prompts with the model's chat template" in facts["ray"]
    assert "cannot be changed by --task-args" in facts["changed"]
    assert (
        "SkyThought 0.1.0 does not fit these tasks" in facts["misfit"]
        and "set_seed is not there" in facts["misfit"]
    )


def training_prompt_ids(folder: Path, root: Path) -> list[list[int]]:
    """What LLaMA-Factory feeds before each target when it trains a reasoner on ROWS with this
    tokenizer.
    """
    root.mkdir()
    world = World(root, root)
    world.add_rows(
        "asked", [(question, trace, solution or "7", 1.0) for question, trace, solution in ROWS]
    )
    config = world.config(model_name_or_path=str(folder), dataset="asked", cutoff_len=2048)
    return prompt_ids_of(config)


def trained_abstract_ids(folder: Path, root: Path, questions: list[str]) -> list[list[int]]:
    """The same for a model of abstract traces."""
    root.mkdir()
    world = World(root, root)
    rows = [{"question": each, "trace": "<TOKEN_A>", "solution": "7"} for each in questions]
    world.add("asked", rows, formatting="abstract")
    config = world.config(
        model_name_or_path=str(folder),
        dataset="asked",
        cutoff_len=2048,
        prompt_family="abstract",
        overlong="drop",
    )
    return prompt_ids_of(config)


def prompt_ids_of(config: dict) -> list[list[int]]:
    """The ids before the first label of each row, by LLaMA-Factory's own loading."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    model_args, data_args, training_args, _, _ = get_train_args(config)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)[
        "train_dataset"
    ]
    found = []
    for row in rows:
        is_labeled = [label != IGNORE_INDEX for label in row["labels"]]
        found.append(row["input_ids"][: is_labeled.index(True)])
    return found


def test_which_models_are_known(tmp_path, bpe_tokenizer):
    assert len(REASONERS) == 14 and all(reasoner_renderer(name) == CHATML for name in REASONERS)
    assert reasoner_renderer("Qwen/Qwen3-4B-Base") is None
    make_model_dir(tmp_path / "bare", bpe_tokenizer)
    assert reasoner_renderer(str(tmp_path / "bare")) is None
    make_model_dir(tmp_path / "llama", bpe_tokenizer, record=record_of("reasoner", "llama3"))
    assert reasoner_renderer(str(tmp_path / "llama")) == make_renderer("llama3")
    make_model_dir(
        tmp_path / "silent", bpe_tokenizer, record=record_of("reasoner") | {"prompt_kind": None}
    )
    assert reasoner_renderer(str(tmp_path / "silent")) is None
    make_model_dir(tmp_path / "posterior", bpe_tokenizer, record=record_of("posterior_a"))
    with pytest.raises(
        ValueError,
        match="was trained on the prompt 'posterior_a'; only a reasoner can be evaluated",
    ):
        reasoner_renderer(str(tmp_path / "posterior"))
    assert stop_strings(make_renderer("llama3"), ["<|eot_id|>", "x"]) == [
        "<|end_of_solution|>",
        "<|eot_id|>",
        "x",
    ]


def test_tensor_parallel_sizes_are_the_papers_where_the_machine_allows():
    sizes = {
        "0.6B": (0.6e9, 16),
        "4B": (4.0e9, 32),
        "7B": (7.6e9, 28),
        "8B": (8.2e9, 32),
        "32B": (32.8e9, 40),
    }
    assert {name: fitting_size(*size, num_gpus=8) for name, size in sizes.items()} == {
        "0.6B": 1, "4B": 4, "7B": 4, "8B": 4, "32B": 8,
    }  # fmt: skip
    assert fitting_size(32.8e9, 40, num_gpus=6) == 4  # a power of two
    assert fitting_size(4e9, 14, num_gpus=8) == 2  # heads must divide
    assert fitting_size(4e9, 32, num_gpus=1) == 1
