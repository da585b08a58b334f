"""The leader of a queue is killed under a window of confirms: each message is there once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pika
import pytest

from chaos.load import Consumer, Publisher
from chaos.verdict import judge
from leveret.cli.ask import ask_once
from leveret.node.control.replies import NodeStatus
from tests.cluster.conftest import Cluster

BACKLOG = 500
ATTEMPTS = 10


def ready_at(cluster: Cluster) -> list[int]:
    """Return for each node how many messages are in the queues that it leads."""
    return [
        ask_once(
            Path(member.arguments[member.arguments.index("--data-dir") + 1]), "status", NodeStatus
        ).messages_ready
        for member in cluster.members
    ]


def declare(url: str, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        declared = connection.channel().queue_declare(queue, durable=True)
        return int(declared.method.message_count)


def leader_with_backlog(cluster: Cluster, name: str, publish: Callable[..., Publisher]) -> int:
    """Put `BACKLOG` messages into a new queue and return the place of the node that leads it."""
    declare(cluster.url(0), name)
    for _ in range(ATTEMPTS):
        before = ready_at(cluster)
        publish(cluster.url(0), name, count=BACKLOG).wait_all(within_s=15)
        grown = [after - count for after, count in zip(ready_at(cluster), before, strict=True)]
        if BACKLOG in grown:
            return grown.index(BACKLOG)
        # Queues that earlier tests left have moved meanwhile, to where they belong.
        with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
            connection.channel().queue_purge(name)
    raise AssertionError(f"no node's messages grew by {BACKLOG}: {grown}")


@pytest.mark.parametrize("publishes_at", [1, 2], ids=["next", "next but one"])
@pytest.mark.parametrize("window", [1, 2000])
def test_what_was_in_flight_to_a_killed_leader_is_stored_once_and_in_order(
    publishes_at: int,
    window: int,
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    publisher = publish(cluster.url(leader + publishes_at), name, first=BACKLOG, window=window)
    publisher.wait_confirmed(300)

    cluster[leader].kill()

    publisher.wait_confirmed(len(publisher.confirmed) + 300)
    publisher.finish()
    assert [] == publisher.nacked
    for survivor in (leader + 1, leader + 2):
        assert publisher.next == declare(cluster.url(survivor), name)
    consumer = consume(cluster.url(leader + 3 - publishes_at), name)
    consumer.wait_distinct(publisher.next)
    consumer.close()
    assert list(range(publisher.next)) == [number for number, _ in consumer.deliveries]
    assert 0 == declare(cluster.url(leader + 1), name)


def test_a_consumer_elsewhere_gets_all_in_order_while_each_node_dies_the_leader_first(
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    published, confirmed, deliveries = BACKLOG, list(range(BACKLOG)), []
    for victim in (leader, leader + 1, leader + 2):
        consumer = consume(cluster.url(victim + 1), name)
        publisher = publish(cluster.url(victim + 2), name, first=published)
        publisher.wait_confirmed(500)

        cluster[victim].kill()

        publisher.wait_confirmed(len(publisher.confirmed) + 500)
        publisher.finish()
        published = publisher.next
        confirmed += publisher.confirmed
        consumer.wait("all", lambda: consumer.distinct >= set(publisher.confirmed), within_s=15)  # noqa: B023
        consumer.close()
        deliveries += consumer.deliveries
        cluster.heal()

    verdict = judge(published, confirmed, deliveries)
    assert verdict.is_clean, verdict
    firsts = list(dict.fromkeys(number for number, _ in deliveries))
    assert list(range(published)) == firsts
    assert 0 == declare(cluster.url(0), name)
