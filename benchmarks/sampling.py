"""Both engines on the same prompts, and what ordering requests by their prefix gains:

    python benchmarks/sampling.py [engines=transformers,vllm] [questions=8] [traces=4] [answers=4] [prompt=300] [new=32]

The requests are those of stage 6: questions x traces x answers samples of random ids, where the answers of a trace share
question and trace (prompt ids each, half of them the question's). `shuffled` hands them to vLLM in random order instead
of ours. Its cache of blocks is kept small (VLLM_CPU_KVCACHE_SPACE, gpu_memory_utilization), as it is beside a real load:
with room for everything, order does not matter. Run it in an environment that has vLLM; an engine that is missing is
reported and left out."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

KNOWN = {"engines": "transformers,vllm", "questions": "8", "traces": "4", "answers": "4", "prompt": "300", "new": "32"}


def main() -> None:
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := sorted(given.keys() - KNOWN.keys()):
        raise SystemExit(f"unknown: {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    settings = KNOWN | given
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from variational_reasoning.pipeline.config import Config, SamplingConfig
    from variational_reasoning.pipeline.engines import Request, open_engine

    draw = random.Random(0)
    length = int(settings["prompt"])
    requests = []
    for question in range(int(settings["questions"])):
        start = [draw.randrange(3, 250) for _ in range(length // 2)]
        for trace in range(int(settings["traces"])):
            ids = start + [draw.randrange(3, 250) for _ in range(length - length // 2)]
            for answer in range(int(settings["answers"])):
                key = (question, trace, answer)
                requests.append(Request(key, ids, int(settings["new"]), draw.getrandbits(62), (), 1.0, 1.0))
    draw.shuffle(requests)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        for name in settings["engines"].split(","):
            sampling = SamplingConfig(engine=name, enforce_eager=True)
            try:
                engine = open_engine(Config(cutoff_len=length + int(settings["new"]), sampling=sampling), folder)
            except ModuleNotFoundError as error:
                print(f"{name} not measured: {error}")
                continue
            warm = [Request((0,), [5, 6, 7], 4, 1, (), 1.0, 1.0)]
            engine.generate(warm)
            report(name, "ours", engine, requests)
            if name == "vllm":
                engine._engine.reset_prefix_cache()
                engine._order = lambda some: range(len(some))
                report(name, "shuffled", engine, requests)


def report(name: str, order: str, engine, requests: list) -> None:
    """Sample, and print one line."""
    before, started = engine.statistics(), time.perf_counter()
    engine.generate(requests)
    seconds = time.perf_counter() - started
    done = {key: value - before[key] for key, value in engine.statistics().items()}
    prompt_tokens = done["prompt_tokens_shared"] + done["prompt_tokens_computed"]
    share = done["prompt_tokens_shared"] / prompt_tokens
    print(
        f"{name:12} {order:9} {done['sampled_tokens'] / seconds:8.0f} new tokens/s, {len(requests)} requests in "
        f"{seconds:.1f} s, {share:.1%} of {prompt_tokens} prompt tokens not computed again",
        flush=True,
    )


def make_model(folder: Path) -> None:
    """A random Qwen3 of two layers and a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["some words to merge, and some more"] * 50, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    shape = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=300, head_dim=32, intermediate_size=1024, **shape)).save_pretrained(folder)


if __name__ == "__main__":
    main()
