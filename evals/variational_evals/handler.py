"""SkyThought's interface to our tasks: questions from `tasks`, verdicts from the project's
verifier.

One handler serves all definitions. SkyThought's own ones end a whole run at the first answer that
their parser does not survive, check the first of several answers only, accept integers that differ
by 0.01 %, take the last capital letter of a text for a choice, and run programs without a sandbox.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from skythought.evals.tasks.base import TaskConfig, TaskHandler
from tqdm import tqdm

from variational_evals.generation import Conversation
from variational_evals.host_fit import require
from variational_evals.models import RUN
from variational_evals.tasks import FILE_TASK, definitions, load_questions, load_task
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.verify import open_programs
from variational_reasoning.verify.checks import parse_check
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import UNDECIDED, Result, Verdict

HANDLER_NAME = "variational"


class VariationalTaskHandler(TaskHandler):
    """A task of ours. The records that SkyThought keeps hold the question and its id; checks,
    which may be large, stay here.
    """

    def __init__(self, task_config: TaskConfig) -> None:
        """Raises: RuntimeError for a SkyThought that does not fit; ValueError for changed settings
        and missing files.
        """
        super().__init__(task_config)
        require()
        name = task_config.preprocess_config["task"]
        if task_config != TaskConfig.from_yaml(definitions()[name]):
            raise ValueError(
                f"task {name}: its settings belong to its version and cannot be changed by "
                "--task-args"
            )
        self.task = load_task(name)
        if name == FILE_TASK:  # it is in summary.json and in the result folder's hash
            file = Path(self.task.files[0])
            task_config.dataset_kwargs = {
                "data_files": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
        self._checks: dict[str, dict[str, Any]] = {}
        self._questions: list[dict[str, str]] = []

    def _load(self) -> None:
        if not self._questions:
            self._questions = load_questions(self.task)
            self._checks = {
                row["question_id"]: parse_check(row["check"]) for row in self._questions
            }
            open_programs(
                self._checks, Config()
            )  # a machine that cannot confine programs is refused before any sampling

    def load_and_filter_dataset(
        self,
        start: int,
        end: int,
        split: str | None = None,
        subset: str | None = None,
        difficulty: str | None = None,
    ) -> pd.DataFrame:
        """The questions from `start` to `end` (all where end is not above 0), with SkyThought's
        `_index`.
        """
        self._load()
        rows = self._questions[start:end] if end > 0 else self._questions[start:]
        ids = [row["question_id"] for row in rows]
        return pd.DataFrame(
            {"_index": ids, "question_id": ids, "question": [row["question"] for row in rows]}
        )

    def generate_prompt(self, problem: dict[str, Any]) -> str:
        """The user text."""
        return problem["question"]

    def make_conversations(
        self, data: list[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> list[Conversation]:
        """SkyThought's conversations, each with its question's id."""
        conversations = [
            Conversation(each) for each in super().make_conversations(data, *args, **kwargs)
        ]
        for conversation, row in zip(conversations, data, strict=True):
            conversation.question_id = row["question_id"]
        return conversations

    def check_correctness(self, problem: dict[str, Any], generation: str) -> bool:
        """Is this response to a record's question correct?"""
        ((_, result),) = self._judge({0: (problem, generation)})
        return result.verdict is Verdict.CORRECT

    def update_results(self, problem: dict[str, Any], response: str) -> dict[str, Any]:
        """SkyThought's entry of one response."""
        ((_, result),) = self._judge({0: (problem, response)})
        return {"content": response} | _entry(result)

    def score(
        self, id_to_results: dict[str, dict[str, Any]]
    ) -> tuple[float, dict[str, list[int]], int]:
        """What SkyThought's `score_responses` does: fills in every response, and returns
        (accuracy, scores by id, count).
        """
        asked = {
            (index, number): (record, response["content"])
            for index, record in id_to_results.items()
            for number, response in enumerate(record["responses"])
        }
        scores = {index: [0] * len(record["responses"]) for index, record in id_to_results.items()}
        num_undecided = 0
        for (index, number), result in tqdm(self._judge(asked), total=len(asked), unit="answer"):
            entry = _entry(result)
            id_to_results[index]["responses"][number].update(entry)
            scores[index][number] = int(entry["correctness"])
            num_undecided += result.verdict in UNDECIDED
        if num_undecided:
            print(
                f"warning: no checker decides {num_undecided} of {len(asked)} answers; they count "
                "as not correct"
            )
        accuracy = sum(map(sum, scores.values())) / len(asked) if asked else 0.0
        return round(accuracy, 4), scores, len(asked)

    def _judge(self, asked: dict[Any, tuple[dict[str, Any], str]]) -> Iterator[tuple[Any, Result]]:
        self._load()
        settings = Config().verify
        programs = open_programs(self._checks, Config())
        with VerifierPool(
            len(os.sched_getaffinity(0)), settings.timeout_seconds, settings.memory_mib, programs
        ) as pool:
            jobs = (
                Job(key, self._checks[record["question_id"]], _solution(record, text))
                for key, (record, text) in asked.items()
            )
            yield from pool.check(jobs)


def _solution(record: dict[str, Any], response: str) -> str | None:
    """What is judged: the text inside the solution tags of a reasoner of ours, and the whole
    response of another model.
    """
    last = record["input_conversation"][-1]
    renderer = RUN.renderer or make_renderer(
        "chatml"
    )  # judged apart from its run: the paper's tags
    opening = renderer.texts("reasoner").opening.strip()
    is_ours = last["role"] == "assistant" and last["content"].startswith(opening)
    return renderer.solution_of_response(response) if is_ours else response


def _entry(result: Result) -> dict[str, Any]:
    is_correct = result.verdict is Verdict.CORRECT
    return {
        "correctness": is_correct,
        "reason": "" if is_correct else f"{result.verdict.value}: {result.reason}".strip(": "),
    }
