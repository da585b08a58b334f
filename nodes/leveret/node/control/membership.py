"""`cluster remove`: a node leaves the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.catalog.commands import RemoveNode

from .changes import change
from .cluster_status import ask_all, seen_groups
from .controls import Arguments, ControlError
from .leadership import move_leaders, spread
from .naming import find_member
from .replies import Removed

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts


class MemberArguments(Arguments, frozen=True):
    """The name or number of a node."""

    node: str


async def remove(parts: NodeParts, admin: Admin, arguments: MemberArguments) -> Removed:
    """Remove a node for ever, once its leaders have moved; the groups follow by themselves.

    `cluster status` shows how far they are.
    """
    node = find_member(parts, arguments.node)
    if node.id == admin.node:
        raise ControlError(
            "refused",
            f"{node.name} would not see its own removal to the end",
            remedy="ask another node; the last one cannot be removed",
        )
    others = {other.id for other in parts.catalog.model.nodes()} - {node.id}
    up = others & {admin.node, *admin.others}
    if 2 * len(up) <= len(others):
        raise ControlError(
            "unavailable",
            f"only {len(up)} of the {len(others)} nodes that would remain can be reached, which"
            " is no majority",
            remedy="start the others first, or remove one that is down",
        )
    told = await ask_all(admin)
    groups = seen_groups(told)
    able = [other for other in up if other in told and told[other].phase != "stopping"]
    targets = spread({group.group: set(group.voters) - {node.id} for group in groups}, able)
    # What cannot be moved costs an election, or moves when the group lets the node go.
    await move_leaders(
        admin,
        {group.group: group.leader for group in groups if group.leader == node.id},
        targets,
    )
    await change(parts, RemoveNode(node.id))
    return Removed(node=node.id, name=node.name)
