"""The seam to the consensus core: what a group asks of it, and what it needs from storage.

Should a seed ever break the core in a way that the guard cannot mend, another one is put
behind this page; the log, the transport, the sessions and the simulator stay.

An engine is sans-IO and synchronous. Its caller hands in messages, link changes, time and
durability, calls `advance`, and then sends what `outgoing` gives. Committed entries come out
through the `apply` callable that the engine was built with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from leveret.consensus.membership import Configuration
from leveret.consensus.messages import Message
from leveret.transport import NodeId


class Role(Enum):
    """What a member does in its term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Log(Protocol):
    """One group's entries and vote, as `storage.GroupLog` keeps them."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def durable_index(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def voted_for(self) -> int | None: ...
    @property
    def commit_index(self) -> int: ...
    def append(self, command: bytes, index: int, term: int) -> None: ...
    def truncate_from(self, index: int) -> None: ...
    def save_vote(self, term: int, voted_for: int | None) -> None: ...
    def save_commit(self, index: int) -> None: ...
    def term_at(self, index: int) -> int: ...
    def command_at(self, index: int) -> bytes: ...
    def entries(
        self, start: int, stop: int, *, bytes_max: int
    ) -> Sequence[tuple[bytes, int, int]]: ...
    def trim(self, index: int) -> None: ...


class Durability(Protocol):
    """How far the node's journal is on disk, as `storage.Journal` counts it.

    Invariant: 0 <= durable <= appended; both only grow.
    """

    @property
    def appended(self) -> int: ...
    @property
    def durable(self) -> int: ...


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Timing and limits of one engine.

    election_timeout_s: a follower that hears no leader for a random time in this range asks for
        an election; the lower end is also how long it sticks to a leader that it heard.
    heartbeat_s: the longest silence of a leader; well below the election timeout.
    quorum_timeout_s: a leader that hears no majority for this long steps down.
    append_bytes_max: entries of one append message, unless a single one is larger.
    in_flight_bytes_max: entries sent to one follower and not yet answered.
    """

    election_timeout_s: tuple[float, float] = (0.5, 1.0)
    heartbeat_s: float = 0.1
    quorum_timeout_s: float = 1.0
    append_bytes_max: int = 1024 * 1024
    in_flight_bytes_max: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        low, high = self.election_timeout_s
        assert 0 < self.heartbeat_s * 2 < low < high
        assert self.quorum_timeout_s > self.heartbeat_s * 2
        assert 0 < self.append_bytes_max <= self.in_flight_bytes_max


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """The last entry that a snapshot covers, and the term of the entry before it."""

    index: int
    term: int
    previous_term: int


class Engine(Protocol):
    """One member of one Raft group."""

    @property
    def role(self) -> Role: ...
    @property
    def term(self) -> int: ...
    @property
    def leader(self) -> NodeId | None:
        """Who leads this term, as far as known."""
        ...

    @property
    def is_ready(self) -> bool:
        """Leads, and has applied everything of the terms before its own."""
        ...

    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def safe_index(self) -> int:
        """Every member holds the log up to here durably, as the leader told; 0 if unknown."""
        ...

    @property
    def transferring_to(self) -> NodeId | None:
        """Who is to lead next, while a transfer is under way; proposals are refused then."""
        ...

    @property
    def waits_for_disk(self) -> bool:
        """Whether `advance` has something to do once more of the journal is durable."""
        ...

    def became_durable(self) -> bool:
        """More of the journal is durable: whether `advance` has something to do.

        Otherwise only `outgoing` need be looked at.
        """
        ...

    @property
    def configuration(self) -> Configuration:
        """Who belongs to the group: the newest in the log, committed or not."""
        ...

    @property
    def configuration_index(self) -> int:
        """Where it stands in the log; 0 if nowhere."""
        ...

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration behind entry `index`, for a snapshot of it."""
        ...

    def is_linked(self, node: NodeId) -> bool:
        """Whether a member is reached, in the incarnation that counts."""
        ...

    def match(self) -> dict[NodeId, int]:
        """Return how far each other member is known to hold the leader's log, if we lead."""
        ...

    def propose(self, payload: bytes) -> bool:
        """Append an entry if this member is a ready leader, else return False.

        The entry may still be lost with the leadership; only `apply` tells that it is not.
        """
        ...

    def propose_configuration(self, configuration: Configuration) -> bool:
        """Append a configuration if this member is a ready leader and the last one is committed.

        It is to differ from the present one by at most one voter, and to keep this member.
        """
        ...

    def cut_from(self, index: int) -> None:
        """Drop the log from `index` on, where a snapshot shows another entry to be committed."""
        ...

    def step(self, sender: NodeId, message: Message) -> None:
        """Take one message of a peer.

        Raises:
            SafetyViolation: the message contradicts what is committed here.
        """
        ...

    def connected(self, node: NodeId, incarnation: int) -> None:
        """A link is up; nothing of an older link arrives any more."""
        ...

    def disconnected(self, node: NodeId) -> None: ...

    def tick(self) -> None:
        """Time has passed: elections, heartbeats, a leader without a majority."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether `advance` would do nothing, so that only `outgoing` need be looked at."""
        ...

    def begin_read(self) -> tuple[int, int] | None:
        """As a ready leader, begin to make sure that it leads; else return None.

        Returns a number, and the index up to which everything lies that is committed now. Once
        `confirmed_read` has reached the number, in the same term, that is certain.
        """
        ...

    @property
    def confirmed_read(self) -> int:
        """The last number of `begin_read` that a majority has confirmed in this term."""
        ...

    def advance(self) -> bool:
        """Append, commit, apply and answer as far as possible now.

        Call it after anything else here, and whenever the journal's `durable` has grown.
        Returns True if there is more to apply: yield to others and call again.

        Raises:
            MachineFailed: `apply` raised; the engine is unusable.
        """
        ...

    def outgoing(self) -> list[tuple[NodeId, Message]]:
        """Take the messages that may be sent now, in order."""
        ...

    def transfer(self, node: NodeId) -> bool:
        """Begin to hand leadership to a connected voter that keeps up; False if impossible."""
        ...
