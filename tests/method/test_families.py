"""Prompt families: golden files of `think`, the host's own templates as reference, and families
from YAML files.
"""

import copy
from pathlib import Path

import pytest
import yaml
from tests.conftest import make_bpe_tokenizer

from variational_reasoning.chat_template import chat_template_of
from variational_reasoning.method.chat_formats import (
    CHAT_FORMATS,
    chat_format_from_dict,
    chat_format_of_template,
    chat_format_to_dict,
)
from variational_reasoning.method.families import FAMILIES, family_from_dict, family_to_dict
from variational_reasoning.method.prompts import Renderer, make_renderer, renderer_of_record
from variational_reasoning.pipeline.engines import text_codec

GOLDEN = Path(__file__).parents[1] / "golden"
QUESTION = "What is 3 + 4?\nShow {braces}, {hint} and <|tags|>."
TRACE = "First, 3 + 4 = 7.\n\nSo it is 7.\n"
SYMBOLS = "<TOKEN_B><TOKEN_BL>"
SOLUTION = "The answer is \\boxed{7}."
THINK = {name: make_renderer(name, "think") for name in CHAT_FORMATS}
BOTH = [(family, name) for family in FAMILIES for name in CHAT_FORMATS]

NASTY = {
    "trained": (),
    "one piece": ("</think>",),
    "tag and what follows": ("</think>\n\n", "think>\n\nThe", "</think>\n"),
    "text and tag": ("7.\n</", ".\n</think>", "7.\n</think"),
    "text, tag and what follows": (".\n</think>\n\nThe", "\n</think>\n\n", " 7.\n</th"),
    "the end": ("}.<|im", "\\boxed{7}.<|im_end|>"),
}


@pytest.fixture(scope="module", params=NASTY)
def codec(request):
    return text_codec(make_bpe_tokenizer(extra_tokens=NASTY[request.param]))


@pytest.mark.parametrize(("family", "name"), BOTH)
def test_golden_bytes(family, name):
    renderer = make_renderer(name, family)
    for kind in renderer.kinds:
        trace, chain = (SYMBOLS, TRACE) if family == "abstract" else (TRACE, None)
        texts = renderer.render(kind, QUESTION, trace, SOLUTION, chain)
        prefix = name if family == "paper" else f"{family}_{name}"
        if family == "paper" and name in ("chatml", "llama3"):
            continue  # test_prompts.py has them, with another question
        for text, part in zip(texts, ("prompt", "response"), strict=True):
            assert text.encode() == (GOLDEN / f"{prefix}_{kind}_{part}.txt").read_bytes()
        same_prompt = {"abstract_bottleneck": "abstract_posterior"}
        assert renderer.detect_kind(texts[0]) == same_prompt.get(kind, kind)
        example = renderer.split_example("".join(texts))
        assert example == (None if chain and kind != "reasoner" else (QUESTION, trace, SOLUTION))


@pytest.mark.parametrize(
    ("name", "template"),
    [("chatml", "qwen3"), ("llama3", "llama3"), ("gemma", "gemma2"), ("mistral", "mistral")],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_hosts_own_template_writes_the_same(name, template, system):
    """LLaMA-Factory's templates are the reference: prompt and response of `think`, byte for byte."""
    from llamafactory.data.template import TEMPLATES
    from transformers import PreTrainedTokenizerFast

    bos = {"llama3": "<|begin_of_text|>", "gemma": "<bos>", "mistral": "<s>"}.get(name)
    eos = CHAT_FORMATS[name].end_of_turn
    backend = make_bpe_tokenizer().backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    host = TEMPLATES[template]
    content = f"<think>\n{TRACE}</think>\n\n{SOLUTION}"
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": content},
    ]
    prompt_ids, response_ids = host.encode_oneturn(tokenizer, messages, system or None)
    wanted = tokenizer.decode(prompt_ids + response_ids)
    family = dict(family_to_dict(FAMILIES["think"]))
    family["kinds"]["reasoner"]["system"] = system
    renderer = Renderer(family_from_dict(family, "memory"), CHAT_FORMATS[name])
    prompt, response = renderer.render("reasoner", QUESTION, TRACE, SOLUTION)
    assert (prompt + response + eos).rstrip("\n") == wanted.rstrip("\n")


def test_reasoner_and_posterior_share_the_traces_ids(codec):
    encode, decode = codec
    renderer = THINK["chatml"]
    heads = []
    for kind in renderer.kinds:
        _, response = renderer.render(kind, QUESTION, TRACE, SOLUTION)
        ids = renderer.encode_target(response, encode)
        assert decode(ids) == response + "<|im_end|>"
        heads.append(ids[: len(encode(TRACE + "</think>"))])
        assert decode(heads[-1]) == TRACE + "</think>"
    assert heads[0] == heads[1]


def test_training_scoring_and_sampling_agree_on_ids(codec):
    """prompt + trace ids + answer ids as they are scored are the reasoner's training target, id for
    id.
    """
    encode, decode = codec
    renderer = THINK["chatml"]
    _, response = renderer.render("reasoner", QUESTION, TRACE, SOLUTION)
    answer_ids, start, stop = renderer.encode_answer(SOLUTION, encode, decode)
    assert decode(answer_ids) == "\n\n" + SOLUTION
    assert decode(answer_ids[start:stop]).endswith(SOLUTION)
    target = renderer.encode_target(response, encode)
    head = encode(TRACE + "</think>")
    assert target == head + encode("\n\n" + SOLUTION + "<|im_end|>")
    if target[-1:] == encode(
        "<|im_end|>"
    ):  # elsewhere the tokenizer merges the end of turn with the solution
        assert target == head + answer_ids + target[-1:]
    text = response + "<|im_end|>"
    for cut in range(1, len(text), 5):
        sampled = renderer.cut_trace(
            "reasoner", encode(text[:cut]) + encode(text[cut:]), encode, decode
        )
        assert sampled.text == TRACE and sampled.is_well_formed
        assert decode(sampled.token_ids) == TRACE + "</think>"


@pytest.mark.parametrize(
    ("text", "is_well_formed", "trace"),
    [
        ("a\n</think>\n\n7", True, "a\n"),
        ("</think>", False, ""),
        ("\n</think>", False, "\n"),
        ("a<think>b</think>", False, "a<think>b"),
        ("no end", False, "no end"),
    ],
)
def test_well_formed_traces(codec, text, is_well_formed, trace):
    encode, decode = codec
    for kind in ("reasoner", "posterior"):
        cut = THINK["chatml"].cut_trace(kind, encode(text), encode, decode)
        assert (cut.is_well_formed, cut.text) == (is_well_formed, trace)


def test_solutions_are_what_follows_the_tag_up_to_the_end_of_turn():
    renderer = THINK["chatml"]
    assert renderer.solution_of_answer("\n\n7<|im_end|>") == "7"
    assert renderer.solution_of_answer("\n\n7") is None  # cut
    assert renderer.solution_of_response("a\n</think>\n\n7<|im_end|>") == "7"
    assert renderer.solution_of_response("a, never closed<|im_end|>") is None
    assert renderer.solution_of_response("a\n</think>\n\n7") is None


def test_published_thinking_responses_are_split():
    renderer = THINK["chatml"]
    text = "<think>\nFirst.\n\nThen.\n</think>\n\nIt is \\boxed{7}."
    assert renderer.split_response(text) == ("First.\n\nThen.\n", "It is \\boxed{7}.")
    assert renderer.split_response("First.\n</think>\n\n7") is None
    assert renderer.split_response(text + "</think>") is None


def test_a_record_names_the_family_unless_it_is_the_papers():
    assert set(make_renderer("chatml").to_record()) == {"chat_format"}
    for renderer in (make_renderer("llama3"), make_renderer("gemma", "think")):
        assert renderer_of_record(renderer.to_record(), "memory") == renderer


def test_chat_formats_recorded_before_no_system_existed_compare_equal():
    old = chat_format_to_dict(CHAT_FORMATS["llama3"])
    assert "no_system" not in old
    assert chat_format_from_dict(old, "memory") == CHAT_FORMATS["llama3"]


MINE = """
name: mine
answer_open: "\\n"
answer_close: ""
boundary: "</reason>"
kinds:
  reasoner: {system: Be exact., user: "{question}", opening: <reason>, close: </reason>}
  posterior: {system: "", user: "{hint} solves: {question}", opening: <reason>, close: </reason>}
"""


def test_a_family_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    renderer = make_renderer("chatml", str(path))
    prompt, response = renderer.render("posterior", "Q", "T", "S")
    assert "user\nS solves: Q<|im_end|>" in prompt and response == "T</reason>"
    assert renderer.split_example(prompt + response) == ("Q", "T", "S")
    assert renderer.detect_kind(prompt) == "posterior"
    prompt, response = renderer.render("reasoner", "Q", "T", "S")
    assert prompt.startswith("<|im_start|>system\nBe exact.<|im_end|>\n")
    assert response == "T</reason>\nS"


def test_all_faults_of_a_family_are_found_at_once(tmp_path):
    values = yaml.safe_load(MINE)
    values["kinds"]["reasoner"] |= {"user": "{hint}", "close": "</other>"}
    values["kinds"]["posterior"]["user"] = "{question}"
    values |= {"colour": "red", "answer_close": 3}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError) as caught:
        make_renderer("nope", str(path))
    message = str(caught.value)
    for part in (
        "chat_format 'nope' is neither one of",
        "unknown fields ['colour']",
        "answer_close is 3",
        "kinds.reasoner.user: needs the placeholder {question} once",
        "kinds.reasoner.user: has no hint to show".replace(".user", ""),
        "kinds.posterior: needs the placeholder {hint} once",
        "kinds.reasoner.close: '</other>' does not begin with the boundary '</reason>'",
    ):
        assert part in message
    with pytest.raises(
        ValueError, match="neither one of paper, think, abstract nor an existing .yaml"
    ):
        make_renderer("chatml", "nope")


def _qwen(messages, generate, default="", think=""):
    text = ""
    if default and messages[0]["role"] != "system":
        text = f"<|im_start|>system\n{default}<|im_end|>\n"
    text += "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" + think if generate else "")


def _gemma(messages, generate):
    if messages[0]["role"] == "system":
        raise ValueError("System role not supported")
    names = {"user": "user", "assistant": "model"}
    text = "<bos>" + "".join(
        f"<start_of_turn>{names[m['role']]}\n{m['content']}<end_of_turn>\n" for m in messages
    )
    return text + ("<start_of_turn>model\n" if generate else "")


@pytest.mark.parametrize(
    "apply",
    [
        _qwen,
        lambda messages, generate: _qwen(messages, generate, default="You are Qwen."),
        lambda messages, generate: _qwen(messages, generate, think="<think>\n"),
        _gemma,
    ],
    ids=["chatml", "default system", "opens the trace", "no system role"],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_chat_template_becomes_texts(apply, system):
    chat_format = chat_format_of_template(apply, "model")
    family = family_to_dict(FAMILIES["think"])
    family["kinds"]["reasoner"]["system"] = system
    renderer = Renderer(family_from_dict(family, "memory"), chat_format)
    messages = [{"role": "system", "content": system}] if system and apply is not _gemma else []
    wanted = apply([*messages, {"role": "user", "content": QUESTION}], True)
    opening = "" if wanted.endswith("<think>\n") else "<think>\n"
    assert renderer.prompt("reasoner", QUESTION) == wanted + opening
    assert chat_format.end_of_turn == ("<end_of_turn>" if apply is _gemma else "<|im_end|>")


CHATML_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_models_own_template_is_the_chat_format(tmp_path):
    def model(name, template):
        tokenizer = make_bpe_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    def renderer_of(name):
        return make_renderer("template", "think", name, chat_template_of)

    prompt = renderer_of(model("qwen", CHATML_TEMPLATE)).prompt("reasoner", "Q")
    assert prompt == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n"
    bare = renderer_of(model("no_system", NO_SYSTEM + CHATML_TEMPLATE))
    assert bare.chat_format.system == "" and bare.prompt("reasoner", "Q") == prompt
    for name, template, message in (
        ("none", None, "none has no chat template"),
        ("day", "{{ strftime_now('%d') }}" + CHATML_TEMPLATE, "writes today's date"),
    ):
        with pytest.raises(ValueError, match=message):
            renderer_of(model(name, template))
    with pytest.raises(ValueError, match="needs the tokenizer of"):
        renderer_of(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="needs a model"):
        renderer_of(None)


def test_templates_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not close the model's turn"):
        chat_format_of_template(lambda m, g: "".join(x["content"] for x in m), "model")
    with pytest.raises(ValueError, match="does not write the user's text once"):
        chat_format_of_template(lambda m, g: "nothing", "model")


def test_a_tokenizer_with_a_dummy_prefix_is_refused():
    """As Llama 2's: a space before every text, which decoding takes off at the start of a sequence
    only.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [chr(code) for code in range(32, 127)] + ["\u2581", "\n", "<|im_end|>"]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    prefix, space = normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")
    backend.normalizer = normalizers.Sequence([prefix, space])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    encode, decode = text_codec(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert decode(encode("a b")) == "a b"
    for renderer in (make_renderer("chatml"), THINK["chatml"]):
        with pytest.raises(
            ValueError, match="my/llama: its tokenizer changes texts that are joined"
        ):
            renderer.check_codec(encode, decode, "my/llama")


def test_an_answer_that_only_a_space_opens_and_a_sign_closes():
    values = family_to_dict(FAMILIES["think"])
    family = values | {"name": "signed", "answer_open": " ", "answer_close": ";", "forbidden": []}
    renderer = Renderer(family_from_dict(family, "memory"), CHAT_FORMATS["chatml"])
    assert renderer.solution_of_answer(" 7;<|im_end|>") == "7"
    assert renderer.solution_of_answer(" 7<|im_end|>") is None
    assert renderer.solution_of_response("a; b</think> 7;<|im_end|>") == "7"
    assert renderer.solution_of_response("a; b") is None


def test_a_kind_that_a_chat_format_cannot_carry_hinders_no_other():
    """The demo's boundary ends the thought, which is not how posterior A closes its trace."""
    path = Path(__file__).parents[2] / "examples/variational_reasoning/tiny/chat_format.json"
    renderer = make_renderer(str(path))
    assert [kind for kind in renderer.kinds if renderer.answers(kind)] == ["reasoner"]
    with pytest.raises(ValueError, match="cannot carry posterior_a"):
        renderer.prompt("posterior_a", "Q", hint="S")


def test_an_abstract_family_without_a_separator_is_refused():
    """Without it the end of the trace, which sees the chain, predicts the answer's first token."""
    values = family_to_dict(FAMILIES["abstract"]) | {"name": "mine"}
    assert family_from_dict(values, "memory").is_abstract
    with pytest.raises(ValueError, match="abstract_bottleneck has an answer after a chain and a"):
        family_from_dict(values | {"answer_open": ""}, "memory")
    without = {kind: texts for kind, texts in values["kinds"].items() if "has_answer" not in texts}
    assert family_from_dict(values | {"answer_open": "", "kinds": without}, "memory").is_abstract


def test_the_kind_that_hides_its_hint_is_known_by_has_answer_and_not_by_its_name():
    values = family_to_dict(FAMILIES["abstract"]) | {"name": "mine"}
    values["kinds"]["phase_a"] = values["kinds"].pop("abstract_bottleneck")
    family = family_from_dict(values, "memory")
    assert family.bottleneck == "phase_a" and family.posteriors == ("abstract_posterior",)
    assert FAMILIES["abstract"].bottleneck == "abstract_bottleneck"
    assert FAMILIES["paper"].bottleneck is None


def test_an_answer_whose_hint_cannot_be_hidden_is_refused():
    verbal = family_to_dict(FAMILIES["think"]) | {"name": "mine"}
    verbal["kinds"]["posterior"]["has_answer"] = True
    with pytest.raises(ValueError, match="kinds.posterior.has_answer: the answer would see the"):
        family_from_dict(verbal, "memory")
    symbols = family_to_dict(FAMILIES["abstract"]) | {"name": "mine"}
    two = copy.deepcopy(symbols)
    two["kinds"]["again"] = two["kinds"]["abstract_bottleneck"]
    with pytest.raises(ValueError, match="abstract_bottleneck, again have has_answer: true; one"):
        family_from_dict(two, "memory")
    in_user = {"user": "{question} {hint}", "opening": "<beginabstract>"}
    symbols["kinds"]["abstract_bottleneck"] |= in_user
    with pytest.raises(ValueError, match=r"has_answer: the hint is in `user`, where it cannot be"):
        family_from_dict(symbols, "memory")


def test_an_opening_of_blanks_alone_is_taken_off_the_trace():
    values = family_to_dict(FAMILIES["think"])
    for texts in values["kinds"].values():
        texts["opening"] = "\n"
    renderer = Renderer(family_from_dict(values, "memory"), CHAT_FORMATS["chatml"])
    parts = ("Q?", "It is 7.\n", "\\boxed{7}")
    for kind in renderer.kinds:
        assert renderer.split_example("".join(renderer.render(kind, *parts))) == parts
