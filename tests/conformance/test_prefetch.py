"""Prefetch: how many unacknowledged messages a consumer, and a channel, may hold."""

from __future__ import annotations

from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.support.inbox import Inbox, numbered, publish_all, take

Names = Callable[[], str]


def test_prefetch_holds_for_each_consumer(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer."""
    publish_all(connection, queue, numbered(10))
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, queue)
    first.wait_for(2)
    second = Inbox(channel, queue)
    second.wait_for(2)
    assert second.barrier() == 6

    channel.basic_ack(first.got[0].tag)
    first.wait_for(3)

    assert first.barrier() == 5
    assert (len(first.got), len(second.got)) == (3, 2)


def test_prefetch_is_that_of_the_consumers_begin(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer, for later consumers."""
    publish_all(connection, queue, numbered(10))
    channel.basic_qos(prefetch_count=1)
    first = Inbox(channel, queue)
    first.wait_for(1)
    channel.basic_qos(prefetch_count=3)
    second = Inbox(channel, queue)
    second.wait_for(3)
    assert second.barrier() == 6
    channel.basic_qos(prefetch_count=0)
    third = Inbox(channel, queue)
    third.wait_for(6)

    channel.basic_ack(0, multiple=True)

    assert [len(inbox.got) for inbox in (first, second, third)] == [1, 3, 6]


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_settling_without_requeue_gives_credit_back(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str, how: str
) -> None:
    """consuming: prefetch per consumer."""
    publish_all(connection, queue, numbered(3))
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    for count in (1, 2, 3):
        tag = inbox.wait_for(count)[-1].tag
        if how == "nack":
            channel.basic_nack(tag, requeue=False)
        else:
            channel.basic_reject(tag, requeue=False)

    assert inbox.barrier() == 0
    assert inbox.bodies == numbered(3)


def test_requeue_with_a_prefetch_of_one_comes_back_at_once(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer, requeue position."""
    publish_all(connection, queue, numbered(2))
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    inbox.wait_for(1)

    channel.basic_nack(1, requeue=True)

    again = inbox.wait_for(2)[1]
    assert (again.body, again.redelivered) == (b"0", True)


def test_prefetch_does_not_bind_a_consumer_without_acknowledgements(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer."""
    publish_all(connection, queue, numbered(10))
    channel.basic_qos(prefetch_count=1)

    Inbox(channel, queue, auto_ack=True).wait_for(10)


def test_prefetch_does_not_bind_basic_get(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer, basic.get."""
    publish_all(connection, queue, numbered(4))
    channel.basic_qos(prefetch_count=1)
    channel.basic_qos(prefetch_count=1, global_qos=True)

    take(channel, queue, 3)


def test_channel_prefetch_is_shared_by_its_consumers(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """consuming: prefetch per channel (global=true)."""
    first_queue, second_queue = name(), name()
    for queue in (first_queue, second_queue):
        channel.queue_declare(queue, durable=True)
        publish_all(connection, queue, numbered(5))
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first = Inbox(channel, first_queue)
    first.wait_for(3)
    second = Inbox(channel, second_queue)
    assert second.barrier() == 5

    channel.basic_ack(0, multiple=True)
    while len(first.got) + len(second.got) < 6:
        connection.process_data_events(time_limit=5)
    assert first.barrier() + second.barrier() == 4
    assert len(first.got) + len(second.got) == 6


def test_channel_prefetch_may_be_raised_while_consuming(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per channel, changed live (pitfall 12)."""
    publish_all(connection, queue, numbered(10))
    channel.basic_qos(prefetch_count=2, global_qos=True)
    inbox = Inbox(channel, queue)
    inbox.wait_for(2)
    assert inbox.barrier() == 8

    channel.basic_qos(prefetch_count=5, global_qos=True)
    inbox.wait_for(5)
    assert inbox.barrier() == 5

    channel.basic_qos(prefetch_count=0, global_qos=True)
    inbox.wait_for(10)


def test_channel_prefetch_may_be_lowered_and_counts_what_is_held(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per channel, at once, counting what is unacked (pitfall 12)."""
    publish_all(connection, queue, numbered(4))
    inbox = Inbox(channel, queue)
    inbox.wait_for(4)
    channel.basic_qos(prefetch_count=2, global_qos=True)
    publish_all(connection, queue, numbered(3, start=4))
    channel.basic_ack(1)
    channel.basic_ack(2)
    assert inbox.barrier() == 3

    channel.basic_ack(3)

    inbox.wait_for(5)
    assert inbox.barrier() == 2


def test_the_smaller_of_both_prefetches_holds(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per consumer, per channel."""
    publish_all(connection, queue, numbered(10))
    channel.basic_qos(prefetch_count=2)
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first = Inbox(channel, queue)
    first.wait_for(2)
    second = Inbox(channel, queue)
    second.wait_for(1)

    assert second.barrier() == 7
    assert (len(first.got), len(second.got)) == (2, 1)


def test_channel_prefetch_leaves_other_channels_alone(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: prefetch per channel."""
    publish_all(connection, queue, numbered(6))
    channel.basic_qos(prefetch_count=1, global_qos=True)
    Inbox(channel, queue).wait_for(1)

    Inbox(connection.channel(), queue).wait_for(5)
