"""Alarms: what holds publishers back, and has them told why.

A node that runs out of memory or disk holds them back on all nodes: a replicated message is stored
everywhere, so one full node concerns all publishers; consumers go on, and what they settle makes
room again.
A node that has lost the majority holds back its own: what they published waits for a leader, and
memory does not fill with what they go on to publish.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from leveret.amqp.blocked import LOW_ON_DISK, LOW_ON_MEMORY, NO_MAJORITY, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.amqp.fields import Value
    from leveret.broker.access import InThread
    from leveret.storage import Disk, Journal
    from leveret.transport import NodeId, Peers

    from .majority import Majority
    from .memory import MemoryWatch
    from .units import Watermark

log = logging.getLogger(__name__)

CHANNEL: Final = "alarm"
LOOK_S: Final = 0.5
GIVE_BACK_S: Final = 5.0
"""While memory is low, free memory inside the process is returned to the system so often."""

_TITLES: Final = {LOW_ON_MEMORY: "memory", LOW_ON_DISK: "disk"}
"""In the order in which publishers are told the reasons."""


class Raised(NamedTuple):
    """An alarm, and the node that has it."""

    node: int
    reason: str


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
        memory: MemoryWatch,
        majority: Majority,
        in_thread: InThread,
        changed: Callable[[str | None], None],
        told: Callable[[str, dict[str, Value]], None] | None = None,
    ) -> None:
        """Watch the room on `disk` and in `memory`, and the majority.

        changed: told the reason when publishers are to be held back, None when not any more.
        told: hears of each alarm of this node that begins or ends: the event's key and facts.
        """
        self._disk = disk
        self._journal = journal
        self._peers = peers
        self._node = node
        self._free_limit_bytes = free_limit_bytes
        self._memory = memory
        self._majority = majority
        self._in_thread = in_thread
        self._changed = changed
        self._told = told
        self._reason: str | None = None
        """As told last."""
        self._is_cut_off = False
        self._low: dict[str, set[int]] = {reason: set() for reason in _TITLES}
        """Nodes that are low on something, by the reason."""
        peers.on_message(CHANNEL, self._heard)
        peers.on_up(self._tell)
        peers.on_down(lambda peer: self._set(peer, frozenset()))
        # Between two looks a fast publisher could fill what is left.
        journal.on_segment(self._look)
        journal.on_blocked(lambda _: self._look())

    @property
    def is_disk_low(self) -> bool:
        """Whether the disk of this node is low."""
        return self._node in self._low[LOW_ON_DISK]

    @property
    def memory_bytes(self) -> int | None:
        """What this node uses; None where that cannot be told."""
        return self._memory.used_bytes

    @property
    def memory_limit_bytes(self) -> int | None:
        """What this node may use; likewise."""
        return self._memory.limit_bytes

    def set_memory_watermark(self, watermark: Watermark) -> None:
        """Have another watermark hold, until the node ends."""
        self._memory.watermark = watermark
        log.info("memory watermark set", extra={"limit_bytes": self._memory.limit_bytes})
        self._look()

    def raised(self) -> list[Raised]:
        """Return the alarms that this node knows of."""
        raised = [Raised(node, reason) for reason, low in self._low.items() for node in sorted(low)]
        return [*raised, Raised(self._node, NO_MAJORITY)] if self._is_cut_off else raised

    def texts(self) -> list[str]:
        """Return the same in words."""
        return [
            reason if reason == NO_MAJORITY else f"{reason} on node {node}"
            for node, reason in self.raised()
        ]

    async def run(self) -> None:
        """Watch until cancelled."""
        given_back_s = -GIVE_BACK_S
        while True:
            self._look()
            now_s = trio.current_time()
            if self._node in self._low[LOW_ON_MEMORY] and now_s >= given_back_s + GIVE_BACK_S:
                # Else the allocator keeps what consumers made free, and the alarm never ends.
                given_back_s = now_s
                await self._in_thread(self._memory.give_back)
            await trio.sleep(LOOK_S)

    def _look(self) -> None:
        low = set()
        if self._journal.blocked or self._disk.free_bytes() < self._free_limit_bytes:
            low.add(LOW_ON_DISK)
        if self._memory.is_low():
            low.add(LOW_ON_MEMORY)
        before = self._own()
        if low != before:
            self._set(self._node, low)
            if self._told is not None:
                for reason in sorted(low ^ before):
                    key = "alarm.set" if reason in low else "alarm.cleared"
                    self._told(key, {"source": _TITLES[reason]})
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

    def _own(self) -> set[str]:
        return {reason for reason, low in self._low.items() if self._node in low}

    def _tell(self, peer: int) -> None:
        self._peers.send(peer, CHANNEL, sorted(self._own()))  # type: ignore[arg-type]

    def _heard(self, peer: int, payload: object) -> None:
        told = payload if isinstance(payload, tuple) else ()
        self._set(peer, {reason for reason in self._low if reason in told})

    def _set(self, node: int, reasons: set[str] | frozenset[str]) -> None:
        for reason, low in self._low.items():
            before = bool(low)
            if reason in reasons:
                low.add(node)
            else:
                low.discard(node)
            if bool(low) != before:
                title = _TITLES[reason]
                log.warning(
                    f"{title} alarm: publishers are held back" if low else f"{title} alarm is over",
                    extra={"nodes": sorted(low)},
                )
        self._tell_changed()

    def _tell_changed(self) -> None:
        reasons = [reason for reason, low in self._low.items() if low]
        if self._is_cut_off:
            reasons.append(NO_MAJORITY)
        reason = text_of(reasons)
        if reason != self._reason:
            self._reason = reason
            self._changed(reason)
