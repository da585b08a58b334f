"""The version of this installation."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version as installed_version


@cache  # finding and reading the metadata takes 5 ms, and each start needs it
def version() -> str:
    """Return Leveret's version, such as `0.1.0`."""
    return installed_version("leveret")
