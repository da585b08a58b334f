"""What a connection's actor is given: its node's services, its socket, and who its client is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leveret.actors import Timers
    from leveret.broker.access import Access
    from leveret.broker.directory import Directory
    from leveret.catalog import Catalog


class ByteStream(Protocol):
    """A connected socket, plain or TLS."""

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            OSError, trio.BrokenResourceError, trio.ClosedResourceError: it is gone.
        """


class Services:
    """What connections need of their node."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        directory: Directory,
        access: Access,
        timers: Timers,
        random_bytes: Callable[[int], bytes],
        consumer_timeout_ms: int = 0,
    ) -> None:
        """consumer_timeout_ms: of consumers for which nothing else says it; 0: none."""
        self.catalog = catalog
        self.directory = directory
        self.access = access
        self.timers = timers
        self.random_bytes = random_bytes
        self.consumer_timeout_ms = consumer_timeout_ms
        self.counters = Counters()


class Session:
    """Who is on the other side, as the handshake found out."""

    def __init__(
        self,
        *,
        number: int,
        name: str,
        user: str,
        vhost: str,
        heartbeat_s: int,
        capabilities: Mapping[str, object],
        client_name: str = "",
    ) -> None:
        self.number = number
        """Unique on this node until it restarts."""
        self.name = name
        """`client host:port -> server host:port`, and the name that the client gave itself."""
        self.user = user
        self.vhost = vhost
        self.client_name = client_name
        """The name that the client gave itself alone; empty if it gave none."""
        self.place = name.removesuffix(f" ({client_name})")
        """`client host:port -> server host:port` alone."""
        self.heartbeat_s = heartbeat_s
        self.can_cancel = capabilities.get("consumer_cancel_notify") is True
        self.can_block = capabilities.get("connection.blocked") is True
