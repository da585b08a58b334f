"""The edge where clients come in: accepting, the handshake, and the reader of each connection."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from leveret.actors import Actor, ActorStopped, Ref, supervise
from leveret.amqp import ServerConnection
from leveret.amqp.fields import Long
from leveret.broker.budget import Budget
from leveret.broker.messages import tell
from leveret.catalog.commands import Deleted, Restored
from leveret.catalog.model import User, VirtualHost

from .certificates import BY_DISTINGUISHED_NAME, LoginFrom, user_of
from .connection import ConnectionActor
from .flow import Flow
from .handshake import Greeting, Handshake, HandshakeFailed
from .messages import Blocked, HungUp, Received, Shutdown
from .session import Services
from .sockets import GONE, ClientStream, TcpStream, TlsStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.amqp.events import Event as ClientEvent
    from leveret.amqp.fields import Value
    from leveret.catalog.commands import Event
    from leveret.transport import Sockets

    from .session import Session

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024
"""What one receive may take: large, since each costs a system call and a turn of the loop."""

CONNECTION_MAILBOX_MAX: Final = 1 << 22
"""Messages that wait for a client that does not read. Far above what its consumers' windows let
come together, because it is the queues that would crash at it."""

ACCEPT_PAUSE_S: Final = 0.1
"""Rest after an accept that failed for want of file descriptors or memory."""

PROTOCOL: Final = "{0,9,1}"
"""AMQP's version as events tell it."""


class ListenerConfig:
    """Limits of the edge; see the node's configuration for their meaning."""

    def __init__(
        self,
        *,
        handshake_timeout_s: float,
        tls_handshake_timeout_s: float,
        connections_max: int,
        unauthenticated_max: int,
        message_size_max: int,
        in_flight_bytes_max: int,
        in_flight_bytes_total: int,
        backlog: int,
        login_from: LoginFrom = BY_DISTINGUISHED_NAME,
    ) -> None:
        self.handshake_timeout_s = handshake_timeout_s
        self.tls_handshake_timeout_s = tls_handshake_timeout_s
        self.connections_max = connections_max
        self.unauthenticated_max = unauthenticated_max
        self.message_size_max = message_size_max
        self.in_flight_bytes_max = in_flight_bytes_max
        self.in_flight_bytes_total = in_flight_bytes_total
        self.backlog = backlog
        self.login_from = login_from


class Client(NamedTuple):
    """A client that has logged in; the places are host and port of its side and of ours."""

    session: Session
    ref: Ref[object]
    peer: tuple[str, int]
    here: tuple[str, int]
    is_tls: bool

    def close(self, reason: str) -> None:
        """End its connection, with `connection.close` 320."""
        tell(self.ref, Shutdown(reason))


class Listener:
    """All client connections of a node."""

    def __init__(
        self,
        services: Services,
        greeting: Greeting,
        config: ListenerConfig,
        *,
        sockets: Sockets = trio.socket,
    ) -> None:
        self._services = services
        self._greeting = greeting
        self._config = config
        self._sockets = sockets
        self._connections: dict[int, Client] = {}
        self._number = 0
        self._unauthenticated = 0
        self._is_closing = False
        self._blocked_reason: str | None = None
        self.budget = Budget(config.in_flight_bytes_total)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def clients(self) -> list[Client]:
        """Return the clients that are connected, in the order in which they came."""
        return list(self._connections.values())

    async def bind(self, host: str, port: int) -> trio.socket.SocketType:
        """Return a socket bound to an address; clients are refused until `serve` listens on it.

        Raises:
            OSError: the address is in use or not ours.
        """
        infos = await self._sockets.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = infos[0]
        listening = self._sockets.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listening.bind(address)
        except BaseException:
            listening.close()
            raise
        return listening

    async def serve(
        self,
        listening: trio.socket.SocketType,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on a bound socket and serve clients, until it is closed and they are gone.

        tls: gives what the next client is shown and asked for; None: without TLS.
        """
        listening.listen(self._config.backlog)
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    client, address = await listening.accept()
                except trio.ClosedResourceError:
                    return  # the node is stopping, and the clients with it
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return  # likewise, while the last client was being taken
                    if error.errno not in _SCARCE:
                        continue  # the client left before we took it
                    reason = error.strerror  # its stack would say no more
                    log.error("cannot accept a client", extra={"error": reason})  # noqa: TRY400
                    await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                config = self._config
                if (
                    len(self._connections) >= config.connections_max
                    or self._unauthenticated >= config.unauthenticated_max
                ):
                    log.warning("too many connections", extra={"client": address[0]})
                    client.close()
                    continue
                nursery.start_soon(
                    self._serve_client, client, address, None if tls is None else tls()
                )

    def block(self, reason: str | None) -> None:
        """Tell all connections that alarms began (why) or ended (None)."""
        if reason != self._blocked_reason:
            self._blocked_reason = reason
            for client in self._connections.values():
                tell(client.ref, Blocked(reason))

    async def close_all(self, reason: str) -> None:
        """Close all connections in the protocol's words, and wait for their ends.

        Who has not logged in yet is hung up on then: nothing is left that would serve it.
        """
        self._is_closing = True
        clients = self.clients()
        for client in clients:
            client.close(reason)
        for client in clients:
            await client.ref.stopped()

    def catalog_changed(self, event: Event) -> None:
        """Close the connections whose user or virtual host the catalog has no more."""
        match event:
            case Deleted(User() | VirtualHost()) | Restored():
                for client in self._connections.values():
                    self._close_if_gone(client)

    def _close_if_gone(self, client: Client) -> None:
        model, session = self._services.catalog.model, client.session
        if model.vhost(session.vhost) is None:
            client.close(f"vhost '{session.vhost}' is deleted")
        elif model.user(session.user) is None:
            client.close(f"user '{session.user}' is deleted")

    async def _serve_client(
        self,
        client: trio.socket.SocketType,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
    ) -> None:
        try:
            await self._converse(client, address, tls)
        finally:
            client.close()  # also where the node ends at once

    async def _converse(
        self,
        client: trio.socket.SocketType,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
    ) -> None:
        here = _place(client.getsockname())
        name = f"{address[0]}:{address[1]} -> {here[0]}:{here[1]}"
        stream: ClientStream
        certified: Callable[[], str] | None = None
        try:
            self._unauthenticated += 1
            try:
                if tls is None:
                    stream = TcpStream(client)
                else:
                    stream = secured = TlsStream(client, tls)
                    with trio.fail_after(self._config.tls_handshake_timeout_s):
                        await secured.shake_hands()
                    if tls.verify_mode is not ssl.CERT_NONE:
                        certified = partial(user_of, secured.certificate, self._config.login_from)
                protocol = ServerConnection(message_size_max=self._config.message_size_max)
                self._number += 1
                handshake = Handshake(
                    stream,
                    protocol,
                    greeting=self._greeting,
                    access=self._services.access,
                    tallies=self._services.directory.tallies,
                    is_loopback=_is_loopback(address[0]),
                    name=name,
                    certified=certified,
                    told=partial(self._tell_of_login, name, address, here, is_tls=tls is not None),
                )
                with trio.fail_after(self._config.handshake_timeout_s):
                    session, ahead = await handshake.run(self._number)
            finally:
                self._unauthenticated -= 1
        except (HandshakeFailed, trio.TooSlowError, *GONE) as error:
            if not isinstance(error, HandshakeFailed):
                log.warning(
                    "handshake not completed",
                    extra={"connection": name, "reason": str(error) or type(error).__name__},
                )
            return
        if self._is_closing:
            self._services.directory.tallies.leave(session.number)
            return
        news, facts = self._services.directory.news, _facts(session)
        news.tell_of_node(
            "connection.created",
            facts
            | {
                "vhost": session.vhost,
                "user": session.user,
                "protocol": PROTOCOL,
                "type": "network",
                "ssl": tls is not None,
                "peer_host": address[0],
                "peer_port": Long(address[1]),
                "host": here[0],
                "port": Long(here[1]),
                "frame_max": Long(protocol.frame_max),
                "timeout": Long(session.heartbeat_s),
            },
        )
        try:
            await self._serve_session(
                session, ahead, protocol, stream, _place(address), here, is_tls=tls is not None
            )
        finally:
            self._services.directory.tallies.leave(session.number)
            news.tell_of_node("connection.closed", facts)

    def _tell_of_login(
        self,
        name: str,
        peer: tuple[str, int],
        here: tuple[str, int],
        user: str,
        mechanism: str,
        error: str | None,
        *,
        is_tls: bool,
    ) -> None:
        """Tell that a client logged in, or why it did not."""
        facts: dict[str, Value] = {
            "name": user,
            "connection_name": name,
            "connection_type": "network",
            "auth_mechanism": mechanism,
            "protocol": PROTOCOL,
            "ssl": is_tls,
            "peer_host": peer[0],
            "peer_port": Long(peer[1]),
            "host": here[0],
        }
        verb = "success"
        if error is not None:
            verb, facts["error"] = "failure", error
        self._services.directory.news.tell(f"user.authentication.{verb}", facts)

    async def _serve_session(
        self,
        session: Session,
        ahead: list[ClientEvent],
        protocol: ServerConnection,
        stream: ClientStream,
        peer: tuple[str, int],
        here: tuple[str, int],
        *,
        is_tls: bool,
    ) -> None:
        log.info(
            "client connected",
            extra={"connection": session.name, "user": session.user, "vhost": session.vhost},
        )
        flow = Flow(self._config.in_flight_bytes_max, budget=self.budget)
        async with trio.open_nursery() as operations, supervise() as supervisor:
            with trio.CancelScope() as reading:
                make = _once(
                    lambda: ConnectionActor(
                        session, protocol, stream, flow, self._services, operations, reading.cancel
                    ),
                    reading.cancel,
                )
                ref = supervisor.spawn(
                    make, f"connection {session.name}", limit=CONNECTION_MAILBOX_MAX
                )
                known = self._connections[session.number] = Client(session, ref, peer, here, is_tls)
                try:
                    self._close_if_gone(known)  # it may have lost its place while it came in
                    if self._blocked_reason is not None:
                        tell(ref, Blocked(self._blocked_reason))
                    if ahead:
                        tell(ref, Received(ahead))
                    await _read(stream, protocol, ref, flow)
                finally:
                    tell(ref, HungUp())
            await ref.stopped()
            flow.close()
            del self._connections[session.number]
            operations.cancel_scope.cancel()
        await stream.close()
        log.info("client gone", extra={"connection": session.name})


async def _read(
    stream: ClientStream, protocol: ServerConnection, ref: Ref[object], flow: Flow
) -> None:
    """Pass on what comes, as fast as the broker takes it, until the end."""
    size_bytes = 0  # since the last events: it may be all of one message
    try:
        while True:
            data = await stream.receive(CHUNK_BYTES)
            if not data:
                return
            flow.heard()
            size_bytes += len(data)
            events = protocol.receive_data(data)
            if events:
                flow.published(size_bytes)
                ref.tell(Received(events, size_bytes))
                size_bytes = 0
                await ref.room()
            flow.announced(protocol.unfinished)
            await flow.go()
    except (*GONE, ActorStopped):
        return


class _Crashed(Actor[object]):
    """What stands behind the address of a connection whose actor crashed: it only hangs up."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up

    async def start(self) -> None:
        self.ref.close()
        self._hang_up()

    def receive(self, message: object) -> None:
        """Nobody is left to do it."""


def _once(
    make: Callable[[], Actor[object]], hang_up: Callable[[], None]
) -> Callable[[], Actor[object]]:
    """Return a maker whose second actor hangs up: half a conversation cannot be taken up again."""
    makers = [lambda: _Crashed(hang_up), make]
    return lambda: makers.pop()() if len(makers) > 1 else makers[0]()


def _facts(session: Session) -> dict[str, Value]:
    """Return the facts that say which connection an event is about."""
    return {
        "name": session.place,
        "pid": session.place,
        "user_provided_name": session.client_name,
    }


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _place(address: object) -> tuple[str, int]:
    match address:
        case (str(host), int(port), *_):
            return host, port
        case _:
            return str(address), 0


_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
