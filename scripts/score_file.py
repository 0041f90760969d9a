"""Log-likelihoods of any texts under any causal language model, without a run."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from variational_reasoning.faults import list_faults
from variational_reasoning.files import read_json_lines, write_atomically
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.config import Config, ScoringConfig
from variational_reasoning.pipeline.engines import load_model, load_tokenizer, text_codec
from variational_reasoning.pipeline.engines.scorer import ScoredSequence, Scorer
from variational_reasoning.pipeline.options import above, output_faults, read_options

USAGE = """usage: python scripts/score_file.py model=FOLDER input=ROWS.jsonl output=SCORES.jsonl
       [dtype=float32] [temperature=1.0] [batch_tokens=16384] [device=auto]
Reads rows of "id", "prompt" and "target" (texts as they are: no template is put around them).
Writes the same rows with target_logp, the sum of log p over the target's ids in nats, and
target_tokens. Prompt and target are tokenized apart. Further columns are passed through."""

COLUMNS = ("id", "prompt", "target")
ROWS_PER_STEP = 512


@dataclass(frozen=True)
class Options:
    """See USAGE."""

    model: str = ""
    input: str = ""
    output: str = ""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    temperature: float = above(0, default=1.0)
    batch_tokens: int = above(0, default=16384)
    device: str = "auto"

    def faults(self) -> list[str]:
        """See `read_options`."""
        faults = output_faults(self.output)
        if self.model and not Path(self.model).is_dir():
            faults.append(f"model={self.model!r} is not a folder")
        return faults


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file. Raises: ValueError that names every fault with its line."""
    if not path.is_file():
        raise ValueError(f"input={path} does not exist")
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, row in read_json_lines(path, faults):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            faults.append(f"line {number}: lacks {', '.join(missing)}; it holds {sorted(row)}")
            continue
        for name in ("prompt", "target"):
            if not isinstance(row[name], str) or not row[name]:
                faults.append(
                    f"line {number}: {name!r} is {row[name]!r}; it must be text that is not empty"
                )
        first = seen.setdefault(json.dumps(row["id"]), number)
        if first != number:
            faults.append(f"line {number}: the id {row['id']!r} is that of line {first}")
        rows.append(row)
    if faults:
        raise ValueError(list_faults(f"{path}: {len(faults)} faults", faults))
    if not rows:
        raise ValueError(f"{path} holds no row")
    return rows


def sequences(rows: list[dict[str, Any]], tokenizer: Any) -> Iterator[ScoredSequence]:
    """The ids of each row, prompt and target tokenized apart, with the place of the target."""
    encode, _ = text_codec(tokenizer)
    for row in rows:
        prompt_ids = encode(row["prompt"])
        ids = prompt_ids + encode(row["target"])
        yield ScoredSequence((row["id"],), ids, [(len(prompt_ids), len(ids))])


def main() -> None:
    options = read_options(USAGE, Options)
    rows = read_rows(Path(options.input))
    print(f"reads {len(rows)} rows from {options.input}, model {options.model} in {options.dtype}")
    tokenizer = load_tokenizer(options.model)
    model = load_model(options.model, options.dtype, options.device)
    scoring = ScoringConfig(temperature=options.temperature, batch_tokens=options.batch_tokens)
    scorer = Scorer(model, Config(scoring=scoring))
    if scorer.note:
        print(scorer.note)
    lines = []
    num_tokens = 0
    with tqdm(total=len(rows), unit="row") as bar:
        for begin in range(0, len(rows), ROWS_PER_STEP):
            part = rows[begin : begin + ROWS_PER_STEP]
            scored = list(sequences(part, tokenizer))
            for row, sequence, (logp,) in zip(part, scored, scorer.score(scored), strict=True):
                start, stop = sequence.spans[0]
                num_tokens += stop
                found = {"target_logp": logp, "target_tokens": stop - start}
                lines.append(json.dumps(row | found) + "\n")
            bar.update(len(part))
    output = Path(options.output)
    text = "".join(lines)
    write_atomically(output, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(
        f"wrote {len(rows)} rows to {output}; "
        f"{num_tokens} tokens, temperature {options.temperature}"
    )


if __name__ == "__main__":
    run_command(main)
