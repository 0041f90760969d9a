"""Our data formats through the host's data loading: texts, ids, weights, lengths, streams."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variational_reasoning.method.abstract import BEGIN, END, symbol_names
from variational_reasoning.method.losses import IGNORE_INDEX
from variational_reasoning.method.prompts import make_renderer

from .conftest import ROWS, make_model, make_tokenizer
from .reference import row_ids

QUESTION, TRACE, SOLUTION = "What is 2 + 2?", "Two and two.", "4"


@pytest.fixture
def load(monkeypatch, tmp_path):
    """The training data as the host tokenizes it: (data set, training_args, tokenizer)."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner  # noqa: F401, the entry that activates the plugin

    def load(config):
        model_args, data_args, training_args, _, _ = get_train_args(config)
        module = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
        data = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
        return data["train_dataset"], training_args, module["tokenizer"]

    return load


def target(example) -> list[int]:
    return [label for label in example["labels"] if label != IGNORE_INDEX]


@pytest.mark.parametrize("kind", ["reasoner", "posterior_a", "posterior_b"])
@pytest.mark.parametrize("chat_format", ["chatml", "llama3"])
def test_reasoning_rows_are_rendered_by_the_one_renderer(world, load, kind, chat_format):
    dataset, _, tokenizer = load(world.config(prompt_kind=kind, chat_format=chat_format))
    renderer = make_renderer(chat_format)
    for example, (question, trace, solution, weight) in zip(dataset, ROWS, strict=True):
        prompt, response = renderer.render(kind, question, trace, solution)
        assert (
            tokenizer.decode(example["input_ids"])
            == prompt + response + renderer.chat_format.end_of_turn
        )
        assert tokenizer.decode(target(example)) == response + renderer.chat_format.end_of_turn
        assert example["row_weights"] == [weight]


@pytest.mark.parametrize("kind", ["reasoner", "posterior"])
def test_rows_of_another_prompt_family(world, load, kind):
    config = world.config(prompt_kind=kind, chat_format="chatml", prompt_family="think")
    dataset, _, tokenizer = load(config)
    renderer = make_renderer("chatml", "think")
    for example, (question, trace, solution, _) in zip(dataset, ROWS, strict=True):
        prompt, response = renderer.render(kind, question, trace, solution)
        assert tokenizer.decode(example["input_ids"]) == prompt + response + "<|im_end|>"
        assert tokenizer.decode(target(example)) == response + "<|im_end|>"


def test_ids_are_those_of_the_independent_rendering(world, load):
    dataset, _, tokenizer = load(world.config())
    for example, (*texts, _) in zip(dataset, ROWS, strict=True):
        prompt_ids, target_ids = row_ids(tokenizer, *texts)
        assert example["input_ids"] == prompt_ids + target_ids
        assert target(example) == target_ids
        assert example["row_targets"] == [len(target_ids)]


def test_weighted_rows_are_taken_as_they_are_and_closed_once(world, load):
    rows = [{"prompt": "P", "response": "R"}, {"prompt": "P", "response": "R<|im_end|>"}]
    world.add("texts", rows, formatting="weighted_sft")
    dataset, _, tokenizer = load(world.config(dataset="texts", prompt_kind=None))
    assert [tokenizer.decode(example["input_ids"]) for example in dataset] == ["PR<|im_end|>"] * 2
    assert [example["row_weights"] for example in dataset] == [[1.0], [1.0]]


def test_a_published_schema_trains_as_it_is(world, load):
    # prompt, response, source, average_correctness: no weight, columns that nobody asked for.
    prompt, response = make_renderer("chatml").render("posterior_b", QUESTION, TRACE, SOLUTION)
    rows = [
        {"prompt": prompt, "response": response, "source": s, "average_correctness": 0.5}
        for s in (-2, -1, 3)
    ]
    world.add("published", rows, formatting="weighted_sft")
    dataset, _, tokenizer = load(world.config(dataset="published", prompt_kind="posterior_b"))
    assert [tokenizer.decode(target(example)) for example in dataset] == [
        response + "<|im_end|>"
    ] * 3


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_file_types_and_streams(world, load, suffix, streaming):
    rows = [
        dict(zip(("q", "t", "s", "w"), row, strict=True)) | {"question_id": i}
        for i, row in enumerate(ROWS)
    ]
    path = world.data / f"other.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if suffix == "json" else "\n".join(json.dumps(row) for row in rows)
        path.write_text(text, encoding="utf-8")
    world.info["other"] = {
        "file_name": path.name,
        "formatting": "reasoning",
        "columns": {"question": "q", "trace": "t", "solution": "s", "weight": "w"},
    }
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    extra = {"streaming": True, "dataloader_num_workers": 1, "buffer_size": 1} if streaming else {}
    dataset, _, _ = load(world.config(dataset="other", **extra))
    examples = list(dataset)
    assert [example["row_weights"][0] for example in examples] == [row[3] for row in ROWS]
    assert [example["question_id"] for example in examples] == [[str(i)] for i in range(8)]
    assert examples[2]["row_names"] == ["other.jsonl row 3, question_id 2".replace("jsonl", suffix)]


def test_a_hub_data_set_goes_through_the_same_path(world, load, tmp_path):
    # `datasets` loads a local folder by the same call as a hub name.
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    prompt, response = make_renderer("chatml").render("reasoner", QUESTION, TRACE, SOLUTION)
    pq.write_table(
        pa.Table.from_pylist([{"prompt": prompt, "response": response}] * 2),
        folder / "train.parquet",
    )
    world.info["hub"] = {"hf_hub_url": str(folder), "formatting": "weighted_sft"}
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    dataset, arguments, tokenizer = load(world.config(dataset="hub"))
    assert tokenizer.decode(target(dataset[1])) == response + "<|im_end|>"
    assert arguments.variational.sources == {"hub": {"name": str(folder)}}


def test_mixed_with_the_hosts_formats(world, load):
    stock = [{"instruction": "Say a.", "output": "a"}]
    world.add("stock", stock, columns={"prompt": "instruction", "response": "output"})
    dataset, arguments, tokenizer = load(world.config(dataset="rows,stock", template="qwen"))
    assert len(dataset) == 9
    last = dataset[8]
    assert last["row_weights"] == [1.0] and last["question_id"] == [None]
    assert tokenizer.decode(target(last)) == "a<|im_end|>\n"
    assert "Say a." in tokenizer.decode(last["input_ids"])
    assert arguments.variational.facts.rows == 9


@pytest.mark.parametrize(("policy", "kept"), [("drop", 7), ("truncate", 8)])
def test_rows_longer_than_cutoff_len(world, load, policy, kept):
    dataset, _, tokenizer = load(world.config())
    lengths = [len(example["input_ids"]) for example in dataset]
    cutoff = sorted(lengths)[-2]
    dataset, arguments, _ = load(world.config(cutoff_len=cutoff, overlong=policy))
    assert len(dataset) == kept
    assert arguments.variational.facts.dropped == 8 - kept
    assert max(len(example["input_ids"]) for example in dataset) == cutoff


def test_overlong_error_names_the_row(world, load):
    with pytest.raises(
        ValueError,
        match=r"rows.jsonl row 1, question_id q0: \d+ \+ \d+ tokens do not fit cutoff_len 300",
    ):
        load(world.config(cutoff_len=300, overlong="error"))


def test_all_rows_too_long_says_so(world, load):
    with pytest.raises(RuntimeError) as caught:
        load(world.config(cutoff_len=300))
    assert "rows longer than cutoff_len 300 are dropped" in "".join(caught.value.__notes__)


def test_packs_hold_every_row_once_with_its_weight(world, load):
    singles, _, _ = load(world.config())
    packs, arguments, tokenizer = load(world.config(packing=True, cutoff_len=1000))
    assert arguments.variational.facts.rows == 8
    assert 1 < len(packs) < 8
    seen = {}
    for pack in packs:
        assert {
            len(pack[name]) for name in ("input_ids", "labels", "attention_mask", "position_ids")
        } == {1000}
        targets, start = target(pack), 0
        for number, (name, weight, count) in enumerate(
            zip(pack["row_names"], pack["row_weights"], pack["row_targets"], strict=True), 1
        ):
            positions = [
                p
                for p, mark in zip(pack["position_ids"], pack["attention_mask"], strict=True)
                if mark == number
            ]
            assert positions == list(range(len(positions)))
            seen[name] = (weight, targets[start : start + count])
            start += count
        assert start == len(targets)
    assert seen == {
        single["row_names"][0]: (single["row_weights"][0], target(single)) for single in singles
    }


def test_tokenized_rows_are_cached_across_trainings_but_not_across_contents(world, load):
    # What a training does with the rows must not tokenize them again; other weights must.
    def cache_files(**overrides):
        dataset, _, _ = load(world.config(overwrite_cache=False, **overrides))
        return [entry["filename"] for entry in dataset.cache_files], [
            row["row_weights"] for row in dataset
        ]

    files, weights = cache_files()
    assert cache_files(learning_rate=0.5, output_dir=str(world.root / "other")) == (files, weights)
    world.add_rows("rows", [(*row[:3], 0.5) for row in ROWS])
    other_files, other_weights = cache_files()
    assert other_files != files and other_weights == [[0.5]] * 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-0.5, "row 2, column 'weight': -0.5 is not a finite number of zero or more"),
        (math.nan, "row 2, column 'weight': nan is not a finite number of zero or more"),
        (math.inf, "row 2, column 'weight': inf is not a finite number of zero or more"),
        (None, "row 2, column 'weight': needs a number, holds NoneType None"),
    ],
)
def test_bad_weights_are_errors_with_the_rows_number(world, load, value, expected):
    world.add_rows("bad", [ROWS[0], (*ROWS[1][:3], value), ROWS[2]])
    with pytest.raises(ValueError, match="data set 'bad.jsonl'") as caught:
        load(world.config(dataset="bad"))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((QUESTION, "", SOLUTION, 1.0), "row 2, column 'trace': is empty"),
        ((QUESTION, TRACE, "  ", 1.0), "row 2, column 'solution': is empty"),
        ((QUESTION, TRACE, None, 1.0), "row 2, column 'solution': needs text, holds NoneType None"),
    ],
)
def test_bad_texts_are_errors_with_row_and_column(world, load, row, expected):
    world.add_rows("bad", [ROWS[0], row])
    with pytest.raises(ValueError, match="data set 'bad.jsonl'") as caught:
        load(world.config(dataset="bad"))
    assert expected in str(caught.value)


def test_another_kinds_row_in_the_middle(world, load):
    renderer = make_renderer("chatml")
    pairs = [
        renderer.render(kind, QUESTION, TRACE, SOLUTION) for kind in ("posterior_b", "reasoner")
    ]
    world.add("mix", [{"prompt": p, "response": r} for p, r in pairs], formatting="weighted_sft")
    with pytest.raises(
        ValueError, match="row 2, column 'prompt': is laid out for reasoner, but the YAML says"
    ):
        load(world.config(dataset="mix", prompt_kind="posterior_b"))


def test_weights_without_the_loss_are_refused(world, load):
    with pytest.raises(
        ValueError,
        match="weights from 0 to 1, which the host's own loss would ignore; set `constant_loss",
    ):
        load(world.config(constant_loss_normalizer=None))


def test_weights_of_an_evaluation_set_without_the_loss_are_refused(world, load):
    world.add_rows("ones", [(*row[:3], 1.0) for row in ROWS])
    config = world.config(dataset="ones", constant_loss_normalizer=None, do_eval=True)
    with pytest.raises(ValueError, match="an evaluation set has weights from 0 to 1, which the"):
        load(config | {"eval_dataset": "rows", "eval_strategy": "no"})
    load(config | {"eval_dataset": "ones"})


STREAM = {"streaming": True, "dataloader_num_workers": 1, "buffer_size": 1}


def test_weights_in_a_stream_without_the_loss_are_refused_where_they_are_read(world, load):
    world.add_rows("ones", [(*row[:3], 1.0) for row in ROWS])
    config = world.config(constant_loss_normalizer=None, **STREAM)
    assert len(list(load(config | {"dataset": "ones"})[0])) == 8
    world.add_rows("late", [(*row[:3], 1.0) for row in ROWS[:7]] + [ROWS[7]])
    with pytest.raises(
        ValueError,
        match="late.jsonl row 8, question_id q7: has the weight 0.875, which the host's own loss",
    ):
        list(load(config | {"dataset": "late", "preprocessing_batch_size": 2})[0])


def stock_rows(world, count: int) -> None:
    rows = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(count)]
    world.add("stock", rows, columns={"prompt": "instruction", "response": "output"})


@pytest.mark.parametrize("packing", [False, True])
def test_ids_that_only_one_workers_rows_have(world, load, packing):
    # huggingface/datasets#8046: of two workers, one sees rows with ids and the other none at all.
    stock_rows(world, 8)
    config = world.config(dataset="rows,stock", template="qwen", preprocessing_num_workers=2)
    dataset, _, _ = load(config | {"packing": packing})
    ids = [question_id for example in dataset for question_id in example["question_id"]]
    assert sorted(ids, key=str) == [None] * 8 + [f"q{i}" for i in range(8)]


def test_ids_that_begin_after_the_first_batch(world, load):
    rows = [dict(zip(("question", "trace", "solution"), ROWS[3][:3], strict=True))] * 6
    ids = [None] * 5 + ["last"]
    rows = [row | {"question_id": name} for row, name in zip(rows, ids, strict=True)]
    world.add("late", rows, formatting="reasoning")
    dataset, _, _ = load(world.config(dataset="late", preprocessing_batch_size=2))
    assert [example["question_id"] for example in dataset] == [[name] for name in ids]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("overlong_first", [False, True])
def test_a_batch_whose_rows_are_all_too_long(world, load, packing, overlong_first):
    # huggingface/datasets#6188: such a batch gave no column at all.
    long = ("What?", "word " * 1000, "1", 1.0)
    rows = [long, *ROWS] if overlong_first else [*ROWS, long]
    world.add_rows("some", rows)
    config = world.config(dataset="some", cutoff_len=1000, packing=packing)
    dataset, run, _ = load(config | {"preprocessing_batch_size": 1})
    facts = run.variational.facts
    assert (len(dataset), facts.rows, facts.dropped) == (8, 8, 1)


@pytest.mark.parametrize("seed", range(1, 7))
def test_streams_that_begin_with_a_stock_row(world, load, seed):
    stock_rows(world, 8)
    config = world.config(dataset="stock,rows", template="qwen", seed=seed, **STREAM)
    mixed = {"mix_strategy": "interleave_over", "interleave_probs": "0.5,0.5"}
    dataset, _, _ = load(config | mixed)
    examples = list(dataset)
    assert len({tuple(example) for example in examples}) == 1
    assert not [name for name in examples[0] if name.startswith("_")]
    weights = [example["row_weights"] for example in examples]
    assert [row[3] for row in ROWS if [row[3]] not in weights] == []
    concatenated, _, _ = load(config)
    assert len(list(concatenated)) == 16


@pytest.mark.parametrize("cutoff_len", [0, 1, 3])
def test_packs_keep_a_row_of_exactly_cutoff_len(world, load, cutoff_len):
    # Whether or not cutoff_len is a multiple of 8, to which the host's collator pads ids only.
    singles, _, _ = load(world.config())
    longest = max(len(single["input_ids"]) for single in singles)
    packs, run, _ = load(world.config(packing=True, cutoff_len=longest + cutoff_len))
    assert run.variational.facts.dropped == 0
    lengths = {len(pack[name]) for pack in packs for name in ("input_ids", "position_ids")}
    assert lengths == {-(-(longest + cutoff_len) // 8) * 8}
    if cutoff_len == 0:
        _, run, _ = load(world.config(packing=True, cutoff_len=longest - 1))
        assert run.variational.facts.dropped == 1


def test_rows_that_the_host_samples_keep_their_number_in_the_file(world, load):
    world.info["rows"]["num_samples"] = 5
    (world.data / "dataset_info.json").write_text(json.dumps(world.info), encoding="utf-8")
    dataset, _, _ = load(world.config(max_samples=4))
    names = [example["row_names"][0] for example in dataset]
    assert len(set(names)) == 4
    for name in names:
        number = int(name.split("question_id q")[1])
        assert name == f"rows.jsonl row {number + 1}, question_id q{number}"


def test_rows_of_a_streams_shard_are_named_as_such(world, load):
    world.add_rows("bad", [ROWS[0], ROWS[1], ROWS[2], (*ROWS[3][:3], -1.0)])
    stream = STREAM | {"dataloader_num_workers": 2}
    with pytest.raises(ValueError, match="data set 'bad.jsonl', row 2 of a shard of the stream, "):
        list(load(world.config(dataset="bad", **stream))[0])


def test_an_end_of_turn_that_the_tokenizer_does_not_know_is_warned_of(world, load, host_log):
    load(world.config(chat_format="llama3"))
    assert "no token for '<|eot_id|>', the end of turn of chat_format llama3" in host_log.text
    host_log.clear()
    load(world.config())
    assert "no token" not in host_log.text


def test_a_missing_column_of_a_hub_like_source_is_named(world, load):
    world.add(
        "short",
        [{"question": "a", "trace": "b"}],
        formatting="reasoning",
        columns={"solution": "answer"},
    )
    with pytest.raises(
        ValueError, match="column 'answer' \\(solution\\) is missing; the file has question, trace"
    ):
        load(world.config(dataset="short"))


ABSTRACT = [
    # question, chain, trace, solution, weight
    ("What is 2 + 2?", "\nTwo and two.", "<TOKEN_B><TOKEN_A>", "4", 0.5),
    ("Say x.", "It says x.", "", "x", 2.0),  # an empty span
]


@pytest.fixture
def abstract_world(world):
    """The world with a tokenizer that has three symbols, and rows of them."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer(world.root / "symbols")
    names = (BEGIN, END, *symbol_names(3))
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
    tokenizer.save_pretrained(world.root / "symbols")
    make_model(world.root / "symbols", len(tokenizer))
    names = ("question", "chain", "trace", "solution", "weight")
    rows = [dict(zip(names, row, strict=True)) for row in ABSTRACT]
    world.add("abstract", rows, formatting="abstract")
    return world


def abstract_config(world, kind, **overrides):
    values = {
        "model_name_or_path": str(world.root / "symbols"),
        "dataset": "abstract",
        "prompt_family": "abstract",
        "prompt_kind": kind,
    }
    return world.config(**(values | overrides))


@pytest.mark.parametrize("kind", ["reasoner", "abstract_posterior", "abstract_bottleneck"])
def test_rows_of_abstract_traces(abstract_world, load, kind):
    dataset, _, tokenizer = load(abstract_config(abstract_world, kind))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False) if text else []

    for example, row in zip(dataset, ABSTRACT, strict=True):
        question, chain, trace, solution, weight = row
        x = encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        c = encode(chain) if kind != "reasoner" else []
        z = encode(trace + END)
        answer = (
            encode("<|im_end|>")
            if kind == "abstract_posterior"
            else encode(solution + "<|im_end|>")
        )
        lead = encode("\n") if kind != "abstract_posterior" else []
        assert example["input_ids"] == x + c + encode(BEGIN) + z + lead + answer
        # Symbols, end, answer and end of turn carry loss; the begin delimiter and the separator,
        # which are never sampled, do not.
        ignored = [IGNORE_INDEX] * (len(x) + len(c) + 1)
        assert example["labels"] == ignored + z + [IGNORE_INDEX] * len(lead) + answer
        assert example["row_segments"] == [len(x), len(c), 1 + len(z), len(lead + answer)]
        assert (example["row_weights"], example["row_targets"]) == (
            [weight],
            [len(z + answer)],
        )


def test_weighted_rows_of_the_bottleneck_have_the_same_ids(abstract_world, load):
    renderer = make_renderer("chatml", "abstract")
    rows = []
    for question, chain, trace, solution, weight in ABSTRACT:
        texts = renderer.render("abstract_bottleneck", question, trace, solution, chain)
        rows.append(dict(zip(("prompt", "response"), texts, strict=True)) | {"weight": weight})
    abstract_world.add("texts", rows, formatting="weighted_sft")
    config = abstract_config(abstract_world, "abstract_bottleneck")
    rendered, _, _ = load(config)
    taken, _, _ = load(config | {"dataset": "texts"})
    for name in ("input_ids", "labels", "row_segments"):
        assert taken[name] == rendered[name]


def test_segments_of_a_pack_and_of_a_cut_row(abstract_world, load):
    config = abstract_config(abstract_world, "abstract_bottleneck")
    whole, _, _ = load(config)
    segments = [example["row_segments"] for example in whole]
    packed, _, _ = load(config | {"packing": True, "neat_packing": True})
    [pack] = packed
    assert sorted([pack["row_segments"][:4], pack["row_segments"][4:]]) == sorted(segments)
    # Without its last token, the end of turn; and down to the trace.
    length = len(whole[0]["input_ids"])
    for lost, answer in ((1, segments[0][3] - 1), (segments[0][3] + 1, 0)):
        cut, _, _ = load(config | {"cutoff_len": length - lost, "overlong": "truncate"})
        found = cut[0]["row_segments"]
        assert sum(found) == length - lost == len(cut[0]["labels"])
        assert found[:2] == segments[0][:2] and found[3] == answer


@pytest.mark.parametrize("packing", [False, True])
def test_a_chain_is_cut_from_the_right_until_its_row_fits(abstract_world, load, packing):
    """The second row is short. The first loses the end of c, never a token of x, z or y."""
    chain = "One, two, three, four, five, six, seven, eight."
    names = ("question", "chain", "trace", "solution", "weight")
    rows = [dict(zip(names, row, strict=True)) for row in ABSTRACT]
    rows[0]["chain"] = chain
    abstract_world.add("abstract", rows, formatting="abstract")
    config = abstract_config(abstract_world, "abstract_bottleneck", overlong="cut_chain")
    whole, arguments, _ = load(config)
    assert (arguments.variational.facts.cut, arguments.variational.facts.dropped) == (0, 0)
    first, second = whole
    x, c, z, y = first["row_segments"]
    length = x + c + z + y
    assert c >= 8 and length - c + 1 < len(second["input_ids"]) + c
    for num_cut in (1, 3):
        cutoff = length - num_cut
        packs = {"packing": True, "neat_packing": True} if packing else {}
        found, arguments, tokenizer = load(config | packs | {"cutoff_len": cutoff})
        facts = arguments.variational.facts
        assert (facts.rows, facts.dropped, facts.cut) == (2, 0, 1)
        assert facts.describe_length() == (
            "dropped 0 rows longer than cutoff_len, cut the verbal chain of 1 rows to fit it"
        )
        [row] = [row for row in found if sum(row["row_segments"][:4]) == cutoff]
        assert row["row_segments"][:4] == [x, c - num_cut, z, y]
        assert row["row_cuts"][0] == num_cut
        for name in ("input_ids", "labels"):
            ids = first[name]
            assert row[name][:cutoff] == ids[: x + c - num_cut] + ids[x + c :]
    # One token of c is the least; a row that needs more is dropped and counted.
    short, arguments, _ = load(config | {"cutoff_len": length - c + 1})
    assert short[0]["row_segments"] == [x, 1, z, y]
    shorter, arguments, _ = load(config | {"cutoff_len": length - c})
    facts = arguments.variational.facts
    assert len(shorter) == facts.rows == 2 - facts.dropped
    assert facts.dropped >= 1 and [x, 0, z, y] not in list(shorter["row_segments"])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("trace", "Two.", "column 'trace': needs symbols such as <TOKEN_A> and nothing else"),
        ("chain", "a<endabstract>b", "column 'chain': holds '<endabstract>', which only a trace"),
        ("solution", "<TOKEN_A>", "column 'solution': holds '<TOKEN_', which only a trace"),
        ("chain", None, "column 'chain': needs text, holds NoneType"),
    ],
)
def test_abstract_rows_that_do_not_fit(abstract_world, load, column, value, message):
    names = ("question", "chain", "trace", "solution", "weight")
    rows = [dict(zip(names, row, strict=True)) for row in ABSTRACT]
    rows[1][column] = value
    abstract_world.add("abstract", rows, formatting="abstract")
    with pytest.raises(ValueError, match=message):
        load(abstract_config(abstract_world, "abstract_bottleneck"))


def test_a_chain_that_a_file_does_not_have(abstract_world, load):
    rows = [{"question": "Q", "trace": "<TOKEN_A>", "solution": "y"}]
    abstract_world.add("abstract", rows, formatting="abstract")
    dataset, _, _ = load(abstract_config(abstract_world, "reasoner"))  # does not need it
    assert len(dataset) == 1
    with pytest.raises(ValueError, match="shows the verbal chain, but the file has no column 'cha"):
        load(abstract_config(abstract_world, "abstract_posterior"))


def test_the_hosts_vocabulary_keys_are_refused_for_a_model_with_symbols(abstract_world, load):
    config = abstract_config(abstract_world, "reasoner")
    with pytest.raises(ValueError, match="resize_vocab: the model has the tokens of abstract"):
        load(config | {"resize_vocab": True})


@pytest.mark.slow
def test_a_later_round_keeps_the_trained_rows(abstract_world, run_exp):
    """Two trainings, the second from the folder that the first saved, with a learning rate of
    zero: what it saves is what the first one trained, symbols included.
    """
    import torch
    from transformers import AutoTokenizer

    config = abstract_config(abstract_world, "abstract_posterior", learning_rate=0.1)
    run_exp(config)
    first = abstract_world.weights()
    start = abstract_world.weights(abstract_world.root / "symbols")
    table = "model.embed_tokens.weight"
    symbol = AutoTokenizer.from_pretrained(abstract_world.root / "out").get_vocab()["<TOKEN_B>"]
    assert not torch.equal(first[table][symbol], start[table][symbol])  # trained
    later = {"model_name_or_path": config["output_dir"], "learning_rate": 0.0}
    run_exp(config | later | {"output_dir": str(abstract_world.root / "later")})
    second = abstract_world.weights(abstract_world.root / "later")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name])
