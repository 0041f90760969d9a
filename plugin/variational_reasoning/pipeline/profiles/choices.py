"""What a profile says, once it is decided."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from variational_reasoning.pipeline.profiles.memory import ModelShape, WayToTrain
from variational_reasoning.pipeline.profiles.options import ProfileOptions


@dataclass(frozen=True)
class HeldOut:
    """Test questions from the user's file; train.jsonl and test.jsonl are written next to the
    YAMLs.

    rows: reads the user's rows once more. column: of the question. questions: those for the test.
    """

    rows: Callable[[], Iterable[dict[str, Any]]]
    column: str
    questions: frozenset[str]

    def file_of(self, row: Mapping[str, Any]) -> str:
        """By the question's text, so that a row that is there twice is on one side."""
        is_test = str(row.get(self.column)) in self.questions
        return "test.jsonl" if is_test else "train.jsonl"


@dataclass
class Choices:
    """A profile, decided.

    folder: where it will be.
    refuses_system: see `chat_template.refuses_system`.
    train, test: of the section data.
    held_out: what the test questions are, where they are taken from the user's file.
    reasons: what was chosen and why. notes: what a person should check.
    faults: what will not work.
    """

    name: str
    folder: Path
    options: ProfileOptions
    run_dir: str = ""
    base: str = ""
    shape: ModelShape | None = None
    training: WayToTrain | None = None
    parallel: int = 1
    cutoff_len: int = 0
    chat_format: str = ""
    refuses_system: bool = False
    family: str = "think"
    family_text: str | None = None
    posterior_prompt: str = ""
    start: str = "questions"
    check_kind: str = "math"
    columns: dict[str, str] = field(default_factory=dict)
    train: str = ""
    test: str | None = None
    num_train: int = 0
    held_out: HeldOut | None = None
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_on_gpu(self) -> bool:
        """Whether the trainings run on GPUs."""
        return self.options.gpus > 0
