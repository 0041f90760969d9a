"""Activates the plugin when, and only when, LLaMA-Factory is imported. Standard library only; read by every interpreter.

A finder on `sys.meta_path` waits for the host modules that start a training. When one has been executed, the seams of
`host.seams` are put in place; the finder itself never loads anything. `VARIATIONAL_REASONING_DISABLE=1` switches it off.
"""

import os
import sys

DISABLE_VARIABLE = "VARIATIONAL_REASONING_DISABLE"
HOST_ENTRIES = ("llamafactory.train.tuner", "llamafactory.v1.launcher")
"""Every way into a training imports one of these before it reads its arguments."""


class _PostImportFinder:
    """Wraps the loader of a host entry, so that activation runs right after the entry's own code."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in HOST_ENTRIES:
            return None
        for finder in sys.meta_path:
            if finder is _PostImportFinder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _ActivatingLoader(spec.loader)
                return spec
        return None


class _ActivatingLoader:
    """Delegates to the host module's loader, then activates the plugin."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        from variational_reasoning.host import seams

        seams.activate(module.__name__)


def install():
    """Put the finder first on `sys.meta_path`, once, unless the environment switches the plugin off."""
    if os.environ.get(DISABLE_VARIABLE, "").lower() in ("1", "true", "y"):
        return
    if _PostImportFinder not in sys.meta_path:
        sys.meta_path.insert(0, _PostImportFinder)


install()
