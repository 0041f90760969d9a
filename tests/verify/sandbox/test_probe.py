"""The tier of a machine: found by trying, refused below the minimum."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.verify.sandbox.probe import MINIMUM_TIER, Probe, probe

from ..conftest import need_tier


def test_a_tier_below_the_minimum_is_refused_with_what_is_missing():
    weak = Probe(1, {3: "unshare: Operation not permitted", 2: "landlock: the kernel has none"})
    with pytest.raises(
        ValueError,
        match=(
            r"(?s)tier T1.*below T2.*landlock: the kernel has "
            r"none.*verify.allow_unsandboxed_code"
        ),
    ):
        weak.check(False)
    weak.check(True)
    Probe(MINIMUM_TIER, {}).check(False)


def test_the_probe_tells_tiers_and_why_not(tmp_path):
    need_tier(3)
    found = probe()
    assert found.tier == 3 and found.missing == {}
    assert f"with {sys.executable} ({platform.python_version()}, with numpy)" in found.describe()
    with pytest.raises(
        ValueError, match=f"program_python is {tmp_path}/python, which does not run"
    ):
        probe(str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("holes", "found"),
    [
        ("c.forbid_processes = lambda: None", "start a process"),
        ("c.forbid_processes = c.allow_known_calls = lambda: None", "open a socket"),
    ],
)
def test_a_sandbox_that_does_not_hold_is_no_tier(holes, found):
    # without a seccomp filter a program can do more, and the probe sees it
    code = (
        "from variational_reasoning.verify.sandbox import probe, sandbox\n"
        f"hole = 'import variational_reasoning.verify.sandbox.inside.confine as c; {holes}; '\n"
        "sandbox.FORK_SERVER = hole + sandbox.FORK_SERVER\n"
        "print(probe.probe())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "tier=3" not in done.stdout and found in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="all other tests run without root already")
@pytest.mark.parametrize("tier", [3, 2])
def test_tiers_hold_without_root(tier):
    root = Path(__file__).parents[3] / "plugin"
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")  # one that others can read
    if python is None:
        pytest.skip(
            "this machine has no python3 in /usr/local/bin or /usr/bin, where another user "
            "could read it"
        )
    code = (
        "import ctypes, os, sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345); os.chdir('/')\n"
        # a process that has changed its user cannot write its own maps
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "from variational_reasoning.verify.sandbox.probe import probe\n"
        "from variational_reasoning.verify.sandbox.runner import run_once\n"
        "from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox\n"
        f"found = probe(highest={tier})\n"
        "print(found)\n"
        "with Sandbox(found.tier) as sandbox:\n"
        "    print(run_once(sandbox, 'print(int(input()) * 2)', Limits(), b'4').stdout)\n"
        "    print(run_once(sandbox, 'import os; os.kill(os.getppid(), 9)', Limits()).code)\n"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    if "PermissionError" in done.stderr or "No module named" in done.stderr:
        pytest.skip(f"another user cannot read {root}: {done.stderr.strip().splitlines()[-1]}")
    if f"tier={tier}" not in done.stdout:
        pytest.skip(
            f"tier T{tier} is not available without root on this machine: {done.stdout} "
            f"{done.stderr[-300:]}"
        )
    assert done.stdout.splitlines()[1:] == [r"b'8\n'", "1"], done.stdout + done.stderr
