"""The engine over PySyncObj's Raft core, version 0.3.17.

The core decides votes, commits and the order of the log. All else of PySyncObj is replaced
through its public hooks and one private seam, `pysyncobj.syncobj.createJournal`, so that
`conf.journalFile` may be a journal object:

- transport: `guard.Guard`; its journal: `journal.CoreJournal`; its election timers: `elections`;
- its thread, poll loop, TCP, codec, fork and compaction: never started, or configured away;
- its clock and random source: the ones given here. They are module globals of `syncobj`, so one
  process runs all its engines on one clock.

The version is pinned exactly, and a test pins the hash of `syncobj.py`: what is written here and
in `guard` was read off those lines.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pysyncobj import (
    SyncObj,
    SyncObjConf,
    replicated,
    syncobj,
)

from leveret.consensus.core import CoreNode
from leveret.consensus.elections import Elections
from leveret.consensus.engine import Durability, EngineConfig, Log, Role, SnapshotMark
from leveret.consensus.entries import (
    CONFIGURATION,
    configuration_in,
    seal,
    seal_configuration,
)
from leveret.consensus.errors import ConsensusError, MachineFailed
from leveret.consensus.guard import Guard
from leveret.consensus.journal import CoreJournal, check_continues
from leveret.consensus.membership import (
    Configuration,
    Configurations,
    decode_configuration,
    differ_by_one,
)
from leveret.consensus.messages import Append, Beat, Heard, Message, Reply
from leveret.transport import NodeId

NEVER_S = 1e8
"""Three years: for the core's own timers, which others have taken over."""

APPEND_ALWAYS_S = -1.0
"""The core's send period. Negative, so that each tick sends one batch a follower, on a clock that
stands still too; the guard drops what need not leave."""

TICKS_MAX = 16
"""Core ticks of one `advance`; each applies up to 1 MiB of entries, or at least two."""

_ROLES = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)  # in the order of the core's numbers
_LEADER = _ROLES.index(Role.LEADER)

_create_journal = syncobj.createJournal


def _take_journal(journal: object = None) -> object:
    return journal if isinstance(journal, CoreJournal) else _create_journal(journal)


class _CoreClock:
    """What the core takes for the time: it stands still while an engine is at work.

    The core looks at it fifty times a message.
    """

    now_s = 0.0

    def read(self) -> float:
        """Return the time that was set last."""
        return self.now_s


_clock = _CoreClock()


class _NoPoller:
    """Nothing to poll: there is no socket."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class _Core(SyncObj):  # type: ignore[misc]  # the base class is untyped
    """The replicated object: one method with one argument of bytes."""

    def __init__(
        self,
        node: NodeId,
        conf: SyncObjConf,
        guard: Guard,
        apply: Callable[[int, bytes], None],
    ) -> None:
        # The others are added when the guard learns of them, see `_View.add_voter`.
        super().__init__(CoreNode(node), [], conf, nodeClass=CoreNode, transport=guard)
        self._poller = _NoPoller()
        # Its snapshots never travel: the guard offers ours to whoever would get one.
        self._SyncObj__serializer.getTransmissionData = lambda _: None
        self._apply = apply

    def __dir__(self) -> list[str]:
        # The core looks through all its names for replicated methods, twice: half of its making.
        return ["entry", "entry_v0"]

    @replicated  # type: ignore[untyped-decorator]  # the decorator is untyped
    def entry(self, payload: bytes) -> None:
        # The core counts an entry as applied after this returns.
        self._apply(self.raftLastApplied + 1, payload)

    def _checkCommandsToApply(self) -> None:
        # The core takes commands for as long as its send period lasts: here, until none is left.
        self.conf.appendEntriesPeriod = NEVER_S
        try:
            super()._checkCommandsToApply()
        finally:
            self.conf.appendEntriesPeriod = APPEND_ALWAYS_S


class _View:
    """What others may read of the core, in our types, and whom it is to count.

    It looks at the core's fields themselves: it is asked a hundred times a message, and the
    core's own accessors would double that.
    """

    __slots__ = ("_core",)

    def __init__(self, core: _Core) -> None:
        self._core = core

    @property
    def term(self) -> int:
        term: int = self._core._SyncObj__raftCurrentTerm
        return term

    @property
    def leader(self) -> NodeId | None:
        node = self._core._SyncObj__raftLeader
        return None if node is None else NodeId(node._id)

    @property
    def is_leader(self) -> bool:
        state: int = self._core._SyncObj__raftState
        return state == _LEADER

    @property
    def commit_index(self) -> int:
        index: int = self._core._SyncObj__raftCommitIndex
        return index

    @property
    def applied_index(self) -> int:
        index: int = self._core._SyncObj__raftLastApplied
        return index

    # The core's own code for its membership entries, which are not used: they unpickle.

    def add_voter(self, node: CoreNode) -> None:
        self._core._SyncObj__doChangeCluster(("add", node.id, node))

    def drop_voter(self, node: CoreNode) -> None:
        self._core._SyncObj__doChangeCluster(("rem", node.id, node))


def _no_dump(*_: object) -> None:
    raise AssertionError("the core wrote a dump, though its compaction is off")


class PySyncObjEngine:
    """`engine.Engine` over `SyncObj`, behind the guard.

    apply: called with index and payload of each committed entry, in order, once a process;
        configurations are the engine's own and left out.
    now_s: a monotonic clock; the same for all engines of a process.
    is_congested: whether so much is on its way to a node that it gets no entries now.
    incarnation: of this node's data folder (see `membership`).
    configuration: what the snapshot says; without one, what holds before the log says anything.
    snapshot: what the machine was restored from, if anything.
    guard: another class only to show what a guard is for.

    Raises:
        BadSnapshot: log and snapshot do not fit.
    """

    def __init__(
        self,
        *,
        node: NodeId,
        incarnation: int,
        configuration: Configuration,
        log: Log,
        durability: Durability,
        apply: Callable[[int, bytes], None],
        now_s: Callable[[], float],
        rng: random.Random,
        is_congested: Callable[[NodeId], bool] = lambda _: False,
        config: EngineConfig | None = None,
        snapshot: SnapshotMark | None = None,
        guard: type[Guard] = Guard,
    ) -> None:
        check_continues(log, snapshot)
        self._node = node
        self._log = log
        self._config = config or EngineConfig()
        self._now_s = now_s
        self._configurations = Configurations(snapshot.index if snapshot else 0, configuration)
        self._apply_to = apply
        self._failed: Exception | None = None
        self._is_due = True
        """The core has something to do: since its last tick something reached it."""
        self._is_changing = False  # a configuration may be in the core's queue, not yet in the log
        self._ready_term = 0  # the last one in which this member was a ready leader
        self._transfer: tuple[NodeId, float] | None = None
        self._is_transfer_sent = False
        self._state = 0
        elections = Elections(node, rng=rng, timeout_s=self._config.election_timeout_s)
        self._guard = guard(
            node=node,
            incarnation=incarnation,
            log=log,
            durability=durability,
            elections=elections,
            config=self._config,
            now_s=now_s,
            is_congested=is_congested,
        )
        journal = CoreJournal(log, snapshot, self._configurations)
        syncobj.createJournal = _take_journal
        syncobj.monotonicTime = _clock.read
        self._set_clock()
        syncobj.random = random.Random(0)  # noqa: S311  # its draws decide nothing
        self._core = _Core(node, self._conf(journal, snapshot), self._guard, self._apply)
        self._core.conf.appendEntriesPeriod = APPEND_ALWAYS_S
        assert self._core._getRaftLogSize() == len(journal)  # it is attached
        self._view = self._guard.core = _View(self._core)
        # The first tick loads the dump; then all is applied that is known to be committed, so
        # that no vote is asked for or given by an old configuration.
        self._core.doTick(0)
        journal.reveal()
        for index in range(self._view.commit_index + 1, log.last_index + 1):
            self._note_configuration(index, log.command_at(index))
        while self._view.applied_index < self._view.commit_index:
            self._core.doTick(0)
        self._mind_configuration()
        elections.start(now_s(), is_alone=self._is_alone and self._guard.is_voter)

    def _conf(self, journal: CoreJournal, snapshot: SnapshotMark | None) -> SyncObjConf:
        dump: dict[str, object] = {}
        if snapshot is not None:

            def load(_: str) -> tuple[object, object, list[CoreNode]]:
                # Only so that the core starts to apply after `snapshot.index`: these are the
                # first two entries that it sees, so its journal stays as it is.
                return journal[1], journal[0], []

            # The core insists on a file that exists; `load` does not read it.
            dump = {"fullDumpFile": __file__, "serializer": _no_dump, "deserializer": load}
        return SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=1e-6,
            # Slices of the journal are bounded already. So no batch is cut by size, and the
            # core's way to send a large entry in pieces (hole H7) is never taken.
            appendEntriesBatchSizeBytes=1 << 60,
            raftMinTimeout=NEVER_S,
            raftMaxTimeout=2 * NEVER_S,
            connectionTimeout=3 * NEVER_S,
            leaderFallbackTimeout=self._config.quorum_timeout_s,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
            onStateChanged=self._note_state,
            logCompactionMinEntries=1 << 60,
            logCompactionMinTime=1 << 40,
            useFork=False,
            journalFile=journal,
            **dump,
        )

    def _note_state(self, _: int, state: int) -> None:
        self._state = state

    def _set_clock(self) -> None:
        """Let the core see the time; before anything is asked of it."""
        # It compares deadlines with 0, which a virtual clock may read.
        _clock.now_s = self._now_s() + 1.0

    # State.

    @property
    def role(self) -> Role:
        return _ROLES[self._state]

    @property
    def term(self) -> int:
        return self._view.term

    @property
    def leader(self) -> NodeId | None:
        return self._view.leader

    @property
    def is_ready(self) -> bool:
        view = self._view
        if not view.is_leader:
            return False
        term = view.term
        # The first entry of a leader's own term is its no-op.
        if self._ready_term != term and self._log.term_at(view.applied_index) == term:
            self._ready_term = term
        return self._ready_term == term

    @property
    def commit_index(self) -> int:
        return self._view.commit_index

    @property
    def applied_index(self) -> int:
        return self._view.applied_index

    @property
    def last_index(self) -> int:
        return self._log.last_index

    @property
    def safe_index(self) -> int:
        return self._guard.safe_index

    @property
    def transferring_to(self) -> NodeId | None:
        return None if self._transfer is None else self._transfer[0]

    @property
    def waits_for_disk(self) -> bool:
        if self._is_alone and self._view.applied_index < self._log.last_index:
            return True
        return self._guard.waits_for_disk()

    def became_durable(self) -> bool:
        self._set_clock()
        if self._guard.count_durable():
            self._is_due = True
        return self._is_due or (self._is_alone and self._view.applied_index < self._log.last_index)

    @property
    def configuration(self) -> Configuration:
        return self._guard.configuration

    @property
    def configuration_index(self) -> int:
        return self._configurations.latest_index

    def configuration_at(self, index: int) -> Configuration:
        return self._configurations.at(index)

    @property
    def _is_alone(self) -> bool:
        """Whether nobody else decides with us."""
        return self._guard.configuration.voters.keys() <= {self._node}

    def match(self) -> dict[NodeId, int]:
        return dict(self._guard.match()) if self._view.is_leader else {}

    # Input.

    def propose(self, payload: bytes) -> bool:
        return self._propose(seal(payload))

    def propose_configuration(self, configuration: Configuration) -> bool:
        assert self._node in configuration.voters, "a leader hands over before it goes"
        assert differ_by_one(self.configuration, configuration), "two voters change at once"
        if self._is_changing or self.configuration_index > self.commit_index:
            return False
        self._is_changing = self._propose(seal_configuration(configuration))
        self._mind_configuration()  # in force at once, where it is in the log already
        return self._is_changing

    def _propose(self, command: bytes) -> bool:
        if not self.is_ready or self._transfer is not None:
            return False
        self._set_clock()
        self._core._applyCommand(command, None)  # the public way pickles
        if not self._is_alone:
            # Its tick would do it last, and send the entry with the next one.
            self._core._checkCommandsToApply()
        self._is_due = True
        return True

    def step(self, sender: NodeId, message: Message) -> None:
        self._set_clock()
        self._guard.receive(sender, message)
        match message:
            case Beat() | Heard():
                return
            case Append():
                self._is_due |= self._view.applied_index < self._view.commit_index
            case Reply():
                self._is_due |= self._guard.has_work()
            case _:
                self._is_due = True
        self._is_due |= self._transfer is not None
        self._mind_configuration()

    def connected(self, node: NodeId, incarnation: int) -> None:
        self._is_due = True
        self._guard.connected(node, incarnation)

    def disconnected(self, node: NodeId) -> None:
        self._is_due = True
        self._guard.disconnected(node)

    def is_linked(self, node: NodeId) -> bool:
        return node == self._node or self._guard.is_member(node)

    def cut_from(self, index: int) -> None:
        self._log.truncate_from(index)
        self._configurations.cut_from(index)
        self._mind_configuration()

    def tick(self) -> None:
        # A leader looks after its followers; everybody else waits for messages or an election.
        self._set_clock()
        is_standing = self._guard.tick()
        if self._view.is_leader and len(self._guard.configuration.nodes) > 1:
            self._is_due |= self._transfer is not None or not self._guard.beat()
        self._is_due |= is_standing

    @property
    def is_idle(self) -> bool:
        return not self._is_due and self._view.applied_index >= self._view.commit_index

    def begin_read(self) -> tuple[int, int] | None:
        if not self.is_ready:
            return None
        return self._guard.begin_round(), self._view.commit_index

    @property
    def confirmed_read(self) -> int:
        return self._guard.confirmed_round() if self._view.is_leader else 0

    def transfer(self, node: NodeId) -> bool:
        is_able = node in self.configuration.voters and self._guard.is_member(node)
        if not self.is_ready or self._transfer is not None or not is_able:
            return False
        self._transfer = node, self._now_s() + self._config.election_timeout_s[1]
        self._is_transfer_sent = False
        self._is_due = True
        return True

    # Work and output.

    def advance(self) -> bool:
        if self._failed is not None:
            raise MachineFailed("the engine has failed before") from self._failed
        if not self.became_durable():
            return False
        view, log = self._view, self._log
        for _ in range(TICKS_MAX):
            if self._is_alone and log.durable_index < log.last_index:
                # Alone, the core would commit at once; so it stands still until the disk has
                # caught up. What is proposed meanwhile gathers in its queue.
                return False
            last, term, was_leader = log.last_index, view.term, view.is_leader
            self._is_due = False
            self._core.doTick(0)
            self._is_changing = False  # the core's queue is empty
            self._mind_configuration()
            self._mind_transfer()
            if view.applied_index >= view.commit_index and (
                log.last_index,
                view.term,
                view.is_leader,
            ) == (last, term, was_leader):
                self._mind_safe_index()
                return False
        self._is_due = True
        return True

    def outgoing(self) -> list[tuple[NodeId, Message]]:
        return self._guard.take()

    def _apply(self, index: int, payload: bytes) -> None:
        if payload.startswith(CONFIGURATION):
            # Noted when it was appended, unless that was before this process.
            self._configurations.add(index, decode_configuration(payload[len(CONFIGURATION) :]))
            return
        try:
            self._apply_to(index, payload)
        except ConsensusError as error:
            self._failed = error
            raise
        except Exception as error:
            # Anything else is the machine's. The core would apply the entry again for ever.
            self._failed = error
            raise MachineFailed(f"the machine raised at entry {index}") from error

    def _note_configuration(self, index: int, command: bytes) -> None:
        configuration = configuration_in(command)
        if configuration is not None:
            self._configurations.add(index, configuration)

    def _mind_configuration(self) -> None:
        """Put the log's latest configuration in force."""
        latest = self._configurations.latest
        if latest is not self._guard.configuration:
            self._guard.reconfigure(latest)
            self._is_due = True

    def _mind_transfer(self) -> None:
        """Hand over once the target has the whole log; give up when it takes too long."""
        if self._transfer is None:
            return
        target, deadline_s = self._transfer
        if not self._view.is_leader or self._now_s() >= deadline_s:
            self._transfer = None
        elif not self._is_transfer_sent and self._guard.counted(target) == self._log.last_index:
            self._core.transferLeadership(CoreNode(target))
            self._is_transfer_sent = True

    def _mind_safe_index(self) -> None:
        """As the leader, find up to where every member holds the log durably."""
        if self.is_ready:
            held = min(self._guard.match().values(), default=self._log.durable_index)
            safe = min(held, self._log.durable_index, self._view.applied_index)
            self._guard.safe_index = max(self._guard.safe_index, safe)
