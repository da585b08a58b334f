"""Keeps three lists of nodes in line: the catalog's, the links', and who is really there.

The catalog's nodes are the members that the cluster is to have; each Raft group works towards
them by itself (`consensus.membership`). Links are made to these. A member that the cluster was
configured with and that the catalog does not know yet, or one that came back with a new data
folder, is admitted by whichever member sees it: the second such command changes nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from leveret.catalog.commands import AdmitNode, Changed, Created, Deleted, Refusal, Restored
from leveret.catalog.model import Node
from leveret.transport import Address, NodeId

from .admission import follow_catalog, members_of
from .membership import keep_members

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leveret.catalog import Catalog, CatalogMachine
    from leveret.catalog.commands import Done, Event
    from leveret.storage import Disk

    from .admission import Links
    from .introductions import Introductions
    from .membership import Membership

log = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""How often it is looked whether somebody is to be admitted."""
AGAIN_S: Final = 5.0
"""A node that was refused is asked for again after so long."""
PARTING_S: Final = 2.0
"""A removed node keeps its links for so long, to hear that it was removed."""


class Roster:
    """See the module."""

    def __init__(
        self,
        member: Membership,
        *,
        disk: Disk,
        catalog: Catalog,
        links: Links,
        introductions: Introductions,
        removed: Callable[[], None],
    ) -> None:
        """Keep the lists of the node `member` from now on; `run` admits.

        disk: where the members are kept for the next start.
        removed: called when this node itself was removed.
        """
        self._member = member
        self._founders = frozenset(member.members)
        self._disk = disk
        self._catalog = catalog
        self._links = links
        self._introductions = introductions
        self._removed = removed
        self._asked_s: dict[NodeId, float] = {}
        self._parting: dict[NodeId, float] = {}
        catalog.on_change(self._catalog_changed)
        follow_catalog(links, catalog.model)

    async def run(self) -> None:
        """Admit those who are to be members, and part from those who are none, until cancelled."""
        while True:
            now_s = trio.current_time()
            self._admit(now_s)
            for node in [node for node, at_s in self._parting.items() if now_s >= at_s]:
                del self._parting[node]
                self._links.remove_peer(node)
            self._member = await keep_members(self._disk, self._member, self._members())
            await trio.sleep(LOOK_S)

    def _members(self) -> dict[NodeId, Address]:
        """Return those of the catalog, and those that it does not know yet."""
        model = self._catalog.model
        waiting = {n: at for n, at in self._member.members.items() if n not in model.removed_nodes}
        return waiting | members_of(model)

    def _admit(self, now_s: float) -> None:
        model = self._catalog.model
        if model.cluster is None:
            return
        for node, introduced in self._introductions.known.items():
            known = model.node(node)
            if known is None:
                is_new = node in self._founders and node not in model.removed_nodes
            else:
                is_new = introduced.incarnation > known.incarnation
            if is_new and now_s - self._asked_s.get(node, -AGAIN_S) >= AGAIN_S:
                self._asked_s[node] = now_s
                log.info(
                    "node is to be a member",
                    extra={"peer": node, "incarnation": introduced.incarnation},
                )
                self._catalog.submit(
                    AdmitNode(node, introduced.name, introduced.peer, introduced.incarnation),
                    self._answered,
                )

    def _answered(self, reply: Done[Node] | Refusal) -> None:
        if isinstance(reply, Refusal):
            log.warning("node not admitted", extra={"peer_name": reply.name, "reason": reply.kind})

    def _catalog_changed(self, event: Event) -> None:
        match event:
            case Created(Node()) | Changed(Node()):
                follow_catalog(self._links, self._catalog.model)
            case Deleted(Node() as node) if node.id == self._member.node:
                self._removed()
            case Deleted(Node() as node):
                self._parting[NodeId(node.id)] = trio.current_time() + PARTING_S
            case Restored():
                follow_catalog(self._links, self._catalog.model)
                if self._member.node in self._catalog.model.removed_nodes:
                    self._removed()
            case _:
                pass


class Desired:
    """What each Raft group is to consist of: the catalog's nodes and their incarnations.

    Nobody, which is to say unknown, until `is_known` is set: what a starting node reads from its
    disk may be of a time before others were admitted or removed, and a group that it leads would
    take that back.
    """

    def __init__(self, catalog: CatalogMachine) -> None:
        self._catalog = catalog
        self.is_known = False

    def __call__(self) -> Mapping[NodeId, int]:
        if not self.is_known:
            return {}
        return {NodeId(node.id): node.incarnation for node in self._catalog.model.nodes()}
