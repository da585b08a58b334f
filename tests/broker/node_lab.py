"""One node's broker without sockets: real catalog, directory, actors and protocol.

The consensus groups commit when they may, and tell like real ones; a client is the client's side
of the sans-IO protocol.  Use `lab()` as a context manager under trio's test clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import trio
from trio.testing import wait_all_tasks_blocked

from leveret.actors import Actor, Ref, Supervisor, Timers, supervise
from leveret.amqp import ClientConnection, ServerConnection, spec
from leveret.amqp.events import Event, MethodReceived
from leveret.amqp.method import Method
from leveret.broker.access import Access
from leveret.broker.arguments import decode_arguments
from leveret.broker.connections.connection import ConnectionActor
from leveret.broker.connections.flow import Flow
from leveret.broker.connections.messages import Received
from leveret.broker.connections.session import Services, Session
from leveret.broker.directory import Directory
from leveret.broker.messages import Settle
from leveret.broker.policies.in_force import Policies
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.queue import QueueActor
from leveret.broker.routing.router import Routers
from leveret.catalog import Catalog, CatalogMachine
from leveret.catalog.commands import AnyCommand, Bootstrap, RegisterNode
from leveret.catalog.model import PasswordHash, Queue
from leveret.node.outside import REAL
from leveret.transport import NodeId

M = TypeVar("M")

HEADER = b"\x00\x3c\x00\x00" + bytes(7) + b"\x01" + b"\x00\x00"
"""A content header for a body of one byte, without properties."""


class Group:
    """A consensus group of one, or what its member sees of it while it has no majority."""

    def __init__(self, machine: CatalogMachine | ShardMachine) -> None:
        self._machine = machine
        self.leader: int | None = 1
        self.is_leader = True
        self.is_held = False
        self.entries: list[bytes] = []
        self._pending: list[tuple[bytes, Callable[[object], None]]] = []
        self._applied: list[Callable[[], None]] = []
        self._role: list[Callable[[], None]] = []
        self._work = trio.Event()

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        self._pending.append((command, done))
        self._work.set()

    @property
    def applied_index(self) -> int:
        return len(self.entries)

    def barrier(self, done: Callable[[], None]) -> None:
        self.submit(b"", lambda _: done())

    def entry(self, index: int) -> memoryview:
        return memoryview(self.entries[index - 1])

    def on_applied(self, listener: Callable[[], None]) -> None:
        self._applied.append(listener)

    def on_role(self, listener: Callable[[], None]) -> None:
        self._role.append(listener)

    def lose_leader(self) -> None:
        self.leader, self.is_leader, self.is_held = None, False, True
        self._tell_role()

    def find_leader(self) -> None:
        self.leader, self.is_leader, self.is_held = 1, True, False
        self._tell_role()
        self._work.set()

    def hold(self) -> None:
        """Commit nothing until `release`."""
        self.is_held = True

    def release(self) -> None:
        self.is_held = False
        self._work.set()

    def _tell_role(self) -> None:
        for listener in self._role:
            listener()

    async def run(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self.is_held:
                continue
            pending, self._pending = self._pending, []
            done: list[tuple[Callable[[object], None], object]] = []
            for command, then in pending:
                self.entries.append(command)
                reply = (
                    self._machine.apply(len(self.entries), wall_clock_ms(), command, 0)
                    if command
                    else None
                )
                done.append((then, reply))
            for then, reply in done:
                then(reply)
            for listener in self._applied:
                listener()


def wall_clock_ms() -> int:
    return 1_000_000_000_000 + int(trio.current_time() * 1000)


class Links:
    """The links to other nodes, whose part the test plays."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.full: set[int] = set()
        """Nodes to which too much is on its way."""
        self.sent: list[tuple[int, object]] = []
        self.handlers: dict[str, Callable[[NodeId, object], None]] = {}
        self._up: list[Callable[[NodeId], None]] = []
        self._down: list[Callable[[NodeId], None]] = []

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        if node in self.up:
            self.sent.append((node, payload))
        return node in self.up

    def congested(self, node: NodeId) -> bool:
        return node in self.full

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        self.handlers[channel] = handler

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        self._up.append(handler)

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        self._down.append(handler)

    def says(self, node: int, uid: int, *body: object) -> None:
        """Let the actor of queue `uid` on `node` say something to ours."""
        self.handlers["queue"](NodeId(node), (uid, body))

    def connect(self, node: int) -> None:
        self.up.add(node)
        for listener in self._up:
            listener(NodeId(node))

    def cut(self, node: int) -> None:
        self.up.discard(node)
        for listener in self._down:
            listener(NodeId(node))


class Client:
    """A client and its connection's actor, and the stream between them."""

    def __init__(self, ref: Ref[object], flow: Flow, protocol: ServerConnection) -> None:
        self.ref = ref
        self.flow = flow
        self.frames = bytearray()
        self.is_reading = trio.Event()
        self.is_reading.set()
        self.is_gone = False
        self.was_hung_up = False
        self.server = protocol
        self.own = ClientConnection()

    async def send_all(self, data: bytes) -> None:
        await self.is_reading.wait()
        if self.is_gone:
            raise trio.BrokenResourceError
        self.frames += data

    def says(self, channel: int, *methods: Method) -> None:
        """Send methods in one packet."""
        self.send(b"".join(self.own.send_method(channel, method) for method in methods))

    def publishes(
        self, routing_key: str, *, channel: int = 1, count: int = 1, exchange: str = ""
    ) -> None:
        method = spec.BasicPublish(exchange=exchange, routing_key=routing_key)
        self.send(self.own.send_content(channel, method, HEADER, b"x") * count)

    def send(self, octets: bytes) -> None:
        events = self.server.receive_data(octets)
        self.flow.published(len(octets))
        self.ref.tell(Received(events, len(octets)))

    async def hears(self) -> list[Event]:
        """Return what came since the last time, when nothing moves any more."""
        await wait_all_tasks_blocked()
        octets, self.frames = bytes(self.frames), bytearray()
        return self.own.receive_data(octets)

    async def hears_methods(self) -> list[Method]:
        return [e.method for e in await self.hears() if isinstance(e, MethodReceived)]


class Spawner:
    """A supervisor that lets the test see the actors it starts."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.actors: dict[str, Actor[Any]] = {}

    def spawn(self, make: Callable[[], Actor[M]], name: str, *, limit: int) -> Ref[M]:
        def watched() -> Actor[M]:
            actor = self.actors[name] = make()
            return actor

        return self._supervisor.spawn(watched, name, limit=limit)


class Lab:
    """See the module."""

    def __init__(self, nursery: trio.Nursery, supervisor: Supervisor) -> None:
        self.nursery = nursery
        self.supervisor = supervisor
        machine, shard_machine = CatalogMachine(), ShardMachine()
        self.catalog_machine = machine
        self.shard_machine = shard_machine
        self.catalog_group, self.shard_group = Group(machine), Group(shard_machine)
        self.links = Links()
        self.catalog = Catalog(self.catalog_group, machine, self.links)
        self.spawner = Spawner(supervisor)
        self.timers = Timers()
        self.clock_ahead_ms = 0
        """How far the clock of the wall was put forward."""
        policies = Policies(self.catalog.model)
        self.directory = Directory(
            node=1,
            boot=1,
            catalog=self.catalog,
            routers=Routers(
                self.catalog.model, decode=decode_arguments, alternate=policies.alternate
            ),
            policies=policies,
            links=self.links,
            supervisor=cast("Supervisor", self.spawner),
            timers=self.timers,
            wall_clock_ms=lambda: wall_clock_ms() + self.clock_ahead_ms,
        )
        self.directory.add_shard(1, self.shard_group, shard_machine)
        self.services = Services(
            catalog=self.catalog,
            directory=self.directory,
            access=Access(self.catalog.model, cache_key=b"k", in_thread=REAL.in_thread),
            timers=self.timers,
            random_bytes=bytes,
        )
        self.connections: dict[Client, ConnectionActor] = {}
        self._number = 0

    async def start(self) -> None:
        for run in (self.catalog_group.run, self.shard_group.run, self.timers.run):
            self.nursery.start_soon(run)
        await self.change(Bootstrap("lab", 1, "guest", PasswordHash("sha256", b"s", b"h")))
        await self.change(RegisterNode(1, "one", (), 1))

    async def change(self, command: AnyCommand) -> None:
        await self.catalog.change(command, 1)

    def queue(self, name: str) -> Queue:
        queue = self.catalog.model.queue("/", name)
        assert queue is not None
        return queue

    def queue_actor(self, name: str) -> QueueActor:
        """Return the present instance of a queue's actor."""
        actor = self.spawner.actors[f"queue {name!r} in '/'"]
        assert isinstance(actor, QueueActor)
        return actor

    def crash_queue(self, name: str) -> None:
        """Let a queue's actor crash at the end of its mailbox."""
        ref = self.directory.queue(self.queue(name).uid)
        assert ref is not None
        ref.tell(Settle(cast("list[int]", None)))

    async def connect(self, *, heartbeat_s: int = 0, flow: Flow | None = None) -> Client:
        """Return a client with channel 1 open."""
        self._number += 1
        protocol, flow = ServerConnection(), flow or Flow()
        session = Session(
            number=self._number,
            name=f"client {self._number}",
            user="guest",
            vhost="/",
            heartbeat_s=heartbeat_s,
            capabilities={"consumer_cancel_notify": True, "connection.blocked": True},
        )
        self.directory.tallies.enter(session.number, session.user, session.vhost)
        holder: list[Client] = []

        def make() -> ConnectionActor:
            actor = ConnectionActor(
                session, protocol, holder[0], flow, self.services, self.nursery, hang_up
            )
            self.connections[holder[0]] = actor
            return actor

        def hang_up() -> None:
            holder[0].was_hung_up = True

        ref = self.supervisor.spawn(make, session.name)
        client = Client(ref, flow, protocol)
        holder.append(client)
        _shake_hands(protocol, client.own)
        client.says(1, spec.ChannelOpen())
        await client.hears()
        return client


def _shake_hands(server: ServerConnection, client: ClientConnection) -> None:
    server.receive_data(client.begin())
    client.receive_data(
        server.send_method(
            0, spec.ConnectionStart(version_major=0, version_minor=9, server_properties={})
        )
    )
    server.receive_data(
        client.send_method(0, spec.ConnectionStartOk(client_properties={}, response=b""))
    )
    limits = {"channel_max": 100, "frame_max": 131_072, "heartbeat": 0}
    client.receive_data(server.send_method(0, spec.ConnectionTune(**limits)))
    server.receive_data(client.send_method(0, spec.ConnectionTuneOk(**limits)))
    server.receive_data(client.send_method(0, spec.ConnectionOpen(virtual_host="/")))
    client.receive_data(server.send_method(0, spec.ConnectionOpenOk()))


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """A broker node, started; its directory knows shard 1 and no other node."""
    async with trio.open_nursery() as nursery:
        async with supervise() as supervisor:
            node = Lab(nursery, supervisor)
            await node.start()
            yield node
        nursery.cancel_scope.cancel()
