"""The embedded engine with real models: independence of the batch, seeds, stopping, shared prompts."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3ForCausalLM

from variational_reasoning.pipeline.engines import (
    Request,
    TransformersEngine,
    load_model,
    load_tokenizer,
)
from variational_reasoning.pipeline.engines.base import text_codec
from variational_reasoning.pipeline.engines.transformers import (
    pick_tokens,
    shared_prefixes,
    uniforms,
)


def open_tiny(folder, batch_tokens: int = 100000, dtype: str = "float32") -> TransformersEngine:
    return TransformersEngine(
        load_model(str(folder), dtype, "cpu"), load_tokenizer(str(folder)), batch_tokens
    )


def request(
    prompt, seed, stop=("<|end_of_thought|>",), new=12, temperature=1.0, top_p=1.0
) -> Request:
    return Request(("q", seed), prompt, new, seed, stop, temperature, top_p)


def prompts(num: int) -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(3, 300, size=int(draw.integers(3, 20))).tolist() for _ in range(num)]


def test_same_seed_same_ids_whatever_the_batch(tiny_model_dir):
    requests = [
        request(prompt, 10 * i + k) for i, prompt in enumerate(prompts(15)) for k in range(3)
    ]
    together = open_tiny(tiny_model_dir).generate(requests)
    small = open_tiny(tiny_model_dir, batch_tokens=70).generate(requests)
    alone = [open_tiny(tiny_model_dir).generate([r])[0] for r in requests[::7]]
    backwards = open_tiny(tiny_model_dir).generate(requests[::-1])[::-1]
    assert together == small == backwards
    assert together[::7] == alone


def test_tokens_follow_the_models_own_distribution_at_the_same_uniforms(tiny_model_dir):
    """Against plain forward passes over the whole sequence, without cache, padding or batch."""
    engine = open_tiny(tiny_model_dir, dtype="float64")
    requests = [request(prompt, i, temperature=0.7) for i, prompt in enumerate(prompts(5))]
    for r, result in zip(requests, engine.generate(requests), strict=True):
        ids = list(r.prompt_ids)
        for step, token in enumerate(result.token_ids):
            with torch.no_grad():
                logits = engine.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            cumulative = torch.softmax(logits / 0.7, dim=-1).double().cumsum(0)
            u = uniforms(np.array([r.seed], dtype=np.uint64), step)[0] * float(cumulative[-1])
            assert int((cumulative <= u).sum()) == token
            ids.append(token)


def test_samples_of_one_prompt_differ_and_so_do_first_samples_of_prompts(tiny_model_dir):
    rows = prompts(8)
    results = open_tiny(tiny_model_dir).generate(
        [request(p, 100 * i + k) for i, p in enumerate(rows) for k in range(4)]
    )
    ids = [tuple(result.token_ids) for result in results]
    assert len(set(ids)) == 32
    # with one seed for all, as in vllm issue 50440, rows of one prompt would be copies
    same = open_tiny(tiny_model_dir).generate([request(rows[0], 5) for _ in range(4)])
    assert len({tuple(result.token_ids) for result in same}) == 1


def test_uniforms_are_uniform_and_independent():
    seeds = np.arange(4000, dtype=np.uint64)
    draws = np.stack([uniforms(seeds, step) for step in range(5)])
    assert draws.min() >= 0 and draws.max() < 1
    assert (
        np.abs(draws.mean(axis=1) - 0.5).max() < 0.02
    )  # four standard errors of 0.289 / sqrt(4000)
    correlations = np.corrcoef(draws) - np.eye(5)
    assert np.abs(correlations).max() < 0.07
    assert np.abs(np.corrcoef(draws[0][:-1], draws[0][1:])[0, 1]) < 0.07  # neighboring seeds


def test_pick_tokens_arithmetic():
    # probabilities 0.2, 0.5, 0.3; cumulative 0.2, 0.7, 1.0
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(5, 1)
    uniform = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.999], dtype=torch.float64)
    ones = torch.ones(5)
    assert pick_tokens(logits, uniform, ones, ones).tolist() == [0, 0, 1, 1, 2]
    assert pick_tokens(logits, uniform, 0 * ones, ones).tolist() == [1] * 5
    # top_p 0.6: tokens 1 (0.5) and 2 (0.8 reaches 0.6) remain, 0.5 / 0.8 = 0.625
    top = pick_tokens(
        logits, torch.tensor([0.0, 0.62, 0.63, 0.9, 0.999]).double(), ones, 0.6 * ones
    )
    assert top.tolist() == [1, 1, 2, 2, 2]
    assert pick_tokens(
        torch.full((1, 3), float("nan")), uniform[:1], ones[:1], ones[:1]
    ).tolist() == [-1]


def test_stop_strings_end_a_row_at_the_token_that_completes_them(tiny_model_dir):
    engine = open_tiny(tiny_model_dir)
    free = engine.generate([request(p, i, stop=()) for i, p in enumerate(prompts(20))])
    for i, (prompt, result) in enumerate(zip(prompts(20), free, strict=True)):
        text = engine.tokenizer.decode(result.token_ids[:8])
        if result.finish_reason == "stop" or "\ufffd" in text or len(text) < 6:
            continue
        stop = text[2:6]  # four characters that run over tokens as they happen to fall
        [stopped] = engine.generate([request(prompt, i, stop=(stop,))])
        n = len(stopped.token_ids)
        assert stopped.finish_reason == "stop" and stopped.token_ids == result.token_ids[:n]
        assert stop in engine.tokenizer.decode(stopped.token_ids)
        assert stop not in engine.tokenizer.decode(stopped.token_ids[:-1])


def test_end_of_text_ends_a_row_and_stays_in_it(tiny_model_dir):
    engine = open_tiny(tiny_model_dir)
    eos = engine.tokenizer.eos_token_id
    results = engine.generate(
        [request(p, i, stop=(), new=400, temperature=3.0) for i, p in enumerate(prompts(20))]
    )
    ended = [result for result in results if result.finish_reason == "stop"]
    assert ended and all(
        result.token_ids[-1] == eos and eos not in result.token_ids[:-1] for result in ended
    )
    assert all(
        len(result.token_ids) == 400 for result in results if result.finish_reason == "length"
    )


def test_one_prompt_is_computed_once(tiny_model_dir):
    engine = open_tiny(tiny_model_dir)
    engine.generate([request([5, 6, 7, 8], seed) for seed in range(10)])
    statistics = engine.statistics()
    assert statistics["prompt_tokens_computed"] == 4 and statistics["prompt_tokens_shared"] == 36


def family(num_traces: int = 3, num_answers: int = 2) -> list[Request]:
    """Answers after traces of three questions behind one system prompt; lengths differ, one trace
    is its question's alone.
    """
    draw = np.random.default_rng(1)

    def ids(num: int) -> list[int]:
        return draw.integers(3, 300, size=num).tolist()

    system, requests = ids(40), []
    for question in (ids(20), ids(33), ids(27)):
        for trace in range(num_traces):
            prompt = system + question + (ids(int(draw.integers(5, 50))) if trace else [])
            requests += [request(prompt, len(requests) + m) for m in range(num_answers)]
    return requests


def test_shared_prefixes_are_found_level_by_level():
    prompts = sorted({tuple(r.prompt_ids) for r in family()})
    cuts = dict(zip(prompts, shared_prefixes(prompts), strict=True))
    # the system prompt's 40 ids, then each question's; a prompt that is its question alone needs
    # one id of its own
    assert sorted(cuts.values()) == sorted(
        [[40], [40, 60], [40, 60], [40], [40, 73], [40, 73], [40], [40, 67], [40, 67]]
    )
    assert shared_prefixes([(*range(15), i) for i in range(3)]) == [
        [],
        [],
        [],
    ]  # too short to be worth it
    assert shared_prefixes([]) == []


@pytest.mark.parametrize("batch_tokens", [100000, 400, 1])
def test_prefixes_are_computed_once_and_change_no_id(tiny_model_dir, batch_tokens):
    engine = open_tiny(tiny_model_dir, batch_tokens, dtype="float64")
    requests = family()
    together = engine.generate(requests)
    alone = open_tiny(tiny_model_dir, dtype="float64")
    assert together == [alone.generate([r])[0] for r in requests]
    assert alone.statistics()["prompt_tokens_shared"] == 0
    statistics = engine.statistics()
    prompt_tokens = sum(len(r.prompt_ids) for r in requests)
    assert (
        statistics["prompt_tokens_computed"] + statistics["prompt_tokens_shared"] == prompt_tokens
    )
    # each prompt once would be half of the tokens; system prompt and questions once are less still
    if batch_tokens > 1:
        assert statistics["prompt_tokens_computed"] < 0.4 * prompt_tokens


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_a_row_that_does_not_fails(
    tiny_model_dir,
):
    class Narrow(Qwen3ForCausalLM):
        """As on a device with room for two short rows, or one that is not longer than 30."""

        def forward(self, input_ids, **options):
            if (
                len(input_ids) > 2
                or options["past_key_values"].get_seq_length() + input_ids.shape[1] > 30
            ):
                raise torch.OutOfMemoryError("no room for that")
            return super().forward(input_ids=input_ids, **options)

    model, tokenizer = (
        Narrow.from_pretrained(tiny_model_dir).eval(),
        load_tokenizer(str(tiny_model_dir)),
    )
    requests = [
        request(prompt, i, new=5) for i, prompt in enumerate([*prompts(7), list(range(3, 40))])
    ]
    results = TransformersEngine(model, tokenizer, 100000).generate(requests)
    assert results[:-1] == open_tiny(tiny_model_dir).generate(requests)[:-1]
    assert results[-1] == ([], "error", "the row alone does not fit the memory: no room for that")


def test_limits_of_each_row_are_its_own(tiny_model_dir):
    results = open_tiny(tiny_model_dir).generate(
        [request([5, 6, 7], i, stop=(), new=i + 1) for i in range(9)]
    )
    assert all(
        len(r.token_ids) == i + 1 or r.finish_reason == "stop" for i, r in enumerate(results)
    )


def test_bad_requests_and_broken_models_name_the_request(tiny_model_dir):
    engine = open_tiny(tiny_model_dir)
    with pytest.raises(ValueError, match=r"\('q', 3\): 0 prompt tokens"):
        engine.generate([request([], 3)])
    with torch.no_grad():
        engine.model.lm_head.weight.fill_(float("nan"))
    [failed] = engine.generate([request([1, 2], 3)])
    assert failed == ([], "error", "the model's logits are not finite at new token 0")


def test_another_architecture(bpe_tokenizer):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(bpe_tokenizer), initializer_range=0.5, **sizes)
    ).eval()
    requests = [request(prompt, i) for i, prompt in enumerate(prompts(6))]
    together = TransformersEngine(model, bpe_tokenizer, 100000).generate(requests)
    assert together == [
        TransformersEngine(model, bpe_tokenizer, 1).generate([r])[0] for r in requests
    ]


def test_a_character_that_the_tokenizer_does_not_know_is_named():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    encode, _ = text_codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert encode("ab") == [0, 1]
    with pytest.raises(
        ValueError, match="the tokenizer does not know 'é', such as in 'abé'; remove"
    ):
        encode("abé")
