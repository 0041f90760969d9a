"""Verdicts for any file of answers, by the same code as stage 7, without a run."""

import json
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from variational_reasoning.files import read_json_lines, write_atomically
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.mathematics.extraction import bare_answer
from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.sandbox.probe import SETTING, probe
from variational_reasoning.verify.sandbox.sandbox import Limits

USAGE = """usage: python scripts/verify_file.py input=rows.jsonl output=verdicts.jsonl [workers=2] [timeout_seconds=1.8]
       [program_cpu_seconds=4] [program_total_seconds=60] [program_memory_mib=1024] [program_python=PATH]
       [answers=auto|solution] [allow_unsandboxed_code=false]
Each line of input is {"id", "answer"} with "kind" and the keys of that check, such as {"id": 1, "kind": "math",
"gold": "7", "answer": "\\boxed{7}"} or {"id": 2, "kind": "program", "tests": {"inputs": ["1"], "outputs": ["2"]},
"answer": "```python\\n...```"}. The answer is the solution text, as in stage 7. answers=auto takes a math answer without a box
whole where it is an answer and no sentence, for files that hold extracted answers; answers=solution does not.
Output: the same rows in the same order, with verdict, reason, seconds and,
for programs, the tier of isolation."""
DEFAULTS = {
    "input": "",
    "output": "",
    "workers": "2",
    "timeout_seconds": "1.8",
    "program_cpu_seconds": "4",
    "program_total_seconds": "60",
    "program_memory_mib": "1024",
    "program_python": "",
    "answers": "auto",
    "allow_unsandboxed_code": "false",
}


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(USAGE)
        return
    options = dict(DEFAULTS)
    faults = []
    for argument in sys.argv[1:]:
        name, equals, value = argument.partition("=")
        if not equals or name not in DEFAULTS:
            faults.append(
                f"{argument!r} is not one of {', '.join(f'{key}=...' for key in DEFAULTS)}"
            )
        options[name] = value
    faults += [f"{name}=... is missing" for name in ("input", "output") if not options[name]]
    for name, allowed in (
        ("answers", ("auto", "solution")),
        ("allow_unsandboxed_code", ("true", "false")),
    ):
        if options[name] not in allowed:
            faults.append(f"{name}={options[name]!r} is not one of {', '.join(allowed)}")
    numbers = {}
    for name in (
        "workers",
        "timeout_seconds",
        "program_cpu_seconds",
        "program_total_seconds",
        "program_memory_mib",
    ):
        kind = int if name in ("workers", "program_memory_mib") else float
        try:
            numbers[name] = kind(options[name])
        except ValueError:
            numbers[name] = 0
        if not 0 < numbers[name] < float("inf"):
            faults.append(
                f"{name}={options[name]!r} is not a {'whole ' if kind is int else ''}number above 0"
            )
    if options["output"] and not Path(options["output"]).absolute().parent.is_dir():
        faults.append(f"output={options['output']!r} is in no folder that exists")
    if faults:
        raise ValueError("\n".join([*faults, USAGE]))
    rows = read_answers(Path(options["input"]))
    jobs = []
    for number, row in enumerate(rows):
        answer = row["answer"]
        if (
            options["answers"] == "auto"
            and row["kind"] == "math"
            and answer
            and (bare := bare_answer(answer)) is not None
        ):
            answer = f"\\boxed{{{bare}}}"
        jobs.append(
            Job(
                number,
                {key: value for key, value in row.items() if key not in ("id", "answer")},
                answer,
            )
        )
    programs = None
    if any(row["kind"] == "program" for row in rows):
        python = options["program_python"] or None
        found = probe(python)
        found.announce(options["allow_unsandboxed_code"] == "true", SETTING)
        seconds = numbers["program_cpu_seconds"]
        limits = Limits(
            cpu_seconds=seconds,
            wall_seconds=2 * seconds + 1,
            memory_mib=numbers["program_memory_mib"],
        )
        programs = ProgramSettings(found.tier, limits, numbers["program_total_seconds"], python)
    with VerifierPool(numbers["workers"], numbers["timeout_seconds"], programs=programs) as pool:
        results = dict(tqdm(pool.check(jobs), total=len(jobs), unit="answer"))
    output, lines = Path(options["output"]), []
    for number, row in enumerate(rows):
        verdict, reason, seconds, tier = results[number]
        found = {"verdict": verdict.value, "reason": reason, "seconds": round(seconds, 6)}
        found |= {"tier": tier} if tier else {}
        lines.append(json.dumps(row | found, ensure_ascii=False) + "\n")
    write_atomically(
        output, lambda temporary: temporary.write_text("".join(lines), encoding="utf-8")
    )
    counts = Counter(result.verdict.value for result in results.values())
    print(
        f"{output}: {len(rows)} rows; "
        + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    )


def read_answers(path: Path) -> list[dict]:
    """Rows of the input. Raises: ValueError that lists every line at fault, by number and id."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    rows, faults = [], []
    for number, row in read_json_lines(path, faults):
        found = [f"lacks {name!r}" for name in ("id", "kind", "answer") if name not in row]
        if "answer" in row and not isinstance(row["answer"], str | None):
            found.append(f"answer is {row['answer']!r}; it must be text or null")
        if "kind" in row:
            found += check_faults(
                {key: value for key, value in row.items() if key not in ("id", "answer")}
            )
        faults += [f"line {number} (id {row.get('id')!r}): {fault}" for fault in found]
        rows.append(row)
    if faults:
        raise ValueError(
            "\n".join([f"{path}: {len(faults)} fault(s)", *(f"  {fault}" for fault in faults[:20])])
        )
    if not rows:
        raise ValueError(f"{path} has no row")
    return rows


if __name__ == "__main__":
    run_command(main)
