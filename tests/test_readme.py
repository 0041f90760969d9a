"""What the README says exists: commands, files, keys, and the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("```")[1]


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"make ([a-z][\w-]*)", README))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize(
    "path",
    sorted(
        set(re.findall(r"(?:scripts|evals|benchmarks|data|plugin|examples)/[\w/.-]+\.\w+", README))
    ),
)
def test_named_files_exist(path):
    assert (ROOT / path).is_file()


def test_named_models_of_a_profile_are_trained_in_it():
    files = [ROOT / "README.md", ROOT / "evals/README.md", *(ROOT / "examples").rglob("*.md")]
    calls = [
        call
        for path in files
        for call in re.findall(r"(\w+)/pipeline\.yaml model=(\w+)", path.read_text("utf-8"))
    ]
    assert calls
    for profile, name in calls:
        folder = ROOT / "examples/variational_reasoning" / profile
        assert name in ("reasoner", "posterior") or (folder / f"9_train_{name}.yaml").is_file(), (
            f"{profile}: model={name}"
        )


def tree_paths() -> list[str]:
    """Paths that the tree names, from its indentation."""
    found, parents = [], []
    for line in TREE.strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.findall(r"^(?:\S+(?:  (?=\S))?)+", line.strip()):
            for word in name.split("  "):
                parents = parents[:depth]
                found.append("".join([*parents, word]))
                if word.endswith("/"):
                    parents.append(word)
    return found


@pytest.mark.parametrize("path", tree_paths())
def test_the_tree_names_only_what_exists(path):
    assert (ROOT / path).exists()


def test_the_tree_names_every_module_of_the_first_four_parts():
    modules = {
        str(path.relative_to(ROOT))
        for part in ("method", "host", "pipeline", "report")
        for path in (ROOT / "plugin/variational_reasoning" / part).glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= set(tree_paths())


def test_top_level_is_what_the_readme_shows():
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {path.partition("/")[0] for path in listed if not path.startswith(".")}
    assert top == {path.partition("/")[0] for path in tree_paths()}


def test_every_key_and_seam_is_documented():
    from variational_reasoning.host import seams
    from variational_reasoning.host.args import OUR_KEYS
    from variational_reasoning.host.formats import FORMATS

    for key in OUR_KEYS:
        assert f"`{key}:" in README
    for name in FORMATS:
        assert f"| `{name}` |" in README
    for seam in seams.REPLACED:
        assert f"`{seam.module}`" in README and f"`{seam.name}`" in README
    for seam in seams.REPLACED:
        assert seam.name.split(".")[-1] in seams.__doc__
