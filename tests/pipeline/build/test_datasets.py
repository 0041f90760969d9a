"""Stage 8 on small tables that are written by the real writers, with the arithmetic of their
weights done by hand.
"""

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.build import datasets as build
from variational_reasoning.pipeline.build import lengths
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.questions.usable_rows import example_tokens
from variational_reasoning.pipeline.rows import Identity, table_digest, write_table

CHATML = make_renderer("chatml")
LEAD = CHATML.answer_lead
WEIGHTED = {"name": "w", "estimator": "acc", "selection": "weighted"}


def sampled(trace_id, text, ratio=0.0, correct=(True,), answer_logp=-2.0, **columns):
    """One trace of four tokens: `ratio` is its mean log ratio; `correct` one verdict per answer (or
    a verdict's name)."""
    return {
        "trace_id": trace_id,
        "text": text,
        "ratio": ratio,
        "correct": correct,
        "answer_logp": answer_logp,
    } | columns


def write_run(
    folder: Path,
    base: Path,
    questions: dict[str, list[dict]],
    outputs,
    sampler="posterior",
    encode=None,
    **settings,
):
    """Tables of a run in which question i has the given traces; returns its configuration.

    Args:
        encode: fills the columns with lengths, as the stages do; without it they are null.
    """
    folder.mkdir(exist_ok=True)
    here = folder if sampler == "posterior" else folder / "from_reasoner"
    tables = {
        name: [] for name in ("questions", "traces", "reasoner", "posterior", "answers", "verdicts")
    }
    for question_id, traces in questions.items():
        tables["questions"].append(
            {
                "question_id": question_id,
                "question": f"What of {question_id}?",
                "trace": "expert",
                "solution": f"reference {question_id}",
                "source": "made",
                "check": json.dumps({"kind": "exact", "gold": "g"}),
                "split": "train",
            }
        )
        for trace in traces:
            ids = {"question_id": question_id, "trace_id": trace["trace_id"]}
            well = trace.get("is_well_formed", True)
            tables["traces"].append(
                ids
                | {
                    "token_ids": trace.get("token_ids", list(range(trace.get("trace_tokens", 4)))),
                    "text": trace["text"],
                    "finish_reason": trace.get("finish", "stop"),
                }
                | {
                    "is_well_formed": well,
                    "is_retokenized": False,
                    "seed": 0,
                    "prompt_kind": "posterior_b",
                }
                | {"temperature": 0.7}
            )
            if not well:
                continue
            for name, logp in (
                ("reasoner", -1000.0 + trace.get("trace_tokens", 4) * trace["ratio"]),
                ("posterior", -1000.0),
            ):
                if name in trace.get("lacks", ()):
                    continue
                is_reasoner = name == "reasoner"
                tables[name].append(
                    ids
                    | {
                        "trace_logp": logp,
                        "trace_tokens": trace.get(f"{name}_tokens", trace.get("trace_tokens", 4)),
                    }
                    | {"answer_logp": trace["answer_logp"] if is_reasoner else None}
                    | {
                        "answer_tokens": 2 if is_reasoner else None,
                        "temperature": trace.get(f"{name}_temperature", 1.0),
                    }
                )
            for answer_id, verdict in enumerate(trace["correct"]):
                name = {True: "correct", False: "wrong"}.get(verdict, verdict)
                text = f"{LEAD}answer {trace['trace_id']}.{answer_id}<|end_of_solution|>"
                key = ids | {"answer_id": answer_id}
                tables["answers"].append(
                    key | {"token_ids": [5], "text": text, "finish_reason": "stop", "seed": 0}
                )
                tables["verdicts"].append(
                    key | {"verdict": name, "reason": "", "seconds": 0.0, "tier": ""}
                )
    if encode is not None:
        add_lengths(tables, encode)
    digests = {"made": "here"}
    for name, rows in tables.items():
        table = "trace_logps" if name in ("reasoner", "posterior") else name
        place = here / "trace_logps" / name if table == "trace_logps" else here / name
        place = folder / name if name == "questions" else place
        if rows:
            write_table(place, table, rows, Identity(dict(digests), {}))
            if name in ("questions", "traces", "answers"):
                digests[name] = table_digest(place, table)
    values = {
        "run_dir": str(folder),
        "base": str(base),
        "cutoff_len": 2000,
        "data": {"name": "made"},
        "seed": 0,
    }
    values["sampling"] = {"traces_from": sampler}
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps(values | {"build": {"outputs": outputs}} | settings))
    return load_config(path)


def add_lengths(tables, encode) -> None:
    for row in tables["questions"]:
        counted = example_tokens("reasoner", CHATML, row, encode)
        row |= dict(zip(("prompt_tokens", "trace_tokens", "solution_tokens"), counted, strict=True))
    for row in tables["traces"]:
        ids = encode(row["text"] + CHATML.boundary)
        row |= {"trained_tokens": len(ids), "is_trained_as_sampled": ids == row["token_ids"]}
    for row in tables["answers"]:
        solution = CHATML.solution_of_answer(row["text"])
        row["trained_tokens"] = len(encode(CHATML.answer_rest(solution)))


def built(config, name):
    return pq.read_table(config.folder("train", f"made_{name}.parquet")).to_pylist()


THREE = {
    # accuracies 1/2, 1, 0; mean log ratios 0, log 1/2, log 9: rho = 1/2, 1/2, 0
    "q0": [
        sampled(0, "a", 0.0, (True, False), answer_logp=-2.0),
        sampled(1, "b", math.log(0.5), (True, True), answer_logp=-4.0),
        sampled(2, "c", math.log(9.0), (False, False), answer_logp=-20.0),
    ],
    # the two are one quarter and three quarters of their sum
    "q1": [
        sampled(0, "d", math.log(1 / 4), (True,)),
        sampled(1, "e", math.log(3 / 4), (True,)),
        sampled(2, "f", 0.0, is_well_formed=False),
    ],
    # nothing is right
    "q2": [
        sampled(0, "g", 0.0, (False,), answer_logp=-6.0),
        sampled(1, "h", 0.0, (False,), answer_logp=-2.0),
        sampled(2, "i", 0.0, is_well_formed=False),
    ],
}


def test_weighted_rows_carry_rho_normalized_and_its_raw_terms(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    summary = build.build_datasets(config)
    rows = built(config, "w")
    weights = {(row["question_id"], row["trace_id"]): row["weight"] for row in rows}
    assert weights == pytest.approx(
        {("q0", 0): 0.5, ("q0", 1): 0.5, ("q1", 0): 0.25, ("q1", 1): 0.75}, rel=1e-12
    )
    second = rows[1]
    assert second["source"] == 1
    assert second["accuracy"] == 1.0
    assert second["num_answers"] == 2
    assert second["trace_tokens"] == 4
    assert second["mean_log_ratio"] == pytest.approx(math.log(0.5), rel=1e-12)
    assert second["sum_log_ratio"] == pytest.approx(4 * math.log(0.5), rel=1e-12)
    assert second["answer_logp"] == -4.0
    assert second["gml"] == pytest.approx(math.exp(-2.0), rel=1e-12)
    assert second["log_rho"] == pytest.approx(math.log(0.5), rel=1e-12)
    figures = summary.files[0].figures
    assert figures["counts"] == {
        "dropped_weight_zero": 1,
        "questions_dropped": 1,
        "questions_without_acceptable_trace": 1,
        "traces_chosen": 4,
    }
    assert figures["mean_weight"] == pytest.approx(0.5, rel=1e-12)
    assert summary.filtered == {"malformed": 2}
    assert json.loads(config.folder("train", "dataset_info.json").read_text()) == {
        "made_w": {"file_name": "made_w.parquet", "formatting": "weighted_sft"}
    }


def test_rows_are_rendered_by_the_one_renderer_with_a_verified_answer(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    build.build_datasets(config)
    row = built(config, "w")[0]
    # trace 0 of q0 has one right answer, 0.0
    assert (row["prompt"], row["response"]) == CHATML.render(
        "reasoner", "What of q0?", "a", "answer 0.0"
    )
    assert row["answer_id"] == 0


def test_best_takes_the_lower_trace_id_among_equals_and_mixes_one_to_one(tmp_path, tiny_model_dir):
    output = {
        "name": "b",
        "estimator": "acc",
        "selection": "best",
        "mix": 1,
        "fallback": "original",
    }
    config = write_run(tmp_path, tiny_model_dir, THREE, [output])
    summary = build.build_datasets(config)
    assert summary.files[0].figures["counts"]["duplicates_removed"] == 1
    rows = built(config, "b")
    assert [(row["question_id"], row["source"]) for row in rows] == [
        ("q0", 0),  # rho 1/2 for both
        ("q0", -2),
        ("q1", 1),
        ("q1", -2),
        ("q2", -1),  # the original row stands here once, as the fallback
    ]
    assert {row["weight"] for row in rows} == {1.0}
    original = CHATML.render("reasoner", "What of q1?", "expert", "reference q1")
    assert (rows[3]["prompt"], rows[3]["response"]) == original
    assert rows[3]["log_rho"] is None


def test_a_mix_may_hold_a_fallback_row_and_its_original_as_the_papers_files_do(
    tmp_path, tiny_model_dir
):
    """Then an epoch has 2 rows per question, whatever falls back: 6 here, and 5 without
    mix_fallback.
    """
    output = {"name": "b", "selection": "best", "mix": 1, "fallback": "original"}
    config = write_run(tmp_path, tiny_model_dir, THREE, [output | {"mix_fallback": True}])
    figures = build.build_datasets(config).files[0].figures
    assert figures["rows"] == 6 and "duplicates_removed" not in figures["counts"]
    rows = built(config, "b")
    assert [(row["question_id"], row["source"]) for row in rows[-2:]] == [("q2", -1), ("q2", -2)]
    assert rows[-2]["response"] == rows[-1]["response"]
    assert {row["weight"] for row in rows} == {1.0}


def test_a_file_of_an_earlier_release_stays_as_it_is(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    build.build_datasets(config)
    path = config.folder("train", "made_w.manifest.json")
    manifest = json.loads(path.read_text())
    assert "mix_fallback" not in manifest["config"]["output"]
    del manifest["figures"]["trained_ids"]
    path.write_text(json.dumps(manifest))
    summary = build.build_datasets(config)
    assert not summary.files[0].was_written
    assert "trained as other ids" not in build.describe_files(summary)


def test_a_file_without_any_trace_is_refused_unless_it_is_asked_for(tmp_path, tiny_model_dir):
    """No answer of any question is right, so every row would be the original one."""
    questions = {f"q{i}": [sampled(0, "a", 0.0, (False, False))] for i in range(3)}
    output = {"name": "b", "selection": "best", "mix": 1, "fallback": "original"}
    config = write_run(tmp_path, tiny_model_dir, questions, [output])
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"no trace was chosen for made_b.*verified answer.*allow_no_traces"
        ):
            build.build_datasets(config)
    assert not config.folder("train").exists()
    allowed = load_config(tmp_path / "pipeline.yaml", ["build.allow_no_traces=true"])
    build.build_datasets(allowed)
    assert [row["source"] for row in built(config, "b")] == [-1, -1, -1]
    with pytest.raises(ValueError, match="no trace was chosen"):  # the file that is there, too
        build.build_datasets(config)


def test_traces_that_are_trained_as_other_ids_are_counted(tmp_path, tiny_model_dir, bpe_tokenizer):
    """Trace 0 is of the ids that the tokenizer gives; trace 1 is of the ids of its characters."""

    def ids(text):
        return bpe_tokenizer.encode(text, add_special_tokens=False)

    whole = ids("the answer" + CHATML.boundary)
    letters = [token for letter in "the answer of" + CHATML.boundary for token in ids(letter)]
    traces = [
        sampled(0, "the answer", token_ids=whole, trace_tokens=len(whole)),
        sampled(1, "the answer of", token_ids=letters, trace_tokens=len(letters)),
    ]
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, [WEIGHTED])
    summary = build.build_datasets(config)
    assert summary.files[0].figures["trained_ids"] == {"rows": 2, "differ": 1}
    assert summary.health["trained_ids"] == {"made_w": {"rows": 2, "differ": 1}}
    text = build.describe_files(summary)
    assert "made_w: 1 of 2 traces are trained as other ids than the scored ones" in text
    assert "warning: made_w: 1 of 2 traces" in text
    assert build.build_datasets(config).health == summary.health


def test_top_p_below_1_is_a_warning_where_rho_has_a_ratio(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    build.build_datasets(config)
    path = config.folder("traces", "manifest.json")
    manifest = json.loads(path.read_text())
    manifest["config"]["sampling.top_p"] = 0.95
    path.write_text(json.dumps(manifest))
    warnings = build.build_datasets(config).health["warnings"]
    assert any("sampled with top_p 0.95, but q(z | x, y') is scored" in each for each in warnings)
    plain = load_config(tmp_path / "pipeline.yaml", ["build.outputs.0.ratio=none"])
    assert not any("top_p" in each for each in build.build_datasets(plain).health["warnings"])


def test_lengths_in_the_tables_take_the_place_of_the_tokenizer(
    tmp_path, tiny_model_dir, bpe_tokenizer, monkeypatch
):
    """The same rows and figures, near cutoff_len too, with tables that lack the columns and with
    tables that have them; with them no text is tokenized."""

    def encode(text):
        return bpe_tokenizer.encode(text, add_special_tokens=False)

    outputs = [WEIGHTED | {"mix": 1}, {"name": "g", "estimator": "gml", "selection": "best"}]
    traces = [sampled(k, "long " * (30 * k), float(k), (True, False)) for k in range(5)]
    questions = {"q0": traces, "q1": traces[:2] + traces}
    questions["q1"] = [trace | {"trace_id": k} for k, trace in enumerate(questions["q1"][:5])]
    num_dropped = 0
    for cutoff_len in (1500, 1600, 1700):
        found = []
        for name, known in (("without", None), ("with", encode)):
            folder = tmp_path / f"{name}{cutoff_len}"
            config = write_run(
                folder, tiny_model_dir, questions, outputs, encode=known, cutoff_len=cutoff_len
            )
            with monkeypatch.context() as patch:
                if known is not None:
                    patch.setattr(lengths, "load_tokenizer", None)  # would fail when called
                summary = build.build_datasets(config)
            figures = [file.figures for file in summary.files]
            found.append((built(config, "w"), built(config, "g"), figures, summary.health))
        assert found[0] == found[1]
        num_dropped += found[0][2][0]["counts"].get("dropped_overlong", 0)
    assert num_dropped > 0


def test_gml_ranks_by_the_reference_solution_and_keeps_it(tmp_path, tiny_model_dir):
    config = write_run(
        tmp_path, tiny_model_dir, THREE, [{"name": "g", "estimator": "gml", "selection": "best"}]
    )
    build.build_datasets(config)
    rows = {row["question_id"]: row for row in built(config, "g")}
    # q0: ratio + answer_logp / 2 = 0 - 1, log 0.5 - 2, log 9 - 10: trace 0; q2: -3 and -1: trace 1
    assert {name: row["source"] for name, row in rows.items()} == {"q0": 0, "q1": 1, "q2": 1}
    assert rows["q0"]["log_rho"] == pytest.approx(-1.0, rel=1e-12)
    assert rows["q0"]["response"].endswith("reference q0<|end_of_solution|>")
    assert rows["q0"]["answer_id"] is None


def test_likelihood_uses_the_sum(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [{"name": "l", "estimator": "likelihood"}])
    build.build_datasets(config)
    assert built(config, "l")[0]["log_rho"] == pytest.approx(-2.0, rel=1e-12)  # trace 0: 0 - 2


def test_gml_fallback_takes_the_likeliest_candidate(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED | {"fallback": "gml"}])
    summary = build.build_datasets(config)
    row = next(row for row in built(config, "w") if row["question_id"] == "q2")
    assert (row["source"], row["weight"]) == (1, 1.0)
    assert row["response"].endswith("reference q2<|end_of_solution|>")
    assert summary.files[0].figures["counts"]["fallback_gml"] == 1


def test_unweighted_keeps_every_candidate_right_or_wrong(tmp_path, tiny_model_dir):
    config = write_run(
        tmp_path, tiny_model_dir, THREE, [WEIGHTED | {"name": "u", "selection": "unweighted"}]
    )
    summary = build.build_datasets(config)
    rows = built(config, "u")
    assert Counter(row["question_id"] for row in rows) == {"q0": 3, "q1": 2, "q2": 2}
    assert {row["weight"] for row in rows} == {1.0}
    assert rows[2]["response"].endswith("reference q0<|end_of_solution|>")
    assert summary.files[0].figures["counts"]["with_reference_solution"] == 3


def test_the_verified_answer_is_drawn_at_random_under_the_seed(tmp_path, tiny_model_dir):
    answers = (True, False, True, True, True)
    questions = {f"q{i}": [sampled(0, "a", 0.0, answers)] for i in range(40)}
    drawn = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(drawn))
        folder.mkdir()
        config = write_run(folder, tiny_model_dir, questions, [WEIGHTED], seed=seed)
        build.build_datasets(config)
        drawn.append([row["answer_id"] for row in built(config, "w")])
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0, 2, 3, 4}  # 40 draws out of four; never the wrong one


def test_equal_rows_of_sampled_traces_become_one_with_added_weights(tmp_path, tiny_model_dir):
    traces = [
        sampled(k, "same" if k != 1 else "other", math.log(k + 1), answer_logp=-2.0)
        for k in range(3)
    ]
    outputs = [{"name": "m", "estimator": "gml", "selection": "weighted"}]
    # rho is proportional to 1, 2, 3; traces 0 and 2 are one row of 4/6
    outputs.append({"name": "u", "estimator": "gml", "selection": "unweighted"})
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, outputs)
    summary = build.build_datasets(config)
    assert [(row["source"], row["weight"]) for row in built(config, "m")] == [
        (0, pytest.approx(4 / 6, rel=1e-12)),
        (1, pytest.approx(2 / 6, rel=1e-12)),
    ]
    assert [(row["source"], row["weight"]) for row in built(config, "u")] == [(0, 2.0), (1, 1.0)]
    assert [file.figures["counts"]["duplicates_merged"] for file in summary.files] == [1, 1]


@pytest.mark.parametrize(
    ("selection", "weights"),
    [
        ("best", [(0, 2.0)]),
        ("weighted", [(0, 1.5), (1, 0.5)]),
        ("unweighted", [(0, 2.0), (1, 1.0)]),
    ],
)
def test_an_original_row_in_a_mix_adds_its_weight_to_its_equal(
    tmp_path, tiny_model_dir, selection, weights
):
    output = {"name": "d", "estimator": "gml", "selection": selection, "mix": 1}
    config = write_run(
        tmp_path, tiny_model_dir, {"q0": [sampled(0, "expert"), sampled(1, "b")]}, [output]
    )
    counts = build.build_datasets(config).files[0].figures["counts"]
    assert [(row["source"], row["weight"]) for row in built(config, "d")] == weights
    assert (counts["original"], counts["duplicates_merged"]) == (1, 1)


@pytest.mark.parametrize(
    ("mix", "weights"), [(0, {}), (0.5, {1.0: 5}), (1, {1.0: 10}), (2.3, {2.0: 7, 3.0: 3})]
)
def test_mix_adds_that_many_original_rows(tmp_path, tiny_model_dir, mix, weights):
    questions = {f"q{i}": [sampled(0, "a")] for i in range(10)}
    drawn = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        config = write_run(
            tmp_path / str(seed), tiny_model_dir, questions, [WEIGHTED | {"mix": mix}], seed=seed
        )
        build.build_datasets(config)
        originals = {
            row["question_id"]: row["weight"] for row in built(config, "w") if row["source"] == -2
        }
        assert Counter(originals.values()) == weights  # several copies of one row are its weight
        drawn.append(originals)
    assert (drawn[0] == drawn[1]) == (mix in (0, 1))


CONTROLS = {
    "q0": [
        sampled(k, f"{'x ' * k}", float(k), (k < 3,), trace_tokens=[7, 3, 9, 99][k])
        for k in range(4)
    ]
}


def test_longest_and_random_choose_among_what_best_chooses_among(tmp_path, tiny_model_dir):
    questions = {f"q{i}": CONTROLS["q0"] for i in range(30)}
    outputs = [{"name": name, "selection": name} for name in ("best", "longest", "random")]
    config = write_run(tmp_path, tiny_model_dir, questions, outputs)
    build.build_datasets(config)
    assert {row["source"] for row in built(config, "best")} == {2}
    assert {row["source"] for row in built(config, "longest")} == {
        2
    }  # nine tokens; the trace of 99 has no right answer
    drawn = [row["source"] for row in built(config, "random")]
    assert set(drawn) == {0, 1, 2}
    again = load_config(tmp_path / "pipeline.yaml", ["seed=1"])
    build.build_datasets(again)
    assert [row["source"] for row in built(again, "random")] != drawn
    assert {row["weight"] for row in built(again, "random")} == {1.0}


def test_ties_of_longest_go_to_the_lower_trace_id(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [{"name": "l", "selection": "longest"}])
    build.build_datasets(config)
    assert [(row["question_id"], row["source"]) for row in built(config, "l")] == [
        ("q0", 0),
        ("q1", 0),
    ]


def test_the_three_ratios(tmp_path, tiny_model_dir):
    # mean log ratios 0 and log 2 of four tokens each: rho 1 and 2; full ratio 1 and 16; none:
    # accuracies 1 and 1/2
    traces = [sampled(0, "a", 0.0, (True, True)), sampled(1, "b", math.log(2), (True, False))]
    outputs = [
        {"name": ratio, "ratio": ratio, "selection": "weighted"}
        for ratio in ("mean", "sum", "none")
    ]
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, outputs)
    build.build_datasets(config)
    weights = {
        name: [row["weight"] for row in built(config, name)] for name in ("mean", "sum", "none")
    }
    assert weights["mean"] == pytest.approx([1 / 2, 1 / 2], rel=1e-12)
    assert weights["sum"] == pytest.approx([1 / 9, 8 / 9], rel=1e-12)
    assert weights["none"] == pytest.approx([2 / 3, 1 / 3], rel=1e-12)


def test_a_cap_and_its_effective_sample_size(tmp_path, tiny_model_dir):
    config = write_run(
        tmp_path, tiny_model_dir, {"q1": THREE["q1"]}, [WEIGHTED | {"weight_cap": 0.5}]
    )
    figures = build.build_datasets(config).files[0].figures
    assert [row["weight"] for row in built(config, "w")] == pytest.approx([0.25, 0.5], rel=1e-12)
    assert figures["counts"]["capped_weights"] == 1
    assert figures["weight_taken_by_cap"] == pytest.approx(0.25, rel=1e-12)
    assert figures["mean_effective_sample_size_before_cap"] == pytest.approx(
        1 / (1 / 16 + 9 / 16), rel=1e-12
    )
    assert figures["mean_effective_sample_size"] == pytest.approx(
        0.75**2 / (1 / 16 + 1 / 4), rel=1e-12
    )


def test_fewer_traces_of_the_same_tables(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED | {"num_traces": 1}])
    build.build_datasets(config)
    rows = built(config, "w")
    assert [(row["question_id"], row["source"], row["weight"]) for row in rows] == [
        ("q0", 0, 1.0),
        ("q1", 0, 1.0),
    ]
    # P counts the answers after the traces in use: 1 of 2, and 1 of 1
    assert [row["question_accuracy"] for row in rows] == [0.5, 1.0]


def test_the_baselines_of_section_3(tmp_path, tiny_model_dir):
    questions = {
        "easy": [
            sampled(0, "a", 5.0, (True, True)),
            sampled(1, "b", 0.0, (True, False)),
        ],  # P = 3/4
        "hard": [
            sampled(0, "c", 0.0, (True, False)),
            sampled(1, "d", 0.0, (False, False)),
        ],  # P = 1/4
        "sure": [sampled(0, "e", 0.0, (True, True)), sampled(1, "f", 0.0, (True, True))],  # P = 1
    }
    shared = {"ratio": "none", "selection": "weighted"}
    outputs = [shared | {"name": kind, "question_weight": kind} for kind in ("accuracy", "grpo")]
    config = write_run(tmp_path, tiny_model_dir, questions, outputs)
    summary = build.build_datasets(config)
    found = {
        n: {(r["question_id"], r["source"]): r["weight"] for r in built(config, n)}
        for n in ("accuracy", "grpo")
    }
    # rejection sampling: accuracy / K each
    weights = {
        ("easy", 0): 1 / 2,
        ("easy", 1): 1 / 4,
        ("hard", 0): 1 / 4,
        ("sure", 0): 1 / 2,
        ("sure", 1): 1 / 2,
    }
    assert found["accuracy"] == pytest.approx(weights, rel=1e-12)
    # GRPO: sqrt(3) x (2/3, 1/3), sqrt(1/3) x 1, and nothing where all are right
    root = math.sqrt(3)
    expected = {("easy", 0): root * 2 / 3, ("easy", 1): root / 3, ("hard", 0): 1 / root}
    assert found["grpo"] == pytest.approx(expected, rel=1e-12)
    assert summary.files[1].figures["counts"]["questions_all_correct"] == 1


TWO_ACCURACIES = {
    "quarter": [sampled(0, "a", 0.0, (True, False)), sampled(1, "b", 0.0, (False, False))],
    "sure": [sampled(0, "c", 0.0, (True, True)), sampled(1, "d", 0.0, (True, True))],
    "never": [sampled(0, "e", 0.0, (False, False)), sampled(1, "f", 0.0, (False, False))],
}


def test_a_power_of_the_accuracy_as_the_weight_of_questions(tmp_path, tiny_model_dir):
    shared = {"ratio": "none", "selection": "weighted"}
    powers = {"none": 0, "accuracy": 1, "hard": -1}
    outputs = [
        shared | {"name": name, "question_weight": {"power": power}}
        for name, power in powers.items()
    ]
    outputs.append(shared | {"name": "named", "question_weight": "accuracy"})
    config = write_run(tmp_path, tiny_model_dir, TWO_ACCURACIES, outputs)
    summary = build.build_datasets(config)
    mass = {}
    for name in (*powers, "named"):
        rows = built(config, name)
        mass[name] = dict.fromkeys(("quarter", "sure"), 0.0)
        for row in rows:
            mass[name][row["question_id"]] += row["weight"]
    # P is 1/4 of the one and 1 of the other
    assert mass["none"] == {"quarter": 1.0, "sure": 1.0}
    assert mass["accuracy"] == mass["named"] == {"quarter": 0.25, "sure": 1.0}
    assert mass["hard"] == {"quarter": 4.0, "sure": 1.0}
    assert len({str(file.figures["counts"]) for file in summary.files[1:]}) == 1


def test_questions_that_are_never_or_always_right_can_be_left_out(tmp_path, tiny_model_dir):
    outputs = [
        {"name": "all", "estimator": "gml", "selection": "unweighted"},
        {"name": "weighted", "ratio": "none", "selection": "weighted"},
    ]
    config = write_run(tmp_path, tiny_model_dir, TWO_ACCURACIES, outputs)
    summary = build.build_datasets(config)
    health = summary.health
    assert (health["num_questions_never_right"], health["num_questions_always_right"]) == (1, 1)
    assert "never answered right 1, always 1, of 3" in build.describe_files(summary)
    limits = replace(config.build.question_accuracy, at_least=0.01, at_most=0.99)
    limited = replace(config, build=replace(config.build, question_accuracy=limits))
    counts = build.build_datasets(limited).files[0].figures["counts"]
    assert (counts["questions_below_accuracy"], counts["questions_above_accuracy"]) == (1, 1)
    assert {row["question_id"] for row in built(config, "all")} == {"quarter"}


def test_no_estimator_and_no_fallback_chooses_a_trace_that_its_check_refuses(
    tmp_path, tiny_model_dir
):
    # By GML the refused trace is the best of both questions; the other one of q1 has no right
    # answer either, so the fallback may only choose that.
    questions = {
        "q0": [sampled(0, "bad", 9.0, ("wrong_trace",)), sampled(1, "good", 0.0, (True,))],
        "q1": [sampled(0, "worse", 9.0, ("wrong_trace",)), sampled(1, "plain", 0.0, (False,))],
    }
    outputs = [
        {"name": "gml", "estimator": "gml", "selection": "best"},
        {"name": "all", "estimator": "gml", "selection": "unweighted"},
        {"name": "acc", "selection": "weighted", "fallback": "gml"},
    ]
    config = write_run(tmp_path, tiny_model_dir, questions, outputs)
    checked = replace(config.verify, trace_check="no_mention_of_hint")
    config = replace(config, verify=checked)
    summary = build.build_datasets(config)
    for name in ("gml", "all", "acc"):
        chosen = [(row["question_id"], row["source"]) for row in built(config, name)]
        assert chosen == [("q0", 1), ("q1", 1)], name
    assert summary.filtered == {"refused by verify.trace_check": 2}
    # a file that asks for no verdict still asks for the check
    alone = replace(config, build=replace(config.build, outputs=config.build.outputs[:1]))
    (tmp_path / "verdicts").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"gml \(verify.trace_check\) cannot be built without"):
        build.build_datasets(alone)


def test_responses_without_an_answer_are_wrong_in_the_share_of_a_question(tmp_path, tiny_model_dir):
    """One good trace of eight: P = 1/8. The other seven are malformed, or cut, and stand for an
    answer each.
    """
    bad = [sampled(k, f"t{k}", is_well_formed=False, finish="length") for k in range(1, 4)]
    bad += [sampled(k, f"t{k}", is_well_formed=False) for k in range(4, 8)]
    questions = {"q0": [sampled(0, "good", 0.0, (True,)), *bad]}
    shared = {"ratio": "none", "selection": "weighted"}
    outputs = [shared | {"name": kind, "question_weight": kind} for kind in ("accuracy", "grpo")]
    config = write_run(tmp_path, tiny_model_dir, questions, outputs)
    build.build_datasets(config)
    [accuracy], [grpo] = built(config, "accuracy"), built(config, "grpo")
    assert accuracy["question_accuracy"] == 0.125
    assert accuracy["weight"] == pytest.approx(0.125, rel=1e-12)
    assert grpo["weight"] == pytest.approx(math.sqrt(0.125 / 0.875), rel=1e-12)  # 0.378


def test_verified_only_filters_and_counts(tmp_path, tiny_model_dir):
    output = {"name": "v", "estimator": "gml", "selection": "unweighted", "verified_only": True}
    config = write_run(tmp_path, tiny_model_dir, THREE, [output])
    summary = build.build_datasets(config)
    assert [(row["question_id"], row["source"]) for row in built(config, "v")] == [
        ("q0", 0),
        ("q0", 1),
        ("q1", 0),
        ("q1", 1),
    ]
    assert summary.files[0].figures["counts"]["dropped_without_verified_answer"] == 3


FORWARD_KL = {"name": "q", "target": "posterior", "ratio": "none", "selection": "weighted"}


def test_the_posteriors_file_needs_no_log_likelihoods_and_has_the_hint_in_its_prompt(
    tmp_path, tiny_model_dir
):
    no_scores = {
        name: [trace | {"lacks": ("reasoner", "posterior")} for trace in rows]
        for name, rows in THREE.items()
    }
    config = write_run(
        tmp_path, tiny_model_dir, no_scores, [FORWARD_KL, WEIGHTED], sampler="reasoner"
    )
    summary = build.build_datasets(config)
    assert [file.path.name for file in summary.files] == [
        "made_q.parquet"
    ]  # the other one is of the posterior's traces
    rows = built(config, "q")
    # accuracies 1/2, 1, 0 and 1, 1: w~ = 1/3, 2/3 and 1/2, 1/2
    weights = {(row["question_id"], row["source"]): row["weight"] for row in rows}
    expected = {("q0", 0): 1 / 3, ("q0", 1): 2 / 3, ("q1", 0): 1 / 2, ("q1", 1): 1 / 2}
    assert weights == pytest.approx(expected, rel=1e-12)
    text = CHATML.render("posterior_b", "What of q0?", "b", "reference q0")
    assert (rows[1]["prompt"], rows[1]["response"]) == text
    assert (rows[1]["log_rho"], rows[1]["mean_log_ratio"], rows[1]["trace_tokens"]) == (
        0.0,
        None,
        4,
    )
    assert (
        not (tmp_path / "trace_logps").exists()
        and (tmp_path / "from_reasoner/health.json").is_file()
    )


def test_a_hint_may_be_any_verified_answer_of_the_question(tmp_path, tiny_model_dir):
    questions = {
        f"q{i:02d}": [sampled(0, "a", 0.0, (True, False)), sampled(1, "b", 0.0, (True, True))]
        for i in range(30)
    }
    config = write_run(
        tmp_path, tiny_model_dir, questions, [FORWARD_KL | {"hint": "verified"}], sampler="reasoner"
    )
    summary = build.build_datasets(config)
    hints = {trace: Counter() for trace in (0, 1)}
    for row in built(config, "q"):
        hints[row["source"]][
            row["prompt"].split("<|begin_of_solution|>")[-1].split("<|end_of_solution|>")[0]
        ] += 1
    right = {"answer 0.0", "answer 1.0", "answer 1.1"}
    assert (
        set(hints[0]) == set(hints[1]) == right
    )  # independent of the row's own trace; never the wrong 0.1
    assert min(min(counter.values()) for counter in hints.values()) >= 3  # of 30 draws, 10 expected
    assert "with_reference_hint" not in summary.files[0].figures["counts"]


def test_a_verified_answer_is_not_a_verbal_chain(tmp_path, tiny_model_dir):
    questions = {"q0": [sampled(0, "a", 0.0, (True,))]}
    outputs = [FORWARD_KL | {"hint": "verified"}]
    config = write_run(tmp_path, tiny_model_dir, questions, outputs, sampler="reasoner")
    config = replace(config, prompt_family="abstract", posterior_prompt="abstract_posterior")
    with pytest.raises(ValueError, match="family 'abstract' shows the verbal chain; leave it out"):
        build.build_datasets(config)


def test_undecided_verdicts_are_left_out_of_the_accuracy(tmp_path, tiny_model_dir):
    traces = [
        sampled(0, "a", 0.0, (True, "unverifiable", False, "checker_error")),
        sampled(1, "b", 2.0, ("unverifiable",)),
    ]
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, [WEIGHTED])
    build.build_datasets(config)
    (row,) = built(config, "w")
    assert (row["trace_id"], row["accuracy"], row["num_answers"]) == (0, 0.5, 2)


def test_unfinished_and_overlong_traces_are_filtered_and_counted(tmp_path, tiny_model_dir):
    long = "long " * 400
    traces = [sampled(0, "a"), sampled(1, long), sampled(2, "cut", finish="length")]
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, [WEIGHTED], cutoff_len=1500)
    summary = build.build_datasets(config)
    assert [row["trace_id"] for row in built(config, "w")] == [0]
    assert summary.filtered == {"finish_reason length": 1}
    assert summary.files[0].figures["counts"]["dropped_overlong"] == 1


def test_a_second_run_writes_nothing_and_a_changed_seed_writes_again(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    assert build.build_datasets(config).files[0].was_written
    before = config.folder("train", "made_w.parquet").stat().st_mtime_ns
    assert not build.build_datasets(config).files[0].was_written
    assert config.folder("train", "made_w.parquet").stat().st_mtime_ns == before
    changed = load_config(tmp_path / "pipeline.yaml", ["seed=1"])
    assert build.build_datasets(changed).files[0].was_written


def test_health_by_hand(tmp_path, tiny_model_dir):
    questions = {
        # weights 1/2, 1/2 (effective sample size 2), one malformed, one copy of the expert's trace
        "q0": [
            sampled(0, "expert"),
            sampled(1, "b"),
            sampled(2, "c", is_well_formed=False),
            sampled(3, "d", 0, (False,)),
        ],
        "q1": [sampled(k, f"t{k}", 0.0, (False,)) for k in range(4)],
    }
    config = write_run(tmp_path, tiny_model_dir, questions, [WEIGHTED])
    health = build.build_datasets(config).health
    assert health["malformed_share"] == 1 / 8
    assert health["copies_share"] == 1 / 8
    assert health["coverage"] == 0.5
    assert health["mean_effective_sample_size"] == 2.0
    assert health["num_questions_without_weights"] == 1
    assert [warning.split(" is ")[0] for warning in health["warnings"]] == [
        "malformed_share",
        "coverage",
        "made_w: 2 of 2 traces are trained as other ids than those that were sampled and scored, "
        "because their text re-tokenizes differently; their rho",
    ]
    assert json.loads((tmp_path / "health.json").read_text()) == health


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        (
            [sampled(0, "a"), sampled(1, "b", lacks=("posterior",))],
            r"posterior lacks 1 traces .*\('q0', 1\)",
        ),
        ([sampled(0, "a"), sampled(1, "b", correct=())], r"answers lacks 1 traces .*\('q0', 1\)"),
        (
            [sampled(0, "a", posterior_tokens=5)],
            "question q0, trace 0: the posterior's log-likelihood is of 5 tokens, but the trace",
        ),
        (
            [sampled(0, "a", reasoner_temperature=0.7)],
            "question q0, trace 0: temperature is 0.7 for the reasoner and 1.0 for",
        ),
        ([sampled(0, "a"), sampled(2, "b")], r"traces lacks 1 traces .*\('q0', 1\)"),
        ([sampled(0, "a", ratio=math.nan)], "question q0, trace 0: reasoner_logp is nan"),
        (
            [sampled(0, "a", correct=(False,))],
            r"build.outputs 'w': no row remains, the weights of all 1 questions are zero .*'q0'",
        ),
    ],
)
def test_rows_that_do_not_fit_together_are_refused_with_their_ids(
    tmp_path, tiny_model_dir, traces, message
):
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, [WEIGHTED])
    with pytest.raises(ValueError, match=message):
        build.build_datasets(config)
    assert not config.folder("train").exists()


def test_a_table_made_from_other_traces_is_refused(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    manifest = tmp_path / "trace_logps/reasoner/manifest.json"
    values = json.loads(manifest.read_text())
    values["inputs"]["traces"] = "0" * 64
    manifest.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"trace_logps/reasoner was made from another .*traces"):
        build.build_datasets(config)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "build.outputs is empty"),
        (
            [{"name": "x", "estimator": "gml", "fallback": "gml"}],
            r"build.outputs.0 \(x\).fallback: gml only makes sense with",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, tiny_model_dir, outputs, message):
    config = write_run(tmp_path, tiny_model_dir, THREE, outputs)
    with pytest.raises(ValueError, match=message):
        build.build_datasets(config)


def test_the_command_prints_what_it_did_and_refuses_with_exit_code_2(tmp_path, tiny_model_dir):
    write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    script = Path(__file__).parents[3] / "scripts/build_dataset.py"
    command = [sys.executable, script, tmp_path / "pipeline.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "made_w.parquet: 4 rows, weights mean 0.5 min 0.25 max 0.75" in done.stdout
    assert "coverage 66.7%" in done.stdout
    assert '"stage": "build_dataset"' in (tmp_path / "timings.jsonl").read_text()
    (tmp_path / "verdicts/manifest.json").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "the table verdicts is not finished" in done.stderr
    assert "Traceback" not in done.stderr
