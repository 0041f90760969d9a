"""The sections on traces as such: controls of all models, use and information of symbols."""

import json

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.method.steps import LINES
from variational_reasoning.pipeline.rows import Identity, digest_of, write_table
from variational_reasoning.report.controls import symbol_use, trace_use

ABSTRACT = make_renderer("chatml", "abstract").to_record()
VERBAL = make_renderer("chatml").to_record()
PNG = b"\x89PNG"


def write_samples(folder, texts: dict[str, str], settings=ABSTRACT) -> str:
    rows = [
        {"question_id": name, "answer_id": 0, "token_ids": [1], "text": text, "seed": 0}
        | {"finish_reason": "stop"}
        for name, text in texts.items()
    ]
    return digest_of(write_table(folder / "samples", "samples", rows, Identity({}, settings)))


def kind_of(accuracy: float, **more) -> dict:
    bounds = {"accuracy": [accuracy - 0.05, accuracy + 0.05]}
    return {"accuracy": accuracy, "intervals": bounds} | more


def write_controls(run, name: str, digest: str | None = None, **kinds) -> None:
    folder = run / "evals" / name
    own = write_samples(folder, {"q": "x"}, VERBAL)
    result = {"samples": digest or own, "kinds": kinds, "num_questions": 1}
    result |= {"num_without_trace": 0, "num_without_room": 0}
    (folder / "controls.json").write_text(json.dumps(result))


def test_one_table_and_one_plot_over_all_models(tmp_path):
    donor = kind_of(0.15, changed=0.8)
    write_controls(tmp_path, "good", own=kind_of(0.9), donor=donor, none=kind_of(0, unanswered=1.0))
    continued = kind_of(0.1, follows=0.75, keeps=0.05)
    write_controls(tmp_path, "other", own=kind_of(0.2), donor=kind_of(0.2), continued=continued)
    write_controls(tmp_path, "empty")
    section = trace_use([tmp_path])
    [table] = section.tables
    assert table.columns[:5] == ["model", "own", "donor", "continued", "none"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert set(rows) == {"good", "other"}
    assert rows["good"][:4] == [
        "90.0 ± 5.0",
        "15.0 ± 5.0",
        "",
        "0.0 ± 5.0",
    ]
    assert rows["good"][4:] == ["80.0", "100.0", "", ""]
    assert rows["other"][-2:] == ["75.0", "5.0"]
    [picture] = section.pictures
    assert picture.name == "controls" and picture.png.startswith(PNG)
    assert not section.warnings and not section.absent


def test_controls_of_other_samples_are_not_shown(tmp_path):
    write_controls(tmp_path, "old", digest="0" * 64, own=kind_of(0.9))
    section = trace_use([tmp_path])
    assert section.absent and "the controls of old are about other samples" in section.warnings[0]
    assert trace_use([tmp_path / "nothing"]).absent


def test_runs_are_told_apart(tmp_path):
    for seed in ("a", "b"):
        write_controls(tmp_path / seed, "arm", own=kind_of(0.5), donor=kind_of(0.5))
    [table] = trace_use([tmp_path / "a", tmp_path / "b"]).tables
    assert [row[0] for row in table.rows] == ["a/arm", "b/arm"]


def write_first_traces(run, texts: dict[str, str]) -> None:
    rows = []
    for name, text in texts.items():
        row = {"question_id": name, "trace_id": 0, "token_ids": [1], "text": text, "seed": 0}
        row |= {"finish_reason": "stop", "is_well_formed": True, "is_retokenized": False}
        rows.append(row | {"prompt_kind": "clusters", "temperature": 0.0})
    write_table(run / "first_traces/clusters", "traces", rows, Identity({}, ABSTRACT))


def write_questions(run, pattern: str) -> None:
    """Four questions; the first step's value is a or b, the answer 1 or 2."""
    rows, steps = [], []
    for number in range(4):
        name = f"q{number}"
        trace = f"{'ab'[number % 2]}\nx\n"
        row = {"question_id": name, "question": "?", "trace": trace, "source": "", "split": "test"}
        rows.append(row | {"solution": "12"[number // 2], "check": "{}"})
        steps.append({"question_id": name, "step": 0, "text": "", "value": None, "token_ids": [1]})
        steps[-1]["vector"] = [0.0]
    write_table(run / "questions", "questions", rows, Identity({}, {}))
    write_table(run / "steps", "steps", steps, Identity({}, {"steps.pattern": pattern}))


def test_use_and_information_of_symbols(tmp_path):
    a, b = "<TOKEN_A>", "<TOKEN_B>"
    write_questions(tmp_path, r"(?P<value>[abx])\n")
    # The first symbol is the first value; the second is always the same.
    write_first_traces(tmp_path, {"q0": a + a, "q1": b + a, "q2": a + a, "q3": b + a})
    # A model's first symbol is the answer; what follows the end does not count.
    end = "<endabstract>\n"
    texts = {"q0": a + end, "q1": a + end + b, "q2": b + end, "q3": b + end}
    write_samples(tmp_path / "evals/m", texts)
    write_samples(tmp_path / "evals/verbal", {"q0": "words"}, VERBAL)
    round2 = tmp_path / "round2"
    write_first_traces(round2, {"q0": a, "q1": a})
    write_first_traces(tmp_path / "loop/round1", {"q0": a, "q1": b})
    section = symbol_use(tmp_path)
    use, told = section.tables
    assert use.rows == [
        ["first, clusters", "4", "2", "0.81", "2 (2 to 2)", "50.0%"],
        ["evaluation of m", "4", "2", "1.00", "1 (1 to 1)", "50.0%"],
        ["round2, first, clusters", "2", "1", "0.00", "1 (1 to 1)", "50.0%"],
        ["loop/round1, first, clusters", "2", "2", "1.00", "1 (1 to 1)", "100.0%"],
    ]
    rows = {(row[0], row[1]): row[2:] for row in told.rows}
    first = rows["first, clusters", "1"]
    assert (first[0], first[2], first[3], first[5]) == ("1.00", "1.00", "0.00", "1.00")
    assert rows["first, clusters", "2"][0] == "0.00"
    model = rows["evaluation of m", "1"]
    assert (model[0], model[3]) == ("0.00", "1.00")
    assert [picture.name for picture in section.pictures] == [
        "symbols_of_rounds",
        "symbols_of_models",
    ]
    assert all(picture.png.startswith(PNG) for picture in section.pictures)


def test_a_task_without_values_has_the_answer_only(tmp_path):
    write_questions(tmp_path, LINES)
    write_first_traces(tmp_path, {"q0": "<TOKEN_A>", "q2": "<TOKEN_B>"})
    [_, told] = symbol_use(tmp_path).tables
    [row] = told.rows
    assert row[2:5] == ["", "", ""] and row[5] == "1.00"


def test_without_symbols_there_is_nothing(tmp_path):
    assert symbol_use(tmp_path).absent == "There are no traces of symbols."
