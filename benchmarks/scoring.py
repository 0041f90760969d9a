"""Scoring against other ways of getting the same numbers, in one run on the same random model and
rows:

    python benchmarks/scoring.py [preset=cpu|h200] [rows=12] [mean=350] [model=small|wide|qwen3_4b] [dtype=float32]
                                 [ways=ours,compiled,body,a,a_zero3,b,c] [device=auto] [repeat=3]

preset=h200 is what the goals for one H200 are stated for: Qwen3-4B's shape in bfloat16, lengths of
mean 6,000. Set OMP_NUM_THREADS=1 on a machine that others use, too: a thread that has to wait for
its processor holds up all others. On a CPU, seconds are the process's processor seconds, which
other processes do not lengthen. It needs torch and transformers and no installation of this
package; a way that lacks something else is reported and left out.

ours     pipeline.engines.scorer.Scorer: length-sorted batches without a mask, head and float32 log-softmax on chunks of positions
compiled the same with scoring.compile, by default on a GPU only
body     ours with one scored position per row: what ours takes more is the head's time and memory
a        the public code's way on one device: one row at a time, full logits, log-softmax of a float32 copy of them all
a_zero3  a under DeepSpeed ZeRO-3 with the parameters offloaded to the CPU, as published
b        rows in the order given, padded to the longest of eight (of as many as fit), full logits, logsumexp and gather
c        vLLM's prompt_logprobs, in an environment that has vLLM (VR_INFER_PYTHON or this one)

Lengths are log-normal with cv 0.8. Peak memory is what the process (on a GPU: the allocator) had at
most above what it had with the model loaded; each way runs in a process of its own, so that no way
inherits another's memory. FLOPs are those of a forward pass, 2 x parameters per token + attention;
utilization is given against 989 TFLOP/s on a GPU. The sums of every way are compared with those of
ours. The last line says how even the shares of eight processes are.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))

PRESETS = {
    "cpu": {
        "rows": "12",
        "mean": "350",
        "model": "small",
        "dtype": "float32",
        "ways": "ours,body,a,a_zero3,b,c",
    },
    "h200": {"rows": "96", "mean": "6000", "model": "qwen3_4b", "dtype": "bfloat16"}
    | {"ways": "ours,compiled,body,a,a_zero3,b,c"},
}
KNOWN = {"preset": "cpu", **PRESETS["cpu"], "device": "auto", "repeat": "3"}
SHAPES = {
    "small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    | {"head_dim": 32, "intermediate_size": 256, "vocab_size": 150_000},
    "wide": {
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    | {"head_dim": 32, "intermediate_size": 1024, "vocab_size": 150_000},
    "qwen3_4b": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    | {"head_dim": 128, "intermediate_size": 9728, "vocab_size": 151_936},
}
PEAK_FLOPS = 989e12  # H100 and H200, dense bf16


def main() -> None:
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := sorted(given.keys() - KNOWN.keys() - {"way", "folder"}):
        raise SystemExit(f"unknown: {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    if given.get("preset", "cpu") not in PRESETS:
        raise SystemExit(f"preset={given['preset']} is not one of {', '.join(PRESETS)}")
    settings = KNOWN | PRESETS[given.get("preset", "cpu")] | given
    if "way" in given:
        return measure(settings)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), settings)
        found = {}
        for way in settings["ways"].split(","):
            python = (
                os.environ.get("VR_INFER_PYTHON", sys.executable) if way == "c" else sys.executable
            )
            pairs = [f"{name}={value}" for name, value in settings.items()]
            done = subprocess.run(
                [python, __file__, *pairs, f"way={way}", f"folder={folder}"],
                capture_output=True,
                text=True,
                check=False,
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            if done.returncode or not lines:
                reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
                print(f"{way:8} not measured: {reason[:160]}", flush=True)
                continue
            found[way] = json.loads(lines[-1])
            show(way, found)
    shares()


def show(way: str, found: dict) -> None:
    """Print what a way needs, and how much of that ours needs."""
    one, ours = found[way], found.get("ours")
    median = one["tokens"] / statistics.median(one["seconds"])
    text = f"{way:8} {median:8.0f} tokens/s ({one['tokens'] / min(one['seconds']):.0f} at best of {len(one['seconds'])})"
    text += f"  {one['flops'] / statistics.median(one['seconds']) / 1e12:8.3f} TFLOP/s  peak {one['peak_mib']:8.0f} MiB"
    if one["on_gpu"]:
        text += f"  utilization {one['flops'] / statistics.median(one['seconds']) / PEAK_FLOPS:.1%}"
    print(text, flush=True)
    if ours and way == "body":
        print(f"        ours: {ours['peak_mib'] - one['peak_mib']:.0f} MiB more for the head")
    elif ours and way != "ours":
        worst = max(
            abs(x - y) / n
            for x, y, n in zip(one["sums"], ours["sums"], one["lengths"], strict=True)
        )
        times = [f(one["seconds"]) / f(ours["seconds"]) for f in (statistics.median, min)]
        print(
            f"        ours: {times[0]:.2f} x its speed ({times[1]:.2f} at best), "
            f"{ours['peak_mib'] / max(one['peak_mib'], 1e-9):.3f} of its peak; largest difference "
            f"{worst:.1e} nats per token"
        )


def shares() -> None:
    """How much longer than the mean the slowest of eight processes takes, on the paper's workload
    in shards of 64.
    """
    import numpy as np

    from variational_reasoning.pipeline.score import QUADRATIC_TOKENS
    from variational_reasoning.pipeline.work.job import share_of

    lengths = log_normal(np.random.default_rng(0), 6000, 16_710 * 8).clip(max=32_000).reshape(-1, 8)
    costs = {
        str(i): float((row + row**2 / QUADRATIC_TOKENS).sum()) for i, row in enumerate(lengths)
    }
    units = list(costs)
    shards = [units[i : i + 64] for i in range(0, len(units), 64)]
    loads = [
        sum(
            costs[unit]
            for shard in share_of(shards, costs.__getitem__, i, 8)
            for unit in shards[shard]
        )
        for i in range(8)
    ]
    print(
        f"shares of eight processes on 133,680 traces: the slowest costs "
        f"{max(loads) / (sum(loads) / 8):.4f} of the mean"
    )


def log_normal(draw, mean: float, num: int):
    """Lengths with cv 0.8."""
    sigma = math.sqrt(math.log(1 + 0.8**2))
    return draw.lognormal(math.log(mean) - sigma**2 / 2, sigma, size=num)


def make_model(folder: Path, settings: dict) -> None:
    """A random Qwen3 and log-normal rows of random ids, on disk for every way."""
    import numpy as np
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape = SHAPES[settings["model"]]
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        config = Qwen3Config(**shape, max_position_embeddings=40_960, tie_word_embeddings=True)
        torch.set_default_dtype(getattr(torch, settings["dtype"]))
        model = Qwen3ForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    (folder / "parameters").write_text(str(sum(p.numel() for p in model.parameters())))
    draw = np.random.default_rng(0)
    lengths = log_normal(draw, float(settings["mean"]), int(settings["rows"]))
    rows = [
        draw.integers(0, shape["vocab_size"], size=int(min(max(n, 8), 32_000))).tolist()
        for n in lengths
    ]
    (folder / "rows.json").write_text(json.dumps(rows))


def measure(settings: dict) -> None:
    """Run one way, and print one JSON object."""
    folder = settings["folder"]
    rows = json.loads((Path(folder) / "rows.json").read_text())
    prompt = 4  # ids before the target
    ways = {
        "ours": ours,
        "compiled": compiled,
        "body": body,
        "a": one_row,
        "a_zero3": zero3,
        "b": padded,
        "c": vllm_way,
    }
    run, device = ways[settings["way"]](folder, settings, prompt)
    parameters = int((Path(folder) / "parameters").read_text())
    run([rows[0][:16]])  # kernels and threads are ready
    memory, seconds = Memory(device), []
    clock = time.perf_counter if device == "cuda" else time.process_time
    for _ in range(int(settings["repeat"])):
        started = clock()
        sums = run(rows)
        memory.wait()
        seconds.append(clock() - started)
    memory.finish()
    shape = SHAPES[settings["model"]]
    attention = 2 * shape["num_attention_heads"] * shape["head_dim"] * shape["num_hidden_layers"]
    result = {
        "tokens": sum(len(row) for row in rows),
        "seconds": seconds,
        "flops": sum(2 * parameters * len(row) + attention * len(row) ** 2 for row in rows),
        "peak_mib": memory.peak_mib,
        "on_gpu": device == "cuda",
        "sums": sums,
        "lengths": [len(row) - prompt for row in rows],
    }
    print(json.dumps(result))


class Memory:
    """The highest memory since it was made, above what was in use then."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        self.start = self.peak = self._resident()
        self.is_running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Until what was begun is done."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def finish(self) -> None:
        """Stop measuring; `peak_mib` is there then."""
        if self.device == "cuda":
            import torch

            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.is_running = False
            self.thread.join()
        self.peak_mib = (self.peak - self.start) / 2**20

    def _watch(self) -> None:
        while self.is_running:
            self.peak = max(self.peak, self._resident())
            time.sleep(0.001)

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load(folder: str, settings: dict):
    """(model, device)"""
    from variational_reasoning.pipeline.engines import load_model

    model = load_model(folder, settings["dtype"], settings["device"])
    return model, model.device.type


def ours(folder: str, settings: dict, prompt: int, scored: int | None = None, **options):
    from variational_reasoning.pipeline.config import Config, ScoringConfig
    from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer

    model, device = load(folder, settings)
    tokens = 32_768 if device == "cuda" else 1024
    scorer = Scorer(model, Config(scoring=ScoringConfig(batch_tokens=tokens, **options)))

    def run(rows: list[list[int]]) -> list[float]:
        sequences = [
            ScoredSequence((i,), row, [(prompt, prompt + scored if scored else len(row))])
            for i, row in enumerate(rows)
        ]
        return [sums[0] for sums in scorer.score(sequences)]

    return run, device


def compiled(folder: str, settings: dict, prompt: int):
    return ours(folder, settings, prompt, compile=True)


def body(folder: str, settings: dict, prompt: int):
    return ours(folder, settings, prompt, scored=1)


def one_row(folder: str, settings: dict, prompt: int):
    import torch

    model, device = load(folder, settings)
    return _full_logits(model, torch, prompt), device


def _full_logits(model, torch, prompt: int):
    def run(rows: list[list[int]]) -> list[float]:
        sums = []
        for row in rows:
            with torch.no_grad():
                ids = torch.tensor([row], device=getattr(model, "device", None))
                logits = model(
                    input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
                ).logits
                logps = torch.log_softmax(logits.float(), dim=-1)
                sums.append(
                    float(logps[0, prompt - 1 : -1].gather(1, ids[0, prompt:, None]).double().sum())
                )
        return sums

    return run


def padded(folder: str, settings: dict, prompt: int):
    import torch

    model, device = load(folder, settings)

    def run(rows: list[list[int]]) -> list[float]:
        sums, num = [], 8
        while len(sums) < len(rows):
            part = rows[len(sums) : len(sums) + num]
            try:
                sums += batch(part)
            except torch.OutOfMemoryError:
                if num == 1:
                    raise
                num //= 2
                torch.cuda.empty_cache()
        return sums

    def batch(part: list[list[int]]) -> list[float]:
        longest = max(map(len, part))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in part], device=model.device)
        mask = torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in part], device=model.device
        )
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()[
                :, :-1
            ]
        logps = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
        return [
            float(logps[i, prompt - 1 : len(row) - 1].double().sum()) for i, row in enumerate(part)
        ]

    return run, device


def vllm_way(folder: str, settings: dict, prompt: int):
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault(
        "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
    )  # its memory is then this process's
    import torch
    import vllm

    longest = max(len(row) for row in json.loads((Path(folder) / "rows.json").read_text()))
    # its full logits are memory that it does not count
    options = {"gpu_memory_utilization": 0.6} if torch.cuda.is_available() else {}
    engine = vllm.LLM(
        model=folder,
        dtype=settings["dtype"],
        skip_tokenizer_init=True,
        max_model_len=longest + 1,
        enable_prefix_caching=False,
        enforce_eager=True,
        **options,
    )
    params = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)

    def run(rows: list[list[int]]) -> list[float]:
        outputs = engine.generate(
            [{"prompt_token_ids": row} for row in rows], params, use_tqdm=False
        )
        return [
            sum(
                found[token].logprob
                for found, token in zip(out.prompt_logprobs[prompt:], row[prompt:], strict=True)
            )
            for out, row in zip(outputs, rows, strict=True)
        ]

    return run, "cuda" if torch.cuda.is_available() else "cpu"


def zero3(folder: str, settings: dict, prompt: int):
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM

    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29533",
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    deepspeed.init_distributed("nccl" if device == "cuda" else "gloo", verbose=False)
    stage = {"stage": 3, "offload_param": {"device": "cpu", "pin_memory": device == "cuda"}}
    config = {
        "train_batch_size": 1,
        "zero_optimization": stage,
        "bf16": {"enabled": settings["dtype"] == "bfloat16"},
    }
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, settings["dtype"]))
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()
    return _full_logits(engine, torch, prompt), device


if __name__ == "__main__":
    main()
