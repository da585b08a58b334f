"""Three members and some groups of consensus engines under faults, on one virtual clock.

`python -m chaos.simulation.raft FIRST COUNT` runs seeds; one seed always gives the same run.

Real: the engine, its guard and PySyncObj's core. Simulated: clock, links (first in, first out,
delayed, broken, silent), disks (records become durable late; a crash keeps a prefix of what was
not), processes, snapshots. What holds after each step, or `SimulationFailed` is raised:

- at most one leader a term and group;
- an index once applied anywhere holds the same payload wherever it is applied;
- nobody applies an entry twice or leaves one out;
- a read that a leader's followers confirmed covers all that anybody had applied when it began;
- after the faults everybody applies everything that anybody ever applied.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos.simulation.memory_journal import MemoryJournal, Record
from leveret.consensus.engine import EngineConfig, SnapshotMark
from leveret.consensus.errors import ConsensusError
from leveret.consensus.guard import Guard
from leveret.consensus.membership import Configuration
from leveret.consensus.messages import Message, parse, to_wire
from leveret.consensus.pysyncobj import PySyncObjEngine
from leveret.transport import NodeId

MEMBERS = (NodeId(1), NodeId(2), NodeId(3))
QUIET_S = 2.0  # after the last fault links are mended, at the latest
SYNCS_S = (0.0005, 0.002, 0.01, 0.05)
SLOW_SYNCS_S = (0.05, 0.3, 0.8)
SETTLE_S = 15.0  # time to converge after that
CONFIG = EngineConfig(append_bytes_max=400, in_flight_bytes_max=4000)


class SimulationFailed(Exception):
    """A promise was broken; the text says which."""


@dataclass
class Disk:
    """What a member keeps over its incarnations. Snapshots: the mark, and all payloads so far."""

    records: list[Record] = field(default_factory=list)
    snapshots: dict[int, tuple[SnapshotMark, list[tuple[int, bytes]]]] = field(default_factory=dict)


class Read(NamedTuple):
    """One that a leader of `term` began when entry `applied_index` had been applied somewhere."""

    group: int
    term: int
    number: int
    commit_index: int
    applied_index: int


class Member:
    """One incarnation of one process."""

    def __init__(self, world: World, node: NodeId, boot: int) -> None:
        self.world, self.node = world, node
        self.is_alive = True
        self.is_slow = False  # a disk that takes long to sync: a crash loses much
        self.disk = world.disks[node]
        self.journal = MemoryJournal(self.disk.records)
        self.applied: list[list[tuple[int, bytes]]] = []
        self.engines: list[PySyncObjEngine] = []
        self.reads: deque[Read] = deque()
        for group in range(world.groups):
            mark, history = self.disk.snapshots.get(group, (None, []))
            self.applied.append(list(history))
            self.engines.append(
                PySyncObjEngine(
                    node=node,
                    incarnation=0,
                    configuration=Configuration(dict.fromkeys(MEMBERS, 0)),
                    log=self.journal.log(group),
                    durability=self.journal,
                    apply=self._applier(group),
                    now_s=lambda: world.now_s,
                    rng=random.Random(f"{world.seed}/{node}/{boot}/{group}"),
                    config=CONFIG,
                    snapshot=mark,
                    guard=world.guard,
                )
            )

    def _applier(self, group: int) -> Callable[[int, bytes], None]:
        def apply(index: int, payload: bytes) -> None:
            done = self.applied[group]
            if done and done[-1][0] >= index:
                raise SimulationFailed(f"{self.node} applied entry {index} of {group} again")
            done.append((index, payload))
            known = self.world.history[group]
            at = len(done) - 1
            if at == len(known):
                known.append((index, payload))
            elif known[at] != (index, payload):
                raise SimulationFailed(f"{self.node} diverges at entry {index} of group {group}")

        return apply

    def pump(self) -> None:
        """Let everything happen that can, and send what may leave."""
        for group, engine in enumerate(self.engines):
            while engine.advance():
                pass
            for peer, message in engine.outgoing():
                self.world.transmit(self.node, peer, group, message)
            if engine.leader == self.node:
                first = self.world.leaders.setdefault((group, engine.term), self.node)
                if first != self.node:
                    raise SimulationFailed(f"two leaders in term {engine.term} of group {group}")
        self._check_reads()
        if self.journal.begin_sync():
            delays = SLOW_SYNCS_S if self.is_slow else SYNCS_S
            delay = self.world.rng.choice(delays)
            self.world.after(delay, self._synced)

    def read(self, group: int) -> None:
        """Begin to read what is committed, if this member leads."""
        engine = self.engines[group]
        begun = engine.begin_read()
        if begun is not None:
            done = self.world.history[group]
            self.reads.append(Read(group, engine.term, *begun, done[-1][0] if done else 0))
            self.pump()

    def _check_reads(self) -> None:
        waiting, self.reads = self.reads, deque()
        for read in waiting:
            engine = self.engines[read.group]
            if engine.term != read.term:
                continue  # whoever asked asks again
            if engine.confirmed_read < read.number:
                self.reads.append(read)
            elif read.commit_index < read.applied_index:
                raise SimulationFailed(f"{self.node} read group {read.group} without the latest")
            else:
                self.world.counts["reads"] += 1

    def _synced(self) -> None:
        if self.is_alive:
            self.journal.end_sync()
            self.pump()

    def tick(self) -> None:
        if self.is_alive:
            for engine in self.engines:
                engine.tick()
            self.pump()
            self.world.after(self.world.rng.choice((0.02, 0.05, 0.05, 0.08)), self.tick)

    def snapshot(self, group: int) -> None:
        """Save a snapshot of what is applied, and mostly trim the log."""
        engine, log = self.engines[group], self.journal.log(group)
        index = engine.applied_index
        if index <= log.first_index or log.durable_index < index:
            return
        mark = SnapshotMark(index, log.term_at(index), log.term_at(index - 1))
        self.disk.snapshots[group] = mark, list(self.applied[group])
        self.world.counts["snapshots"] += 1
        if self.world.rng.random() < 0.8:
            log.trim(max(min(index - 1, engine.safe_index), log.first_index))
            self.pump()


class World:
    """One run."""

    def __init__(
        self, seed: int, *, guard: type[Guard] = Guard, groups: int = 3, faults_s: float = 8.0
    ) -> None:
        self.seed, self.guard, self.groups, self.faults_s = seed, guard, groups, faults_s
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.history: list[list[tuple[int, bytes]]] = [[] for _ in range(groups)]
        self.leaders: dict[tuple[int, int], NodeId] = {}
        self.disks = {node: Disk() for node in MEMBERS}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._links: dict[tuple[NodeId, NodeId], object] = {}
        self._arrivals_s: dict[tuple[NodeId, NodeId], float] = {}
        self._boots: Counter[NodeId] = Counter()
        self._is_over = False
        self._payloads = itertools.count()
        self.members: dict[NodeId, Member] = {}

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), action))

    def run(self) -> None:
        """Run the whole seed.

        Raises:
            SimulationFailed: a promise was broken.
        """
        for node in MEMBERS:
            self._boot(node)
        self._connect_all()
        self.after(0.5, self._propose)
        self.after(0.5, self._read)
        self.after(0.8, self._snapshot)
        self.after(1.5, self._fault)
        end_s = self.faults_s + QUIET_S + SETTLE_S
        is_mended = False
        while self._events and self._events[0][0] <= end_s and not self._is_over:
            self.now_s, _, action = heapq.heappop(self._events)
            if not is_mended and self.now_s > self.faults_s + QUIET_S:
                is_mended = True
                self._connect_all()
                self.after(1.0, self._look_for_the_end)
            action()
        self._check_converged()

    def _look_for_the_end(self) -> None:
        """Spare the rest of the time once everybody has everything."""
        lengths = [len(done) for done in self.history]
        self._is_over = all(
            member.is_alive and [len(done) for done in member.applied] == lengths
            for member in self.members.values()
        )
        self.after(0.5, self._look_for_the_end)

    def _check_converged(self) -> None:
        for node, member in self.members.items():
            for group, done in enumerate(member.applied):
                missing = len(self.history[group]) - len(done)
                if missing:
                    raise SimulationFailed(f"{node} lacks {missing} entries of group {group}")

    # Processes.

    def _boot(self, node: NodeId) -> None:
        self._boots[node] += 1
        member = self.members[node] = Member(self, node, self._boots[node])
        member.tick()

    def _crash(self, node: NodeId, *, back_s: float, links_s: float | None) -> None:
        member = self.members[node]
        if not member.is_alive:
            return
        self.counts["crashes"] += 1
        member.is_alive = False
        for peer in MEMBERS:
            self.disconnect(node, peer)
        lost = member.journal.unsynced()
        kept = self.rng.randint(0, len(lost)) if self.rng.random() < 0.5 else 0
        member.disk.records += lost[:kept]

        def restart() -> None:
            self._boot(node)
            if links_s is not None:
                for peer in MEMBERS:
                    self.after(links_s * self.rng.random(), lambda p=peer: self.connect(node, p))  # type: ignore[misc]

        self.after(back_s, restart)

    # Links.

    def _connect_all(self) -> None:
        for one, other in itertools.combinations(MEMBERS, 2):
            self.connect(one, other)

    def connect(self, one: NodeId, other: NodeId) -> None:
        key = (min(one, other), max(one, other))
        members = self.members[one], self.members[other]
        if one == other or key in self._links or not all(m.is_alive for m in members):
            return
        self._links[key] = object()
        for member, peer in zip(members, (other, one), strict=True):
            for engine in member.engines:
                engine.connected(peer, 0)
            member.pump()

    def disconnect(self, one: NodeId, other: NodeId) -> None:
        if self._links.pop((min(one, other), max(one, other)), None) is None:
            return
        for node, peer in ((one, other), (other, one)):
            member = self.members[node]
            if member.is_alive:
                for engine in member.engines:
                    engine.disconnected(peer)

    def transmit(self, source: NodeId, target: NodeId, group: int, message: Message) -> None:
        key = (min(source, target), max(source, target))
        link = self._links.get(key)
        if link is None:
            return
        payload = to_wire(group, message)
        delay = self.rng.choice((0.0005, 0.001, 0.005, 0.03, 0.08))
        at_s = max(self.now_s + delay, self._arrivals_s.get((source, target), 0.0) + 1e-6)
        self._arrivals_s[source, target] = at_s

        def arrive() -> None:
            member = self.members[target]
            if self._links.get(key) is link and member.is_alive:
                number, received = parse(payload)
                member.engines[number].step(source, received)
                member.pump()

        self.after(at_s - self.now_s, arrive)

    # What goes on.

    def _propose(self) -> None:
        if self.now_s >= self.faults_s:
            return
        for member in self.members.values():
            for engine in member.engines:
                if not member.is_alive or not engine.is_ready:
                    continue
                for _ in range(self.rng.choice((1, 1, 5, 12))):
                    engine.propose(b"%08d" % next(self._payloads) + b"." * 80)
                    self.counts["proposed"] += 1
            if member.is_alive:
                member.pump()
        self.after(self.rng.choice((0.01, 0.03, 0.08)), self._propose)

    def _read(self) -> None:
        if self.now_s >= self.faults_s:
            return
        for member in self.members.values():
            if member.is_alive:
                member.read(self.rng.randrange(self.groups))
        self.after(self.rng.choice((0.02, 0.05)), self._read)

    def _snapshot(self) -> None:
        member = self.members[self.rng.choice(MEMBERS)]
        if member.is_alive:
            member.snapshot(self.rng.randrange(self.groups))
        self.after(self.rng.choice((0.02, 0.1, 0.3)), self._snapshot)

    def _leads(self) -> list[NodeId]:
        return [
            node
            for node, member in self.members.items()
            if member.is_alive and any(engine.is_ready for engine in member.engines)
        ]

    def _fault(self) -> None:
        if self.now_s >= self.faults_s:
            return
        rng, leads = self.rng, self._leads()
        are_alive = all(member.is_alive for member in self.members.values())
        draw = rng.random()
        if draw < 0.3 and are_alive and leads:
            self._isolate_one_then_crash_another(rng.choice(leads))
            self.after(rng.choice((1.0, 3.0)), self._fault)
            return
        if draw < 0.5 and are_alive:
            node = rng.choice(leads or list(MEMBERS))
            self._crash(node, back_s=rng.choice((0.1, 0.5, 2.0)), links_s=0.3)
        elif draw < 0.7:
            self.counts["glitches"] += 1
            one, other = rng.sample(MEMBERS, 2)
            self.disconnect(one, other)
            self.after(rng.choice((0.001, 0.02, 0.5, 1.5)), lambda: self.connect(one, other))
        elif draw < 0.9:
            self.counts["isolations"] += 1
            node = rng.choice(leads or list(MEMBERS))
            for peer in MEMBERS:
                self.disconnect(node, peer)
                self.after(rng.choice((0.5, 1.0, 2.5)), lambda p=peer: self.connect(node, p))  # type: ignore[misc]
        elif leads:
            self.counts["transfers"] += 1
            for engine in self.members[leads[0]].engines:
                engine.transfer(rng.choice(MEMBERS))
        self.after(rng.choice((0.05, 0.2, 0.6, 1.0)), self._fault)

    def _isolate_one_then_crash_another(self, lead: NodeId) -> None:
        """Let one lag and one that acknowledged crash, then leave these two to elect.

        With the leader cut off, a promise that was not kept on disk does its damage here.
        """
        self.counts["targeted"] += 1
        acked, lagging = self.rng.sample([node for node in MEMBERS if node != lead], 2)
        self.disconnect(lead, lagging)
        self.disconnect(acked, lagging)
        self.members[acked].is_slow = self.rng.random() < 0.5

        def strike() -> None:
            if not all(member.is_alive for member in self.members.values()):
                return
            self.members[acked].is_slow = False
            victim, other = self.rng.choice(((lead, acked), (acked, lead)))
            self._crash(victim, back_s=0.02, links_s=None)
            self.disconnect(other, victim)
            self.disconnect(other, lagging)
            for delay_s in (0.03, 0.2):
                self.after(delay_s, lambda: self.connect(victim, lagging))
            for node in (victim, lagging):
                self.after(self.rng.choice((1.5, 3.0)), lambda n=node: self.connect(other, n))  # type: ignore[misc]

        self.after(self.rng.choice((0.1, 0.3, 0.8)), strike)
        self.after(5.0, self._connect_all)


def run_seed(seed: int, *, guard: type[Guard] = Guard, faults_s: float = 8.0) -> Counter[str]:
    """Run one seed and return what happened.

    Raises:
        SimulationFailed: a promise was broken, or the guard stopped a member.
    """
    world = World(seed, guard=guard, faults_s=faults_s)
    try:
        world.run()
    except (ConsensusError, AssertionError, IndexError) as error:
        raise SimulationFailed(f"{type(error).__name__}: {error}") from error
    counts = world.counts
    counts["applied"] = sum(map(len, world.history))
    counts["terms"] = len(world.leaders)
    return counts


def main() -> int:
    """Run the seeds of the command line; 1 if any failed."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    failures, total = 0, Counter[str]()
    for seed in range(first, first + count):
        try:
            total += run_seed(seed)
        except SimulationFailed as failure:
            failures += 1
            print(f"seed {seed}: {failure}")
    print(f"{count - failures} of {count} seeds passed:", dict(total))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
