"""Delayed messages: each comes when it is due, once, though the nodes that keep it die."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest

from chaos.load import Consumer, Publisher
from tests.cluster.conftest import Cluster, NodeMaker
from tests.cluster.test_killed_leader import leader_with_backlog

WITHIN_S = 30.0
DELAY_MS = 4_000


def publish_delayed(url: str, queue: str, delays_ms: list[int], *, exchange: str = "") -> float:
    """Publish a message for each delay, its delay as body; return when they were confirmed."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for delay in delays_ms:
            properties = pika.BasicProperties(headers={"x-delay": delay})
            channel.basic_publish(exchange, queue, str(delay).encode(), properties)
    return time.monotonic()


def receive(url: str, queue: str, wanted: int) -> list[tuple[int, float]]:
    """Consume so many messages; return their bodies and when they came."""
    got: list[tuple[int, float]] = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_consume(
            queue, lambda *d: got.append((int(d[3]), time.monotonic())), auto_ack=True
        )
        deadline = time.monotonic() + WITHIN_S
        while len(got) < wanted:
            assert time.monotonic() < deadline, f"{len(got)} of {wanted} came"
            connection.process_data_events(time_limit=0.05)
        connection.process_data_events(time_limit=0.3)
    return got


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "transient"])
def test_messages_come_in_the_order_in_which_they_are_due(
    durable: bool, make_node: NodeMaker, name: str
) -> None:
    node = make_node()
    node.start()
    (url,) = node.urls
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=durable)
        channel.exchange_declare(
            name, "x-delayed-message", arguments={"x-delayed-type": "direct"}, durable=durable
        )
        channel.queue_bind(name, name, name)

    since = publish_delayed(url, name, [900, 300, 600], exchange=name)
    publish_delayed(url, name, [0])
    got = receive(url, name, 4)

    assert [delay for delay, _ in got] == [0, 300, 600, 900]
    # Never early; it was confirmed a moment after its delay began.
    assert all(at - since > delay / 1000 - 0.25 for delay, at in got)


def test_a_delayed_exchange_must_say_how_it_routes(make_node: NodeMaker, name: str) -> None:
    node = make_node()
    node.start()
    with pika.BlockingConnection(pika.URLParameters(node.urls[0])) as connection:
        channel = connection.channel()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            channel.exchange_declare(name, "x-delayed-message")

    assert caught.value.reply_code == 406
    assert "'x-delayed-type' must be an existing exchange type" in caught.value.reply_text


def test_a_delayed_message_comes_once_though_the_leader_dies_before_it_is_due(
    cluster: Cluster,
    name: str,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    leader = leader_with_backlog(cluster, name, publish)
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        connection.channel().queue_purge(name)
    since = publish_delayed(cluster.url(leader + 1), name, [DELAY_MS] * 20)

    cluster[leader].kill()
    got = receive(cluster.url(leader + 1), name, 20)

    assert len(got) == 20
    assert min(at for _, at in got) - since > DELAY_MS / 1000 - 1.0
    cluster.heal()


def test_delayed_messages_outlive_a_restart_of_all_nodes(cluster: Cluster, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        connection.channel().queue_declare(name, durable=True)
    publish_delayed(cluster.url(0), name, [2_000] * 10)

    cluster.kill_all()
    cluster.heal()

    assert len(receive(cluster.url(1), name, 10)) == 10
