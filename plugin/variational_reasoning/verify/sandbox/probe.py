"""Which tier of isolation this machine has (stage 7).

A tier only counts when a program in it has tried all that it must not do, and has failed. A kernel
that accepts the calls and enforces nothing does not give T2.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from .processes import remove_folder
from .runner import run_once
from .sandbox import TIERS, Limits, Sandbox, SandboxError

MINIMUM_TIER = 2
SETTING = "allow_unsandboxed_code"
"""The setting that accepts a tier below the minimum."""


class Probe(NamedTuple):
    """The highest tier of this machine.

    missing: why each higher one is not available. interpreter: what programs run with.
    """

    tier: int
    missing: dict[int, str]
    interpreter: str = ""

    def describe(self) -> str:
        """The lines that commands print."""
        under = f", with {self.interpreter}" if self.interpreter else ""
        lines = [f"programs run in tier T{self.tier} ({TIERS[self.tier]}){under}"]
        for tier, reason in sorted(self.missing.items(), reverse=True):
            lines.append(f"  T{tier} is not there: {reason}")
        return "\n".join(lines)

    def check(self, is_accepted: bool, setting: str = f"verify.{SETTING}") -> None:
        """Raises: ValueError for a tier below the minimum, unless the risk is accepted.

        The message names the setting that accepts it.
        """
        if self.tier < MINIMUM_TIER and not is_accepted:
            raise ValueError(
                f"programs that a model wrote would run in tier T{self.tier} "
                f"({TIERS[self.tier]}), below T{MINIMUM_TIER}:\n{self.describe()}\n"
                f"To accept that risk on this machine, set {setting} to true"
            )

    def announce(self, is_accepted: bool, setting: str = f"verify.{SETTING}") -> None:
        """Print where programs run, with a warning below the minimum. Raises: as `check` does."""
        self.check(is_accepted, setting)
        print(self.describe())
        if self.tier < MINIMUM_TIER:
            warning = f"{setting} accepts the risk of running programs in tier T{self.tier}"
            print(f"warning: {warning}", file=sys.stderr)


def probe(python: str | None = None, highest: int = 3) -> Probe:
    """Find the highest tier in which a program can work and cannot do what it must not do.

    Args:
        highest: the first tier to try, for tests and for comparing tiers.

    Raises: InterpreterError, a ValueError, for an interpreter that does not run.
    """
    if sys.platform != "linux":
        reason = f"this is {sys.platform}, and isolation here is built for Linux"
        return Probe(0, dict.fromkeys((3, 2, 1), reason))
    missing: dict[int, str] = {}
    interpreter = ""
    for tier in range(highest, 0, -1):
        try:
            with Sandbox(tier, python) as sandbox:
                interpreter = sandbox.interpreter.describe()
                found = _try_out(sandbox)
        except SandboxError as error:
            missing[tier] = _reason(error, tier, python or sys.executable)
            continue
        if not found:
            return Probe(tier, missing, interpreter)
        missing[tier] = "the program under test could " + ", ".join(found)
    return Probe(0, missing, interpreter)


def _reason(error: SandboxError, tier: int, python: str) -> str:
    reason = str(error).removeprefix(f"tier {tier}: ")
    if "Permission denied" in reason or "ModuleNotFoundError" in reason:
        reason += (
            f"; an unprivileged user must be able to read the files of {python}: see their "
            "permissions, or name another interpreter in verify.program_python"
        )
    return reason


_PROBE = """
import os, socket, sys
import xml.dom, wave  # not loaded before: the standard library must be readable
found = []
def attempt(name, action):
    try:
        action()
    except OSError:
        return
    found.append(name)
attempt("read /etc/passwd", lambda: open("/etc/passwd").read())
attempt("list %(here)s", lambda: os.listdir(%(here)r))
attempt("write outside its folder", lambda: open(%(outside)r, "w").close())
attempt("open a socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("signal its parent", lambda: os.kill(os.getppid() or 1, 0))
attempt("start a process", lambda: os.fork() or os._exit(0))
attempt("become root", lambda: os.setuid(0))
open("own", "w").write("x")
print(",".join(found))
"""


def _try_out(sandbox: Sandbox) -> list[str]:
    """What a program could do that this tier promises to prevent; empty when the tier holds.

    Raises: SandboxError for a tier in which a program cannot do its own work.
    """
    folder = tempfile.mkdtemp(prefix="vr-probe-")
    Path(folder).chmod(0o777)
    here = str(Path(__file__).resolve().parent)
    source = _PROBE % {"here": here, "outside": str(Path(folder, "written"))}
    try:
        outcome = run_once(sandbox, source, Limits())
    finally:
        remove_folder(folder)
    if outcome.code != 0:
        lines = outcome.stderr.strip().splitlines() or [f"exit code {outcome.code}"]
        raise SandboxError(f"tier {sandbox.tier}: a program cannot work there ({lines[-1][:200]})")
    if sandbox.tier < 2:
        return []
    return [name for name in outcome.stdout.decode().strip().split(",") if name]
