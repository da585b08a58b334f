"""Streams, whatever happens to leaders, links and actors: every reader gets all, once, in order."""

from __future__ import annotations

import pytest

from leveret.broker.messages import Credit, Deliver, StreamPosition, Written
from leveret.broker.queues.features import QueueFeatures, Retention
from leveret.broker.queues.state import QueueState
from leveret.broker.queues.stream_lead import StreamLead
from tests.broker.queue_cluster import NODES, UID, Client, Cluster
from tests.broker.test_queue_cluster import Chaos

PREFETCH = 5
MAX_BYTES = 400


class Streams(Cluster):
    """A cluster whose queue is a stream, and what each of its readers got."""

    def __init__(self, seed: int, *, is_calm: bool, max_bytes: int | None) -> None:
        features = QueueFeatures(stream=Retention(max_bytes=max_bytes))
        super().__init__(seed, is_calm=is_calm, features=features)
        self.truth: dict[int, bytes] = {}
        """What is at each sequence, as far as some node had it when it was looked at."""
        self.got: dict[int, list[int]] = {}
        """By consumer: the sequences that it got."""

    def state(self, number: int) -> QueueState:
        return self.nodes[number].state(UID) or QueueState(UID)

    def look(self) -> None:
        """See what the nodes have: all have the same."""
        for number in NODES:
            for sequence, place in self.state(number).live_from(1):
                entry = self.nodes[number].read(place.entry)
                body = bytes(entry[place.offset : place.offset + place.size])
                assert self.truth.setdefault(sequence, body) == body

    def new_reader(self, number: int, start: tuple[str, int]) -> Client:
        client = self.new_client(number, prefetch=PREFETCH, stream=StreamPosition(start))
        self.got[client.consumer.number] = []
        return client

    def delivered(self, client: Client, message: Deliver) -> None:
        if client.is_gone:
            return
        stream = client.consumer.stream
        assert stream is not None
        assert stream.is_known, "it got something before it was told where it is"
        position = stream.start[1]
        size_bytes = sum(map(len, message.records))
        client.tell(
            Written(client.consumer, message.attachment, len(message.sequences), size_bytes)
        )
        assert not any(message.redelivered)
        repeated = stream.take(message)
        held = {sequence for sequence, _ in client.held.values()}
        client.tell(Credit(client.consumer, [s for s in repeated if s not in held]))
        for sequence, record in zip(message.sequences, message.records, strict=True):
            if sequence > position:
                first = max(self.state(number).first for number in NODES)
                assert sequence <= first, "something was left out"
            position = sequence + 1
            assert self.truth.get(sequence, record) == record
            self.got[client.consumer.number].append(sequence)
            client.tag += 1
            client.held[client.tag] = sequence, bytes(record)
            client.got_since += 1
        if self.features.stream == Retention():
            # Else it may hold what is gone, and what an attachment that is not told so got instead.
            assert len(client.held) <= PREFETCH

    def settle(self, client: Client, tags: list[int]) -> None:
        client.tell(Credit(client.consumer, [client.held.pop(tag)[0] for tag in tags]))


class StreamChaos(Chaos):
    """A random course of events around a stream."""

    cluster: Streams

    def __init__(self, seed: int, *, is_calm: bool, max_bytes: int | None = None) -> None:
        cluster = Streams(seed, is_calm=is_calm, max_bytes=max_bytes)
        super().__init__(seed, is_calm=is_calm, cluster=cluster)
        not_for_streams = {self.requeue, self.unpause, self.get}
        self.actions = [pair for pair in self.actions if pair[1] not in not_for_streams]

    def apply(self) -> None:
        super().apply()
        self.cluster.look()

    def consume(self) -> None:
        if sum(not c.is_gone for c in self.cluster.clients) < 8:
            offset = self.random.randint(0, self.cluster.published + 5)
            kinds = ("first", 0), ("last", 0), ("next", 0), ("offset", offset)
            self.read(self.node(), self.random.choice(kinds))

    def read(self, number: int, start: tuple[str, int]) -> None:
        client = self.cluster.new_reader(number, start)
        self.asking[client.consumer.number] = self.cluster.requests[-1]


@pytest.mark.parametrize("seed", range(10))
def test_every_reader_gets_all_once_and_in_order(seed: int) -> None:
    check(StreamChaos(seed, is_calm=True))


@pytest.mark.parametrize("seed", range(60))
def test_every_reader_gets_all_once_and_in_order_whatever_fails(seed: int) -> None:
    check(StreamChaos(seed, is_calm=False))


@pytest.mark.parametrize("seed", range(40))
def test_readers_go_on_with_what_retention_left_whatever_fails(seed: int) -> None:
    chaos = StreamChaos(seed, is_calm=False, max_bytes=MAX_BYTES)

    check(chaos)

    states = [chaos.cluster.state(number) for number in NODES]
    assert len({state.first for state in states}) == 1
    assert all(state.size_bytes <= MAX_BYTES for state in states)
    assert states[0].first > 1


def check(chaos: StreamChaos) -> None:
    cluster = chaos.cluster
    chaos.read(2, ("first", 0))
    chaos.run()

    cluster.heal()
    chaos.drain()

    assert not cluster.open_runs, "a publisher waits for ever"
    unanswered = [a.request for a in cluster.requests if not a.is_answered]
    assert not unanswered, "somebody waits for an answer for ever"
    cluster.look()
    bodies = list(cluster.truth.values())
    assert len(bodies) == len(set(bodies)), "a message is at two offsets"
    if cluster.features.stream == Retention():
        assert cluster.confirmed <= set(bodies)
    end = cluster.state(1).next
    active = [c for c in cluster.clients if not c.is_gone and c.consumer.takes_turns]
    for client in active:
        stream, got = client.consumer.stream, cluster.got[client.consumer.number]
        assert stream is not None
        assert not got or got[-1] == end - 1, "it did not get to the end"
        assert stream.is_known
        assert stream.start[1] >= end
    assert cluster.leader is not None
    lead = cluster.nodes[cluster.leader].actor._lead
    assert isinstance(lead, StreamLead)
    assert {c.consumer.number for c in active} == {number for _, number in lead._readers}
    for reader in lead._readers.values():
        assert ({}, 0, 0) == (reader.held, reader.unwritten, reader.unwritten_bytes)

    # Nobody is stuck: what comes next goes to all.
    for client in active:
        client.got_since = 0
    cluster.publish(2, 3)
    chaos.drain()
    assert all(c.got_since == 3 or c.consumer.stream.start[1] > end + 3 for c in active)  # type: ignore[union-attr]
