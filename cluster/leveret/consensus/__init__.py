"""Agreement of the nodes: Raft groups over PySyncObj's core, and exactly-once submission to them.

machine    the interface of a replicated state machine
replicas   all groups of a node
group      one group on one node: submissions, entries, snapshots
mail       what a group is told
status     what operators see of it
sessions   exactly-once submission
membership who belongs to a group, and how that changes
steering   the leader's way to the members that are desired
manifest   bytes of a snapshot
installs   a snapshot's way to a member that lags behind the log
engine     the seam to the core
pysyncobj  the engine over PySyncObj
guard      what makes that core safe: everything between it and the wire
elections  when to stand for election
journal    a group's log as PySyncObj's journal
entries    bytes of an entry
messages   what members say to each other
"""

from leveret.consensus.config import GroupConfig
from leveret.consensus.engine import EngineConfig, Role, SnapshotMark
from leveret.consensus.errors import (
    BadEntry,
    BadMessage,
    BadSnapshot,
    ConsensusError,
    MachineFailed,
    SafetyViolation,
)
from leveret.consensus.group import Group
from leveret.consensus.machine import Machine
from leveret.consensus.membership import Configuration, Members
from leveret.consensus.replicas import Replicas, ReplicasConfig
from leveret.consensus.sessions import Unknown
from leveret.consensus.status import GroupStatus, PeerStatus

__all__ = [
    "BadEntry",
    "BadMessage",
    "BadSnapshot",
    "Configuration",
    "ConsensusError",
    "EngineConfig",
    "Group",
    "GroupConfig",
    "GroupStatus",
    "Machine",
    "MachineFailed",
    "Members",
    "PeerStatus",
    "Replicas",
    "ReplicasConfig",
    "Role",
    "SafetyViolation",
    "SnapshotMark",
    "Unknown",
]
