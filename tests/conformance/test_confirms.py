"""Publisher confirms and returns."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker
from tests.support.inbox import numbered
from tests.support.wire import (
    BASIC_ACK,
    BASIC_RETURN,
    BODY,
    CHANNEL_CLOSE,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    HEADER,
    METHOD,
    Wire,
    close_reason,
    content_header,
    frame,
    publish,
)

Names = Callable[[], str]


def message(key: str, body: bytes = b"x", *, exchange: str = "", bits: int = 0) -> bytes:
    return (
        frame(METHOD, 1, publish(exchange, key, bits=bits))
        + frame(HEADER, 1, content_header(len(body)))
        + (frame(BODY, 1, body) if body else b"")
    )


def select(wire: Wire) -> None:
    wire.send_method(1, CONFIRM_SELECT, b"\x00")
    wire.expect(CONFIRM_SELECT_OK, 1)


def confirmed(wire: Wire, tags: Iterable[int]) -> None:
    """Wait until every tag is confirmed, and see that none is confirmed twice."""
    open_tags = set(tags)
    while open_tags:
        tag, multiple = struct.unpack(">QB", wire.expect(BASIC_ACK, 1))
        now = {one for one in open_tags if one <= tag} if multiple else {tag}
        assert now
        assert now <= open_tags
        open_tags -= now


def test_every_publish_is_confirmed_once(broker: Broker, name: Names, durable: bool) -> None:
    """publishing: publisher confirms."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue, bits=0b00010 if durable else 0)
        select(wire)
        wire.send(b"".join(message(queue, body) for body in numbered(500)))

        confirmed(wire, range(1, 501))


def test_numbers_start_with_the_select_and_go_on_after_another(broker: Broker, name: Names) -> None:
    """publishing: publisher confirms, sequence from 1."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        wire.send(message(queue) * 3)
        select(wire)
        wire.send(message(queue))
        confirmed(wire, [1])
        select(wire)
        wire.send(message(queue))

        confirmed(wire, [2])


def test_numbers_are_those_of_the_channel(broker: Broker, name: Names) -> None:
    """publishing: publisher confirms, per channel."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        wire.open_channel(2)
        select(wire)
        wire.send(message(queue))
        confirmed(wire, [1])
        wire.send_method(2, CONFIRM_SELECT, b"\x00")
        wire.expect(CONFIRM_SELECT_OK, 2)
        wire.send(frame(METHOD, 2, publish("", queue)) + frame(HEADER, 2, content_header(0)))

        assert struct.unpack(">QB", wire.expect(BASIC_ACK, 2)) == (1, 0)


def test_unroutable_messages_are_confirmed(broker: Broker, name: Names) -> None:
    """publishing: publisher confirms, unroutable = ack."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        select(wire)
        wire.send((message(queue) + message("t-nowhere")) * 20)

        confirmed(wire, range(1, 41))


def test_return_comes_before_its_confirm(broker: Broker) -> None:
    """exchanges: mandatory (pitfall 5)."""
    with broker.open_wire() as wire:
        select(wire)
        wire.send(message("t-nowhere", b"back", bits=1))

        arguments = wire.expect(BASIC_RETURN, 1)
        assert struct.unpack_from(">H", arguments) == (312,)
        assert wire.expect_content()[1] == b"back"
        confirmed(wire, [1])


def test_returns_keep_the_order_of_publishing(broker: Broker, name: Names) -> None:
    """exchanges: mandatory."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        for body in numbered(5):
            wire.send(message("t-nowhere", body, bits=1) + message(queue, body, bits=1))

        came = []
        for _ in range(5):
            wire.expect(BASIC_RETURN, 1)
            came.append(wire.expect_content()[1])

    assert came == numbered(5)


def test_message_to_many_queues_is_confirmed_once(
    broker: Broker, channel: BlockingChannel, name: Names
) -> None:
    """publishing: publisher confirms, ack = all target queues have it."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout")
    queues = [name() for _ in range(4)]
    for number, queue in enumerate(queues):
        channel.queue_declare(queue, durable=number % 2 == 0)
        channel.queue_bind(queue, exchange)
    with broker.open_wire() as wire:
        select(wire)
        wire.send(message("", exchange=exchange) * 10)
        confirmed(wire, range(1, 11))

    assert [channel.queue_purge(queue).method.message_count for queue in queues] == [10] * 4


def test_confirmed_messages_are_there_for_everyone(
    broker: Broker, channel: BlockingChannel, queue: str
) -> None:
    """publishing: publisher confirms; queues: declare."""
    with broker.open_wire() as wire:
        select(wire)
        for number in range(1, 21):
            wire.send(message(queue))
            confirmed(wire, [number])

            assert channel.queue_declare(queue, passive=True).method.message_count == number


def test_select_without_an_answer(broker: Broker, name: Names) -> None:
    """publishing: publisher confirms, nowait."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        wire.send_method(1, CONFIRM_SELECT, b"\x01")
        wire.send(message(queue))

        confirmed(wire, [1])


def test_publish_to_a_missing_exchange_is_not_confirmed(broker: Broker) -> None:
    """exchanges: publish to missing exchange (pitfall 7)."""
    with broker.open_wire() as wire:
        select(wire)
        wire.send(message("k", exchange="t-nowhere"))

        reason = close_reason(wire.expect(CHANNEL_CLOSE, 1))

    assert (reason.code, reason.class_id, reason.method_id) == (404, 60, 40)


def test_pika_publishes_with_confirms(channel: BlockingChannel, queue: str) -> None:
    """publishing: publisher confirms; exchanges: mandatory."""
    channel.confirm_delivery()
    for body in numbered(10):
        channel.basic_publish("", queue, body, mandatory=True)

    with pytest.raises(pika.exceptions.UnroutableError) as returned:
        channel.basic_publish("", queue + "-missing", b"back", mandatory=True)

    assert [one.body for one in returned.value.messages] == [b"back"]
    assert channel.queue_declare(queue, passive=True).method.message_count == 10
