"""Publishers that lose their connections and send again, over nodes that change leaders.

What a lost connection had sent is still handed in by its old node, late or never, while the next
connection sends it again over another one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import cast

import pytest

from leveret.actors import Ref
from leveret.broker.messages import PublishRun
from leveret.broker.numbering import Numbering
from tests.broker.queue_cluster import NODES, UID, Cluster, Mailbox

STEPS = 500


class Sender:
    """A publisher with numbers: what its client library does, without the protocol."""

    def __init__(self, name: str, cluster: Cluster, *, tells_numbers: bool = True) -> None:
        self.name = name
        self.cluster = cluster
        self.random = cluster.random
        self.tells_numbers = tells_numbers
        self.published = 0
        self.settled: set[int] = set()
        """Confirmed or refused: not sent again."""
        self.confirmed: set[int] = set()
        self.connections = 0
        self.connect()

    def connect(self) -> None:
        """Go on at some node, and send again all from the first number that is not settled."""
        self.connections += 1
        self.inbox = Mailbox()
        self.node = self.cluster.nodes[self.random.choice(NODES)]
        self.after = 0
        while self.after + 1 in self.settled:
            self.after += 1
        self.sent = self.after
        self.send()

    def publish(self, count: int) -> None:
        self.published += count
        self.send()

    def send(self) -> None:
        while self.sent < self.published:
            run = PublishRun(
                connection=cast("Ref[object]", self.inbox),
                channel=1,
                epoch=1,
                exchange="",
                routing_key="q",
                mandatory=False,
                first_confirm=self.sent - self.after + 1,
                numbering=Numbering(self.name, self.after) if self.tells_numbers else None,
            )
            run.waiting = 1
            for _ in range(min(self.random.randint(1, 8), self.published - self.sent)):
                self.sent += 1
                run.records.append(f"{self.name}:{self.sent}:{self.connections}".encode())
            run.size_bytes = sum(map(len, run.records))
            self.node.mailbox.tell(run)

    def hear(self) -> None:
        while self.inbox.queue:
            run = self.inbox.queue.popleft()
            assert isinstance(run, PublishRun)
            first = self.after + run.first_confirm
            numbers = range(first, first + len(run.records))
            self.settled.update(numbers)
            if not run.refused:
                self.confirmed.update(numbers)


class Course:
    """A random course of events."""

    def __init__(self, seed: int, *, crashes: bool, tells_numbers: bool = True) -> None:
        self.cluster = Cluster(seed, is_calm=False)
        self.random: Random = self.cluster.random
        self.crashes = crashes
        self.cluster.elect(1)
        self.senders = [
            Sender(name, self.cluster, tells_numbers=tells_numbers) for name in ("a", "b")
        ]

    def run(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.apply),
            (15, lambda: self.cluster.commit(self.node())),
            (30, lambda: self.cluster.nodes[self.node()].step(self.random.choice((1, 3, 256)))),
            (20, lambda: self.sender().publish(self.random.randint(1, 15))),
            (20, lambda: self.sender().hear()),
            (4, lambda: self.sender().connect()),
            (2, lambda: self.cluster.elect(self.node())),
            (4, self.learn),
        ]
        if self.crashes:
            actions.append((1, self.crash))
        weights = [weight for weight, _ in actions]
        for _ in range(STEPS):
            self.random.choices(actions, weights)[0][1]()
        for sender in self.senders:
            sender.connect()
        self.cluster.heal()
        for sender in self.senders:
            sender.hear()

    def node(self) -> int:
        return self.random.choice(NODES)

    def sender(self) -> Sender:
        return self.random.choice(self.senders)

    def apply(self) -> None:
        node = self.cluster.nodes[self.node()]
        for _ in range(self.random.randint(1, 5)):
            if node.applied < len(self.cluster.log):
                node.apply()

    def crash(self) -> None:
        self.cluster.nodes[self.node()].crash()

    def learn(self) -> None:
        node = self.cluster.nodes[self.node()]
        if node.view != (self.cluster.term, self.cluster.leader):
            node.see(self.cluster.term, self.cluster.leader)

    def stored(self, sender: Sender, node: int) -> list[int]:
        """The numbers of a sender that the queue holds on a node, in its order."""
        state = self.cluster.nodes[node].machine.queues[UID]
        numbers = []
        for _, (entry, offset, size) in state.live_from(1):
            name, number, _ = self.cluster.log[entry - 1][2][offset : offset + size].split(b":")
            if name == sender.name.encode():
                numbers.append(int(number))
        return numbers


@pytest.mark.parametrize("seed", range(30))
def test_each_number_is_stored_once_and_in_order_whatever_is_sent_again(seed: int) -> None:
    course = Course(seed, crashes=False)

    course.run()

    for sender in course.senders:
        assert sender.connections > 1
        assert len(sender.confirmed) == sender.published
        for node in NODES:
            assert list(range(1, sender.published + 1)) == course.stored(sender, node)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_confirmed_is_stored_once_though_queue_actors_crash(seed: int) -> None:
    course = Course(seed, crashes=True)

    course.run()

    for sender in course.senders:
        assert len(sender.settled) == sender.published
        for node in NODES:
            stored = course.stored(sender, node)
            assert len(stored) == len(set(stored))
            assert sender.confirmed <= set(stored)


def test_without_numbers_such_courses_store_things_twice() -> None:
    doubled = 0
    for seed in range(20):
        course = Course(seed, crashes=False, tells_numbers=False)
        course.run()
        for sender in course.senders:
            stored = course.stored(sender, 1)
            doubled += len(stored) - len(set(stored))

    assert doubled > 0
