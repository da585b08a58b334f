"""What the broker itself publishes: copies of traced messages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from leveret.amqp.delivery import encode_record, encode_route
from leveret.amqp.properties import Properties

from .messages import PublishRun, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leveret.actors import Ref
    from leveret.amqp.fields import Value
    from leveret.catalog import Catalog

    from .messages import ConnectionMessage

log = logging.getLogger(__name__)

UNDER_WAY_MAX: Final = 10_000
"""Announcements that their queues have not taken yet; at the limit further ones are lost, for
nobody can be made to wait."""
SHORTSTR_OCTETS: Final = 255


class Announcer:
    """Publishes for one node, if anybody listens; nobody waits for it."""

    def __init__(
        self, catalog: Catalog, exchange: Callable[[str, str], Ref[PublishRun] | None]
    ) -> None:
        """Publish to the actors that `exchange` finds by virtual host and name."""
        self._catalog = catalog
        self._exchange = exchange
        self._under_way = 0
        self._is_losing = False

    def is_heard(self, vhost: str, exchange: str) -> bool:
        """Whether anything is bound to the exchange."""
        return bool(self._catalog.model.bindings_from(vhost, exchange))

    def publish(
        self, vhost: str, exchange: str, routing_key: str, properties: Properties, body: bytes = b""
    ) -> None:
        """Publish one message; it is lost if its queues are far behind, or it has no wire form.

        routing_key: is cut to what a key can hold.
        """
        actor = self._exchange(vhost, exchange)
        if actor is None:
            return
        if self._under_way >= UNDER_WAY_MAX:
            if not self._is_losing:
                self._is_losing = True
                log.warning("announcements are lost", extra={"vhost": vhost, "exchange": exchange})
            return
        key = _cut(routing_key)
        try:
            header = properties.encode(len(body))
        except (TypeError, ValueError):
            return  # a client's own headers may be what can be read and not written
        run = Announcement(actor, exchange, key, self._is_home)
        record = encode_record(encode_route(exchange, key), header, body)
        run.records.append(record)
        run.size_bytes = len(record)
        self._under_way += 1
        if not tell(actor, run):
            run.end()

    def _is_home(self) -> None:
        self._under_way -= 1
        if self._under_way < UNDER_WAY_MAX // 2:
            self._is_losing = False


class Announcement(PublishRun):
    """One message of the broker on its way."""

    __slots__ = ("_is_home",)

    def __init__(
        self, actor: Ref[PublishRun], exchange: str, routing_key: str, is_home: Callable[[], None]
    ) -> None:
        super().__init__(
            # Never told anything: it is not mandatory, and comes home by `go_home`.
            connection=cast("Ref[ConnectionMessage]", actor),
            channel=0,
            epoch=0,
            exchange=exchange,
            routing_key=routing_key,
            mandatory=False,
            first_confirm=0,
        )
        self.is_told = True
        self._is_home = is_home

    def go_home(self) -> None:
        """Note that its queues have it; called once."""
        self._is_home()


def headers_only(headers: Mapping[str, Value]) -> Properties:
    """Return properties that have these headers alone."""
    return Properties(headers=dict(headers))


def _cut(text: str) -> str:
    octets = text.encode("utf-8", "surrogateescape")
    if len(octets) <= SHORTSTR_OCTETS:
        return text
    return octets[:SHORTSTR_OCTETS].decode("utf-8", "ignore")
