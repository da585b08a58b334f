"""What the processes of a run say to each other: JSON, one object a line."""

from __future__ import annotations

from typing import Literal

import msgspec

from .histogram import Histogram
from .receipts import Came, Faults, Sent


class Command(msgspec.Struct, frozen=True):
    """From the command to a worker. The plan comes first, as a line of its own."""

    do: Literal["begin", "stop producing", "stop"]
    at_ns: int = 0
    """Of `begin`: when, by the wall clock."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All clients of the worker are connected."""


class Interval(msgspec.Struct, tag="interval"):
    """What happened between two ticks, in one worker or, added up, in all."""

    number: int
    """From 1; it ends `number` intervals after the beginning, the last one may be short."""
    published: int = 0
    confirmed: int = 0
    refused: int = 0
    """Messages answered with basic.nack."""
    returned: int = 0
    """Mandatory messages that fitted no queue."""
    consumed: int = 0
    reconnects: int = 0
    cancelled: int = 0
    """Consumers that the broker cancelled; they began again."""
    unconfirmed: int = 0
    """At its end."""
    disconnected: int = 0
    """Clients without a broker at its end."""
    blocked: int = 0
    """Producers whom the broker held back at its end."""
    client_cpu_s: float = 0.0
    busiest_cpu_s: float = 0.0
    """The most that any one worker used."""
    confirm: Histogram = msgspec.field(default_factory=Histogram)
    """From a message's departure to its confirm."""
    delivery: Histogram = msgspec.field(default_factory=Histogram)
    """From a message's departure to its consumer."""

    def beside(self, other: Interval) -> None:
        """Add what happened in another worker at the same time."""
        self._count(other)
        self.unconfirmed += other.unconfirmed
        self.disconnected += other.disconnected
        self.blocked += other.blocked
        self.busiest_cpu_s = max(self.busiest_cpu_s, other.busiest_cpu_s)

    def then(self, later: Interval) -> None:
        """Add what happened later."""
        self._count(later)
        self.number = later.number
        self.unconfirmed = later.unconfirmed
        self.disconnected = later.disconnected
        self.blocked = later.blocked
        self.busiest_cpu_s += later.busiest_cpu_s

    def _count(self, other: Interval) -> None:
        self.published += other.published
        self.confirmed += other.confirmed
        self.refused += other.refused
        self.returned += other.returned
        self.consumed += other.consumed
        self.reconnects += other.reconnects
        self.cancelled += other.cancelled
        self.client_cpu_s += other.client_cpu_s
        self.confirm.add(other.confirm)
        self.delivery.add(other.delivery)


class Produced(msgspec.Struct, frozen=True, tag="produced"):
    """All producers of the worker have ended; seconds since the beginning."""

    published_until_s: float
    confirmed_until_s: float
    arrivals: int
    """Messages that the broker took and that are to come to consumers, one for each queue."""


class Consumed(msgspec.Struct, frozen=True, tag="consumed"):
    """All consumers of the worker have taken as many messages as they were to take."""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last word of a worker."""

    consumed_at_s: float
    """When the last message came, in seconds since the beginning; 0: none did."""
    stopped_at_s: float
    """When the last consumer took no more."""
    faults: Faults
    sent: list[Sent] = []
    came: list[Came] = []


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot go on; kind as that of `PerfError`."""

    kind: str
    text: str


Report = Ready | Interval | Produced | Consumed | Finished | Failed
