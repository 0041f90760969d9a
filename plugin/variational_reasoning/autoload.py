"""Activates the plugin when, and only when, LLaMA-Factory or SkyThought is imported. Standard
library only; read by every interpreter.

A finder on `sys.meta_path` waits for the modules of `ENTRIES`. When one has been executed, the
function `activate` of its module of ours is called; the finder itself never loads anything.
`VARIATIONAL_REASONING_DISABLE=1` switches it off.
"""

import os
import sys

TYPE_CHECKING = False  # as typing's, whose import every interpreter would pay for
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

DISABLE_VARIABLE = "VARIATIONAL_REASONING_DISABLE"
ENTRIES = {
    "llamafactory.train.tuner": "variational_reasoning.host.seams",
    "llamafactory.v1.launcher": "variational_reasoning.host.seams",
    "skythought": "variational_evals.shims",
    "skythought.evals.tasks": "variational_evals.seams",
    "skythought.evals.cli": "variational_evals.seams",
}
"""Module of a host to the module of ours whose `activate` is called with its name. Every way into a
training imports one of the first two before it reads its arguments; the evaluation's side lives in
evals/."""


class _PostImportFinder:
    """Wraps the loader of a host's entry: activation runs right after the entry's own code."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in ENTRIES:
            return None
        for finder in sys.meta_path:
            if finder is _PostImportFinder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _ActivatingLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _ActivatingLoader:
    """Delegates to the host module's loader, then activates ours."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        self._loader.exec_module(module)
        import importlib

        importlib.import_module(ENTRIES[module.__name__]).activate(module.__name__)


def install() -> None:
    """Put the finder first on `sys.meta_path`, once, unless the environment switches the plugin
    off.
    """
    if os.environ.get(DISABLE_VARIABLE, "").lower() in ("1", "true", "y"):
        return
    if _PostImportFinder not in sys.meta_path:
        sys.meta_path.insert(0, _PostImportFinder)


install()
