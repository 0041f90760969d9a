"""The names that functions may use without an import, as on the sites of the records (stage 7).

LiveCodeBench runs functions after `from MODULE import *` and `import MODULE` for each of STARS.
APPS and TACO provide a part of these names, and a few modules. A script gets none of them. Standard
library only.
"""

import builtins
import importlib
import types

STARS = (
    "string", "re", "collections", "heapq", "bisect", "copy", "math", "random", "itertools",
    "functools", "operator", "io", "sys", "json", "typing",
)  # fmt: skip
"""In this order: a later name replaces an earlier one. `operator.sub` replaces `re.sub`. Names of
`builtins` are not replaced."""

RARER_STARS = {
    "datetime": ("MAXYEAR", "MINYEAR", "UTC", "date", "timedelta", "timezone", "tzinfo"),
    "statistics": (
        "NormalDist", "StatisticsError", "correlation", "covariance", "fmean", "geometric_mean",
        "harmonic_mean", "linear_regression", "mean", "median", "median_grouped", "median_high",
        "median_low", "mode", "multimode", "pstdev", "pvariance", "quantiles", "stdev", "variance",
    ),
}  # fmt: skip
"""Star imports of modules that load slowly: only programs that use one of the names load them. The
names `datetime` and `time` are the modules."""

RARER_MODULES = {"array", "cmath", "datetime", "fractions", "statistics"}
"""Modules that are also provided, but only loaded for programs that name them."""

_names: dict[str, object] = {}


def load() -> None:
    """Collect the names of STARS, once for all programs. The standard streams are open by now."""
    for module_name in STARS:
        module = importlib.import_module(module_name)
        public = getattr(module, "__all__", None)
        if not public:
            public = [name for name in vars(module) if name[0] != "_"]
        for name in public:
            _names[name] = getattr(module, name)
    for name in dir(builtins):
        _names.pop(name, None)
    for name in (*STARS, "time"):
        _names[name] = importlib.import_module(name)


def provided(used: set[str]) -> dict[str, object]:
    """The names for one program.

    Args:
        used: all names in its code.
    """
    found = dict(_names)
    for name, stars in RARER_STARS.items():
        if used.isdisjoint(stars):
            continue
        module = importlib.import_module(name)
        for star in stars:
            if hasattr(module, star):  # some are younger than the oldest Python
                found[star] = getattr(module, star)
    for name in RARER_MODULES & used:
        found[name] = importlib.import_module(name)
    return found


def used_in(program: types.CodeType | BaseException) -> set[str]:
    """All names of modules, variables and attributes in a program's code.

    Empty where it does not compile.
    """
    names: set[str] = set()
    # The code of a function is a constant of the code around it.
    left: list[object] = [program]
    while left:
        code = left.pop()
        if isinstance(code, types.CodeType):
            names.update(code.co_names)
            left += code.co_consts
    return names
