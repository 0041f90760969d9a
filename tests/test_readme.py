"""What the README and the pages of docs/ say exists: commands, files, keys, and the tree."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.conftest import make_model, make_tokenizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
}
DOCUMENTATION = "\n".join([README, *PAGES.values()])
"""The front door and every page of docs/."""
NAMED_FILE = re.compile(r"(?:scripts|evals|benchmarks|data|plugin|examples)/[\w/.-]+\.\w+")
TREES = {"README.md": README.split("## The tree")[1], "docs/tree.md": PAGES["tree.md"]}


def test_the_readme_is_a_front_door():
    assert len(README.splitlines()) <= 160


@pytest.mark.slow
def test_your_own_questions_work_as_a_reader_types_them(tmp_path):
    """The block of the README, in a shell. Only the model and the questions are ours, and the run
    is a dry one.
    """
    block = re.search(r"## Your own questions.*?```bash\n(.*?)```", README, re.DOTALL)[1]
    assert len(block.splitlines()) <= 10
    model = tmp_path / "hub model"
    tokenizer = make_tokenizer(model)
    make_model(model, len(tokenizer), "qwen3", max_position_embeddings=4096)
    for name, text in {"hf": f"echo '{model}'", "python": f'exec {sys.executable} "$@"'}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "my").mkdir()
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(30)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "my/questions.jsonl").write_text(text, encoding="utf-8")
    typed = block.replace("base=$base", 'base="$base"')  # this folder has a space in its name
    typed = typed.replace("run.py profiles/mine", "run.py profiles/mine dry_run=true")
    done = subprocess.run(
        ["bash", "-euc", typed],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "profiles/mine").iterdir())
    assert f"wrote profiles/mine: {', '.join(written)}" in done.stdout
    assert done.stdout.splitlines()[-1] == "python scripts/report.py runs/mine"


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    # Of code only, since "make" is also a word: `make demo`, or a line of a block that begins with
    # it.
    named = set(re.findall(r"(?:`|^ *)make ([a-z][\w-]*)", DOCUMENTATION, re.M))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("path", sorted(set(NAMED_FILE.findall(DOCUMENTATION))))
def test_named_files_exist(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_front_door_lead_somewhere(name):
    """mkdocs checks the links between pages of docs/; these files are outside of it."""
    text = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).is_file() else ""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_named_models_of_a_profile_are_trained_in_it():
    files = [
        ROOT / "README.md",
        ROOT / "evals/README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
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


def tree_paths(page: str) -> list[str]:
    """Paths that a page's tree names, from its indentation."""
    tree = TREES[page].split("```")[1]
    found, parents = [], []
    for line in tree.strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.findall(r"^(?:\S+(?:  (?=\S))?)+", line.strip()):
            for word in name.split("  "):
                parents = parents[:depth]
                found.append("".join([*parents, word]))
                if word.endswith("/"):
                    parents.append(word)
    return found


@pytest.mark.parametrize("path", sorted({path for page in TREES for path in tree_paths(page)}))
def test_the_tree_names_only_what_exists(path):
    assert (ROOT / path).exists()


def test_the_tree_names_every_module_of_the_first_four_parts():
    modules = {
        str(path.relative_to(ROOT))
        for part in ("method", "host", "pipeline", "report")
        for path in (ROOT / "plugin/variational_reasoning" / part).glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= set(tree_paths("docs/tree.md"))


@pytest.mark.parametrize("page", TREES)
def test_top_level_is_what_the_tree_shows(page):
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {path.partition("/")[0] for path in listed if not path.startswith(".")}
    assert top == {path.partition("/")[0] for path in tree_paths(page)}


def test_every_key_and_seam_is_documented():
    from variational_reasoning.host import seams
    from variational_reasoning.host.args import OUR_KEYS
    from variational_reasoning.host.formats import FORMATS

    for key in OUR_KEYS:
        assert f"`{key}:" in PAGES["training.md"]
    for name in FORMATS:
        assert f"| `{name}` |" in PAGES["training.md"]
    for seam in seams.REPLACED:
        assert f"`{seam.module}`" in PAGES["plugin.md"] and f"`{seam.name}`" in PAGES["plugin.md"]
    for seam in seams.REPLACED:
        assert seam.name.split(".")[-1] in seams.__doc__


def test_the_generated_reference_is_current():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec and spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    schema = (ROOT / "docs/pipeline.schema.json").read_text(encoding="utf-8")
    assert PAGES["configuration.md"] == reference.page(), "stale: run `make reference`"
    assert schema == reference.schema_text(), "stale: run `make reference`"


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:[\w.-]+/)+[\w.-]+\.\w+", text.replace(".venv/", "")))
    folders = set(re.findall(r"`((?:[\w.-]+/)+)`", text))
    assert len(named) > 25
    package = ROOT / "plugin/variational_reasoning"
    missing = [path for path in named if not (ROOT / path).is_file()]
    missing += [
        path
        for path in folders
        if not any((top / path).is_dir() for top in (ROOT, package, package / "verify"))
    ]
    assert not missing


def test_contributing_names_tests_and_targets_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.M)) <= targets
    for command in re.findall(r"`(?:[\w./]+ -m )?pytest ([^`]*)`", text):
        for word in command.split(" -k ")[0].split():
            assert (ROOT / word).exists(), word
