"""Faults that are several in a row: what no chance meets, since each must come at its moment."""

from __future__ import annotations

import signal
from typing import Final

import trio

from chaos.members import Node
from chaos.nemesis.disks import on_disks
from chaos.nemesis.fault import NotNow, Target
from chaos.nemesis.network import Partition
from chaos.nemesis.processes import signal_node

LAG_S: Final = 6.0
"""Long enough for a link that is cut to be given up at both ends, with all that it carried."""
SLOW_LEADER_MS: Final = 200
"""Not so long that it loses its leadership: a write to a file waits for the sync before it."""
SLOW_SETTLER_MS: Final = 400
MEANWHILE_S: Final = 3.0


class LoneCopy:
    """All that was published last is on one node alone, and that one is gone for a while.

    The others are cut off; the disk of a leader takes long, so that what it has not synced is on
    a follower's disk only; then the leader's power is cut, that follower is killed, and the others
    are back. Whoever counted the leader before its disk was done has confirmed what they lack.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        majority = len(target.cluster.nodes) // 2 + 1
        places = target.places
        self._leader = target.cluster.nodes[places[0]]
        self._keepers = [target.cluster.nodes[place] for place in places[1:majority]]
        self._cut = Partition(Target(target.cluster, places[majority:], target.rng))

    async def inject(self) -> None:
        [disk] = on_disks(self._target, [self._leader])
        await self._cut.inject()
        try:
            await trio.sleep(LAG_S)
            await trio.to_thread.run_sync(disk.tell, f"slow {SLOW_LEADER_MS}")
            await trio.sleep(MEANWHILE_S)
            for node in self._keepers:
                node.kill()
            self._leader.kill()
            await trio.to_thread.run_sync(disk.cut_power, self._target.rng.randrange(1 << 32))
            await trio.to_thread.run_sync(disk.mount)
        finally:
            await self._cut.heal()
        self._target.cluster.launch([self._leader])

    async def heal(self) -> None:
        self._target.cluster.launch(self._keepers)


class LostSettler:
    """A node is lost while what its consumers acknowledged is on its way to the log.

    Its disk is slow and the others but one are stopped, so that nothing is committed without it:
    acknowledgements are known to the leaders long before they are in the log. Then it is killed,
    and the stopped ones go on.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._settler, *rest = target.nodes
        self._stopped = rest[: (len(target.cluster.nodes) - 1) // 2]

    async def inject(self) -> None:
        [disk] = on_disks(self._target, [self._settler])
        if not self._settler.is_running:
            raise NotNow(f"{self._settler} is down")
        self._signal(self._stopped, signal.SIGSTOP)
        try:
            await trio.to_thread.run_sync(disk.tell, f"slow {SLOW_SETTLER_MS}")
            await trio.sleep(MEANWHILE_S)
            self._settler.kill()
            await trio.to_thread.run_sync(disk.tell, "slow 0")
        finally:
            self._signal(self._stopped, signal.SIGCONT)

    async def heal(self) -> None:
        self._target.cluster.launch([self._settler])

    def _signal(self, nodes: list[Node], number: signal.Signals) -> None:
        for node in nodes:
            signal_node(node, number)
