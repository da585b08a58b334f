"""Connected sockets of the trio face, plain and TLS.

A plain socket is used without `SocketStream`, whose locks and checkpoints cost half of a small
message's time.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

    from .address import Address

GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a stream raises when the other side is gone; an SSL error is an OSError."""


class Stream(Protocol):
    """A connected transport."""

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; raises one of `GONE`."""

    async def receive(self, size_max: int) -> bytes:
        """Some octets, none at the end; raises one of `GONE`."""

    def close(self) -> None:
        """Close it at once."""


Dial = "Callable[[Address, ssl.SSLContext | None, str | None], Awaitable[Stream]]"


class TcpStream:
    """A plain socket."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        sent = await self._socket.send(data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[await self._socket.send(rest) :]

    async def receive(self, size_max: int) -> bytes:
        """Some octets; none at the end."""
        return await self._socket.recv(size_max)

    def close(self) -> None:
        """Close it at once."""
        self._socket.close()


class TlsStream:
    """A socket with TLS around it."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._stream.send_all(data)

    async def receive(self, size_max: int) -> bytes:
        """Some octets; none at the end."""
        return bytes(await self._stream.receive_some(size_max))

    def close(self) -> None:
        """Close it at once; connection.close was said, so TLS need not say it again."""
        self._stream.transport_stream.socket.close()


HOSTS_IN_MEMORY: Final[
    trio.lowlevel.RunVar[Mapping[str, Callable[[Address], Awaitable[trio.socket.SocketType]]]]
] = trio.lowlevel.RunVar("leveret hosts in memory", {})
"""Hosts that live in this trio run, as brokers under test do, and how each is connected to."""


async def dial(
    address: Address, context: ssl.SSLContext | None, server_hostname: str | None
) -> Stream:
    """Connect to `address`, with TLS if there is a context.

    Raises:
        OSError: nobody listens there, or it is not to be trusted.
    """
    stream = await _open(address)
    if context is None:
        return TcpStream(stream.socket)
    secured = trio.SSLStream(
        stream, context, server_hostname=server_hostname or address.host, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except BaseException:
        stream.socket.close()
        raise
    return TlsStream(secured)


async def _open(address: Address) -> trio.SocketStream:
    in_memory = HOSTS_IN_MEMORY.get().get(address.host)
    if in_memory is not None:
        return trio.SocketStream(await in_memory(address))
    return await trio.open_tcp_stream(*address)
