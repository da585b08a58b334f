"""The reasons of connection.blocked, as texts that both sides know. Pure.

RabbitMQ has `low on memory`, `low on disk`, and `low on memory & disk` for both. A node of ours
that is cut off adds a reason of its own, so several are joined by the same ` & `.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LOW_ON_DISK: Final = "low on disk"
NO_MAJORITY: Final = "no majority of the cluster's nodes"
"""The node is cut off: other nodes may serve publishers."""

_AND: Final = " & "


def text_of(reasons: Iterable[str]) -> str | None:
    """The text for reasons that hold at once; None if there is none.

    Example:
        >>> text_of([LOW_ON_DISK, NO_MAJORITY])
        "low on disk & no majority of the cluster's nodes"
    """
    return _AND.join(reasons) or None


def is_cut_off(text: str | None) -> bool:
    """Whether a broker's text says that it is cut off from the rest of its cluster.

    Example:
        >>> is_cut_off("low on disk & no majority of the cluster's nodes")
        True
        >>> is_cut_off("low on memory & disk")
        False
    """
    return text is not None and NO_MAJORITY in text.split(_AND)
