"""`cluster status`: all nodes and groups, put together from what each reachable node tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leveret.transport import NodeId

from .controls import ControlError
from .replies import ClusterStatus, GroupHere, GroupSeen, MemberSeen, NodeSeen, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .admin import Admin
    from .controls import NoArguments
    from .parts import NodeParts

TELL_WITHIN_S: Final = 1.5
"""A node that did not tell its status by then counts as silent."""


async def cluster_status(parts: NodeParts, admin: Admin, _: NoArguments) -> ClusterStatus:
    """Return the cluster as this node and those that it reaches see it."""
    told = await ask_all(admin)
    groups = seen_groups(told)
    leads: dict[int, list[int]] = {}
    for group in groups:
        if group.leader is not None:
            leads.setdefault(group.leader, []).append(group.group)
    nodes = [
        NodeSeen(
            node=node.id,
            name=node.name,
            is_up=node.id == admin.node or node.id in admin.others,
            addresses=list(node.addresses),
            incarnation=node.incarnation,
            boot=node.boot,
            phase=by.phase if (by := told.get(node.id)) else None,
            version=by.version if by else None,
            leads=leads.get(node.id, []),
        )
        for node in sorted(parts.catalog.model.nodes(), key=lambda node: node.id)
    ]
    return ClusterStatus(
        cluster=parts.identity.cluster, asked=admin.node, nodes=nodes, groups=groups
    )


async def ask_all(admin: Admin) -> dict[int, NodeStatus]:
    """Return the status of each node that tells it in time."""
    told = {int(admin.node): await admin.ask(admin.node, "status", NodeStatus, within_s=1)}

    async def ask(node: NodeId) -> None:
        try:
            told[node] = await admin.ask(node, "status", NodeStatus, within_s=TELL_WITHIN_S)
        except ControlError:
            return  # it is shown as one that is silent

    async with trio.open_nursery() as nursery:
        for node in admin.others:
            nursery.start_soon(ask, node)
    return told


def seen_groups(told: Mapping[int, NodeStatus]) -> list[GroupSeen]:
    """Return all groups as the nodes that told their status see them together."""
    return [
        group_seen(number, {node: by.groups[number] for node, by in told.items()})
        for number in range(min(len(by.groups) for by in told.values()))
    ]


def group_seen(number: int, here: Mapping[int, GroupHere]) -> GroupSeen:
    """Put together what nodes tell of one group."""
    leaders = [node for node, view in here.items() if view.role == "leader"]
    # One of an older term does not know yet that it leads no more.
    leader = max(leaders, key=lambda node: here[node].term, default=None)
    best = here[leader] if leader else max(here.values(), key=lambda view: view.applied_index)
    return GroupSeen(
        group=number,
        leader=leader,
        term=max(view.term for view in here.values()),
        commit_index=best.commit_index,
        applied_index=best.applied_index,
        last_index=best.last_index,
        members=[
            _member(node, here.get(node), best if leader else None, is_voter=node in best.voters)
            for node in sorted({*best.voters, *best.learners})
        ],
    )


def _member(
    node: int, view: GroupHere | None, leader: GroupHere | None, *, is_voter: bool
) -> MemberSeen:
    peer = leader.peers.get(node) if leader else None
    is_leader = view is not None and view is leader
    return MemberSeen(
        node=node,
        is_voter=is_voter,
        role=view.role if view else None,
        applied_index=view.applied_index if view else None,
        lag=0 if is_leader else peer.lag if peer else None,
    )
