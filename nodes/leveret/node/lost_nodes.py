"""Gives up what lived on a node that is gone: its queues that are not replicated.

Every node watches the links to the others; the one that leads the catalog says in its log which
node is lost.  Consumers of those queues on other nodes hear `basic.cancel`, and what is published
to them is unroutable, instead of waiting for a node that may never come back.
The node itself stays a member; if it lives and was only cut off, it hears of it like the others.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import trio

from leveret.catalog.commands import LoseNode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from leveret.catalog import Catalog

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""How often the links are looked at; a loss is noticed at most so much later."""


class Links(Protocol):
    """What is needed of the links to the other nodes."""

    @property
    def up(self) -> Collection[int]:
        """The nodes whose links are there."""


class LostNodes:
    """See the module."""

    def __init__(
        self,
        *,
        node: int,
        links: Links,
        catalog: Catalog,
        is_leader: Callable[[], bool],
        lost_after_s: float,
    ) -> None:
        """Watch the other members of the cluster of `node`.

        is_leader: whether this node leads the catalog's group now.
        lost_after_s: how long a node may be without a link until it is lost.
        """
        self._node = node
        self._links = links
        self._catalog = catalog
        self._is_leader = is_leader
        self._lost_after_s = lost_after_s
        self._away_since_s: dict[int, float] = {}
        self._losing: set[int] = set()
        """Nodes whose loss is on its way through the log."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._look()
            await trio.sleep(LOOK_S)

    def _look(self) -> None:
        now_s = trio.current_time()
        members = {node.id: node for node in self._catalog.model.nodes() if node.id != self._node}
        up = self._links.up
        self._away_since_s = {
            number: self._away_since_s.get(number, now_s) for number in members if number not in up
        }
        if not self._is_leader():
            return
        for number, since_s in self._away_since_s.items():
            if now_s - since_s >= self._lost_after_s and self._catalog.model.queues_at(number):
                self._lose(number, members[number].boot)

    def _lose(self, number: int, boot: int) -> None:
        if number in self._losing:
            return
        self._losing.add(number)
        log.warning(
            "node is lost: its queues that are not replicated go",
            extra={"node": number, "queues": len(self._catalog.model.queues_at(number))},
        )
        self._catalog.submit(LoseNode(number, boot), lambda _: self._losing.discard(number))
