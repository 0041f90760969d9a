"""Log-likelihoods against an independent naive computation on full logits, one row at a time."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.conftest import make_model_dir, record_of
from tests.pipeline.test_sample import well_formed_traces
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.model_record import write_record
from variational_reasoning.pipeline import score
from variational_reasoning.pipeline.config import Config, ScoringConfig, load_config
from variational_reasoning.pipeline.engines import (
    context_length,
    load_model,
    load_tokenizer,
    text_codec,
)
from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer
from variational_reasoning.pipeline.rows import Identity, read_manifest, read_rows, write_table
from variational_reasoning.pipeline.sample import sample_answers, sample_traces
from variational_reasoning.pipeline.score import score_traces
from variational_reasoning.pipeline.work.summary import describe_table


def naive(model, token_ids, start, stop, temperature=1.0) -> float:
    """Sum of log p over ids[start:stop], from the logits of the whole row, alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0] / temperature
    logps = torch.log_softmax(logits.double(), dim=-1)
    return sum(float(logps[t - 1, token_ids[t]]) for t in range(start, stop))


def random_rows(num: int = 23) -> list[ScoredSequence]:
    draw = random.Random(0)
    rows = []
    for i in range(num):
        length = draw.randrange(4, 60)
        cuts = sorted(draw.sample(range(1, length + 1), 3))
        ids = [draw.randrange(300) for _ in range(length)]
        rows.append(ScoredSequence((f"q{i}", 0), ids, [(cuts[0], cuts[1]), (cuts[1], cuts[2])]))
    return rows


def settings(**values) -> Config:
    return Config(scoring=ScoringConfig(**values))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_batched_equals_alone_and_naive(tiny_model_dir, dtype, tolerance, temperature):
    model = load_model(str(tiny_model_dir), dtype, "cpu")
    rows = random_rows()
    batched = Scorer(
        model, settings(batch_tokens=300, chunk_positions=7, temperature=temperature)
    ).score(rows)
    alone = [
        Scorer(model, settings(batch_tokens=1, temperature=temperature)).score([row])[0]
        for row in rows
    ]
    wanted = [
        [naive(model, row.token_ids, a, b, temperature) for a, b in row.spans] for row in rows
    ]
    assert torch.allclose(torch.tensor(batched), torch.tensor(alone), rtol=0, atol=tolerance)
    assert torch.allclose(torch.tensor(batched), torch.tensor(wanted), rtol=0, atol=tolerance)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements."""

    num = 0

    def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if isinstance(made, torch.Tensor) and not function.is_view:
            self.num = max(self.num, made.numel())
        return made


def test_logits_exist_for_a_chunk_of_the_needed_positions_only(
    bpe_tokenizer, tmp_path, monkeypatch
):
    model = load_model(
        str(make_model_dir(tmp_path, bpe_tokenizer, vocab_size=9000)), "float32", "cpu"
    )
    rows = [ScoredSequence(("q", k), list(range(k, k + 40)), [(30, 40)]) for k in range(3)]
    scorer = Scorer(model, settings(batch_tokens=10000, chunk_positions=8))
    with Largest() as largest:
        tiled = scorer.score(rows)
    # 8 positions x a tile of 1,024; the body: 3 x 40 positions x 64
    assert largest.num == 8 * 1024 < 30 * 9000
    monkeypatch.setattr("variational_reasoning.pipeline.engines.scorer.VOCABULARY_TILE", 10**6)
    with Largest() as largest:
        whole = scorer.score(rows)
    assert largest.num == 8 * 9000
    assert torch.allclose(torch.tensor(tiled), torch.tensor(whole), rtol=0, atol=1e-4)
    wanted = [[naive(model, row.token_ids, a, b) for a, b in row.spans] for row in rows]
    assert torch.allclose(torch.tensor(tiled), torch.tensor(wanted), rtol=0, atol=1e-4)


def test_no_mask_of_length_squared_is_made(tiny_model_dir):
    """Attention runs its causal kernel; with a mask it could not use flash attention. (300 x 300 >
    300 positions x 64.)
    """
    model = load_model(str(tiny_model_dir), "float32", "cpu", "sdpa")
    scorer = Scorer(model, settings(chunk_positions=8))
    with Largest() as largest:
        scorer.score(
            [ScoredSequence(("q", k), list(range(k, 300 + k)), [(290, 295)]) for k in range(2)]
        )
    assert largest.num < 300 * 300


@pytest.mark.parametrize("step", [64, 1000])
def test_a_longer_padding_changes_nothing(tiny_model_dir, step):
    """As on a GPU, where few shapes are wanted; 64 divides 4,096, the longest text that the model
    has positions for.
    """
    model = load_model(str(tiny_model_dir), "float64", "cpu")
    scorer = Scorer(model, settings(batch_tokens=200))
    scorer.length_step = step
    rows = random_rows(6)
    wanted = [[naive(model, row.token_ids, a, b) for a, b in row.spans] for row in rows]
    assert torch.allclose(torch.tensor(scorer.score(rows)), torch.tensor(wanted), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_layers_give_the_same_numbers(tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32", "cpu")
    rows = random_rows(6)
    wanted = [[naive(model, row.token_ids, a, b) for a, b in row.spans] for row in rows]
    scorer = Scorer(model, settings(batch_tokens=150, compile=True))
    assert torch.allclose(torch.tensor(scorer.score(rows)), torch.tensor(wanted), rtol=0, atol=1e-4)
    assert scorer.execution()["compiled"] is True
    # two layers, one piece of code: once for several rows, once for a row alone
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_a_scale_between_head_and_logits_is_found_by_the_probe():
    class Scaled(LlamaForCausalLM):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = output.logits * 0.25
            return output

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = Scaled(LlamaConfig(vocab_size=400, initializer_range=0.5, **sizes)).eval()
    scorer = Scorer(model, settings(batch_tokens=300))
    assert "whole batches" in scorer.note
    rows = random_rows(5)
    wanted = [[naive(model, row.token_ids, a, b) for a, b in row.spans] for row in rows]
    assert torch.allclose(torch.tensor(scorer.score(rows)), torch.tensor(wanted), rtol=0, atol=1e-4)


def test_empty_spans_and_nan_are_errors_with_the_id(tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32", "cpu")
    scorer = Scorer(model, settings())
    with pytest.raises(ValueError, match=r"\('q7', 3\): nothing to score in the span \[2, 2\)"):
        scorer.score([ScoredSequence(("q7", 3), [1, 2, 3], [(2, 2)])])
    with pytest.raises(ValueError, match=r"span \[0, 2\)"):
        scorer.score([ScoredSequence(("q7", 3), [1, 2, 3], [(0, 2)])])
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(ValueError, match=r"\('q7', 3\): its log-likelihood is \[nan\]"):
        scorer.score([ScoredSequence(("q7", 3), [1, 2, 3], [(1, 3)])])


def test_both_stages_against_naive_numbers(make_run):
    config = load_config(make_run())
    well_formed_traces(config)
    renderer = make_renderer("chatml")
    questions = {
        row["question_id"]: row for row in read_rows(config.folder("questions"), "questions")
    }
    traces = {
        (t["question_id"], t["trace_id"]): t for t in read_rows(config.folder("traces"), "traces")
    }
    for name, kind in (("reasoner", "reasoner"), ("posterior", "posterior_b")):
        summary = score_traces(config, name)
        assert summary.manifest["counts"]["malformed"] == 6 and "12 rows" in describe_table(summary)
        encode, decode = text_codec(load_tokenizer(config.model_folder(name)))
        model = AutoModelForCausalLM.from_pretrained(config.model_folder(name))
        rows = read_rows(config.folder("trace_logps", name), "trace_logps")
        assert [(row["question_id"], row["trace_id"]) for row in rows] == [
            (f"q{i:03d}", k) for i in range(6) for k in (0, 1)
        ]
        for row in rows[:4]:
            question = questions[row["question_id"]]
            hint = question["solution"] if name == "posterior" else None
            prompt_ids = encode(renderer.prompt(kind, question["question"], hint))
            trace_ids = traces[row["question_id"], row["trace_id"]]["token_ids"]
            answer_ids, start, stop = renderer.encode_answer(question["solution"], encode, decode)
            ids = prompt_ids + trace_ids + (answer_ids if name == "reasoner" else [])
            begin, end = len(prompt_ids), len(prompt_ids + trace_ids)
            assert row["trace_tokens"] == len(trace_ids) and row["temperature"] == 1.0
            assert row["trace_logp"] == pytest.approx(naive(model, ids, begin, end), abs=1e-3)
            if name == "reasoner":
                assert row["answer_tokens"] == stop - start
                assert row["answer_logp"] == pytest.approx(
                    naive(model, ids, end + start, end + stop), abs=1e-3
                )
            else:
                assert row["answer_logp"] is None and row["answer_tokens"] is None
        assert "nothing to do" in describe_table(score_traces(config, name))


def test_rows_beyond_cutoff_len_are_dropped_and_all_dropped_is_an_error(make_run):
    path = make_run(num_questions=2)
    config = load_config(path)
    well_formed_traces(config)
    encode, decode = text_codec(load_tokenizer(config.model_folder("reasoner")))
    renderer = make_renderer("chatml")
    lengths = []
    for row in read_rows(config.folder("questions"), "questions"):
        text = (
            renderer.prompt("reasoner", row["question"]),
            "It is 7.<|end_of",
            renderer.chat_format.end_of_turn,
        )
        lengths.append(
            sum(len(encode(t)) for t in text)
            + len(renderer.encode_answer(row["solution"], encode, decode)[0])
        )
    summary = score_traces(load_config(path, [f"cutoff_len={min(lengths)}"]), "reasoner")
    assert summary.manifest["rows"] == 2 and summary.manifest["counts"]["no_room"] == 2
    assert {row["trace_id"] for row in summary.manifest["dropped"]} == {0, 1}
    config = load_config(path, ["cutoff_len=20"])
    with pytest.raises(ValueError, match="was filled from something else"):
        score_traces(config, "reasoner")


def test_unknown_model_names_and_wrong_prompts_are_refused(make_run):
    config = load_config(make_run(num_questions=2))
    well_formed_traces(config)
    with pytest.raises(ValueError, match="model='final' is not one of reasoner, posterior"):
        score_traces(config, "final")
    write_record(config.model_folder("posterior"), record_of("posterior_a"))
    with pytest.raises(ValueError, match="trained on the prompt 'posterior_a'"):
        score_traces(config, "posterior")


def score_file(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/score_file.py", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)


@pytest.mark.slow
def test_a_file_of_texts(tiny_model_dir, tmp_path):
    targets = ["7.", "It is 7,\u2028surely."]  # a line separator inside a text ends no line of JSON
    rows = [
        {"id": i, "prompt": "What is 3 + 4?", "target": target, "further": [i]}
        for i, target in enumerate(targets)
    ]
    source, output = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    source.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    done = score_file(
        f"model={tiny_model_dir}", f"input={source}", f"output={output}", "dtype=float64"
    )
    assert done.returncode == 0, done.stderr
    model = load_model(str(tiny_model_dir), "float64", "cpu")
    encode, _ = text_codec(load_tokenizer(str(tiny_model_dir)))
    for row, line in zip(rows, output.read_text().splitlines(), strict=True):
        scored = json.loads(line)
        prompt_ids, target_ids = encode(row["prompt"]), encode(row["target"])
        ids = prompt_ids + target_ids
        assert scored["id"] == row["id"] and scored["further"] == row["further"]
        assert scored["target_tokens"] == len(target_ids)
        assert scored["target_logp"] == pytest.approx(
            naive(model, ids, len(prompt_ids), len(ids)), abs=1e-9
        )


def test_a_file_with_faults_is_refused_by_line(tiny_model_dir, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(
        '{"id": 1, "prompt": "a", "target": ""}\n{"id": 1, "promt": "a", "target": "b"}\n[\n'
        '{"id": 2, "prompt": "a", "target": "\\ud800"}\n'
    )
    refused = score_file(f"model={tiny_model_dir}", f"input={source}", f"output={tmp_path / 'o'}")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    for part in (
        "line 1: 'target' is ''",
        "line 2: lacks prompt; it holds ['id', 'promt', 'target']",
        "line 3 is not valid JSON",
        "line 4, column 'target' holds '\\ud800', half of a surrogate pair",
    ):
        assert part in refused.stderr
    refused = score_file(
        f"model={tiny_model_dir}", "inptu=x", "temperature=0", f"output={tmp_path}"
    )
    for part in (
        "unknown key 'inptu'",
        "input=... is missing",
        "temperature='0' is not a number above 0",
        "must be a file in a folder",
    ):
        assert part in refused.stderr


def test_a_device_a_kernel_and_weights_that_are_not_there_are_named(tiny_model_dir, tmp_path):
    folder = str(tiny_model_dir)
    with pytest.raises(ValueError, match="device: 'cudaa' is not a device that torch knows"):
        load_model(folder, "float32", "cudaa")
    with pytest.raises(ValueError, match=r"device: 'cuda:99' is not there, torch sees \d+ GPUs"):
        load_model(folder, "float32", "cuda:99")
    with pytest.raises(
        ValueError, match="attention: 'flash_attention_3' cannot be used here; set it to auto"
    ):
        load_model(folder, "float32", "cpu", "flash_attention_3")
    cut = shutil.copytree(tiny_model_dir, tmp_path / "cut")
    with (cut / "model.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(
        ValueError, match=r"the weights in .*cut cannot be read .*copy or train the model again"
    ):
        load_model(str(cut), "float32", "cpu")


def test_texts_beyond_the_models_positions_are_refused(tiny_model_dir, make_run):
    """The tiny model has 4,096; more would be scored far from anything it was trained on, without a
    word.
    """
    scorer = Scorer(load_model(str(tiny_model_dir), "float32", "cpu"), settings())
    with pytest.raises(
        ValueError,
        match=r"\('q7', 3\): 4097 tokens are more than the model has positions for, 4096",
    ):
        scorer.score([ScoredSequence(("q7", 3), [1] * 4097, [(2, 4)])])
    config = load_config(make_run(num_questions=1), ["cutoff_len=4097"])
    well_formed_traces(config)
    for stage in (sample_traces, sample_answers, lambda config: score_traces(config, "reasoner")):
        with pytest.raises(
            ValueError, match=r"cutoff_len is 4097, but .* has positions for 4096 tokens"
        ):
            stage(config)
    assert (
        context_length(
            {"text_config": {"max_position_embeddings": 100, "rope_parameters": {"factor": 4.0}}}
        )
        == 400
    )
    assert (
        context_length({"n_positions": 100}) == 100 and context_length({"hidden_size": 8}) is None
    )


def test_sums_at_the_sampling_temperature_and_token_by_token(make_run):
    path = make_run(num_questions=2)
    well_formed_traces(load_config(path))  # at temperature 1
    traces = load_config(path).folder("traces")
    rows = [row | {"temperature": 0.7} for row in read_rows(traces, "traces")]
    vocabulary = read_manifest(traces, "traces")["vocabulary"]
    shutil.rmtree(traces)
    write_table(traces, "traces", rows, Identity({}, {}), vocabulary=vocabulary)
    config = load_config(path, ["scoring.at_sampling_temperature=true", "scoring.token_logps=true"])
    score_traces(config, "reasoner")
    score_traces(config, "posterior")
    tempered = load_config(path, ["scoring.temperature=0.7", f"run_dir={Path(config.run_dir)}"])
    shutil.move(config.folder("trace_logps"), config.folder("both"))
    score_traces(tempered, "reasoner")
    wanted = {
        (r["question_id"], r["trace_id"]): r
        for r in read_rows(config.folder("trace_logps", "reasoner"), "trace_logps")
    }
    for row in read_rows(config.folder("both", "reasoner"), "trace_logps"):
        other = wanted[row["question_id"], row["trace_id"]]
        assert (row["temperature"], row["sampling_temperature"], other["temperature"]) == (
            1.0,
            0.7,
            0.7,
        )
        assert other["sampling_temperature"] is None and other["trace_token_logps"] is None
        for name in ("trace", "answer"):
            assert row[f"{name}_logp_at_sampling"] == pytest.approx(other[f"{name}_logp"], abs=1e-6)
            assert row[f"{name}_logp"] != row[f"{name}_logp_at_sampling"]
            assert len(row[f"{name}_token_logps"]) == row[f"{name}_tokens"]
            assert sum(row[f"{name}_token_logps"]) == pytest.approx(row[f"{name}_logp"], abs=1e-4)
    assert (
        read_rows(config.folder("both", "posterior"), "trace_logps")[0]["answer_token_logps"]
        is None
    )
    execution = read_manifest(config.folder("both", "reasoner"), "trace_logps")["execution"]
    assert (
        execution["attention"] == "sdpa"
        and execution["dtype"] == "torch.float32"
        and execution["device"] == "cpu"
    )


def test_the_solution_after_the_first_tokens_of_a_trace_and_after_none(make_run):
    config = load_config(make_run(num_questions=2), ["scoring.early_tokens=3"])
    well_formed_traces(config)
    score_traces(config, "reasoner")
    model = AutoModelForCausalLM.from_pretrained(config.model_folder("reasoner"))
    encode, decode = text_codec(load_tokenizer(config.model_folder("reasoner")))
    renderer = config.renderer
    questions = {
        row["question_id"]: row for row in read_rows(config.folder("questions"), "questions")
    }
    traces = {
        (row["question_id"], row["trace_id"]): row["token_ids"]
        for row in read_rows(config.folder("traces"), "traces")
    }
    rows = read_rows(config.folder("trace_logps", "reasoner"), "trace_logps")
    assert len(rows) == 4
    for row in rows:
        question = questions[row["question_id"]]
        prompt = encode(renderer.prompt("reasoner", question["question"]))
        answer, start, stop = renderer.encode_answer(question["solution"], encode, decode)
        boundary = encode(renderer.boundary)
        first = traces[row["question_id"], row["trace_id"]][:3]
        for thought, found in (
            (first + boundary, row["early_answer_logp"]),
            (boundary, row["bare_answer_logp"]),
        ):
            begin = len(prompt) + len(thought)
            wanted = naive(model, prompt + thought + answer, begin + start, begin + stop)
            assert found == pytest.approx(wanted, abs=1e-4)
    score_traces(config, "posterior")  # it has no answer to score
    rows = read_rows(config.folder("trace_logps", "posterior"), "trace_logps")
    assert {row.get("early_answer_logp") for row in rows} == {None}


def test_figures_after_the_first_tokens_that_fail_are_counted_and_the_rows_stay(
    make_run, monkeypatch
):
    config = load_config(make_run(num_questions=2), ["scoring.early_tokens=3"])
    well_formed_traces(config)
    score_batch = Scorer._score_batch

    def fail_early(self, sequences):
        if any("early" in sequence.key for sequence in sequences):
            raise torch.OutOfMemoryError("no room")
        return score_batch(self, sequences)

    monkeypatch.setattr(Scorer, "_score_batch", fail_early)
    summary = score_traces(config, "reasoner")
    rows = read_rows(config.folder("trace_logps", "reasoner"), "trace_logps")
    assert [row["early_answer_logp"] for row in rows] == [None] * 4
    assert all(row["bare_answer_logp"] < 0 for row in rows)
    assert summary.manifest["counts"]["early_failed"] == 4
    assert "failed" not in summary.manifest["counts"]


def test_a_model_may_be_loaded_twice_for_one_job(make_run):
    """A Ray worker that lost its model loads it again."""
    config = load_config(make_run(scoring={"at_sampling_temperature": True}))
    well_formed_traces(config)
    job = score.reasoner_job(config)
    temperatures = [job.load().scorer.temperatures for _ in range(2)]
    assert temperatures == [(1.0, 1.0)] * 2


def test_only_traces_with_a_verified_answer_are_scored_on_request(make_run):
    path = make_run(num_questions=3)
    config = load_config(path, ["scoring.score_only=verified"])
    well_formed_traces(config)
    with pytest.raises(ValueError, match="the table verdicts is not there"):
        score_traces(config, "reasoner")
    # q000: trace 0 has a verified answer, trace 1 none; q001: none has; q002 was not judged at all
    judged = {
        ("q000", 0, 0): "wrong",
        ("q000", 0, 1): "correct",
        ("q000", 1, 0): "wrong",
        ("q001", 0, 0): "wrong",
    }
    judged[("q001", 1, 0)] = "timeout"
    rows = [
        dict(zip(("question_id", "trace_id", "answer_id"), key, strict=True))
        | {"verdict": v, "reason": "", "seconds": 0.0, "tier": ""}
        for key, v in judged.items()
    ]
    write_table(config.folder("verdicts"), "verdicts", rows, Identity({}, {}))
    summary = score_traces(config, "reasoner")
    keys = [
        (r["question_id"], r["trace_id"])
        for r in read_rows(config.folder("trace_logps", "reasoner"), "trace_logps")
    ]
    assert (
        keys == [("q000", 0), ("q002", 0), ("q002", 1)]
        and summary.manifest["counts"]["zero_accuracy"] == 3
    )
    # a fallback to GML may choose among the traces of a question without any verified answer
    output = "build.outputs=[{name: a, fallback: gml}]"
    shutil.rmtree(config.folder("trace_logps"))
    summary = score_traces(load_config(path, ["scoring.score_only=verified", output]), "reasoner")
    assert (
        summary.manifest["counts"]["zero_accuracy"] == 1
        and summary.manifest["config"]["kept_for_fallback"] is True
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(tiny_model_dir, dtype):
    rows = random_rows(8)
    half = Scorer(load_model(str(tiny_model_dir), dtype, "cpu"), settings(batch_tokens=300)).score(
        rows
    )
    full = Scorer(
        load_model(str(tiny_model_dir), "float32", "cpu"), settings(batch_tokens=300)
    ).score(rows)
    for row, a, b in zip(rows, half, full, strict=True):
        for (start, stop), x, y in zip(row.spans, a, b, strict=True):
            assert abs(x - y) / (stop - start) < 0.1


@pytest.mark.parametrize(("attention", "tolerance"), [("eager", 1e-5), ("sdpa", 1e-9)])
def test_right_padding_without_a_mask_changes_nothing(tiny_model_dir, attention, tolerance):
    """One long row makes all others padded; float64, but the eager kernel takes its softmax in
    float32.
    """
    model = load_model(str(tiny_model_dir), "float64", "cpu", attention)
    rows = [*random_rows(6), ScoredSequence(("long", 0), list(range(250)), [(3, 250)])]
    together = Scorer(model, settings(batch_tokens=10000)).score(rows)
    for row, sums in zip(rows, together, strict=True):
        wanted = [naive(model, row.token_ids, a, b) for a, b in row.spans]
        assert torch.allclose(torch.tensor(sums), torch.tensor(wanted), rtol=0, atol=tolerance)


ON_DISK = dict.fromkeys(
    ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.norm"), "cpu"
)
ON_DISK |= {"model.layers.1": "disk", "lm_head": "disk"}


@pytest.mark.parametrize("parts", ["auto", ON_DISK], ids=["auto", "disk"])
def test_a_model_that_is_split_over_devices_has_the_same_numbers(tiny_model_dir, tmp_path, parts):
    """scoring.device: split, and the same with layers and head elsewhere, which accelerate's hooks
    fetch for each call.
    """
    whole = load_model(str(tiny_model_dir), "float64", "cpu")
    if parts == "auto":
        model = load_model(str(tiny_model_dir), "float64", "split")
    else:
        options = {"offload_folder": tmp_path, "dtype": torch.float64}
        model = AutoModelForCausalLM.from_pretrained(
            tiny_model_dir, device_map=parts, **options
        ).eval()
        assert model.lm_head.weight.is_meta
    rows = random_rows(6)
    scorer = Scorer(model, settings(batch_tokens=200))
    assert not scorer.note
    wanted = [[naive(whole, row.token_ids, a, b) for a, b in row.spans] for row in rows]
    assert torch.allclose(torch.tensor(scorer.score(rows)), torch.tensor(wanted), rtol=0, atol=1e-9)
