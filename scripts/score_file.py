"""Log-likelihoods of any texts under any causal language model, without a run: one JSON object per line, in and out."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from variational_reasoning.files import read_json_lines, write_atomically
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.config import Config, ScoringConfig
from variational_reasoning.pipeline.engines import load_model, load_tokenizer, text_codec
from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer

USAGE = """usage: python scripts/score_file.py model=FOLDER input=ROWS.jsonl output=SCORES.jsonl [dtype=float32]
       [temperature=1.0] [batch_tokens=16384] [device=auto]
Reads rows of "id", "prompt" and "target" (texts as they are: no template is put around them); writes the same rows with
target_logp, the sum of log p over the target's ids in nats, and target_tokens. Prompt and target are tokenized apart."""

COLUMNS = ("id", "prompt", "target")
ROWS_PER_STEP = 512


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file. Raises: ValueError that names every fault with its line."""
    if not path.is_file():
        raise ValueError(f"input={path} does not exist")
    rows, faults, seen = [], [], {}
    for number, row in read_json_lines(path, faults):
        if set(row) != set(COLUMNS):
            faults.append(
                f"line {number}: holds {sorted(row)}; a row has exactly the keys {', '.join(COLUMNS)}"
            )
            continue
        faults += [
            f"line {number}: {name!r} is {row[name]!r}; it must be text that is not empty"
            for name in ("prompt", "target")
            if not isinstance(row[name], str) or not row[name]
        ]
        if (first := seen.setdefault(json.dumps(row["id"]), number)) != number:
            faults.append(f"line {number}: the id {row['id']!r} is that of line {first}")
        rows.append(row)
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise ValueError("\n  ".join([f"{path}: {len(faults)} fault(s)", *faults[:20], *more]))
    if not rows:
        raise ValueError(f"{path} holds no row")
    return rows


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return
    known = {"model": None, "input": None, "output": None}
    known |= {"dtype": "float32", "temperature": "1.0", "batch_tokens": "16384", "device": "auto"}
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    faults = [
        f"unknown key {key!r}; known are {', '.join(known)}" for key in given if key not in known
    ]
    faults += [
        f"{key}=... is missing"
        for key, default in known.items()
        if default is None and not given.get(key)
    ]
    values = known | given
    if values["dtype"] not in ("float32", "float64", "bfloat16", "float16"):
        faults.append(
            f"dtype={values['dtype']!r} is not one of float32, float64, bfloat16, float16"
        )
    for key, convert in (("temperature", float), ("batch_tokens", int)):
        try:
            values[key] = convert(values[key])
        except ValueError:
            faults.append(f"{key}={values[key]!r} is not a number")
        else:
            faults += [f"{key}={values[key]} must be above 0"] if not values[key] > 0 else []
    if given.get("model") and not Path(values["model"]).is_dir():
        faults.append(f"model={values['model']!r} is not a folder")
    if given.get("output") and (
        Path(values["output"]).is_dir() or not Path(values["output"]).parent.is_dir()
    ):
        faults.append(f"output={values['output']!r} must be a file in a folder that exists")
    if faults:
        raise ValueError("\n".join([*faults, USAGE]))
    rows = read_rows(Path(values["input"]))
    print(
        f"reads {len(rows)} rows from {values['input']}, model {values['model']} in {values['dtype']}"
    )
    scoring = ScoringConfig(temperature=values["temperature"], batch_tokens=values["batch_tokens"])
    encode, _ = text_codec(load_tokenizer(values["model"]))
    scorer = Scorer(
        load_model(values["model"], values["dtype"], values["device"]), Config(scoring=scoring)
    )
    if scorer.note:
        print(scorer.note)
    output, num_tokens, lines = Path(values["output"]), 0, []
    with tqdm(total=len(rows), unit="row") as bar:
        for begin in range(0, len(rows), ROWS_PER_STEP):
            part = rows[begin : begin + ROWS_PER_STEP]
            sequences = []
            for row in part:
                prompt_ids, target_ids = encode(row["prompt"]), encode(row["target"])
                ids = prompt_ids + target_ids
                sequences.append(ScoredSequence((row["id"],), ids, [(len(prompt_ids), len(ids))]))
                num_tokens += len(ids)
            for row, sequence, (logp,) in zip(
                part, sequences, scorer.score(sequences), strict=True
            ):
                start, stop = sequence.spans[0]
                lines.append(
                    json.dumps(row | {"target_logp": logp, "target_tokens": stop - start}) + "\n"
                )
            bar.update(len(part))
    write_atomically(
        output, lambda temporary: temporary.write_text("".join(lines), encoding="utf-8")
    )
    print(
        f"wrote {len(rows)} rows to {output}; {num_tokens} tokens, temperature {values['temperature']}"
    )


if __name__ == "__main__":
    run_command(main)
