"""Whether this node is on the side of the majority, as far as it can tell from here.

A leader that hears no majority steps down by itself.  A follower is told nothing when its leader
falls silent, and goes on taking it for the leader; so it looks at its links, too: without one to
the leader, or with too few for a majority, nothing can be committed from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Links(Protocol):
    """What is needed of the links to the other nodes."""

    @property
    def up(self) -> Collection[int]:
        """The nodes whose links are there."""


class CatalogGroup(Protocol):
    """What is needed of the catalog's group."""

    @property
    def leader(self) -> int | None:
        """The leading node, if known."""


class Majority:
    """See the module."""

    def __init__(
        self,
        *,
        node: int,
        links: Links,
        group: CatalogGroup,
        voters: Callable[[], Collection[int]],
        timeout_s: float,
    ) -> None:
        """Watch from `node`.

        voters: the nodes that the group's majority is counted of.
        timeout_s: how long the majority may be out of reach before it counts as lost: what a
            change of leader may take.
        """
        self._node = node
        self._links = links
        self._group = group
        self._voters = voters
        self._timeout_s = timeout_s
        self._reached_s: float | None = None
        """When it was in reach last; None before the first time, when no client is served."""

    def is_lost(self) -> bool:
        """Say whether the majority was there and has been out of reach for too long since.

        To be asked now and then, several times within the timeout.
        """
        now_s = trio.current_time()
        if self._is_in_reach():
            self._reached_s = now_s
        return self._reached_s is not None and now_s - self._reached_s > self._timeout_s

    def _is_in_reach(self) -> bool:
        in_reach = {self._node, *self._links.up}
        voters = self._voters()
        return self._group.leader in in_reach and 2 * sum(v in in_reach for v in voters) > len(
            voters
        )
