"""The process that judges programs: one JSON line in, one JSON line out (stage 7).

Started by `pool` as `python -m variational_reasoning.verify.programs.worker SETTINGS FOLDER`. Line in: [check, solution];
line out: [verdict, reason, tier]. It holds the expected outputs and the clock; programs run in its sandbox, which is a
further process that never sees either. When standard input ends it clears FOLDER away.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from ..sandbox.inside.confine import adopt_orphans
from ..sandbox.sandbox import Limits, Sandbox, SandboxError
from ..verdicts import Result, Verdict
from .blocks import extract_program
from .judge import check_program

_NUMPY = re.compile(r"^\s*(?:from\s+|import\s+(?:[^#\n]*,\s*)?)numpy\b", re.MULTILINE)


def main(settings: dict, folder: str) -> None:
    """Answer lines until standard input ends."""
    adopt_orphans()
    tier, limits = settings["tier"], Limits(**settings["limits"])
    sandboxes: dict[bool, Sandbox] = {}
    try:
        sandboxes[False] = Sandbox(tier, settings["python"], folder=folder)
        sys.stdout.write('"ready"\n')
        sys.stdout.flush()
        for line in sys.stdin:
            check, solution = json.loads(line)
            needs_numpy = bool(_NUMPY.search(extract_program(solution) or ""))
            try:
                if needs_numpy not in sandboxes:
                    sandboxes[needs_numpy] = Sandbox(tier, settings["python"], ("numpy",), folder)
                result = check_program(
                    check, solution, sandboxes[needs_numpy], limits, settings["total_seconds"]
                )
            except SandboxError as error:
                result = Result(Verdict.CHECKER_ERROR, f"sandbox: {error}"[:300])
            sys.stdout.write(json.dumps([result.verdict.value, result.reason, f"T{tier}"]) + "\n")
            sys.stdout.flush()
    finally:
        for sandbox in sandboxes.values():
            sandbox.close()
        if Path(folder).is_dir():
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
