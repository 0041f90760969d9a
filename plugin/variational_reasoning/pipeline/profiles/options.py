"""The command line of scripts/new_profile.py."""

from dataclasses import dataclass
from typing import Literal

from variational_reasoning.pipeline.options import above


@dataclass(frozen=True)
class ProfileOptions:
    """What a profile is made for; auto: chosen from the model, the data and the machine."""

    base: str = ""
    data: str = ""
    test: str | None = None
    question: str | None = None
    gold: str | None = None
    solution: str | None = None
    trace: str | None = None
    check_kind: Literal["auto", "math", "exact"] = "auto"
    family: str = "think"
    instruction: str | None = None
    chat_format: str = "auto"
    start: Literal["auto", "questions", "traces"] = "auto"
    posterior: Literal["prompted", "own_traces"] = "prompted"
    gpus: int = above(-1, default=1)
    gpu_gb: float = above(0, default=24)
    lora: Literal["auto", "true", "false"] = "auto"
    cutoff_len: int = above(0, default=0)
    num_traces: int = above(0, default=8)
    num_answers: int = above(0, default=8)
    epochs: float = above(0, default=3.0)
    train_size: int = above(0, default=1000)
    test_size: int = above(0, default=200)
    allow_hub: bool = False

    def faults(self) -> list[str]:
        """Nothing here: what does not fit is found together with model and data."""
        return []
