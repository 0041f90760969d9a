"""The vocabulary of abstract traces, and its prompt family."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import make_bpe_tokenizer

from variational_reasoning.method.abstract import BEGIN, END, find_vocabulary, symbol_names
from variational_reasoning.method.families import FAMILIES, family_from_dict, family_to_dict
from variational_reasoning.method.prompts import make_renderer, renderer_of_record
from variational_reasoning.pipeline.engines import text_codec


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


# A tokenizer that would merge the question's last line break with a chain that begins with one, and
# the separator with an answer.
MERGING = ("\n\n", "\nFour", "\n4")
SYMBOLS = (BEGIN, END, *symbol_names(3))


@pytest.fixture(scope="module")
def codec():
    from tokenizers import AddedToken

    tokenizer = make_bpe_tokenizer(extra_tokens=MERGING)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in SYMBOLS])
    return text_codec(tokenizer)


def test_x_has_the_same_ids_with_a_chain_and_without(codec):
    encode, decode = codec
    renderer = make_renderer("chatml", "abstract")
    [begin] = encode(BEGIN)
    plain = renderer.encode_prompt("reasoner", "2 + 2?", None, encode)
    chain = "\nTwo and two."
    assert plain[-1] == begin
    for kind in ("abstract_posterior", "abstract_bottleneck"):
        ids = renderer.encode_prompt(kind, "2 + 2?", chain, encode)
        assert ids == plain[:-1] + encode(chain) + [begin]
        # Not so where the whole text is tokenized at once.
        assert ids != encode(renderer.prompt(kind, "2 + 2?", chain))
        text = renderer.prompt(kind, "2 + 2?", chain)
        assert renderer.cut_prompt(kind, text).encode(encode) == ids
    assert renderer.cut_prompt("reasoner", decode(plain)).encode(encode) == plain


def test_the_separator_is_apart_from_the_answer_in_training_and_scoring(codec):
    encode, decode = codec
    renderer = make_renderer("chatml", "abstract")
    _, response = renderer.render("abstract_bottleneck", "2 + 2?", TRACE, "Four", "Two and two.")
    assert response == TRACE + END + "\nFour"
    trace, lead, answer = renderer.target_parts(response)
    assert (trace, lead, answer) == (TRACE + END, "\n", "Four<|im_end|>")
    target = renderer.encode_target(response, encode)
    assert target == encode(TRACE + END) + encode("\n") + encode("Four<|im_end|>")
    ids, start, stop = renderer.encode_answer("Four", encode, decode)
    assert ids == encode("\n") + encode("Four")
    assert (start, decode(ids[start:stop])) == (1, "Four")


@pytest.mark.parametrize(
    ("text", "is_well_formed"),
    [
        (TRACE + END, True),
        (END, True),  # empty
        ("<TOKEN_A>and" + END, False),
        ("<TOKEN_A>" + BEGIN + END, False),
        ("<TOKEN_A>", False),  # not closed
    ],
)
def test_traces_of_symbols_are_well_formed(codec, text, is_well_formed):
    encode, decode = codec
    cut = make_renderer("chatml", "abstract").cut_trace("reasoner", encode(text), encode, decode)
    assert cut.is_well_formed == is_well_formed
    if END in text:
        assert cut.token_ids == encode(text) and not cut.is_retokenized


def test_kinds_of_the_family():
    renderer = make_renderer("chatml", "abstract")
    assert renderer.kinds == ("reasoner", "abstract_posterior", "abstract_bottleneck")
    assert renderer.family.posteriors == ("abstract_posterior",)
    assert [renderer.answers(kind) for kind in renderer.kinds] == [True, False, True]
    with pytest.raises(ValueError, match="'abstract_posterior' shows a verbal chain, which these"):
        renderer.render("abstract_posterior", "2 + 2?", TRACE, "4")
    assert "<TOKEN_" in renderer.tags  # stage 0 drops a question or a chain that holds one
    bare = replace(
        renderer, chat_format=replace(renderer.chat_format, assistant="", user="{question}")
    )
    with pytest.raises(ValueError, match="has no text between question and chain"):
        bare.cut_prompt("abstract_bottleneck", "2 + 2?Two." + BEGIN)


def test_the_prompt_of_the_published_checkpoint():
    """The golden file is written by hand: system text, thinking off, the begin delimiter."""
    root = Path(__file__).parents[2]
    folder = root / "examples" / "variational_reasoning" / "qwen3_4b_abstract"
    renderer = make_renderer(str(folder / "chat_format.json"), str(folder / "prompts.yaml"))
    golden = root / "tests" / "golden" / "abstract_published_reasoner_prompt.txt"
    prompt = renderer.prompt("reasoner", "What is 3 + 4?")
    assert prompt.encode() == golden.read_bytes()
    assert renderer.kinds == make_renderer("chatml", "abstract").kinds
    assert renderer_of_record(renderer.to_record(), "memory") == renderer
    with_chain = renderer.prompt_parts("abstract_bottleneck", "What is 3 + 4?", "Seven.")
    assert with_chain.x == prompt.removesuffix(BEGIN) and with_chain.chain == "Seven."
