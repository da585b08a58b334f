"""What a queue gives up goes to its dead-letter exchange, with its story in the headers. Pure.

The headers are RabbitMQ 3.10's: `x-death`, the most recent first, one table for each queue and
reason, whose count grows; and `x-first-death-…`, which stay as they are.  What a client has written
there means nothing, as in RabbitMQ 4: it would forge a way round, or hide one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from leveret.amqp.delivery import Record, encode_record, encode_route
from leveret.amqp.errors import AmqpError
from leveret.amqp.fields import Long, Timestamp
from leveret.amqp.properties import Properties
from leveret.broker.messages import PublishRun

from .message_life import DELAY_HEADER

if TYPE_CHECKING:
    from leveret.actors import Ref
    from leveret.amqp.fields import Value
    from leveret.broker.messages import ConnectionMessage

    from .features import QueueFeatures

Reason = Literal["rejected", "expired", "maxlen", "delivery_limit"]

REJECTED: Final = "rejected"

TOLD: Final = ("x-death", "x-first-death-reason", "x-first-death-queue", "x-first-death-exchange")
"""The headers that tell of deaths."""


class DeadLetter(PublishRun):
    """A dead message on its way; it comes home to the actor of the queue that it died in."""

    __slots__ = ("cycles", "is_unroutable", "lead", "reason", "sequence", "source", "visited")

    def __init__(
        self,
        source: int,
        sequence: int | None,
        octets: bytes | memoryview,
        *,
        ref: Ref[ConnectionMessage],
        features: QueueFeatures,
        reason: Reason,
        now_s: int,
        lead: object = None,
    ) -> None:
        """Make what is published of message `sequence` of queue `source`.

        sequence: None: the message never was in the queue. ref: the queue's actor.
        lead: who counts it as under way.
        """
        record = Record(octets)
        exchange = features.dead_letter_exchange
        assert exchange is not None, "a queue without a dead-letter exchange drops its dead"
        routing_key = features.dead_letter_routing_key
        super().__init__(
            connection=ref,
            channel=0,
            epoch=0,
            exchange=exchange,
            routing_key=record.routing_key if routing_key is None else routing_key,
            mandatory=False,
            first_confirm=0,
        )
        header, self.visited, is_told = _told(record, features, reason, now_s)
        route = encode_route(exchange, self.routing_key)
        dead = encode_record(route, header, record.body, is_dead_letter=is_told)
        self.records.append(dead)
        self.size_bytes = len(dead)
        self.is_told = True
        self.cycles = 0
        """Queues that would have got it, where it would go round."""
        self.is_unroutable = False
        self.source = source
        self.sequence = sequence
        self.reason: Reason = reason
        self.lead = lead

    def turn_away(self, queues: int) -> None:
        """Note that so many queues would have got it and were on its way already."""
        self.cycles += queues

    def end(self) -> None:
        """Send it home: its exchange is gone."""
        self.is_unroutable = True
        super().end()

    def is_home_at(self, uid: int) -> bool:
        """Say whether it comes back to queue `uid`, and not as a publish to it."""
        return self.source == uid and self.waiting <= 0


def _told(
    record: Record, features: QueueFeatures, reason: Reason, now_s: int
) -> tuple[bytes, frozenset[str], bool]:
    """Return the content header, the queues that must not get it, and if the header tells of that.

    Those are the ones on a way that it went without anybody rejecting it: it would go round.
    """
    properties = Properties.decode(record.header).copy()
    try:
        headers = dict(properties.headers or {})
    except AmqpError:
        return record.header, frozenset(), record.is_dead_letter
    if not record.is_dead_letter:
        for name in TOLD:
            headers.pop(name, None)
    death: dict[str, Value] = {
        "count": Long(1),
        "reason": reason,
        "queue": features.name,
        "time": Timestamp(now_s),
        "exchange": record.exchange,
        "routing-keys": [record.routing_key, *_copies(headers)],
    }
    if properties.expiration is not None:
        death["original-expiration"] = properties.expiration
        properties.expiration = None
    deaths: list[Value] = [death]
    for earlier in _deaths(headers):
        if (earlier.get("queue"), earlier.get("reason")) == (features.name, reason):
            count = earlier.get("count")
            deaths[0] = {**earlier, "count": Long((count if isinstance(count, int) else 0) + 1)}
        else:
            deaths.append(earlier)
    headers["x-death"] = deaths
    if "x-first-death-reason" not in headers:
        headers["x-first-death-reason"] = reason
        headers["x-first-death-queue"] = features.name
        headers["x-first-death-exchange"] = record.exchange
    if features.dead_letter_routing_key is not None:
        headers.pop("CC", None)
    delay = headers.get(DELAY_HEADER)
    if isinstance(delay, int) and delay > 0:
        headers[DELAY_HEADER] = type(delay)(-delay)  # it has waited
    properties.headers = headers
    visited = []
    for one in cast("list[dict[str, Value]]", deaths):
        if one.get("reason") == REJECTED:
            break
        visited.append(str(one.get("queue")))
    try:
        return properties.encode(record.body_size), frozenset(visited), True
    except (TypeError, ValueError):
        # A client's own headers may be what can be read and not written, a table too deep.
        return record.header, frozenset(visited), record.is_dead_letter


def _copies(headers: dict[str, Value]) -> list[str]:
    keys = headers.get("CC")
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _deaths(headers: dict[str, Value]) -> list[dict[str, Value]]:
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return []
    return [death for death in deaths if isinstance(death, dict)]
