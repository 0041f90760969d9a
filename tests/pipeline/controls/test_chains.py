"""The traces that verbal chains give."""

import shutil

import pytest

from variational_reasoning.model_record import write_record
from variational_reasoning.pipeline.clusters import cluster_steps
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.controls.chains import chain_traces, source_of
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import read_rows


@pytest.fixture
def benchmark_of(make_run, tmp_path):
    """A function that gives the run's questions as a benchmark, and a model."""

    def make(model_folder, *words: str, **settings):
        config = load_config(
            make_run(num_questions=4, **settings), ["eval.max_new_tokens=8", *words]
        )
        columns = ["question_id", "question", "check", "trace"]
        questions = read_rows(config.folder("questions"), "questions", columns)
        benchmark = Benchmark("", config.folder("evals", "m"), questions, num_samples=1)
        return benchmark, Model("m", model_folder, config.renderer, config)

    return make


def codec(folder):
    return text_codec(load_tokenizer(str(folder)))


def test_a_verbal_chain_has_the_ids_of_a_training(benchmark_of, tiny_model_dir):
    benchmark, model = benchmark_of(tiny_model_dir)
    encode, decode = codec(tiny_model_dir)
    chains, digests = chain_traces(benchmark, model, encode, decode)
    assert set(digests) == {"chains"}
    for row in benchmark.questions:
        trace = chains[row["question_id"]]
        # This tokenizer merges the trace's period with the tag.
        assert row["trace"].startswith(decode(trace.body)) and decode(trace.body) != row["trace"]
        head, _ = model.renderer.split_target(row["trace"] + model.renderer.boundary)
        assert trace.token_ids == encode(head)
    # Without a chain of its own, a question has no upper bound.
    for row in benchmark.questions:
        row.pop("trace")
    assert chain_traces(benchmark, model, encode, decode) == ({}, {})


SYMBOLS = {"prompt_family": "abstract", "steps": {"pattern": r"[^ ]+ *", "clusters": 4}}


def test_what_auto_is(benchmark_of, tiny_model_dir, abstract_dir, tmp_path):
    _, verbal = benchmark_of(tiny_model_dir, name="verbal")
    assert source_of(verbal) == "chain"
    _, abstract = benchmark_of(abstract_dir, "models.posterior=nowhere", name="abstract", **SYMBOLS)
    assert source_of(abstract) == "none"
    _, both = benchmark_of(abstract_dir, name="both", **SYMBOLS)  # has models/posterior
    assert source_of(both) == "posterior"


@pytest.mark.parametrize("setting, is_abstract", [("chain", True), ("posterior", False)])
def test_sources_that_do_not_fit(benchmark_of, tiny_model_dir, abstract_dir, setting, is_abstract):
    folder, more = (abstract_dir, SYMBOLS) if is_abstract else (tiny_model_dir, {})
    benchmark, model = benchmark_of(folder, f"eval.controls.chain={setting}", **more)
    with pytest.raises(ValueError, match=f"eval.controls.chain: '{setting}' does not fit"):
        chain_traces(benchmark, model, *codec(folder))


def test_the_clusters_of_known_chains_are_found_again(benchmark_of, tiny_model_dir, abstract_dir):
    pytest.importorskip("sklearn")
    benchmark, model = benchmark_of(abstract_dir, "eval.controls.chain=clusters", **SYMBOLS)
    cluster_steps(model.config, tiny_model_dir)
    chains, digests = chain_traces(benchmark, model, *codec(abstract_dir))
    _, decode = codec(abstract_dir)
    known: dict[str, list[int]] = {}
    for row in read_rows(model.config.folder("step_clusters"), "step_clusters"):
        known.setdefault(row["question_id"], []).append(row["cluster"])
    for question_id, trace in chains.items():
        names = "".join(f"<TOKEN_{'ABCD'[symbol]}>" for symbol in known[question_id])
        assert decode(trace.body) == names and decode(trace.closing) == "<endabstract>"
    assert set(chains) == set(known)
    # What auto is goes with the model whose states the clusters are of.
    words = ("eval.controls.chain=auto", "models.posterior=nowhere")
    _, auto = benchmark_of(abstract_dir, *words, run_dir=str(model.config.folder()), **SYMBOLS)
    assert source_of(auto) == "clusters"
    # Again: the table is read, and no model.
    assert chain_traces(benchmark, model, *codec(abstract_dir)) == (chains, digests)


def test_a_posterior_samples_symbols_from_the_chain(benchmark_of, abstract_dir, tmp_path):
    benchmark, model = benchmark_of(
        abstract_dir,
        "eval.controls.chain=posterior",
        f"models.posterior={tmp_path}/posterior",
        "sampling.max_symbols=3",
        "eval.temperature=1.0",
        **SYMBOLS,
    )
    shutil.copytree(abstract_dir, tmp_path / "posterior")
    record = {"prompt_kind": "abstract_posterior"} | model.renderer.to_record()
    write_record(tmp_path / "posterior", record)
    encode, decode = codec(abstract_dir)
    chains, _ = chain_traces(benchmark, model, encode, decode)
    assert set(chains) == {row["question_id"] for row in benchmark.questions}
    assert all(1 <= len(trace.body) <= 3 for trace in chains.values())
    symbols = {encode(f"<TOKEN_{name}>")[0] for name in "ABCD"}
    assert all(set(trace.body) <= symbols for trace in chains.values())
    # A model that was not trained on the chain is refused.
    write_record(tmp_path / "posterior", record | {"prompt_kind": "reasoner"})
    shutil.rmtree(benchmark.folder)
    with pytest.raises(ValueError, match="was trained on the prompt 'reasoner'"):
        chain_traces(benchmark, model, encode, decode)
