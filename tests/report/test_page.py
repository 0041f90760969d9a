"""The page as a whole: what it shows, what it names as absent, and that it needs nothing but
itself.
"""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.report.tables import write_traces

from variational_reasoning.pipeline.work.timings import record
from variational_reasoning.report.figures import (
    plot_leakage,
    plot_sources,
    plot_weights,
    running_median,
)
from variational_reasoning.report.leakage import Leakage
from variational_reasoning.report.page import Part, Section, Table, to_html, to_markdown
from variational_reasoning.report.report import write_report
from variational_reasoning.report.training import curves_of, read_trainings


class Page(HTMLParser):
    """Tags that are left open, and everything that would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.loaded, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [
            value
            for name, value in attributes
            if name in ("src", "href", "srcset") and value[:1] != "#"
        ]
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            self.images.append(values["src"])
            assert values["alt"]
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with all tables, and a second round with nothing but questions and traces."""
    folder = tmp_path_factory.mktemp("run")
    traces = {
        (f"q{i}", k): {
            "logps": (-3.0 - k, -2.0 - i / 4),
            "verdicts": ("correct" if (i + k) % 3 else "wrong", "correct"),
        }
        for i in range(6)
        for k in range(3)
    }
    questions = {f"q{i}": f"{'numina' if i % 2 else '<apps>'}/{i}" for i in range(6)}
    write_traces(folder, questions, traces)
    write_traces(folder / "round2", questions, {("q0", 0): {}})
    record(folder, "prepare_data", 1.0)
    record(folder / "round2", "prepare_data", 1.0)
    log = [
        {"step": 5, "loss": 0.5, "grad_norm": 1.0},
        {"step": 10, "loss": 0.25, "grad_norm": 0.5},
        {"step": 10},
    ]
    (folder / "models/reasoner").mkdir(parents=True)
    (folder / "models/reasoner/trainer_state.json").write_text(json.dumps({"log_history": log}))
    return folder


def test_the_page_holds_its_pictures_and_names_what_is_absent(run):
    written = write_report([run], run / "report.md")
    text = written.page.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.loaded == page.images
    names = {path.name for path in written.pictures}
    figures = ("sources", "difficulty", "weights", "bound", "lengths", "leakage", "trainings")
    assert names == {f"{name}.png" for name in figures} | {"round2_leakage.png"}
    for path, image in zip(written.pictures, page.images, strict=True):
        assert base64.b64decode(image.partition("base64,")[2]) == path.read_bytes()
    assert "&lt;apps&gt;" not in text  # in a plot, not in the text
    assert f">{run}/round2</h2>" in text and f"\n## {run}/round2\n" in written.markdown
    for absent in (
        "No model is evaluated yet",
        "There are no evaluations",
        "No evaluation here is of one of the paper&#39;s benchmarks",
        "There are no train files of stage 8",
        "There are no verdicts (stage 7)",
        "There are no log-likelihoods of both models",
        "There are no logs of trainings",
    ):
        assert absent in text


def test_the_same_values_give_the_same_bytes():
    assert plot_sources(["a"], [0.5], [0.1]) == plot_sources(["a"], [0.5], [0.1])


def test_texts_are_escaped():
    section = Section("<b>", tables=[Table(["a"], [["<script>x</script>"]])], notes=["1 < 2 & 3"])
    text = to_html("t", [Part("p", [section])])
    assert "<script>" not in text and "&lt;script&gt;" in text and "1 &lt; 2 &amp; 3" in text


def test_markdown():
    sections = [
        Section("s", "e", tables=[Table(["a", "b"], [["1", "2"]])], notes=["n"], warnings=["w"]),
        Section("t", absent="none."),
    ]
    assert (
        to_markdown("T", sections)
        == "# T\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nn\n\n**Warning** w\n\nnone.\n"
    )


def test_running_median_by_hand():
    # two groups of about equal size: x <= 2 and above
    x, y = np.array([1.0, 2, 2, 3, 4]), np.array([5.0, 1, 3, 7, 9])
    middle, medians = running_median(x, y, num_groups=2)
    assert middle.tolist() == [2.0, 3.5] and medians.tolist() == [3.0, 8.0]
    # one point of 201 is too few for a median
    middle, medians = running_median(np.array([1.0] * 200 + [9.0]), np.zeros(201))
    assert middle.tolist() == [1.0]


def test_curves_are_read_from_either_log(tmp_path):
    for name, file, text in (
        (
            "b",
            "trainer_log.jsonl",
            '{"current_steps": 5, "loss": 0.5}\n{"current_steps": 10, "percentage": 100.0}\n',
        ),
        (
            "posterior",
            "trainer_state.json",
            '{"log_history": [{"step": 1, "loss": 2.0, "grad_norm": 3.0, "token_nll": 1.5}]}',
        ),
        ("empty", "other.txt", ""),
    ):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / file).write_text(text)
    first, second = read_trainings(tmp_path)
    assert first == (
        "posterior",
        {"loss": ([1], [2.0]), "token_nll": ([1], [1.5]), "grad_norm": ([1], [3.0])},
    )
    assert second == ("b", {"loss": ([5], [0.5])})
    assert curves_of([{"train_loss": 1.0, "step": 5}]) == {}
    (tmp_path / "models/b/trainer_log.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=re.escape("trainer_log.jsonl, line 1 is not valid JSON")):
        read_trainings(tmp_path)


def test_columns_of_figures_are_aligned_to_the_right():
    rows = [
        ["a", "1,024", "+3.2 ± 0.4", "12.5%", "", "4.14 of 8"],
        ["b", "7", "", "9%", "", "none of 8"],
    ]
    table = Table(["name", "rows", "gain", "share", "empty", "size"], rows)
    assert table.alignments == ["words", "figures", "figures", "figures", "words", "words"]
    assert Table(["a"], []).alignments == ["words"]
    page = to_html("T", [Part("P", [Section("S", tables=[table])])])
    assert '<td class="figures">1,024</td>' in page and '<td class="words">b</td>' in page


def test_a_plot_shows_every_line_that_it_is_given():
    # More names than dash styles, of which there are four.
    names = [f"estimator {number}" for number in range(5)]
    weights = {name: np.array([[0.25, 0.75]]) for name in names}
    sizes = {name: np.array([1.6]) for name in names}
    fewer = {name: weights[name] for name in names[:4]}
    assert plot_weights(weights, sizes, 2) != plot_weights(fewer, sizes, 2)
    kinds = {name: Leakage(np.array([0.5]), 2, 1, 0) for name in names}
    fewer_kinds = {name: kinds[name] for name in names[:4]}
    assert plot_leakage(kinds) != plot_leakage(fewer_kinds)
