"""What the reader, the node and its own operations tell a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.amqp import errors
    from leveret.amqp.events import Event
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel


class Received:
    """From the reader: what the client sent, and how many bytes its flow counts for that."""

    __slots__ = ("events", "size_bytes")

    def __init__(self, events: list[Event], size_bytes: int = 0) -> None:
        self.events = events
        self.size_bytes = size_bytes


class HungUp:
    """From the reader: the socket is closed, or silent for too long."""


class OperationDone:
    """From an operation: its outcome."""

    __slots__ = ("channel", "outcome")

    def __init__(self, channel: Channel, outcome: Method | errors.AmqpError | None) -> None:
        self.channel = channel
        self.outcome = outcome


class Blocked:
    """From the node: alarms began (with the reason) or all ended (None)."""

    __slots__ = ("reason",)

    def __init__(self, reason: str | None) -> None:
        self.reason = reason


class Shutdown:
    """From the node: end this connection, with `connection.close` 320."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Beat:
    """From the actor's watch: half a heartbeat interval has passed."""


class CloseNow:
    """From the timer: the client had its time to answer connection.close."""
