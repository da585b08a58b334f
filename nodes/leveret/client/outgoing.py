"""What the producers of both faces share: the form of messages, their pace, and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leveret.amqp import Properties

from . import tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.amqp.fields import Table, Value

    from .serializers import Serializer


@dataclass(frozen=True)
class ProducerStatistics:
    """Counters of a producer.

    Example:
        >>> ProducerStatistics(sent=3, confirmed=2, failed=0, in_flight=1).in_flight
        1
    """

    sent: int
    confirmed: int
    failed: int
    in_flight: int
    """Messages that were sent and are not confirmed yet."""


class Pace:
    """When messages may be sent that are to keep a rate. Pure: the caller has the clock.

    rate_per_s: messages a second, infinity for no limit; burst: as many at once after a pause.

    Raises:
        ValueError: the rate is not above 0, or the burst below 1.

    Example:
        >>> pace = Pace(rate_per_s=10, burst=2)
        >>> [round(pace.turn(now=0.0), 1) for _ in range(4)]
        [-0.1, 0.0, 0.1, 0.2]
    """

    def __init__(self, rate_per_s: float, burst: int) -> None:
        if rate_per_s <= 0 or burst < 1:
            raise ValueError("a rate is above 0 messages a second, and a burst 1 or more")
        self._interval_s = 1 / rate_per_s
        self._burst = burst
        self._next_at = float("-inf")

    @property
    def is_limited(self) -> bool:
        """Whether there is a rate to keep."""
        return self._interval_s > 0

    def turn(self, now: float) -> float:
        """Take the next message's turn; when it is, in seconds of the clock of `now`."""
        turn = max(self._next_at, now - (self._burst - 1) * self._interval_s)
        self._next_at = turn + self._interval_s
        return turn


class Form:
    """What a producer's messages look like.

    propagates: OpenTelemetry's context goes with each message, if it is installed.

    Example:
        >>> from leveret.client import JSON
        >>> Form(JSON, propagates=False).properties({"hare": 1}).headers
        {'hare': 1}
    """

    def __init__(self, serializer: Serializer, *, propagates: bool) -> None:
        self.encode = serializer.encode
        self.plain = Properties(content_type=serializer.content_type, delivery_mode=2)
        """The properties of a message without headers."""
        self._propagates = propagates and tracing.is_available

    def properties(self, headers: Mapping[str, Value] | None) -> Properties | None:
        """The properties of one message; None stands for the plain ones."""
        table: Table = dict(headers or {})
        if self._propagates:
            tracing.inject(table)
        if not table:
            return None
        properties = self.plain.copy()
        properties.headers = table
        return properties
