"""Faults of operators' making: a node joins, another one is removed for ever."""

from __future__ import annotations

import trio

from chaos.cluster import Cluster
from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target
from leveret.cli.ask import ask_node
from leveret.cli.exits import Failure
from leveret.node.control.replies import Removed

MEMBER_S = 90.0
"""How long a newcomer may take until it votes in all groups, with all data of the run."""
GONE_S = 60.0


class Replace:
    """A node joins under load; when it is a full member, another one is removed."""

    def __init__(self, target: Target) -> None:
        # The kind is drawn for clusters of Leveret's alone.
        assert isinstance(target.cluster, Cluster)
        self._cluster = target.cluster
        self._target = target
        [self._leaving] = target.nodes
        self._newcomer: Node | None = None

    async def inject(self) -> None:
        cluster = self._cluster
        by = self._target.rng.choice(cluster.nodes)
        self._newcomer = newcomer = cluster.newcomer(by)
        newcomer.launch()
        cluster.nodes.append(newcomer)
        amiss = await cluster.wait_well(within_s=MEMBER_S)
        if amiss is not None:
            cluster.nodes.remove(newcomer)
            newcomer.kill()
            cluster.failures.append(f"{newcomer} did not become a member: {amiss}")
            raise NotNow(f"{newcomer} did not become a member")

    async def heal(self) -> None:
        cluster, leaving, newcomer = self._cluster, self._leaving, self._newcomer
        assert newcomer is not None
        # It ends by itself when it hears of it.
        leaving.is_expected_up = False
        staying = next(node for node in cluster.nodes if node is not leaving)
        try:
            await ask_node(staying.folder, "cluster remove", Removed, node=str(leaving.number))
        except Failure as failure:
            cluster.failures.append(f"{leaving} was not removed: {failure}")
        with trio.move_on_after(GONE_S):
            while leaving.is_running:  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        if leaving.is_running:
            cluster.failures.append(f"{leaving} was removed and goes on")
        leaving.kill()
        cluster.nodes.remove(newcomer)
        cluster.nodes[cluster.nodes.index(leaving)] = newcomer
