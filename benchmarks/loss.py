"""Step time and peak memory of the chunked Dr. SFT loss against stock SFT of LLaMA-Factory, and
Liger's fused loss on a GPU.

    python benchmarks/loss.py [lengths=1024,2048,4096,8192] [width=128] [layers=2] [steps=3]

Every measurement is a process of its own that runs the host's real trainer on one row of the given
length, with a vocabulary of 151,936, and reports the median step and the peak (resident memory on a
CPU, allocated memory on a GPU). Memory is given
above weights and activations: the peak of the same step with a single target token, on our path, is
taken off.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 151_936
DEFAULTS = {"lengths": "1024,2048,4096,8192", "width": "128", "layers": "2", "steps": "3"}


def main() -> None:
    """Measure all lengths and print one table."""
    options = DEFAULTS | dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := set(options) - set(DEFAULTS):
        raise SystemExit(f"unknown options {sorted(unknown)}; known: {', '.join(DEFAULTS)}")
    import torch

    on_gpu = torch.cuda.is_available()
    modes = ["stock", "ours", *(["liger"] if on_gpu else [])]
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{device}; torch {torch.__version__}; {'bf16' if on_gpu else 'float32'}; vocabulary "
        f"{VOCABULARY:,}; one row a step"
    )
    if not on_gpu:
        print("Liger's kernels need a GPU: not measured")
    print(f"{'tokens':>7} {'loss':>6} {'s/step':>8} {'ratio':>6} {'MiB above':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        _make_model(Path(folder), int(options["width"]), int(options["layers"]))
        for length in map(int, options["lengths"].split(",")):
            floor = _measure(folder, "ours", length, 1, options["steps"])["peak"]
            stock = None
            for mode in modes:
                found = _measure(folder, mode, length, length - 16, options["steps"])
                above = found["peak"] - floor
                stock = stock or (found["seconds"], above)
                print(
                    f"{length:>7} {mode:>6} {found['seconds']:>8.3f} "
                    f"{found['seconds'] / stock[0]:>6.2f} "
                    f"{above / 2**20:>10,.0f} {above / stock[1]:>6.3f}",
                    flush=True,
                )


def _make_model(folder: Path, width: int, layers: int) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = {word: i for i, word in enumerate(["<|im_end|>", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        head_dim=64,
        max_position_embeddings=2**17,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def _measure(folder: str, mode: str, length: int, num_targets: int, steps: str) -> dict[str, float]:
    words = [
        sys.executable,
        __file__,
        "--worker",
        folder,
        mode,
        str(length),
        str(num_targets),
        steps,
    ]
    switch = {"VARIATIONAL_REASONING_DISABLE": "0" if mode == "ours" else "1"}
    result = subprocess.run(
        words,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | switch,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"{mode} at {length} tokens failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def _worker(folder: str, mode: str, length: int, num_targets: int, steps: int) -> None:
    import resource

    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    class StepTimes(TrainerCallback):
        def __init__(self):
            self.seconds: list[float] = []

        def on_step_begin(self, *args, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.start)

    row = {"prompt": "b " * (length - num_targets - 1), "response": "a " * num_targets}
    columns = {"prompt": "prompt", "response": "response"}
    with tempfile.TemporaryDirectory() as data:
        (Path(data) / "row.json").write_text(json.dumps([row] * steps), encoding="utf-8")
        entry = {"file_name": "row.json", "columns": columns} | (
            {"formatting": "weighted_sft"} if mode == "ours" else {}
        )
        (Path(data) / "dataset_info.json").write_text(json.dumps({"row": entry}), encoding="utf-8")
        config = {
            "model_name_or_path": folder,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset": "row",
            "dataset_dir": data,
            "template": "empty",
            "cutoff_len": length + 8,
            "output_dir": str(Path(data) / "out"),
            "per_device_train_batch_size": 1,
            "max_steps": steps,
            "optim": "sgd",
            "save_strategy": "no",
            "report_to": "none",
            "bf16": torch.cuda.is_available(),
            "enable_liger_kernel": mode == "liger",
        }
        if mode == "ours":
            config |= {"constant_loss_normalizer": 1000, "chat_format": "chatml"}
        times = StepTimes()
        run_exp(config, callbacks=[times])
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident
    print(
        json.dumps({"seconds": statistics.median(times.seconds[1:] or times.seconds), "peak": peak})
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker(*sys.argv[2:4], *map(int, sys.argv[4:]))
    else:
        main()
