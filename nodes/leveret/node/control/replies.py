"""What the controls answer; the command line reads it, and prints it as JSON if asked."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["starting", "serving", "stopping"]
"""starting: clients are not served yet, most likely because a majority is not there."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What the node did since it started, in messages."""

    published: int
    confirmed: int
    delivered: int
    settled: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The same a second, over the last seconds."""

    published: float
    confirmed: float
    delivered: float
    settled: float


class MemberLag(msgspec.Struct, frozen=True, kw_only=True):
    """What a leader knows of another member: the last entry that it holds, and how many it lacks.

    The others' last index is 0 until they have answered this leader.
    """

    match_index: int
    lag: int


class GroupHere(msgspec.Struct, frozen=True, kw_only=True):
    """One Raft group as one node sees it; group 0 is the catalog, the others are the shards."""

    group: int
    role: str
    term: int
    leader: int | None
    is_ready: bool
    commit_index: int
    applied_index: int
    last_index: int
    peers: dict[int, MemberLag]
    """Of the leader only."""
    voters: list[int]
    learners: list[int]
    """Members that get the log and do not vote yet."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node, as it sees itself."""

    node: int
    name: str
    cluster: str
    version: str
    pid: int
    phase: Phase
    incarnation: int
    """Of its data folder."""
    boot: int
    uptime_s: float
    data_dir: str
    amqp: list[str]
    amqp_tls: list[str]
    peers: str | None
    """Where it takes other nodes' links; None if it takes none."""
    linked: list[int]
    alarms: list[str]
    memory_bytes: int | None
    memory_limit_bytes: int | None
    disk_free_bytes: int
    disk_free_limit_bytes: int
    connections: int
    queues: int
    """Of the whole cluster, as this node knows."""
    messages_ready: int
    """In the queues that this node leads; likewise `messages_unacked`."""
    messages_unacked: int
    totals: Totals
    rates: Rates
    groups: list[GroupHere]


class NodeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the cluster as the asked node sees it."""

    node: int
    name: str
    is_up: bool
    addresses: list[str]
    incarnation: int
    boot: int
    phase: Phase | None
    """None if it did not tell; likewise `version`."""
    version: str | None
    leads: list[int]
    """The groups that it leads."""


class MemberSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One member of a group; the fields are None if neither it nor the leader told."""

    node: int
    is_voter: bool
    role: str | None
    applied_index: int | None
    lag: int | None


class GroupSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One Raft group as its leader sees it, or without one, as those see it who answered."""

    group: int
    leader: int | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    members: list[MemberSeen]

    @property
    def voters(self) -> list[int]:
        """The nodes that vote in it."""
        return [member.node for member in self.members if member.is_voter]


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as one node sees it, and as those tell that it has links to."""

    cluster: str
    asked: int
    nodes: list[NodeSeen]
    groups: list[GroupSeen]


class Transferred(msgspec.Struct, frozen=True, kw_only=True):
    """Who led a group, and who does now; the same if there was nothing to do."""

    group: int
    before: int
    now: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A group that is led by another node now."""

    group: int
    before: int
    now: int


class NotMoved(msgspec.Struct, frozen=True, kw_only=True):
    """A group that should be led by another node, and why it is not."""

    group: int
    text: str


class Rebalanced(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved and what was not; and how many groups each node leads now."""

    moved: list[Moved]
    failed: list[NotMoved]
    leads: dict[int, int]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """The node that belongs to the cluster no more."""

    node: int
    name: str


class GroupDigest(msgspec.Struct, frozen=True, kw_only=True):
    """A hash of one replica's state after the entry that it applied last."""

    group: int
    applied_index: int
    digest: str


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """The states of all replicas of a node."""

    node: int
    groups: list[GroupDigest]


class JoinGuide(msgspec.Struct, frozen=True, kw_only=True):
    """What another node needs to join by the asked one."""

    cluster: str
    address: str
    token: str
    is_local: bool
    """Only nodes of the same machine reach the address."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """The secret that the nodes of a cluster share, in hexadecimal digits."""

    token: str
