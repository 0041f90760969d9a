"""Task definitions and their questions: what is asked, and how an answer is checked (App. D).

A definition (`definitions/vr_*.yaml`) is a SkyThought task YAML, so that `skythought evaluate` and
`evals/run.py` read one file. Its `preprocess_config` holds our own settings: task (its name),
version, check, where, num_questions, num_samples.

Files come from the hub at a fixed commit, and are read here, row by row. The `datasets` library
refuses LiveCodeBench, because that has a loading script. Without a network it does not find single
files in its cache.
"""

import csv
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from variational_reasoning.faults import list_faults
from variational_reasoning.files import read_json_lines
from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.programs.livecodebench import livecodebench_check

DEFINITIONS = Path(__file__).parent / "definitions"
FILE_TASK = "vr_file"
FILE_VARIABLE = "VR_FILE"
"""Names the JSONL file of `vr_file`; SkyThought's command line has no option for it."""


@dataclass(frozen=True)
class Task:
    """One benchmark.

    dataset_path: a data set of the hub; `local` for vr_file.
    revision: its commit.
    files: the files that are read, in order.
    templates: user texts with `{prompt}`. Programs have one for those that read standard input and
        one for functions; other tasks have `template`.
    where: column to text; only rows whose column contains the text are used.
    check: a key of `CHECKS`.
    num_samples: the paper's k.
    num_questions: None where the file decides.
    """

    name: str
    version: int
    check: str
    num_samples: int
    dataset_path: str
    revision: str | None
    files: tuple[str, ...]
    question_key: str
    answer_key: str | None
    templates: Mapping[str, str]
    where: Mapping[str, str] = field(default_factory=dict)
    num_questions: int | None = None


def task_names() -> list[str]:
    """The names of all tasks, in alphabetical order."""
    return sorted(definitions())


def definitions() -> dict[str, Path]:
    """Task name to its YAML."""
    return {path.stem: path for path in DEFINITIONS.glob("vr_*.yaml")}


def load_task(name: str, file: str | os.PathLike | None = None) -> Task:
    """A task by name.

    Args:
        file: the JSONL file of `vr_file`. By default the environment variable VR_FILE names it. No
            other task takes a file.

    Raises: ValueError for an unknown name, a missing file, or a file for another task.
    """
    if name not in definitions():
        raise ValueError(f"task {name!r} is not one of {', '.join(task_names())}")
    raw = yaml.safe_load(definitions()[name].read_text(encoding="utf-8"))
    own, kwargs = raw["preprocess_config"], raw.get("dataset_kwargs", {})
    files = tuple(kwargs.get("data_files", ()))
    if name == FILE_TASK:
        files = (str(_local_file(file)),)
    elif file is not None:
        raise ValueError(f"task {name} has its own data; a file goes with the task {FILE_TASK}")
    return Task(
        name=name,
        version=own["version"],
        check=own["check"],
        num_samples=own["num_samples"],
        dataset_path=raw["dataset_path"],
        revision=kwargs.get("revision"),
        files=files,
        question_key=raw["question_key"],
        answer_key=raw.get("answer_key"),
        templates=raw["templating_parameters"],
        where=own.get("where", {}),
        num_questions=own.get("num_questions"),
    )


def _local_file(file: str | os.PathLike | None) -> Path:
    named = os.environ.get(FILE_VARIABLE) if file is None else file
    if not named:
        raise ValueError(
            f"task {FILE_TASK} needs a file: set the environment variable {FILE_VARIABLE} to a "
            ".jsonl of lines with question, gold (or check) and optionally question_id"
        )
    path = Path(named)
    if not path.is_file():
        raise ValueError(f"task {FILE_TASK}: {path} does not exist")
    return path


def load_questions(task: Task) -> list[dict[str, str]]:
    """The questions of a task, in the order of its data: {question_id, question, check}.

    `question` is the exact user text. `check` is the JSON text that
    `variational_reasoning.verify.checks.parse_check` reads, as in the questions table.

    Raises: ValueError for data that cannot be downloaded (it says how to get access), and for data
    that do not fit the definition.
    """
    questions: dict[str, dict[str, str]] = {}
    faults = []
    for number, row in enumerate(_rows(task)):
        if any(text not in str(row[column]) for column, text in task.where.items()):
            continue
        question_id = f"{task.name}/{number}"
        if task.name == FILE_TASK:
            question_id = str(row.get("question_id", question_id))
        try:
            text, check = CHECKS[task.check](task, question_id, row)
        except KeyError as error:
            faults.append(f"{question_id}: lacks the column {error}")
            continue
        except ValueError as error:
            faults.append(f"{question_id}: {error}")
            continue
        if question_id in questions:
            faults.append(f"{question_id}: the question_id is there twice; each needs its own")
        faults += [f"{question_id}: {fault}" for fault in check_faults(check)]
        questions[question_id] = {
            "question_id": question_id,
            "question": text,
            "check": json.dumps(check, ensure_ascii=False),
        }
    where = f"{task.dataset_path} {' '.join(task.files)}"
    if faults:
        head = f"task {task.name}: {len(faults)} rows of {where} cannot be used"
        raise ValueError(list_faults(head, faults))
    expected = task.num_questions
    if expected is None:
        expected = max(1, len(questions))
    if len(questions) != expected:
        raise ValueError(
            f"task {task.name}: {where} gives {len(questions)} questions, not {expected}; the data "
            f"are not those of the definition {definitions()[task.name]}"
        )
    return list(questions.values())


def _gold(task: Task, row: Mapping[str, Any]) -> Any:
    assert task.answer_key is not None  # only the tasks of programs have none
    return row[task.answer_key]


def _math(task: Task, question_id: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """One answer in a box, compared by value; integers exactly."""
    gold = _gold(task, row)
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)  # AMC's column is a float: 27.0
    return _ask(task, row[task.question_key]), {"kind": "math", "gold": str(gold)}


def _math_list(task: Task, question_id: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Several answers: all of them where the row says so, else any of the listed forms."""
    golds = [str(gold) for gold in _gold(task, row)]
    gold = ", ".join(golds) if row["is_multiple_answer"] else golds
    return _ask(task, row[task.question_key]), {"kind": "math", "gold": gold}


def _shuffled_choice(
    task: Task, question_id: str, row: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Four options in an order that depends on the question only."""
    right = row["Correct Answer"]
    options = [right, *(row[f"Incorrect Answer {number}"] for number in (1, 2, 3))]
    # In the order [2, 0, 3, 1] the right option, number 0, has the letter B.
    order = random.Random(f"{task.version}/{question_id}").sample(range(4), 4)
    lettered = zip("ABCD", order, strict=True)
    shown = ", ".join(f"{letter}) {options[index]}" for letter, index in lettered)
    text = f"{row[task.question_key]}\n{shown}"
    gold = "ABCD"[order.index(0)]
    return _ask(task, text), {"kind": "math", "gold": gold}


_LETTERS = "ABCDEFGHIJKLMNOP"


def _lettered_choice(
    task: Task, question_id: str, row: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Up to sixteen options. The letter is accepted, and so is the letter with the option's text."""
    options = [str(option).strip() for option in row["options"]]
    lettered = [f"({_LETTERS[index]}) {option}" for index, option in enumerate(options[:16])]
    right = row["answer_index"]
    text = f"{row[task.question_key]}\nAnswer Choices: {' '.join(lettered)}"
    golds = [_LETTERS[right], lettered[right]]
    return _ask(task, text), {"kind": "math", "gold": golds}


def _livecodebench(
    task: Task, question_id: str, row: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """A program with the public and the private tests.

    For a function, its signature is a part of the question.
    """
    check = livecodebench_check(row)
    question = row[task.question_key]
    if "fn_name" not in check:
        return _ask(task, question, "stdin_template"), check
    with_signature = f"{question}\n\n{row['starter_code']}"
    return _ask(task, with_signature, "non_stdin_template"), check


def _given(task: Task, question_id: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A local file's row: its own check, or a gold answer that is compared as mathematics."""
    if "check" in row:
        return _ask(task, row[task.question_key]), row["check"]
    return _ask(task, row[task.question_key]), {"kind": "math", "gold": _gold(task, row)}


CHECKS: dict[str, Callable[[Task, str, Mapping[str, Any]], tuple[str, dict[str, Any]]]] = {
    "math": _math,
    "math_list": _math_list,
    "shuffled_choice": _shuffled_choice,
    "lettered_choice": _lettered_choice,
    "livecodebench": _livecodebench,
    "given": _given,
}
"""The values of a definition's `check`: the function from a row to (user text, check)."""


def _ask(task: Task, prompt: str, template: str = "template") -> str:
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"the column {task.question_key!r} is {prompt!r}, not a question")
    return task.templates[template].format(prompt=prompt)


def _rows(task: Task) -> Iterator[dict[str, Any]]:
    for file in task.files:
        path = Path(file) if task.name == FILE_TASK else find_file(task, file)
        if path.suffix == ".parquet":
            import pyarrow.parquet

            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                yield from csv.DictReader(stream)
        else:
            for _, row in read_json_lines(path):
                yield row


def find_file(task: Task, file: str) -> Path:
    """A data file's path in the hub's cache. It is downloaded if the cache does not have it.

    Raises: ValueError for gated data without access, and for data that are neither cached nor
    reachable. It says what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    page = f"https://huggingface.co/datasets/{task.dataset_path}"
    try:
        return Path(
            hf_hub_download(task.dataset_path, file, repo_type="dataset", revision=task.revision)
        )
    except GatedRepoError as error:
        raise ValueError(
            f"task {task.name}: {task.dataset_path} is gated, and this account has no access. "
            f"Accept its terms on {page}, make a token on https://huggingface.co/settings/tokens, "
            "then run `hf auth login`, or set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"task {task.name}: {file} of {task.dataset_path} is not in the local cache, and the "
            "hub cannot be reached (or HF_HUB_OFFLINE is set). On a machine with a network run "
            f"`python evals/doctor.py download={task.name}`, and copy the folder that HF_HOME names"
        ) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"task {task.name}: {file} of {page} at {task.revision} cannot be downloaded: {error}"
        ) from error
