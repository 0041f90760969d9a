"""Who may import whom, read from the syntax trees; and every module imports."""

import ast
import importlib
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "plugin/variational_reasoning"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "vllm", "llamafactory", "datasets", "ray", "math_verify", "sympy"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Names of the modules that a file imports, anywhere or at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays in its own part: the nursery runs apart from the package.
            module = (
                node.module
                if node.level == 0
                else ".".join(["variational_reasoning", part(path), node.module or ""])
            )
            found.add(module.rstrip("."))
            found |= {f"{module.rstrip('.')}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else "root"


def reaches(found: set[str], name: str) -> bool:
    return any(module == name or module.startswith(name + ".") for module in found)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers(path):
    forbidden = {
        "root": ("host", "pipeline", "verify", "method", "report"),
        "method": ("host", "pipeline", "verify", "report"),
        "host": ("pipeline", "verify", "report"),
        "pipeline": ("host", "report"),
        "report": ("host",),
        "verify": ("host", "pipeline", "report"),
    }[part(path)]
    found = imports(path)
    assert not [name for name in forbidden if reaches(found, f"variational_reasoning.{name}")]
    if part(path) != "host":
        assert not reaches(found, "llamafactory")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries(path):
    found = {name.partition(".")[0] for name in imports(path)}
    at_import = {name.partition(".")[0] for name in imports(path, top_level_only=True)}
    if part(path) == "method":
        outside = found - set(sys.stdlib_module_names) - {"variational_reasoning", "torch"}
        assert not outside
    if part(path) in ("root", "pipeline", "verify", "report"):
        assert not at_import & HEAVY
    if part(path) != "report":
        assert not found & {"matplotlib", "jinja2", "huggingface_hub"}


@pytest.mark.parametrize("path", sorted((ROOT / "evals").rglob("*.py")), ids=lambda path: path.name)
def test_evals_know_nothing_of_the_host(path):
    assert not reaches(imports(path), "variational_reasoning.host") and not reaches(
        imports(path), "llamafactory"
    )


def test_every_module_imports():
    for path in MODULES:
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        if (
            name != "variational_reasoning.verify.mathematics.worker"
        ):  # a program of its own, which starts to serve
            importlib.import_module(name)


def test_method_and_pipeline_live_without_the_host():
    # As if host/ were deleted: its import fails, everything else still imports.
    code = (
        "import sys; sys.modules['variational_reasoning.host'] = None; sys.modules['llamafactory'] = None\n"
        "import variational_reasoning.method.losses\n"
        "import variational_reasoning.pipeline.build.datasets, variational_reasoning.pipeline.score\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"VARIATIONAL_REASONING_DISABLE": "1", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


COMMANDS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_commands_are_short_and_have_a_docstring(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 160  # of at most 100 columns


@pytest.mark.parametrize(
    "path",
    [*COMMANDS, *(ROOT / "evals" / name for name in ("run.py", "report.py", "doctor.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_commands_explain_themselves(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(path.parent))
    module = runpy.run_path(str(path))
    try:
        code = module["main"]()
    except SystemExit as done:
        code = done.code
    assert not code and f"{path.parent.name}/{path.name}" in capsys.readouterr().out
