"""What SkyThought 0.1.0 expects and today's packages no longer have: one function for each, put in
place only where it is missing. `variational_reasoning.autoload` calls `activate` as soon as
`skythought` is imported, in every process of the environment.

When SkyThought or a package mends one of them, its function does nothing, and can be deleted.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

active: list[str] = []
"""Names of the shims that were put in place in this process; `evals/doctor.py` prints them."""


def activate(name: str) -> None:
    """Put every shim in place that is needed here, once."""
    for shim_name, shim in SHIMS.items():
        if shim_name not in active and shim():
            active.append(shim_name)


def _pyext() -> bool:
    """pyext 0.7 cannot be installed on Python 3.11; SkyThought's APPS grader loads programs with
    it (ours does not).
    """
    if "pyext" in sys.modules or importlib.util.find_spec("pyext"):
        return False

    class RuntimeModule:
        @staticmethod
        def from_string(name: str, doc: str, source: str) -> ModuleType:
            module = ModuleType(name, doc)
            exec(source, module.__dict__)
            return module

    _add_module("pyext", RuntimeModule=RuntimeModule)
    return True


def _getargspec() -> bool:
    """Python 3.11 removed inspect.getargspec; SkyThought's copy of pyext (tasks/taco/pyext2.py)
    reads it at import.
    """
    if hasattr(inspect, "getargspec"):
        return False
    inspect.getargspec = inspect.getfullargspec  # type: ignore[attr-defined]
    return True


def _ray_logging() -> bool:
    """Ray moved ray._private.ray_logging's filters and formatters to ray._common;
    skythought.evals.batch imports the old.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec(
        "ray._private.ray_logging.filters"
    ):
        return False
    for name in ("filters", "formatters"):
        sys.modules[f"ray._private.ray_logging.{name}"] = importlib.import_module(
            f"ray._common.{name}"
        )
    return True


def _typer_click_type() -> bool:
    """typer 0.26 dropped Option(click_type=...). SkyThought names tasks with it, and checks the
    name once more later.
    """
    import typer

    original: Callable[..., Any] = typer.Option
    if "click_type" in inspect.signature(original).parameters:
        return False

    def option(*args: Any, click_type: Any = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    typer.Option = option
    return True


def _latex2sympy2() -> bool:
    """latex2sympy2 pins antlr 4.7.2, which excludes math-verify's and omegaconf's; its maintained
    successor takes its name.
    """
    if "latex2sympy2" in sys.modules or importlib.util.find_spec("latex2sympy2"):
        return False
    from latex2sympy2_extended import latex2sympy

    _add_module("latex2sympy2", latex2sympy=latex2sympy)
    return True


def _add_module(name: str, **members: Any) -> None:
    module = ModuleType(name, f"Stands in for {name}; see {__name__}.")
    module.__dict__.update(members)
    sys.modules[name] = module


SHIMS: dict[str, Callable[[], bool]] = {
    "pyext.RuntimeModule": _pyext,
    "inspect.getargspec": _getargspec,
    "ray._private.ray_logging": _ray_logging,
    "typer.Option(click_type)": _typer_click_type,
    "latex2sympy2": _latex2sympy2,
}
"""Each returns whether it was needed."""
