"""Names that SkyThought 0.1.0 expects and today's packages no longer have: a function for each.

A function only acts where its name is missing. `variational_reasoning.autoload` calls `activate` as
soon as `skythought` is imported, in every process of the environment.

When SkyThought or a package fixes one of them, its function does nothing, and can be deleted.
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
    """pyext 0.7 cannot be installed on Python 3.11. SkyThought's APPS grader loads programs with it.

    Ours does not.
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
    """Python 3.11 removed inspect.getargspec, which SkyThought's tasks/taco/pyext2.py imports."""
    if hasattr(inspect, "getargspec"):
        return False
    inspect.getargspec = inspect.getfullargspec  # type: ignore[attr-defined]
    return True


def _ray_logging() -> bool:
    """Ray moved the filters and formatters of ray._private.ray_logging to ray._common.

    skythought.evals.batch imports them from the old place.
    """
    if importlib.util.find_spec("ray") is None:
        return False
    if importlib.util.find_spec("ray._private.ray_logging.filters"):
        return False
    for name in ("filters", "formatters"):
        module = importlib.import_module(f"ray._common.{name}")
        sys.modules[f"ray._private.ray_logging.{name}"] = module
    return True


def _typer_click_type() -> bool:
    """typer 0.26 removed Option(click_type=...), which SkyThought uses to check names of tasks.

    SkyThought checks the name again later, so ignoring the option is safe.
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
    """latex2sympy2 pins antlr 4.7.2, and math-verify and omegaconf need another version.

    Its maintained successor is imported under its name.
    """
    if "latex2sympy2" in sys.modules or importlib.util.find_spec("latex2sympy2"):
        return False
    from latex2sympy2_extended import latex2sympy

    _add_module("latex2sympy2", latex2sympy=latex2sympy)
    return True


def _add_module(name: str, **members: Any) -> None:
    module = ModuleType(name, f"Replaces {name}; see {__name__}.")
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
