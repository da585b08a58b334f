"""The reasons of connection.blocked, as texts that both sides know. Pure.

RabbitMQ has `low on memory`, `low on disk`, and `low on memory & disk` for both. A node of ours
that is cut off adds a reason of its own, so several are joined by the same ` & `.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LOW_ON_MEMORY: Final = "low on memory"
LOW_ON_DISK: Final = "low on disk"
NO_MAJORITY: Final = "no majority of the cluster's nodes"
"""The node is cut off: other nodes may serve publishers."""

_AND: Final = " & "
_LOW_ON: Final = "low on "


def text_of(reasons: Iterable[str]) -> str | None:
    """The text for reasons that hold at once, in their order; None if there is none.

    Example:
        >>> text_of([LOW_ON_MEMORY, LOW_ON_DISK])
        'low on memory & disk'
        >>> text_of([LOW_ON_DISK, NO_MAJORITY])
        "low on disk & no majority of the cluster's nodes"
    """
    words: list[str] = []
    for reason in reasons:
        follows = words and words[-1].startswith(_LOW_ON) and reason.startswith(_LOW_ON)
        words.append(reason.removeprefix(_LOW_ON) if follows else reason)
    return _AND.join(words) or None


def is_cut_off(text: str | None) -> bool:
    """Whether a broker's text says that it is cut off from the rest of its cluster.

    Example:
        >>> is_cut_off("low on disk & no majority of the cluster's nodes")
        True
        >>> is_cut_off("low on memory & disk")
        False
    """
    return text is not None and NO_MAJORITY in text.split(_AND)
