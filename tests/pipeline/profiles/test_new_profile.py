"""A profile in one command: for five model families, and what is refused before anything is
written."""

import json
import shlex
import subprocess
import sys
import weakref
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import pytest
import yaml

from tests.commands import Runner
from tests.conftest import ROOT
from tests.host.conftest import run_exp  # noqa: F401, the fixture
from tests.pipeline.profiles.conftest import MODELS
from variational_reasoning.method.families import load_family
from variational_reasoning.pipeline.config import Config, load_config
from variational_reasoning.pipeline.profiles import choose as choose_module
from variational_reasoning.pipeline.profiles.choose import FIRST_ROWS, _prompt_length, choose
from variational_reasoning.pipeline.profiles.options import ProfileOptions
from variational_reasoning.pipeline.profiles.write import write_profile
from variational_reasoning.pipeline.questions.sources import stream_source


@pytest.fixture
def command(tmp_path):
    """scripts/new_profile.py in a process of its own, for a folder of this test."""

    def run(*words: str) -> subprocess.CompletedProcess:
        line = [sys.executable, "scripts/new_profile.py", f"{tmp_path}/mine", *words]
        return subprocess.run(
            line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )

    return run


@pytest.fixture
def make_profile(tmp_path):
    """A profile in this process: (choices, folder)."""

    def make(**options):
        folder = tmp_path / "mine"
        choices = choose("mine", folder, ProfileOptions(**options), ROOT)
        write_profile(choices)
        return choices, folder

    return make


def yamls(folder: Path) -> dict[str, dict]:
    return {path.name: yaml.safe_load(path.read_text("utf-8")) for path in folder.glob("*.yaml")}


@pytest.mark.slow
def test_the_command_writes_a_profile_and_says_why(command, model_folder, questions_file, tmp_path):
    done = command(f"base={model_folder('qwen3')}", f"data={questions_file}", "gpus=0")
    assert done.returncode == 0, done.stderr
    for text in (
        "columns: question is 'problem', gold is 'answer'",
        "chat_format: template (the model's own)",
        "data: 3 of 30 questions are kept for the test",
        "sampling: 8 traces for each of 27 questions (num_traces) and 8 answers after each "
        "(num_answers): 216 traces, 1,728 answers",
        f"python scripts/run.py {tmp_path}/mine dry_run=true",
    ):
        assert text in done.stdout


def test_everything_that_will_not_work_is_said_at_once(
    make_profile, model_folder, questions_file, tmp_path
):
    with pytest.raises(ValueError) as caught:
        make_profile(
            base=str(model_folder("qwen3")),
            data=str(questions_file),
            test=str(tmp_path / "none.jsonl"),
            gold="answers",
            chat_format="chat_ml",
            cutoff_len=4096,
        )
    text = str(caught.value)
    for expected in (
        "gold=answers: the data has no such column; it has answer, problem",
        "test: there is no file",
        "chat_format 'chat_ml' is neither one of chatml",
        "cutoff_len=4096 is more than the 2048 tokens",
    ):
        assert expected in text
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([{"a": "x", "b": "y"}], {}, "the data has no column of the question: a, b"),
        ([{"question": "x", "b": "y"}], {}, "the data has nothing to verify an answer against"),
        ([{"question": "x", "answer": "1 #### 2"}], {}, "its texts hold '####'"),
        ([{"question": "x", "gold": "1"}], {"start": "traces"}, "no column of the trace"),
        ([{"question": "x" * 2100, "gold": "1"}], {}, "leave no room for a trace in cutoff_len"),
        ([{"question": " ", "gold": "1"}], {}, "none of the first 1 rows of the data can be used"),
    ],
)
def test_data_that_do_not_fit(make_profile, model_folder, tmp_path, rows, options, expected):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=expected):
        make_profile(base=str(model_folder("qwen3")), data=str(path), **options)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_of_a_large_file_the_first_rows_are_kept(
    make_profile, model_folder, tmp_path, monkeypatch, kind
):
    # 600 questions, each there twice, are read row by row: 500 of the rows are kept.
    rows = [{"problem": f"What is {n % 600}?", "answer": str(n % 600)} for n in range(1200)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)
    alive, most = weakref.WeakSet(), 0

    class Row(dict):
        __hash__ = object.__hash__

    def watched(*arguments):
        nonlocal most
        for row in stream_source(*arguments):
            row = Row(row)
            alive.add(row)
            most = max(most, len(alive))
            yield row

    monkeypatch.setattr(choose_module, "stream_source", watched)
    choices, folder = make_profile(
        base=str(model_folder("qwen3")), data=str(path), gpus=0, test_size=50
    )
    assert most <= FIRST_ROWS + 2
    assert "data: 50 of the questions of 1200 rows are kept for the test" in "".join(
        choices.reasons
    )
    assert choices.num_train == 1100
    written = {}
    for name in ("train", "test"):
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        written[name] = [json.loads(line) for line in lines]
    assert [row for row in rows if row in written["test"]] == written["test"]
    assert [row for row in rows if row not in written["test"]] == written["train"]
    assert len(written["test"]) == 100  # 50 questions, twice each


def test_a_broken_line_after_the_first_rows_is_found(make_profile, model_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"problem": f"What is {n}?", "answer": "1"}) for n in range(600)]
    path.write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    with pytest.raises(ValueError, match="line 601 is not valid JSON"):
        make_profile(base=str(model_folder("qwen3")), data=str(path))
    assert not (tmp_path / "mine").exists()


@pytest.fixture
def write_rows(tmp_path):
    """A file of rows; its path as a word of a command line."""

    def write(name: str, rows: list[dict]) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(rows), encoding="utf-8")
        return str(path)

    return write


QUESTIONS = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(30)]


def test_test_questions_that_are_training_questions(make_profile, model_folder, write_rows):
    options = {
        "base": str(model_folder("qwen3")),
        "data": write_rows("rows.json", QUESTIONS),
        "gpus": 0,
    }
    others = [{"problem": f"What is {n} - 1?", "answer": str(n - 1)} for n in range(5)]
    test = write_rows("some.json", [*QUESTIONS[:2], *others])
    choices, _ = make_profile(test=test, **options)
    (note,) = [note for note in choices.notes if note.startswith("test=")]
    assert note.endswith(
        "2 of its 7 questions are training questions, too; they are left out of the test"
    )
    with pytest.raises(ValueError, match="4 of its 4 questions .* nothing is left to evaluate on"):
        make_profile(test=write_rows("all.json", QUESTIONS[:4]), **options)
    renamed = [{"question": row["problem"], "answer": row["answer"]} for row in others]
    with pytest.raises(ValueError, match="no column 'problem' as the data has; it has answer, qu"):
        make_profile(test=write_rows("renamed.json", renamed), **options)


def test_an_unknown_chat_format_is_said_without_a_model(make_profile, questions_file):
    with pytest.raises(ValueError) as caught:
        make_profile(base="nowhere", data=str(questions_file), chat_format="chat_ml")
    assert "there is no model folder nowhere" in str(caught.value)
    assert str(caught.value).count("chat_format 'chat_ml' is neither") == 1


@pytest.mark.slow
def test_the_next_command_can_be_pasted_where_it_appears(model_folder, questions_file, tmp_path):
    words = ["a folder/mine", f"base={model_folder('qwen3')}", f"data={questions_file}", "gpus=0"]
    script = ROOT / "scripts/new_profile.py"
    done = subprocess.run(
        [sys.executable, str(script), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    python, *command = shlex.split(line)
    assert (python, command) == ("python", [str(ROOT / "scripts/run.py"), "a folder/mine"])
    shown = subprocess.run(
        [sys.executable, *command, "dry_run=true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert shown.returncode == 0, shown.stderr
    assert f"scripts/prepare_data.py '{tmp_path}/a folder/mine/pipeline.yaml'" in shown.stdout


def test_a_family_of_symbols_is_refused_by_name(make_profile, model_folder, questions_file):
    with pytest.raises(
        ValueError, match="family: abstract is of abstract traces, .* copy examples"
    ):
        make_profile(base=str(model_folder("qwen3")), data=str(questions_file), family="abstract")


def test_prompts_are_measured_with_the_hint_that_they_show():
    row = {"question": "3 + 4?", "solution": "7", "trace": "Three and four make seven."}
    lengths = {}
    for name in ("think", "abstract"):
        config = Config(prompt_family=name, posterior_prompt=load_family(name).posteriors[-1])
        lengths[name] = _prompt_length(row, config.renderer, config, list)
        hint = row["trace" if name == "abstract" else "solution"]
        prompt = config.renderer.prompt(config.posterior_prompt, row["question"], hint)
        assert lengths[name] == len(prompt)


def test_a_model_that_does_not_fit_the_machine(make_profile, model_folder, questions_file):
    options = {"base": str(model_folder("qwen3")), "data": str(questions_file), "gpu_gb": 0.3}
    with pytest.raises(ValueError, match=r"do not fit \(full fine-tuning takes .* LoRA") as caught:
        make_profile(**options)
    assert "of 0.3 GB). Give more GPUs or memory or a smaller model" in str(caught.value)
    with pytest.raises(ValueError, match="memory or lora=auto or a smaller cutoff_len"):
        make_profile(**options, lora="false", cutoff_len=512)


def test_a_model_without_any_known_chat_format(
    make_profile, model_folder, questions_file, tmp_path
):
    import shutil

    from tests.pipeline.profiles.conftest import make_tokenizer

    folder = shutil.copytree(model_folder("qwen3"), tmp_path / "other")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    make_tokenizer(("<end>",), "<end>", None).save_pretrained(folder)
    with pytest.raises(ValueError, match="control tokens of none of chatml, llama3"):
        make_profile(base=str(folder), data=str(questions_file))


def test_a_profile_is_not_written_over(make_profile, model_folder, questions_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pipeline.yaml").write_text("run_dir: a\n")
    with pytest.raises(ValueError, match="is there already; remove it or choose another NAME"):
        make_profile(base=str(model_folder("qwen3")), data=str(questions_file), gpus=0)


@pytest.mark.parametrize("lora", ["true", "false"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_files_fit_each_other(make_profile, model_folder, questions_file, lora, gpus):
    choices, folder = make_profile(
        base=str(model_folder("qwen3")), data=str(questions_file), lora=lora, gpus=gpus
    )
    config, files = load_config(folder / "pipeline.yaml"), yamls(folder)
    trainings = {name: values for name, values in files.items() if "_train_" in name}
    assert trainings.keys() == {"2_train_posterior_weighted.yaml", "9_train_final_acc.yaml"}
    outputs = {f"{config.data.name}_{output.name}" for output in config.build.outputs}
    kind = "adapters" if lora == "true" else "models"
    for name, values in trainings.items():
        assert values["dataset"] in outputs
        assert values["dataset_dir"] == f"{config.run_dir}/train"
        assert values["output_dir"].startswith(f"{config.run_dir}/{kind}/")
        for key in ("cutoff_len", "chat_format", "prompt_family"):
            assert values[key] == getattr(config, key), (name, key)
        assert values["model_name_or_path"] == config.base == config.models.reasoner
        assert ("deepspeed" in values) == (lora == "false" and gpus == 8)
    assert ("export.yaml" in files) == (lora == "true")
    assert "boxed" in config.renderer.prompt("reasoner", "What is 1?")


def test_traces_start_with_stages_1_and_2(make_profile, model_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {"question": "What is 1?", "reasoning": "It is one.", "answer": "\\boxed{1}"}
    path.write_text("".join(json.dumps(row | {"question": f"{n}?"}) + "\n" for n in range(9)))
    choices, folder = make_profile(base=str(model_folder("qwen3")), data=str(path), gpus=0)
    assert choices.start == "traces"
    config = load_config(folder / "pipeline.yaml")
    assert config.posterior == "trained" and config.models.reasoner is None
    assert config.data.columns == {"trace": "reasoning", "solution": "answer", "gold": "answer"}
    assert {"1_train_reasoner.yaml", "2_train_posterior.yaml"} <= yamls(folder).keys()


@pytest.mark.slow
def test_questions_of_reasoning_gym(make_profile, model_folder):
    pytest.importorskip("reasoning_gym")
    _, folder = make_profile(
        base=str(model_folder("qwen3")),
        data="reasoning_gym:chain_sum",
        train_size=20,
        test_size=10,
        gpus=0,
    )
    data = load_config(folder / "pipeline.yaml").data
    assert data.train == data.test == "reasoning_gym:chain_sum"
    assert (data.gym.train_size, data.gym.test_size) == (20, 10)


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.parametrize("family", MODELS)
def test_a_profile_of_each_family_runs_to_the_end(
    family,
    make_profile,
    model_folder,
    questions_file,
    tmp_path,
    monkeypatch,
    run_exp,  # noqa: F811
):
    choices, folder = make_profile(
        base=str(model_folder(family)),
        data=str(questions_file),
        gpus=0,
        num_traces=4,
        num_answers=1,
    )
    assert choices.chat_format == MODELS[family][3]
    runner = Runner(monkeypatch, run_exp, max_steps=2)
    is_evaluated = runner.run(
        str(folder),
        f"run={tmp_path}/run",
        # What a random model answers is never right: GML takes its traces by the solution's
        # likelihood instead.
        "build.outputs.0.estimator=gml",
        "sampling.max_trace_tokens=200",
        "sampling.max_answer_tokens=8",
        "sampling.temperature=1",
        "data.max_train_questions=8",
        "data.max_test_questions=2",
        "eval.num_samples=1",
        "eval.max_new_tokens=16",
    )
    assert is_evaluated
    run = tmp_path / "run"
    assert (run / "models/final_acc/model.safetensors").is_file()
    assert json.loads((run / "evals/final_acc/result.json").read_text("utf-8"))
    assert (run / "report.md").is_file()
