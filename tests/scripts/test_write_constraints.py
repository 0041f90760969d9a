"""The files of tested versions: what is written, and that they fit pyproject.toml."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/write_constraints.py"
spec = importlib.util.spec_from_file_location("write_constraints", SCRIPT)
write_constraints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write_constraints)
EXTRAS = {"train.txt": ("train", "gym", "dev"), "infer-cpu.txt": ("infer", "infer-cpu")}
LINE = re.compile(r"[a-z0-9.-]+==[0-9][0-9a-z.]*")


def test_names_and_versions_only():
    listing = "Torch==2.13.0+cpu\nvariational-reasoning==0.1.0\npip==26.0\nPyYAML==6.0.3\nab_c==1\n"
    assert write_constraints.constraint_lines(listing) == [
        "ab-c==1",
        "pyyaml==6.0.3",
        "torch==2.13.0",
    ]


def test_the_versions_of_this_environment(tmp_path, monkeypatch):
    file = tmp_path / "here.txt"
    monkeypatch.setattr(sys, "argv", ["", sys.executable, str(file)])
    write_constraints.main()
    header, *lines = file.read_text().splitlines()
    assert header.startswith("# Tested versions") and "pytest" in {
        line.split("==")[0] for line in lines
    }
    monkeypatch.setattr(sys, "argv", ["", sys.executable])
    with pytest.raises(ValueError, match="usage: python scripts/write_constraints.py PYTHON FILE"):
        write_constraints.main()


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda p: p.name)
def test_no_path_no_registry_no_local_version(path):
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header.startswith("# Tested versions, written by `make constraints`")
    assert [line for line in lines if not LINE.fullmatch(line)] == []


@pytest.mark.parametrize(("name", "extras"), EXTRAS.items())
def test_every_requirement_has_a_tested_version_that_fits(name, extras):
    """Otherwise the installation stops with a conflict: after a change of pyproject.toml, `make
    constraints`.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines()[1:]
    versions = dict(line.split("==") for line in lines)
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints/{name}"
        assert requirement.specifier.contains(version), f"{requirement} but {version}"
