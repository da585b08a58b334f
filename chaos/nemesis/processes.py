"""Faults of processes: they are killed, stopped, starved, restarted, and lose their disks."""

from __future__ import annotations

import signal

import trio

from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target
from leveret.cli.ask import ask_node
from leveret.cli.exits import Failure
from leveret.node.control.replies import Rebalanced, Transferred


class Kill:
    """SIGKILL; then they are started again on their data."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        for node in self._nodes:
            node.kill()

    async def heal(self) -> None:
        self._target.cluster.launch(self._nodes)


class Wipe(Kill):
    """SIGKILL of one node, which comes back with an empty disk.

    Only when all others are full members: more than a minority of disks may not be lost.
    """

    async def inject(self) -> None:
        if not self._nodes[0].is_founder:
            raise NotNow(f"{self._nodes[0]} has joined: without its data it is another node")
        amiss = await self._target.cluster.why_not_well()
        if amiss is not None:
            raise NotNow(f"a second disk is not to be lost: {amiss}")
        await super().inject()
        for node in self._nodes:
            node.empty()


class Stop:
    """SIGSTOP: gone for all others, though their connections stay; then SIGCONT."""

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        for node in self._nodes:
            signal_node(node, signal.SIGSTOP)

    async def heal(self) -> None:
        for node in self._nodes:
            signal_node(node, signal.SIGCONT)


class Starve:
    """Bursts of SIGSTOP: a process that gets a fraction of the processor, in bits."""

    STOPPED_S = (0.05, 0.4)
    RUNS_S = (0.01, 0.08)

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)
        self._rng = target.rng
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def inject(self) -> None:
        trio.lowlevel.spawn_system_task(self._run)

    async def _run(self) -> None:
        with self._scope:
            while True:
                for node in self._nodes:
                    signal_node(node, signal.SIGSTOP)
                await trio.sleep(self._rng.uniform(*self.STOPPED_S))
                for node in self._nodes:
                    signal_node(node, signal.SIGCONT)
                await trio.sleep(self._rng.uniform(*self.RUNS_S))
        self._ended.set()

    async def heal(self) -> None:
        self._scope.cancel()
        await self._ended.wait()
        for node in self._nodes:
            signal_node(node, signal.SIGCONT)


class Restart:
    """SIGTERM, an end in order, and a start."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        for node in self._nodes:
            await self._target.cluster.stop(node)

    async def heal(self) -> None:
        self._target.cluster.launch(self._nodes)


class Transfer:
    """An operator has groups led by another node, and then spread evenly again."""

    GROUPS = 9

    def __init__(self, target: Target) -> None:
        self._target = target

    async def inject(self) -> None:
        [chosen] = self._target.nodes
        for group in self._target.rng.sample(range(self.GROUPS), 3):
            try:
                await ask_node(
                    chosen.folder,
                    "cluster transfer",
                    Transferred,
                    group=group,
                    node=str(chosen.number),
                )
            except Failure as failure:
                raise NotNow(str(failure)) from None

    async def heal(self) -> None:
        for node in self._target.cluster.nodes:
            try:
                await ask_node(node.folder, "cluster rebalance", Rebalanced)
            except Failure:
                continue
            return


def signal_node(node: Node, number: signal.Signals) -> None:
    """Send a node a signal, if it runs: another fault may have ended it."""
    if node.is_running:
        node.signal(number)
