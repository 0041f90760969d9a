"""Kinds of hint side by side, on small tables with figures by hand."""

import json
import random
import re

import pytest
from tests.report.tables import write_traces

from variational_reasoning.pipeline.rows import Identity, write_table
from variational_reasoning.report import diagnostics
from variational_reasoning.report.hints import (
    BACKTRACKING,
    UNCERTAINTY,
    read_hints,
    word_shares,
)

QUESTIONS = {"q0": "made", "q1": "made"}


def test_words_of_doubt_and_of_turning_back():
    # 8 words: maybe, "not sure"; wait
    shares = word_shares(["Wait, maybe it is 7,", "not sure. await"])
    assert (shares.uncertainty, shares.backtracking) == (250.0, 125.0)
    assert word_shares([]) == (0.0, 0.0)


def test_words_are_counted_as_python_splits_and_searches():
    draw = random.Random(0)
    pieces = [*UNCERTAINTY, *BACKTRACKING, "x", "Wait", "MAYBE", "é", "7", "not", "let", "ß", "É"]
    gaps = [" ", "", ", ", "\n", "\x1c", "\u2003", "-", "_", "'"]
    texts = []
    for _ in range(600):  # more than are counted at once
        parts = [draw.choice(pieces) + draw.choice(gaps) for _ in range(draw.randrange(12))]
        texts.append("".join(parts))
    expected = []
    for words in (UNCERTAINTY, BACKTRACKING):
        longest_first = sorted(words, key=len, reverse=True)
        pattern = re.compile(r"\b(?:" + "|".join(longest_first) + r")\b")
        found = sum(len(pattern.findall(text.lower())) for text in texts)
        expected.append(1000 * found / sum(len(text.lower().split()) for text in texts))
    assert list(word_shares(texts)) == pytest.approx(expected, rel=1e-12)


def test_each_kind_has_its_own_row(tmp_path):
    right, wrong = {"verdicts": ("correct", "correct")}, {"verdicts": ("wrong", "correct")}
    traces = {
        ("q0", 0): right | {"logps": (-2.0, -2.0), "text": "7, wait, maybe"},
        ("q0", 1): right | {"logps": (-2.0, -2.0)},
        ("q1", 0): wrong | {"logps": (-3.0, -3.0)},
        ("q1", 1): {"logps": (-3.0, -3.0), "verdicts": ("wrong_trace", "wrong")},
    }
    write_traces(tmp_path, QUESTIONS, traces)
    none = {key: {"verdicts": ("wrong", "wrong")} for key in traces}
    write_traces(tmp_path / "hint_none", QUESTIONS, none)
    own = {("q0", 0): right, ("q1", 0): {"verdicts": ("wrong", "wrong")}}
    write_traces(tmp_path / "from_reasoner", QUESTIONS, own)
    found = read_hints(tmp_path)
    assert list(found) == ["reference", "none", "the reasoner"]
    assert [kind.coverage for kind in found.values()] == [1.0, 0.0, 0.5]
    # 4 of 4 answers to q0 and 1 of 4 to q1
    assert found["reference"].accuracy == (1 + 0.25) / 2
    # equal rho of both traces of q0; one trace with a right answer of q1
    assert found["reference"].sizes == ((2 + 1) / 2, (0.5 + 1) / 2)
    assert found["none"].sizes is None
    section = diagnostics.hint_kinds(tmp_path)
    rows = {row[0]: row[1:] for row in section.tables[0].rows}
    assert rows["the reasoner"][:4] == ["50.0%", "50.0%", "not measured", "not measured"]
    assert rows["reference"][5] == "25.0%"  # "7, wait, maybe" of four traces
    assert diagnostics.hint_kinds(tmp_path / "nowhere").absent


def test_refused_traces_and_early_gains(tmp_path):
    traces = {("q0", 0): {"verdicts": ("wrong_trace", "correct")}}
    write_traces(tmp_path, {"q0": "made"}, traces)
    scored = {
        "question_id": "q0",
        "trace_id": 0,
        "trace_logp": -1.0,
        "trace_tokens": 4,
        "answer_logp": -1.0,
        "answer_tokens": 2,
        "temperature": 1.0,
        "early_answer_logp": -2.0,
        "bare_answer_logp": -5.0,
    }
    identity = Identity({}, {"scoring.early_tokens": 4})
    write_table(tmp_path / "trace_logps/reasoner", "trace_logps", [scored], identity)
    path = tmp_path / "verdicts/manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"counts": {"wrong_trace": 1, "correct": 1}}))
    kind = read_hints(tmp_path)["reference"]
    assert (kind.num_refused, kind.num_right) == (1, 2)
    assert kind.early_gains.tolist() == [3.0]
    [row] = diagnostics.hint_kinds(tmp_path).tables[0].rows
    assert row[5] == "50.0%" and row[7] == "+3.00"


@pytest.mark.parametrize("kind", ["from_reasoner", "hint_answer"])
def test_a_table_inside_a_run_belongs_to_its_questions(tmp_path, kind):
    write_traces(tmp_path, QUESTIONS, {("q0", 0): {}})
    write_traces(tmp_path / kind, QUESTIONS, {("q1", 0): {"verdicts": ("correct", "wrong")}})
    name = {"from_reasoner": "the reasoner", "hint_answer": "answer"}[kind]
    assert read_hints(tmp_path)[name].terms.question_ids == ["q0", "q1"]
