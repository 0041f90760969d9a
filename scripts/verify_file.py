"""Verdicts for any file of answers, by the same code as stage 7, without a run."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from variational_reasoning.faults import list_faults
from variational_reasoning.files import read_json_lines, write_atomically
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.config import Config, VerifyConfig
from variational_reasoning.pipeline.options import above, output_faults, read_options
from variational_reasoning.pipeline.verify import open_pool, open_programs
from variational_reasoning.verify.checks import CHECK_KEYS, check_faults
from variational_reasoning.verify.mathematics.extraction import bare_answer
from variational_reasoning.verify.pool import Job
from variational_reasoning.verify.sandbox.probe import SETTING
from variational_reasoning.verify.verdicts import Result

USAGE = """usage: python scripts/verify_file.py input=rows.jsonl output=verdicts.jsonl
       [workers=2] [timeout_seconds=1.8] [answers=auto|solution] [program_cpu_seconds=4]
       [program_total_seconds=60] [program_memory_mib=1024] [program_python=PATH]
       [allow_unsandboxed_code=false]
Each line of input is a JSON object with "id", "answer", "kind" and the keys of that kind of check:
  {"id": 1, "kind": "math", "gold": "7", "answer": "\\\\boxed{7}"}
  {"id": 2, "kind": "program", "tests": {"inputs": ["1"], "outputs": ["2"]}, "answer": "..."}
The answer is the text of the solution, as in stage 7, or null. Further columns are passed through.
answers=auto takes a math answer without a box whole, unless it is a sentence: for files of
extracted answers. answers=solution judges only what is in a box.
Output: the same rows in the same order, with verdict, reason, seconds and, for programs, the tier
of isolation. Columns of these four names in the input are replaced."""

RESULT_COLUMNS = ("verdict", "reason", "seconds", "tier")


@dataclass(frozen=True)
class Options:
    """See USAGE."""

    input: str = ""
    output: str = ""
    workers: int = above(0, default=2)
    timeout_seconds: float = above(0, default=1.8)
    answers: Literal["auto", "solution"] = "auto"
    program_cpu_seconds: float = above(0, default=4.0)
    program_total_seconds: float = above(0, default=60.0)
    program_memory_mib: int = above(0, default=1024)
    program_python: str | None = None
    allow_unsandboxed_code: bool = False

    def faults(self) -> list[str]:
        """See `read_options`."""
        return output_faults(self.output)


def check_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that say how its answer is checked."""
    if not isinstance(row["kind"], str) or row["kind"] not in CHECK_KEYS:
        return {"kind": row["kind"]}
    needed, optional = CHECK_KEYS[row["kind"]]
    names = {"kind", *needed, *optional}
    return {name: value for name, value in row.items() if name in names}


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Rows of the input. Raises: ValueError that lists every line at fault, by number and id."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, row in read_json_lines(path, faults):
        where = f"line {number} (id {row.get('id')!r})"
        faults += [f"{where}: {fault}" for fault in faults_of_row(row)]
        rows.append(row)
    if faults:
        raise ValueError(list_faults(f"{path}: {len(faults)} faults", faults))
    if not rows:
        raise ValueError(f"{path} has no row")
    return rows


def faults_of_row(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with a row of the input."""
    faults = []
    for name in ("id", "kind", "answer"):
        if name not in row:
            faults.append(f"lacks {name!r}")
    if "answer" in row and not isinstance(row["answer"], str | None):
        faults.append(f"answer is {row['answer']!r}; it must be text or null")
    if "kind" in row:
        faults += check_faults(check_of(row))
    return faults


def jobs(rows: list[dict[str, Any]], options: Options) -> Iterator[Job]:
    """What the verifier is asked: the rows by number, each with its check and its answer."""
    for number, row in enumerate(rows):
        answer = row["answer"]
        if answer and row["kind"] == "math" and options.answers == "auto":
            bare = bare_answer(answer)
            if bare is not None:
                answer = f"\\boxed{{{bare}}}"
        yield Job(number, check_of(row), answer)


def further_columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns that are passed through; two rows of two kinds may use different ones."""
    names: set[str] = set()
    for row in rows:
        names |= row.keys() - check_of(row).keys()
    return sorted(names - {"id", "answer", *RESULT_COLUMNS})


def result_line(row: Mapping[str, Any], result: Result) -> str:
    """A line of the output: the row, with the result in place of columns of these names."""
    verdict, reason, seconds, tier = result
    line = {name: value for name, value in row.items() if name not in RESULT_COLUMNS}
    line["verdict"] = verdict.value
    line["reason"] = reason
    line["seconds"] = round(seconds, 6)
    if tier:
        line["tier"] = tier
    return json.dumps(line, ensure_ascii=False) + "\n"


def main() -> None:
    options = read_options(USAGE, Options)
    rows = read_answers(Path(options.input))
    further = further_columns(rows)
    if further:
        print(f"further columns, passed through: {', '.join(further)}")
    settings = VerifyConfig(
        workers=options.workers,
        timeout_seconds=options.timeout_seconds,
        program_cpu_seconds=options.program_cpu_seconds,
        program_total_seconds=options.program_total_seconds,
        program_memory_mib=options.program_memory_mib,
        program_python=options.program_python,
        allow_unsandboxed_code=options.allow_unsandboxed_code,
    )
    config = Config(verify=settings)
    checks = {str(number): check_of(row) for number, row in enumerate(rows)}
    programs = open_programs(checks, config, setting=SETTING)
    with open_pool(config, programs) as pool:
        results = dict(tqdm(pool.check(jobs(rows, options)), total=len(rows), unit="answer"))
    lines = [result_line(row, results[number]) for number, row in enumerate(rows)]
    output = Path(options.output)
    text = "".join(lines)
    write_atomically(output, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    counts = Counter(result.verdict.value for result in results.values())
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{output}: {len(rows)} rows; {listed}")


if __name__ == "__main__":
    run_command(main)
