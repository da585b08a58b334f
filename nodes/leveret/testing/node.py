"""One node of a test, over all its lives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from leveret.node.boot import serve_until

from .disk import MemoryDisk
from .outside import outside

if TYPE_CHECKING:
    from random import Random

    from leveret.node.config import NodeConfig
    from leveret.node.endpoints import Endpoints
    from leveret.transport import Address, Sockets

    from .network import Host
    from .outside import WallClock


class NodeUnderTest:
    """A node that is started, killed and started again on the same disk.

    clients: where its sockets for clients come from; None for its host's, in memory.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        nursery: trio.Nursery,
        host: Host,
        clients: Sockets | None,
        clock: WallClock,
        rng: Random,
    ) -> None:
        self.disk = MemoryDisk()
        self._config = config
        self._nursery = nursery
        self._host = host
        self._outside = outside(
            self.disk,
            clock=clock,
            rng=rng,
            client_sockets=host if clients is None else clients,
            peer_sockets=host,
        )
        self._life: _Life | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither killed nor stopped since."""
        return self._life is not None

    @property
    def address(self) -> Address:
        """Where clients reach it; known from its first start on."""
        return self._config.amqp.listen[0]

    def start(self) -> None:
        """Start it; `until_ready` waits until it serves clients."""
        if self._life is None:
            self._life = _Life()
            self._nursery.start_soon(self._live, self._life)

    async def until_ready(self) -> None:
        """Wait until it serves clients."""
        assert self._life is not None, "the node was not started"
        await self._life.is_ready.wait()

    def crash(self) -> None:
        """Have it end at once, as SIGKILL does: its disk keeps what was written, nobody is told."""
        life, self._life = self._life, None
        if life is not None:
            life.scope.cancel()
            self._host.crash()

    async def kill(self) -> None:
        """Have it end as `crash` does, and wait until it has."""
        life = self._life
        self.crash()
        if life is not None:
            await life.is_over.wait()

    async def stop(self) -> None:
        """End it in order: it hands over what it leads, and closes its connections."""
        life, self._life = self._life, None
        if life is not None:
            life.stop.set()
            await life.is_over.wait()

    async def _live(self, life: _Life) -> None:
        def ready(endpoints: Endpoints) -> None:
            # The port that the system chose stays the node's, so that its clients find it again.
            amqp = replace(self._config.amqp, listen=endpoints.amqp)
            self._config = replace(self._config, amqp=amqp)
            life.is_ready.set()

        try:
            with life.scope:
                await serve_until(life.stop, self._config, on_ready=ready, outside=self._outside)
        finally:
            life.is_over.set()


class _Life:
    """From a start to its end."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.stop = trio.Event()
        self.is_ready = trio.Event()
        self.is_over = trio.Event()
