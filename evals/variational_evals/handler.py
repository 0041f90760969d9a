"""SkyThought's interface to our tasks: questions from `tasks`, verdicts from our own verifier.

One handler serves all definitions. SkyThought's own handlers have these faults:

    an answer that crashes the parser    ends the whole run
    several answers                      only the first is checked
    integers                             may differ by 0.01 %
    choices                              the last capital letter of the text is taken
    programs                             run without a sandbox
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from skythought.evals.tasks.base import TaskConfig, TaskHandler
from tqdm import tqdm

from variational_evals.generation import Conversation
from variational_evals.host_fit import require
from variational_evals.models import INVOCATION
from variational_evals.tasks import FILE_TASK, definitions, load_questions, load_task
from variational_reasoning.files import file_digest
from variational_reasoning.method.chat_formats import CHAT_FORMATS
from variational_reasoning.method.prompts import Renderer, make_renderer
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.verify import open_programs
from variational_reasoning.verify.checks import parse_check
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import UNDECIDED, Result, Verdict

HANDLER_NAME = "variational"

Asked = dict[Any, tuple[dict[str, Any], str]]
"""Key to SkyThought's record of a question, and a response to it."""

RECOGNIZED = ("paper", "abstract")
"""Prompt families whose openings no other model's prompt has. `<think>`, the opening of the family
`think`, is that of many models.
"""


class VariationalTaskHandler(TaskHandler):
    """A task of ours.

    SkyThought's records hold the question and its id. Checks may be large, so they stay here.
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
        if name == FILE_TASK:  # summary.json and the hash of the result folder then have the file
            file = Path(self.task.files[0])
            task_config.dataset_kwargs = {"data_files": str(file), "sha256": file_digest(file)}
        self._checks: dict[str, dict[str, Any]] = {}
        self._questions: list[dict[str, str]] = []

    def _load(self) -> None:
        """Read the questions and their checks, once."""
        if self._questions:
            return
        self._questions = load_questions(self.task)
        for row in self._questions:
            self._checks[row["question_id"]] = parse_check(row["check"])
        # A machine that cannot confine programs is refused before any sampling.
        open_programs(self._checks, Config())

    def load_and_filter_dataset(
        self,
        start: int,
        end: int,
        split: str | None = None,
        subset: str | None = None,
        difficulty: str | None = None,
    ) -> pd.DataFrame:
        """The questions from `start` to before `end`, with SkyThought's `_index`.

        An `end` of 0 or below means that all are taken. The other arguments select among the data
        sets that SkyThought loads itself; ours have one file.
        """
        self._load()
        rows = self._questions[start:]
        if end > 0:
            rows = self._questions[start:end]
        ids = [row["question_id"] for row in rows]
        texts = [row["question"] for row in rows]
        return pd.DataFrame({"_index": ids, "question_id": ids, "question": texts})

    def generate_prompt(self, problem: dict[str, Any]) -> str:
        """The user text."""
        return problem["question"]

    def make_conversations(
        self, data: list[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> list[Conversation]:
        """SkyThought's conversations, each with its question's id."""
        conversations = []
        made = super().make_conversations(data, *args, **kwargs)
        for messages, row in zip(made, data, strict=True):
            conversation = Conversation(messages)
            conversation.question_id = row["question_id"]
            conversations.append(conversation)
        return conversations

    def check_correctness(self, problem: dict[str, Any], generation: str) -> bool:
        """Whether this response to a record's question is correct."""
        return self._judge_one(problem, generation).verdict is Verdict.CORRECT

    def update_results(self, problem: dict[str, Any], response: str) -> dict[str, Any]:
        """SkyThought's entry of one response."""
        result = self._judge_one(problem, response)
        return {"content": response} | _entry(result)

    def score(
        self, id_to_results: dict[str, dict[str, Any]]
    ) -> tuple[float, dict[str, list[int]], int]:
        """Replaces SkyThought's `score_responses`: adds the verdict to every response.

        Returns: (accuracy, scores by id, count).
        """
        asked: Asked = {}
        scores = {}
        for index, record in id_to_results.items():
            scores[index] = [0] * len(record["responses"])
            for number, response in enumerate(record["responses"]):
                asked[index, number] = record, response["content"]
        num_correct = 0
        num_undecided = 0
        for (index, number), result in tqdm(self._judge(asked), total=len(asked), unit="answer"):
            entry = _entry(result)
            id_to_results[index]["responses"][number].update(entry)
            if entry["correctness"]:
                scores[index][number] = 1
                num_correct += 1
            if result.verdict in UNDECIDED:
                num_undecided += 1
        if num_undecided:
            print(
                f"warning: no checker decides {num_undecided} of {len(asked)} answers; they count "
                "as not correct"
            )
        accuracy = num_correct / len(asked) if asked else 0.0
        return round(accuracy, 4), scores, len(asked)

    def _judge_one(self, record: dict[str, Any], response: str) -> Result:
        """The result of one response."""
        [(_, result)] = self._judge({0: (record, response)})
        return result

    def _judge(self, asked: Asked) -> Iterator[tuple[Any, Result]]:
        """(key, result) of every response, in the order in which they are finished."""
        self._load()
        config = Config()
        settings = config.verify
        programs = open_programs(self._checks, config)
        num_workers = len(os.sched_getaffinity(0))
        pool = VerifierPool(num_workers, settings.timeout_seconds, settings.memory_mib, programs)
        with pool:
            yield from pool.check(self._jobs(asked))

    def _jobs(self, asked: Asked) -> Iterator[Job]:
        for key, (record, response) in asked.items():
            check = self._checks[record["question_id"]]
            yield Job(key, check, _solution(record, response))


def _solution(record: dict[str, Any], response: str) -> str | None:
    """The text that is judged; None for a reasoner's response without a whole solution.

    For a reasoner of ours it is the solution, without trace and tags. For another model it is the
    whole response. A reasoner is known by the last message, which opens its trace for it.
    """
    last = record["input_conversation"][-1]
    if last["role"] != "assistant":
        return response
    is_reasoner = False
    for renderer in _possible_renderers():
        opening = renderer.texts("reasoner").opening.strip()
        if not last["content"].startswith(opening):
            continue
        is_reasoner = True
        solution = renderer.solution_of_response(response)
        if solution is not None:
            return solution
    return None if is_reasoner else response


def _possible_renderers() -> list[Renderer]:
    """The prompts that this process asked with; where it asked nothing, those of `RECOGNIZED`.

    `skythought score` judges what another process has sampled, and its records do not name the
    prompts. Chat formats differ in the end of a solution.
    """
    if INVOCATION.renderer is not None:
        return [INVOCATION.renderer]
    return [make_renderer(chat, family) for family in RECOGNIZED for chat in CHAT_FORMATS]


def _entry(result: Result) -> dict[str, Any]:
    """What SkyThought keeps of a result: `wrong: another value`, and no reason for a right one."""
    if result.verdict is Verdict.CORRECT:
        return {"correctness": True, "reason": ""}
    reason = f"{result.verdict.value}: {result.reason}"
    return {"correctness": False, "reason": reason.strip(": ")}
