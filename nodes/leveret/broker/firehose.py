"""The firehose: copies of what is published and delivered in virtual hosts that are traced.

They go to the exchange `amq.rabbitmq.trace` with the keys `publish.EXCHANGE` and `deliver.QUEUE`;
the headers are RabbitMQ 3.10's.  Where nothing is traced it costs one look at a set for each run
of messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from leveret.amqp.definitions import PROPERTIES
from leveret.amqp.delivery import Record
from leveret.amqp.errors import AmqpError
from leveret.amqp.fields import Long
from leveret.amqp.properties import Properties
from leveret.catalog.commands import Changed, Created, Deleted, Restored
from leveret.catalog.model import VirtualHost

from .announcer import headers_only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leveret.amqp.fields import Value
    from leveret.catalog import Catalog
    from leveret.catalog.commands import Event

    from .announcer import Announcer
    from .messages import PublishRun

TRACE_EXCHANGE: Final = "amq.rabbitmq.trace"


class Origin(NamedTuple):
    """Who publishes, or is delivered to."""

    vhost: str
    connection: str
    channel: int
    user: str


class Firehose:
    """The taps of one node."""

    def __init__(self, catalog: Catalog, announcer: Announcer, *, node: int) -> None:
        self._catalog = catalog
        self._announcer = announcer
        self._node = node
        self._traced: frozenset[str] = frozenset()
        self._look()
        catalog.on_change(self._catalog_changed)

    def is_open(self, vhost: str) -> bool:
        """Whether the messages of a virtual host are copied, and somebody gets the copies."""
        return vhost in self._traced and self._announcer.is_heard(vhost, TRACE_EXCHANGE)

    def published(self, origin: Origin, run: PublishRun, queues: Iterable[str]) -> None:
        """Copy messages that were published and go to these queues."""
        routed: list[Value] = list(queues)
        for octets in run.records:
            record = Record(octets)
            headers = self._headers(origin, record, [run.routing_key, *run.copies])
            headers["routed_queues"] = routed
            self._copy(origin, f"publish.{run.exchange}", record, headers)

    def delivered(
        self,
        origin: Origin,
        queue: str,
        records: Iterable[bytes | memoryview],
        redelivered: Iterable[bool],
    ) -> None:
        """Copy messages that are delivered from a queue; copies themselves are not copied."""
        for octets, again in zip(records, redelivered, strict=False):
            record = Record(octets)
            if record.exchange == TRACE_EXCHANGE:
                continue
            headers = self._headers(origin, record, [record.routing_key])
            headers["redelivered"] = int(again)
            self._copy(origin, f"deliver.{queue}", record, headers)

    def _copy(self, origin: Origin, key: str, record: Record, headers: dict[str, Value]) -> None:
        self._announcer.publish(
            origin.vhost, TRACE_EXCHANGE, key, headers_only(headers), bytes(record.body)
        )

    def _headers(self, origin: Origin, record: Record, keys: list[str]) -> dict[str, Value]:
        properties = _properties(record)
        own = properties.get("headers")
        if len(keys) == 1 and isinstance(own, dict) and isinstance(own.get("CC"), list):
            keys = keys + [key for key in own["CC"] if isinstance(key, str)]
        node = self._catalog.model.node(self._node)
        return {
            "exchange_name": record.exchange,
            "routing_keys": list(keys),
            "properties": properties,
            "node": "" if node is None else node.name,
            "vhost": origin.vhost,
            "connection": origin.connection,
            "channel": origin.channel,
            "user": origin.user,
        }

    def _catalog_changed(self, event: Event) -> None:
        match event:
            case (
                Created(VirtualHost()) | Changed(VirtualHost()) | Deleted(VirtualHost())
            ) | Restored():
                self._look()

    def _look(self) -> None:
        self._traced = frozenset(v.name for v in self._catalog.model.vhosts() if v.is_traced)


def _properties(record: Record) -> dict[str, Value]:
    """Return the properties that a message has, by their names; none if they are malformed."""
    try:
        properties = Properties.decode(record.header)
        values = {name: getattr(properties, name) for name, _ in PROPERTIES}
    except AmqpError:
        return {}
    timestamp = values["timestamp"]
    if timestamp is not None:
        values["timestamp"] = Long(timestamp)
    return {name: value for name, value in values.items() if value is not None}
