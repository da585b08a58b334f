"""What an operator may see of a group."""

from __future__ import annotations

from dataclasses import dataclass

from leveret.consensus.engine import Role
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
    is_installing: bool
