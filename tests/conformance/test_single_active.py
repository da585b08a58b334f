"""Queues with a single active consumer."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

QUORUM = {"x-queue-type": "quorum", "x-single-active-consumer": True}
WITHIN_S = 30.0
Got = list[tuple[str, bytes, int]]


def wait_for(connection: pika.BlockingConnection, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline
        connection.process_data_events(time_limit=0.05)


def consume(channel: BlockingChannel, queue: str, tag: str, got: Got, *, priority: int = 0) -> None:
    channel.basic_qos(prefetch_count=2)
    channel.basic_consume(
        queue,
        lambda _c, method, _p, body: got.append((tag, body, method.delivery_tag)),
        consumer_tag=tag,
        arguments={"x-priority": priority},
    )


def test_get_is_refused_by_a_quorum_queue(
    channel: BlockingChannel, name: Callable[[], str]
) -> None:
    """consuming: single active consumer, basic.get."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=QUORUM)

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
        channel.basic_get(queue)

    text = (
        f"RESOURCE_LOCKED - cannot obtain access to locked queue '{queue}' in vhost '/'. "
        "basic.get operations are not supported by quorum queues with single active consumer"
    )
    assert (refusal.value.reply_code, refusal.value.reply_text) == (405, text)


def test_get_is_answered_by_a_classic_queue(
    channel: BlockingChannel, name: Callable[[], str]
) -> None:
    """consuming: single active consumer, basic.get."""
    queue = name()
    channel.queue_declare(queue, arguments={"x-single-active-consumer": True})

    assert channel.basic_get(queue)[0] is None


def test_a_higher_priority_takes_over_when_the_active_consumer_holds_nothing(
    connection: pika.BlockingConnection, name: Callable[[], str]
) -> None:
    """consuming: single active consumer, priorities of 4.0."""
    queue = name()
    if connection._impl.server_properties.get("broker") != "Leveret":
        pytest.skip("RabbitMQ has it from 4.0 on")
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments=QUORUM)
    for number in range(6):
        channel.basic_publish("", queue, b"%d" % number)
    got: Got = []
    low, high = connection.channel(), connection.channel()
    consume(low, queue, "low", got, priority=1)
    wait_for(connection, lambda: len(got) == 2)
    consume(high, queue, "high", got, priority=2)
    low.basic_ack(1)
    connection.process_data_events(time_limit=0.2)
    assert [(tag, body) for tag, body, _ in got] == [("low", b"0"), ("low", b"1")]

    low.basic_ack(2)
    wait_for(connection, lambda: len(got) == 4)
    assert [(tag, body) for tag, body, _ in got[2:]] == [("high", b"2"), ("high", b"3")]

    high.basic_cancel("high")
    wait_for(connection, lambda: len(got) == 6)
    assert [(tag, body) for tag, body, _ in got[4:]] == [("low", b"4"), ("low", b"5")]
