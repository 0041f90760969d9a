"""Installed packages: their versions, for records, manifests and the two doctors, and how to get
one that is missing.

Standard library only.
"""

from importlib import metadata
from typing import Any


def installed_version(package: str) -> str | None:
    """The version of a package of this environment, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def need(module: str, extra: str) -> Any:
    """Import a heavy module, or say how to install it."""
    try:
        return __import__(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        message = (
            f"{module} is not installed in this environment; "
            f"install it: pip install -e '.[{extra}]'"
        )
        raise ModuleNotFoundError(message, name=module) from error
