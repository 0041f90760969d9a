"""The vocabulary of abstract traces, and its prompt family."""

import pytest

from variational_reasoning.method.abstract import BEGIN, END, find_vocabulary, symbol_names
from variational_reasoning.method.families import FAMILIES, family_from_dict, family_to_dict
from variational_reasoning.method.prompts import make_renderer, renderer_of_record


def test_the_names_of_symbols():
    names = symbol_names(64)
    assert names[:2] == ("<TOKEN_A>", "<TOKEN_B>")
    assert names[25:28] == ("<TOKEN_Z>", "<TOKEN_AA>", "<TOKEN_AB>")
    assert names[63] == "<TOKEN_BL>"
    assert symbol_names(26 + 26 * 26 + 1)[-1] == "<TOKEN_AAA>"
    assert len(set(symbol_names(1000))) == 1000


def find(tokens: dict[str, int], split=()):
    def encode(text):
        return [tokens[text]] if text in tokens and text not in split else [0, 0]

    return find_vocabulary(tokens.get, encode, "the model m")


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_a_vocabulary_is_found_by_its_names(count):
    names = (BEGIN, END, *symbol_names(count))
    vocabulary = find({name: 100 + place for place, name in enumerate(names)})
    assert (vocabulary.begin_id, vocabulary.end_id) == (100, 101)
    assert vocabulary.symbol_ids == tuple(range(102, 102 + count))
    assert vocabulary.trace_ids == (*vocabulary.symbol_ids, 101)


def test_a_vocabulary_that_is_absent_or_not_whole():
    assert find({"hello": 1}) is None
    with pytest.raises(ValueError, match="the model m: .*<endabstract> is missing; <TOKEN_A> is "):
        find({BEGIN: 5})
    tokens = {BEGIN: 5, END: 6, "<TOKEN_A>": 7}
    with pytest.raises(ValueError, match="<TOKEN_A> is the token 7, but its text becomes"):
        find(tokens, split=("<TOKEN_A>",))


TRACE = "<TOKEN_B><TOKEN_A>"


def test_the_prompts_of_the_family():
    renderer = make_renderer("chatml", "abstract")
    prompt, response = renderer.render("reasoner", "2 + 2?", TRACE, "4")
    assert prompt == ("<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<beginabstract>")
    assert response == "<TOKEN_B><TOKEN_A><endabstract>\n4"
    with_chain = renderer.prompt("abstract_posterior", "2 + 2?", hint="Two and two.")
    # The same ids up to the chain: x is what the reasoner sees.
    shared = prompt.removesuffix(BEGIN)
    assert with_chain == shared + "Two and two." + BEGIN
    assert renderer.detect_kind(prompt) == "reasoner"
    assert renderer.detect_kind(with_chain) == "abstract_posterior"
    assert renderer.split_response(BEGIN + response) == (TRACE, "4")
    assert renderer.solution_of_answer("\n4<|im_end|>") == "4"
    assert {BEGIN, END} <= set(renderer.tags)


def test_what_the_posterior_sees_is_recorded():
    renderer = make_renderer("chatml", "abstract")
    assert renderer.family.hint == "trace"
    assert renderer_of_record(renderer.to_record(), "memory") == renderer
    think = family_to_dict(FAMILIES["think"])
    assert "hint" not in think  # as in the records of earlier releases
    assert family_from_dict(think, "memory").hint == "solution"
    with pytest.raises(ValueError, match="hint is 'chain'; allowed are solution, trace"):
        family_from_dict(think | {"hint": "chain"}, "memory")
