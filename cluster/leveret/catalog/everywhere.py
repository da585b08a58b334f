"""Waiting until the other nodes have applied what this one has.

A majority decides, so a node may hear of a change some milliseconds after the client that made it
was answered.  Whoever declares through one node and publishes through another would then see its
message routed by yesterday's bindings.  So the answer waits for every node whose link is up, as
RabbitMQ's does, but never longer than `WITHIN_S`, and not at all for a node that let somebody
wait in vain and has not answered since: one that is stopped must not slow down all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol

import trio

from leveret.transport import NodeId

CHANNEL: Final = "catalog-reached"
"""The links' channel on which nodes ask each other how far they have come."""

WITHIN_S: Final = 1.0
"""How long a change's answer waits for a node that does not say that it knows."""


class Links(Protocol):
    """What is needed of the links to the other nodes."""

    @property
    def up(self) -> Collection[int]:
        """The nodes whose links are there."""

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        """Queue a message; False when the link is down."""

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        """Have `handler` called with what comes on `channel`."""

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link broke."""


class Progress(Protocol):
    """What is needed of the catalog's group."""

    @property
    def applied_index(self) -> int:
        """How far this node has applied the log."""

    def on_applied(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each batch of applied entries."""


class _Waiter:
    """Somebody who waits until `missing` have applied the log up to `index`."""

    def __init__(self, index: int, missing: set[int]) -> None:
        self.index = index
        self.missing = missing
        self.is_over = trio.Event()


class Everywhere:
    """Both sides of one node: it asks for those who wait here, and answers the others."""

    def __init__(self, group: Progress, links: Links) -> None:
        self._group = group
        self._links = links
        self._reached: dict[int, int] = {}
        """The furthest that each node said."""
        self._silent: set[int] = set()
        """Nodes that let somebody wait in vain, and have not answered since."""
        self._waiters: set[_Waiter] = set()
        self._asked: dict[NodeId, list[int]] = {}
        """What other nodes want to hear of when it is applied here."""
        group.on_applied(self._applied)
        links.on_message(CHANNEL, self._peer_says)
        links.on_down(self._link_down)

    async def wait(self) -> None:
        """Wait until the nodes in reach have applied what is applied here now; a checkpoint."""
        index = self._group.applied_index
        behind = {int(n) for n in self._links.up if self._reached.get(n, 0) < index}
        for node in behind:
            self._links.send(NodeId(node), CHANNEL, ("tell", index))
        waiter = _Waiter(index, behind - self._silent)
        if not waiter.missing:
            await trio.lowlevel.checkpoint()
            return
        self._waiters.add(waiter)
        try:
            with trio.move_on_after(WITHIN_S) as patience:
                await waiter.is_over.wait()
            if patience.cancelled_caught:
                self._silent |= waiter.missing
        finally:
            self._waiters.discard(waiter)

    def _peer_says(self, node: NodeId, payload: object) -> None:
        match payload:
            case ("tell", int(index)):
                self._asked.setdefault(node, []).append(index)
                self._answer(node)
            case ("reached", int(index)):
                self._reached[node] = max(index, self._reached.get(node, 0))
                self._silent.discard(node)
                self._settle(node, lambda waiter: waiter.index <= index)
            case _:
                pass

    def _applied(self) -> None:
        for node in list(self._asked):
            self._answer(node)

    def _answer(self, node: NodeId) -> None:
        applied = self._group.applied_index
        later = [index for index in self._asked[node] if index > applied]
        if len(later) < len(self._asked[node]):
            self._links.send(node, CHANNEL, ("reached", applied))
        if later:
            self._asked[node] = later
        else:
            del self._asked[node]

    def _link_down(self, node: NodeId) -> None:
        """Forget a node: when it comes back, it may have to apply its log again."""
        self._reached.pop(node, None)
        self._asked.pop(node, None)
        self._silent.discard(node)
        self._settle(node, lambda _: True)

    def _settle(self, node: int, is_enough: Callable[[_Waiter], bool]) -> None:
        for waiter in self._waiters:
            if is_enough(waiter):
                waiter.missing.discard(node)
                if not waiter.missing:
                    waiter.is_over.set()
