"""Connected client sockets, plain and TLS, behind one face.

A plain socket is used without `SocketStream`: its locks and checkpoints cost half of a small
message's time (19 µs against 11 µs for an echo).
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, Protocol

import trio

from leveret.transport import send_now

LINGER_S: Final = 2.0
"""How long a closing connection's last bytes may take to be read by the client."""

GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a stream raises when the other side is gone."""


class ClientStream(Protocol):
    """A connected client."""

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; raises one of `GONE`."""

    async def receive(self, size_max: int) -> bytes:
        """Return some bytes, none at the end; raises one of `GONE`."""

    async def close(self) -> None:
        """Close it so that what was sent last arrives, within `LINGER_S`."""


class TcpStream:
    """A plain socket."""

    def __init__(self, client: trio.socket.SocketType) -> None:
        self._socket = client
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; a checkpoint only if it waits."""
        sent = send_now(self._socket, data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[await self._socket.send(rest) :]

    async def receive(self, size_max: int) -> bytes:
        """Return some bytes; none at the end."""
        return await self._socket.recv(size_max)

    async def close(self) -> None:
        """Close it behind what was sent: unread input would make it a reset that overtakes that."""
        with trio.move_on_after(LINGER_S, shield=True):
            try:
                self._socket.shutdown(socket.SHUT_WR)
                while await self._socket.recv(65_536):
                    pass
            except OSError:
                pass  # the other side is gone: nobody reads our last words
        self._socket.close()


class TlsStream:
    """A socket with TLS around it."""

    def __init__(self, client: trio.socket.SocketType, context: ssl.SSLContext) -> None:
        self._stream = trio.SSLStream(
            trio.SocketStream(client), context, server_side=True, https_compatible=True
        )

    async def shake_hands(self) -> None:
        """Perform the TLS handshake; raises one of `GONE`."""
        await self._stream.do_handshake()

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client showed, verified, in DER form; None if it did not."""
        found: bytes | None = self._stream.getpeercert(binary_form=True)
        return found

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._stream.send_all(data)

    async def receive(self, size_max: int) -> bytes:
        """Return some bytes; none at the end."""
        return bytes(await self._stream.receive_some(size_max))

    async def close(self) -> None:
        """Close it."""
        with trio.move_on_after(LINGER_S, shield=True):
            await self._stream.aclose()
