"""Extending a model by the symbols of abstract traces."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, make_bpe_tokenizer, make_model_dir
from variational_reasoning.method.abstract import BEGIN, END, symbol_names
from variational_reasoning.model_record import read_record
from variational_reasoning.pipeline.options import read_options
from variational_reasoning.pipeline.vocabulary import ExtendOptions, extend, vocabulary_of


def options(**values) -> ExtendOptions:
    words = [f"{name}={value}" for name, value in values.items()]
    return read_options("usage", ExtendOptions, words)


def load(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [0, 100])  # beyond the vocabulary: the table grows, or has room
def test_a_model_is_extended(tmp_path, tied, rows):
    import torch

    tokenizer = make_bpe_tokenizer()
    num_before = len(tokenizer)
    shape = {"vocab_size": num_before + rows, "tie_word_embeddings": tied}
    base = make_model_dir(tmp_path / "base", tokenizer, record={"prompt_kind": "reasoner"}, **shape)
    out = tmp_path / "out"
    vocabulary = extend(options(base=base, out=out, symbols=10))

    model, tokenizer = load(out)
    assert vocabulary_of(tokenizer, "out") == vocabulary
    first = num_before
    assert (vocabulary.begin_id, vocabulary.end_id) == (first, first + 1)
    assert vocabulary.symbol_ids == tuple(range(first + 2, first + 12))
    text = f"{BEGIN}<TOKEN_C><TOKEN_J>{END}"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == [first, first + 4, first + 11, first + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text  # no decoding drops a trace

    old, _ = load(base)
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert (tables[0] is tables[1]) == tied == model.config.tie_word_embeddings
    before = [old.get_input_embeddings().weight, old.get_output_embeddings().weight]
    for table, was in zip(tables, before, strict=True):
        assert len(table) >= num_before + 12
        assert rows == 0 or len(table) == num_before + rows  # used in place
        assert torch.equal(table[:num_before], was[:num_before])
        distance = table[first : first + 12] - was[:num_before].mean(dim=0)
        assert 0.5e-3 < distance.std() < 2e-3  # noise of 0.001
    record = read_record(out)
    assert record["prompt_kind"] == "reasoner"
    assert record["trace_vocabulary"]["symbol_ids"] == [first + 2, first + 11]


def test_rows_that_begin_as_the_steps_of_a_cluster(tmp_path, tiny_model_dir):
    clusters = tmp_path / "clusters.json"
    clusters.write_text(json.dumps({"clusters": [{"5": 3, "9": 1}, {"7": 2}]}))
    out = tmp_path / "out"
    words = {"base": tiny_model_dir, "out": out, "symbols": 2, "clusters": clusters}
    vocabulary = extend(options(**words, init="steps", noise=1e-9))
    rows = load(out)[0].get_input_embeddings().weight
    first, second = vocabulary.symbol_ids
    assert rows[first].tolist() == pytest.approx(
        (0.75 * rows[5] + 0.25 * rows[9]).tolist(), abs=1e-6
    )
    assert rows[second].tolist() == pytest.approx(rows[7].tolist(), abs=1e-6)

    clusters.write_text(json.dumps({"clusters": [{"5": 3}]}))
    with pytest.raises(ValueError, match="holds 1 clusters, not one for each of 2 symbols"):
        extend(options(**words | {"out": tmp_path / "b"}, init="steps"))
    clusters.write_text(json.dumps({"clusters": [{"5": 3}, {"99999": 1}]}))
    with pytest.raises(ValueError, match="cluster 1: '99999': 1 is not a token id below"):
        extend(options(**words | {"out": tmp_path / "b"}, init="steps"))
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob(".*"))


def test_a_head_of_its_own(tmp_path):
    """untie=true: head and embedding are equal and apart, also after save and reload."""
    import torch

    shape = {"tie_word_embeddings": True}
    base = make_model_dir(tmp_path / "base", make_bpe_tokenizer(), **shape)
    extend(options(base=base, out=tmp_path / "out", symbols=2, untie="true", init="zeros"))
    model, _ = load(tmp_path / "out")
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert table is not head and torch.equal(table, head)
    assert not model.config.tie_word_embeddings
    with torch.no_grad():
        head += 1
    model.save_pretrained(tmp_path / "again")
    again, _ = load(tmp_path / "again")
    assert torch.equal(again.get_output_embeddings().weight, head)
    assert torch.equal(again.get_input_embeddings().weight, table)


def test_what_is_refused(tmp_path, tiny_model_dir):
    out = tmp_path / "out"
    extend(options(base=tiny_model_dir, out=out, symbols=2, init="zeros"))
    with pytest.raises(
        ValueError, match="already has <beginabstract>, <endabstract>, <TOKEN_A> an"
    ):
        extend(options(base=out, out=tmp_path / "twice"))
    with pytest.raises(ValueError) as caught:
        options(base=tmp_path, out=out, init="steps", symbols=0)
    for part in ("no config.json", "exists; choose a new folder", "symbols='0'", "clusters=FILE"):
        assert part in str(caught.value)
    small = make_model_dir(tmp_path / "small", make_bpe_tokenizer(), vocab_size=300)
    with pytest.raises(ValueError, match="has 300 rows, fewer than its tokenizer's 340 tokens"):
        extend(options(base=small, out=tmp_path / "b"))


def test_ids_of_the_published_checkpoint():
    """Qwen3-4B has 151,669 tokens: begin is 151,669, the symbols 151,671 to 151,734."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(151_669)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.add_tokens([AddedToken(name) for name in (BEGIN, END, *symbol_names(64))])
    vocabulary = vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=inner), "published")
    assert (vocabulary.begin_id, vocabulary.end_id) == (151_669, 151_670)
    assert vocabulary.symbol_ids == tuple(range(151_671, 151_735))


@pytest.mark.slow
def test_the_command(tmp_path, tiny_model_dir):
    base = shutil.copytree(tiny_model_dir, tmp_path / "base")
    command = [sys.executable, "scripts/extend_vocabulary.py"]
    words = [f"base={base}", f"out={tmp_path / 'out'}"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "64 symbols (ids 342 to 405), begin 340, end 341" in done.stdout
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "exists; choose a new folder" in done.stderr
