"""One TCP connection as bytes in, bytes out; plain or under TLS. Knows no frames.

Both use the trio socket itself: `SocketStream` costs 8 µs more a round trip (19 against 11,
measured 2026). TLS is OpenSSL between memory buffers and that socket; `trio.SSLStream` would not
send the alert of a failed handshake, and the refused side could not log why.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Protocol

import trio

from .errors import TransportError
from .identity import Address
from .security import certified_node
from .sockets import send_now

if TYPE_CHECKING:
    from .identity import NodeId
    from .sockets import Sockets

__all__ = [
    "WIRE_ERRORS",
    "PlainWire",
    "TlsWire",
    "Wire",
    "connect",
    "describe",
    "plain",
    "secure",
]

WIRE_ERRORS = (OSError, trio.ClosedResourceError)
"""What the methods of a wire raise when the connection is of no more use."""

SPEAKS_TLS = 0x16
"""The first octet of a TLS client."""
SPEAK_TLS = b"\x15\x03\x03\x00\x02\x02\x46"
"""The alert `protocol_version` in a record of its own: what OpenSSL says to one who begins in
another version, but not to one who does not begin as TLS does; he should hear it too."""

TLS_SLICE_BYTES = 256 * 1024
"""Bytes given to OpenSSL at once: it encrypts all of them before any goes out."""


class Wire(Protocol):
    """One connection. One task receives, one sends; `close` may come from any."""

    remote: Address
    certified: tuple[str, NodeId] | None
    """Cluster and node of the other side's verified certificate; None without one."""
    peer_certificate: bytes | None
    """The other side's certificate (DER), verified or not; None without one."""
    is_tls: bool

    async def receive(self, max_bytes: int) -> bytes:
        """Return some bytes, at most `max_bytes`; empty at the end. A checkpoint."""
        ...

    async def send_all(self, data: bytes | bytearray) -> None:
        """Send all of `data`; a checkpoint only if it waits. On Cancelled a part may be out."""
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
    peer_certificate: bytes | None = None

    def __init__(self, socket: trio.socket.SocketType, remote: Address) -> None:
        self.remote = remote
        self._socket = socket

    async def receive(self, max_bytes: int) -> bytes:
        return await self._socket.recv(max_bytes)

    async def send_all(self, data: bytes | bytearray) -> None:
        sent = send_now(self._socket, data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(data):
                sent += await self._socket.send(view[sent:])

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._socket.shutdown(trio.socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class TlsWire:
    """A socket under TLS; `handshake` comes first."""

    is_tls = True

    def __init__(
        self,
        socket: trio.socket.SocketType,
        remote: Address,
        context: ssl.SSLContext,
        *,
        server_side: bool,
    ) -> None:
        self.remote = remote
        self.certified: tuple[str, NodeId] | None = None
        self.peer_certificate: bytes | None = None
        self._raw = PlainWire(socket, remote)
        self._received, self._unsent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._unsent, server_side=server_side)
        self._is_server = server_side
        # The reader too has bytes to send: answers to key updates, alerts.
        self._send_lock = trio.Lock()

    async def handshake(self) -> None:
        """Agree on keys and learn whose certificate the other side has.

        Raises:
            TransportError: TLS failed, on this side or by the other's alert; said why.
            OSError: the connection broke.
        """
        if self._is_server:
            await self._take_first()
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert, so that the other side can log its reason
                raise TransportError(f"TLS: {describe(error)}") from error
            else:
                break
        await self._flush()
        self.certified = certified_node(self._tls.getpeercert() or {})
        self.peer_certificate = self._tls.getpeercert(binary_form=True)

    async def receive(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        has_waited = False
        try:
            while size < max_bytes:  # one read gives one record, at most 16 KiB
                try:
                    part = self._tls.read(max_bytes - size)
                except ssl.SSLWantReadError:
                    if parts:
                        break
                    await self._flush()
                    await self._fill()
                    has_waited = True
                else:
                    if not part:
                        break
                    parts.append(part)
                    size += len(part)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # the end, after what was read before it
        if not has_waited:
            await trio.lowlevel.checkpoint()
        return b"".join(parts)

    async def send_all(self, data: bytes | bytearray) -> None:
        with memoryview(data) as view:
            for start in range(0, len(data), TLS_SLICE_BYTES):
                self._tls.write(view[start : start + TLS_SLICE_BYTES])
                await self._flush()

    async def finish(self) -> None:
        await self._raw.finish()

    def close(self) -> None:
        self._raw.close()

    async def _take_first(self) -> None:
        """Read the client's first words; answer them so that he understands if they are not TLS."""
        first = await self._raw.receive(TLS_SLICE_BYTES)
        if first and first[0] != SPEAKS_TLS:
            with contextlib.suppress(OSError):
                await self._raw.send_all(SPEAK_TLS)
            raise TransportError("TLS: the other side does not speak it")
        self._take(first)

    async def _fill(self) -> None:
        self._take(await self._raw.receive(TLS_SLICE_BYTES))

    def _take(self, chunk: bytes) -> None:
        if chunk:
            self._received.write(chunk)
        else:
            self._received.write_eof()

    async def _flush(self) -> None:
        async with self._send_lock:
            # Taken out under the lock: the records must go out in the order they were made.
            if data := self._unsent.read():
                await self._raw.send_all(data)


async def connect(address: Address, sockets: Sockets = trio.socket) -> trio.socket.SocketType:
    """Return a connected socket to the first of the host's addresses that answers.

    Raises:
        OSError: none did, or the name is unknown; the last address's error.
    """
    found = await sockets.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
    failure: OSError = ConnectionError(f"{address.host} has no address")
    for family, kind, protocol, _, target in found:
        socket = sockets.socket(family, kind, protocol)
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
    """Return the connected `socket` as a wire under TLS, after the handshake.

    Raises: as `TlsWire.handshake`.
    """
    wire = TlsWire(socket, _ready(socket), context, server_side=server_side)
    await wire.handshake()
    return wire


def describe(error: BaseException) -> str:
    """Return one line about why a wire failed, the same for the same cause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "failed").lower().replace("_", " ")
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "connection lost"


def _ready(socket: trio.socket.SocketType) -> Address:
    # Batches are made by the writer; the kernel must not hold back the last part of one.
    socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    name = socket.getpeername()
    return Address(name[0], name[1])
