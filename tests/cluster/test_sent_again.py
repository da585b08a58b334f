"""A publisher sends again what was not confirmed before its node, or a queue's leader, died.

The client is made of bytes: it hangs up without reading what has come, so that each time there
are messages which are committed, and of which it does not know.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pika
import pytest
import trio

from chaos.load import Consumer, Publisher, body_of
from leveret.client import connect as connect_client
from tests.cluster.conftest import Cluster, NodeMaker
from tests.cluster.test_killed_leader import declare, leader_with_backlog
from tests.support.wire import (
    BASIC_ACK,
    BODY,
    CHANNEL_OPEN,
    CHANNEL_OPEN_OK,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    HEADER,
    METHOD,
    Wire,
    content_header,
    frame,
    publish,
    shortstr,
)

BACKLOG = 500
WINDOW = 2_000
WITHIN_S = 30.0
CHANNEL = 1
PERSISTENT = content_header(len(body_of(0)), 0x1000, b"\x02")


class Sender:
    """Publishes numbered messages over one connection after the other.

    publisher: the id that it tells the brokers; None: it tells them nothing.
    """

    def __init__(
        self, queue: str, publisher: str | None, *, first: int = 0, exchange: str = ""
    ) -> None:
        self.first = first
        self.published = 0
        self.confirmed = 0
        """All numbers up to this one are; they are counted from 1."""
        self._early: set[int] = set()
        """Those above it that are, too."""
        self._publish = frame(METHOD, CHANNEL, publish(exchange, queue))
        self._publisher = publisher
        self._wire: Wire | None = None
        self._after = 0

    def connect(self, url: str) -> None:
        """Go on at a node, and send all again that is not known to be confirmed."""
        host, _, port = url.split("@")[1].strip("/").partition(":")
        self._wire = wire = Wire(host, int(port), timeout_s=WITHIN_S)
        wire.connect("guest", "guest")
        self._after = self.confirmed
        self._early.clear()
        token = f"publisher={self._publisher} after={self._after}" if self._publisher else ""
        wire.send_method(CHANNEL, CHANNEL_OPEN, shortstr(token))
        wire.expect(CHANNEL_OPEN_OK, CHANNEL)
        wire.send_method(CHANNEL, CONFIRM_SELECT, b"\x00")
        wire.expect(CONFIRM_SELECT_OK, CHANNEL)
        self._send(self._after, self.published)

    def publish(self, count: int) -> None:
        self.published += count
        self._send(self.published - count, self.published)

    def read_confirms(self, until: int) -> None:
        """Read until so many are confirmed, or all if there are fewer."""
        assert self._wire is not None
        while self.confirmed < min(until, self.published):
            arguments = self._wire.expect(BASIC_ACK, CHANNEL)
            tag, multiple = struct.unpack(">QB", arguments)
            number = self._after + tag
            self._early.update(range(self.confirmed + 1, number) if multiple else (), [number])
            while self.confirmed + 1 in self._early:
                self.confirmed += 1
                self._early.discard(self.confirmed)

    def hang_up(self) -> None:
        """Break the connection, whatever has come and was not read."""
        assert self._wire is not None
        self._wire.socket.close()

    def _send(self, start: int, stop: int) -> None:
        assert self._wire is not None
        header = frame(HEADER, CHANNEL, PERSISTENT)
        self._wire.send(
            b"".join(
                self._publish + header + frame(BODY, CHANNEL, body_of(self.first + number))
                for number in range(start, stop)
            )
        )


def wait_for_depth(url: str, queue: str, least: int) -> int:
    """Wait until the queue holds so many messages, and return how many it holds."""
    deadline = time.monotonic() + WITHIN_S
    while (count := declare(url, queue)) < least:
        assert time.monotonic() < deadline, f"{count} messages, not {least}"
    return count


def wait_for_snapshot_of_a_shard(folder: Path) -> None:
    """Wait until a snapshot of another group than the catalog is in the folder."""
    deadline = time.monotonic() + WITHIN_S
    while not any(path.name[:4] != "000-" for path in folder.glob("*.state")):
        assert time.monotonic() < deadline, f"no snapshot in {folder}"
        time.sleep(0.05)


def assert_stored_once(
    url: str, queue: str, numbers: int, consume: Callable[..., Consumer]
) -> None:
    """Check that the queue holds `numbers` messages, each once, in order; and take them."""
    assert numbers == declare(url, queue)
    assert list(range(numbers)) == firsts(url, queue, numbers, consume)


def firsts(url: str, queue: str, numbers: int, consume: Callable[..., Consumer]) -> list[int]:
    """Take messages until so many different numbers came; return those in their order.

    The queue's leader may change meanwhile, so that some are delivered again.
    """
    consumer = consume(url, queue)
    consumer.wait_distinct(numbers, within_s=WITHIN_S)
    consumer.close()
    return list(dict.fromkeys(number for number, _ in consumer.deliveries))


def send_through(
    cluster: Cluster, sender: Sender, queue: str, leader: int, *, at: int, victims: list[int]
) -> None:
    """Publish while connections break, three times; with the first one `victims` die.

    at, victims: places of nodes, counted from the leader.
    """
    for turn in range(3):
        url = cluster.url(leader + at + turn)
        sender.connect(url)
        sender.publish(WINDOW)
        sender.read_confirms(sender.confirmed + 300)
        # Further ones are committed, whose confirms are not read.
        wait_for_depth(url, queue, sender.first + sender.confirmed + 200)
        if turn == 0:
            for victim in victims:
                cluster[leader + victim].kill()
        sender.hang_up()
        if turn == 1 or len(victims) > 1:
            cluster.heal()
    sender.connect(cluster.url(leader))
    sender.publish(100)
    sender.read_confirms(sender.published)
    sender.hang_up()


@pytest.mark.parametrize(
    ("at", "victims"),
    [(0, []), (1, []), (0, [0]), (1, [1]), (1, [0]), (1, [0, 1]), (0, [0, 1, 2])],
    ids=[
        "connection to the leader",
        "connection to a follower",
        "leader with the publisher",
        "the publisher's node",
        "leader",
        "leader and the publisher's node",
        "all nodes",
    ],
)
def test_what_a_publisher_sends_again_after_its_node_and_the_leader_died_is_stored_once_in_order(
    at: int,
    victims: list[int],
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    sender = Sender(name, f"test.{name}", first=BACKLOG)

    send_through(cluster, sender, name, leader, at=at, victims=victims)

    assert_stored_once(cluster.url(0), name, BACKLOG + sender.published, consume)


def test_without_numbers_what_is_sent_again_is_stored_twice(
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    sender = Sender(name, None, first=BACKLOG)

    send_through(cluster, sender, name, leader, at=1, victims=[1])

    distinct = BACKLOG + sender.published
    assert declare(cluster.url(0), name) >= distinct + 200
    assert list(range(distinct)) == firsts(cluster.url(0), name, distinct, consume)


def test_numbers_are_known_after_a_restart_of_all_nodes_also_of_what_was_purged(
    cluster: Cluster, name: str
) -> None:
    declare(cluster.url(0), name)
    sender = Sender(name, f"test.{name}")
    sender.connect(cluster.url(0))
    sender.publish(WINDOW)
    wait_for_depth(cluster.url(1), name, WINDOW)

    cluster.kill_all()
    sender.hang_up()
    cluster.heal()
    sender.connect(cluster.url(1))
    sender.publish(100)
    sender.read_confirms(sender.published)
    sender.hang_up()

    # Not consumed: acknowledgements of the last moments would be lost with all nodes.
    with pika.BlockingConnection(pika.URLParameters(cluster.url(2))) as connection:
        purged = connection.channel().queue_purge(name)
    assert purged.method.message_count == WINDOW + 100
    cluster.kill_all()
    cluster.heal()
    sender.confirmed = 0
    sender.connect(cluster.url(2))
    sender.read_confirms(sender.published)
    sender.hang_up()
    assert declare(cluster.url(0), name) == 0


def test_numbers_are_part_of_the_snapshot_that_a_node_starts_from(
    make_node: NodeMaker, name: str, tmp_path: Path
) -> None:
    node = make_node("consensus.snapshot_entries=100", data=tmp_path / "data")
    node.start()
    (url,) = node.urls
    declare(url, name)
    sender = Sender(name, f"test.{name}")
    sender.connect(url)
    for _ in range(300):
        sender.publish(1)
        sender.read_confirms(sender.published)
    wait_for_snapshot_of_a_shard(tmp_path / "data" / "snapshots")

    node.restart()
    sender.hang_up()
    sender.confirmed = 0
    sender.connect(url)
    sender.read_confirms(sender.published)
    sender.hang_up()

    assert declare(url, name) == 300


def test_each_queue_of_a_fanout_stores_once_what_is_sent_again(
    cluster: Cluster, name: str, consume: Callable[..., Consumer]
) -> None:
    queues = [f"{name}-{number}" for number in range(3)]
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.exchange_declare(name, "fanout", durable=True)
        for queue in queues:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, name)
    sender = Sender("", f"test.{name}", exchange=name)

    # Each of the nodes leads one of the queues, since they are in shards of their own.
    send_through(cluster, sender, queues[0], 0, at=0, victims=[0])

    for queue in queues:
        assert_stored_once(cluster.url(0), queue, sender.published, consume)


def test_leveret_client_publishes_exactly_once_while_its_nodes_die(
    cluster: Cluster, name: str, consume: Callable[..., Consumer]
) -> None:
    urls = [cluster.url(place) for place in range(3)]
    count = 6_000

    async def program() -> None:
        async with connect_client(urls) as connection, connection.channel() as channel:
            assert connection.guarantee == "exactly once"
            await channel.declare_queue(name)
            async with channel.publisher(name, window=1_000) as publisher:
                for number in range(count):
                    await publisher.send(body_of(number))
                    if number == 2_000:
                        cluster[0].kill()
                    if number == 4_000:
                        cluster.heal()
                        cluster[1].kill()

    trio.run(program)

    cluster.heal()
    assert_stored_once(cluster.url(0), name, count, consume)


def test_every_node_announces_the_addresses_of_all(cluster: Cluster) -> None:
    urls = [f"amqp://127.0.0.1:{cluster[place].ports[0]}" for place in range(3)]
    for place in range(3):
        with pika.BlockingConnection(pika.URLParameters(cluster.url(place))) as connection:
            properties = connection._impl.server_properties

        assert sorted(urls) == sorted(properties["cluster_addresses"])
        assert properties["capabilities"]["publisher_deduplication"] is True
