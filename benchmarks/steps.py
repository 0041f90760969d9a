"""Time of training steps by arrangement: one row at a time, two ways of packing, balanced steps.

    python benchmarks/steps.py [rows_per_step=32] [steps=3] [repeats=3] [plot=FILE]
        [shape=cpu|qwen3_4b]

On two processes of one thread each (on GPUs, if there are any: one process for each), the same rows
are trained for some epochs by

    rows     the recipe as it was: one row per process and micro-step
    neat     LLaMA-Factory's own `neat_packing` with its own loss
    trl      TRL's SFTTrainer with `packing` (best fit)
    ours     rows_per_step: balanced packs without padding

Lengths are those of Bespoke-Stratos (mean 6,000, deviation 0.8 of it, up to 16,384 tokens), divided
by 16 on a CPU. A step's time is the lowest of its repeats, because other work on the machine only
adds. Two of the four take other rows into a step, so the time per target token is what compares.
Below, the same lengths at full size are arranged for 2, 8 and 16 ranks: time in units of perfect
balance, by the FLOPs of Qwen3-4B.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DEFAULTS = {"rows_per_step": "32", "steps": "3", "repeats": "3", "shape": "cpu", "plot": ""}
ARMS = ("rows", "neat", "trl", "ours")
VOCABULARY = 2048
SHAPES = {
    # divisor of the lengths, and the model; attention's share of a row's FLOPs is about the same
    "cpu": (16, {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384}),
    "qwen3_4b": (1, {"hidden_size": 2560, "num_hidden_layers": 36, "intermediate_size": 9728}),
}
QWEN3_4B = SimpleNamespace(
    hidden_size=2560,
    num_hidden_layers=36,
    num_attention_heads=32,
    head_dim=128,
    num_key_value_heads=8,
    intermediate_size=9728,
    vocab_size=151936,
)


def main() -> None:
    """Measure every arm, simulate the large machines, and print one table for each."""
    options = DEFAULTS | dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := set(options) - set(DEFAULTS):
        raise SystemExit(f"unknown options {sorted(unknown)}; known: {', '.join(DEFAULTS)}")
    rows_per_step, steps = int(options["rows_per_step"]), int(options["steps"])
    divisor, shape = SHAPES[options["shape"]]
    lengths = [max(8, length // divisor) for length in draw_lengths(rows_per_step * steps, 0)]
    print(f"{len(lengths)} rows of {min(lengths)} to {max(lengths)} tokens, {rows_per_step} a step")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), lengths, shape)
        print(f"{'':>5} {'steps':>6} {'s/step':>8} {'us/target':>10} {'ratio':>6}")
        for arm in ARMS:
            seconds = measure(Path(folder), arm, lengths, options)
            found[arm] = sum(seconds) / sum(length - 4 for length in lengths) * 1e6
            ratio = found["rows"] / found[arm]
            print(
                f"{arm:>5} {len(seconds):>6} {sum(seconds) / len(seconds):>8.3f} "
                f"{found[arm]:>10.2f} {ratio:>6.2f}",
                flush=True,
            )
    table = simulate()
    if options["plot"]:
        plot(found, table, options["plot"])


def draw_lengths(count: int, seed: int) -> list[int]:
    """Tokens of rows as in Bespoke-Stratos, log-normal, cut at 16,384."""
    generator = random.Random(seed)
    sigma = math.sqrt(math.log(1 + 0.8**2))
    mean = math.log(6000) - sigma**2 / 2
    lengths: list[int] = []
    while len(lengths) < count:
        length = int(generator.lognormvariate(mean, sigma))
        if 128 <= length <= 16384:
            lengths.append(length)
    return lengths


def simulate(rows: int = 192, draws: int = 40) -> dict[tuple[str, int], float]:
    """Time of a step over that of perfect balance, by arrangement and ranks; printed as a table."""
    from variational_reasoning.method.balance import arrange, lower_bound, row_cost

    cost = row_cost(QWEN3_4B)
    names = ("random order", "sorted in the step", "packs of 16,384", "packs of 24,576", "bound")
    found: dict[tuple[str, int], float] = {}
    print(f"\nsimulated, {rows} rows per step of the full length; 1 is perfect balance")
    print(f"{'ranks':>5} " + " ".join(f"{name:>18}" for name in names))
    for ranks in (2, 8, 16):
        sums = dict.fromkeys(names, 0.0)
        for seed in range(draws):
            lengths = draw_lengths(rows, seed)
            costs = [cost(length, length) for length in lengths]
            ideal = sum(costs) / ranks
            ordered = sorted(costs, reverse=True)
            sums["random order"] += one_by_one(costs, ranks) / ideal
            sums["sorted in the step"] += one_by_one(ordered, ranks) / ideal
            sums["packs of 16,384"] += arrange(lengths, costs, ranks, 16384).imbalance
            sums["packs of 24,576"] += arrange(lengths, costs, ranks, 24576).imbalance
            sums["bound"] += lower_bound(costs, ranks) / ideal
        for name in names:
            found[name, ranks] = sums[name] / draws
        print(f"{ranks:>5} " + " ".join(f"{found[name, ranks]:>18.3f}" for name in names))
    return found


def one_by_one(costs: list[float], ranks: int) -> float:
    """Time where each rank takes one row per micro-step."""
    return sum(max(costs[start : start + ranks]) for start in range(0, len(costs), ranks))


def plot(measured: dict[str, float], simulated: dict[tuple[str, int], float], path: str) -> None:
    """The measured and the simulated times as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    labels = {
        "rows": "one row at a time",
        "neat": "LLaMA-Factory\nneat_packing",
        "trl": "TRL packing",
        "ours": "balanced steps",
    }
    axes[0].barh([labels[arm] for arm in measured], list(measured.values()), color="#4c72b0")
    axes[0].invert_yaxis()
    axes[0].set_xlabel("microseconds per target token")
    axes[0].set_title("measured, two CPU processes")
    names = ("random order", "sorted in the step", "packs of 24,576")
    for offset, ranks in enumerate((8, 16)):
        heights = [simulated[name, ranks] for name in names]
        positions = [number + 0.4 * offset for number in range(len(names))]
        bars = axes[1].bar(positions, heights, width=0.38, label=f"{ranks} GPUs")
        axes[1].bar_label(bars, fmt="%.2f", fontsize=8)
    ticks = [number + 0.2 for number in range(len(names))]
    axes[1].set_xticks(ticks, ["one row at a time", "sorted", "balanced steps"])
    axes[1].axhline(1, color="black", linewidth=0.8)
    axes[1].set_ylim(0, 3.2)
    axes[1].set_title("simulated time of a step; 1 is perfect balance", fontsize=11)
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def write_inputs(folder: Path, lengths: list[int], shape: dict[str, int]) -> None:
    """A model, a tokenizer of characters, and the rows in the formats of all arms."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    # One token per character, so that a row has the tokens that it should have.
    ascii_characters = [chr(code) for code in range(32, 127)]
    others = [chr(0x4E00 + number) for number in range(VOCABULARY - 2 - len(ascii_characters))]
    words = ["<|endoftext|>", "<|end|>", *ascii_characters, *others]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder / "model")
    heads = 32 if shape["hidden_size"] > 1000 else 4
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        num_attention_heads=heads,
        num_key_value_heads=max(2, heads // 4),
        head_dim=128 if heads == 32 else 32,
        max_position_embeddings=32768,
        **shape,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder / "model")
    generator = random.Random(1)
    weighted, stock, ids = [], [], []
    for length in lengths:
        # 4 tokens of prompt, and an end of turn as the last target.
        body = [generator.randrange(100, VOCABULARY) for _ in range(length - 1)]
        text = "".join(words[token] for token in body)
        prompt, response = text[:4], text[4:]
        weighted.append({"prompt": prompt, "response": response})
        stock.append({"instruction": prompt, "input": "", "output": response})
        mask = [0] * 4 + [1] * (length - 4)
        ids.append({"input_ids": [*body, 1], "completion_mask": mask})
    for name, rows in (("weighted", weighted), ("stock", stock), ("ids", ids)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    info = {
        "weighted": {"file_name": "weighted.jsonl", "formatting": "weighted_sft"},
        "stock": {"file_name": "stock.jsonl"},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    chat_format = {
        "name": "characters",
        "system": "",
        "user": "{question}",
        "assistant": "",
        "end_of_turn": "<|end|>",
        "separator": "",
        "boundary": "<|end_of_thought|>",
    }
    (folder / "chat_format.json").write_text(json.dumps(chat_format), encoding="utf-8")


def measure(folder: Path, arm: str, lengths: list[int], options: dict[str, str]) -> list[float]:
    """Seconds of each step of an epoch, the lowest of the repeats."""
    import torch

    processes = torch.cuda.device_count() or 2
    job = {"arm": arm, "lengths": lengths, "processes": processes, "folder": str(folder), **options}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), __file__, "--worker", str(folder / "job.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_DATASETS_CACHE"] = str(folder / "cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stdout[-1000:]}\n{done.stderr[-6000:]}")
    seconds = json.loads((folder / f"{arm}.json").read_text(encoding="utf-8"))
    per_epoch = len(seconds) // (int(options["repeats"]) + 1)
    repeats = [seconds[start : start + per_epoch] for start in range(0, len(seconds), per_epoch)]
    # The first epoch warms up.
    return [min(times) for times in zip(*repeats[1:], strict=True)]


def work(path: str) -> None:
    """One process of one arm."""
    from transformers import TrainerCallback

    class StepTimes(TrainerCallback):
        """Seconds of each optimizer step, from the end of one to the end of the next."""

        def __init__(self):
            self.seconds: list[float] = []
            self.last = 0.0

        def on_epoch_begin(self, args, state, control, **kwargs):
            self.last = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            now = time.perf_counter()
            self.seconds.append(now - self.last)
            self.last = now

    job = json.loads(Path(path).read_text(encoding="utf-8"))
    times = StepTimes()
    if job["arm"] == "trl":
        train_with_trl(job, times)
    else:
        from llamafactory.train.tuner import run_exp

        run_exp(llamafactory_config(job), callbacks=[times])
    if os.environ["RANK"] == "0":
        result = Path(job["folder"]) / f"{job['arm']}.json"
        result.write_text(json.dumps(times.seconds), encoding="utf-8")


def packs_per_rank(job: dict[str, Any], width: int) -> int:
    """Packs that hold about as many rows on each process as a step has."""
    tokens = sum(job["lengths"]) / len(job["lengths"]) * int(job["rows_per_step"])
    return max(1, round(tokens / width / job["processes"]))


def llamafactory_config(job: dict[str, Any]) -> dict[str, Any]:
    """The training of an arm that LLaMA-Factory runs."""
    folder, rows = job["folder"], int(job["rows_per_step"])
    longest = max(job["lengths"])
    cutoff_len = -(-(longest + 1) // 8) * 8
    on_gpu = job["shape"] != "cpu"
    config: dict[str, Any] = {
        "model_name_or_path": f"{folder}/model",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": folder,
        "dataset": "weighted",
        "cutoff_len": cutoff_len,
        "output_dir": f"{folder}/out_{job['arm']}",
        "num_train_epochs": int(job["repeats"]) + 1,
        "disable_shuffling": True,
        "disable_gradient_checkpointing": not on_gpu,
        "learning_rate": 1e-5,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "flash_attn": "fa2" if on_gpu else "sdpa",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": rows // job["processes"],
    }
    ours = {"constant_loss_normalizer": 100.0, "chat_format": f"{folder}/chat_format.json"}
    if job["arm"] == "neat":
        accumulation = packs_per_rank(job, cutoff_len)
        packed = {"dataset": "stock", "template": "empty", "neat_packing": True}
        return config | packed | {"gradient_accumulation_steps": accumulation}
    if job["arm"] == "ours":
        del config["per_device_train_batch_size"], config["gradient_accumulation_steps"]
        limit = 24576 // SHAPES[job["shape"]][0]
        config |= {"rows_per_step": rows, "tokens_per_micro_batch": limit}
    return config | ours


def train_with_trl(job: dict[str, Any], times: Any) -> None:
    """The training that a user of TRL would start."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder, on_gpu = job["folder"], job["shape"] != "cpu"
    longest = max(job["lengths"])
    arguments = SFTConfig(
        output_dir=f"{folder}/out_trl",
        packing=True,
        max_length=longest,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=packs_per_rank(job, longest),
        num_train_epochs=int(job["repeats"]) + 1,
        gradient_checkpointing=on_gpu,
        learning_rate=1e-5,
        logging_steps=1000,
        save_strategy="no",
        report_to="none",
        use_cpu=not on_gpu,
        bf16=on_gpu,
    )
    attention = "flash_attention_2" if on_gpu else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        f"{folder}/model", attn_implementation=attention, dtype="bfloat16" if on_gpu else "float32"
    )
    dataset = load_dataset("json", data_files=f"{folder}/ids.jsonl", split="train")
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(f"{folder}/model"),
        callbacks=[times],
    )
    trainer.train()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        main()
