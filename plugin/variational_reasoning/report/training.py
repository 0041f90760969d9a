"""The trainings of a run as curves: loss, token mean of the loss, gradient norm (Fig. 1).

They are read from the files that the host writes into the folder of the model. That is
trainer_state.json once a training has ended. Before that it is trainer_log.jsonl, which has no
gradient norm.
"""

from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.files import read_json_lines, read_json_object

CURVES = {
    "loss": "loss (Dr. SFT, nats)",
    "token_nll": "token mean (nats)",
    "grad_norm": "gradient norm",
}
"""Logged value to its label: weighted Dr. SFT, the token mean that stock SFT reports, the norm
before clipping."""

FIRST = ("reasoner", "posterior")
"""The models that are listed first, in this order."""


class Training(NamedTuple):
    """Logged values of one training by step; `curves` maps a name of CURVES to (steps, values)."""

    name: str
    curves: dict[str, tuple[list[int], list[float]]]


def training_folders(run: Path) -> dict[str, Path]:
    """The folder that each training of a run wrote, by the model's name.

    It is models/NAME. With LoRA it is adapters/NAME, and models/NAME is the merged model. The order
    is reasoner, posterior, then the other names.
    """
    found = {}
    for kind in ("models", "adapters"):
        for path in run.glob(f"{kind}/*"):
            if path.is_dir():
                found[path.name] = path
    first = [name for name in FIRST if name in found]
    others = sorted(found.keys() - set(first))
    return {name: found[name] for name in [*first, *others]}


def read_trainings(run: Path) -> list[Training]:
    """The trainings of a run folder; those without a log are left out.

    Raises: ValueError for a log that is not JSON.
    """
    trainings = []
    for name, folder in training_folders(run).items():
        curves = curves_of(_log_of(folder))
        if curves:
            trainings.append(Training(name, curves))
    return trainings


def curves_of(log: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """(steps, values) for each name of CURVES that the log has.

    Entries of evaluations and the summary have no `loss`.
    """
    curves = {}
    for name in CURVES:
        steps: list[int] = []
        values: list[float] = []
        for entry in log:
            step = entry.get("step", entry.get("current_steps"))
            if name in entry and step is not None:
                steps.append(int(step))
                values.append(float(entry[name]))
        if steps:
            curves[name] = steps, values
    return curves


def _log_of(model: Path) -> list[dict[str, Any]]:
    state = model / "trainer_state.json"
    if state.is_file():
        return read_json_object(state, "train the model again").get("log_history", [])
    log = model / "trainer_log.jsonl"
    if not log.is_file():
        return []
    return [entry for _, entry in read_json_lines(log)]
