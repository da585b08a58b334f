"""One Raft group on one node: the actor that drives the engine, and its face to the broker.

Owns the engine, the machine's life (restore, apply, snapshot), the submissions of this node and,
while it leads, those of all nodes. It knows the network as a `send` function and the disk as a
log that becomes durable by itself. All work happens in `flush`, once a batch of messages.

There is no restart: a group that failed has a machine or a log in an unknown state, so the next
instance raises the same error at once and the supervisor escalates until the process ends.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import trio

from leveret.actors import Actor
from leveret.consensus.engine import Durability, Engine, EngineConfig, Role, SnapshotMark
from leveret.consensus.entries import Batch, decode_entry, encode_entry, split_commands, unseal
from leveret.consensus.errors import BadEntry, BadSnapshot, SafetyViolation
from leveret.consensus.machine import Machine
from leveret.consensus.messages import (
    Append,
    Message,
    PreVote,
    PreVoteRequest,
    Reply,
    Resume,
    Stale,
    Submit,
    TimeoutNow,
    TransferRequest,
    Vote,
    VoteRequest,
)
from leveret.consensus.pysyncobj import PySyncObjEngine
from leveret.consensus.sessions import (
    GATHER_BYTES,
    GATHER_FROM,
    Admission,
    Done,
    Intake,
    Outbox,
    SessionTable,
)
from leveret.storage import GroupLog, Snapshot
from leveret.transport import NodeId

log = logging.getLogger(__name__)

COMMAND_BYTES_MAX = 144 * 1024 * 1024
"""Of one command. An entry of it alone fits into one frame of the transport (160 MiB), and
RabbitMQ's largest message is 128 MiB."""

TRANSFER_LAG_MAX = 16
"""Entries that a member may lack when it asks for leadership."""

_STATE = struct.Struct("<BQ")  # version, stamp in ms; then the sessions, then the machine's state
_STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Limits of one group.

    entries_in_flight_max: entries proposed and not yet applied; while one is, the next gathers.
    stall_s: submissions are sent again when none of them was applied for this long.
    pending_bytes_high: `room` waits above it.
    snapshot_entries, snapshot_bytes: a snapshot is taken after so many applied, whichever is first.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    entries_in_flight_max: int = 4
    stall_s: float = 1.0
    pending_bytes_high: int = 16 * 1024 * 1024
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 256 * 1024 * 1024


class Received(NamedTuple):
    """A message of a peer."""

    sender: NodeId
    message: Message


class LinkChanged(NamedTuple):
    """The link to a peer is up or down."""

    node: NodeId
    is_up: bool


class Tick(NamedTuple):
    """Time has passed."""


class Wake(NamedTuple):
    """There is work: submissions, durability, or more of the last batch."""


GroupMessage = Received | LinkChanged | Tick | Wake

TICK, WAKE = Tick(), Wake()


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


class Group(Actor[GroupMessage]):
    """One member of one Raft group. Use `Replicas`, which feeds it.

    members: all node ids of the cluster, fixed.
    boot: greater than at every earlier start of this node.
    machine: fresh; restored and brought up to what is known to be committed before this returns.
    send: hands a message to the link of a node; False when there is none.

    Raises:
        BadSnapshot: log and snapshot do not fit, or the snapshot is not ours.
        MachineFailed: the machine raised while the log was replayed.
    """

    def __init__(
        self,
        number: int,
        *,
        node: NodeId,
        members: Sequence[NodeId],
        boot: int,
        log: GroupLog,
        durability: Durability,
        snapshot: Snapshot | None,
        machine: Machine,
        send: Callable[[NodeId, int, Message], bool],
        now_s: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        rng: Random,
        config: GroupConfig | None = None,
    ) -> None:
        self.number = number
        self._node = node
        self._boot = boot
        self._log = log
        self._machine = machine
        self._send = send
        self._now_s = now_s
        self._wall_clock_ms = wall_clock_ms
        self._config = config or GroupConfig()
        self._was_started = False
        self._failure: BaseException | None = None
        self._is_awake = False

        self._sessions = SessionTable()
        self._stamp_ms = 0  # of the last entry applied
        self._stamp_proposed_ms = 0
        self._outbox = Outbox(node, boot)
        self._intake = Intake()
        self._in_flight = 0  # own entries proposed in this term and not applied
        self._resume: dict[NodeId, None] = {}
        self._completed: list[tuple[int, list[object]]] = []
        self._role_seen: tuple[int, NodeId | None, bool] = (0, None, False)
        self._role_listeners: list[Callable[[], None]] = []
        self._applied_listeners: list[Callable[[], None]] = []
        self._applied_seen = 0
        self._room = trio.lowlevel.ParkingLot()
        self._snapshot_index = 0
        self._entries_since_snapshot = 0
        self._bytes_since_snapshot = 0

        mark = None
        if snapshot is not None:
            mark = SnapshotMark(snapshot.index, snapshot.term, snapshot.prev_term)
            self._restore(snapshot)
        self._up: dict[NodeId, None] = {}
        self._engine: Engine = PySyncObjEngine(
            node=node,
            members=members,
            log=log,
            durability=durability,
            apply=self._apply,
            now_s=now_s,
            rng=rng,
            config=self._config.engine,
            snapshot=mark,
        )
        # Only now, as storage demands: the machine's state is that of the log.
        log.live = machine.live_entries

    # What the broker uses.

    @property
    def leader(self) -> NodeId | None:
        """Who leads, as far as this node knows; perhaps without having the majority any more."""
        return self._engine.leader

    @property
    def is_leader(self) -> bool:
        """Whether this node leads and has applied everything before its own term."""
        return self._engine.is_ready

    @property
    def term(self) -> int:
        """The Raft term."""
        return self._engine.term

    @property
    def applied_index(self) -> int:
        """The last entry that the machine has seen."""
        return self._engine.applied_index

    @property
    def pending_bytes(self) -> int:
        """What was submitted here and is not applied here."""
        return self._outbox.pending_bytes

    def submit(self, command: bytes, done: Done, *, is_urgent: bool = True) -> None:
        """Have the machine of every member apply `command`, once and in order of submission.

        is_urgent: False if nobody waits for it: it goes with the next urgent one or, alone, at
            the next tick, which saves it an entry and a sync of its own.
        done: called on the loop with this node's reply once this node has applied it. Never
            called if the process ends first; then the command may or may not be applied.
            It must not raise.
        command: not empty, and no larger than `COMMAND_BYTES_MAX`.
        """
        assert 0 < len(command) <= COMMAND_BYTES_MAX, "empty, or too large for a message"
        self._outbox.add(command, done, is_urgent=is_urgent)
        if is_urgent:
            self.wake()

    def barrier(self, done: Callable[[], None]) -> None:
        """Call `done` once this node has applied all that was committed before now."""
        self._outbox.add(b"", lambda _: done())
        self.wake()

    async def room(self) -> None:
        """Wait while too much is pending; for edges. Returns at once if there is room."""
        while self._outbox.pending_bytes > self._config.pending_bytes_high:
            await self._room.park()

    def entry(self, index: int) -> memoryview:
        """Return the content of log entry `index`, which the machine counts as live.

        Raises:
            NoSuchEntry: it is neither in the log nor live.
        """
        return unseal(self._log.command_at(index))

    def on_role(self, listener: Callable[[], None]) -> None:
        """Call `listener` after leader, term or readiness have changed."""
        self._role_listeners.append(listener)

    def on_applied(self, listener: Callable[[], None]) -> None:
        """Call `listener` once after a batch of entries was applied."""
        self._applied_listeners.append(listener)

    @property
    def snapshot_index(self) -> int:
        """The last entry that a saved snapshot covers; 0 without one."""
        return self._snapshot_index

    def transfer(self, node: NodeId) -> bool:
        """Begin to hand leadership over; False if this node does not lead or the other is down."""
        is_begun = self._engine.transfer(node)
        self.wake()
        return is_begun

    def status(self) -> GroupStatus:
        """Return what there is to know, for operators."""
        engine = self._engine
        last = engine.last_index
        return GroupStatus(
            number=self.number,
            role=engine.role,
            term=engine.term,
            leader=engine.leader,
            is_ready=engine.is_ready,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            first_index=self._log.first_index,
            last_index=last,
            durable_index=self._log.durable_index,
            snapshot_index=self._snapshot_index,
            pending_bytes=self.pending_bytes,
            peers={node: PeerStatus(match, last - match) for node, match in engine.match().items()},
        )

    # What `Replicas` uses.

    @property
    def waits_for_disk(self) -> bool:
        """Whether there is something to do once the journal has become durable further."""
        return self._engine.waits_for_disk

    def wake(self) -> None:
        """Let the actor look for work; cheap if it will anyway."""
        if self._was_started and not self._is_awake:
            self._is_awake = True
            self.ref.tell(WAKE)

    def seek_leadership(self) -> bool:
        """Ask the leader to hand over to this node; False if that would not succeed now."""
        engine = self._engine
        leader = engine.leader
        if leader is None or leader == self._node or engine.applied_index < engine.commit_index:
            return False
        return self._send(leader, self.number, TransferRequest(engine.term))

    def is_snapshot_due(self) -> bool:
        """Whether enough was applied since the last snapshot, and the log is durable so far."""
        config = self._config
        return self._log.durable_index >= self.applied_index and (
            self._entries_since_snapshot >= config.snapshot_entries
            or self._bytes_since_snapshot >= config.snapshot_bytes
        )

    def take_snapshot(self) -> tuple[SnapshotMark, bytes] | None:
        """Return the state and where it was taken; None before the first entry.

        A snapshot must not run ahead of the durable log: see `is_snapshot_due`.
        """
        index = self.applied_index
        if index <= self._log.first_index or index > self._log.durable_index:
            return None
        mark = SnapshotMark(index, self._log.term_at(index), self._log.term_at(index - 1))
        head = _STATE.pack(_STATE_VERSION, self._stamp_ms)
        self._entries_since_snapshot = self._bytes_since_snapshot = 0
        return mark, b"".join((head, self._sessions.encode(), self._machine.snapshot()))

    def snapshot_saved(self, mark: SnapshotMark) -> None:
        """The snapshot is durable: the log may be trimmed behind it."""
        self._snapshot_index = mark.index
        self.wake()

    # The actor.

    async def start(self) -> None:
        if self._failure is not None or self._was_started:
            raise SafetyViolation(f"group {self.number} has failed") from self._failure
        self._was_started = True
        self.wake()

    def receive(self, message: GroupMessage) -> None:
        try:
            self._receive(message)
        except BaseException as error:
            self._failure = error
            raise

    def _receive(self, message: GroupMessage) -> None:
        match message:
            case Wake():
                pass
            case Tick():
                self._tick()
            case LinkChanged(node, is_up):
                if is_up:
                    self._up[node] = None
                    self._engine.connected(node)
                    if node == self._engine.leader:
                        self._outbox.rewind()
                else:
                    self._up.pop(node, None)
                    self._engine.disconnected(node)
            case Received(sender, received):
                self._receive_from(sender, received)

    def _receive_from(self, sender: NodeId, message: Message) -> None:
        match message:
            case Submit(boot, sequence, commands, body):
                if self._engine.is_ready:
                    self._offer(Batch(sender, boot, sequence, commands, body))
            case Resume(term, boot, sequence):
                if term == self._engine.term and sender == self._engine.leader:
                    self._outbox.rewind(sequence if boot == self._boot else 0)
            case TransferRequest(term):
                # A transfer holds up proposals until the other has caught up.
                lag = self._engine.last_index - self._engine.match().get(sender, 0)
                if term == self._engine.term and lag <= TRANSFER_LAG_MAX:
                    self._engine.transfer(sender)
            case (
                Append()
                | Reply()
                | VoteRequest()
                | Vote()
                | PreVoteRequest()
                | PreVote()
                | Stale()
                | TimeoutNow()
            ):
                self._engine.step(sender, message)

    async def flush(self) -> None:
        self._is_awake = False
        try:
            is_more = self._work()
        except BaseException as error:
            self._failure = error
            raise
        if is_more:
            self.wake()

    def _work(self) -> bool:
        """Do all that can be done now; True if entries are left to apply."""
        is_more = self._engine.advance()
        self._note_role()
        self._submit_pending()
        if self._propose():
            is_more = self._engine.advance()
        self._send_resumes()
        self._outgoing()
        self._trim()
        self._tell()
        return is_more

    def _outgoing(self) -> None:
        for node, message in self._engine.outgoing():
            self._send(node, self.number, message)

    def _tick(self) -> None:
        self._engine.tick()
        self._outbox.hurry()
        if self._outbox.is_stalled(self._now_s(), self._config.stall_s):
            self._outbox.rewind()

    def _note_role(self) -> None:
        """See what has changed, and begin anew with a new leader."""
        engine = self._engine
        role = engine.term, engine.leader, engine.is_ready
        if role == self._role_seen:
            return
        self._role_seen = role
        term, leader, is_ready = role
        self._intake.clear()
        self._in_flight = 0
        self._outbox.rewind()
        if is_ready:
            self._resume = dict.fromkeys(self._up)
        log.info(
            "role changed",
            extra={"group": self.number, "term": term, "leader": leader, "ready": is_ready},
        )
        for listener in self._role_listeners:
            listener()

    # Submissions.

    def _submit_pending(self) -> None:
        """Send this node's batches to the leader, be it this node."""
        leader, is_ready = self._engine.leader, self._engine.is_ready
        if leader is None or (leader == self._node and not is_ready):
            return
        if leader != self._node and leader not in self._up:
            return
        for batch in self._outbox.to_send(self._now_s()):
            if leader == self._node:
                self._offer(batch)
            else:
                submit = Submit(batch.boot, batch.sequence, batch.commands, batch.body)
                self._send(leader, self.number, submit)

    def _offer(self, batch: Batch) -> None:
        try:
            for _ in split_commands(batch):
                pass
        except BadEntry as error:
            log.warning(
                "malformed batch dropped",
                extra={"group": self.number, "node": batch.node, "error": str(error)},
            )
            return
        if self._intake.offer(batch, self._sessions) is Admission.GAP:
            self._resume[batch.node] = None

    def _send_resumes(self) -> None:
        """Tell those whose batches were not taken where to go on."""
        resume, self._resume = self._resume, {}
        if self._engine.is_ready:
            for node in resume:
                boot, sequence = self._intake.next(node, self._sessions)
                self._send(node, self.number, Resume(self._engine.term, boot, sequence))

    def _propose(self) -> bool:
        """Make entries of what was taken in; True if any."""
        engine, intake = self._engine, self._intake
        is_any = False
        while intake.size_bytes and engine.is_ready and engine.transferring_to is None:
            if self._in_flight >= self._config.entries_in_flight_max:
                break
            if self._in_flight >= GATHER_FROM and intake.size_bytes < GATHER_BYTES:
                break
            batches = intake.take()
            # Never less than an earlier stamp, on whichever node that one was given.
            self._stamp_proposed_ms = max(
                self._stamp_proposed_ms, self._stamp_ms, self._wall_clock_ms()
            )
            is_taken = engine.propose(encode_entry(self._stamp_proposed_ms, batches))
            assert is_taken, "a ready leader without a transfer refused an entry"
            self._in_flight += 1
            is_any = True
        return is_any

    # Applying. Called by the engine, in the constructor too.

    def _apply(self, index: int, payload: bytes) -> None:
        stamp_ms, batches = decode_entry(payload)
        self._stamp_ms = stamp_ms = max(stamp_ms, self._stamp_ms)
        self._entries_since_snapshot += 1
        self._bytes_since_snapshot += len(payload)
        apply = self._machine.apply
        for batch, at in batches:
            if batch.node == self._node and batch.boot > self._boot:
                raise SafetyViolation(f"node {self._node} had a start {batch.boot} after this one")
            if not self._sessions.admit(batch):
                continue
            replies = [
                apply(index, stamp_ms, command, at + offset) if command else None
                for command, offset in split_commands(batch)
            ]
            if batch.node == self._node and batch.boot == self._boot:
                self._completed.append((batch.sequence, replies))
        # While a ready leader has entries in flight, all that is applied is its own.
        self._in_flight = max(self._in_flight - 1, 0)

    def _tell(self) -> None:
        """Give replies, and tell that something was applied."""
        completed, self._completed = self._completed, []
        for sequence, replies in completed:
            done = self._outbox.applied(sequence, self._now_s())
            for then, reply in zip(done, replies, strict=True):
                then(reply)
        is_applied = self._applied_seen != self._engine.applied_index
        if is_applied:
            self._applied_seen = self._engine.applied_index
            for listener in self._applied_listeners:
                listener()
        if self._room and self._outbox.pending_bytes <= self._config.pending_bytes_high // 2:
            self._room.unpark_all()
        if is_applied and (self._outbox.may_send or self._intake.size_bytes):
            # What gathered behind a full window may go now.
            self.wake()

    # Snapshots.

    def _restore(self, snapshot: Snapshot) -> None:
        state = snapshot.state
        if len(state) < _STATE.size or state[0] != _STATE_VERSION:
            raise BadSnapshot(f"group {self.number}: unknown snapshot version")
        _, self._stamp_ms = _STATE.unpack_from(state)
        self._sessions, offset = SessionTable.decode(state, _STATE.size)
        self._machine.restore(state[offset:])
        self._snapshot_index = snapshot.index

    def _trim(self) -> None:
        """Drop the log's beginning that a snapshot covers and that every member holds."""
        target = min(self._snapshot_index - 1, self._engine.safe_index)
        if target > self._log.first_index:
            self._log.trim(target)
