"""What a process of every stage pays for the size of the table, and what stage 8 pays for all of
it:

    python benchmarks/scale.py SHARE [SHARE ...] [folder=runs/scale] [keep=true] [until=9] [begin=0]
                               [texts=short]

A share is one of the paper's run (16,710 questions, 8 traces each, 8 answers per trace): 0.01, 0.1,
1 or 10. Tables are made with random words of the paper's lengths, in the real schemas, with the
real `stage.json` of each stage. All shards but one are written by this file; the stage's real
command writes the last one and the manifest, so its seconds and its memory are what one process
pays for one shard plus what it pays for the rest of the table. Stage 8, which is about the whole
table, makes the train file of the 17K recipe (`best`, mixed) and that of the 1K recipe (`weighted`);
"9" is the report. begin=8 measures from stage 8 on in a folder that was kept.

texts=short is for shares whose texts do not fit on the disk. Stage 8 alone is measured, on tables
with every row, in which these columns are short: `question`, `trace` and `solution` of questions,
`token_ids` (8) and `text` of traces, `token_ids` (1) and `text` of answers. All other columns
are as in a whole run: lengths are those of the paper, and no row is missing.

For every stage: wall and processor seconds, peak resident memory (VmHWM) and bytes read (rchar) of the process.
With two shares or
more: the exponent b of cost ~ share^b. The model has two layers, so the figures say nothing about a
model's own time.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "plugin")]

QUESTIONS, TRACES, ANSWERS = 16_710, 8, 8
MEAN_TRACE, MEAN_ANSWER = 6000, 300
CUTOFF = 16_384
QUESTIONS_PER_SHARD = 8
"""Of the shard that is really done; a small one, because two layers on a CPU are slow on long
traces.
"""

NUM_WORDS = 2000
MEASURED = """
import json, runpy, sys, time
started = time.monotonic()
sys.argv = sys.argv[1:]
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as done:
    code = done.code or 0
status = open("/proc/self/status").read()
counters = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
print(json.dumps({
    "code": code,
    "seconds": time.monotonic() - started,
    "cpu": time.process_time(),
    "peak_mib": int(status.split("VmHWM:")[1].split()[0]) / 1024,
    "read_mib": int(counters["rchar"]) / 2**20,
}))
"""
"""Runs a script as a program and prints what this process took: its own memory, not that of its
children.
"""


def main() -> None:
    words = sys.argv[1:]
    settings = {"folder": "runs/scale", "keep": "false", "until": "9", "begin": "0"}
    settings["texts"] = "long"
    known = set(settings)
    settings |= dict(word.split("=", 1) for word in words if "=" in word)
    shares = [float(word) for word in words if "=" not in word]
    if not shares or settings.keys() - known or settings["texts"] not in ("long", "short"):
        raise SystemExit(__doc__)
    found = {}
    for share in shares:
        folder = Path(settings["folder"]) / f"{share:g}"
        begin = int(settings["begin"])
        if begin == 0:
            shutil.rmtree(folder, ignore_errors=True)
        if settings["texts"] == "short":
            begin = begin or make_short_tables(folder, share)
        found[share] = run(folder, share, begin, int(settings["until"]))
        if settings["keep"] != "true":
            shutil.rmtree(folder)
    if len(shares) > 1:
        report_growth(found)


def run(folder: Path, share: float, begin: int, until: int) -> dict[str, dict[str, float]]:
    """Make one run folder stage by stage, and measure the stages from `begin` to `until`; {stage:
    figures}.
    """
    from variational_reasoning.pipeline.config import load_config

    num_questions = max(round(QUESTIONS * share), 2 * QUESTIONS_PER_SHARD)
    print(
        f"share {share:g}: {num_questions} questions, {num_questions * TRACES} traces", flush=True
    )
    if begin == 0:
        folder.mkdir(parents=True)
        make_models(folder)
    words = Words(folder / "models/reasoner")
    if begin == 0:
        make_questions(folder, num_questions, words)
        for name, output in OUTPUTS.items():
            settings = settings_of(folder, output)
            # JSON is YAML
            (folder / f"{name}.yaml").write_text(json.dumps(settings), encoding="utf-8")
    config = load_config(folder / "best.yaml")
    found = {}
    for name, (script, arguments, fabricate) in STAGES.items():
        if not begin <= int(name[0]) <= until:
            continue
        seconds = fabricate(config, words)
        places = [folder / word if word.endswith(".yaml") else word for word in arguments]
        places = [folder if word == "RUN" else word for word in places]
        figures = measured([ROOT / f"scripts/{script}.py", *places])
        found[name] = figures
        print(
            f"  {name:18} {figures['seconds']:8.1f} s  CPU {figures['cpu']:6.1f} s  peak {figures['peak_mib']:7.0f} MiB  "
            f"read {figures['read_mib']:8.0f} MiB  (the rest of the table was made in "
            f"{seconds:.0f} s)",
            flush=True,
        )
    return found


def make_short_tables(folder: Path, share: float) -> int:
    """The tables of a run with short texts, a shard at a time as Arrow arrays.

    Returns: the first stage to measure.
    """
    from variational_reasoning.pipeline import sample, score
    from variational_reasoning.pipeline.config import load_config

    folder.mkdir(parents=True)
    make_models(folder)
    words = Words(folder / "models/reasoner")
    for name, output in OUTPUTS.items():
        settings = settings_of(folder, output)
        for section in ("sampling", "scoring", "verify"):
            settings[section]["questions_per_shard"] = 64
        (folder / f"{name}.yaml").write_text(json.dumps(settings), encoding="utf-8")
    config = load_config(folder / "best.yaml")
    make_questions(folder, round(QUESTIONS * share), words, is_short=True)
    answer = words.renderer.answer_lead + " \\boxed{7}<|end_of_solution|>"
    no_facts = {"excluded_questions": {}, "workers_replaced": 0, "tier": None}
    jobs = {
        "traces": lambda: sample.traces_job(config),
        "reasoner": lambda: score.reasoner_job(config),
        "posterior": lambda: score.posterior_job(config),
        "answers": lambda: sample.answers_job(config),
    }
    for name, open_job in jobs.items():
        write_short_shards(open_job().stage, name, answer)
    # stage 7's own opening would try every gold
    verdicts = open_stage_of_verdicts(config)
    write_short_shards(verdicts, "verdicts", answer, **no_facts)
    return 8


def open_stage_of_verdicts(config):
    """Stage 7's table without its golds."""
    from unittest import mock

    from variational_reasoning.pipeline import verify

    with mock.patch.object(verify, "_excluded_questions", lambda *arguments: {}):
        return verify.verdicts_job(config).stage


def write_short_shards(stage, name: str, answer: str, **facts) -> None:
    """Every shard of a table, and its manifest. Shard k is random under the seed k."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from variational_reasoning.pipeline.rows import file_metadata, shard_name
    from variational_reasoning.pipeline.tables import TABLES

    schema = TABLES[stage.table].columns
    for index, units in tqdm(list(stage.pending()), unit="shard", leave=False, desc=name):
        random = np.random.default_rng(index)
        per_trace = ANSWERS if stage.table in ("answers", "verdicts") else 1
        num_traces = len(units) * TRACES
        size = num_traces * per_trace
        numbers = np.repeat(np.arange(num_traces), per_trace)
        drawn = np.array(lengths(random, MEAN_ANSWER if per_trace > 1 else MEAN_TRACE, size))
        texts = [f" {index} {number}" for number in range(size)] if name == "traces" else answer
        num_ids = 8 if name == "traces" else 1
        ids = pa.ListArray.from_arrays(
            pa.array(np.arange(0, size * num_ids + 1, num_ids), pa.int32()),
            pa.array(np.zeros(size * num_ids), pa.int32()),
            type=schema.field("token_ids").type if "token_ids" in schema.names else None,
        )
        values = {
            "question_id": np.array(units)[numbers // TRACES],
            "trace_id": numbers % TRACES,
            "answer_id": np.arange(size) % ANSWERS,
            "token_ids": ids,
            "text": texts,
            "finish_reason": "stop",
            "is_well_formed": True,
            "is_retokenized": False,
            "seed": random.integers(2**62, size=size),
            "prompt_kind": "posterior_b",
            "temperature": 0.7 if name == "traces" else 1.0,
            "trained_tokens": drawn,
            "is_trained_as_sampled": True,
            "trace_logp": -8 * random.uniform(0.4, 0.6, size),
            "trace_tokens": 8,
            "answer_logp": -100.0 if name == "reasoner" else None,
            "answer_tokens": MEAN_ANSWER if name == "reasoner" else None,
            "verdict": np.where(random.random(size) < 0.5, "correct", "wrong"),
            "reason": "",
            "seconds": 0.0,
            "tier": "",
        }
        columns = []
        for field in schema:
            value = values.get(field.name)
            is_one = value is None or isinstance(value, str | int | float)
            if isinstance(value, pa.Array):
                columns.append(value)
            elif is_one:
                columns.append(pa.repeat(pa.scalar(value, field.type), size))
            else:
                columns.append(pa.array(value).cast(field.type))
        metadata = file_metadata({"counts": {}, "dropped": []})
        shard = pa.table(columns, schema.with_metadata(metadata))
        pq.write_table(shard, stage.folder / shard_name(index), compression="zstd")
    stage.finish(**facts)


def measured(command: list) -> dict[str, float]:
    """Figures of one of our commands, which must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = (done.stdout.strip().splitlines() or ["{}"])[-1]
    figures = json.loads(last) if last.startswith("{") else {}
    if done.returncode or figures.get("code") != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return figures


def report_growth(found: dict[float, dict[str, dict[str, float]]]) -> None:
    """The least-squares slope of log cost over log share."""
    print("exponent b of cost ~ share^b:")
    xs = [math.log(share) for share in found]
    for name in next(iter(found.values())):
        slopes = []
        for figure in ("cpu", "peak_mib", "read_mib"):
            ys = [math.log(figures[name][figure]) for figures in found.values()]
            mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
            covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
            slopes.append(covariance / sum((x - mean_x) ** 2 for x in xs))
        print(f"  {name:18} CPU {slopes[0]:5.2f}  memory {slopes[1]:5.2f}  read {slopes[2]:5.2f}")


OUTPUTS = {
    "best": {"name": "final_acc", "selection": "best", "mix": 1, "fallback": "original"},
    "weighted": {"name": "weighted", "selection": "weighted"},
}
"""The train file of each pipeline.yaml."""


def settings_of(folder: Path, output: dict) -> dict:
    """The pipeline.yaml of the run."""
    shard = {"questions_per_shard": QUESTIONS_PER_SHARD, "device": "cpu"}
    sampling = {"num_traces": TRACES, "num_answers": ANSWERS, "max_trace_tokens": 1}
    return {
        "run_dir": str(folder),
        "base": str(folder / "models/reasoner"),
        "cutoff_len": CUTOFF,
        "data": {"name": "scale"},
        "sampling": sampling | {"max_answer_tokens": 1} | shard,
        "scoring": shard,
        "verify": {"workers": 2, "max_fault_fraction": 1.0} | {"questions_per_shard": 8},
        "build": {"outputs": [output]},
    }


class Words:
    """Words that are one token each, so that random ids and their text fit together without a
    tokenizer's work.
    """

    def __init__(self, model: Path) -> None:
        import numpy as np
        from transformers import AutoTokenizer

        from variational_reasoning.method.prompts import make_renderer

        self.renderer = make_renderer("chatml")
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        vocabulary = self.tokenizer.get_vocab()
        # "Ġ" is how byte-level BPE writes a leading space.
        self.ids = np.array(
            sorted(i for piece, i in vocabulary.items() if piece[0] == "Ġ" and len(piece) == 5)
        )
        self.pieces = np.array(self.tokenizer.convert_ids_to_tokens(self.ids.tolist()))

    def draw(self, random, length: int) -> tuple[list[int], str]:
        """(ids, text) of `length` random words."""
        chosen = random.integers(0, len(self.ids), size=length)
        return self.ids[chosen].tolist(), "".join(self.pieces[chosen]).replace("Ġ", " ")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def make_models(folder: Path) -> None:
    """Reasoner and posterior: two layers, a byte-level BPE vocabulary of four-letter words,
    recorded as trained.
    """
    import numpy as np
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from variational_reasoning.method.prompts import make_renderer
    from variational_reasoning.model_record import write_record

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), (NUM_WORDS, 4))
    texts = sorted({"".join(row) for row in letters})
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    merges = []
    for text in texts:  # Ġ + a, Ġa + b, Ġab + c, Ġabc + d
        for end in range(4):
            left, right = "Ġ" + text[:end], text[end]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    record = make_renderer("chatml").to_record()
    for seed, (name, kind) in enumerate((("reasoner", "reasoner"), ("posterior", "posterior_b"))):
        torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=len(fast),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=64,
            max_position_embeddings=2 * CUTOFF,
        )
        Qwen3ForCausalLM(config).save_pretrained(folder / "models" / name)
        fast.save_pretrained(folder / "models" / name)
        write_record(folder / "models" / name, {"prompt_kind": kind} | record)


def trace_lengths(unit: str) -> list[int]:
    """Of a question's traces, the same in every stage."""
    import numpy as np

    return lengths(np.random.default_rng(int(unit[1:])), MEAN_TRACE, TRACES)


def lengths(random, mean: float, num: int) -> list[int]:
    """Log-normal lengths with a coefficient of variation of 0.8, cut so that a row fits the
    context.
    """
    sigma = math.sqrt(math.log(1 + 0.8**2))
    drawn = random.lognormal(math.log(mean) - sigma**2 / 2, sigma, size=num)
    return [min(max(int(length), 8), CUTOFF - 4000) for length in drawn]


def make_questions(folder: Path, num: int, words: Words, is_short: bool = False) -> None:
    """Stage 0's table, by its own writer."""
    import numpy as np

    from variational_reasoning.method.prompts import make_renderer
    from variational_reasoning.pipeline.questions.usable_rows import example_tokens
    from variational_reasoning.pipeline.rows import Identity, write_table

    random = np.random.default_rng(1)
    renderer = make_renderer("chatml")
    names = ("prompt_tokens", "trace_tokens", "solution_tokens")
    rows = []
    for number, length in enumerate(lengths(random, MEAN_TRACE, num)):
        shown, rest = (1, 1) if is_short else (length, MEAN_ANSWER)
        row = {
            "question_id": f"q{number:06d}",
            "question": words.draw(random, 8 if is_short else 80)[1],
            "trace": words.draw(random, shown)[1],
            "solution": words.draw(random, rest)[1] + " \\boxed{7}",
            "source": "random",
            "check": json.dumps({"kind": "math", "gold": "7"}),
            "split": "train",
        }
        num_tokens = (100, length, MEAN_ANSWER)  # of the texts that would be there
        if not is_short:
            num_tokens = example_tokens("reasoner", renderer, row, words.encode)
        rows.append(row | dict(zip(names, num_tokens, strict=True)))
    write_table(folder / "questions", "questions", rows, Identity({"made": "here"}, {}), 256)


def fill(stage, rows_of, words: Words) -> float:
    """Write all shards of a stage but the first; seconds. Shard k is random under the seed k."""
    import numpy as np
    from tqdm import tqdm

    started = time.monotonic()
    for index, units in tqdm(list(stage.pending())[1:], unit="shard", leave=False):
        stage.write_shard(index, list(rows_of(units, np.random.default_rng(index), words)))
    return time.monotonic() - started


def trace_rows(units: list[str], random, words: Words) -> Iterator[dict]:
    """Well-formed traces: words, then the ids of the boundary."""
    boundary = words.encode("<|end_of")
    for unit in units:
        for trace_id, length in enumerate(trace_lengths(unit)):
            ids, text = words.draw(random, length)
            yield {
                "question_id": unit,
                "trace_id": trace_id,
                "token_ids": ids + boundary,
                "text": text,
                "finish_reason": "stop",
                "is_well_formed": True,
                "is_retokenized": False,
                "seed": int(random.integers(2**62)),
                "prompt_kind": "posterior_b",
                "temperature": 0.7,
                "trained_tokens": length + len(boundary),
                "is_trained_as_sampled": True,
            }


def make_traces(config, words: Words) -> float:
    """Stage 3's shards."""
    from variational_reasoning.pipeline.sample import traces_job

    return fill(traces_job(config).stage, trace_rows, words)


def make_scores(name: str):
    """Stages 4 and 5."""

    def make(config, words: Words) -> float:
        from variational_reasoning.pipeline import score

        num_boundary = len(words.encode("<|end_of"))

        def rows(units: list[str], random, words: Words) -> Iterator[dict]:
            for unit in units:
                for trace_id, length in enumerate(trace_lengths(unit)):
                    num_tokens = length + num_boundary
                    yield {
                        "question_id": unit,
                        "trace_id": trace_id,
                        "trace_logp": -num_tokens * float(random.uniform(0.4, 0.6)),
                        "trace_tokens": num_tokens,
                        "answer_logp": -100.0 if name == "reasoner" else None,
                        "answer_tokens": MEAN_ANSWER if name == "reasoner" else None,
                        "temperature": 1.0,
                    }

        return fill(getattr(score, f"{name}_job")(config).stage, rows, words)

    return make


def make_answers(config, words: Words) -> float:
    """Stage 6's shards: about half of the answers are right."""
    from variational_reasoning.method.prompts import make_renderer
    from variational_reasoning.pipeline.sample import answers_job

    renderer = make_renderer("chatml")
    lead = renderer.answer_lead
    num_fixed = len(words.encode(renderer.answer_rest(" \\boxed{7}")))

    def rows(units: list[str], random, words: Words) -> Iterator[dict]:
        for unit in units:
            for trace_id in range(TRACES):
                for answer_id, length in enumerate(lengths(random, MEAN_ANSWER, ANSWERS)):
                    ids, text = words.draw(random, length)
                    final = 7 if random.random() < 0.5 else 8
                    yield {
                        "question_id": unit,
                        "trace_id": trace_id,
                        "answer_id": answer_id,
                        "token_ids": ids,
                        "text": f"{lead}{text} \\boxed{{{final}}}<|end_of_solution|>",
                        "finish_reason": "stop",
                        "seed": int(random.integers(2**62)),
                        "trained_tokens": length + num_fixed,
                    }

    return fill(answers_job(config).stage, rows, words)


def make_verdicts(config, words: Words) -> float:
    """Stage 7's shards."""
    from variational_reasoning.pipeline.verify import verdicts_job

    def rows(units: list[str], random, words: Words) -> Iterator[dict]:
        for unit in units:
            for trace_id in range(TRACES):
                for answer_id in range(ANSWERS):
                    yield {
                        "question_id": unit,
                        "trace_id": trace_id,
                        "answer_id": answer_id,
                        "verdict": "correct" if random.random() < 0.5 else "wrong",
                        "reason": "",
                        "seconds": 0.0,
                        "tier": "",
                    }

    return fill(verdicts_job(config).stage, rows, words)


def nothing(config, words: Words) -> float:
    """Stage 8 has no shards that this file could write."""
    return 0.0


STAGES = {
    "3 traces": ("sample_traces", ["best.yaml"], make_traces),
    "4 reasoner": ("score_traces", ["best.yaml", "model=reasoner"], make_scores("reasoner")),
    "5 posterior": ("score_traces", ["best.yaml", "model=posterior"], make_scores("posterior")),
    "6 answers": ("sample_answers", ["best.yaml"], make_answers),
    "7 verdicts": ("verify_answers", ["best.yaml"], make_verdicts),
    "8 best, mixed": ("build_dataset", ["best.yaml"], nothing),
    "8 weighted": ("build_dataset", ["weighted.yaml"], nothing),
    "9 report": ("report", ["RUN"], nothing),
}
"""Name to script, its arguments, and what writes the other shards."""


if __name__ == "__main__":
    main()
