"""A name of another package that is replaced or relied on: found, checked against what we need of it, replaced elsewhere."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Seam:
    """Where the name stands, the parameters that we rely on, and what makes the replacement, if any.

    module: below `package`. name: dotted, for a class's member.
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
        missing = [
            name for name in self.parameters if name not in inspect.signature(value).parameters
        ]
        return (
            f"{self.package}.{self.module}.{self.name} has no parameter {', '.join(missing)}"
            if missing
            else None
        )
