"""What can go wrong between nodes, by what one can do about it."""

from __future__ import annotations

__all__ = ["EnvelopeError", "Refused", "TransportError"]


class TransportError(Exception):
    """Base of this package; itself: a set-up that an operator must change, as the text says."""


class EnvelopeError(TransportError):
    """Bytes that are no frame, or a payload that cannot be one: drop the link or fix the sender."""


class Refused(TransportError):
    """One node does not accept the other; the link cannot come up until one of them is changed.

    `by_peer` tells who refused; the text is the reason as the refuser gave it.
    """

    def __init__(self, reason: str, *, by_peer: bool = False) -> None:
        super().__init__(reason)
        self.by_peer = by_peer
