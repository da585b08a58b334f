"""Engines on a hand-stepped clock, network and disk: a test decides what happens, and when."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

from chaos.simulation.memory_journal import Change, MemoryJournal
from leveret.consensus.engine import EngineConfig, Role, SnapshotMark
from leveret.consensus.guard import Guard
from leveret.consensus.membership import Configuration
from leveret.consensus.messages import Append, Message, parse, to_wire
from leveret.consensus.pysyncobj import PySyncObjEngine
from leveret.transport import NodeId


class Member:
    """One member with all that it applied."""

    def __init__(
        self,
        cluster: Cluster,
        node: int,
        *,
        disk: list[Change] | None = None,
        snapshot: SnapshotMark | None = None,
    ) -> None:
        self.cluster = cluster
        self.node = NodeId(node)
        self.journal = MemoryJournal([] if disk is None else disk)
        self.log = self.journal.log(0)
        self.applied: list[tuple[int, bytes]] = []
        self.engine = PySyncObjEngine(
            node=self.node,
            incarnation=cluster.incarnations.get(self.node, 0),
            configuration=cluster.configuration,
            log=self.log,
            durability=self.journal,
            apply=lambda index, payload: cluster.apply(self, index, payload),
            now_s=lambda: cluster.now_s,
            rng=random.Random(node),
            config=cluster.config,
            snapshot=snapshot,
            guard=cluster.guard,
        )

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.applied]

    def pump(self) -> None:
        """Do all that can be done without the disk."""
        while self.engine.advance():
            pass
        for peer, message in self.engine.outgoing():
            self.cluster.sent(self.node, peer, message)

    def sync(self) -> None:
        self.journal.sync()
        self.pump()

    def step(self, sender: int, message: Message) -> None:
        self.engine.step(NodeId(sender), message)
        self.pump()

    def tick(self, after_s: float) -> None:
        self.cluster.now_s += after_s
        self.engine.tick()
        self.pump()


class Cluster:
    """Members 1..n. Messages wait in `wire[sender, receiver]` until delivered."""

    def __init__(
        self,
        size: int = 3,
        *,
        guard: type[Guard] = Guard,
        config: EngineConfig | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.nodes: Sequence[NodeId] = [NodeId(node) for node in range(1, size + 1)]
        self.configuration = configuration or Configuration(dict.fromkeys(self.nodes, 0))
        self.incarnations: dict[int, int] = {}
        self.guard = guard
        self.config = config or EngineConfig()
        self.now_s = 0.0
        self.wire: dict[tuple[int, int], deque[Message]] = {}
        self.up: set[frozenset[int]] = set()
        self.apply: Callable[[Member, int, bytes], None] = lambda member, index, payload: (
            member.applied.append((index, payload))
        )
        self.members = {node: Member(self, node) for node in self.nodes}
        for member in self.members.values():
            member.sync()

    def __getitem__(self, node: int) -> Member:
        return self.members[NodeId(node)]

    def sent(self, source: int, target: int, message: Message) -> None:
        if frozenset((source, target)) in self.up:
            group, same = parse(to_wire(0, message))
            assert (group, same) == (0, message)
            self.wire.setdefault((source, target), deque()).append(message)

    def connect(self, *nodes: int) -> None:
        """Connect all of these with each other."""
        for one in nodes:
            for other in nodes:
                if one < other and frozenset((one, other)) not in self.up:
                    self.up.add(frozenset((one, other)))
                    for node, peer in ((one, other), (other, one)):
                        incarnation = self.incarnations.get(peer, 0)
                        self[node].engine.connected(NodeId(peer), incarnation)
        for node in nodes:
            self[node].pump()

    def disconnect(self, *pair: int) -> None:
        one, other = pair
        self.up.discard(frozenset(pair))
        self.wire.pop((one, other), None)
        self.wire.pop((other, one), None)
        self[one].engine.disconnected(NodeId(other))
        self[other].engine.disconnected(NodeId(one))

    def isolate(self, node: int) -> None:
        for other in self.nodes:
            if frozenset((node, other)) in self.up:
                self.disconnect(node, other)

    def wipe(self, node: int) -> None:
        """Give a member an empty disk, and so another incarnation; its links are gone."""
        self.isolate(node)
        self.incarnations[node] = self.incarnations.get(node, 0) + 1
        self.members[NodeId(node)] = Member(self, node)
        self[node].sync()

    def deliver(self, source: int, target: int) -> list[Message]:
        """Deliver all that waits now; the receiver syncs nothing."""
        waiting = self.wire.pop((source, target), deque())
        for message in waiting:
            self[target].step(source, message)
        return list(waiting)

    def waiting(self, source: int, target: int) -> list[Message]:
        return list(self.wire.get((source, target), ()))

    def settle(self, *nodes: int, rounds: int = 50) -> int:
        """Deliver and sync until nothing moves; return the rounds that it took."""
        for number in range(rounds):
            for node in nodes or self.nodes:
                self[node].sync()
            pairs = [pair for pair in self.wire if self.wire[pair]]
            pairs = [pair for pair in pairs if not nodes or set(pair) <= set(nodes)]
            if not pairs:
                return number
            for pair in pairs:
                self.deliver(*pair)
        raise AssertionError("it does not settle")

    def elect(self, node: int, *voters: int) -> None:
        """Let the others lose their leader's contact and this one stand."""
        among = (node, *voters)
        self[node].tick(1.1)
        self.settle(*among)
        assert self[node].engine.role is Role.LEADER, self[node].engine.role
        assert self[node].engine.is_ready

    def propose(self, node: int, *payloads: bytes) -> None:
        for payload in payloads:
            assert self[node].engine.propose(payload)
        self[node].pump()


def three(guard: type[Guard] = Guard, config: EngineConfig | None = None) -> Cluster:
    """Three connected members that 1 leads."""
    cluster = Cluster(guard=guard, config=config)
    cluster.connect(1, 2, 3)
    cluster.elect(1, 2, 3)
    return cluster


def entries(messages: Sequence[Message]) -> int:
    """Count the entries in appends."""
    return sum(len(message.entries) for message in messages if isinstance(message, Append))
