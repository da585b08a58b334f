"""Getting, consuming, acknowledging, and what happens to what was not acknowledged."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker
from tests.support.inbox import Inbox, numbered, publish_all, take
from tests.support.wire import (
    BASIC_CANCEL,
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    CHANNEL_CLOSE,
    Wire,
    close_reason,
    shortstr,
    table,
)

BASIC_CANCEL_OK = (60, 31)
BASIC_QOS = (60, 10)
BASIC_QOS_OK = (60, 11)
QUEUE_DELETE = (50, 40)
QUEUE_DELETE_OK = (50, 41)

Names = Callable[[], str]
Connect = Callable[..., pika.BlockingConnection]


# ---- basic.get ----------------------------------------------------------------------------


def test_get_tells_what_is_left(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.get."""
    assert channel.basic_get(queue) == (None, None, None)
    publish_all(connection, queue, numbered(2))

    method, _, body = channel.basic_get(queue)
    assert (method.exchange, method.routing_key) == ("", queue)
    assert (method.delivery_tag, method.redelivered, method.message_count, body) == (
        1,
        False,
        1,
        b"0",
    )
    method, _, body = channel.basic_get(queue)
    assert (method.delivery_tag, method.redelivered, method.message_count, body) == (
        2,
        False,
        0,
        b"1",
    )
    assert channel.basic_get(queue) == (None, None, None)


def test_get_without_acknowledgement_takes_the_message(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.get."""
    publish_all(connection, queue, numbered(1))
    assert channel.basic_get(queue, auto_ack=True)[2] == b"0"
    channel.close()

    assert connection.channel().basic_get(queue)[0] is None


def test_messages_come_in_the_order_of_publishing(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.consume; queues: declare."""
    publish_all(connection, queue, numbered(300))

    assert [d.body for d in Inbox(channel, queue).wait_for(300)] == numbered(300)


# ---- acknowledging ------------------------------------------------------------------------


def after_close(connection: pika.BlockingConnection, channel: BlockingChannel, queue: str) -> int:
    """Close the channel; return how many messages are ready then."""
    channel.close()
    ok = connection.channel().queue_declare(queue, passive=True)
    count: int = ok.method.message_count
    return count


@pytest.mark.parametrize(
    ("tag", "multiple", "left"), [(1, False, 4), (3, False, 4), (3, True, 2), (0, True, 0)]
)
def test_ack_settles_one_or_up_to_or_all(
    connection: pika.BlockingConnection,
    channel: BlockingChannel,
    queue: str,
    tag: int,
    multiple: bool,
    left: int,
) -> None:
    """consuming: ack / nack / reject (multiple, tag 0)."""
    publish_all(connection, queue, numbered(5))
    take(channel, queue, 5)

    channel.basic_ack(tag, multiple=multiple)

    assert after_close(connection, channel, queue) == left


@pytest.mark.parametrize(("tag", "multiple", "left"), [(2, False, 4), (3, True, 2), (0, True, 0)])
def test_nack_without_requeue_drops_one_or_up_to_or_all(
    connection: pika.BlockingConnection,
    channel: BlockingChannel,
    queue: str,
    tag: int,
    multiple: bool,
    left: int,
) -> None:
    """consuming: ack / nack / reject (multiple, tag 0)."""
    publish_all(connection, queue, numbered(5))
    take(channel, queue, 5)

    channel.basic_nack(tag, multiple=multiple, requeue=False)

    assert after_close(connection, channel, queue) == left


def test_reject_drops_or_returns_one(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: ack / nack / reject."""
    publish_all(connection, queue, numbered(2))
    take(channel, queue, 2)

    channel.basic_reject(1, requeue=False)
    channel.basic_reject(2, requeue=True)

    assert take(channel, queue, 1) == [(b"1", True)]
    assert channel.basic_get(queue)[0] is None


def test_multiple_ack_with_nothing_to_acknowledge(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: ack / nack / reject (tag 0)."""
    channel.basic_ack(0, multiple=True)
    publish_all(connection, queue, numbered(1))
    take(channel, queue, 1)
    channel.basic_ack(1)
    channel.basic_ack(0, multiple=True)

    assert channel.basic_get(queue)[0] is None


def test_single_ack_of_tag_zero_is_unknown(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: ack / nack / reject (tag 0 means all only with multiple)."""
    publish_all(connection, queue, numbered(1))
    take(channel, queue, 1)
    channel.basic_ack(0)

    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="unknown delivery tag 0"):
        channel.queue_declare(queue, passive=True)


def test_delivery_tags_belong_to_their_channel(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: ack / nack / reject."""
    publish_all(connection, queue, numbered(2))
    other = connection.channel()
    take(channel, queue, 1)
    other_method = other.basic_get(queue)[0]
    assert other_method.delivery_tag == 1

    other.basic_ack(1)
    assert after_close(connection, channel, queue) == 1


def test_tags_are_shared_by_the_consumers_and_gets_of_a_channel(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """consuming: ack / nack / reject."""
    first, second = name(), name()
    for queue in (first, second):
        channel.queue_declare(queue)
        publish_all(connection, queue, numbered(1))

    assert Inbox(channel, first).wait_for(1)[0].tag == 1
    assert channel.basic_get(second)[0].delivery_tag == 2
    channel.basic_ack(2, multiple=True)
    channel.close()

    other = connection.channel()
    assert other.basic_get(first)[0] is None
    assert other.basic_get(second)[0] is None


# ---- requeue ------------------------------------------------------------------------------


def test_requeued_message_returns_to_its_place(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: requeue position, redelivered flag."""
    publish_all(connection, queue, numbered(5))
    take(channel, queue, 3)

    channel.basic_nack(2, requeue=True)

    assert take(channel, queue, 2) == [(b"1", True), (b"3", False)]


def test_requeued_messages_return_in_their_order(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: requeue position, redelivered flag."""
    publish_all(connection, queue, numbered(5))
    take(channel, queue, 4)

    for tag in (3, 1, 4, 2):
        channel.basic_nack(tag, requeue=True)

    assert take(channel, queue, 5) == [
        (b"0", True),
        (b"1", True),
        (b"2", True),
        (b"3", True),
        (b"4", False),
    ]


def test_nack_multiple_returns_all_of_them_in_their_order(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: requeue position, redelivered flag."""
    publish_all(connection, queue, numbered(4))
    take(channel, queue, 3)

    channel.basic_nack(0, multiple=True, requeue=True)

    expected = [(b"0", True), (b"1", True), (b"2", True), (b"3", False)]
    assert take(channel, queue, 4) == expected


def test_recover_returns_what_the_channel_holds(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.recover (requeue=true)."""
    publish_all(connection, queue, numbered(3))
    take(channel, queue, 2)
    other = connection.channel()
    take(other, queue, 1)

    channel.basic_recover(requeue=True)

    assert take(channel, queue, 2) == [(b"0", True), (b"1", True)]
    assert channel.basic_get(queue)[0] is None


def test_recover_delivers_again_to_the_consumer(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.recover (requeue=true)."""
    publish_all(connection, queue, numbered(2))
    inbox = Inbox(channel, queue)
    inbox.wait_for(2)

    channel.basic_recover(requeue=True)

    again = inbox.wait_for(4)[2:]
    assert [(d.tag, d.body, d.redelivered) for d in again] == [(3, b"0", True), (4, b"1", True)]


@pytest.mark.parametrize("end", ["channel close", "connection close", "channel error", "cut"])
def test_what_a_consumer_held_returns_when_it_goes(
    broker: Broker, connect: Connect, connection: pika.BlockingConnection, queue: str, end: str
) -> None:
    """consuming: redelivered flag (pitfall 10): channel close, connection close, lost client."""
    publish_all(connection, queue, numbered(4))
    wire = broker.open_wire()
    consume(wire, queue)
    for body in numbered(4):
        assert deliver(wire) == body
    # The second is acknowledged for good.
    wire.send_method(1, (60, 80), struct.pack(">QB", 2, 0))
    publish_all(connection, queue, numbered(1, start=4))
    assert deliver(wire) == b"4"

    if end == "channel close":
        wire.send_method(1, CHANNEL_CLOSE, struct.pack(">HBHH", 200, 0, 0, 0))
    elif end == "connection close":
        wire.send_method(0, (10, 50), struct.pack(">HBHH", 200, 0, 0, 0))
    elif end == "channel error":
        wire.send_method(1, (60, 80), struct.pack(">QB", 99, 0))
    else:
        wire.socket.close()

    inbox = Inbox(connection.channel(), queue)
    expected = [(b"0", True), (b"2", True), (b"3", True), (b"4", True)]
    assert [(d.body, d.redelivered) for d in inbox.wait_for(4)] == expected
    wire.socket.close()


# ---- several consumers --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["one channel", "channels", "connections"])
def test_messages_go_round_among_consumers(
    connect: Connect, connection: pika.BlockingConnection, queue: str, where: str
) -> None:
    """consuming: fair dispatch."""
    shared = connection.channel()
    inboxes = []
    for _ in range(3):
        if where == "one channel":
            channel = shared
        else:
            channel = (connection if where == "channels" else connect()).channel()
        inboxes.append(Inbox(channel, queue))
    publish_all(connection, queue, numbered(9))

    for inbox in inboxes:
        inbox.wait_for(3)
    assert sorted(inbox.bodies for inbox in inboxes) == [
        [b"0", b"3", b"6"],
        [b"1", b"4", b"7"],
        [b"2", b"5", b"8"],
    ]


def test_consumers_without_credit_are_passed_over(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: fair dispatch."""
    channel.basic_qos(prefetch_count=1)
    full = Inbox(channel, queue)
    publish_all(connection, queue, numbered(1))
    full.wait_for(1)
    free = Inbox(connection.channel(), queue)

    publish_all(connection, queue, numbered(5, start=1))

    assert free.wait_for(5)[0].body == b"1"
    assert full.bodies == [b"0"]


def test_exclusive_consumer_leaves_the_queue_to_the_next(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.consume (exclusive)."""
    first = Inbox(channel, queue, exclusive=True)
    channel.basic_cancel(first.tag)
    second = Inbox(channel, queue, exclusive=True)
    channel.close()

    third = Inbox(connection.channel(), queue)
    publish_all(connection, queue, numbered(1))
    third.wait_for(1)
    assert second.got == []


# ---- basic.consume and basic.cancel, octet by octet ---------------------------------------


def consume(wire: Wire, queue: str, tag: str = "", *, bits: int = 0) -> str:
    """Consume; bits: no-local 1, no-ack 2, exclusive 4, no-wait 8. Returns the consumer's tag."""
    arguments = struct.pack(">H", 0) + shortstr(queue) + shortstr(tag) + bytes([bits]) + table()
    wire.send_method(1, BASIC_CONSUME, arguments)
    if bits & 8:
        return tag
    return wire.expect(BASIC_CONSUME_OK, 1)[1:].decode()


def deliver(wire: Wire) -> bytes:
    """The body of the next delivery."""
    wire.expect(BASIC_DELIVER, 1)
    return wire.expect_content()[1]


def qos(wire: Wire, count: int) -> None:
    wire.send_method(1, BASIC_QOS, struct.pack(">IHB", 0, count, 0))
    wire.expect(BASIC_QOS_OK, 1)


def cancel(wire: Wire, tag: str) -> list[bytes]:
    """Cancel; return the bodies delivered before cancel-ok."""
    wire.send_method(1, BASIC_CANCEL, shortstr(tag) + b"\x00")
    bodies = []
    while (got := wire.read_frame()).method == BASIC_DELIVER:
        bodies.append(wire.expect_content()[1])
    assert got.method == BASIC_CANCEL_OK
    assert got.arguments == shortstr(tag)
    return bodies


def test_consumer_tag_is_made_up_when_none_is_given(broker: Broker, queue: str) -> None:
    """consuming: basic.consume, amq.ctag-."""
    with broker.open_wire() as wire:
        tags = {consume(wire, queue) for _ in range(3)}

    assert len(tags) == 3
    assert all(tag.startswith("amq.ctag-") and len(tag) > 20 for tag in tags)


def test_tag_may_be_used_again_after_cancel_and_on_another_channel(
    broker: Broker, queue: str
) -> None:
    """consuming: basic.consume."""
    with broker.open_wire() as wire:
        assert consume(wire, queue, "t") == "t"
        assert cancel(wire, "t") == []
        assert consume(wire, queue, "t") == "t"
        wire.open_channel(2)
        arguments = struct.pack(">H", 0) + shortstr(queue) + shortstr("t") + b"\x00" + table()
        wire.send_method(2, BASIC_CONSUME, arguments)
        wire.expect(BASIC_CONSUME_OK, 2)


def test_cancel_of_an_unknown_tag_is_answered(broker: Broker) -> None:
    """consuming: basic.consume (cancel)."""
    with broker.open_wire() as wire:
        assert cancel(wire, "t-nobody") == []


def test_consume_without_an_answer_delivers(
    broker: Broker, connection: pika.BlockingConnection, queue: str
) -> None:
    """consuming: basic.consume, nowait."""
    publish_all(connection, queue, numbered(1))
    with broker.open_wire() as wire:
        consume(wire, queue, "t", bits=8)

        assert deliver(wire) == b"0"


def test_what_is_due_comes_before_cancel_ok(
    broker: Broker, connection: pika.BlockingConnection, queue: str
) -> None:
    """consuming: basic.consume (pitfall 11): consume, and cancel in the same breath."""
    publish_all(connection, queue, numbered(3))
    with broker.open_wire() as wire:
        consume(wire, queue, "t")

        assert cancel(wire, "t") == numbered(3)


def test_cancel_does_not_return_what_the_channel_holds(
    broker: Broker, connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """consuming: basic.consume (pitfall 10)."""
    publish_all(connection, queue, numbered(3))
    with broker.open_wire() as wire:
        qos(wire, 2)
        consume(wire, queue, "t")
        assert [deliver(wire), deliver(wire)] == numbered(2)
        assert cancel(wire, "t") == []

        ok = channel.queue_declare(queue, passive=True).method
        assert (ok.message_count, ok.consumer_count) == (1, 0)
        # What it holds can still be acknowledged, and the rest goes back with the channel.
        wire.send_method(1, (60, 80), struct.pack(">QB", 1, 0))
        wire.send_method(1, CHANNEL_CLOSE, struct.pack(">HBHH", 200, 0, 0, 0))
        wire.expect((20, 41), 1)

    assert take(channel, queue, 2) == [(b"1", True), (b"2", False)]


@pytest.mark.parametrize("understands", [True, False])
def test_deleted_queue_cancels_consumers_that_understand_it(
    broker: Broker, channel: BlockingChannel, queue: str, understands: bool
) -> None:
    """consuming: consumer cancel notify (pitfall 13)."""
    wire = broker.open_wire() if understands else broker.open_wire(properties=table())
    with wire:
        consume(wire, queue, "t")
        channel.queue_delete(queue)
        if understands:
            assert wire.expect(BASIC_CANCEL, 1) == shortstr("t") + b"\x01"

        # Nothing else is said: the next frame answers this.
        qos(wire, 1)


def test_deleter_gets_delete_ok_and_then_its_own_cancel(
    broker: Broker, connection: pika.BlockingConnection, queue: str
) -> None:
    """consuming: consumer cancel notify; queues: delete (pitfall 13)."""
    with broker.open_wire() as wire:
        consume(wire, queue, "t")
        wire.send_method(1, QUEUE_DELETE, struct.pack(">H", 0) + shortstr(queue) + b"\x00")
        came = [wire.read_frame().method, wire.read_frame().method]

    assert came == [QUEUE_DELETE_OK, BASIC_CANCEL]


def test_pika_sees_the_cancel(connect: Connect, channel: BlockingChannel, queue: str) -> None:
    """consuming: consumer cancel notify."""
    inbox = Inbox(connect().channel(), queue)
    channel.queue_delete(queue)

    inbox.wait_for_cancel()


def test_consumer_of_a_deleted_and_remade_queue_gets_nothing(
    connection: pika.BlockingConnection,
    connect: Connect,
    channel: BlockingChannel,
    queue: str,
    durable: bool,
) -> None:
    """queues: delete; consuming: consumer cancel notify."""
    inbox = Inbox(connect().channel(), queue)
    channel.queue_delete(queue)
    inbox.wait_for_cancel()
    channel.queue_declare(queue, durable=durable)
    publish_all(connection, queue, numbered(1))

    assert inbox.barrier() == 1
    assert inbox.got == []


def test_refused_nack_is_named_in_the_close(broker: Broker) -> None:
    """consuming: ack / nack / reject."""
    with broker.open_wire() as wire:
        wire.send_method(1, (60, 120), struct.pack(">QB", 5, 0))

        reason = close_reason(wire.expect(CHANNEL_CLOSE, 1))

    assert (reason.code, reason.class_id, reason.method_id) == (406, 60, 120)
