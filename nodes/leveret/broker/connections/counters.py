"""What the connections of one node did since it started, for operators."""

from __future__ import annotations


class Counters:
    """Plain numbers of messages; connections add to them once a batch, never once a message."""

    __slots__ = ("confirmed", "delivered", "published", "settled")

    def __init__(self) -> None:
        self.published = 0
        """Taken from clients."""
        self.confirmed = 0
        """Acknowledged to publishers that asked for confirms."""
        self.delivered = 0
        """Sent to consumers, and to clients that got them one by one."""
        self.settled = 0
        """Acknowledged or rejected by clients."""
