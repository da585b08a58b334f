"""What decides over a message's life besides its place: time, priority, size. Pure.

`read_lives` looks into messages that come to a queue; the command that stores them carries the
result, since every replica must see the same.  Times are spans there, and become points in time
by the stamp of the log entry: the leader's clock counts, not the publisher's node's.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from leveret.amqp.delivery import Record
from leveret.amqp.errors import AmqpError
from leveret.amqp.properties import EXPIRATION, HEADERS, PRIORITY, Properties, flags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .features import QueueFeatures
    from .state import Columns

DELAY_HEADER: Final = "x-delay"
DELAY_OCTETS: Final = b"x-delay"
"""What the octets of a header table contain if the header may be there."""
DELAY_MAX_MS: Final = 2**32 - 1

_NONE: Final = 0
"""No span. Spans are kept one higher, since 0 ms is one."""


class Lives:
    """The lives of some messages: a column each of what at least one of them has."""

    __slots__ = ("bodies", "delays", "priorities", "ttls")

    def __init__(self) -> None:
        self.ttls: array[int] = array("Q")
        self.delays: array[int] = array("Q")
        self.priorities: array[int] = array("B")
        self.bodies: array[int] = array("I")

    def to_wire(self) -> list[bytes]:
        """Return plain values for a command."""
        return [
            column.tobytes() if any(column) else b""
            for column in (self.ttls, self.delays, self.priorities, self.bodies)
        ]

    @classmethod
    def from_wire(cls, wire: Iterable[bytes]) -> Lives:
        """Rebuild what `to_wire` gave."""
        lives = cls()
        columns = (lives.ttls, lives.delays, lives.priorities, lives.bodies)
        for column, octets in zip(columns, wire, strict=True):
            column.frombytes(octets)
        return lives

    def forget_delays(self) -> None:
        """Note that these messages have waited, whatever they ask for."""
        self.delays = array("Q", bytes(8 * len(self.delays)))

    def traits(self, stamp_ms: int) -> Columns:
        """Return what a queue keeps of them, if they came at `stamp_ms`.

        A delayed message begins to live when it is due.
        """
        traits: Columns = {}
        if self.delays:
            traits["due"] = array("Q", [delay and stamp_ms + delay - 1 for delay in self.delays])
        if self.ttls:
            begins = traits.get("due") or (0,) * len(self.ttls)
            traits["deadline"] = array(
                "Q",
                [
                    ttl and (due or stamp_ms) + ttl - 1
                    for ttl, due in zip(self.ttls, begins, strict=True)
                ],
            )
        if self.priorities:
            traits["priority"] = self.priorities
        if self.bodies:
            traits["body"] = self.bodies
        return traits


def read_lives(records: Iterable[bytes], features: QueueFeatures) -> Lives:
    """Look into messages that come to a queue with `features`."""
    lives = Lives()
    for octets in records:
        record = Record(octets)
        header = record.header
        present = flags(header)
        ttl, delay, priority = features.message_ttl_ms, None, 0
        if present & (EXPIRATION | HEADERS | PRIORITY):
            properties = Properties.decode(header)
            if properties.expiration is not None:
                own = int(properties.expiration)
                ttl = own if ttl is None else min(ttl, own)
            if DELAY_OCTETS in header:
                delay = _delay_of(properties)
            if features.max_priority and properties.priority:
                priority = min(properties.priority, features.max_priority)
        lives.ttls.append(_NONE if ttl is None else ttl + 1)
        lives.delays.append(_NONE if delay is None else delay + 1)
        lives.priorities.append(priority)
        lives.bodies.append(record.body_size if features.max_length_bytes is not None else 0)
    return lives


def has_life(header: bytes) -> bool:
    """Say whether a queue must look into a message with this content header."""
    present = flags(header)
    return bool(present & EXPIRATION) or (bool(present & HEADERS) and DELAY_OCTETS in header)


def without_delay(octets: bytes | memoryview) -> bytes:
    """Return a stored message that asks for no delay any more: as the header's negative value."""
    record = Record(octets)
    header = record.header
    if DELAY_OCTETS not in header:
        return bytes(octets)
    properties = Properties.decode(header).copy()
    delay = _delay_of(properties)
    if delay is None or properties.headers is None:
        return bytes(octets)
    properties.headers = {**properties.headers, DELAY_HEADER: -delay}
    try:
        return record.with_other(properties.encode(record.body_size))
    except (TypeError, ValueError):
        # A client's own headers may be what can be read and not written, a table too deep.
        return bytes(octets)


def _delay_of(properties: Properties) -> int | None:
    """Return the delay that a message asks for (ms); None without one, or with a wrong one."""
    headers: Mapping[str, object]
    try:
        headers = properties.headers or {}
    except AmqpError:
        return None
    value = headers.get(DELAY_HEADER)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= DELAY_MAX_MS:
        return None
    return int(value)
