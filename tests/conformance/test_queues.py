"""Queues: declaring, counting, purging, deleting, and when they go by themselves."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker
from tests.support.inbox import Inbox, numbered, publish_all
from tests.support.wire import QUEUE_DECLARE, QUEUE_DECLARE_OK, field, shortstr, table

Names = Callable[[], str]
Connect = Callable[..., pika.BlockingConnection]


def exists(connection: pika.BlockingConnection, queue: str) -> bool:
    try:
        connection.channel().queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return False
    return True


def counts(channel: BlockingChannel, queue: str) -> tuple[int, int]:
    """Ready messages and consumers."""
    ok = channel.queue_declare(queue, passive=True).method
    return ok.message_count, ok.consumer_count


def test_declare_counts_ready_messages_and_consumers(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: declare."""
    assert counts(channel, queue) == (0, 0)
    publish_all(connection, queue, numbered(3))
    assert counts(channel, queue) == (3, 0)

    channel.basic_get(queue)
    assert counts(channel, queue) == (2, 0)

    channel.basic_qos(prefetch_count=1)
    Inbox(channel, queue).wait_for(1)
    assert counts(channel, queue) == (1, 1)


def test_declare_again_tells_the_counts_too(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str, durable: bool
) -> None:
    """queues: declare."""
    publish_all(connection, queue, numbered(2))

    ok = channel.queue_declare(queue, durable=durable).method

    assert (ok.queue, ok.message_count, ok.consumer_count) == (queue, 2, 0)


def test_server_named_queues_have_their_form_and_differ(channel: BlockingChannel) -> None:
    """queues: server-named."""
    made = {channel.queue_declare("", exclusive=True).method.queue for _ in range(5)}

    assert len(made) == 5
    assert all(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", queue) for queue in made)


def test_empty_name_means_the_queue_declared_last_on_the_channel(channel: BlockingChannel) -> None:
    """queues: server-named."""
    channel.queue_declare("", exclusive=True)
    last = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", routing_key=last)
    channel.basic_publish("amq.direct", last, b"1")
    channel.basic_publish("", last, b"2")

    assert channel.basic_get("", auto_ack=True)[2] == b"1"
    assert channel.queue_purge("").method.message_count == 1
    assert channel.queue_delete("").method.message_count == 0


def test_empty_key_of_a_bind_to_the_empty_name_is_the_queues_name(channel: BlockingChannel) -> None:
    """queues: server-named; AMQP 0-9-1, queue.bind, routing-key."""
    last = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", routing_key="")
    channel.basic_publish("amq.direct", last, b"by name")

    assert channel.basic_get("", auto_ack=True)[2] == b"by name"


def test_names_may_be_long_and_of_any_letters(
    broker: Broker, connection: pika.BlockingConnection, channel: BlockingChannel
) -> None:
    """queues: declare; names are up to 255 octets."""
    for queue in ("q" * 255, "кролик и заяц", "a/b?c#d e", "%2F"):
        channel.queue_declare(queue, exclusive=True)
        publish_all(connection, queue, [b"x"])
        assert channel.basic_get(queue, auto_ack=True)[2] == b"x"


def test_integers_of_different_width_are_equal_arguments(broker: Broker, name: Names) -> None:
    """queues: re-declare differing (int widths are equal if values are)."""
    queue = name()
    with broker.open_wire() as wire:
        for tag, form in ((b"I", ">i"), (b"l", ">q"), (b"s", ">h"), (b"b", ">b")):
            arguments = table(field("x-max-length", tag, struct.pack(form, 7)))
            start = struct.pack(">H", 0) + shortstr(queue) + b"\x02"
            wire.send_method(1, QUEUE_DECLARE, start + arguments)
            wire.expect(QUEUE_DECLARE_OK, 1)


def test_purge_takes_the_ready_messages_only(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: purge."""
    publish_all(connection, queue, numbered(3))
    held = channel.basic_get(queue)[0]

    assert channel.queue_purge(queue).method.message_count == 2
    assert counts(channel, queue) == (0, 0)

    channel.basic_nack(held.delivery_tag, requeue=True)
    assert channel.basic_get(queue, auto_ack=True)[2] == b"0"
    assert channel.queue_purge(queue).method.message_count == 0


def test_a_lazy_queue_is_a_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """queues: lazy queues."""
    queue = name()
    for _ in range(2):
        channel.queue_declare(queue, durable=True, arguments={"x-queue-mode": "lazy"})
    publish_all(connection, queue, numbered(3))

    got = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(3)]

    assert got == numbered(3)
    channel.queue_delete(queue)


def test_delete_counts_the_ready_messages(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: delete."""
    publish_all(connection, queue, numbered(3))
    channel.basic_get(queue)

    assert channel.queue_delete(queue).method.message_count == 2
    assert not exists(connection, queue)


def test_delete_if_empty_and_if_unused_deletes_an_idle_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: delete."""
    channel.queue_delete(queue, if_unused=True, if_empty=True)

    assert not exists(connection, queue)


def test_queue_made_again_has_neither_messages_nor_bindings(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str, durable: bool
) -> None:
    """queues: delete."""
    channel.queue_bind(queue, "amq.direct", routing_key=queue)
    publish_all(connection, queue, numbered(3))
    channel.queue_delete(queue)

    assert channel.queue_declare(queue, durable=durable).method.message_count == 0
    channel.basic_publish("amq.direct", queue, b"x")
    assert channel.basic_get(queue)[0] is None


def test_ack_of_a_message_of_a_deleted_queue_is_fine(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: delete; consuming: ack."""
    publish_all(connection, queue, numbered(2))
    first = channel.basic_get(queue)[0]
    second = channel.basic_get(queue)[0]
    channel.queue_delete(queue)

    channel.basic_ack(first.delivery_tag)
    channel.basic_nack(second.delivery_tag, requeue=True)

    channel.basic_qos(prefetch_count=1)


def test_auto_delete_waits_for_its_first_consumer_and_goes_with_the_last(
    connect: Connect, connection: pika.BlockingConnection, name: Names, durable: bool
) -> None:
    """queues: auto-delete."""
    queue = name()
    channel = connection.channel()
    channel.queue_declare(queue, durable=durable, auto_delete=True)
    watcher = connect()
    assert exists(watcher, queue)
    channel.basic_publish("", queue, b"x")
    channel.basic_get(queue, auto_ack=True)
    assert exists(watcher, queue)

    first, second = Inbox(channel, queue), Inbox(channel, queue)
    channel.basic_cancel(first.tag)
    assert exists(watcher, queue)
    channel.basic_cancel(second.tag)

    assert not exists(watcher, queue)


@pytest.mark.parametrize("end", ["channel", "connection"])
def test_auto_delete_queue_goes_with_the_channel_of_its_last_consumer(
    connect: Connect, connection: pika.BlockingConnection, name: Names, durable: bool, end: str
) -> None:
    """queues: auto-delete."""
    queue = name()
    consumer = connect()
    channel = consumer.channel()
    channel.queue_declare(queue, durable=durable, auto_delete=True)
    Inbox(channel, queue)

    if end == "channel":
        channel.close()
    else:
        consumer.close()

    assert not exists(connection, queue)


def test_exclusive_queue_goes_with_its_connection_before_the_next_one_comes(
    connect: Connect, name: Names
) -> None:
    """queues: exclusive (pitfall 15)."""
    queue = name()
    for _ in range(10):
        owner = connect()
        channel = owner.channel()
        assert channel.queue_declare(queue, exclusive=True).method.message_count == 0
        channel.basic_publish("", queue, b"x")
        owner.close()


def test_exclusive_queue_outlives_the_channel_that_declared_it(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """queues: exclusive."""
    queue = name()
    channel.queue_declare(queue, exclusive=True, auto_delete=True)
    channel.close()

    other = connection.channel()
    other.queue_declare(queue, exclusive=True, auto_delete=True)
    other.basic_publish("", queue, b"x")
    assert other.basic_get(queue, auto_ack=True)[2] == b"x"


def test_anyone_may_publish_to_an_exclusive_queue(
    connect: Connect, channel: BlockingChannel, name: Names
) -> None:
    """queues: exclusive."""
    queue = name()
    channel.queue_declare(queue, exclusive=True)
    publish_all(connect(), queue, [b"x"])

    assert channel.basic_get(queue, auto_ack=True)[2] == b"x"


def test_declare_without_an_answer_is_done(
    broker: Broker, connection: pika.BlockingConnection, name: Names
) -> None:
    """queues: declare, nowait."""
    queue = name()
    passive = struct.pack(">H", 0) + shortstr(queue) + b"\x01" + table()
    with broker.open_wire() as wire:
        nowait = struct.pack(">H", 0) + shortstr(queue) + b"\x10" + table()
        wire.send_method(1, QUEUE_DECLARE, nowait)
        wire.send_method(1, QUEUE_DECLARE, passive)

        wire.expect(QUEUE_DECLARE_OK, 1)
        with pytest.raises(AssertionError, match="close"):
            wire.declare_queue(queue + "-other", bits=0b00001)
