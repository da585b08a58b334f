"""A connected socket that never blocks, plain or TLS, and something that wakes its poller."""

from __future__ import annotations

import selectors
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from leveret.client.address import Address

CHUNK: Final = 64 * 1024
_AGAIN: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Transport:
    """Octets in and out, as many as fit. `send` and `receive` are not for two threads at once."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self._socket = connected
        self.is_tls = isinstance(connected, ssl.SSLSocket)
        self._unsent = b""
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(connected, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    @property
    def unsent(self) -> int:
        """Octets that wait for room in the socket."""
        return len(self._unsent)

    def send(self, data: bytes) -> None:
        """Send `data` behind what waits already; what does not fit now waits.

        Raises:
            OSError: the other side is gone.
        """
        data = self._unsent + data if self._unsent else data
        sent = 0
        try:
            while sent < len(data):
                sent += self._socket.send(data[sent:] if sent else data)
        except _AGAIN:
            pass
        had_unsent, self._unsent = bool(self._unsent), data[sent:]
        if bool(self._unsent) != had_unsent:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._socket, wanted)
            self.wake()

    def receive(self) -> bytes | None:
        """Some octets, none at the end, None if there are none now.

        Raises:
            OSError: the other side is gone.
        """
        try:
            data = self._socket.recv(CHUNK)
            if self.is_tls:
                while data and self._socket.pending():  # type: ignore[attr-defined]
                    data += self._socket.recv(CHUNK)
        except _AGAIN:
            return None
        return data

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to receive or send, or `wake`, or the time is over."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._wake_read:
                with suppress(BlockingIOError):
                    self._wake_read.recv(4096)

    def wake(self) -> None:
        """Have `wait` return, from any thread."""
        with suppress(BlockingIOError, OSError):
            self._wake_write.send(b"\0")

    def close(self) -> None:
        """Close it at once. In a forked child this leaves the parent's connection alone."""
        self._selector.close()
        for one in (self._socket, self._wake_read, self._wake_write):
            one.close()


def dial(
    address: Address, context: ssl.SSLContext | None, hostname: str | None, timeout_s: float
) -> Transport:
    """Connect to `address`, with TLS if there is a context.

    Raises:
        OSError: nobody listens there, it does not answer, or it is not to be trusted.
    """
    connected = socket.create_connection(address, timeout_s)
    try:
        if context is not None:
            connected = context.wrap_socket(connected, server_hostname=hostname or address.host)
        return Transport(connected)
    except BaseException:
        connected.close()
        raise
