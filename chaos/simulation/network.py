"""Simulated TCP behind trio's socket factory: delays, partitions, resets and silence.

What TCP hides is hidden here: nothing is lost, repeated or reordered within a connection. What it
cannot hide happens: a segment is late; behind a partition segments wait and are sent again until
it heals; a connection is reset; or both ends keep a connection that carries nothing any more.
One random source and one heap of events make a run repeatable.

Each host has a loopback address of its own, so that nodes may speak without TLS.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import socket as std
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import trio

from chaos.simulation.process import HERE, Process

if TYPE_CHECKING:
    from typing_extensions import Buffer

WINDOW_BYTES = 1 << 18
"""What one direction of a connection holds: on its way, and arrived but not read."""
SEND_BYTES = 1 << 16
"""The most that one send takes."""
RETRY_S = (0.01, 0.4)
"""When a healed path carries again what waited: at the next retransmission."""
CONNECT_S = 120.0
"""How long a connect keeps trying when nothing answers; programs give up earlier."""

CLIENTS = "127.1."
"""What addresses of clients begin with."""

Trace = Callable[[str], None]


@dataclass
class Weather:
    """How the network behaves where nothing is broken.

    delay_s: shortest and longest time of a segment, drawn for each.
    late: the share of segments that are sent twice because the first was lost.
    late_s: what that costs.
    """

    delay_s: tuple[float, float] = (0.0002, 0.002)
    late: float = 0.0
    late_s: float = 0.2


class Pipe:
    """One direction of a connection, from one host's address to another's."""

    def __init__(self, network: Network, source: str, target: str, number: int) -> None:
        self.network = network
        self.source, self.target = source, target
        self.number = number
        self.data = bytearray()
        self.at_end = False
        self.is_reset = False
        self.is_cut = False
        """What is sent vanishes, and nobody is told: the path has forgotten the connection."""
        self.is_orphan = False
        """Nobody reads any more: what arrives is answered with a reset."""
        self.changed = trio.lowlevel.ParkingLot()
        self.back: Pipe
        self._flying = 0
        self._last_s = 0.0
        self._stalled: list[tuple[str, bytes]] = []

    @property
    def is_full(self) -> bool:
        """Whether a sender must wait."""
        return self._flying + len(self.data) >= WINDOW_BYTES

    def send(self, what: str, data: bytes = b"") -> None:
        """Put data, an end or a reset on the way."""
        self._flying += len(data)
        network = self.network
        if self._stalled or network.is_blocked(self.source, self.target):
            self._stall(what, data)
            return
        # A stream does not reorder itself.
        self._last_s = max(self._last_s, trio.current_time() + network.delay())
        network.at(self._last_s, lambda: self._arrive(what, data))

    def break_off(self) -> None:
        """Reset the connection at the reading end, now."""
        self.is_reset = True
        self.changed.unpark_all()

    def _stall(self, what: str, data: bytes) -> None:
        if not self._stalled:
            self.network.stalled.append(self)
        self._stalled.append((what, data))

    def flow_again(self) -> None:
        """Send what waited behind a partition."""
        stalled, self._stalled = self._stalled, []
        self._last_s = max(self._last_s, trio.current_time() + self.network.rng.uniform(*RETRY_S))
        for what, data in stalled:
            self._flying -= len(data)
            self.send(what, data)

    def _arrive(self, what: str, data: bytes) -> None:
        network = self.network
        if self.is_cut or self.is_reset:
            return
        if network.is_blocked(self.source, self.target):
            self._stall(what, data)
            return
        self._flying -= len(data)
        network.trace(f"{self.number} {self.source}>{self.target} {what} {zlib.crc32(data)}")
        if self.is_orphan:
            if what != "reset":
                self.back.send("reset")
            return
        match what:
            case "data":
                self.data += data
            case "end":
                self.at_end = True
            case _:
                self.is_reset = self.back.is_reset = True
                self.back.changed.unpark_all()
        self.changed.unpark_all()


class Socket(trio.socket.SocketType):
    """As much of a trio socket as a node and its clients use."""

    family, type, proto = std.AF_INET, std.SOCK_STREAM, 0

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self.process = process
        self._name: tuple[str, int] = (process.address, 0)
        self._peer: tuple[str, int] | None = None
        self._backlog: list[Socket] | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._is_closed = False
        self._incoming: Pipe | None = None
        self._outgoing: Pipe | None = None
        process.sockets[self] = None

    def setsockopt(self, *args: object) -> None:
        """Take any option; none matters here."""

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def getpeername(self) -> tuple[str, int]:
        if self._is_closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self._peer

    async def bind(self, address: tuple[str, int]) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        name = (address[0], address[1] or self._network.free_port())
        if name in self._network.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._name = name

    def listen(self, backlog: int = 128) -> None:
        self._check()
        self._backlog = []
        self._network.listeners[self._name] = self

    async def accept(self) -> tuple[Socket, tuple[str, int]]:
        await trio.lowlevel.checkpoint()
        self._check()
        assert self._backlog is not None
        while not self._backlog:
            await self._arrived.park()
            self._check_not_closed_meanwhile()
        far = self._backlog.pop(0)
        return far, far.getpeername()

    async def connect(self, address: tuple[str, int]) -> None:
        network, here, there = self._network, self.process.address, address[0]
        self._check()
        give_up_s = trio.current_time() + CONNECT_S
        await trio.sleep(network.delay())
        while network.is_blocked(here, there) or network.is_blocked(there, here):
            if trio.current_time() > give_up_s:
                raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
            await trio.sleep(network.rng.uniform(*RETRY_S))
        await trio.sleep(network.delay())
        self._check()
        listener = network.listeners.get((there, address[1]))
        if listener is None or listener._backlog is None:  # noqa: SLF001 - the other end of one thing
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        network.join(self, listener)

    def _become(self, incoming: Pipe, outgoing: Pipe, peer: tuple[str, int]) -> None:
        self._incoming, self._outgoing, self._peer = incoming, outgoing, peer

    async def send(self, data: Buffer, flags: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        self._check()
        pipe = self._outgoing
        assert pipe is not None
        while pipe.is_full and not pipe.is_reset:
            await pipe.changed.park()
            self._check_not_closed_meanwhile()
        if pipe.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        part = bytes(memoryview(data)[:SEND_BYTES])
        pipe.send("data", part)
        return len(part)

    async def recv(self, size: int, flags: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        self._check()
        pipe = self._incoming
        assert pipe is not None
        while True:
            if pipe.is_reset:
                raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            if pipe.data:
                data = bytes(pipe.data[:size])
                del pipe.data[:size]
                pipe.changed.unpark_all()
                return data
            if pipe.at_end:
                return b""
            await pipe.changed.park()
            self._check_not_closed_meanwhile()

    def shutdown(self, how: int) -> None:
        self._check()
        if self._outgoing is None or self._outgoing.is_reset:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        self._outgoing.send("end")

    def close(self) -> None:
        if self._is_closed:
            return
        self.process.sockets.pop(self, None)
        self._is_closed = True
        self._stop_listening(tell_peer=True)
        if self._incoming is not None and self._outgoing is not None:
            # Unread data makes a close a reset.
            self._outgoing.send("reset" if self._incoming.data else "end")
            self._incoming.is_orphan = True
            self._incoming.changed.unpark_all()
            self._outgoing.changed.unpark_all()

    def orphan(self, *, tell_peer: bool) -> None:
        """Lose the process: nothing goes out any more, but for a reset if the host is alive."""
        self._is_closed = True
        self._stop_listening(tell_peer=tell_peer)
        if self._incoming is not None and self._outgoing is not None:
            if tell_peer:
                self._outgoing.send("reset")
            self._incoming.is_orphan = True
            self._incoming.changed.unpark_all()
            self._outgoing.changed.unpark_all()

    def _stop_listening(self, *, tell_peer: bool) -> None:
        if self._backlog is not None:
            self._network.listeners.pop(self._name, None)
            for waiting in self._backlog:
                waiting.orphan(tell_peer=tell_peer)
            self._arrived.unpark_all()

    def _check(self) -> None:
        if self._is_closed or self.process.is_dead:
            raise OSError(errno.EBADF, "Bad file descriptor")

    def _check_not_closed_meanwhile(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("another task closed this socket")


class Network(trio.abc.SocketFactory):
    """All hosts' connections. Make it inside trio; it installs itself."""

    def __init__(self, rng: Random, *, weather: Weather | None = None, trace: Trace) -> None:
        self.rng = rng
        self.weather = weather or Weather()
        self.trace = trace
        self.listeners: dict[tuple[str, int], Socket] = {}
        self.blocked: dict[tuple[str, str], None] = {}
        """Directed pairs of addresses between which nothing gets through."""
        self.dark: dict[str, None] = {}
        """Addresses whose host is without power."""
        self.stalled: list[Pipe] = []
        self._connections: list[tuple[Pipe, Pipe]] = []
        self._ports = itertools.count(40_000)
        self._numbers = itertools.count(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._events_count = 0
        self._woken = trio.Event()
        trio.socket.set_custom_socket_factory(self)

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Socket:  # noqa: A002
        return Socket(self, HERE.get())

    # What the sockets use.

    def free_port(self) -> int:
        """Return a port that was not given before."""
        return next(self._ports)

    def delay(self) -> float:
        """Draw how long a segment takes."""
        weather = self.weather
        delay_s = self.rng.uniform(*weather.delay_s)
        if weather.late and self.rng.random() < weather.late:
            delay_s += weather.late_s * (1 + self.rng.random())
        return delay_s

    def is_blocked(self, source: str, target: str) -> bool:
        """Whether nothing gets from one address to the other now."""
        return (source, target) in self.blocked or source in self.dark or target in self.dark

    def join(self, dialler: Socket, listener: Socket) -> None:
        """Make a connection."""
        number = next(self._numbers)
        far = Socket(self, listener.process)
        here, there = dialler.process.address, listener.process.address
        out, back = Pipe(self, here, there, number), Pipe(self, there, here, number)
        out.back, back.back = back, out
        name = (here, self.free_port())
        dialler._name, far._name = name, listener._name  # noqa: SLF001 - ends of one connection
        dialler._become(back, out, listener._name)  # noqa: SLF001
        far._become(out, back, name)  # noqa: SLF001
        self._connections.append((out, back))
        assert listener._backlog is not None  # noqa: SLF001
        listener._backlog.append(far)  # noqa: SLF001
        listener._arrived.unpark_all()  # noqa: SLF001
        self.trace(f"{number} {here}>{there} connected")

    def at(self, time_s: float, then: Callable[[], None]) -> None:
        """Do something at a time on the virtual clock."""
        self._events_count += 1
        heapq.heappush(self._events, (time_s, self._events_count, then))
        if self._events[0][1] == self._events_count:
            self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        events = self._events
        while True:
            self._woken = trio.Event()
            with trio.CancelScope(deadline=events[0][0] if events else float("inf")):
                await self._woken.wait()
            now_s = trio.current_time()
            while events and events[0][0] <= now_s:
                heapq.heappop(events)[2]()

    # What goes wrong.

    def block(self, source: str, target: str) -> None:
        """Let nothing through in one direction."""
        self.blocked[source, target] = None

    def unblock(self, source: str, target: str) -> None:
        """Let everything through again; `let_flow` carries on with what waited."""
        self.blocked.pop((source, target), None)

    def let_flow(self) -> None:
        """Carry on with what waited on paths that are open again."""
        stalled, self.stalled = self.stalled, []
        for pipe in stalled:
            if self.is_blocked(pipe.source, pipe.target):
                self.stalled.append(pipe)
            else:
                pipe.flow_again()

    def between(self, one: str, other: str) -> list[tuple[Pipe, Pipe]]:
        """Return the open connections between two hosts, oldest first."""
        return [pair for pair in self._open() if {pair[0].source, pair[0].target} == {one, other}]

    def _open(self) -> list[tuple[Pipe, Pipe]]:
        self._connections = [
            pair
            for pair in self._connections
            if not any(pipe.is_reset or pipe.is_cut or pipe.is_orphan for pipe in pair)
        ]
        return self._connections

    def of_clients(self, node: str) -> list[tuple[Pipe, Pipe]]:
        """Return the open connections of clients of a node, oldest first."""
        return [
            pair
            for pair in self._open()
            if pair[0].target == node and pair[0].source.startswith(CLIENTS)
        ]

    def reset(self, one: str, other: str) -> None:
        """Reset all connections between two hosts, at both ends."""
        for pair in self.between(one, other):
            for pipe in pair:
                pipe.break_off()

    def forget(self, pairs: list[tuple[Pipe, Pipe]]) -> None:
        """Let connections carry nothing any more, and tell nobody."""
        for pair in pairs:
            for pipe in pair:
                pipe.is_cut = True
