"""Both engines on the same prompts, and what ordering requests by their prefix gains:

    python benchmarks/sampling.py [preset=cpu|h200] [engines=transformers,vllm] [questions=8] [traces=4] [answers=4]
                                  [prompt=300] [new=32] [blocks=0.25] [model=small|qwen3_4b]
                                  [dtype=float32]

The requests are those of stage 6: questions x traces x answers samples of random ids, where the
answers of a trace share question and trace (prompt ids each, half of them the question's). `ours`
hands them over as one shard. `shuffled` hands each over by itself, in random order, so that vLLM
cannot put them into another; `unshared` gives the embedded engine prompts of the same length that
have nothing in common. vLLM's cache gets `blocks` of what all different prompts need
together, as it is under a real load: with room for everything, order does not matter. Its hit rate
is vLLM's own metric. Run it in an environment that has vLLM; an engine that is missing is reported
and left out. preset=h200 has Qwen3-4B's layers in bfloat16 and the paper's 8 traces and 8 answers;
there the embedded engine is asked for a tenth of it with engines=transformers questions=4."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "plugin"), str(Path(__file__).parent)]

from scoring import SHAPES  # noqa: E402

PRESETS = {
    "cpu": {
        "questions": "8",
        "traces": "4",
        "answers": "4",
        "prompt": "300",
        "new": "32",
        "model": "small",
    }
    | {"dtype": "float32"},
    "h200": {
        "questions": "32",
        "traces": "8",
        "answers": "8",
        "prompt": "4000",
        "new": "256",
        "model": "qwen3_4b",
    }
    | {"dtype": "bfloat16"},
}
KNOWN = {"preset": "cpu", "engines": "transformers,vllm", "blocks": "0.25", **PRESETS["cpu"]}


def main() -> None:
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := sorted(given.keys() - KNOWN.keys()):
        raise SystemExit(f"unknown: {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    if given.get("preset", "cpu") not in PRESETS:
        raise SystemExit(f"preset={given['preset']} is not one of {', '.join(PRESETS)}")
    settings = KNOWN | PRESETS[given.get("preset", "cpu")] | given
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from variational_reasoning.pipeline.engines import Request

    draw = random.Random(0)
    length, new = int(settings["prompt"]), int(settings["new"])

    def ids(num: int) -> list[int]:
        return [draw.randrange(3, 250) for _ in range(num)]

    def requests(is_shared: bool = True) -> list[Request]:
        """Stage 6's requests, of prompts that no call has made before."""
        made = []
        for question in range(int(settings["questions"])):
            start = ids(length // 2)
            for trace in range(int(settings["traces"])):
                prompt = start + ids(length - length // 2)
                for answer in range(int(settings["answers"])):
                    key, seed = (question, trace, answer), draw.getrandbits(62)
                    made.append(
                        Request(key, prompt if is_shared else ids(length), new, seed, (), 1.0, 1.0)
                    )
        return made

    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), settings)
        for name in settings["engines"].split(","):
            try:
                engine = open_one(name, folder, settings)
            except ModuleNotFoundError as error:
                print(f"{name} not measured: {error}")
                continue
            engine.generate(
                [Request((0,), [5, 6, 7], 4, 1, (), 1.0, 1.0)]
            )  # kernels and threads are ready
            report(name, "ours", engine, [requests()])
            if name == "vllm":
                shuffled = requests()
                draw.shuffle(shuffled)
                report(name, "shuffled", engine, [[request] for request in shuffled])
            else:
                report(name, "unshared", engine, [requests(is_shared=False)])
            engine.close()


def open_one(name: str, folder: str, settings: dict):
    """An engine with nothing in its cache."""
    from variational_reasoning.pipeline.config import Config, SamplingConfig
    from variational_reasoning.pipeline.engines import VllmEngine, open_engine

    length, new = int(settings["prompt"]), int(settings["new"])
    sampling = SamplingConfig(
        engine=name, dtype=settings["dtype"], enforce_eager=settings["model"] == "small"
    )
    config = Config(cutoff_len=length + new, sampling=sampling)
    if name != "vllm":
        return open_engine(config, folder)
    block = 32  # tokens
    rows = int(settings["questions"]) * int(settings["traces"])
    blocks = int(float(settings["blocks"]) * rows * -(-(length + new) // block))
    options = {"block_size": block, "num_gpu_blocks_override": blocks, "disable_log_stats": False}
    return VllmEngine(config, folder, **options)


def report(name: str, order: str, engine, groups: list) -> None:
    """Sample, and print one line."""
    before, found_before, started = (
        engine.statistics(),
        prefix_cache() if name == "vllm" else (),
        time.perf_counter(),
    )
    num = sum(len(results) for _, results in engine.stream(groups))
    seconds = time.perf_counter() - started
    done = {key: value - before[key] for key, value in engine.statistics().items()}
    prompt_tokens = done["prompt_tokens_shared"] + done["prompt_tokens_computed"]
    share = done["prompt_tokens_shared"] / prompt_tokens
    text = f"{name:12} {order:9} {done['sampled_tokens'] / seconds:8.0f} new tokens/s, {num} requests in {seconds:.1f} s, "
    text += f"{share:.1%} of {prompt_tokens} prompt tokens not computed again"
    if name == "vllm":
        hits, queries = (now - then for now, then in zip(prefix_cache(), found_before, strict=True))
        text += f"; vLLM's own hit rate {hits / queries:.1%}"
    print(text, flush=True)


def prefix_cache() -> tuple[int, int]:
    """vllm:prefix_cache_hits and vllm:prefix_cache_queries of this process's engine so far, in
    tokens.
    """
    from vllm.v1.metrics.reader import get_metrics_snapshot

    counters = {
        metric.name: metric.value
        for metric in get_metrics_snapshot()
        if metric.name.startswith("vllm:prefix_cache")
    }
    return counters["vllm:prefix_cache_hits"], counters["vllm:prefix_cache_queries"]


def make_model(folder: Path, settings: dict) -> None:
    """A random Qwen3 and a byte-level tokenizer, whose 300 pieces are the model's vocabulary."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["some words to merge, and some more"] * 50, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    shape = SHAPES["wide" if settings["model"] == "small" else settings["model"]] | {
        "vocab_size": 300
    }
    config = Qwen3Config(
        **shape, max_position_embeddings=40_960, dtype=getattr(torch, settings["dtype"])
    )
    torch.set_default_dtype(config.dtype)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
