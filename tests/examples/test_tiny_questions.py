"""The profile tiny_questions: the task `own terms`, its check of traces, and stages 0, 7 and 8 of its
pipeline.yaml on traces whose fate is known. The models are trained by scripts/run.py, outside the
tests.
"""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline import embedded
from variational_reasoning.pipeline.build.datasets import build_datasets
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.questions.prepare import prepare_data
from variational_reasoning.pipeline.rows import Identity, read_rows, table_digest, write_table
from variational_reasoning.pipeline.verify import verify_answers

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "examples" / "variational_reasoning" / "tiny_questions"


def load(name):
    spec = importlib.util.spec_from_file_location(name, PROFILE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_task, check_trace = load("make_task"), load("check_trace")


@pytest.fixture(scope="module")
def rows():
    return make_task.task_rows(seed=1)


def test_steps_by_hand():
    # modulo 7: 4 + 3 = 0, 5 + 3 = 1; then 0 * 2 = 0, 1 * 2 = 2
    assert make_task.apply("45", "+3") == "01"
    assert make_task.write_trace("45", ["+3", "*2"], ["t012", "t034"]) == (
        "45t012+301t034*202",
        "02",
    )
    assert make_task.write_solution(["+3", "*2"], "02") == "+3*2=02"


def test_rows_follow_their_terms_and_a_solution_ends_with_its_gold(rows):
    train, test = rows["train"], rows["test"]
    sizes = make_task.NUM_EXPERT + make_task.NUM_SOLUTION, make_task.NUM_TEST
    assert (len(train), len(test)) == sizes
    assert len({row["question"] for row in train + test}) == sum(sizes)
    meanings = {}
    for row in train + test:
        terms = check_trace.TERM.findall(row["question"])
        steps = row["solution"].partition("=")[0]
        assert row["solution"].endswith("=" + row["check"]["gold"])
        assert row["trace"].endswith(row["check"]["gold"])
        assert check_trace.why_wrong(row["question"], row["trace"]) == ""
        for place, term in enumerate(terms):
            step = steps[2 * place : 2 * place + 2]
            assert meanings.setdefault(term, step) == step  # one meaning everywhere


def test_a_trace_of_other_terms_is_refused():
    question = "t001t002t003t00445"
    good = "45t001+301t002*202t003+624t004+113"
    assert check_trace.why_wrong(question, good) == ""
    assert check_trace.why_wrong(question, good.replace("t002", "t009")) == (
        "step 2 is of t009, not of t002"
    )
    assert check_trace.why_wrong(question, "45t001+301") == "step 2 is of nothing, not of t002"
    assert check_trace.why_wrong(question, good + "t005+124") == "5 steps, not 4"


@pytest.mark.slow
def test_text_to_ids_to_text_and_lengths(rows):
    tokenizer = embedded.make_tokenizer(make_task.TASK)
    assert len(tokenizer) == len(make_task.TASK.vocabulary) == 217

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    renderer = make_renderer(str(make_task.CHAT_FORMAT))
    row = rows["train"][0]
    for kind in ("reasoner", "posterior_b"):
        prompt, response = renderer.render(kind, row["question"], row["trace"], row["solution"])
        ids = encode(prompt) + renderer.encode_target(response, encode)
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert decoded == prompt + response + renderer.chat_format.end_of_turn
        assert len(ids) <= load_profile().cutoff_len


def load_profile(*words):
    return load_config(PROFILE / "pipeline.yaml", words)


@pytest.fixture
def profile_run(tmp_path, monkeypatch, rows):
    """Stage 0 of the profile on twelve of its questions, three of them with a trace, and its
    configuration.
    """
    monkeypatch.chdir(ROOT)
    source = tmp_path / "train.jsonl"
    some = [dict(row) for row in rows["train"][:12]]
    for row in some[3:]:
        row["trace"] = ""
    source.write_text("".join(json.dumps(row) + "\n" for row in some))
    embedded.make_tokenizer(make_task.TASK).save_pretrained(tmp_path / "base")
    words = [f"run_dir={tmp_path / 'run'}", f"base={tmp_path / 'base'}", "data.test=null"]
    config = load_profile(*words, f"data.train={source}", "verify.workers=1")
    command = f"{sys.executable} {PROFILE / 'check_trace.py'}"
    checked = replace(config.verify, trace_check=command)
    prepare_data(config)
    return replace(config, verify=checked), rows["train"][:12]


@pytest.mark.slow
def test_right_answers_after_traces_of_other_terms_do_not_reach_the_train_file(profile_run):
    config, some = profile_run
    train = pq.read_table(config.folder("train", "tiny_questions_reasoner.parquet")).to_pylist()
    assert [row["question"] for row in train] == [row["question"] for row in some[:3]]
    # trace 0 is the expert's; trace 1 has the right steps next to another term
    texts = {}
    for row in some:
        other = "t000" if "t000" not in row["question"] else "t001"
        term = check_trace.TERM.search(row["question"]).group()
        texts[row["question_id"], 0] = row["trace"]
        texts[row["question_id"], 1] = row["trace"].replace(term, other)
    write_samples(config, texts, {row["question_id"]: row["solution"] for row in some})
    summary = verify_answers(config)
    assert summary.manifest["counts"] == {"correct": 12, "wrong_trace": 12}
    config = replace(config, build=replace(config.build, outputs=[output_of(config)]))
    build_datasets(config)
    built = pq.read_table(config.folder("train", "tiny_questions_final_rft.parquet")).to_pylist()
    # the expert's traces of all twelve; those of the three originals are one row with them
    assert {row["source"] for row in built} == {0}
    assert [row["weight"] for row in built] == [2.0] * 3 + [1.0] * 9


def output_of(config):
    """The arm of rejection sampling, as if its traces were the posterior's."""
    [output] = [output for output in config.build.outputs if output.name == "final_rft"]
    return replace(output, traces_from="posterior")


def write_samples(config, texts, solutions):
    """Traces and one answer after each, as stages 3 and 6 would leave them."""
    tokenizer = embedded.make_tokenizer(make_task.TASK)
    renderer = config.renderer
    keys = [dict(zip(("question_id", "trace_id"), key, strict=True)) for key in texts]

    def sample(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"token_ids": ids, "finish_reason": "stop", "seed": 0}

    flags = {"is_well_formed": True, "is_retokenized": False, "temperature": 1.0}
    traces = [
        key
        | sample(text + renderer.boundary)
        | flags
        | {"text": text, "prompt_kind": "posterior_b"}
        for key, text in zip(keys, texts.values(), strict=True)
    ]
    questions = table_digest(config.folder("questions"), "questions")
    identity = Identity({"questions": questions}, {})
    write_table(config.folder("traces"), "traces", traces, identity)
    answers = []
    for key in keys:
        solution = solutions[key["question_id"]]
        text = renderer.answer_lead + solution + renderer.answer_close
        answers.append(key | sample(text) | {"answer_id": 0, "text": text})
    digest = table_digest(config.folder("traces"), "traces")
    inputs = {"questions": questions, "traces": digest}
    write_table(config.folder("answers"), "answers", answers, Identity(inputs, {}))
    assert len(read_rows(config.folder("answers"), "answers")) == len(texts)


def test_bad_arguments_are_refused_together():
    with pytest.raises(SystemExit) as refused:
        make_task.main(["sead=1", "seed=-1"])
    assert "unknown key 'sead'" in str(refused.value) and "not '-1'" in str(refused.value)
