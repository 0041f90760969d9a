"""Names of another package that are replaced or relied on.

Each host has a list of them (`host.seams`, `variational_evals.seams`). The list is checked as a
whole by `faults`, and replaced as a whole by `replace_all`, or not at all.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Seam:
    """Where the name is, the parameters that we rely on, and what makes the replacement, if any.

    module: below `package`. name: dotted, for a class's member. replace: takes the original and
    returns what is put in its place.
    """

    package: str
    module: str
    name: str
    parameters: tuple[str, ...]
    replace: Callable[[Callable], Any] | None = None

    def find(self) -> tuple[Any, str, Any]:
        """(owner, attribute, value); raises ImportError or AttributeError."""
        owner = importlib.import_module(f"{self.package}.{self.module}")
        *path, attribute = self.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        return owner, attribute, getattr(owner, attribute)

    def fault(self) -> str | None:
        """What does not fit, or None."""
        try:
            _, _, value = self.find()
        except (ImportError, AttributeError) as error:
            return f"{self.package}.{self.module}.{self.name} is not there ({error})"
        present = inspect.signature(value).parameters
        missing = [name for name in self.parameters if name not in present]
        if missing:
            listed = ", ".join(missing)
            return f"{self.package}.{self.module}.{self.name} has no parameter {listed}"
        return None


def faults(seams: Iterable[Seam]) -> list[str]:
    """What the installed package lacks of all that these seams replace or rely on."""
    found = [seam.fault() for seam in seams]
    return [fault for fault in found if fault is not None]


def replace_all(seams: Iterable[Seam]) -> None:
    """Put every replacement in the place of its original; `faults` comes first."""
    for seam in seams:
        owner, attribute, value = seam.find()
        if seam.replace is not None:
            setattr(owner, attribute, seam.replace(value))
