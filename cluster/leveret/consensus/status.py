"""What an operator may see of a group."""

from __future__ import annotations

from dataclasses import dataclass

from leveret.consensus.engine import Engine, Log, Role
from leveret.consensus.steering import is_settled
from leveret.transport import NodeId


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What the leader knows of a member. lag: entries that it lacks."""

    match_index: int
    lag: int


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One group as seen from this node. `peers` is empty unless this node leads."""

    number: int
    role: Role
    term: int
    leader: NodeId | None
    is_ready: bool
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    durable_index: int
    snapshot_index: int
    pending_bytes: int
    peers: dict[NodeId, PeerStatus]
    voters: dict[NodeId, int]
    learners: dict[NodeId, int]
    """Nodes and their incarnations."""
    is_settled: bool
    """Whether no change of the members is under way, as far as this node knows."""
    is_installing: bool


def status_of(
    engine: Engine,
    log: Log,
    number: int,
    snapshot_index: int,
    pending_bytes: int,
    *,
    is_installing: bool,
) -> GroupStatus:
    """Return the status of the group whose engine and log these are."""
    last = engine.last_index
    return GroupStatus(
        number=number,
        role=engine.role,
        term=engine.term,
        leader=engine.leader,
        is_ready=engine.is_ready,
        commit_index=engine.commit_index,
        applied_index=engine.applied_index,
        first_index=log.first_index,
        last_index=last,
        durable_index=log.durable_index,
        snapshot_index=snapshot_index,
        pending_bytes=pending_bytes,
        peers={node: PeerStatus(match, last - match) for node, match in engine.match().items()},
        voters=dict(engine.configuration.voters),
        learners=dict(engine.configuration.learners),
        is_settled=is_settled(engine),
        is_installing=is_installing,
    )
