"""`status`: what one node is and does; cheap enough to be asked twice a second."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from leveret.node.version import version

from .replies import GroupHere, MemberLag, NodeStatus

if TYPE_CHECKING:
    from leveret.consensus import GroupStatus

    from .controls import NoArguments
    from .parts import NodeParts


async def status(parts: NodeParts, _: NoArguments) -> NodeStatus:
    """Return this node's status."""
    config, endpoints, model = parts.config, parts.endpoints, parts.catalog.model
    me = parts.identity
    ready, unacked = parts.directory.depth()
    return NodeStatus(
        node=me.node,
        name=me.name,
        cluster=me.cluster,
        version=version(),
        pid=os.getpid(),
        phase=parts.phase,
        incarnation=me.incarnation,
        boot=me.boot,
        uptime_s=round(trio.current_time() - parts.started_s, 1),
        data_dir=str(config.node.data_dir),
        amqp=[str(address) for address in endpoints.amqp],
        amqp_tls=[str(address) for address in endpoints.amqp_tls],
        peers=str(endpoints.peers) if endpoints.peers else None,
        linked=sorted(parts.peers.up),
        alarms=parts.alarms.texts(),
        memory_bytes=parts.alarms.memory_bytes,
        memory_limit_bytes=parts.alarms.memory_limit_bytes,
        disk_free_bytes=parts.disk.free_bytes(),
        disk_free_limit_bytes=config.storage.disk_free_limit_bytes,
        connections=parts.listener.connections,
        queues=sum(len(model.queues(vhost.name)) for vhost in model.vhosts()),
        messages_ready=ready,
        messages_unacked=unacked,
        totals=parts.rates.totals(),
        rates=parts.rates.rates(),
        groups=[_group(group.status()) for group in parts.replicas.groups],
    )


def _group(status: GroupStatus) -> GroupHere:
    return GroupHere(
        group=status.number,
        role=status.role.value,
        term=status.term,
        leader=status.leader,
        is_ready=status.is_ready,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        last_index=status.last_index,
        peers={
            node: MemberLag(match_index=peer.match_index, lag=peer.lag)
            for node, peer in status.peers.items()
        },
        voters=sorted(status.voters),
        learners=sorted(status.learners),
    )
