"""Some nodes with some consensus groups under faults, on one virtual clock.

`python -m chaos.simulation.raft FIRST COUNT` runs seeds; one seed always gives the same run.

Real: the groups with their sessions, snapshots and installs, the engine, its guard, PySyncObj's
core, and the logs. Simulated: clock, links (first in, first out, delayed, broken, silent), disks
(records become durable late; a crash keeps a prefix of what was not), processes, the catalog's list
of members. Nodes crash, lose their disks, are removed, and new ones come. What holds after each
step, or `SimulationFailed` is raised:

- at most one leader a term and group;
- the n-th command of a group is the same, from the same entry, wherever it is applied, and so is
  a state that came by a snapshot;
- no command is applied twice, and what was answered has been applied;
- a read sees all that anybody had applied when it was asked for;
- after the faults everybody applies everything that anybody ever applied, though a minority of
  the voters has lost its disks, can read all that lives, and the groups consist of whom they
  should.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from chaos.simulation.raft_member import Folder, Member, SimulationFailed
from leveret.consensus import ConsensusError, MachineFailed
from leveret.consensus.guard import Guard
from leveret.consensus.messages import parse, to_wire
from leveret.consensus.sessions import Unknown
from leveret.storage import StorageError
from leveret.transport import NodeId

if TYPE_CHECKING:
    from leveret.consensus.messages import Message

__all__ = ["SimulationFailed", "World", "run_seed"]

QUIET_S = 2.0  # after the last fault links are mended, at the latest
SETTLE_S = 30.0  # time to converge after that
NODES_MAX = 5
NODES_MIN = 3
PENDING_BYTES_MAX = 4000

Entry = tuple[int, int, bytes]
"""Index, stamp and command."""


class _Link:
    """One connection, and which of its directions have fallen silent."""

    def __init__(self) -> None:
        self.silent: set[NodeId] = set()


class World:
    """One run."""

    def __init__(
        self, seed: int, *, guard: type[Guard] = Guard, groups: int = 2, faults_s: float = 8.0
    ) -> None:
        self.seed, self.guard, self.groups, self.faults_s = seed, guard, groups, faults_s
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.history: list[list[Entry]] = [[] for _ in range(groups)]
        self.folders: dict[NodeId, Folder] = {}
        self.members: dict[NodeId, Member] = {}
        self.desired: dict[NodeId, int] = {}
        self._desired_before: list[dict[NodeId, int]] = [{}]
        self._commands: set[tuple[int, bytes]] = set()
        self._leaders: dict[tuple[int, int], tuple[NodeId, int]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._links: dict[tuple[NodeId, NodeId], _Link] = {}
        self._arrivals_s: dict[tuple[NodeId, NodeId], float] = {}
        self._boots: Counter[NodeId] = Counter()
        self._numbers = itertools.count()
        self._is_over = False

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), action))

    def run(self) -> None:
        """Run the whole seed.

        Raises:
            SimulationFailed: a promise was broken.
        """
        size = self.rng.choice((3, 3, 4, 5))
        for node in map(NodeId, range(1, size + 1)):
            self.folders[node] = Folder(incarnation=1)
            self._boot(node)
        self.members[NodeId(1)].found()
        self._connect_all()
        self.after(0.2, lambda: self._desire(dict.fromkeys(self.folders, 1)))
        self.after(0.5, self._submit)
        self.after(0.5, self._read)
        self.after(0.8, self._snapshot)
        self.after(2.0, self._fault)
        end_s = self.faults_s + QUIET_S + SETTLE_S
        is_mended = False
        while self._events and self._events[0][0] <= end_s and not self._is_over:
            self.now_s, _, action = heapq.heappop(self._events)
            if not is_mended and self.now_s > self.faults_s + QUIET_S:
                is_mended = True
                self._mend()
            action()
        self._check_converged()

    # What the members tell.

    def applied(self, node: NodeId, group: int, place: int, entry: Entry) -> None:
        """A member applies its command number `place`."""
        history = self.history[group]
        if place < len(history):
            if history[place] != entry:
                raise SimulationFailed(
                    f"{node} applies {entry} as {place} of group {group}, not {history[place]}"
                )
            return
        if place > len(history):
            raise SimulationFailed(f"{node} leaves out a command of group {group}")
        if (group, entry[2]) in self._commands:
            raise SimulationFailed(f"{node} applies {entry} of group {group} again")
        self._commands.add((group, entry[2]))
        history.append(entry)

    def restored(self, node: NodeId, group: int, count: int) -> None:
        """A member takes the state behind so many commands from a snapshot."""
        if count > len(self.history[group]):
            raise SimulationFailed(f"{node} has a state of group {group} that never was")
        # At a start the member of before is still known, and dead.
        self.counts["installs"] += node in self.members and self.members[node].is_alive

    def leads(self, member: Member, group: int, term: int) -> None:
        """A member leads a term."""
        who = member.node, member.folder.incarnation
        if self._leaders.setdefault((group, term), who) != who:
            raise SimulationFailed(f"two leaders in term {term} of group {group}")

    @property
    def terms(self) -> int:
        """Terms that had a leader, in all groups."""
        return len(self._leaders)

    def _answered(self, group: int, command: bytes, reply: object) -> None:
        self.counts["answered"] += 1
        self.counts["unknown"] += reply is Unknown.REPLY
        if (group, command) not in self._commands:
            raise SimulationFailed(f"{command!r} of group {group} was answered and not applied")

    # Who is to be a member.

    def _desire(self, members: dict[NodeId, int]) -> None:
        self._desired_before.append(self.desired)
        self.desired = members
        for node in self.members:
            self._tell_desired(node)

    def _tell_desired(self, node: NodeId) -> None:
        def hear() -> None:
            self.members[node].desired = dict(self.desired)

        self.after(self.rng.choice((0.01, 0.1, 0.5)), hear)

    def desired_once(self, node: NodeId) -> dict[NodeId, int]:
        """Return what a member that starts knows: it may have missed changes."""
        self._tell_desired(node)
        if self.rng.random() < 0.1:
            return dict(self.rng.choice(self._desired_before))
        return dict(self.desired)

    def _may_lose(self, lost: NodeId) -> bool:
        """Whether in each group a majority of the voters keeps its disks without this one."""
        for number in range(self.groups):
            leads = [
                member.groups[number]
                for member in self.members.values()
                if member.is_alive and member.node != lost and member.groups[number].is_leader
            ]
            if not leads:
                return False
            newest = max(leads, key=lambda group: group.term)
            if not newest.status().is_settled:
                return False
            voters = newest.configuration.voters
            intact = sum(
                node != lost
                and self.folders[node].incarnation == incarnation
                and not self.folders[node].is_lost
                for node, incarnation in voters.items()
            )
            if intact * 2 <= len(voters):
                return False
        return True

    # The end.

    def _mend(self) -> None:
        for node in self.members:
            if not self.members[node].is_alive and not self.folders[node].is_lost:
                self._boot(node)
        for link in self._links.values():
            link.silent.clear()
        for node in self.members:
            self._tell_desired(node)
        self._connect_all()
        self.after(1.0, self._look_for_the_end)

    def _problem(self) -> str:
        """Return what is missing, or nothing."""
        lengths = [len(done) for done in self.history]
        for node in self.desired:
            member = self.members[node]
            if not member.is_alive:
                return f"{node} is down"
            if any(group.pending_bytes for group in member.groups):
                return f"{node} got no answer"
            counts = [book.count for book in member.books]
            if counts != lengths:
                return f"{node} has {counts} of {lengths} commands"
            for group in member.groups:
                found = group.configuration
                if found.learners or found.voters != self.desired:
                    return f"{node} has {found} in place of {self.desired}"
        return ""

    def _look_for_the_end(self) -> None:
        """Spare the rest of the time once everybody has everything."""
        self._is_over = not self._problem()
        self._connect_all()
        self.after(0.5, self._look_for_the_end)

    def _check_converged(self) -> None:
        problem = self._problem()
        if problem:
            raise SimulationFailed(problem)
        for node in self.desired:
            self.members[node].check_bodies()

    # Processes.

    def _boot(self, node: NodeId) -> None:
        self._boots[node] += 1
        member = Member(self, node, self._boots[node], self.folders[node])
        self.members[node] = member
        member.work()
        member.tick()

    def _crash(self, node: NodeId, *, back_s: float, links_s: float | None) -> None:
        member = self.members[node]
        if not member.is_alive:
            return
        self.counts["crashes"] += 1
        self._end(node)
        lost = member.journal.unsynced()
        kept = self.rng.randint(0, len(lost)) if self.rng.random() < 0.5 else 0
        member.folder.changes += lost[:kept]
        self.after(back_s, lambda: self._restart(node, links_s=links_s))

    def _end(self, node: NodeId) -> None:
        self.members[node].die()
        for peer in self.members:
            self.disconnect(node, peer)

    def _restart(self, node: NodeId, *, links_s: float | None) -> None:
        if self.members[node].is_alive or self.folders[node].is_lost:
            return
        self._boot(node)
        if links_s is not None:
            for peer in self.members:
                self.after(links_s * self.rng.random(), lambda p=peer: self.connect(node, p))  # type: ignore[misc]

    def _wipe(self, node: NodeId) -> None:
        """A node loses its disk and comes back."""
        self.counts["wipes"] += 1
        self._end(node)
        incarnation = self.folders[node].incarnation + 1
        self.folders[node] = Folder(incarnation)

        def admit() -> None:
            if self.desired.get(node, incarnation) < incarnation:
                self._desire({**self.desired, node: incarnation})

        self.after(self.rng.choice((0.02, 0.5, 2.0)), lambda: self._restart(node, links_s=0.3))
        self.after(self.rng.choice((0.3, 1.0, 2.5)), admit)

    def _add(self) -> None:
        self.counts["added"] += 1
        node = NodeId(max(self.members) + 1)
        self.folders[node] = Folder(incarnation=1)
        self._boot(node)
        for peer in self.members:
            self.after(0.5 * self.rng.random(), lambda p=peer: self.connect(node, p))  # type: ignore[misc]
        self._desire({**self.desired, node: 1})

    def _remove(self, node: NodeId) -> None:
        """The node is removed, goes on for a while, and its disk is thrown away."""
        self.counts["removed"] += 1
        self._desire({other: i for other, i in self.desired.items() if other != node})

        def retire() -> None:
            if self._may_lose(node) and not self.folders[node].is_lost:
                self.folders[node].is_lost = True
                self._end(node)
            else:
                self.after(1.0, retire)

        self.after(self.rng.choice((0.5, 2.0, 10.0)), retire)

    # Links.

    def _connect_all(self) -> None:
        for one, other in itertools.combinations(self.members, 2):
            self.connect(one, other)

    def connect(self, one: NodeId, other: NodeId) -> None:
        key = (min(one, other), max(one, other))
        members = self.members[one], self.members[other]
        if one == other or key in self._links or not all(m.is_alive for m in members):
            return
        self._links[key] = _Link()
        for member, peer in zip(members, reversed(members), strict=True):
            member.link_changed(peer.node, peer.folder.incarnation)
            member.work()

    def disconnect(self, one: NodeId, other: NodeId) -> None:
        if self._links.pop((min(one, other), max(one, other)), None) is None:
            return
        for node, peer in ((one, other), (other, one)):
            member = self.members[node]
            if member.is_alive:
                member.link_changed(peer, None)
                member.work()

    def transmit(self, source: Member, target: NodeId, group: int, message: Message) -> bool:
        key = (min(source.node, target), max(source.node, target))
        link = self._links.get(key)
        if link is None or not source.is_alive:
            return False
        if source.node in link.silent:
            return True
        payload = to_wire(group, message)
        delay = self.rng.choice((0.0005, 0.001, 0.005, 0.03, 0.08))
        at_s = max(self.now_s + delay, self._arrivals_s.get((source.node, target), 0.0) + 1e-6)
        self._arrivals_s[source.node, target] = at_s

        def arrive() -> None:
            member = self.members[target]
            if self._links.get(key) is link and member.is_alive:
                number, received = parse(payload)
                member.hear(number, source.node, received)
                if self.rng.random() < 0.9:
                    member.work()

        self.after(at_s - self.now_s, arrive)
        return True

    # What goes on.

    def _submit(self) -> None:
        if self.now_s >= self.faults_s:
            return
        for member in self.members.values():
            for number, group in enumerate(member.groups):
                if not member.is_alive or group.pending_bytes > PENDING_BYTES_MAX:
                    continue
                if self.rng.random() < 0.5:
                    continue
                for _ in range(self.rng.choice((1, 1, 4))):
                    command = b"%08d" % next(self._numbers) + b"." * 60
                    group.submit(
                        command,
                        lambda reply, g=number, c=command: self._answered(g, c, reply),  # type: ignore[misc]
                    )
            if member.is_alive:
                member.work()
        self.after(self.rng.choice((0.02, 0.05, 0.1)), self._submit)

    def _read(self) -> None:
        if self.now_s >= self.faults_s:
            return
        node = self.rng.choice(list(self.members))
        if self.members[node].is_alive:
            number = self.rng.randrange(self.groups)
            self.members[node].read(number, len(self.history[number]))
        self.after(self.rng.choice((0.01, 0.02)), self._read)

    def _snapshot(self) -> None:
        member = self.members[self.rng.choice(list(self.members))]
        if member.is_alive:
            number = self.rng.randrange(self.groups)
            member.snapshot(number)
            member.reclaim(self.rng.randrange(self.groups))
        self.after(self.rng.choice((0.02, 0.1, 0.3)), self._snapshot)

    # Faults.

    def _leads(self) -> list[NodeId]:
        return [
            node
            for node, member in self.members.items()
            if member.is_alive and any(group.is_leader for group in member.groups)
        ]

    def _fault(self) -> None:
        if self.now_s >= self.faults_s:
            return
        rng, leads = self.rng, self._leads()
        alive = [node for node, member in self.members.items() if member.is_alive]
        are_alive = all(node in alive for node in self.desired)
        draw = rng.random()
        if draw < 0.2 and are_alive and leads:
            self._isolate_one_then_crash_another(rng.choice(leads))
            self.after(rng.choice((1.0, 3.0)), self._fault)
            return
        if draw < 0.32 and are_alive:
            node = rng.choice(leads or alive)
            self._crash(node, back_s=rng.choice((0.1, 0.5, 2.0)), links_s=0.3)
        elif draw < 0.36:
            for node in alive:
                self._crash(node, back_s=rng.choice((0.1, 0.5, 1.0)), links_s=0.3)
        elif draw < 0.48 and len(alive) > 1:
            self._glitch(*rng.sample(alive, 2))
        elif draw < 0.58 and alive:
            self.counts["isolations"] += 1
            node = rng.choice(leads or alive)
            for peer in self.members:
                self.disconnect(node, peer)
                self.after(rng.choice((0.5, 1.0, 2.5)), lambda p=peer: self.connect(node, p))  # type: ignore[misc]
        elif draw < 0.65 and leads:
            self.counts["transfers"] += 1
            for group in self.members[rng.choice(leads)].groups:
                group.transfer(rng.choice(alive))
        else:
            self._change_members(rng.choice(list(self.desired)))
        self.after(rng.choice((0.05, 0.2, 0.6, 1.0)), self._fault)

    def _change_members(self, node: NodeId) -> None:
        draw = self.rng.random()
        if draw < 0.6:
            if self._may_lose(node):
                self._wipe(node)
        elif draw < 0.8:
            if len(self.desired) < NODES_MAX:
                self._add()
        elif len(self.desired) > NODES_MIN:
            self._remove(node)

    def _glitch(self, one: NodeId, other: NodeId) -> None:
        """A link breaks; before that, one direction may be silent for a while."""
        self.counts["glitches"] += 1
        link = self._links.get((min(one, other), max(one, other)))
        silent_s = self.rng.choice((0.0, 0.0, 0.3, 1.5))
        if link is not None and silent_s:
            link.silent.add(one)

        def breaks() -> None:
            self.disconnect(one, other)
            self.after(self.rng.choice((0.001, 0.02, 0.5, 1.5)), lambda: self.connect(one, other))

        self.after(silent_s, breaks)

    def _isolate_one_then_crash_another(self, lead: NodeId) -> None:
        """Let one lag and one that acknowledged crash, then leave these two to elect.

        With the leader cut off, a promise that was not kept on disk does its damage here.
        """
        others = [node for node in self.desired if node != lead]
        if len(others) < 2:
            return
        self.counts["targeted"] += 1
        acked, lagging = self.rng.sample(others, 2)
        self.disconnect(lead, lagging)
        self.disconnect(acked, lagging)
        self.members[acked].is_slow = self.rng.random() < 0.5

        def strike() -> None:
            trio = (lead, acked, lagging)
            if not all(self.members[node].is_alive for node in trio):
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
        SimulationFailed: a promise was broken, or a member stopped itself.
    """
    world = World(seed, guard=guard, faults_s=faults_s)
    try:
        world.run()
    except (ConsensusError, StorageError, AssertionError, LookupError) as error:
        cause = error.__cause__ if isinstance(error, MachineFailed) else error
        raise SimulationFailed(f"{type(cause).__name__}: {cause}") from error
    counts = world.counts
    counts["applied"] = sum(map(len, world.history))
    counts["terms"] = world.terms
    return counts


def main() -> int:
    """Run the seeds of the command line; 1 if any failed."""
    logging.disable(logging.CRITICAL)
    first, count = int(sys.argv[1]), int(sys.argv[2])
    failures, total = 0, Counter[str]()
    for seed in range(first, first + count):
        try:
            total += run_seed(seed)
        except SimulationFailed as failure:
            failures += 1
            print(f"seed {seed}: {failure}", flush=True)
    print(f"{count - failures} of {count} seeds passed:", dict(total))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
