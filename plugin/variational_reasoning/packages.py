"""Versions of installed packages, for records, manifests and the two doctors. Standard library only."""

from importlib import metadata


def installed_version(package: str) -> str | None:
    """The version of a package of this environment, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
