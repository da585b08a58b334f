"""Alarms: what holds publishers back, and has them told why.

A node that runs out of disk holds them back on all nodes: a replicated message is stored
everywhere, so one full disk concerns all publishers; consumers go on, and what they settle makes
room again.
A node that has lost the majority holds back its own: what they published waits for a leader, and
memory does not fill with what they go on to publish.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from leveret.amqp.blocked import LOW_ON_DISK, NO_MAJORITY, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.storage import Disk, Journal
    from leveret.transport import NodeId, Peers

    from .majority import Majority

log = logging.getLogger(__name__)

CHANNEL: Final = "alarm"
LOOK_S: Final = 0.5


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
        majority: Majority,
        changed: Callable[[str | None], None],
    ) -> None:
        """Watch the room on `disk`, and the majority.

        changed: told the reason when publishers are to be held back, None when not any more.
        """
        self._disk = disk
        self._journal = journal
        self._peers = peers
        self._node = node
        self._free_limit_bytes = free_limit_bytes
        self._majority = majority
        self._changed = changed
        self._reason: str | None = None
        """As told last."""
        self._is_cut_off = False
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
        texts = [f"{LOW_ON_DISK} on node {node}" for node in sorted(self._low)]
        return [*texts, NO_MAJORITY] if self._is_cut_off else texts

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._look()
            await trio.sleep(LOOK_S)

    def _look(self) -> None:
        is_low = self._journal.blocked or self._disk.free_bytes() < self._free_limit_bytes
        if is_low != (self._node in self._low):
            self._set(self._node, is_low=is_low)
            for peer in self._peers.up:
                self._tell(peer)
        if self._majority.is_lost() != self._is_cut_off:
            self._is_cut_off = not self._is_cut_off
            log.warning(
                "no majority of the nodes is reachable: publishers are held back"
                if self._is_cut_off
                else "a majority of the nodes is reachable again",
                extra={"linked": sorted(self._peers.up)},
            )
            self._tell_changed()

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
            self._tell_changed()

    def _tell_changed(self) -> None:
        reasons = [LOW_ON_DISK] if self._low else []
        if self._is_cut_off:
            reasons.append(NO_MAJORITY)
        reason = text_of(reasons)
        if reason != self._reason:
            self._reason = reason
            self._changed(reason)
