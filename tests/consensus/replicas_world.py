"""Nodes in one loop: real groups, actors and journals; disks and links in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgpack
import trio

from chaos.simulation.disk import SimulatedDisk
from leveret.consensus import Group, Replicas, ReplicasConfig
from leveret.storage import Journal, JournalConfig, Snapshots
from leveret.transport import NodeId
from tests.consensus.mail import Net

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
ALL = (ONE, TWO, THREE)


class Book:
    """A machine that writes down all commands, and where they lie."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.stamps: list[int] = []
        self.places: list[tuple[int, int]] = []

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        if command == b"bang":
            raise ZeroDivisionError
        self.lines.append(command)
        self.stamps.append(stamp_ms)
        self.places.append((index, offset))
        return len(self.lines)

    def snapshot(self) -> bytes:
        return bytes(msgpack.packb([self.lines, self.places]))

    def restore(self, state: bytes) -> None:
        lines, places = msgpack.unpackb(state)
        self.lines, self.places = lines, [(index, offset) for index, offset in places]

    def live_entries(self) -> Iterable[int]:
        return sorted({index for index, _ in self.places})


class Node:
    def __init__(self, world: World, node: NodeId, disk: SimulatedDisk, boot: int) -> None:
        self.world, self.node, self.disk, self.boot = world, node, disk, boot
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self.books = [Book() for _ in range(world.groups)]
        self.clock_ms = 1_000_000
        self.is_founder = boot == 1 and node == min(world.members)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            journal = await Journal.open(self.disk, JournalConfig())
            self.replicas = Replicas(
                node=self.node,
                incarnation=self.world.incarnation(self.node),
                desired=lambda: self.world.desired,
                boot=self.boot,
                journal=journal,
                snapshots=Snapshots(self.disk),
                machines=self.books,
                peers=self.world.net.mail(self.node),
                wall_clock_ms=lambda: self.clock_ms,
                rng=random.Random(int(self.node)),
                config=self.world.config,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                await nursery.start(self.replicas.run)
                if self.is_founder:
                    self.replicas.found()
                task_status.started()
        self.stopped.set()

    @property
    def group(self) -> Group:
        return self.replicas.groups[0]

    @property
    def book(self) -> Book:
        return self.books[0]


class World:
    def __init__(
        self,
        nursery: trio.Nursery,
        members: tuple[NodeId, ...],
        groups: int,
        config: ReplicasConfig,
    ) -> None:
        self.nursery, self.members, self.groups, self.config = nursery, members, groups, config
        self.net = Net(nursery)
        self.nodes: dict[NodeId, Node] = {}
        self.desired = dict.fromkeys(members, 0)

    def __getitem__(self, node: NodeId) -> Node:
        return self.nodes[node]

    def incarnation(self, node: NodeId) -> int:
        return self.net.incarnations.get(node, 0)

    async def boot(self, node: NodeId) -> None:
        old = self.nodes.get(node)
        disk = old.disk if old else SimulatedDisk(random.Random(int(node)))
        boot = old.boot + 1 if old else 1
        self.nodes[node] = Node(self, node, disk, boot)
        await self.nursery.start(self.nodes[node].run)

    async def kill(self, node: NodeId, *, power: bool = False) -> None:
        self.net.isolate(node)
        dead = self.nodes[node]
        dead.disk = dead.disk.power_loss() if power else dead.disk.crash()
        dead.scope.cancel()
        await dead.stopped.wait()

    async def wipe(self, node: NodeId) -> None:
        """Boot a node that was killed, on an empty disk: a new incarnation."""
        self.nodes[node].disk = SimulatedDisk(random.Random(int(node)))
        self.net.incarnations[node] = self.incarnation(node) + 1
        await self.boot(node)

    async def leader(self, *among: NodeId) -> Node:
        return await until(
            lambda: next((self[n] for n in among or self.members if self[n].group.is_leader), None)
        )


async def until(found: Callable[[], Node | bool | None], within_s: float = 30.0) -> Node:
    with trio.fail_after(within_s):
        while not (value := found()):  # noqa: ASYNC110  # what it waits for has no event
            await trio.sleep(0.01)
    return value  # type: ignore[return-value]


@asynccontextmanager
async def world(
    members: tuple[NodeId, ...] = ALL, *, groups: int = 1, config: ReplicasConfig | None = None
) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        it = World(nursery, members, groups, config or ReplicasConfig(spread_s=1e6))
        for node in members:
            await it.boot(node)
        it.net.connect(*members)
        await until(lambda: all(it[node].replicas.are_voters(members) for node in members))
        yield it
        nursery.cancel_scope.cancel()


class Submitter:
    """Submits numbered commands and keeps what came back."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.done: list[bytes] = []

    def submit(self, node: Node, count: int = 1) -> None:
        for _ in range(count):
            command = b"%d-%d" % (node.node, len(self.sent))
            self.sent.append(command)
            node.group.submit(command, lambda _, command=command: self.done.append(command))  # type: ignore[misc]

    def is_done(self) -> bool:
        return len(self.done) == len(self.sent)
