"""Brokers for tests, in the process and the trio run of the test itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .group import Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .node import NodeUnderTest

NODES_MAX: Final = 9
"""Nodes of one cluster: more say no more of an application, and take long to agree."""


def broker(
    *, loopback: bool = False, settings: Mapping[str, object] | None = None, seed: int = 0
) -> Broker:
    """A broker for the length of an `async with`: empty, quick to start, gone afterwards.

    By default it is in memory: its URL leads `leveret.client` of the same trio run to it without
    a socket, so that it works under a virtual clock too.

    loopback: listen on a free port of 127.0.0.1 instead: for any client, in real time only.
    settings: a node's, by their names in the reference: `{"amqp.heartbeat_s": 5}`.
    seed: decides what the broker leaves to chance.

    Raises:
        ValueError: a setting is unknown or out of range; when entered.

    Example:
        >>> async def main() -> None:
        ...     async with broker() as b, connect(b.url) as connection:
        ...         print(connection.is_connected)
        >>> trio.run(main)
        True
    """
    return Broker(1, loopback=loopback, settings=settings, seed=seed)


def cluster(
    nodes: int = 3,
    *,
    loopback: bool = False,
    settings: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Cluster:
    """A cluster of brokers for the length of an `async with`; otherwise as `broker`.

    Example:
        >>> async def main() -> None:
        ...     async with cluster(3) as c, connect(c.url) as connection:
        ...         async with connection.channel() as channel:
        ...             await channel.declare_queue("orders", durable=True)
        ...             await c.kill(1)
        ...             await channel.publish(b"one", "orders")
        ...             print(c.running)
        >>> trio.run(main)
        [2, 3]
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a cluster for tests has 1 to {NODES_MAX} nodes, not {nodes}")
    return Cluster(nodes, loopback=loopback, settings=settings, seed=seed)


class Broker(Group):
    """A single broker; make it with `broker`. Its `url` is where clients connect to."""

    async def kill(self) -> None:
        """End it at once, as SIGKILL would; `start` finds what was written."""
        await self._nodes[1].kill()

    async def stop(self) -> None:
        """End it in order: clients are told that it shuts down."""
        await self._nodes[1].stop()

    async def start(self) -> None:
        """Start it after a `kill` or `stop`, and wait until it serves clients."""
        await _start(self._nodes[1])

    async def restart(self) -> None:
        """Kill it, and start it with what its disk holds: what a client sees of a crash."""
        await self.kill()
        await self.start()


class Cluster(Group):
    """Nodes of one cluster, numbered from 1; make it with `cluster`."""

    @property
    def urls(self) -> list[str]:
        """The URL of each node, in the order of their numbers."""
        return [f"amqp://guest:guest@{node.address}/" for node in self._nodes.values()]

    @property
    def running(self) -> list[int]:
        """The numbers of the nodes that run."""
        return [number for number, node in self._nodes.items() if node.is_running]

    async def kill(self, number: int) -> None:
        """End a node at once, as SIGKILL would; nothing if it does not run."""
        await self._node(number).kill()

    async def stop(self, number: int) -> None:
        """End a node in order, and wait for that; nothing if it does not run."""
        await self._node(number).stop()

    async def start(self, number: int) -> None:
        """Start a node with what its disk holds, and wait until it serves clients.

        That takes a majority of the nodes.
        """
        await _start(self._node(number))

    async def restart(self, number: int) -> None:
        """Kill a node if it runs, and start it with what its disk holds."""
        await self.kill(number)
        await self.start(number)

    def _node(self, number: int) -> NodeUnderTest:
        node = self._nodes.get(number)
        if node is None:
            raise ValueError(f"there is no node {number}: they are 1 to {self._size}")
        return node


async def _start(node: NodeUnderTest) -> None:
    node.start()
    await node.until_ready()
