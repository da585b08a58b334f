"""Says a thing once, not at every retry. Pure."""

from __future__ import annotations

__all__ = ["Notices"]

TOLD_MAX = 256
"""Strangers make entries too; above this the oldest is forgotten and may be logged once more."""


class Notices:
    """What was told about each subject since it was last well."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], None] = {}  # oldest first

    def is_news(self, subject: str, text: str) -> bool:
        """Note that `text` is told of `subject`; return False if it was told before."""
        if (subject, text) in self._told:
            return False
        self._told[subject, text] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        return True

    def forget(self, subject: str) -> None:
        """Let everything about `subject` be news again."""
        self._told = {told: None for told in self._told if told[0] != subject}
