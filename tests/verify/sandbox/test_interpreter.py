"""Interpreters that programs' own user cannot reach by name."""

import os
import venv

import pytest

from variational_reasoning.verify.programs.judge import check_program
from variational_reasoning.verify.sandbox.sandbox import Sandbox
from variational_reasoning.verify.verdicts import Verdict

from ..conftest import DOUBLE, LIMITS, need_tier, program


@pytest.mark.skipif(
    os.getuid() != 0,
    reason="without root there is nothing that others cannot reach and programs must",
)
@pytest.mark.parametrize("tier", [3, 2, 1])
def test_programs_run_with_an_interpreter_that_only_root_can_reach(tmp_path, tier):
    need_tier(tier)
    (tmp_path / "closed").mkdir(mode=0o700)
    venv.create(tmp_path / "closed/env", symlinks=True)
    (packages,) = tmp_path.glob("closed/env/lib/python3*/site-packages")
    (packages / "own").mkdir()
    (packages / "own/__init__.py").write_text("")
    (packages / "own/part.py").write_text("def double(x): return 2 * x\n")
    source = (
        "import csv, encodings.cp1252, json.tool, sqlite3, xml.dom\n"
        "from own.part import double\nprint(double(int(input())))"
    )
    with Sandbox(tier, str(tmp_path / "closed/env/bin/python")) as opened:
        assert str(packages) in opened.interpreter.closed or f"{packages}/".startswith(
            tuple(opened.interpreter.closed)
        )
        result = check_program(
            {"kind": "program", "tests": DOUBLE}, program(source), opened, LIMITS, 30
        )
        assert result.verdict is Verdict.CORRECT, result
