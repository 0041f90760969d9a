"""Stages 3 and 6 with real tiny models: seeds, stopping, boundaries, resume, refusals."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import make_bpe_tokenizer, make_model_dir, record_of
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.questions import hints as hints_module
from variational_reasoning.pipeline.questions.hints import Hints, hints_of_others
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import SUMMARY
from variational_reasoning.pipeline.rows import Identity, read_manifest, read_rows, write_table
from variational_reasoning.pipeline.sample import sample_answers, sample_seed, sample_traces
from variational_reasoning.pipeline.score import score_traces
from variational_reasoning.pipeline.work.summary import describe_table

ROOT = Path(__file__).parents[2]


CHATML = make_renderer("chatml")


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.parquet"))}


def well_formed_traces(config, num_traces: int = 2) -> None:
    """A traces table that no random model would write: closed by the boundary, two equal traces per
    question.
    """
    tokenizer = load_tokenizer(config.model_folder("reasoner"))
    from variational_reasoning.pipeline.engines.fitting import vocabulary_digest

    ids = tokenizer.encode("It is 7.<|end_of", add_special_tokens=False)
    rows = [
        {
            "question_id": row["question_id"],
            "trace_id": k,
            "token_ids": ids,
            "text": "It is 7.",
            "finish_reason": "stop",
        }
        | {
            "is_well_formed": k < num_traces,
            "is_retokenized": False,
            "seed": k,
            "prompt_kind": "posterior_b",
        }
        | {"temperature": 1.0}
        for row in read_rows(config.folder("questions"), "questions")
        for k in range(num_traces + 1)
    ]
    write_table(
        config.folder("traces"),
        "traces",
        rows,
        Identity({}, {}),
        vocabulary=vocabulary_digest(tokenizer),
    )


def test_traces_have_ids_seeds_and_counts(make_run):
    config = load_config(make_run())
    summary = sample_traces(config)
    rows = read_rows(config.folder("traces"), "traces")
    assert [(row["question_id"], row["trace_id"]) for row in rows] == [
        (f"q{i:03d}", k) for i in range(6) for k in range(3)
    ]
    assert len({row["seed"] for row in rows}) == 18
    assert all(row["seed"] == sample_seed(0, row["question_id"], row["trace_id"]) for row in rows)
    assert all(len(row["token_ids"]) <= 12 for row in rows if not row["is_retokenized"])
    assert all(row["token_ids"] and row["prompt_kind"] == "posterior_b" for row in rows)
    counts = summary.manifest["counts"]
    assert counts["stop"] + counts["length"] == 18 if "stop" in counts else counts["length"] == 18
    assert counts["malformed"] == sum(not row["is_well_formed"] for row in rows)
    assert "tokens/s" in describe_table(summary)
    assert (config.folder("traces") / SUMMARY).is_file()  # for all processes of the next stage
    encode, _ = text_codec(load_tokenizer(str(config.model_folder("reasoner"))))
    for row in rows:
        ids = encode(row["text"] + CHATML.boundary) if row["is_well_formed"] else None
        assert row["trained_tokens"] == (None if ids is None else len(ids))
        assert row["is_trained_as_sampled"] == (None if ids is None else ids == row["token_ids"])


def test_samples_of_one_question_and_first_samples_of_questions_are_no_copies(make_run):
    config = load_config(make_run())
    sample_traces(config)
    rows = read_rows(config.folder("traces"), "traces")
    assert len({tuple(row["token_ids"]) for row in rows}) == 18


def test_a_finished_stage_has_nothing_to_do_and_another_one_is_refused(make_run):
    path = make_run()
    sample_traces(load_config(path))
    before = shard_bytes(load_config(path).folder("traces"))
    assert "nothing to do" in describe_table(sample_traces(load_config(path)))
    with pytest.raises(ValueError, match=r"config\.sampling\.temperature: there 1\.0, now 0\.5"):
        sample_traces(load_config(path, ["sampling.temperature=0.5"]))
    with pytest.raises(ValueError, match=r"seed: there 0, now 1"):
        sample_traces(load_config(path, ["seed=1"]))
    assert shard_bytes(load_config(path).folder("traces")) == before


def test_prompts_that_do_not_fit_are_dropped_with_their_reason(make_run):
    path = make_run(num_questions=3)
    config = load_config(path)
    encode, _ = text_codec(load_tokenizer(config.model_folder("posterior")))
    rows = read_rows(config.folder("questions"), "questions")
    lengths = [
        len(encode(make_renderer("chatml").prompt("posterior_b", r["question"], r["solution"])))
        for r in rows
    ]
    # q001 is the longest prompt: cutoff_len equals its length, so there is no room for one token
    assert lengths[1] > max(lengths[0], lengths[2])
    config = load_config(path, [f"cutoff_len={lengths[1]}"])
    summary = sample_traces(config)
    assert summary.manifest["dropped"] == [
        {
            "question_id": "q001",
            "reason": f"no room in cutoff_len {lengths[1]}",
            "tokens": lengths[1],
        }
    ]
    traces = read_rows(config.folder("traces"), "traces")
    assert {row["question_id"] for row in traces} == {"q000", "q002"}
    # 'And 1 + 1?' is the shorter question but has the longer solution; the others get the room that
    # is left
    assert all(
        len(row["token_ids"]) <= lengths[1] - lengths[0]
        for row in traces
        if row["question_id"] == "q000" and not row["is_retokenized"]
    )
    assert "3" in describe_table(summary) and "no room" in describe_table(summary)


def test_a_table_without_any_row_is_an_error(make_run):
    with pytest.raises(ValueError, match="would have no row"):
        sample_traces(load_config(make_run(cutoff_len=10)))


def test_traces_that_are_all_malformed_are_shown_before_a_model_is_loaded(make_run):
    config = load_config(make_run(), ["sampling.max_trace_tokens=1"])
    sample_traces(config)
    first = read_rows(config.folder("traces"), "traces")[0]["text"]
    for stage in (sample_answers, lambda c: score_traces(c, "reasoner")):
        with pytest.raises(ValueError) as caught:
            stage(config)
        text = str(caught.value)
        assert "none of the 18 traces is well formed: 18 were cut by" in text
        assert "sampling.max_trace_tokens (1)" in text and repr(first[:200]) in text
        assert "docs/own_questions.md" in text


def test_a_posterior_of_another_prompt_is_refused_by_name(make_run):
    path = make_run()
    with pytest.raises(
        ValueError, match="trained on the prompt 'posterior_b', but would be given 'posterior_a'"
    ):
        sample_traces(load_config(path, ["posterior_prompt=posterior_a"]))
    with pytest.raises(ValueError, match="its chat format was"):
        sample_traces(load_config(path, ["chat_format=llama3"]))
    assert not (load_config(path).folder("traces")).exists()


def test_a_model_without_a_record_needs_a_setting(make_run):
    path = make_run()
    config = load_config(path)
    record = config.model_folder("posterior") / "variational_reasoning.json"
    record.write_text(json.dumps(record_of("posterior_b") | {"prompt_kind": None}))
    with pytest.raises(ValueError, match="does not say the model's prompt_kind, so nothing"):
        sample_traces(config)
    record.unlink()
    with pytest.raises(ValueError, match=r"models\.allow_unrecorded: true"):
        sample_traces(config)
    sample_traces(load_config(path, ["models.allow_unrecorded=true"]))


def test_a_missing_model_is_refused_before_anything_is_written(make_run):
    config = load_config(make_run(), ["models.posterior=nowhere/at/all"])
    with pytest.raises(ValueError, match="nowhere/at/all does not exist"):
        sample_traces(config)
    assert not config.folder("traces").exists()


def test_answers_continue_well_formed_traces_only_and_equal_traces_get_their_own(make_run):
    config = load_config(make_run())
    well_formed_traces(config)
    summary = sample_answers(config)
    rows = read_rows(config.folder("answers"), "answers")
    keys = [(row["question_id"], row["trace_id"], row["answer_id"]) for row in rows]
    assert keys == [(f"q{i:03d}", k, m) for i in range(6) for k in range(2) for m in range(2)]
    assert len({row["seed"] for row in rows}) == 24
    assert summary.manifest["counts"]["malformed"] == 6
    assert len({tuple(row["token_ids"]) for row in rows if row["question_id"] == "q000"}) == 4
    # both samples of both equal traces of a question share one prompt, and all prompts of a shard
    # the system prompt
    computed, shared = (
        summary.sampled["prompt_tokens_computed"],
        summary.sampled["prompt_tokens_shared"],
    )
    assert shared > 6 * computed


def test_answers_refuse_a_tokenizer_that_is_not_the_one_of_the_traces(make_run):
    config = load_config(make_run())
    well_formed_traces(config)
    other = make_bpe_tokenizer(vocabulary=330)
    make_model_dir(config.model_folder("reasoner"), other, record=record_of("reasoner"))
    with pytest.raises(ValueError, match="must start from one base model"):
        sample_answers(config)


def test_traces_may_come_from_the_reasoner(make_run):
    config = load_config(make_run(num_questions=2), ["sampling.traces_from=reasoner"])
    sample_traces(config)
    assert {row["prompt_kind"] for row in read_rows(config.folder("traces"), "traces")} == {
        "reasoner"
    }


def rewritten_questions(config, **changed):
    """The run's questions with other columns; a value may be a function of the row."""
    rows = read_rows(config.folder("questions"), "questions")
    for row in rows:
        for name, value in changed.items():
            row[name] = value(row) if callable(value) else value
    shutil.rmtree(config.folder("questions"))
    write_table(config.folder("questions"), "questions", rows, Identity({"made": "here"}, {}))


def test_a_prompted_posterior_samples_and_scores_with_the_reasoner(make_run):
    path = make_run(num_questions=2)
    config = load_config(path, ["posterior=prompted"])
    shutil.rmtree(config.folder("models/posterior"))
    well_formed_traces(config)
    assert config.model_folder("posterior") == config.model_folder("reasoner")
    scored = {}
    for name in ("reasoner", "posterior"):
        score_traces(config, name)
        rows = read_rows(config.folder("trace_logps", name), "trace_logps")
        scored[name] = [row["trace_logp"] for row in rows]
        manifest = read_manifest(config.folder("trace_logps", name), "trace_logps")
        assert manifest["model"] == model_identity(config.model_folder("reasoner"))
    assert scored["reasoner"] != scored["posterior"]  # the hint is in one prompt only


def test_copies_are_counted_where_the_data_have_traces_only(make_run):
    config = load_config(make_run(num_questions=2))
    rewritten_questions(config, trace="")
    counts = sample_traces(config).manifest["counts"]
    assert "copies_of_training_trace" not in counts and counts["tokens"] > 0


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("answer", ["7", "2"]),
        ("other_question", [r"The sum is \boxed{2}.", r"\boxed{7}"]),
        ("none", ["", ""]),
    ],
)
def test_hints_of_the_posteriors_prompt(make_run, hint, expected):
    path = make_run(num_questions=2)
    config = load_config(path, [f"sampling.hint={hint}"])
    rewritten_questions(config, check=lambda row: json.dumps({"kind": "math", "gold": "7"}))
    reader, ids = training_questions(config)
    hints = Hints(config, "posterior_b", reader, ids)
    rows = reader.rows_of(ids, hints_module.COLUMNS)
    assert [hints.of(rows[name][0]) for name in ids] == expected
    assert Hints(config, "reasoner", reader, ids).of(rows[ids[0]][0]) is None
    sample_traces(config)
    assert config.folder("traces").parent.name == f"hint_{hint}"
    manifest = read_manifest(config.folder("traces"), "traces")
    assert manifest["config"]["sampling.hint"] == hint
    reference = load_config(path)
    sample_traces(reference)
    assert "sampling.hint" not in read_manifest(reference.folder("traces"), "traces")["config"]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("reference", ["First, 3 + 4 = 7.", "It is 2, surely."]),
        ("answer", ["7", "7"]),
        ("other_question", ["It is 2, surely.", "First, 3 + 4 = 7."]),
        ("none", ["", ""]),
    ],
)
def test_hints_in_place_of_a_verbal_chain(make_run, hint, expected):
    """The posterior of abstract traces sees the chain; its controls are put where that is."""
    path = make_run(num_questions=2, prompt_family="abstract")
    config = load_config(path, [f"sampling.hint={hint}"])
    check = json.dumps({"kind": "exact", "gold": "7"})
    rewritten_questions(config, check=lambda row: check)
    reader, ids = training_questions(config)
    hints = Hints(config, "abstract_posterior", reader, ids)
    rows = reader.rows_of(ids, hints_module.COLUMNS)
    found = [hints.of(rows[name][0]) for name in ids]
    assert found == expected
    prompt = config.renderer.prompt_parts("abstract_posterior", "3 + 4?", found[0])
    plain = config.renderer.prompt_parts("reasoner", "3 + 4?")
    assert prompt == plain._replace(chain=found[0])


def test_a_question_without_a_text_for_the_hint_is_left_out_with_its_reason(make_run):
    config = load_config(make_run(num_questions=2), ["sampling.hint=answer"])
    rewritten_questions(
        config,
        solution=lambda row: r"\boxed{7}" if row["question_id"] == "q000" else "",
        check=json.dumps({"kind": "none"}),
    )
    manifest = sample_traces(config).manifest
    assert manifest["dropped"] == [
        {"question_id": "q001", "reason": "no text for the hint (answer)", "tokens": 0}
    ]
    assert {row["question_id"] for row in read_rows(config.folder("traces"), "traces")} == {"q000"}


def test_the_solution_of_another_question_by_hand():
    solutions = {"a": "1", "b": "2", "c": "1", "d": ""}
    others = hints_of_others(solutions, seed=0)
    assert others == {"a": "2", "b": "1", "c": "2"}  # d has none to give and gets none
    assert hints_of_others({"a": "1", "b": "1"}, seed=0) == {}
    many = {f"q{i}": str(i) for i in range(50)}
    given = hints_of_others(many, seed=3)
    assert sorted(given.values()) == sorted(many.values())  # each is given once
    assert given != hints_of_others(many, seed=4)


def test_vllm_that_is_not_installed_is_an_error_with_the_install_command(make_run):
    pytest.importorskip("transformers")
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[vllm\]'"):
            sample_traces(load_config(make_run(), ["sampling.engine=vllm"]))


@pytest.mark.slow
def test_the_command_prints_a_summary_and_refuses_without_a_traceback(make_run):
    path = make_run(num_questions=2)
    command = [sys.executable, "scripts/sample_traces.py", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "6 rows in 1 shards" in done.stdout
    refused = subprocess.run(
        [*command, "sampling.num_trace=3"], cwd=ROOT, capture_output=True, text=True
    )
    assert (
        refused.returncode == 2
        and "sampling.num_traces" in refused.stderr
        and "Traceback" not in refused.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_a_random_point_and_resumed_gives_the_same_bytes(make_run, attempt):
    settings = {"sampling": {"questions_per_shard": 1, "max_trace_tokens": 30}}
    undisturbed = load_config(make_run(num_questions=12, name="undisturbed", **settings))
    sample_traces(undisturbed)
    wanted = shard_bytes(undisturbed.folder("traces"))

    path = make_run(num_questions=12, name="killed", **settings)
    folder = load_config(path).folder("traces")
    delay = random.Random(attempt).uniform(0.0, 0.6)
    process = subprocess.Popen(
        [sys.executable, "scripts/sample_traces.py", str(path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not any(folder.glob("shard-*.parquet")):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = shard_bytes(folder)
    assert found.items() <= wanted.items() and found
    summary = sample_traces(load_config(path))
    assert shard_bytes(folder) == wanted
    if len(found) < len(wanted):
        assert summary.manifest["shards_found_finished"] == len(found)
    assert read_manifest(folder, "traces")["rows"] == 36
    assert json.loads((folder / "manifest.json").read_text())["counts"]["tokens"] > 0
