"""scripts/doctor.py names every part that may be missing, and how to install it."""

import importlib.util
import re
import runpy
import sys
import tomllib

import pytest

from tests.conftest import ROOT

OF_DEVELOPERS_AND_ENGINES = ("dev", "infer", "infer-gpu", "infer-cpu")
"""Extras of other environments: evals/doctor.py and the Makefile speak of them."""


@pytest.fixture
def doctor(monkeypatch, capsys):
    """What it prints and its exit code, where these modules are not installed."""

    def run(*missing: str) -> tuple[str, int]:
        found = importlib.util.find_spec

        def find_spec(name, *arguments):
            return None if name in missing else found(name, *arguments)

        names = runpy.run_path(str(ROOT / "scripts/doctor.py"))
        monkeypatch.setattr(sys, "argv", ["doctor.py"])
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        names["main"].__globals__.update(_devices=lambda: "some", _report_seams=lambda: True)
        code = names["main"]()
        monkeypatch.setattr(importlib.util, "find_spec", found)
        return capsys.readouterr().out, code

    return run


def test_what_is_optional_is_named_with_its_command_and_fails_nothing(doctor):
    optional = runpy.run_path(str(ROOT / "scripts/doctor.py"))["OPTIONAL"]
    output, code = doctor(*optional)
    assert code == 0
    for module in optional:
        assert re.search(rf"optional, lacks {module}: \S+", output), module
    for part, command in {
        "questions of reasoning-gym": 'pip install -e ".[train,gym]"',
        "clusters of steps": 'pip install -e ".[train,abstract]"',
    }.items():
        [line] = [line for line in output.splitlines() if part in line]
        assert line.endswith(command)


def test_what_is_needed_fails(doctor):
    output, code = doctor("polars")
    assert code == 1
    assert output.count('lacks polars: pip install -e ".[train]"') == 2  # stages 0 and 8
    assert "optional, lacks polars" not in output


def test_every_package_of_an_extra_has_its_version_shown(doctor):
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name, packages in extras.items():
        if name not in OF_DEVELOPERS_AND_ENGINES:
            wanted += packages
    output, _ = doctor()
    for requirement in wanted:
        package = re.split(r"[<>=\[ ]", requirement)[0]
        assert re.search(rf"^  {package} +\S", output, re.MULTILINE), package
