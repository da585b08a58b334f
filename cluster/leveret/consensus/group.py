"""One Raft group on one node: the actor that drives the engine, and its face to the broker.

Owns the engine, the machine's life (restore, apply, snapshot), the submissions of this node and,
while it leads, those of all nodes. It knows the network as a `send` function and the disk as a
log that becomes durable by itself. All work happens in `flush`, once a batch of messages.

There is no restart: a group that failed has a machine or a log in an unknown state, so the next
instance raises the same error at once and the supervisor escalates until the process ends.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable
from functools import partial
from random import Random

import trio

from leveret.actors import Actor
from leveret.consensus.config import COMMAND_BYTES_MAX, TRANSFER_LAG_MAX, GroupConfig
from leveret.consensus.engine import Durability, Engine, SnapshotMark
from leveret.consensus.entries import (
    Batch,
    decode_entry,
    encode_entry,
    is_whole,
    seal_configuration,
    split_commands,
    unseal,
)
from leveret.consensus.errors import SafetyViolation
from leveret.consensus.guard import Guard
from leveret.consensus.installs import (
    Install,
    Lender,
    SnapshotStore,
    begin_log_anew,
    finish_install,
)
from leveret.consensus.journal import check_continues
from leveret.consensus.machine import Machine
from leveret.consensus.mail import WAKE, GroupMessage, LinkChanged, Received, Tick, Wake
from leveret.consensus.manifest import Manifest
from leveret.consensus.membership import Configuration, Members
from leveret.consensus.messages import (
    Beat,
    EntriesPart,
    FetchEntries,
    FetchState,
    Heard,
    Installed,
    Message,
    Offer,
    ReadGrant,
    ReadRequest,
    Resume,
    StatePart,
    Submit,
    TransferRequest,
)
from leveret.consensus.pysyncobj import PySyncObjEngine
from leveret.consensus.reads import Reads
from leveret.consensus.sessions import Admission, Done, Intake, Outbox, SessionTable, Unknown
from leveret.consensus.status import GroupStatus, status_of
from leveret.consensus.steering import Steering, is_steered
from leveret.storage import GroupLog
from leveret.transport import NodeId

log = logging.getLogger(__name__)


class Group(Actor[GroupMessage]):
    """One member of one Raft group. Use `Replicas`, which feeds it.

    incarnation: of this node's data folder (see `membership`).
    desired: which nodes are to be members; whoever leads works towards it. Empty if unknown.
    boot: greater than at every earlier start of this node.
    machine: fresh; restored and brought up to what is known to be committed before this returns.
    snapshots: where the machine's state comes from at first, and a fetched one goes.
    send: hands a message to the link of a node; False when there is none.
    is_congested: whether so much is on its way to a node that what is large should wait.
    guard: another class only to show what a guard is for.

    Raises:
        BadSnapshot: log and snapshot do not fit, or the snapshot is not ours.
        MachineFailed: the machine raised while the log was replayed.
    """

    def __init__(
        self,
        number: int,
        *,
        node: NodeId,
        incarnation: int,
        desired: Callable[[], Members],
        boot: int,
        log: GroupLog,
        durability: Durability,
        snapshots: SnapshotStore,
        machine: Machine,
        send: Callable[[NodeId, int, Message], bool],
        is_congested: Callable[[NodeId], bool],
        now_s: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        rng: Random,
        config: GroupConfig | None = None,
        guard: type[Guard] = Guard,
    ) -> None:
        self.number = number
        self._node = node
        self._incarnation = incarnation
        self._steering = Steering(number, node, desired)
        self._boot = boot
        self._log = log
        self._durability = durability
        self._snapshots = snapshots
        self._machine = machine
        self._send = send
        self._is_congested = is_congested
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
        self._reads = Reads(node, boot, lambda to, message: send(to, number, message))
        self._completed: list[tuple[int, list[object]]] = []
        self._role_seen: tuple[int, NodeId | None, bool] = (0, None, False)
        self._role_listeners: list[Callable[[], None]] = []
        self._applied_listeners: list[Callable[[], None]] = []
        self._applied_seen = 0
        self._room = trio.lowlevel.ParkingLot()
        self._snapshot_index = self._older_snapshot_index = 0
        self._entries_since_snapshot = 0
        self._bytes_since_snapshot = 0
        self._up: dict[NodeId, int] = {}
        self._lender = Lender(log, snapshots.newest)
        self._install: Install | None = None
        self._make_engine = partial(
            PySyncObjEngine,
            node=node,
            incarnation=incarnation,
            log=log,
            durability=durability,
            apply=self._apply,
            now_s=now_s,
            rng=rng,
            is_congested=is_congested,
            config=self._config.engine,
            guard=guard,
        )

        snapshot = snapshots.newest()
        if snapshot is None:
            self._engine: Engine = self._make_engine(configuration=Configuration())
        else:
            finish_install(log, snapshot)
            manifest = Manifest.decode(snapshot.state)
            mark = SnapshotMark(snapshot.index, snapshot.term, snapshot.prev_term)
            check_continues(log, mark)  # before the machine's state is touched
            self._restore(mark, manifest)
            self._engine = self._make_engine(snapshot=mark, configuration=manifest.configuration)
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
        """Call `done` once this node has applied all that was committed before now.

        Costs a round of messages and no entry. Never called as long as no majority is in reach.
        """
        self._reads.add(done)
        self.wake()

    def submitted(self, done: Callable[[], None]) -> None:
        """Call `done` once all that was submitted here before now is applied here."""
        if not self._outbox.pending_bytes:
            done()
            return
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
        state = self.number, self._snapshot_index, self.pending_bytes
        is_installing = self._install is not None
        return status_of(self._engine, self._log, *state, is_installing=is_installing)

    @property
    def configuration(self) -> Configuration:
        """Who belongs to the group, as far as this node knows; nobody in a fresh data folder."""
        return self._engine.configuration

    def found(self) -> None:
        """Begin the group's history, with this node as its only member.

        Only where no node of the cluster has a history of it, which nobody here can know.
        """
        log, alone = self._log, Configuration({self._node: self._incarnation})
        assert log.last_index == 1, "the group has a history"
        log.append(seal_configuration(alone), 2, log.term_at(1))
        self._renew_engine(None, Configuration())

    # What `Replicas` uses.

    @property
    def waits_for_disk(self) -> bool:
        """Whether there is something to do once the journal has become durable further."""
        return self._install is not None or self._engine.waits_for_disk

    def became_durable(self) -> None:
        """The journal is durable further: let go of what waited for it.

        A follower's answers leave at once; the actor is woken where there is more to do.
        """
        if not self.waits_for_disk:
            return
        if self._is_at_work or self._engine.became_durable():
            self.wake()
        else:
            self._outgoing()

    def wake(self) -> None:
        """Let the actor look for work; cheap if it will anyway."""
        if self._was_started and not self._is_awake:
            self._is_awake = True
            self.ref.tell(WAKE)

    def beat(self, desired: Members) -> bool:
        """Do all that a tick would do, if that is a leader's beats at most; else return False.

        Most groups have nothing to do most of the time, and there are many: so their actors are
        not woken for it. desired: what `desired` gives, asked once for all groups.
        """
        engine = self._engine
        if (
            self._is_at_work
            or not engine.is_idle
            or not self._outbox.is_empty
            or not self._reads.is_idle
            or self._lender.is_lending
            or not is_steered(engine, desired)
        ):
            return False
        engine.tick()
        self._outgoing()
        return engine.is_idle

    def hear(self, sender: NodeId, message: Beat | Heard) -> None:
        """Take a beat or its answer at once, if nothing waits that came before it."""
        if self._is_at_work:
            self.ref.tell(Received(sender, message))
            return
        self._engine.step(sender, message)
        self._outgoing()
        if self._reads.are_asked_for:
            self.wake()

    @property
    def _is_at_work(self) -> bool:
        """Whether the actor has messages, or waits for something in the middle of its work."""
        return not self._was_started or self.ref.queued > 0 or self._install is not None

    def seek_leadership(self) -> bool:
        """Ask the leader to hand over to this node; False if that would not succeed now."""
        engine = self._engine
        leader = engine.leader
        if self._node not in engine.configuration.voters:
            return False
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
        self._entries_since_snapshot = self._bytes_since_snapshot = 0
        manifest = Manifest(
            self._stamp_ms,
            self._engine.configuration_at(index),
            self._sessions,
            array("Q", self._machine.live_entries()),
            self._machine.snapshot(),
        )
        return mark, manifest.encode()

    def snapshot_saved(self, mark: SnapshotMark) -> None:
        """The snapshot is durable: the log may be trimmed behind it."""
        if mark.index > self._snapshot_index:
            self._older_snapshot_index, self._snapshot_index = self._snapshot_index, mark.index
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
            case LinkChanged(node, is_up, incarnation):
                if is_up:
                    self._up[node] = incarnation
                    self._engine.connected(node, incarnation)
                    if node == self._engine.leader:
                        self._outbox.rewind()
                        self._reads.rewind()
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
            case ReadRequest(number):
                if self._engine.is_ready:
                    self._reads.asked(sender, number)
            case ReadGrant(number, index):
                self._reads.granted(number, index)
            case TransferRequest(term):
                # A transfer holds up proposals until the other has caught up.
                lag = self._engine.last_index - self._engine.match().get(sender, 0)
                if term == self._engine.term and lag <= TRANSFER_LAG_MAX:
                    self._engine.transfer(sender)
            case Offer(term, first_index):
                self._engine.step(sender, message)
                if term == self._engine.term and sender == self._engine.leader:
                    self._take_offer(sender, first_index)
            case FetchState() | FetchEntries() if self._is_congested(sender):
                # What was asked for already may be what is on its way.
                self._lender.put_off(message, self._now_s())
            case FetchState() | FetchEntries() if self._install is None:
                answer = self._lender.answer(message, self.applied_index, self._now_s())
                if answer is not None:
                    self._send(sender, self.number, answer)
            case StatePart() | EntriesPart() if self._install is not None:
                self._install.take(message)
            case FetchState() | FetchEntries() | StatePart() | EntriesPart():
                pass  # an install is under way here, or none any more
            case _:
                self._engine.step(sender, message)

    async def flush(self) -> None:
        self._is_awake = False
        try:
            if self._install is not None:
                await self._go_on_installing(self._install)
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
        self._reads.work(self._engine, self._reached_leader(), self._now_s())
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
        self._steering.tick(self._engine)
        now_s, stall_s = self._now_s(), self._config.stall_s
        self._outbox.tick(now_s, stall_s)
        self._reads.tick(self._engine, now_s, stall_s)
        self._lender.forget(now_s)

    def _note_role(self) -> None:
        """See what has changed, and begin anew with a new leader."""
        engine = self._engine
        role = term, leader, is_ready = engine.term, engine.leader, engine.is_ready
        if role == self._role_seen:
            return
        self._role_seen = role
        self._intake.clear()
        self._in_flight = 0
        self._outbox.rewind()
        self._reads.begin_anew()
        self._steering.begin_anew()
        if is_ready:
            self._resume = dict.fromkeys(self._up)
        log.info(
            "role changed",
            extra={"group": self.number, "term": term, "leader": leader, "ready": is_ready},
        )
        for listener in self._role_listeners:
            listener()

    # Submissions.

    def _reached_leader(self) -> NodeId | None:
        """Return who takes submissions and requests now, if this node can reach it."""
        leader = self._engine.leader
        if leader == self._node:
            return leader if self._engine.is_ready else None
        return leader if leader in self._up else None

    def _submit_pending(self) -> None:
        """Send this node's batches to the leader, be it this node."""
        leader = self._reached_leader()
        if leader is None or self._is_congested(leader):
            return  # the next tick tries again
        for batch in self._outbox.to_send(self._now_s()):
            if leader == self._node:
                self._offer(batch)
            else:
                self._send(leader, self.number, Submit(*batch[1:]))

    def _offer(self, batch: Batch) -> None:
        if not is_whole(batch):
            log.warning("malformed batch dropped", extra={"group": self.number, "node": batch.node})
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
        while engine.is_ready and engine.transferring_to is None:
            if self._in_flight >= self._config.entries_in_flight_max:
                break
            if not intake.is_worth_an_entry(self._in_flight):
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
        self._reads.tell(self._engine.applied_index)
        if self._room and self._outbox.pending_bytes <= self._config.pending_bytes_high // 2:
            self._room.unpark_all()
        if is_applied and (self._outbox.may_send or self._intake.size_bytes):
            # What gathered behind a full window may go now.
            self.wake()

    # Snapshots.

    def _restore(self, mark: SnapshotMark, manifest: Manifest) -> None:
        """Become the state of a snapshot."""
        self._stamp_ms = manifest.stamp_ms
        self._sessions = manifest.sessions
        self._machine.restore(manifest.machine)
        # The log may not know it, and would give up what is not committed when it is begun anew.
        self._log.save_commit(mark.index)
        self._snapshot_index = mark.index
        self._older_snapshot_index = self._log.first_index

    def _trim(self) -> None:
        """Drop the log's beginning that a snapshot covers, in time.

        As long as a member lacks it, the log goes back to the snapshot before the last one, so
        that short absences need no snapshot. Who was away for longer gets one, and while it does
        the log goes back to that one.
        """
        held = min(self._snapshot_index - 1, self._engine.safe_index)
        target = self._lender.spare(max(held, self._older_snapshot_index - 1))
        if target > self._log.first_index:
            self._log.trim(target)

    def _renew_engine(self, mark: SnapshotMark | None, configuration: Configuration) -> None:
        """Begin anew on a log that was replaced, as after a start."""
        self._engine = self._make_engine(snapshot=mark, configuration=configuration)
        for node, incarnation in self._up.items():
            self._engine.connected(node, incarnation)
        self.wake()

    def _take_offer(self, leader: NodeId, first_index: int) -> None:
        """The leader no longer has what we need next: fetch a snapshot from it."""
        commit = self._engine.commit_index
        if self._install is not None:
            self._install.source = leader
        elif commit >= first_index:
            self._send(leader, self.number, Installed(self._engine.term, commit))
        else:
            log.warning(
                "this member was away for too long, fetching a snapshot",
                extra={"group": self.number, "from": leader, "has": commit, "needs": first_index},
            )
            self._install = Install(self._log, self._durability, leader, cut=self._engine.cut_from)

    async def _go_on_installing(self, install: Install) -> None:
        """Ask for what is missing; end when all is here and durable."""
        if self._is_needless(install):
            return
        if not install.is_complete:
            request = install.request(self._now_s())
            if request is not None:
                self._send(install.source, self.number, request)
            return
        mark, manifest = install.fetched()
        if not await self._snapshots.save(mark, install.state):
            return  # no room
        if self._is_needless(install):
            return  # appends have come meanwhile
        self._install = None
        begin_log_anew(self._log, mark)
        self._restore(mark, manifest)
        self._renew_engine(mark, manifest.configuration)
        self._send(install.source, self.number, Installed(self._engine.term, mark.index))
        log.info("snapshot installed", extra={"group": self.number, "index": mark.index})
        self._tell_skipped()

    def _is_needless(self, install: Install) -> bool:
        """Whether the log goes on without a snapshot; then the install is over."""
        index = install.needless_from(self._engine.commit_index)
        if index is None:
            return False
        log.info("snapshot not needed any more", extra={"group": self.number})
        self._install = None
        self._send(install.source, self.number, Installed(self._engine.term, index))
        return True

    def _tell_skipped(self) -> None:
        """Tell this node's submitters what a snapshot says of their commands: they were applied."""
        assert not self._completed, "replies that nobody was told"
        skipped = self._outbox.skipped(*self._sessions.position(self._node), self._now_s())
        for then in skipped:
            then(Unknown.REPLY)
