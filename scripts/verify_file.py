"""Verdicts for any file of answers, by the same code as stage 7, without a run."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from variational_reasoning.pipeline.config import run_command
from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.pool import Job, VerifierPool

USAGE = """usage: python scripts/verify_file.py input=rows.jsonl output=verdicts.jsonl [workers=2] [timeout_seconds=10]
Each line of input is {"id", "answer"} with "kind" and the keys of that check, such as {"id": 1, "kind": "math",
"gold": "7", "answer": "\\\\boxed{7}"}. The answer is the solution text. Output: the same rows in the same order, with
verdict, reason and seconds."""
DEFAULTS = {"input": "", "output": "", "workers": "2", "timeout_seconds": "10"}


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(USAGE)
        return
    options = dict(DEFAULTS)
    faults = []
    for argument in sys.argv[1:]:
        name, equals, value = argument.partition("=")
        if not equals or name not in DEFAULTS:
            faults.append(f"{argument!r} is not one of {', '.join(f'{key}=...' for key in DEFAULTS)}")
        options[name] = value
    faults += [f"{name}=... is missing" for name in ("input", "output") if not options[name]]
    if faults:
        raise ValueError("\n".join([*faults, USAGE]))
    rows = read_answers(Path(options["input"]))
    jobs = [
        Job(number, {key: value for key, value in row.items() if key not in ("id", "answer")}, row["answer"])
        for number, row in enumerate(rows)
    ]
    with VerifierPool(int(options["workers"]), float(options["timeout_seconds"])) as pool:
        results = dict(tqdm(pool.check(jobs), total=len(jobs), unit="answer"))
    output = Path(options["output"])
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            verdict, reason, seconds = results[number]
            found = {"verdict": verdict.value, "reason": reason, "seconds": round(seconds, 6)}
            stream.write(json.dumps(row | found, ensure_ascii=False) + "\n")
    temporary.replace(output)
    counts = Counter(result.verdict.value for result in results.values())
    print(f"{output}: {len(rows)} rows; " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))


def read_answers(path: Path) -> list[dict]:
    """Rows of the input. Raises: ValueError that lists every line at fault, by number and id."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    rows, faults = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"line {number} is not valid JSON ({error})")
            continue
        if not isinstance(row, dict):
            faults.append(f"line {number} is no object: {line[:60]}")
            continue
        found = [f"lacks {name!r}" for name in ("id", "kind", "answer") if name not in row]
        if "answer" in row and not isinstance(row["answer"], str | None):
            found.append(f"answer is {row['answer']!r}; it must be text or null")
        if "kind" in row:
            found += check_faults({key: value for key, value in row.items() if key not in ("id", "answer")})
        faults += [f"line {number} (id {row.get('id')!r}): {fault}" for fault in found]
        rows.append(row)
    if faults:
        raise ValueError("\n".join([f"{path}: {len(faults)} fault(s)", *(f"  {fault}" for fault in faults[:20])]))
    if not rows:
        raise ValueError(f"{path} has no row")
    return rows


if __name__ == "__main__":
    run_command(main)
