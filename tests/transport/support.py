"""Nodes for the tests of the transport, and a record of what one of them hears."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping

import trio

from leveret.transport import (
    Address,
    ClusterCredentials,
    Identity,
    NodeId,
    Peers,
    TlsFiles,
    TransportConfig,
)

TOKEN = b"a token of the tests, 32 bytes.."
ANYWHERE = Address("127.0.0.1", 0)
ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
MEMBERS = {ONE: ANYWHERE, TWO: ANYWHERE, THREE: ANYWHERE}


def identity(
    node: int,
    *,
    name: str = "",
    cluster: str = "hares",
    incarnation: int = 1,
    boot: int = 1,
    instance: bytes = b"i",
) -> Identity:
    return Identity(
        cluster=cluster,
        node=NodeId(node),
        name=name or f"node-{node}",
        incarnation=incarnation,
        boot=boot,
        software="leveret test",
        instance=instance,
    )


class Node:
    """One `Peers` with everything that it reports, in order."""

    def __init__(
        self,
        me: Identity,
        *,
        members: Mapping[NodeId, Address] = MEMBERS,
        token: bytes = TOKEN,
        tls: TlsFiles | None = None,
        config: TransportConfig | None = None,
        listen: Address = ANYWHERE,
    ) -> None:
        credentials = ClusterCredentials(me.cluster, token, tls)
        self.peers = Peers(
            me,
            credentials,
            listen=listen,
            members=members,
            rng=random.Random(me.node),
            config=config,
        )
        self.events: list[tuple[object, ...]] = []
        self.me = me
        self.address = listen
        self.scope = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self.peers.on_up(lambda node: self._note("up", node))
        self.peers.on_down(lambda node: self._note("down", node))
        self.peers.on_message("test", self._note)

    def note_sizes(self, channel: str) -> None:
        """Note what comes on a channel: its name and the payload, of bytes the length."""

        def note(_: object, payload: object) -> None:
            self._note(channel, len(payload) if isinstance(payload, bytes) else payload)

        self.peers.on_message(channel, note)

    async def run(self, *, task_status: trio.TaskStatus[Address]) -> None:
        with self.scope:
            await self.peers.run(task_status=task_status)

    async def heard(self, *event: object, times: int = 1) -> None:
        """Return when `event` has been reported `times` times."""
        await self.until(lambda: self.events.count(event) >= times)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds after some report."""
        with trio.fail_after(60):
            while not condition():
                await self._changed.park()

    def _note(self, *event: object) -> None:
        self.events.append(event)
        self._changed.unpark_all()


async def start(nursery: trio.Nursery, node: Node) -> Address:
    """Run `node` in `nursery`; return where it listens."""
    address = await nursery.start(node.run)
    assert isinstance(address, Address)
    node.address = address
    return address


async def pair(
    nursery: trio.Nursery, *, config: TransportConfig | None = None
) -> tuple[Node, Node]:
    """Return nodes 1 and 2 of one cluster, linked."""
    first = Node(identity(1), config=config)
    address = await start(nursery, first)
    second = Node(identity(2), members=MEMBERS | {ONE: address}, config=config)
    await start(nursery, second)
    await first.heard("up", TWO)
    await second.heard("up", ONE)
    return first, second


def reason(record: logging.LogRecord) -> str:
    """Return why, as `record` tells it beside its message."""
    return str(record.__dict__.get("reason"))
