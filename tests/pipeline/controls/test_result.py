"""From traces to controls.json: the three tables, what is refused, and the figures by hand."""

import json
import shutil
import sys

import pytest

from variational_reasoning.method.evaluation import bootstrap_columns
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.controls.describe import (
    control_cells,
    describe_controls,
    verdict,
)
from variational_reasoning.pipeline.controls.result import (
    CONTROLS,
    figures_of,
    read_controls,
    run_controls,
)
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import Identity, read_rows, write_table

IMPLIED = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    assert set(row) == {"question_id", "question", "trace", "check", "control"}
    answer = None if row["control"] == "none" else "\\\\boxed{7}"
    print(json.dumps({"answer": answer}))
"""


@pytest.fixture
def evaluated(tiny_model_dir, make_run, tmp_path):
    """A function that gives a benchmark of four questions with samples, and a random model."""
    command = tmp_path / "implied.py"
    command.write_text(IMPLIED)

    def make(*words: str) -> tuple[Benchmark, Model]:
        config = load_config(
            make_run(num_questions=4, name=f"run{len(list(tmp_path.iterdir()))}"),
            [
                "eval.temperature=1.0",
                "eval.max_new_tokens=4",
                "eval.answers_per_shard=16",
                f"eval.controls.implied_answer={sys.executable} {command}",
                *words,
            ],
        )
        columns = ["question_id", "question", "check", "trace"]
        questions = read_rows(config.folder("questions"), "questions", columns)
        folder = config.folder("evals", "m")
        model = Model("m", tiny_model_dir, config.renderer, config)
        encode, decode = text_codec(load_tokenizer(str(tiny_model_dir)))
        samples = []
        for number, row in enumerate(questions):
            for k in range(2):
                ids = [*range(30 + number, 34 + number), *encode("<|end_of_thought|>")]
                sample = {"question_id": row["question_id"], "answer_id": k, "token_ids": ids}
                sample |= {"text": decode(ids), "finish_reason": "stop", "seed": k}
                samples.append(sample)
        # One sample has no closed trace.
        samples[-1] |= {"token_ids": [30, 31]}
        write_table(folder / "samples", "samples", samples, Identity({"made": "here"}, {}))
        return Benchmark("", folder, questions, num_samples=2), model

    return make


def files_of(folder) -> dict[str, bytes]:
    paths = [folder / CONTROLS, *folder.glob("controls/**/shard-*.parquet")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_killed_command_goes_on_with_the_same_bytes(evaluated):
    benchmark, model = evaluated()
    result = run_controls(benchmark, model)
    folder = benchmark.folder
    assert result == json.loads((folder / CONTROLS).read_text()) == read_controls(folder)
    assert result["num_questions"] == 4 and result["num_answers"] == 7
    assert result["num_without_trace"] == 1
    # The upper bound is the question's own chain; it is the last of all kinds.
    assert list(result["kinds"])[-1] == "chain"
    assert result["kinds"]["own"]["num_answers"] == 7
    assert result["kinds"]["own"]["difference"] == result["kinds"]["own"]["changed"] == 0
    # Nothing is known of the answer that no trace implies.
    assert "follows" not in result["kinds"]["none"] and "follows" in result["kinds"]["donor"]
    before = files_of(folder)
    assert len(before) > 4
    # Killed before the second shard, in the answers and in the verdicts.
    for table in (folder / "controls", folder / "controls/verdicts"):
        (table / "manifest.json").unlink()
        (table / "shard-00001.parquet").unlink()
    (folder / CONTROLS).unlink()
    again = Model("m", model.folder, model.renderer, model.config)
    assert run_controls(benchmark, again) == result
    assert files_of(folder) == before
    # Done: no model is loaded.
    idle = Model("m", model.folder, model.renderer, model.config)
    assert run_controls(benchmark, idle) == result and "engine" not in vars(idle)


def test_the_controls_of_another_evaluation_are_refused(evaluated):
    benchmark, model = evaluated("eval.controls.implied_answer=null")
    run_controls(benchmark, model)
    folder = benchmark.folder
    rows = read_rows(folder / "samples", "samples")
    shutil.rmtree(folder / "samples")
    rows[0]["token_ids"] = [50, 51, *rows[0]["token_ids"][1:]]
    write_table(folder / "samples", "samples", rows, Identity({"made": "again"}, {}))
    # The report does not show figures of other samples.
    assert read_controls(folder) is None
    with pytest.raises(ValueError, match=r"inputs\.samples: .*\n.*where .*controls is removed"):
        run_controls(benchmark, model)
    shutil.rmtree(folder / "controls")
    run_controls(benchmark, model)
    assert read_controls(folder) is not None


def test_a_new_command_needs_new_verdicts_only(evaluated):
    benchmark, model = evaluated("eval.controls.implied_answer=null")
    run_controls(benchmark, model)
    other = load_config_with(model, "eval.controls.implied_answer=cat")
    with pytest.raises(ValueError, match=r"verdicts is removed; the answers stay"):
        run_controls(benchmark, Model("m", model.folder, model.renderer, other))


def load_config_with(model, word):
    path = next(model.config.folder().parent.glob(f"{model.config.folder().name}.yaml"))
    words = ["eval.temperature=1.0", "eval.max_new_tokens=4", "eval.answers_per_shard=16", word]
    return load_config(path, words)


def test_without_traces_there_is_nothing_to_exchange(evaluated):
    benchmark, model = evaluated()
    rows = read_rows(benchmark.folder / "samples", "samples")
    shutil.rmtree(benchmark.folder / "samples")
    for row in rows:
        row["token_ids"] = [30, 31]
    write_table(benchmark.folder / "samples", "samples", rows, Identity({}, {}))
    result = run_controls(benchmark, model)
    assert result["kinds"] == {} and result["num_without_trace"] == 8
    text = describe_controls("m", result)
    assert "8 samples without a closed trace" in text and "nothing to exchange" in text


def test_a_single_trace_cannot_be_exchanged(evaluated):
    benchmark, model = evaluated()
    rows = read_rows(benchmark.folder / "samples", "samples")
    shutil.rmtree(benchmark.folder / "samples")
    for row in rows[2:]:
        row["token_ids"] = [30, 31]
    write_table(benchmark.folder / "samples", "samples", rows, Identity({}, {}))
    result = run_controls(benchmark, model)
    assert result["kinds"] == {}
    assert (result["num_questions"], result["num_without_trace"]) == (1, 6)


def test_the_figures_by_hand(tmp_path, make_run):
    """Two questions; a has two samples. Donor: a0 right as before, a1 wrong and changed, b0 follows
    its new trace.
    """
    renderer = load_config(make_run()).renderer
    right, wrong = ("correct", "wrong")
    own = {("a", 0): right, ("a", 1): right, ("b", 0): right}
    donor = {("a", 0): right, ("a", 1): wrong, ("b", 0): wrong}
    closed = "_of_thought|>\n\n<|begin_of_solution|>\n\n7<|end_of_solution|>"
    answers, verdicts = [], []
    for kind, found in (("own", own), ("donor", donor)):
        for (name, k), word in found.items():
            ids = {"question_id": name, "answer_id": k, "control": kind}
            tokens = {"trace_ids": [1, 2, 3], "num_symbols": 2, "token_ids": [4, 5], "given": ""}
            text = "cut" if (kind, k) == ("donor", 1) else closed
            answers.append(ids | tokens | {"text": text, "finish_reason": "stop", "seed": 1})
            implied = {"implied": "7", "fits_implied": word == wrong and name == "b"}
            implied["own_fits_implied"] = kind == "own" or (name, k) == ("a", 1)
            is_own = word == right
            verdicts.append(ids | {"verdict": word, "reason": "", "is_own": is_own} | implied)
    write_table(tmp_path / "controls", "controls", answers, Identity({}, {}))
    write_table(tmp_path / "controls/verdicts", "control_verdicts", verdicts, Identity({}, {}))
    figures = figures_of(tmp_path, renderer)["donor"]
    # Per question: a has 1/2, b has 0.
    assert figures["accuracy"] == figures["difference"] + 1 == 1 / 4
    assert figures["changed"] == (1 / 2 + 1) / 2
    assert figures["unanswered"] == 1 / 4  # a1 is not closed
    assert figures["symbols"] == figures["answer_tokens"] == 2
    assert figures["total_tokens"] == 5  # with the boundary
    assert figures["num_questions"] == 2 and figures["num_answers"] == 3
    # a1 is left out: its trace implies the answer that it had before. a0 keeps, b0 follows.
    assert figures["num_told"] == 2
    assert (figures["follows"], figures["keeps"], figures["neither"]) == (0.5, 0.5, 0.0)
    [interval] = bootstrap_columns([[0.5], [0.0]])
    assert figures["intervals"]["accuracy"] == [interval.low, interval.high]


def test_a_solution_that_goes_on_with_a_trace_is_not_an_answer(tmp_path, make_run):
    renderer = load_config(make_run(prompt_family="abstract")).renderer
    answers, verdicts = [], []
    for name, text in (("a", "\n<TOKEN_A><endabstract>\n7<|im_end|>"), ("b", "\n7<|im_end|>")):
        ids = {"question_id": name, "answer_id": 0, "control": "own"}
        tokens = {"trace_ids": [], "num_symbols": 0, "token_ids": [1], "text": text, "given": ""}
        answers.append(ids | tokens | {"finish_reason": "stop", "seed": 1})
        found = {"verdict": "wrong", "reason": "", "is_own": True, "implied": None}
        verdicts.append(ids | found | {"fits_implied": None, "own_fits_implied": None})
    write_table(tmp_path / "controls", "controls", answers, Identity({}, {}))
    write_table(tmp_path / "controls/verdicts", "control_verdicts", verdicts, Identity({}, {}))
    assert figures_of(tmp_path, renderer)["own"]["unanswered"] == 1 / 2


def kind_of(accuracy, difference=0.0, low=0.0, high=0.0, **more):
    names = ("changed", "unanswered", "symbols", "answer_tokens", "total_tokens")
    figures = dict.fromkeys(names, 0.0) | {"accuracy": accuracy, "difference": difference}
    intervals = {name: [value, value] for name, value in figures.items()}
    intervals["difference"] = [low, high]
    return figures | {"intervals": intervals} | more


def test_the_tables_say_what_is_left():
    donor = kind_of(0.125, -0.775, -0.8, -0.75, follows=1.0, keeps=0.0, neither=0.0, num_told=6)
    result = {"num_questions": 8, "num_without_trace": 2, "num_without_room": 1}
    result["kinds"] = {"own": kind_of(0.9), "donor": donor}
    lines = describe_controls("m", result).splitlines()
    assert lines[0] == (
        "m: 8 questions, 2 samples without a closed trace, 1 without room for an answer"
    )
    assert lines[4] == "| own | 90.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |"
    assert lines[5].startswith("| donor | 12.5 | -77.5 (-80.0 to -75.0) | 0.0 |")
    assert "| donor | 6 | 100.0 | 0.0 | 0.0 |" in lines
    assert lines[-1].startswith("The model uses its trace: with another question's")


def test_kinds_have_one_order_whatever_the_file_has():
    kinds = {name: kind_of(0.5) for name in ("chain", "donor", "own")}
    assert [row[0] for row in control_cells({"kinds": kinds}).rows] == ["own", "donor", "chain"]


def test_no_difference_is_not_called_use():
    result = {"kinds": {"donor": kind_of(0.5, 0.01, -0.02, 0.04)}}
    assert verdict(result).startswith("Nothing shows that the model's accuracy depends")


def test_controls_of_an_earlier_release_are_read(tmp_path):
    """They had neither intervals nor lengths."""
    from variational_reasoning.pipeline.rows import digest_of

    row = {"question_id": "q", "answer_id": 0, "token_ids": [1], "text": "", "seed": 0}
    row["finish_reason"] = "stop"
    manifest = write_table(tmp_path / "samples", "samples", [row], Identity({}, {}))
    own = {"accuracy": 0.9, "standard_error": 0.01, "changed": 0.0, "unanswered": 0.02}
    old = {"identity": {"samples": digest_of(manifest)}, "kinds": {"own": own}}
    old |= {"num_questions": 8, "num_without_trace": 2, "num_without_room": 1}
    (tmp_path / CONTROLS).write_text(json.dumps(old))
    found = read_controls(tmp_path)
    assert "| own | 90.0 |  | 0.0 | 2.0 |  |  |  |" in describe_controls("m", found)
