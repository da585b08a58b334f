"""The version of the installed program."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Return the version of the installed distribution; "unknown" in a bare source tree."""
    try:
        return importlib.metadata.version("leveret")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
