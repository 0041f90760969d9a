"""Commands of the README as the tests run them: without a network where the kernel allows it."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CAN_UNSHARE = (
    subprocess.run(
        ["unshare", "--net", "--map-root-user", "true"], capture_output=True, check=False
    ).returncode
    == 0
)
OFFLINE = ("unshare", "--net", "--map-root-user") if CAN_UNSHARE else ()
"""A namespace without any network; where the kernel forbids it, HF_HUB_OFFLINE alone has to do."""

WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
    up = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # struct ifreq: IFF_UP, IFF_RUNNING
    fcntl.ioctl(anything, 0x8914, up)  # SIOCSIFFLAGS
os.execv(sys.argv[1], sys.argv[1:])
"""


def infer_environment(**more: str) -> dict[str, str]:
    """The environment's variables for commands of the inference environment."""
    paths = os.pathsep.join([str(ROOT / "plugin"), str(ROOT / "evals")])
    return (
        os.environ
        | {"PYTHONPATH": paths, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        | more
    )


def skythought_evaluate(
    infer_python: str,
    model: Path,
    questions: Path,
    results: Path,
    context: int,
    max_tokens: int,
    more: str = "",
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """`skythought evaluate` on vr_file at temperature 0 with vLLM: (summary.json, results.json,
    standard output).

    Args:
        more: of --backend-args, such as max_symbols=3.
    """
    command = [str(Path(infer_python).parent / "skythought"), "evaluate", "--task", "vr_file"]
    command += ["--model", str(model), "--backend", "vllm", "--result-dir", str(results)]
    backend = f"dtype=float32,max_model_len={context},enforce_eager=True"
    command += ["--backend-args", f"{backend},{more}" if more else backend]
    command += ["--sampling-params", f"temperature=0,top_p=1,max_tokens={max_tokens}"]
    if OFFLINE:  # without any network but the loopback, which vLLM's processes talk over
        command = [*OFFLINE, sys.executable, "-c", WITH_LOOPBACK, *command]
    environment = infer_environment(VR_FILE=str(questions))
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    (folder,) = results.iterdir()
    summary, records = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("summary.json", "results.json")
    )
    return summary, records, done.stdout


def run_evaluation(config: Path, model: Path, *settings: str) -> None:
    """`evals/run.py` with this environment's interpreter, under the name `same`."""
    command = [
        sys.executable,
        "evals/run.py",
        str(config),
        f"model={model}",
        "name=same",
        *settings,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=infer_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Runner:
    """scripts/run.py in this process, since a process of its own for every command takes minutes."""

    def __init__(self, monkeypatch, train, **settings):
        """Args: train: the host's run_exp. settings: of all trainings, over those of the YAMLs."""
        monkeypatch.chdir(ROOT)
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        spec = importlib.util.spec_from_file_location("sequence", ROOT / "scripts/sequence.py")
        self.sequence = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "sequence", self.sequence)
        spec.loader.exec_module(self.sequence)
        monkeypatch.setattr(self.sequence, "execute", self.execute)
        self.monkeypatch, self.train, self.commands = monkeypatch, train, []
        self.settings = settings

    def run(self, *words: str) -> bool:
        return self.sequence.run_all(self.sequence.read_plan(words))

    def execute(self, plan, command, log=None, is_shown=True) -> None:
        self.commands.append(command[1:3])
        if command[0] == "llamafactory-cli":
            recipe, settings = Path(command[2]), command[3:]
            values = yaml.safe_load(recipe.read_text("utf-8"))
            values |= {
                key: yaml.safe_load(value)
                for key, value in (word.split("=", 1) for word in settings)
            }
            self.train(values | self.settings)
            return
        self.monkeypatch.setattr(sys, "argv", command[1:])
        try:
            runpy.run_path(command[1], run_name="__main__")
        except SystemExit as error:
            assert not error.code, command
