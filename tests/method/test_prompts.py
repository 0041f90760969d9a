"""The one renderer: golden files byte for byte, and the boundary in ids with tokenizers that merge
across it.
"""

import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import SPLITS, make_bpe_tokenizer
from transformers.convert_slow_tokenizer import Qwen2Converter, TikTokenConverter

from variational_reasoning.method.chat_formats import (
    CHAT_FORMATS,
    ChatFormat,
    chat_format_from_dict,
    chat_format_to_dict,
    load_chat_format,
)
from variational_reasoning.method.families import FAMILIES as PROMPT_FAMILIES
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.engines import text_codec

GOLDEN = Path(__file__).parents[1] / "golden"
QUESTION = "What is 3 + 4?\nShow {braces} and <|tags|>."
TRACE = "First, 3 + 4 = 7.\n\nSo it is 7."
SOLUTION = "\n\nThe answer is \\boxed{7}.\n\n"
PAPER = {
    name: Renderer(PROMPT_FAMILIES["paper"], chat_format)
    for name, chat_format in CHAT_FORMATS.items()
}
CHATML = PAPER["chatml"]
PROMPT_KINDS = CHATML.kinds

NASTY = {
    "trained": (),
    "boundary in one piece": ("<|end_of",),
    "whole tag": ("<|end_of_thought|>", "<|end_of_explanation|>"),
    "tag and what follows": (
        "_thought|>\n\n<|begin_of_solution|>",
        "<|end_of_thought|>\n\n",
        "_thought|>\n",
    ),
    "text and tag": ("7.<|", ".<|end", "7.<|end_of", "of_th"),
    "across the boundary": ("end_of_", "f_thought", "of_thought|>", "_of_e", "d_of_explan"),
    "text, tag and what follows": ("7.<|end_of_thought|>\n", "is 7.<|end_of_", " 7.<|end_of_expl"),
    "solution": ("|>\n\nThe", ">\n\n", ".\n\n<|end_of_solution", "\n<|end", "\n\n<|"),
}


FAMILIES = {
    "Qwen2.5": {"family": "qwen"},
    "Qwen3": {"family": "qwen", "extra_tokens": ("<think>", "</think>")},
    "Llama 3": {
        "family": "llama3",
        "specials": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    },
}
TOKENIZERS = {name: {"extra_tokens": pieces} for name, pieces in NASTY.items()} | FAMILIES


@pytest.fixture(scope="module", params=TOKENIZERS)
def codec(request):
    return text_codec(make_bpe_tokenizer(**TOKENIZERS[request.param]))


@pytest.mark.parametrize("name", ["chatml", "llama3"])
@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_golden_bytes(name, kind):
    prompt, response = PAPER[name].render(kind, QUESTION, TRACE, SOLUTION)
    assert prompt.encode() == (GOLDEN / f"{name}_{kind}_prompt.txt").read_bytes()
    assert response.encode() == (GOLDEN / f"{name}_{kind}_response.txt").read_bytes()
    hint = None if kind == "reasoner" else SOLUTION
    assert PAPER[name].prompt(kind, QUESTION, hint) == prompt
    assert PAPER[name].detect_kind(prompt) == kind


def test_the_rendered_ids_are_the_golden_ones():
    """ids of the golden bytes with a tokenizer in which every byte is a token: the bytes
    themselves, boundary included.
    """
    encode, decode = list, bytes  # a byte tokenizer: ids are bytes
    for name, kind in itertools.product(("chatml", "llama3"), PROMPT_KINDS):
        _, response = PAPER[name].render(kind, QUESTION, TRACE, SOLUTION)
        ids = PAPER[name].encode_target(response, lambda text: encode(text.encode()))
        wanted = (GOLDEN / f"{name}_{kind}_response.txt").read_bytes() + CHAT_FORMATS[
            name
        ].end_of_turn.encode()
        assert decode(ids) == wanted


def test_the_families_split_texts_as_the_published_tokenizers_do():
    """Against what transformers makes of the published vocabularies: Qwen2.5 and Qwen3 share a
    tokenizer class.
    """
    # the class's own expression; Meta's tokenizer.py of Llama 3 and torchtune's hold the same text
    # as the second
    assert SPLITS["llama3"] == inspect.signature(TikTokenConverter).parameters["pattern"].default
    vocabulary = SimpleNamespace(encoder={"a": 0}, bpe_ranks={}, add_prefix_space=False)
    published = Qwen2Converter(vocabulary).converted()
    ours = make_bpe_tokenizer(family="qwen").backend_tokenizer
    text = "It's 1234,5 <|end_of_thought|>\n\n<|begin_of_solution|>  \\boxed{7}.\r\n e\u0301 \u7b54\u3048  \n\tx "
    assert ours.pre_tokenizer.pre_tokenize_str(text) == published.pre_tokenizer.pre_tokenize_str(
        text
    )
    assert ours.normalizer.normalize_str(text) == published.normalizer.normalize_str(text) != text


def test_hints_and_kinds_out_of_place_are_refused():
    with pytest.raises(ValueError, match="takes no hint"):
        CHATML.prompt("reasoner", "x", "y")
    with pytest.raises(ValueError, match="needs a hint"):
        CHATML.prompt("posterior_a", "x")
    with pytest.raises(
        ValueError, match="'posterior' is not one of reasoner, posterior_a, posterior_b"
    ):
        CHATML.prompt("posterior", "x", "y")


def test_a_question_with_placeholders_and_an_empty_hint_stays_as_it_is():
    assert "{system} {question}" in CHATML.prompt("reasoner", "{system} {question}")
    assert "<|begin_of_solution|><|end_of_solution|>" in CHATML.prompt("posterior_b", "x", "")


NO_TEXT = (
    '{"name": "mine", "system": null, "user": "{question}", "assistant": "", "end_of_turn": "<e>"}'
)


def test_chat_formats_from_files(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        '{"name": "mine", "system": "", "user": "{question} ", "assistant": "", "end_of_turn": '
        '"<e>", "separator": ""}'
    )
    fmt = load_chat_format(str(path))
    assert Renderer(PROMPT_FAMILIES["paper"], fmt).render("reasoner", "q", "z", "y") == (
        "q <|begin_of_thought|>",
        "z<|end_of_thought|><|begin_of_solution|>y<|end_of_solution|>",
    )
    assert chat_format_from_dict(chat_format_to_dict(fmt), "memory") == fmt
    with pytest.raises(ValueError, match="neither one of chatml, llama3"):
        load_chat_format("absent.json")
    path.write_text('{"name": "mine", "usr": "{question}"}')
    with pytest.raises(
        ValueError, match=r"unknown fields \['usr'\], missing fields \['assistant', 'end_of_turn'"
    ):
        load_chat_format(str(path))
    for text, message in (
        ("{", "mine.json is not valid JSON"),
        ("[]", "mine.json holds list"),
        (NO_TEXT, "system is None; text"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_chat_format(str(path))
    with pytest.raises(
        ValueError, match=r"lacks the placeholder \{question\}.*`end_of_turn` is empty.*`boundary`"
    ):
        ChatFormat("bad", system="", user="x", assistant="", end_of_turn="", boundary="<|stop")


def test_reasoner_and_posteriors_train_on_the_same_trace_ids(codec):
    encode, decode = codec
    heads = []
    for kind in PROMPT_KINDS:
        _, response = CHATML.render(kind, QUESTION, TRACE, SOLUTION)
        ids = CHATML.encode_target(response, encode)
        assert decode(ids) == response + "<|im_end|>"
        cut = len(encode(TRACE + "<|end_of"))
        assert decode(ids[:cut]) == TRACE + "<|end_of"
        heads.append(ids[:cut])
    assert heads[0] == heads[1] == heads[2]


def test_training_scoring_and_sampling_agree_on_ids(codec):
    """prompt + trace ids + answer ids as they are scored equal the reasoner's training target, id
    for id.
    """
    encode, decode = codec
    _, response = CHATML.render("reasoner", QUESTION, TRACE, SOLUTION)
    answer_ids, start, stop = CHATML.encode_answer(SOLUTION, encode, decode)
    target = CHATML.encode_target(response + "<|im_end|>", encode)
    scored = encode(TRACE + "<|end_of") + answer_ids + encode("<|im_end|>")
    assert scored == target
    assert 0 < start < stop <= len(answer_ids)


@pytest.mark.parametrize("kind", ["reasoner", "posterior_a", "posterior_b"])
def test_a_sampled_trace_is_cut_at_the_boundary(codec, kind):
    """Whatever way a model spells its text in tokens: the ids before the boundary stay, and their
    text is exact.
    """
    encode, decode = codec
    text = TRACE + CHATML.texts(kind).close + "\n\n<|begin_of_solution|>"
    spellings = [encode(text)]
    for cut in range(1, len(text), 3):
        spellings.append(encode(text[:cut]) + encode(text[cut:]))
    for ids in spellings:
        assert decode(ids) == text
        cut = CHATML.cut_trace(kind, ids, encode, decode)
        assert cut.text == TRACE and cut.is_well_formed
        assert decode(cut.token_ids) == TRACE + "<|end_of"
        if not cut.is_retokenized:
            assert cut.token_ids == ids[: len(cut.token_ids)]
        else:
            # no prefix of the sampled ids has the text up to the boundary: some token reaches over
            # it
            assert all(decode(ids[:n]) != TRACE + "<|end_of" for n in range(len(ids) + 1))
            kept = sum(
                1
                for a, b in itertools.takewhile(
                    lambda p: p[0] == p[1], zip(ids, cut.token_ids, strict=False)
                )
            )
            assert decode(ids[: kept + 1]) != (TRACE + "<|end_of")[: len(decode(ids[: kept + 1]))]


def test_multibyte_text_before_the_boundary(codec):
    encode, decode = codec
    text = "√2 ≈ 1.41 → 答え<|end_of_thought|>"
    singles = [token for char in text for token in encode(char)]
    for ids in (encode(text), singles):
        cut = CHATML.cut_trace("reasoner", ids, encode, decode)
        assert cut.text == "√2 ≈ 1.41 → 答え" and cut.is_well_formed
        assert decode(cut.token_ids) == "√2 ≈ 1.41 → 答え<|end_of"


@pytest.mark.parametrize(
    ("kind", "text", "is_well_formed", "trace"),
    [
        ("reasoner", "a<|end_of_thought|>", True, "a"),
        ("reasoner", "a<|end_of_explanation|>", False, "a"),
        ("reasoner", "a<|end_of_solution|>", False, "a"),
        ("posterior_a", "a<|end_of_explanation|>", True, "a"),
        ("posterior_a", "a<|end_of_thought|>", False, "a"),
        ("posterior_b", "a<|end_of_thought|>", True, "a"),
        ("reasoner", "a<|end_of", False, "a"),
        ("reasoner", "a and no end", False, "a and no end"),
        ("reasoner", " \n<|end_of_thought|>", False, " \n"),
        ("reasoner", "<|end_of_thought|>", False, ""),
        ("reasoner", "a<|begin_of_solution|>b<|end_of_thought|>", False, "a<|begin_of_solution|>b"),
        ("reasoner", "a<|end_of_thought|>b<|end_of_thought|>", True, "a"),
    ],
)
def test_well_formed_traces(codec, kind, text, is_well_formed, trace):
    encode, decode = codec
    cut = CHATML.cut_trace(kind, encode(text), encode, decode)
    assert (cut.is_well_formed, cut.text) == (is_well_formed, trace)


def test_a_trace_without_a_boundary_is_kept_whole(codec):
    encode, decode = codec
    ids = encode("no end at all")
    assert CHATML.cut_trace("reasoner", ids, encode, decode) == (
        ids,
        "no end at all",
        False,
        False,
    )


def test_the_solutions_ids_are_those_that_hold_some_of_it(codec):
    encode, decode = codec
    lead = CHATML.answer_lead
    for solution in (SOLUTION, "7", "\\boxed{7}", "\n\nThe answer is \\boxed{7}."):
        ids, start, stop = CHATML.encode_answer(solution, encode, decode)
        assert decode(ids) == lead + solution + CHATML.answer_close
        ends = [len(decode(ids[:n])) for n in range(len(ids) + 1)]
        # token n covers the characters ends[n] to ends[n + 1]; the solution covers the place of
        # the lead's end to that of the solution's end
        wanted = [
            n for n in range(len(ids)) if ends[n + 1] > len(lead) and ends[n] < len(lead + solution)
        ]
        assert list(range(start, stop)) == wanted


def test_an_empty_solution_has_no_ids_to_score(codec):
    encode, decode = codec
    _, start, stop = CHATML.encode_answer("", encode, decode)
    assert start == stop


def test_solutions_are_extracted_from_complete_tags_only():
    assert CHATML.solution_of_response("x<|begin_of_solution|>7<|end_of_solution|>") == "7"
    assert (
        CHATML.solution_of_response(
            "<|begin_of_solution|>7<|end_of_solution|><|begin_of_solution|>8<|end_of_solution|>"
        )
        == "7"
    )
    assert CHATML.solution_of_response("<|begin_of_solution|>7") is None
    assert CHATML.solution_of_response("7<|end_of_solution|>") is None
    assert CHATML.solution_of_response("<|end_of_solution|><|begin_of_solution|>7") is None


def test_published_responses_are_split_at_their_tags():
    text = "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nb\n\n<|end_of_solution|>"
    assert CHATML.split_response(text) == ("a\n\n", "\n\nb\n\n")
    assert CHATML.split_response(text.replace("<|end_of_thought|>", "")) is None
    assert CHATML.split_response(text + "<|end_of_solution|>") is None
    prompt, response = CHATML.render("reasoner", "q", *CHATML.split_response(text))
    assert (prompt + response).endswith("<|im_start|>assistant\n" + text)


BARE = ChatFormat(
    name="bare", system="", user="{question}", assistant="", end_of_turn="<|end|>", separator=""
)


@pytest.mark.parametrize(
    "chat_format", [*CHAT_FORMATS.values(), BARE], ids=lambda chat_format: chat_format.name
)
@pytest.mark.parametrize("kind", PROMPT_KINDS)
@pytest.mark.parametrize("closed", [False, True])
def test_an_example_is_taken_apart_as_it_was_rendered(chat_format, kind, closed):
    parts = ("Is $1 < 2$?\n\nSay so.", "It is.\n\nSurely.\n\n", "\n\n\\boxed{yes}\n\n")
    renderer = Renderer(PROMPT_FAMILIES["paper"], chat_format)
    text = "".join(renderer.render(kind, *parts)) + (chat_format.end_of_turn if closed else "")
    assert renderer.split_example(text) == parts


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_an_example_that_is_not_whole_is_none(kind):
    text = "".join(CHATML.render(kind, "Q", "T", "S"))
    assert CHATML.split_example(text.replace("<|im_start|>user\n", "")) is None
    assert CHATML.split_example(text.replace("<|im_start|>assistant\n", "")) is None
    last_tag = "<|end_of_solution|>" if kind == "reasoner" else CHATML.texts(kind).close
    assert CHATML.split_example(text.removesuffix(last_tag)) is None
    other = {"posterior_a": "thought", "posterior_b": "explanation", "reasoner": "explanation"}[
        kind
    ]
    swapped = text.removesuffix(last_tag) + f"<|end_of_{other}|>"
    assert CHATML.split_example(swapped) is None
