"""A network in memory behind trio's socket factory: exact, and silent where one wants silence."""

from __future__ import annotations

import itertools
import socket as std
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from typing_extensions import Buffer

WINDOW_BYTES = 65536


class Pipe:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []  # of all that was ever put
        self.at_end = False
        self.is_reset = False
        self.is_cut = False  # what is sent vanishes, as behind a pulled cable
        self.is_stuck = False  # nobody reads, as with a stopped process
        self.changed = trio.lowlevel.ParkingLot()

    def put(self, data: bytes) -> None:
        self.sizes.append(len(data))
        if not self.is_cut:
            self.data += data
        self.changed.unpark_all()


class Socket(trio.socket.SocketType):
    """As much of a trio socket as the transport uses."""

    family, type, proto = std.AF_INET, std.SOCK_STREAM, 0

    def __init__(self, net: Net) -> None:
        self._net = net
        self._name: tuple[str, int] = ("127.0.0.1", 0)
        self._peer: tuple[str, int] | None = None
        self._backlog: list[Socket] | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._closed = False
        self.incoming, self.outgoing = Pipe(), Pipe()

    def setsockopt(self, *args: object) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def getpeername(self) -> tuple[str, int]:
        if self._peer is None or self._closed:
            raise OSError(107, "not connected")
        return self._peer

    async def bind(self, address: tuple[str, int]) -> None:
        self._name = (address[0], address[1] or next(self._net.free_ports))

    def listen(self, backlog: int = 128) -> None:
        self._backlog = []
        self._net.listeners[self._name] = self

    async def accept(self) -> tuple[Socket, tuple[str, int]]:
        await trio.lowlevel.checkpoint()
        assert self._backlog is not None
        while not self._backlog:
            await self._arrived.park()
        far = self._backlog.pop(0)
        return far, far.getpeername()

    async def connect(self, address: tuple[str, int]) -> None:
        self._net.dials.append((address[1], trio.current_time()))
        await trio.lowlevel.checkpoint()
        if address[1] in self._net.vanishing:
            await trio.sleep_forever()
        listener = self._net.listeners.get((address[0], address[1]))
        if listener is None or listener._backlog is None:
            raise ConnectionRefusedError(111, "Connection refused")
        far = Socket(self._net)
        far.incoming, far.outgoing = self.outgoing, self.incoming
        self._peer, far._name = listener._name, listener._name
        self._name = far._peer = ("127.0.0.1", next(self._net.free_ports))
        self._net.connections.append((self, far))
        listener._backlog.append(far)
        listener._arrived.unpark_all()

    async def send(self, data: Buffer, flags: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        pipe = self.outgoing
        while pipe.is_stuck or (len(pipe.data) >= WINDOW_BYTES and not pipe.is_reset):
            await pipe.changed.park()
        if self._closed or pipe.is_reset:
            raise ConnectionResetError(104, "Connection reset by peer")
        part = bytes(memoryview(data)[:WINDOW_BYTES])
        pipe.put(part)
        return len(part)

    async def recv(self, size: int, flags: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        pipe = self.incoming
        while True:
            if self._closed or pipe.is_reset:
                raise ConnectionResetError(104, "Connection reset by peer")
            if pipe.data:
                data = bytes(pipe.data[:size])
                del pipe.data[:size]
                pipe.changed.unpark_all()
                return data
            if pipe.at_end:
                return b""
            await pipe.changed.park()

    def shutdown(self, how: int) -> None:
        if not self.outgoing.is_cut:
            self.outgoing.at_end = True
            self.outgoing.changed.unpark_all()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._backlog is not None:
            self._net.listeners.pop(self._name, None)
        else:
            self.shutdown(std.SHUT_WR)
            if not self.outgoing.is_cut:
                self.incoming.is_reset = True
        self.incoming.changed.unpark_all()


class Net(trio.abc.SocketFactory):
    """All sockets of one test. Make it inside trio; it installs itself."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[str, int], Socket] = {}
        self.connections: list[tuple[Socket, Socket]] = []  # (dialler, acceptor), oldest first
        self.dials: list[tuple[int, float]] = []  # (port, time)
        self.vanishing: set[int] = set()  # ports where nothing answers what is dialled now
        self.free_ports = itertools.count(20000)
        trio.socket.set_custom_socket_factory(self)

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Socket:  # noqa: A002
        return Socket(self)

    def cut(self) -> None:
        """Lose all bytes of the present connections from now on, without telling either end."""
        for dialler, _ in self.connections:
            dialler.outgoing.is_cut = dialler.incoming.is_cut = True
