"""One TCP connection as bytes in, bytes out; plain or under TLS. Knows no frames.

Plain connections use the trio socket itself: `SocketStream` costs 8 µs more a round trip
(19 against 11, measured 2026). TLS goes through `trio.SSLStream`, whose lock-keeping between its
two directions is worth that price there.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Protocol

import trio

from .errors import TransportError
from .identity import Address
from .security import certified_node

if TYPE_CHECKING:
    from .identity import NodeId

__all__ = [
    "WIRE_ERRORS",
    "PlainWire",
    "TlsWire",
    "Wire",
    "connect",
    "describe",
    "drain",
    "plain",
    "secure",
]

WIRE_ERRORS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What the methods of a wire raise when the connection is of no more use."""

TLS_SLICE_BYTES = 256 * 1024
"""Bytes given to OpenSSL at once: it encrypts all of them on the loop (0.2 ms) before any goes out."""


class Wire(Protocol):
    """One connection. One task receives, one sends; `close` may come from any."""

    remote: Address
    certified: tuple[str, NodeId] | None
    """Cluster and node of the other side's verified certificate; None without TLS."""
    is_tls: bool

    async def receive(self, max_bytes: int) -> bytes:
        """Return some bytes, at most `max_bytes`; empty at the end. A checkpoint."""
        ...

    async def send_all(self, data: bytes | bytearray) -> None:
        """Send all of `data`. On Cancelled a part may have gone out."""
        ...

    async def finish(self) -> None:
        """Tell the other side that no more will come."""
        ...

    def close(self) -> None:
        """Give the socket up at once; harmless when repeated."""
        ...


class PlainWire:
    """The socket as it is."""

    is_tls = False
    certified: tuple[str, NodeId] | None = None

    def __init__(self, socket: trio.socket.SocketType, remote: Address) -> None:
        self.remote = remote
        self._socket = socket
        self.receive = socket.recv

    async def send_all(self, data: bytes | bytearray) -> None:
        send = self._socket.send
        sent = await send(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(data):
                sent += await send(view[sent:])

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._socket.shutdown(trio.socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class TlsWire:
    """A socket under mutual TLS, its handshake done."""

    is_tls = True

    def __init__(
        self,
        stream: trio.SSLStream[trio.SocketStream],
        remote: Address,
        certified: tuple[str, NodeId] | None,
    ) -> None:
        self.remote = remote
        self.certified = certified
        self._stream = stream

    async def receive(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray) -> None:
        with memoryview(data) as view:
            for start in range(0, len(data), TLS_SLICE_BYTES):
                await self._stream.send_all(view[start : start + TLS_SLICE_BYTES])

    async def finish(self) -> None:
        await self._stream.transport_stream.send_eof()

    def close(self) -> None:
        self._stream.transport_stream.socket.close()


async def connect(address: Address) -> trio.socket.SocketType:
    """Return a connected socket to the first of the host's addresses that answers.

    Raises:
        OSError: none did, or the name is unknown; the last address's error.
    """
    found = await trio.socket.getaddrinfo(
        address.host, address.port, type=trio.socket.SOCK_STREAM
    )
    failure: OSError = ConnectionError(f"{address.host} has no address")
    for family, kind, protocol, _, target in found:
        socket = trio.socket.socket(family, kind, protocol)
        try:
            await socket.connect(target)
        except OSError as error:
            socket.close()
            failure = error
        except BaseException:
            socket.close()
            raise
        else:
            return socket
    raise failure


def plain(socket: trio.socket.SocketType) -> PlainWire:
    """Return the connected `socket` as a wire.

    Raises:
        OSError: the other side has gone already.
    """
    return PlainWire(socket, _ready(socket))


async def secure(
    socket: trio.socket.SocketType, context: ssl.SSLContext, *, server_side: bool
) -> TlsWire:
    """Do the TLS handshake on a connected socket.

    Raises:
        TransportError: the other side's certificate, or that it does not speak TLS; said why.
        OSError, trio.BrokenResourceError: the connection broke.
    """
    remote = _ready(socket)
    stream = trio.SSLStream(
        trio.SocketStream(socket), context, server_side=server_side, https_compatible=True
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise TransportError(f"TLS: {describe(error)}") from error
        raise
    return TlsWire(stream, remote, certified_node(stream.getpeercert() or {}))


def describe(error: BaseException) -> str:
    """Return one line about why a wire failed, the same for the same cause."""
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "failed").lower().replace("_", " ")
    if isinstance(cause, OSError):
        return cause.strerror or str(cause) or type(cause).__name__
    return "connection lost"


def _ready(socket: trio.socket.SocketType) -> Address:
    # Batches are made by the writer; the kernel must not hold back the last part of one.
    socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    name = socket.getpeername()
    return Address(name[0], name[1])


async def drain(wire: Wire, *, within_s: float) -> None:
    """Read until the other side closes, at most `within_s`.

    Closing a socket with unread bytes makes the kernel send a reset, which may overtake and
    destroy what was sent last: the reason of a refusal.
    """
    with trio.move_on_after(within_s), contextlib.suppress(*WIRE_ERRORS):
        await wire.finish()
        while await wire.receive(65536):
            pass
