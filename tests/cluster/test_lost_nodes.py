"""What clients of the other nodes see when a node is gone: real processes, killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from chaos.load import Consumer, Publisher
from tests.cluster.conftest import Cluster, Opener

LOST_WITHIN_S = 9.0
"""The default of `node.lost_after_s` is 5 s; the rest is an election and a loaded machine."""

LINKED_WITHIN_S = 5.0


def declare(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(queue, durable=True)


def wait_ready(url: str, queue: str, count: int) -> None:
    """Wait until so many messages of a queue are held by nobody."""
    until_s = time.monotonic() + LINKED_WITHIN_S
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        while channel.queue_declare(queue, passive=True).method.message_count < count:
            assert time.monotonic() < until_s, "what a dead client held has not come back"
            connection.process_data_events(0.05)


def publish_when_linked(channel: BlockingChannel, queue: str) -> None:
    """Publish to a queue on another node, to which a node that just started may have no link."""
    until_s = time.monotonic() + LINKED_WITHIN_S
    while True:
        try:
            channel.basic_publish("", queue, b"there", mandatory=True)
        except pika.exceptions.NackError:
            assert time.monotonic() < until_s, "no link between two nodes"
            channel.connection.process_data_events(0.1)
        else:
            return


@pytest.mark.parametrize("home", [0, 1, 2])
def test_consumers_of_a_transient_queue_are_cancelled_when_its_node_is_lost(
    home: int, cluster: Cluster, name: str, connect: Opener
) -> None:
    connect(cluster.url(home)).channel().queue_declare(name)
    consumer = connect(cluster.url(home + 1)).channel()
    cancelled: list[str] = []
    consumer.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = consumer.basic_consume(name, lambda *_: None)
    sender = connect(cluster.url(home + 2)).channel()
    sender.confirm_delivery()
    publish_when_linked(sender, name)

    cluster[home].kill()

    until_s = time.monotonic() + LOST_WITHIN_S
    while not cancelled and time.monotonic() < until_s:
        consumer.connection.process_data_events(0.2)
    assert [tag] == cancelled
    with pytest.raises(pika.exceptions.UnroutableError):
        sender.basic_publish("", name, b"gone", mandatory=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        sender.queue_declare(name, passive=True)
    assert 404 == refused.value.reply_code
    connect(cluster.url(home + 2)).channel().queue_declare(name, auto_delete=True)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_what_a_consumer_of_a_killed_node_held_comes_again_in_its_place_and_marked(
    victim: int,
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    declare(cluster.url(0), name)
    publish(cluster.url(victim + 1), name, count=100).wait_all(within_s=15)
    holder = consume(cluster.url(victim), name, prefetch=50, acknowledges=False)
    holder.wait_distinct(50)
    other = consume(cluster.url(victim + 1), name, prefetch=10, acknowledges=False)
    other.wait_distinct(10)

    cluster[victim].kill()
    other.close()

    wait_ready(cluster.url(victim + 1), name, 100)
    heir = consume(cluster.url(victim + 2), name)
    heir.wait_distinct(100)
    heir.close()
    assert list(range(100)) == [number for number, _ in heir.deliveries]
    assert all(is_marked for _, is_marked in heir.deliveries[:60])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_a_dead_connection_held_comes_again_in_its_place_and_it_alone_is_marked(
    place: int,
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    declare(cluster.url(0), name)
    publish(cluster.url(0), name, count=100).wait_all(within_s=15)
    holder = consume(cluster.url(place), name, prefetch=50, acknowledges=False)
    holder.wait_distinct(50)

    holder.abandon()

    wait_ready(cluster.url(place + 1), name, 100)
    heir = consume(cluster.url(place + 1), name)
    heir.wait_distinct(100)
    heir.close()
    assert [(number, number < 50) for number in range(100)] == heir.deliveries


def test_a_node_that_was_only_stopped_tells_its_own_clients_what_it_lost(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    consumer = connect(cluster.url(0)).channel()
    consumer.queue_declare(name, exclusive=True)
    cancelled: list[str] = []
    consumer.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = consumer.basic_consume(name, lambda *_: None)
    other = connect(cluster.url(1)).channel()
    cluster[0].signal(signal.SIGSTOP)
    try:
        # A link that is silent is given up after 4 s.
        until_s = time.monotonic() + 4.0 + LOST_WITHIN_S
        while exists(other, name) and time.monotonic() < until_s:
            other.connection.process_data_events(0.2)
    finally:
        cluster[0].signal(signal.SIGCONT)

    until_s = time.monotonic() + LINKED_WITHIN_S
    while not cancelled and time.monotonic() < until_s:
        consumer.connection.process_data_events(0.2)
    assert [tag] == cancelled
    assert name == consumer.queue_declare(name, exclusive=True).method.queue


def exists(channel: BlockingChannel, queue: str) -> bool:
    """Say whether there is a queue of that name, on a channel of its own."""
    asking = channel.connection.channel()
    try:
        asking.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as refused:
        return bool(refused.reply_code != 404)
    asking.close()
    return True
