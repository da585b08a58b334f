"""What an operator calls things: nodes by name or number, groups by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .controls import ControlError

if TYPE_CHECKING:
    from leveret.catalog.model import Node
    from leveret.consensus.group import Group

    from .parts import NodeParts


def find_member(parts: NodeParts, text: str) -> Node:
    """Return the node of this name or number.

    Raises:
        ControlError: the cluster has none.
    """
    model = parts.catalog.model
    node = model.node_named(text)
    if node is None and text.isdecimal():
        node = model.node(int(text))
    if node is None:
        known = ", ".join(known.name for known in sorted(model.nodes(), key=lambda n: n.id))
        raise ControlError("not_found", f"no node {text!r}", remedy=f"there are: {known}")
    return node


def find_group(parts: NodeParts, number: int) -> Group:
    """Return this node's member of a group.

    Raises:
        ControlError: there is no such group.
    """
    groups = parts.replicas.groups
    if not 0 <= number < len(groups):
        remedy = f"there are 0 (the catalog) to {len(groups) - 1}"
        raise ControlError("not_found", f"no group {number}", remedy=remedy)
    return groups[number]
