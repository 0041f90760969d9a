"""The process that judges programs (stage 7).

Started by `pool` as `python -m variational_reasoning.verify.programs.worker SETTINGS FOLDER`.

    in    [check, solution]
    out   "ready", once; then for each line [verdict, reason, tier]

This process knows the expected outputs and measures the time. Programs run in its sandbox, which is
another process that knows neither. When standard input ends, this process removes FOLDER.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ..sandbox.inside.confine import adopt_orphans
from ..sandbox.sandbox import Limits, Sandbox, SandboxError
from ..verdicts import Result, Verdict
from .judge import check_program

_NUMPY = re.compile(r"^\s*(?:from\s+|import\s+(?:[^#\n]*,\s*)?)numpy\b", re.MULTILINE)


def main(settings: dict[str, Any], folder: str) -> None:
    """Answer lines until standard input ends.

    Args:
        settings: the fields of `pool.ProgramSettings`.
        folder: where boxes are made below tier 3.
    """
    adopt_orphans()
    tier = settings["tier"]
    limits = Limits(**settings["limits"])
    sandboxes: dict[tuple[str, ...], Sandbox] = {}

    def sandbox_for(program: str) -> Sandbox:
        """Programs that import numpy get a sandbox that has loaded it."""
        preload: tuple[str, ...] = ()
        if _NUMPY.search(program):
            preload = ("numpy",)
        if preload not in sandboxes:
            sandboxes[preload] = Sandbox(tier, settings["python"], preload, folder)
        return sandboxes[preload]

    try:
        sandbox_for("")
        _reply("ready")
        for line in sys.stdin:
            check, solution = json.loads(line)
            try:
                result = check_program(
                    check,
                    solution,
                    sandbox_for,
                    limits,
                    settings["total_seconds"],
                )
            except SandboxError as error:
                result = Result(Verdict.CHECKER_ERROR, f"sandbox: {error}"[:300])
            ran_in = "" if result.verdict is Verdict.NO_ANSWER else f"T{tier}"
            _reply([result.verdict.value, result.reason, ran_in])
    finally:
        for sandbox in sandboxes.values():
            sandbox.close()
        if Path(folder).is_dir():
            shutil.rmtree(folder)


def _reply(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
