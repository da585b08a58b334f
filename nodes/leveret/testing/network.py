"""A network in memory, between the nodes of one test and their clients.

A `Network` makes `Host`s, and a host makes sockets, as `trio.socket` makes those of the system; so
a node runs on it unchanged, and everything else in the process keeps its own sockets. What TCP
promises holds: order, back-pressure, an end that is seen. Nothing takes time.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket as std
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

WINDOW_BYTES: Final = 1 << 18
"""What one direction of a connection holds until it is read; then senders wait."""
LOOPBACK: Final = "127.0.0.1"
"""Where every connection seems to come from: the nodes trust their own machine."""

Address = tuple[str, int]


class Network:
    """Who listens where."""

    def __init__(self) -> None:
        self.listeners: dict[Address, _Backlog] = {}
        self.free_ports = itertools.count(49_152)


class Host:
    """One machine on the network: what `trio.socket` is for the real one."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sockets: set[MemorySocket] = set()

    def socket(
        self,
        family: int = std.AF_INET,
        type: int = std.SOCK_STREAM,  # noqa: A002 - as trio names it
        proto: int = 0,
    ) -> MemorySocket:
        """Return a new socket of this host."""
        return MemorySocket(self._network, self._sockets)

    async def getaddrinfo(
        self,
        host: str,
        port: int,
        family: int = 0,
        type: int = 0,  # noqa: A002 - as trio names it
        proto: int = 0,
        flags: int = 0,
    ) -> Sequence[tuple[int, int, int, str, Address]]:
        """Return `host` as it is: names need no resolving here."""
        await trio.lowlevel.checkpoint()
        return [(std.AF_INET, std.SOCK_STREAM, 0, "", (host, port))]

    async def connect(self, address: Address) -> MemorySocket:
        """Return a socket connected to `address`.

        Raises:
            OSError: nobody listens there.
        """
        socket = self.socket()
        try:
            await socket.connect(address)
        except BaseException:
            socket.close()
            raise
        return socket

    def crash(self) -> None:
        """Reset all connections, as the system does for a process that was killed."""
        for socket in list(self._sockets):
            socket.reset()


class _Pipe:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_finished = False
        """No more will come."""
        self.is_reset = False
        self.changed = trio.lowlevel.ParkingLot()

    def finish(self) -> None:
        self.is_finished = True
        self.changed.unpark_all()

    def reset(self) -> None:
        self.is_reset = True
        self.data.clear()
        self.changed.unpark_all()


class _Backlog:
    """Connections to a listening socket that wait to be accepted."""

    def __init__(self, siblings: set[MemorySocket]) -> None:
        self.siblings = siblings
        self.waiting: deque[MemorySocket] = deque()
        self.arrived = trio.lowlevel.ParkingLot()

    def put(self, socket: MemorySocket) -> None:
        self.waiting.append(socket)
        self.arrived.unpark_all()


class MemorySocket(trio.socket.SocketType):
    """As much of a trio socket as a node and its client use.

    siblings: all sockets of the same host.
    """

    def __init__(self, network: Network, siblings: set[MemorySocket]) -> None:
        self._network = network
        self._siblings = siblings
        self._own: Address = (LOOPBACK, 0)
        self._peer: Address | None = None
        self._is_closed = False
        self._backlog: _Backlog | None = None
        self._incoming, self._outgoing = _Pipe(), _Pipe()
        siblings.add(self)

    @property
    def family(self) -> std.AddressFamily:
        return std.AF_INET

    @property
    def type(self) -> std.SocketKind:
        return std.SOCK_STREAM

    @property
    def proto(self) -> int:
        return 0

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - as trio names it
        return self._outgoing.is_finished

    def setsockopt(self, *args: object) -> None:
        """There is nothing to tune."""

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        if self._peer is None or self._is_closed:
            raise _error(errno.ENOTCONN)
        return self._peer

    # Listening.

    async def bind(self, address: object) -> None:
        await trio.lowlevel.checkpoint()
        host, port = _host_and_port(address)
        self._own = host, port or next(self._network.free_ports)
        if self._own in self._network.listeners:
            raise _error(errno.EADDRINUSE)

    def listen(self, backlog: int = 128) -> None:
        self._backlog = _Backlog(self._siblings)
        self._network.listeners[self._own] = self._backlog

    async def accept(self) -> tuple[MemorySocket, Address]:
        await trio.lowlevel.checkpoint()
        backlog = self._backlog
        while True:
            if self._is_closed or backlog is None:
                raise trio.ClosedResourceError("the socket was closed")
            if backlog.waiting:
                accepted = backlog.waiting.popleft()
                return accepted, accepted.getpeername()
            await backlog.arrived.park()

    # Connecting.

    async def connect(self, address: object) -> None:
        await trio.lowlevel.checkpoint()
        self._peer = _host_and_port(address)
        backlog = self._network.listeners.get(self._peer)
        if backlog is None:
            raise _error(errno.ECONNREFUSED)
        self._own = LOOPBACK, next(self._network.free_ports)
        far = MemorySocket(self._network, backlog.siblings)
        far._be_other_end(self._own, self._peer, self._outgoing, self._incoming)
        # Accepted by the system; the program learns of it when it asks.
        backlog.put(far)

    def _be_other_end(self, peer: Address, own: Address, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._peer, self._own = peer, own
        self._incoming, self._outgoing = incoming, outgoing

    # Conversing.

    async def send(self, data: Buffer, flags: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        pipe = self._outgoing
        while True:
            self._check(pipe)
            if pipe.is_finished:
                raise _error(errno.EPIPE)
            room = WINDOW_BYTES - len(pipe.data)
            if room > 0:
                break
            await pipe.changed.park()
        part = memoryview(data)[:room]
        pipe.data += part
        pipe.changed.unpark_all()
        return len(part)

    async def recv(self, buflen: int, flags: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        pipe = self._incoming
        while True:
            self._check(pipe)
            if pipe.data:
                part = bytes(pipe.data[:buflen])
                del pipe.data[:buflen]
                pipe.changed.unpark_all()
                return part
            if pipe.is_finished:
                return b""
            await pipe.changed.park()

    def shutdown(self, how: int) -> None:
        if self._peer is None or self._is_closed:
            raise _error(errno.ENOTCONN)
        if how in {std.SHUT_WR, std.SHUT_RDWR}:
            self._outgoing.finish()

    # Ending.

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._outgoing.finish()
        # Whoever goes on sending to us learns that nobody reads it.
        self._incoming.reset()
        if self._backlog is not None:
            self._backlog.arrived.unpark_all()
        self._forget()

    def reset(self) -> None:
        """End its connection for both sides, as a crash does: what was not read is lost too."""
        self._outgoing.reset()
        self._incoming.reset()
        self._forget()

    def _forget(self) -> None:
        self._siblings.discard(self)
        if self._backlog is not None:
            self._network.listeners.pop(self._own, None)

    def _check(self, pipe: _Pipe) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("the socket was closed")
        if self._peer is None:
            raise _error(errno.ENOTCONN)
        if pipe.is_reset:
            raise _error(errno.ECONNRESET)


def _host_and_port(address: object) -> Address:
    match address:
        case (str(host), int(port), *_):
            return host, port
        case _:
            raise ValueError(f"{address!r} is not a host and a port")


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
