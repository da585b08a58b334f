"""Keeps three lists of nodes in line: the catalog's, the links', and who is really there.

The catalog's nodes are the members that the cluster is to have; each Raft group works towards
them by itself (`consensus.membership`). Links are made to these. A member of the configuration
that the catalog does not know yet, or that came back with a new data folder, is admitted by
whichever member sees it: the second such command changes nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import trio

from leveret.catalog.commands import AdmitNode, Changed, Created, Deleted, Refusal, Restored
from leveret.catalog.model import Node
from leveret.transport import Address, NodeId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from leveret.catalog import Catalog
    from leveret.catalog.commands import Done, Event

    from .introductions import Introductions

log = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""How often it is looked whether somebody is to be admitted."""
AGAIN_S: Final = 5.0
"""A node that was refused is asked for again after so long."""
PARTING_S: Final = 2.0
"""A removed node keeps its links for so long, to hear that it was removed."""


class PeerLinks(Protocol):
    """What is needed of the links to the other nodes."""

    def add_peer(self, node: NodeId, address: Address, *, incarnation: int = 0) -> None:
        """Let a node be a member from now on, at this address."""

    def remove_peer(self, node: NodeId) -> None:
        """Let a node be no member any more."""


class Roster:
    """See the module."""

    def __init__(
        self,
        node: NodeId,
        configured: Collection[NodeId],
        *,
        catalog: Catalog,
        links: PeerLinks,
        introductions: Introductions,
        removed: Callable[[], None],
    ) -> None:
        """Keep the lists of `node` from now on; `run` admits.

        configured: the members that the cluster begins with.
        removed: called when this node itself was removed.
        """
        self._node = node
        self._configured = configured
        self._catalog = catalog
        self._links = links
        self._introductions = introductions
        self._removed = removed
        self._asked_s: dict[NodeId, float] = {}
        self._parting: dict[NodeId, float] = {}
        catalog.on_change(self._catalog_changed)
        self._link_all()

    async def run(self) -> None:
        """Admit those who are to be members, and part from those who are none, until cancelled."""
        while True:
            now_s = trio.current_time()
            self._admit(now_s)
            for node in [node for node, at_s in self._parting.items() if now_s >= at_s]:
                del self._parting[node]
                self._links.remove_peer(node)
            await trio.sleep(LOOK_S)

    def _admit(self, now_s: float) -> None:
        model = self._catalog.model
        if model.cluster is None:
            return
        for node, introduced in self._introductions.known.items():
            known = model.node(node)
            if known is None:
                is_new = node in self._configured and node not in model.removed_nodes
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
            case Created(Node() as node) | Changed(Node() as node):
                self._parting.pop(NodeId(node.id), None)
                self._link(node)
            case Deleted(Node() as node):
                if node.id == self._node:
                    self._removed()
                else:
                    self._parting[NodeId(node.id)] = trio.current_time() + PARTING_S
            case Restored():
                if self._node in self._catalog.model.removed_nodes:
                    self._removed()
                self._link_all()
            case _:
                pass

    def _link_all(self) -> None:
        for node in self._catalog.model.nodes():
            self._link(node)
        for number in self._catalog.model.removed_nodes:
            self._links.remove_peer(NodeId(number))

    def _link(self, node: Node) -> None:
        host, _, port = node.peer.rpartition(":")
        if host and port.isdigit() and node.id != self._node:
            address = Address(host.strip("[]"), int(port))
            self._links.add_peer(NodeId(node.id), address, incarnation=node.incarnation)


def desired_members(nodes: Collection[Node]) -> Mapping[NodeId, int]:
    """Return what each Raft group is to consist of: the catalog's nodes and their incarnations."""
    return {NodeId(node.id): node.incarnation for node in nodes}
