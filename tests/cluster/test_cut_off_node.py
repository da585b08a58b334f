"""A node that the others do not answer: it confirms nothing, says nothing stale, and heals."""

from __future__ import annotations

import contextlib
import signal
import struct
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pika
import pytest

from chaos.load import Consumer, LoadEnded, Publisher
from chaos.verdict import judge
from tests.cluster.conftest import Cluster
from tests.support.wire import QUEUE_DECLARE, QUEUE_DECLARE_OK, Wire, shortstr, table

CUT_OFF_S = 3.0
"""Some quorum timeouts and elections: the node has noticed by then."""
FAR = 1_000_000
"""A second publisher's first number."""
BLOCKED_WITHIN_S = 10.0
"""A link that is silent is given up after 4 s, and a lost majority is told 2 s later."""
PASSIVE = 0b00001


@contextlib.contextmanager
def cut_off(cluster: Cluster, place: int) -> Iterator[None]:
    """Stop the two other nodes, as a partition would that leaves their sockets open."""
    others = [cluster[place + 1], cluster[place + 2]]
    for other in others:
        other.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            other.signal(signal.SIGCONT)


def declare(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(queue, durable=True)


def connect_wire(url: str, *, timeout_s: float) -> Wire:
    """Return a bare client with channel 1 open."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    wire = Wire(parts.hostname, parts.port)
    wire.connect("guest", "guest")
    wire.open_channel()
    wire.timeout_s = timeout_s
    return wire


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cut_off_node_does_not_say_that_a_queue_exists_until_it_knows(
    place: int, cluster: Cluster, name: str
) -> None:
    declare(cluster.url(place), name)
    with connect_wire(cluster.url(place), timeout_s=CUT_OFF_S) as wire:
        with cut_off(cluster, place):
            arguments = struct.pack(">H", 0) + shortstr(name) + bytes([PASSIVE]) + table()
            wire.send_method(1, QUEUE_DECLARE, arguments)
            with pytest.raises(TimeoutError):
                wire.read_frame()

        wire.timeout_s = 15.0
        assert wire.expect(QUEUE_DECLARE_OK, 1).startswith(shortstr(name))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cut_off_node_blocks_its_publishers_and_confirms_all_once_when_it_is_back(
    place: int,
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    declare(cluster.url(place), name)
    publisher = publish(cluster.url(place), name)
    publisher.wait_confirmed(300)
    with cut_off(cluster, place):
        publisher.wait("block", lambda: publisher.is_blocked, within_s=BLOCKED_WITHIN_S)
        confirmed = len(publisher.confirmed)
        late = publish(cluster.url(place), name, first=FAR, count=50)
        late.wait("block", lambda: late.is_blocked, within_s=5)
        with pytest.raises(LoadEnded, match="blocked: True"):
            publisher.wait_confirmed(confirmed + 1, within_s=CUT_OFF_S)
        assert [] == late.confirmed

    publisher.wait("end of the block", lambda: not publisher.is_blocked, within_s=15)
    publisher.wait_confirmed(confirmed + 1000)
    publisher.finish()
    late.wait_all(within_s=15)
    assert [] == publisher.nacked + late.nacked
    consumer = consume(cluster.url(place + 1), name)
    consumer.wait_distinct(publisher.next + 50)
    consumer.close()
    assert len(consumer.distinct) == len(consumer.deliveries)
    near = [delivery for delivery in consumer.deliveries if delivery[0] < FAR]
    verdict = judge(publisher.next, publisher.confirmed, near)
    assert verdict.is_clean, verdict
    assert list(range(publisher.next)) == [number for number, _ in near]
    assert set(range(FAR, FAR + 50)) <= consumer.distinct
