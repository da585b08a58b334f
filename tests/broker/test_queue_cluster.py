"""Whatever happens to leaders, links and actors: nothing is lost, stuck, or doubled unmarked."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import pytest

from leveret.broker.queues.lead import Lead
from tests.broker.queue_cluster import NODES, UID, Asked, Client, Cluster

STEPS = 700


class Chaos:
    """A random course of events in a cluster."""

    def __init__(self, seed: int, *, is_calm: bool, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster(seed, is_calm=is_calm)
        self.random = self.cluster.random
        self.gets: list[tuple[Client, Asked]] = []
        self.asking: dict[int, Asked] = {}
        """By consumer: a channel asks one thing at a time."""
        self.actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.apply),
            (20, self.commit),
            (40, self.step),
            (40, self.carry),
            (40, self.client_takes),
            (6, self.publish),
            (12, self.settle),
            (3, self.requeue),
            (3, self.unpause),
            (2, self.consume),
            (2, self.cancel),
            (1, self.leave),
            (2, self.get),
            (1, self.count),
            (4, self.learn),
        ]
        if not is_calm:
            self.actions += [
                (1, self.elect),
                (1, self.doubt),
                (1, self.break_link),
                (3, self.notice),
                (3, self.connect),
                (1, self.crash),
            ]

    def run(self) -> None:
        actions = [action for _, action in self.actions]
        weights = [weight for weight, _ in self.actions]
        self.cluster.elect(1)
        for _ in range(STEPS):
            self.random.choices(actions, weights)[0]()
            self.take_gets()
            self.cluster.take_confirms()

    def node(self) -> int:
        return self.random.choice(NODES)

    def client(self) -> Client | None:
        open_ones = [c for c in self.cluster.clients if not c.is_gone]
        return self.random.choice(open_ones) if open_ones else None

    def is_asking(self, client: Client) -> bool:
        asked = self.asking.get(client.consumer.number)
        return asked is not None and not asked.is_answered

    # What the world does

    def apply(self) -> None:
        node = self.cluster.nodes[self.node()]
        for _ in range(self.random.randint(1, 5)):
            if node.applied < len(self.cluster.log):
                node.apply()

    def commit(self) -> None:
        self.cluster.commit(self.node())

    def step(self) -> None:
        self.cluster.nodes[self.node()].step(self.random.choice((1, 3, 256)))

    def carry(self) -> None:
        a, b = self.random.sample(NODES, 2)
        self.cluster.carry(a, b, self.random.choice((1, 3, 100)))

    def elect(self) -> None:
        self.cluster.elect(self.node())

    def learn(self) -> None:
        """A node hears of the leader."""
        node = self.cluster.nodes[self.node()]
        if node.view != (self.cluster.term, self.cluster.leader):
            node.see(self.cluster.term, self.cluster.leader)

    def doubt(self) -> None:
        """A node does not hear of its leader for a while, and knows none."""
        node = self.cluster.nodes[self.node()]
        if node.leader != node.node:
            node.see(node.view[0], None)

    def break_link(self) -> None:
        self.cluster.break_link(*self.random.sample(NODES, 2))

    def notice(self) -> None:
        self.cluster.notice(*self.random.sample(NODES, 2))

    def connect(self) -> None:
        a, b = self.random.sample(NODES, 2)
        if self.cluster.links[a, b] is None:
            self.cluster.connect(a, b)

    def crash(self) -> None:
        if self.random.random() < 0.3:
            self.cluster.nodes[self.node()].crash()

    # What clients do

    def client_takes(self) -> None:
        busy = [c for c in self.cluster.clients if c.inbox.queue]
        if busy:
            self.cluster.client_takes(self.random.choice(busy))

    def publish(self) -> None:
        self.cluster.publish(self.node(), self.random.randint(1, 20))

    def consume(self) -> None:
        if sum(not c.is_gone for c in self.cluster.clients) < 8:
            prefetch = self.random.choice((0, 1, 2, 10))
            client = self.cluster.new_client(self.node(), prefetch=prefetch)
            self.asking[client.consumer.number] = self.cluster.requests[-1]

    def settle(self) -> None:
        client = self.client()
        if client is not None and client.held:
            held = list(client.held)
            self.cluster.settle(client, self.random.sample(held, self.random.randint(1, len(held))))

    def requeue(self) -> None:
        client = self.client()
        if client is not None and client.held:
            held = list(client.held)
            some = self.random.sample(held, self.random.randint(1, len(held)))
            self.cluster.requeue(client, some)

    def unpause(self) -> None:
        client = self.client()
        if client is not None and client.is_paused:
            self.cluster.unpause(client)

    def cancel(self) -> None:
        client = self.client()
        if client is not None and client.prefetch >= 0 and not self.is_asking(client):
            self.cluster.cancel(client)
            self.asking[client.consumer.number] = self.cluster.requests[-1]

    def leave(self) -> None:
        client = self.client()
        if client is not None:
            self.cluster.leave(client)

    def get(self) -> None:
        holders = [c for c in self.cluster.clients if c.prefetch < 0 and not c.is_gone]
        client = self.random.choice(holders) if holders and self.random.random() < 0.7 else None
        if client is None:
            client = self.cluster.new_client(self.node(), prefetch=-1)
        if not self.is_asking(client):
            asked = self.cluster.get(client)
            self.gets.append((client, asked))
            self.asking[client.consumer.number] = asked

    def take_gets(self) -> None:
        for client, asked in [pair for pair in self.gets if pair[1].is_answered]:
            self.cluster.take_got(client, asked)
            self.gets.remove((client, asked))

    def count(self) -> None:
        self.cluster.count(self.node())

    # The end

    def drain(self) -> None:
        """Let all clients work off what there is."""
        for _ in range(10_000):
            is_working = False
            self.cluster.settle_down()
            self.take_gets()
            for client in self.cluster.clients:
                if client.is_gone:
                    continue
                if client.is_paused:
                    self.cluster.unpause(client)
                    is_working = True
                if client.held:
                    self.cluster.settle(client, list(client.held))
                    is_working = True
            if not is_working:
                return
        raise AssertionError("it never ends")


@pytest.mark.parametrize("seed", range(10))
def test_prefetch_is_kept_and_nothing_is_stuck_while_all_is_well(seed: int) -> None:
    check(Chaos(seed, is_calm=True))


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_stuck_or_doubled_unmarked_whatever_fails(seed: int) -> None:
    check(Chaos(seed, is_calm=False))


def check(chaos: Chaos, *, dropped: AbstractSet[bytes] = frozenset()) -> None:
    """Run to the end; `dropped` grows by what the queue may lose because it is too much."""
    cluster = chaos.cluster
    chaos.run()

    cluster.heal()
    cluster.limit_hits = 0
    cluster.new_client(1, prefetch=10)
    chaos.drain()

    assert not cluster.open_runs, "a publisher waits for ever"
    unanswered = [a.request for a in cluster.requests if not a.is_answered]
    assert not unanswered, "somebody waits for an answer for ever"
    assert cluster.confirmed <= cluster.acked | dropped
    assert not chaos.gets
    for node in cluster.nodes.values():
        state = node.state(UID)
        assert state is None or state.live == 0
        assert not node.actor._pending
        assert not node.actor._asked
    assert cluster.leader is not None
    lead = cluster.nodes[cluster.leader].actor._lead
    assert isinstance(lead, Lead)
    assert (0, 0) == (lead.dispatcher.ready, lead.dispatcher.unacked)
    there = {(c.node.node, c.consumer.number): c for c in cluster.clients if not c.is_gone}
    assert lead.dispatcher.consumers.keys() <= there.keys()
    for key, consumer in lead.dispatcher.consumers.items():
        assert (key, 0, 0) == (key, consumer.unwritten, consumer.unwritten_bytes)
        assert (key, {}) == (key, consumer.held)
    active = [c for c in there.values() if c.consumer.takes_turns and c.prefetch >= 0]
    assert lead.dispatcher.active == len(active)

    # Nobody is stuck: the next messages go to all consumers in turn.
    for client in active:
        client.got_since = 0
    cluster.publish(2, 3 * len(active))
    chaos.drain()
    assert all(client.got_since for client in active)
