"""Alarms: a node that runs out of disk holds publishers back on all nodes.

A replicated message is stored everywhere, so one full disk concerns all publishers; consumers go
on, and what they settle makes room again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.storage import Disk, Journal
    from leveret.transport import NodeId, Peers

log = logging.getLogger(__name__)

CHANNEL: Final = "alarm"
LOOK_S: Final = 0.5
REASON: Final = "low on disk"


class Alarms:
    """The alarms of this node and of those it has a link to."""

    def __init__(
        self,
        disk: Disk,
        journal: Journal,
        peers: Peers,
        *,
        node: NodeId,
        free_limit_bytes: int,
        changed: Callable[[str | None], None],
    ) -> None:
        """Watch the room on `disk`.

        changed: told the reason when publishers are to be held back, None when not any more.
        """
        self._disk = disk
        self._journal = journal
        self._peers = peers
        self._node = node
        self._free_limit_bytes = free_limit_bytes
        self._changed = changed
        self._low: set[int] = set()
        """Nodes whose disk is low."""
        peers.on_message(CHANNEL, self._heard)
        peers.on_up(self._tell)
        peers.on_down(lambda peer: self._set(peer, is_low=False))
        journal.on_blocked(lambda _: self._look())

    @property
    def is_low(self) -> bool:
        """Whether the disk of this node is low."""
        return self._node in self._low

    def texts(self) -> list[str]:
        """Return the alarms that this node knows of, in words."""
        return [f"{REASON} on node {node}" for node in sorted(self._low)]

    async def run(self) -> None:
        """Look at the disk until cancelled."""
        while True:
            self._look()
            await trio.sleep(LOOK_S)

    def _look(self) -> None:
        is_low = self._journal.blocked or self._disk.free_bytes() < self._free_limit_bytes
        if is_low != (self._node in self._low):
            self._set(self._node, is_low=is_low)
            for peer in self._peers.up:
                self._tell(peer)

    def _tell(self, peer: int) -> None:
        self._peers.send(peer, CHANNEL, self._node in self._low)  # type: ignore[arg-type]

    def _heard(self, peer: int, payload: object) -> None:
        self._set(peer, is_low=payload is True)

    def _set(self, node: int, *, is_low: bool) -> None:
        before = bool(self._low)
        if is_low:
            self._low.add(node)
        else:
            self._low.discard(node)
        if bool(self._low) != before:
            log.warning(
                "disk alarm: publishers are held back" if self._low else "disk alarm is over",
                extra={"nodes": sorted(self._low)},
            )
            self._changed(REASON if self._low else None)
