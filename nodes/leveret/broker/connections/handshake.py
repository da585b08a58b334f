"""The beginning of a client connection: greeting, login, limits, virtual host.

A conversation in fixed order, so a coroutine under one deadline rather than an actor.  A peer
that does not get through it gets at most one close; who is not logged in learns nothing else.

Spec: AMQP 0-9-1, 2.2.4 and 1.4.2.
"""

from __future__ import annotations

import logging
import platform
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from leveret.amqp import ConnectionFailed, MethodReceived, errors, spec
from leveret.amqp.fields import decode_table
from leveret.amqp.states import ConnectionState
from leveret.broker.access import LoginRefused, VirtualHostRefused

from .session import Session
from .sockets import GONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from leveret.amqp import Method, ServerConnection
    from leveret.amqp.events import Event
    from leveret.amqp.fields import Value
    from leveret.broker.access import Access
    from leveret.catalog.model import User

    from .sockets import ClientStream
    from .tallies import Tallies

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 16_384

CLOSE_OK_WITHIN_S: Final = 3.0
"""How long a refused client may take to answer the close; so long RabbitMQ keeps its socket."""

CAPABILITIES: Final[dict[str, Value]] = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
    # Ours: see docs/reference/amqp.md.
    "publisher_deduplication": True,
}

ADDRESSES_OCTETS_MAX: Final = 2_048
"""Of the cluster's addresses in connection.start, which must fit a frame of 4,096 octets.
What is beyond is left out: a client needs one that answers."""

M = TypeVar("M", bound="Method")


class Greeting:
    """What the broker says of itself, and proposes."""

    def __init__(
        self,
        *,
        product: str,
        version: str,
        own_version: str,
        cluster_name: str,
        addresses: Callable[[], Iterable[str]],
        channel_max: int,
        frame_max: int,
        heartbeat_s: int,
        refused_login_delay_s: float,
    ) -> None:
        """Say this.

        addresses: gives the URLs at which clients reach the cluster's nodes now.
        """
        self._addresses = addresses
        self._properties: dict[str, Value] = {
            "capabilities": CAPABILITIES,
            "cluster_name": cluster_name,
            "copyright": "Copyright (c) the authors of Leveret",
            "information": "Licensed under the Apache License 2.0",
            "platform": f"Python {platform.python_version()}",
            "product": product,
            "version": version,
            # What it really is; libraries look at `product` and `version` alone.
            "broker": "Leveret",
            "broker_version": own_version,
        }
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat_s = heartbeat_s
        self.refused_login_delay_s = refused_login_delay_s

    @property
    def properties(self) -> dict[str, Value]:
        """What connection.start says, with the nodes that the cluster has now."""
        addresses: list[Value] = []
        left = ADDRESSES_OCTETS_MAX
        for address in self._addresses():
            left -= len(address.encode())
            if left >= 0:
                addresses.append(address)
        return {**self._properties, "cluster_addresses": addresses}


class HandshakeFailed(Exception):
    """The connection is to be closed; what there was to say is said."""


class Handshake:
    """One connection's way to `connection.open-ok`."""

    def __init__(
        self,
        stream: ClientStream,
        protocol: ServerConnection,
        *,
        greeting: Greeting,
        access: Access,
        tallies: Tallies,
        is_loopback: bool,
        name: str,
        certified: Callable[[], str] | None = None,
        told: Callable[[str, str, str | None], None] | None = None,
    ) -> None:
        """Begin with a connected client.

        certified: gives the name of the user in the client's certificate, or raises LoginRefused;
            None: no certificate was asked for, and EXTERNAL is not offered.
        told: hears of a log-in: the name, the mechanism, and why it was refused or None.
        """
        self._stream = stream
        self._protocol = protocol
        self._greeting = greeting
        self._access = access
        self._tallies = tallies
        self._is_loopback = is_loopback
        self._name = name
        self._certified = certified
        self._told = told
        self._events: deque[Event] = deque()

    async def run(self, number: int) -> tuple[Session, list[Event]]:
        """Shake hands; return who it is, and what the client sent ahead.

        number: the connection's; it is counted from now on, until its `Tallies.leave`.

        Raises:
            HandshakeFailed: it is not to be served; the reason is in the log.
        """
        await self._greet()
        start_ok = await self._expect(spec.ConnectionStartOk)
        user = await self._log_in(start_ok)
        greeting = self._greeting
        await self._say(
            spec.ConnectionTune(
                channel_max=greeting.channel_max,
                frame_max=greeting.frame_max,
                heartbeat=greeting.heartbeat_s,
            )
        )
        tune_ok = await self._expect(spec.ConnectionTuneOk)
        opening = await self._expect(spec.ConnectionOpen)
        vhost = opening.virtual_host
        try:
            self._tallies.enter(number, user, vhost)
        except VirtualHostRefused as error:
            await self._fail(errors.not_allowed(str(error), opening.CLASS_ID, opening.METHOD_ID))
        try:
            try:
                self._access.check_vhost(user, vhost)
            except VirtualHostRefused as error:
                await self._fail(
                    errors.not_allowed(str(error), opening.CLASS_ID, opening.METHOD_ID)
                )
            await self._say(spec.ConnectionOpenOk())
        except BaseException:
            self._tallies.leave(number)
            raise
        properties = start_ok.client_properties
        given = properties.get("connection_name")
        capabilities = properties.get("capabilities")
        session = Session(
            number=number,
            name=f"{self._name} ({given})" if isinstance(given, str) else self._name,
            user=user,
            vhost=vhost,
            heartbeat_s=tune_ok.heartbeat,
            capabilities=capabilities if isinstance(capabilities, dict) else {},
            client_name=given if isinstance(given, str) else "",
        )
        return session, list(self._events)

    async def _greet(self) -> None:
        while self._protocol.state is ConnectionState.NEW:
            await self._read()
        if self._events:
            await self._next()  # can only be a failure
        await self._say(
            spec.ConnectionStart(
                version_major=0,
                version_minor=9,
                server_properties=self._greeting.properties,
                mechanisms=b"AMQPLAIN PLAIN"
                if self._certified is None
                else b"EXTERNAL AMQPLAIN PLAIN",
                locales=b"en_US",
            )
        )

    async def _log_in(self, start_ok: spec.ConnectionStartOk) -> str:
        try:
            user = await self._authenticate(start_ok.mechanism, start_ok.response)
        except LoginRefused as error:
            log.warning("login refused", extra={"connection": self._name, "reason": str(error)})
            self._tell(_name_of(start_ok), start_ok.mechanism, str(error))
        else:
            self._tell(user.name, start_ok.mechanism, None)
            return user.name
        await trio.sleep(self._greeting.refused_login_delay_s)
        capabilities = start_ok.client_properties.get("capabilities")
        if isinstance(capabilities, dict) and capabilities.get("authentication_failure_close"):
            refusal = errors.access_refused(
                "Login was refused using authentication mechanism "
                f"{start_ok.mechanism}. For details see the broker logfile."
            )
            await self._say(
                spec.ConnectionClose(
                    reply_code=refusal.reply_code,
                    reply_text=refusal.reply_text,
                    class_id=0,
                    method_id=0,
                )
            )
            await self._part()
        raise HandshakeFailed

    def _tell(self, user: str, mechanism: str, error: str | None) -> None:
        if self._told is not None:
            self._told(user, mechanism, error)

    async def _authenticate(self, mechanism: str, response: bytes) -> User:
        """Return who it is.

        Raises:
            LoginRefused: nobody, for the reason that the text says.
        """
        if mechanism == "EXTERNAL" and self._certified is not None:
            # The response would name another user to act for: RabbitMQ takes no notice of it.
            return self._access.identify(self._certified(), is_loopback=self._is_loopback)
        name, password = _credentials(mechanism, response)
        return await self._access.authenticate(name, password, is_loopback=self._is_loopback)

    async def _fail(self, error: errors.AmqpError) -> None:
        log.warning("connection refused", extra={"connection": self._name, "reason": str(error)})
        await self._stream.send_all(self._protocol.fail(error))
        await self._part()
        raise HandshakeFailed

    async def _part(self) -> None:
        """Wait until the client answers the close, or hangs up, `CLOSE_OK_WITHIN_S` at most.

        A client that finds the stream at its end, too, may tell its user of that instead.
        """
        with trio.move_on_after(CLOSE_OK_WITHIN_S), suppress(*GONE):
            while self._protocol.state is not ConnectionState.CLOSED:
                data = await self._stream.receive(CHUNK_BYTES)
                if not data:
                    return
                self._protocol.receive_data(data)

    async def _say(self, method: Method) -> None:
        await self._stream.send_all(self._protocol.send_method(0, method))
        self._events.extend(self._protocol.receive_data(b""))

    async def _expect(self, kind: type[M]) -> M:
        event = await self._next()
        if isinstance(event, MethodReceived) and isinstance(event.method, kind):
            return event.method
        # The state tables let nothing else through but a close.
        if isinstance(event, MethodReceived) and isinstance(event.method, spec.ConnectionClose):
            await self._stream.send_all(self._protocol.send_method(0, spec.ConnectionCloseOk()))
        raise HandshakeFailed

    async def _next(self) -> Event:
        while not self._events:
            await self._read()
        event = self._events.popleft()
        if isinstance(event, ConnectionFailed):
            log.warning(
                "handshake failed", extra={"connection": self._name, "reason": str(event.error)}
            )
            if event.reply:
                await self._stream.send_all(event.reply)
                await self._part()
            raise HandshakeFailed
        return event

    async def _read(self) -> None:
        data = await self._stream.receive(CHUNK_BYTES)
        if not data:
            log.info("client left during the handshake", extra={"connection": self._name})
            raise HandshakeFailed
        self._events.extend(self._protocol.receive_data(data))


def _name_of(start_ok: spec.ConnectionStartOk) -> str:
    """Return the name that a refused client gave, if it can be read."""
    try:
        return _credentials(start_ok.mechanism, start_ok.response)[0]
    except LoginRefused:
        return ""


def _credentials(mechanism: str, response: bytes) -> tuple[str, bytes]:
    """Return name and password.

    Raises:
        LoginRefused: the mechanism is not offered, or the response is malformed.
    """
    if mechanism == "PLAIN":
        parts = response.split(b"\0")
        if len(parts) == 3 and not parts[0]:
            return parts[1].decode("utf-8", "surrogateescape"), parts[2]
    elif mechanism == "AMQPLAIN":
        try:
            table: Mapping[str, Value] = decode_table(
                len(response).to_bytes(4, "big") + response, 0
            )[0]
        except errors.AmqpError:
            table = {}
        match table:
            case {"LOGIN": str(name), "PASSWORD": str(password)}:
                return name, password.encode("utf-8", "surrogateescape")
    else:
        message = f"mechanism {mechanism!r} is not offered"
        raise LoginRefused(message)
    message = f"malformed response for mechanism {mechanism}"
    raise LoginRefused(message)
