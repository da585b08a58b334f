"""Asks all nodes of a local cluster for their status, over and over, for the table of `cluster`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from leveret.cli.ask import NodeSocket
from leveret.cli.local import LocalNode
from leveret.node.control.controls import ControlError
from leveret.node.control.replies import GroupHere, NodeStatus

ASK_EVERY_S: Final = 0.5
ANSWER_WITHIN_S: Final = 1.0
"""A node that takes longer counts as silent."""


class Watch:
    """What the nodes told last. `run` must run."""

    def __init__(self, folder: Path, nodes: Sequence[LocalNode]) -> None:
        self._folder = folder
        self._nodes = nodes
        self._told: dict[int, NodeStatus] = {}

    def told(self, node: LocalNode) -> NodeStatus | None:
        """Return what the node's process told lately; None if it does not run, or is silent."""
        status = self._told.get(node.id)
        return status if status is not None and status.pid == node.pid else None

    def lag(self, node: LocalNode) -> int | None:
        """Return how many entries a node lacks, by what the leaders know; None if none knows."""
        lags = [
            peer.lag
            for group in self._led().values()
            if (peer := group.peers.get(node.id)) is not None
        ]
        if not lags and not any(g.role == "leader" for g in self._groups(node)):
            return None
        return sum(lags)

    @property
    def is_minority(self) -> bool:
        """Whether at most half of the nodes tell anything."""
        return 2 * sum(self.told(node) is not None for node in self._nodes) <= len(self._nodes)

    def leaderless(self) -> list[int] | None:
        """Return the groups that no node says to lead; None if no node told anything."""
        told = [status for node in self._nodes if (status := self.told(node))]
        if not told:
            return None
        led = self._led()
        return [group.group for group in told[0].groups if group.group not in led]

    def _groups(self, node: LocalNode) -> list[GroupHere]:
        status = self.told(node)
        return status.groups if status else []

    def _led(self) -> dict[int, GroupHere]:
        """Return each group as its leader tells it, the one of the newest term."""
        led: dict[int, GroupHere] = {}
        for node in self._nodes:
            for group in self._groups(node):
                if group.role == "leader" and (
                    group.group not in led or led[group.group].term < group.term
                ):
                    led[group.group] = group
        return led

    async def run(self) -> None:
        """Ask each node until cancelled."""
        async with trio.open_nursery() as nursery:
            for node in self._nodes:
                nursery.start_soon(self._ask_forever, node)

    async def _ask_forever(self, node: LocalNode) -> None:
        while True:
            with contextlib.suppress(OSError, ControlError):
                async with NodeSocket(self._folder / node.name) as socket:
                    await self._ask_over(node, socket)
            self._told.pop(node.id, None)
            await trio.sleep(ASK_EVERY_S)

    async def _ask_over(self, node: LocalNode, socket: NodeSocket) -> None:
        """Ask until no answer comes in time; a later one would be taken for the next."""
        while True:
            with trio.move_on_after(ANSWER_WITHIN_S) as asking:
                self._told[node.id] = await socket.ask("status", NodeStatus)
            if asking.cancelled_caught:
                return
            await trio.sleep(ASK_EVERY_S)
