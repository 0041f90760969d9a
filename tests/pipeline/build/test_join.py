"""The join of stage 8: which tables are asked for, and tables that do not belong together."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.pipeline.build.test_datasets import FORWARD_KL, THREE, WEIGHTED, sampled, write_run
from variational_reasoning.pipeline.build.datasets import build_datasets
from variational_reasoning.pipeline.build.join import join
from variational_reasoning.pipeline.build.open_tables import needed_tables
from variational_reasoning.pipeline.config import OutputConfig, load_config
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.pipeline.sample import sample_traces


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"reasoner", "posterior", "answers", "verdicts"}),
        ({"estimator": "gml"}, {"reasoner", "posterior"}),
        ({"estimator": "gml", "ratio": "none"}, {"reasoner"}),
        ({"ratio": "none"}, {"answers", "verdicts"}),
        ({"ratio": "none", "fallback": "gml"}, {"reasoner", "answers", "verdicts"}),
        (
            {"estimator": "gml", "verified_only": True},
            {"reasoner", "posterior", "answers", "verdicts"},
        ),
        (
            {"estimator": "gml", "ratio": "none", "question_weight": "grpo"},
            {"reasoner", "answers", "verdicts"},
        ),
    ],
)
def test_only_the_tables_that_a_setting_needs(settings, expected):
    assert set(needed_tables(OutputConfig(name="x", **settings))) == expected


@pytest.mark.parametrize(
    "table", ["traces", "trace_logps/reasoner", "trace_logps/posterior", "answers", "verdicts"]
)
def test_a_shard_that_was_changed_after_the_summaries_were_written_is_refused_by_name(
    tmp_path, tiny_model_dir, table
):
    """Stage 8 reads the summaries of these tables, and of trace_logps nothing else."""
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED])
    join(config, config.build.outputs)
    shard = config.folder(table) / "shard-00000.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(
        ValueError, match=rf"{table}/shard-00000\.parquet was changed after it was written"
    ):
        join(config, config.build.outputs)


def test_the_answer_counts_of_a_question_are_of_decided_answers(tmp_path, tiny_model_dir):
    traces = [
        sampled(0, "a", 0.0, (True, "unverifiable")),
        sampled(1, "b", 0.0, (False, True)),
        sampled(2, "c", 0.0, (False,)),
    ]
    config = write_run(tmp_path, tiny_model_dir, {"q0": traces}, [WEIGHTED])
    joined = join(config, config.build.outputs)
    assert joined.num_traces == 3
    # 1 of 1, then 1 of 2, then 0 of 1
    assert [joined.question_accuracy("q0", k) for k in (1, 2, 3)] == [1.0, 2 / 3, 0.5]


def test_a_question_of_malformed_traces_has_the_share_zero_and_an_undecided_one_has_none(
    tmp_path, tiny_model_dir
):
    questions = {
        "good": [sampled(0, "a", 0.0, (True, False)), sampled(1, "b", is_well_formed=False)],
        "malformed": [sampled(k, "c", is_well_formed=False) for k in range(2)],
        "undecided": [
            sampled(0, "d", 0.0, ("unverifiable", "checker_error")),
            sampled(1, "e", is_well_formed=False),
        ],
    }
    config = write_run(tmp_path, tiny_model_dir, questions, [WEIGHTED])
    joined = join(config, config.build.outputs)
    # 1 of 2 decided answers, and 2 more that trace 1 would have had
    assert joined.question_accuracy("good", 2) == 1 / 4
    assert joined.question_accuracy("malformed", 2) == 0.0
    assert joined.question_accuracy("undecided", 2) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "trace_logps/posterior",
            r"trace_logps/posterior.* is not there.*w \(ratio mean\) cannot be built without stage "
            r"5",
        ),
        (
            "trace_logps/reasoner",
            r"g \(estimator gml\), w \(ratio mean\) cannot be built without stage 4",
        ),
        (
            "verdicts",
            r"verdicts.* is not there.*w \(estimator acc\) cannot be built without stage 7",
        ),
    ],
)
def test_an_estimator_without_its_table_is_refused_before_anything_is_written(
    tmp_path, tiny_model_dir, table, message
):
    outputs = [{"name": "g", "estimator": "gml"}, WEIGHTED]
    config = write_run(tmp_path, tiny_model_dir, THREE, outputs)
    shutil.rmtree(tmp_path / table)
    with pytest.raises(ValueError, match=message):
        build_datasets(config)
    assert not config.folder("train").exists()


def test_tables_of_different_runs_are_refused_with_their_ids(tmp_path, tiny_model_dir):
    config = write_run(tmp_path / "a", tiny_model_dir, {"q0": [sampled(0, "a")]}, [WEIGHTED])
    write_run(
        tmp_path / "b",
        tiny_model_dir,
        {"q0": [sampled(0, "a")], "q1": [sampled(0, "b")]},
        [WEIGHTED],
    )
    for name in ("traces", "trace_logps", "answers", "verdicts"):
        shutil.rmtree(tmp_path / "a" / name)
        shutil.copytree(tmp_path / "b" / name, tmp_path / "a" / name)
    with pytest.raises(
        ValueError, match=r"a/traces was made from another .*a/questions .* different runs"
    ):
        build_datasets(config)
    # Even where manifests do not tell: rows of a question that is not there.
    for path in (tmp_path / "a").glob("**/manifest.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": {}}))
    with pytest.raises(
        ValueError,
        match=r"a/traces has 1 traces that .*a/questions knows nothing of, such as \[\('q1', 0\)\]",
    ):
        build_datasets(config)
    assert not config.folder("train").exists()


def test_a_fault_of_the_last_output_leaves_nothing_of_the_first(tmp_path, tiny_model_dir):
    wrong = {"q0": [sampled(0, "a", 0.0, (False,))]}
    config = write_run(
        tmp_path, tiny_model_dir, wrong, [{"name": "g", "estimator": "gml"}, WEIGHTED]
    )
    with pytest.raises(ValueError, match="build.outputs 'w': no row remains"):
        build_datasets(config)
    assert not config.folder("train").exists() and not config.folder("health.json").exists()


def test_more_traces_than_were_sampled_are_refused(tmp_path, tiny_model_dir):
    config = write_run(tmp_path, tiny_model_dir, THREE, [WEIGHTED | {"num_traces": 4}])
    with pytest.raises(
        ValueError,
        match="build.outputs 'w': num_traces is 4, but only 3 traces per question were sampled",
    ):
        build_datasets(config)
    assert not config.folder("train").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            FORWARD_KL | {"traces_from": "posterior"},
            r"0 \(q\).traces_from: the posterior learns from the reasoner's traces",
        ),
        (FORWARD_KL | {"ratio": "mean"}, r"0 \(q\).ratio: the reasoner's own traces have no ratio"),
        (WEIGHTED | {"hint": "verified"}, r"0 \(w\).hint: only the posterior's rows have a hint"),
        (WEIGHTED | {"selection": "best", "weight_cap": 0.5}, r"0 \(w\).weight_cap: .* it is best"),
        (
            WEIGHTED | {"question_weight": "grpo", "fallback": "original"},
            r"0 \(w\).fallback: original would give a weight",
        ),
        (FORWARD_KL, "none is made from the posterior's traces"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, tiny_model_dir, output, message):
    config = write_run(tmp_path, tiny_model_dir, {"q0": [sampled(0, "a")]}, [output])
    with pytest.raises(ValueError, match=message):
        build_datasets(config)


def test_what_is_made_from_the_reasoners_traces_has_a_folder_and_noise_of_its_own(make_run):
    path = make_run(num_questions=2)
    ours, theirs = (
        load_config(path, [f"sampling.traces_from={name}"]) for name in ("posterior", "reasoner")
    )
    assert theirs.folder("trace_logps", "reasoner") == ours.folder(
        "from_reasoner", "trace_logps", "reasoner"
    )
    assert theirs.folder("questions") == ours.folder("questions")
    assert (ours.stage_name("sample_traces"), theirs.stage_name("sample_traces")) == (
        "sample_traces",
        "sample_traces_from_reasoner",
    )
    seeds = []
    for config in (ours, theirs):
        sample_traces(config)
        seeds.append(
            {row["seed"] for row in read_rows(config.folder("traces"), "traces", ["seed"])}
        )
    assert len(seeds[0]) == len(seeds[1]) == 6 and not seeds[0] & seeds[1]
