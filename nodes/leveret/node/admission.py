"""Decides on nodes that ask to join, by asking the catalog, and tells the links of its nodes.

The links hear only the catalog: who is in it may link, at the address that it has, and nobody else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from leveret.catalog import CatalogTimeout, ChangeRefused
from leveret.catalog.commands import AdmitNode
from leveret.transport import Address, Admission, NodeId, Refused

from .units import parse_address

if TYPE_CHECKING:
    from leveret.catalog import Catalog
    from leveret.catalog.model import Model, Node
    from leveret.transport import JoinRequest

log = logging.getLogger(__name__)

CATALOG_S: Final = 10.0
"""For each question to the catalog; two of them are well within a join's 30 s."""
ATTEMPTS: Final = 3
"""A name made from the next number may be taken by another newcomer meanwhile."""


class Links(Protocol):
    """What `follow_catalog` needs of `transport.Peers`; see there."""

    def add_peer(self, node: NodeId, address: Address, *, incarnation: int = 0) -> None: ...
    def remove_peer(self, node: NodeId) -> None: ...


def members_of(model: Model) -> dict[NodeId, Address]:
    """Return all nodes of the catalog whose address for other nodes is known."""
    addresses = ((NodeId(node.id), _peer_address(node)) for node in model.nodes())
    return {node: address for node, address in addresses if address is not None}


def follow_catalog(links: Links, model: Model) -> None:
    """Let the links be those of the catalog's nodes; to be called whenever those have changed.

    A node is removed when it has left, not when it is unknown: fixed members are in the catalog
    only after their first registration, and must link to get there.
    """
    for node in model.nodes():
        if (address := _peer_address(node)) is not None:
            links.add_peer(NodeId(node.id), address, incarnation=node.incarnation)
    for number in model.removed_nodes:
        links.remove_peer(NodeId(number))


def _peer_address(node: Node) -> Address | None:
    try:
        return parse_address(node.peer) if node.peer else None
    except ValueError:  # of a version that writes it otherwise
        return None


class Admissions:
    """The handler for `Peers.on_join`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def admit(self, request: JoinRequest) -> Admission:
        """Make the newcomer a node of the catalog; the same request gets the same answer again.

        Raises:
            Refused: with the reason, for the newcomer's operator.
        """
        try:
            node = await self._admit(request)
        except ChangeRefused as error:
            raise Refused(_reason(error, request)) from error
        except CatalogTimeout as error:
            raise Refused(
                "no majority of the cluster's nodes answers; try again when it does"
            ) from error
        members = members_of(self._catalog.model)
        members[NodeId(node.id)] = request.address
        return Admission(node=NodeId(node.id), name=node.name, members=members)

    async def _admit(self, request: JoinRequest) -> Node:
        for attempt in range(1, ATTEMPTS + 1):
            await self._catalog.barrier(CATALOG_S)
            command = AdmitNode(
                0, request.name or self._name(request), str(request.address), request.incarnation
            )
            try:
                done = await self._catalog.change(command, CATALOG_S)
            except ChangeRefused as error:
                if request.name or error.refusal.kind != "in_use" or attempt == ATTEMPTS:
                    raise
            else:
                assert done.entity is not None
                return done.entity
        raise AssertionError("the last attempt returned or raised")

    def _name(self, request: JoinRequest) -> str:
        """Return the name of a newcomer that gave none: that which it was given before, or anew."""
        model, peer = self._catalog.model, str(request.address)
        for node in model.nodes():
            # Two folders may have been made in the same millisecond, but not be at one address.
            if (node.incarnation, node.peer) == (request.incarnation, peer):
                return node.name
        return f"node-{model.node_next}"


def _reason(error: ChangeRefused, request: JoinRequest) -> str:
    match error.refusal.kind:
        case "in_use":
            return (
                f"the name {error.refusal.name!r} belongs to another node; choose another with"
                " --name, or remove that node first if it is gone for good"
            )
        case "not_allowed":
            return "the cluster has no number left to give"
        case _:
            return f"the catalog refused {request.name or 'it'}: {error}"
