"""The same tests with transformers 4.57.6, which vLLM 0.20 shares an environment with; `make test` installs it as an overlay.

The environment itself has transformers 5.6.0, the newest that LLaMA-Factory 0.9.5 admits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OVERLAY = ROOT / ".overlay-transformers-4"
TESTS = (
    "tests/host/test_dataset.py",
    "tests/host/test_gradient.py",
    "tests/host/test_trainer.py",
    "tests/host/test_launchers.py::test_one_process",
    "tests/host/test_launchers.py::test_zero_3",
    "tests/host/test_seams.py::test_all_seams_fit_and_are_replaced_once_the_host_is_imported",
    "tests/pipeline/test_engines.py",
    "tests/pipeline/test_score.py",
)


@pytest.mark.skipif(
    not (OVERLAY / ".ready").is_file(), reason="no overlay with transformers 4: run `make test`"
)
def test_host_engines_and_scoring():
    env = os.environ | {"PYTHONPATH": str(OVERLAY)}
    version = [sys.executable, "-c", "import transformers; print(transformers.__version__)"]
    assert (
        subprocess.run(version, env=env, capture_output=True, text=True, check=True).stdout.strip()
        == "4.57.6"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-6000:]
