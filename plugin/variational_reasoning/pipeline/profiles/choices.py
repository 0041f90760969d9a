"""What a profile says, once it is decided."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from variational_reasoning.pipeline.profiles.memory import ModelShape, Training
from variational_reasoning.pipeline.profiles.options import ProfileOptions


@dataclass
class Choices:
    """A profile, decided.

    folder: where it will be.
    refuses_system: see `chat_template.refuses_system`.
    train, test: of the section data.
    rows: by file name, to be written next to the YAMLs, where the test questions are taken from
        the user's file.
    reasons: what was chosen and why. notes: what a person should check.
    faults: what will not work.
    """

    name: str
    folder: Path
    options: ProfileOptions
    run_dir: str = ""
    base: str = ""
    shape: ModelShape | None = None
    training: Training | None = None
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
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_on_gpu(self) -> bool:
        """Whether the trainings run on GPUs."""
        return self.options.gpus > 0
