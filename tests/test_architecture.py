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
HEAVY = {"torch", "transformers", "vllm", "llamafactory", "datasets", "ray"}
HEAVY |= {"math_verify", "sympy", "reasoning_gym"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Names of the modules that a file imports, anywhere or at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays in its own part: the fork server runs apart from the package.
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
        # Only its exceptions: transformers lets those of a chat template through.
        allowed = {"jinja2"} if path.name == "chat_template.py" else set()
        assert not (found - allowed) & {"matplotlib", "jinja2", "huggingface_hub"}


@pytest.mark.parametrize("path", sorted((ROOT / "evals").rglob("*.py")), ids=lambda path: path.name)
def test_evals_know_nothing_of_the_host(path):
    assert not reaches(imports(path), "variational_reasoning.host") and not reaches(
        imports(path), "llamafactory"
    )


INSIDE = sorted((PACKAGE / "verify/sandbox/inside").glob("*.py"))


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.name)
def test_what_runs_inside_the_sandbox_needs_the_standard_library_only(path):
    # The interpreter that programs run with may have nothing else; and every page costs a fork.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            assert names <= set(sys.stdlib_module_names), f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.partition(".")[0] in sys.stdlib_module_names, f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom):  # `from . import confine`: its own folder, no other
            assert node.level == 1, f"line {node.lineno}"


def test_the_fork_server_loads_nothing_of_the_package_but_its_own_folder():
    code = (
        "import sys, variational_reasoning.verify.sandbox.inside.fork_server\n"
        "print(*(name for name in sys.modules if name.startswith('variational_reasoning')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    package = "variational_reasoning.verify.sandbox.inside"
    own = {f"{package}.{path.stem}" for path in INSIDE if path.stem != "__init__"}
    parents = {"variational_reasoning", "variational_reasoning.verify", package.rpartition(".")[0]}
    assert set(done.stdout.split()) - {"variational_reasoning.autoload"} == own | parents | {
        package
    }


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
        "import sys; sys.modules['variational_reasoning.host'] = None; sys.modules['llamafactory'] "
        "= None\n"
        "import variational_reasoning.method.losses\n"
        "import variational_reasoning.pipeline.build.datasets, "
        "variational_reasoning.pipeline.score\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"VARIATIONAL_REASONING_DISABLE": "1", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


ROOMS_OF_THE_PIPELINE = (
    "config",
    "commands",
    "options",
    "tables",
    "rows",
    "reading",
    "train_files",
    "embedded",
    "trainings",
    "vocabulary",
    "work",
    "engines",
    "questions",
    "clusters",
    "arms",
    "collapse",
    "sample",
    "score",
    "verify",
    "build",
    "evaluate",
    "controls",
    "oracle",
    "rejudge",
    "profiles",
)
"""From the ground up: a room may import those before it. A folder is one room."""


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def import_graph(paths: dict[str, Path]) -> dict[str, set[str]]:
    """Module to those modules of `paths` that it imports, anywhere in the file."""
    graph = {}
    for name, path in paths.items():
        found = absolute_imports(path, name)
        # `from a.b import c` gives a.b and a.b.c; a.b.c may be a module or a name of a.b
        targets = {module for module in found if module in paths}
        is_package = path.name == "__init__.py"
        inner = {module for module in targets if module.startswith(name + ".")}
        # A package that re-exports its modules does not depend on them in the order of rooms.
        graph[name] = targets - {name} - (inner if is_package else set())
    return graph


def absolute_imports(path: Path, name: str) -> set[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others.

    A module that imports nothing of the rest can be taken away; what is left when no more can be
    taken either is in a circle or imports one. Taking away what nobody imports removes the latter.
    """
    left = {name: set(targets) for name, targets in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        free = {name for name, targets in left.items() if not targets or name not in imported}
        if not free:
            return [sorted(left)] if left else []
        left = {name: targets - free for name, targets in left.items() if name not in free}


def package_modules() -> dict[str, Path]:
    return {module_name(path, PACKAGE.parent): path for path in MODULES}


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_import_circle_in_the_package():
    assert circles(import_graph(package_modules())) == []


def test_no_import_circle_in_evals():
    root = ROOT / "evals"
    paths = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    assert circles(import_graph(paths)) == []


def test_rooms_of_the_pipeline_import_downward():
    prefix = "variational_reasoning.pipeline."

    def room(name: str) -> str:
        return name.removeprefix(prefix).partition(".")[0]

    upward = []
    for name, targets in import_graph(package_modules()).items():
        if not name.startswith(prefix):
            continue
        assert room(name) in ROOMS_OF_THE_PIPELINE, f"{name}: give its room a place in the order"
        for target in targets:
            if not target.startswith(prefix) or room(target) == room(name):
                continue
            order = ROOMS_OF_THE_PIPELINE.index
            if order(room(target)) > order(room(name)):
                upward.append(f"{name} imports {target}")
    assert not upward


def test_rooms_have_no_circle():
    """As above for the whole package, where a folder is one room."""

    def room(name: str) -> str:
        parts = name.split(".")[1:]
        return ".".join(parts[:2] if parts[:1] == ["pipeline"] else parts[:1])

    graph: dict[str, set[str]] = {}
    for name, targets in import_graph(package_modules()).items():
        rooms = {room(target) for target in targets}
        graph.setdefault(room(name), set()).update(rooms - {room(name), ""})
    assert circles(graph) == []


COMMANDS = sorted(
    path for path in (ROOT / "scripts").glob("*.py") if not path.name.startswith("sequence")
)  # those are what run.py runs


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
