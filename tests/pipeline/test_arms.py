"""Train files whose traces are given: symbols of clusters, random ones, chains, values, nothing."""

import json

import pytest

from variational_reasoning.files import read_json_object
from variational_reasoning.method.chat_formats import chat_format_to_dict
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.arms import build_arms, describe_arms, has_texts_apart
from variational_reasoning.pipeline.config import ArmConfig, load_config
from variational_reasoning.pipeline.engines import load_tokenizer
from variational_reasoning.pipeline.rows import Identity, read_parquet, read_rows, write_table

CHAINS = {"q000": "+5=1*4=4", "q001": "+2=3", "q002": "+1=1*1=1+1=2*2=4"}
CLUSTERS = {"q000": [2, 0], "q001": [1], "q002": [3, 3, 0, 1]}
PATTERN = r"[-+*]\d=(?P<value>\d)"


@pytest.fixture
def run(make_run):
    """A run of three questions with dense chains, whose steps have clusters."""

    def make(*arms, **settings):
        steps = {"pattern": PATTERN, "clusters": 4}
        path = make_run(
            num_questions=3,
            prompt_family="abstract",
            steps=steps,
            arms=[{"name": kind} | values for kind, values in arms],
            **{"sampling": {"max_symbols": 3}} | settings,
        )
        config = load_config(path)
        rows = read_rows(config.folder("questions"), "questions")
        for row in rows:
            row |= {"trace": CHAINS[row["question_id"]], "solution": "7"}
        folder = config.folder("questions")
        for file in folder.iterdir():
            file.unlink()
        write_table(folder, "questions", rows, Identity({"made": "chains"}, {}))
        clusters = [
            {"question_id": name, "step": step, "cluster": cluster}
            for name, found in CLUSTERS.items()
            for step, cluster in enumerate(found)
        ]
        write_table(config.folder("step_clusters"), "step_clusters", clusters, Identity({}, {}))
        return config

    return make


def responses(arm) -> dict[str, str]:
    rows = read_parquet(arm.path, "train", ["question_id", "response"]).to_pylist()
    return {row["question_id"]: row["response"] for row in rows}


def test_what_each_kind_writes(run, abstract_dir):
    kinds = ("clusters", "chain", "values", "empty")
    words = {"family": "think"}
    config = run(
        *((kind, {"trace": kind} | ({} if kind == "clusters" else words)) for kind in kinds)
    )
    arms = dict(zip(kinds, build_arms(config, abstract_dir), strict=True))
    # A chain of four steps has more than max_symbols: left out and counted, never cut.
    assert arms["clusters"].num_dropped == 1
    assert responses(arms["clusters"]) == {
        "q000": "<TOKEN_C><TOKEN_A><endabstract>\n7",
        "q001": "<TOKEN_B><endabstract>\n7",
    }
    assert responses(arms["chain"])["q000"] == "+5=1*4=4</think>\n\n7"
    assert responses(arms["values"])["q002"] == "=1=1=2=4</think>\n\n7"
    assert responses(arms["empty"])["q001"] == "</think>\n\n7"
    assert "1 questions without a trace that fits" in describe_arms([arms["clusters"]])


def test_first_traces_are_a_table_of_stage_3(run, abstract_dir):
    config = run(("clusters", {"trace": "clusters"}))
    build_arms(config, abstract_dir)
    rows = read_rows(config.folder("first_traces", "clusters"), "traces")
    tokenizer = load_tokenizer(str(abstract_dir))
    assert [row["question_id"] for row in rows] == ["q000", "q001"]
    for row in rows:
        assert tokenizer.decode(row["token_ids"]) == row["text"] + "<endabstract>"
        assert row["trained_tokens"] == len(row["token_ids"])


def test_random_traces_depend_on_seed_and_question_alone(run, abstract_dir):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = run(("random", {"trace": "random"}), name=name, seed=seed)
        found.append(responses(build_arms(config, abstract_dir)[0]))
    assert found[0] == found[1] != found[2]
    assert all(1 <= text.count("<TOKEN_") <= 3 for text in found[0].values())


def test_random_traces_with_a_count_range(run, abstract_dir):
    arm = {"trace": "random", "count": [2, 3]}
    config = run(("a", arm), ("b", {"trace": "random", "count": [3, 3]}))
    a, b = (responses(arm) for arm in build_arms(config, abstract_dir))
    assert {text.count("<TOKEN_") for text in a.values()} <= {2, 3}
    assert {text.count("<TOKEN_") for text in b.values()} == {3}
    # Each range has a table of its own.
    assert config.folder("first_traces", "random_2_3").is_dir()
    assert config.folder("first_traces", "random_3_3").is_dir()


@pytest.mark.parametrize(
    "arm, fault",
    [
        ({"trace": "clusters", "count": [1, 2]}, "has no meaning for trace: clusters"),
        ({"trace": "random", "count": [3, 2]}, "is not a range of two whole numbers"),
        ({"trace": "random", "count": [1]}, "is not a range of two whole numbers"),
        ({"trace": "random", "count": [1, 9]}, "goes beyond sampling.max_symbols 3"),
    ],
)
def test_counts_that_are_refused(run, arm, fault):
    with pytest.raises(ValueError, match=rf"arms\.0\.count: .*{fault}"):
        run(("a", arm))


@pytest.mark.parametrize(
    "kind, place", [("policy", "from_reasoner/traces"), ("posterior", "traces")]
)
def test_sampled_traces_share_the_weight_of_their_question(run, abstract_dir, kind, place):
    config = run(("sampled", {"trace": kind}))
    # q000 has two well-formed traces of three, q001 one, q002 none.
    texts = {
        ("q000", 0): "<TOKEN_A>",
        ("q000", 1): None,
        ("q000", 2): "<TOKEN_B><TOKEN_C>",
        ("q001", 0): "<TOKEN_D>",
        ("q002", 0): None,
    }
    rows = []
    for (question_id, trace_id), text in texts.items():
        row = {"question_id": question_id, "trace_id": trace_id, "token_ids": [1], "seed": 0}
        row |= {"text": text or "", "is_well_formed": text is not None, "is_retokenized": False}
        rows.append(row | {"finish_reason": "stop", "prompt_kind": kind, "temperature": 1.0})
    write_table(config.folder(*place.split("/")), "traces", rows, Identity({}, {}))
    [arm] = build_arms(config, abstract_dir)
    assert arm.num_rows == 3 and arm.num_dropped == 1
    columns = ["question_id", "source", "response", "weight"]
    assert [list(row.values()) for row in read_parquet(arm.path, "train", columns).to_pylist()] == [
        ["q000", 0, "<TOKEN_A><endabstract>\n7", 0.5],
        ["q000", 2, "<TOKEN_B><TOKEN_C><endabstract>\n7", 0.5],
        ["q001", 0, "<TOKEN_D><endabstract>\n7", 1.0],
    ]


def test_sampled_traces_that_are_not_there(run, abstract_dir):
    config = run(("sampled", {"trace": "policy"}))
    with pytest.raises(ValueError, match="from_reasoner/traces: the table traces is not there"):
        build_arms(config, abstract_dir)


def test_the_posterior_reads_the_chain_and_writes_the_symbols(run, abstract_dir):
    config = run(("of_posterior", {"trace": "clusters", "target": "posterior"}))
    [arm] = build_arms(config, abstract_dir)
    rows = read_parquet(arm.path, "train", ["prompt", "response"]).to_pylist()
    assert rows[0]["prompt"].endswith("assistant\n+5=1*4=4<beginabstract>")
    assert rows[0]["response"] == "<TOKEN_C><TOKEN_A><endabstract>"


def test_a_file_without_a_row_is_refused(run, abstract_dir):
    config = run(("chain", {"trace": "chain", "family": "think"}), cutoff_len=10)
    with pytest.raises(ValueError, match="no question has a trace of 'chain' that fits cutoff_len"):
        build_arms(config, abstract_dir)


def test_the_bottleneck_keeps_its_texts_apart(run, abstract_dir):
    config = run(
        ("given", {"trace": "clusters", "target": "bottleneck"}), ("other", {"trace": "empty"})
    )
    [arm] = build_arms(config, abstract_dir, ["given"])
    rows = read_parquet(arm.path, "abstract").to_pylist()
    assert rows[0] == {
        "question_id": "q000",
        "trace_id": 0,
        "question": rows[0]["question"],
        "trace": "<TOKEN_C><TOKEN_A>",
        "solution": "7",
        "chain": "+5=1*4=4",
        "weight": 1.0,
    }
    info = read_json_object(config.folder("train", "dataset_info.json"), "")
    assert [(name, entry["formatting"]) for name, entry in info.items()] == [
        (arm.path.stem, "abstract")
    ]
    with pytest.raises(ValueError, match="arms has no wrong; it has given, other"):
        build_arms(config, abstract_dir, ["wrong"])


def test_a_chain_that_no_text_tells_from_the_question_is_kept_apart(tmp_path):
    """As in the embedded task, whose model's turn has no opening."""
    arm = ArmConfig(name="a", target="posterior")
    assert not has_texts_apart(arm, make_renderer("chatml", "abstract"))
    values = chat_format_to_dict(make_renderer("chatml").chat_format)
    bare = values | {"name": "bare", "user": "{question}", "assistant": "", "system": ""}
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(bare), encoding="utf-8")
    assert has_texts_apart(arm, make_renderer(str(path), "abstract"))
