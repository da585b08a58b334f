"""Faults of disks that forget what was not synced, fail a sync, or take long."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from chaos.lossy_mount import LossyMount
from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target

SLOW_MS = (20, 300)


def on_disks(target: Target, nodes: Sequence[Node]) -> list[LossyMount]:
    """Return the disks of some nodes.

    Raises:
        NotNow: one has none of its own.
    """
    disks = target.cluster.disks
    missing = [node for node in nodes if node.number not in disks]
    if missing:
        raise NotNow(f"{missing[0]} has no disk of its own")
    return [disks[node.number] for node in nodes]


class _OnDisks:
    """What concerns the disks of some nodes."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._nodes = list(target.nodes)

    def _disks(self) -> list[tuple[Node, LossyMount]]:
        return list(zip(self._nodes, on_disks(self._target, self._nodes), strict=True))


class PowerCut(_OnDisks):
    """The power of nodes is cut: processes are gone, and what their disks had not synced, too."""

    async def inject(self) -> None:
        disks = self._disks()
        # All at once, as far as that goes.
        for node in self._nodes:
            node.kill()
        for _, disk in disks:
            await trio.to_thread.run_sync(disk.cut_power, self._target.rng.randrange(1 << 32))

    async def heal(self) -> None:
        for _, disk in self._disks():
            await trio.to_thread.run_sync(disk.mount)
        self._target.cluster.launch(self._nodes)


class SyncFails(_OnDisks):
    """A sync fails: its node must trust nothing that it wrote, and may end for it."""

    async def inject(self) -> None:
        for node, disk in self._disks():
            node.is_expected_up = False
            await trio.to_thread.run_sync(disk.tell, "fail 1")

    async def heal(self) -> None:
        for _, disk in self._disks():
            await trio.to_thread.run_sync(disk.tell, "fail 0")
        self._target.cluster.launch(self._nodes)
        for node in self._nodes:
            node.is_expected_up = True


class SlowDisk(_OnDisks):
    """Each sync takes long."""

    async def inject(self) -> None:
        for _, disk in self._disks():
            await trio.to_thread.run_sync(disk.tell, f"slow {self._target.rng.randint(*SLOW_MS)}")

    async def heal(self) -> None:
        for _, disk in self._disks():
            await trio.to_thread.run_sync(disk.tell, "slow 0")
