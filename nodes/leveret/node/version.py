"""The version of this installation."""

from __future__ import annotations

from importlib.metadata import version as installed_version


def version() -> str:
    """Return Leveret's version, such as `0.1.0`."""
    return installed_version("leveret")
