"""The leader of a stream is killed under its readers: each sees every offset once and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pika
import pytest
from pika.channel import Channel

from chaos.load import Consumer, Publisher, number_of
from tests.cluster.conftest import Cluster
from tests.cluster.test_killed_leader import ready_at

BACKLOG = 500
ATTEMPTS = 10
STREAM = {"x-queue-type": "stream"}


class Reader(Consumer):
    """Reads a stream from an offset, and keeps offsets with the numbers."""

    def __init__(self, url: str, queue: str, *, offset: int) -> None:
        super().__init__(url, queue, prefetch=50)
        self.offset = offset
        self.got: list[tuple[int, int]] = []

    def _begin(self, channel: Channel) -> None:
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(
            self._queue,
            self._delivered,
            arguments={"x-stream-offset": self.offset},
            callback=self._consuming,
        )

    def _delivered(
        self,
        channel: Channel,
        deliver: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        assert properties.headers is not None
        self.got.append((int(properties.headers["x-stream-offset"]), number_of(body)))
        super()._delivered(channel, deliver, properties, body)


@pytest.fixture
def read() -> Iterator[Callable[..., Reader]]:
    """Starts readers; those that run at the end are stopped."""
    made: list[Reader] = []

    def start(url: str, queue: str, *, offset: int) -> Reader:
        made.append(Reader(url, queue, offset=offset))
        made[-1].start()
        return made[-1]

    yield start
    for reader in made:
        reader.abandon()


def leader_with_backlog(cluster: Cluster, name: str, publish: Callable[..., Publisher]) -> int:
    """Put `BACKLOG` messages into a new stream and return the place of the node that leads it."""
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        for _ in range(ATTEMPTS):
            channel = connection.channel()
            channel.queue_declare(name, durable=True, arguments=STREAM)
            before = ready_at(cluster)
            publish(cluster.url(0), name, count=BACKLOG).wait_all(within_s=30)
            after = ready_at(cluster)
            grown = [now - then for now, then in zip(after, before, strict=True)]
            if BACKLOG in grown:
                return grown.index(BACKLOG)
            # Queues that earlier tests left have moved meanwhile, to where they belong.
            channel.queue_delete(name)
    raise AssertionError(f"no node's messages grew by {BACKLOG}: {grown}")


def test_readers_see_every_offset_once_and_in_order_while_the_leader_dies(
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    read: Callable[..., Reader],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    whole = read(cluster.url(leader + 1), name, offset=0)
    late = read(cluster.url(leader + 2), name, offset=300)
    publisher = publish(cluster.url(leader + 1), name, first=BACKLOG)
    publisher.wait_confirmed(300)
    whole.wait_distinct(100)
    late.wait_distinct(100)

    cluster[leader].kill()

    publisher.wait_confirmed(len(publisher.confirmed) + 300)
    publisher.finish()
    end = publisher.next
    whole.wait_distinct(end)
    late.wait_distinct(end - 300)
    cluster.heal()
    again = read(cluster.url(leader), name, offset=end - 10)
    again.wait_distinct(10)
    for reader in (whole, late, again):
        reader.close()
        assert [(n, n) for n in range(reader.offset, end)] == reader.got
        assert not any(redelivered for _, redelivered in reader.deliveries)
