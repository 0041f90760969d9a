"""Attention under the bottleneck mask: three forms of it, and a step of phase A.

    python benchmarks/bottleneck.py [forms=true] [rows=true] [step=true] [repeats=5]
        [lengths=1024,2048,4096]

forms=true: one row per length, of which the chain is 70 %, the symbols are 64 and the answer is 10 %. Forward
and backward pass of one attention layer:

    causal   no mask: nothing is hidden, what the others are compared with
    dense    SDPA with a boolean mask of tokens x tokens
    two      two exact calls per row, without a mask of the row's square
    flex     FlexAttention with a BlockMask; on a CPU forward only, so it is compared with itself
             by `forward`, the ratio of the forward passes

On a GPU the lengths are 2048, 8192 and 16384. Every form has a process of its own, which reports
the lowest time and the peak memory above the inputs: resident on a CPU, allocated on a GPU. The
time to compile FlexAttention and to make a mask, once per batch, is not counted; their memory is.

rows=true: at which length of a row two calls are faster than a call with a dense mask that several
rows share, in a line of 4,096 tokens. `host.bottleneck.DENSE_ROW` comes from that.

step=true: a whole step (collation, mask, forward, backward, SGD) of the tiny demo's model on packs
of 32 rows of 35 to 60 tokens, against the same rows without a mask. Ratios are of the lowest of all
repeats, which take turns.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

DEFAULTS = {"forms": "true", "rows": "true", "step": "true", "repeats": "5", "lengths": ""}
CPU_LENGTHS, GPU_LENGTHS = "1024,2048,4096", "2048,8192,16384"
FORMS = ("causal", "dense", "two", "flex")
HEADS, KEY_HEADS, WIDTH = 8, 2, 64
NUM_SYMBOLS = 64
ROW_LENGTHS = (64, 128, 192, 256, 384, 512, 768, 1024)
LINE = 4096


def main() -> None:
    """Measure, and print one table for each question."""
    options = DEFAULTS | dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := set(options) - set(DEFAULTS):
        raise SystemExit(f"unknown options {sorted(unknown)}; known: {', '.join(DEFAULTS)}")
    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; load {os.getloadavg()[0]:.1f}")
    lengths = options["lengths"] or (GPU_LENGTHS if on_gpu else CPU_LENGTHS)
    if options["forms"] == "true":
        compare_forms([int(length) for length in lengths.split(",")], options["repeats"])
    if options["rows"] == "true":
        compare_rows(int(options["repeats"]))
    if options["step"] == "true":
        compare_steps(int(options["repeats"]))


def compare_forms(lengths: list[int], repeats: str) -> None:
    """One layer by form and length."""
    print(
        f"\n{'tokens':>7} {'form':>7} {'ms':>9} {'ratio':>6} {'forward ms':>11} {'forward':>8} "
        f"{'peak MiB':>9}"
    )
    for length in lengths:
        causal: dict[str, float] = {}
        for form in FORMS:
            found = in_own_process(form, length, repeats)
            causal = causal or found
            both, ratio = "-", "-"
            if "both" in found:
                both = f"{1000 * found['both']:.1f}"
                ratio = f"{found['both'] / causal['both']:.2f}"
            print(
                f"{length:>7} {form:>7} {both:>9} {ratio:>6} {1000 * found['forward']:>11.1f} "
                f"{found['forward'] / causal['forward']:>8.2f} {found['peak'] / 2**20:>9.0f}",
                flush=True,
            )


def in_own_process(form: str, length: int, repeats: str) -> dict[str, float]:
    words = [sys.executable, __file__, "--worker", form, str(length), repeats]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{form} at {length} tokens failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def worker(form: str, length: int, repeats: int) -> dict[str, float]:
    """Lowest seconds of a forward pass (`forward`), of both passes (`both`), and peak bytes."""
    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", None)
    has_backward = form != "flex" or device == "cuda"
    options: dict[str, Any] = {"device": device, "dtype": dtype, "requires_grad": has_backward}
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    tensors = [torch.randn(1, count, length, WIDTH, **options) for count in heads]
    before = memory(reset=True)
    attend = attention_of(form, length, device)
    with torch.no_grad():
        attend(*tensors)  # compiles
    found: dict[str, float] = {}
    for _ in range(repeats):
        with torch.no_grad():
            keep_lowest(found, "forward", lambda: attend(*tensors))
        if has_backward:
            keep_lowest(found, "both", lambda: attend(*tensors).sum().backward())
    return found | {"peak": memory() - before}


def attention_of(form: str, length: int, device: str) -> Callable[..., torch.Tensor]:
    """The attention of a row of this length; what it needs once per batch is made here."""
    from types import SimpleNamespace

    from variational_reasoning.host import bottleneck
    from variational_reasoning.host.attention import flex_attention, row_attention

    groups = HEADS // KEY_HEADS
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True, training=True)
    layout = bottleneck.layout_of([[(length, segments_of(length))]]).to(device)
    if form == "two":
        bottleneck.DENSE_ROW = 0
    masks = {
        "causal": lambda: None,
        "dense": lambda: bottleneck.dense_mask(layout, length),
        "two": lambda: layout,
        "flex": lambda: layout,
    }
    mask = masks[form]()
    function = flex_attention if form == "flex" else row_attention

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return function(module, query, key, value, mask)[0]

    return attend


def segments_of(length: int) -> tuple[int, int, int]:
    """First token of C, first after C, first of Y: 70 % chain, 64 symbols or fewer, 10 % answer."""
    y_start = length - length // 10
    c_stop = y_start - min(NUM_SYMBOLS, length // 10)
    return c_stop - length * 7 // 10, c_stop, y_start


def keep_lowest(found: dict[str, float], name: str, run: Callable[[], Any]) -> None:
    """Time one call, and keep it if it is the fastest so far."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    found[name] = min(found.get(name, float("inf")), time.perf_counter() - start)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory(reset: bool = False) -> float:
    """Peak bytes since the last reset, allocated on a GPU or resident on a CPU (Linux)."""
    if torch.cuda.is_available():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def compare_rows(repeats: int) -> None:
    """Lines of equal rows: one call per group with a dense mask against two calls per row."""
    from types import SimpleNamespace

    from variational_reasoning.host import bottleneck

    groups = HEADS // KEY_HEADS
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True, training=True)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", None)
    options: dict[str, Any] = {"device": device, "dtype": dtype, "requires_grad": True}
    tensors = [torch.randn(1, c, LINE, WIDTH, **options) for c in (HEADS, KEY_HEADS, KEY_HEADS)]
    print(f"\na line of {LINE} tokens, both passes\n{'row':>7} {'dense ms':>9} {'two ms':>9}")
    for length in ROW_LENGTHS:
        found: dict[str, float] = {}
        rows = [(length, segments_of(length))] * (LINE // length)
        layouts = {"dense": bottleneck.layout_of([rows]), "two": bottleneck.layout_of([rows])}
        for _ in range(repeats):
            for name, layout in layouts.items():
                bottleneck.DENSE_ROW = LINE if name == "dense" else 0

                def run(layout: torch.Tensor = layout) -> None:
                    bottleneck.line_attention(module, *tensors, layout).sum().backward()

                keep_lowest(found, name, run)
        print(f"{length:>7} {1000 * found['dense']:>9.1f} {1000 * found['two']:>9.1f}", flush=True)


def compare_steps(repeats: int, num_rows: int = 32) -> None:
    """A step of phase A at the demo's lengths against the same rows without a mask."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from variational_reasoning.host import bottleneck
    from variational_reasoning.host.attention import (
        ROW_ATTENTION,
        bottleneck_mask,
        use_row_attention,
    )
    from variational_reasoning.host.steps import pack

    bottleneck.DENSE_ROW = DENSE_ROW
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu").train()
    use_row_attention(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rows = [example(35 + 25 * number // num_rows) for number in range(num_rows)]
    tokens = sum(len(row["input_ids"]) for row in rows)
    found: dict[str, float] = {}

    def step(is_masked: bool) -> None:
        batch = pack(rows, ROW_ATTENTION, is_bottleneck=is_masked, has_parts=True)
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        if is_masked:
            layout = batch["row_layout"].to(model.device)
            mask = bottleneck_mask(layout, tokens, ROW_ATTENTION, torch.float32)
        else:
            mask = batch["attention_mask"].to(model.device)
        logits = model(**inputs, attention_mask=mask).logits[0]
        labels = batch["labels"][0, 1:].to(model.device)
        torch.nn.functional.cross_entropy(logits[:-1], labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(4 * repeats):
        keep_lowest(found, "masked", lambda: step(True))
        keep_lowest(found, "plain", lambda: step(False))
    print(
        f"\na step of {num_rows} rows, {tokens} tokens: {1000 * found['masked']:.1f} ms with the "
        f"mask, {1000 * found['plain']:.1f} without; ratio {found['masked'] / found['plain']:.2f}"
    )


def example(length: int) -> dict[str, Any]:
    """A row of random ids as the data set has it: half a chain, 7 symbols, 4 tokens of answer."""
    ids = torch.randint(1, 128, (length,)).tolist()
    chain = length // 2
    segments = [length - chain - 11, chain, 7, 4]
    labels = [-100] * (length - 10) + ids[length - 10 :]
    row = {"input_ids": ids, "labels": labels, "attention_mask": [1] * length}
    names = {"row_weights": [1.0], "row_targets": [10], "row_names": ["row"]}
    return row | names | {"row_segments": segments}


if __name__ == "__main__":
    # pandas would import this file for the package `bottleneck`, whose version it asks for.
    sys.path.remove(str(Path(__file__).resolve().parent))
    if sys.argv[1:2] == ["--worker"]:
        form, length, repeats = sys.argv[2:5]
        print(json.dumps(worker(form, int(length), int(repeats))))
    else:
        from variational_reasoning.host.bottleneck import DENSE_ROW

        main()
