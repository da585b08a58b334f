"""Streams: declaring, reading from an offset, and what streams do not do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.support.inbox import Inbox, numbered, publish_all

Names = Callable[[], str]
Connect = Callable[..., pika.BlockingConnection]
Act = Callable[[BlockingChannel], object]

STREAM = {"x-queue-type": "stream"}


@pytest.fixture
def stream(channel: BlockingChannel, name: Names) -> str:
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=STREAM)
    return queue


class Reader:
    """A consumer of a stream; keeps offsets and bodies."""

    def __init__(
        self, channel: BlockingChannel, queue: str, start: object, *, acks: bool = True
    ) -> None:
        self.channel = channel
        self.acks = acks
        self.got: list[tuple[int, bytes]] = []
        self.tags: list[int] = []
        arguments = None if start is None else {"x-stream-offset": start}
        channel.basic_consume(queue, self._on_message, arguments=arguments)

    def _on_message(
        self,
        channel: BlockingChannel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        assert not method.redelivered
        assert properties.headers is not None
        self.got.append((properties.headers["x-stream-offset"], body))
        self.tags.append(method.delivery_tag)
        if self.acks:
            channel.basic_ack(method.delivery_tag)

    def wait_for(self, count: int, *, within_s: float = 30.0) -> list[tuple[int, bytes]]:
        deadline = time.monotonic() + within_s
        while len(self.got) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.got)} of {count} came: {self.got}"
            self.channel.connection.process_data_events(time_limit=left)
        return self.got

    def barrier(self) -> list[tuple[int, bytes]]:
        """Take in what is on the way, and return all that came."""
        for _ in range(3):
            self.channel.connection.process_data_events(time_limit=0.1)
        return self.got


def reading(connection: pika.BlockingConnection, queue: str, start: object) -> Reader:
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)
    return Reader(channel, queue, start)


def expected(numbers: range) -> list[tuple[int, bytes]]:
    return [(number, str(number).encode()) for number in numbers]


def refusal(connect: Connect, act: Act) -> tuple[int, str]:
    """Return the code and text with which the broker closes the channel or the connection."""
    channel = connect().channel()
    try:
        act(channel)
    except (
        pika.exceptions.ChannelClosedByBroker,
        pika.exceptions.ConnectionClosedByBroker,
    ) as error:
        return error.reply_code, error.reply_text
    raise AssertionError("it was not refused")


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"durable": False}, "invalid property 'non-durable' for queue '{}' in vhost '/'"),
        (
            {"durable": True, "exclusive": True},
            "invalid property 'exclusive-owner' for queue '{}' in vhost '/'",
        ),
        (
            {"durable": True, "auto_delete": True},
            "invalid property 'auto-delete' for queue '{}' in vhost '/'",
        ),
    ],
)
def test_a_stream_lasts(
    connect: Connect, name: Names, properties: dict[str, bool], text: str
) -> None:
    """streams: declare."""
    queue = name()

    refused = refusal(
        connect, lambda channel: channel.queue_declare(queue, arguments=STREAM, **properties)
    )

    assert refused == (406, f"PRECONDITION_FAILED - {text.format(queue)}")


def test_a_stream_is_not_named_by_the_server(connect: Connect) -> None:
    """streams: declare."""
    refused = refusal(
        connect, lambda channel: channel.queue_declare("", durable=True, arguments=STREAM)
    )

    text = "Cannot declare a server-named queue for type rabbit_stream_queue"
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x-message-ttl", 1000),
        ("x-expires", 1000),
        ("x-max-length", 10),
        ("x-max-priority", 5),
        ("x-dead-letter-exchange", "dlx"),
        ("x-dead-letter-routing-key", "key"),
        ("x-overflow", "drop-head"),
        ("x-queue-mode", "lazy"),
        ("x-single-active-consumer", True),
        ("x-delivery-limit", 3),
        ("x-quorum-initial-group-size", 1),
    ],
)
def test_a_stream_refuses_what_other_queues_can(
    connect: Connect, name: Names, key: str, value: object
) -> None:
    """streams: declare."""
    queue = name()

    refused = refusal(
        connect,
        lambda channel: channel.queue_declare(
            queue, durable=True, arguments={**STREAM, key: value}
        ),
    )

    text = f"invalid arg '{key}' for queue '{queue}' in vhost '/' of queue type rabbit_stream_queue"
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize(
    ("key", "value"), [("x-max-age", "7D"), ("x-stream-max-segment-size-bytes", 1000)]
)
def test_other_queues_refuse_what_streams_can(
    connect: Connect, name: Names, queue_type: str, key: str, value: object
) -> None:
    """streams: declare."""
    queue = name()

    refused = refusal(
        connect,
        lambda channel: channel.queue_declare(
            queue, durable=True, arguments={"x-queue-type": queue_type, key: value}
        ),
    )

    text = (
        f"invalid arg '{key}' for queue '{queue}' in vhost '/' "
        f"of queue type rabbit_{queue_type}_queue"
    )
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("x-max-age", "7d", "invalid_max_age"),
        ("x-max-age", "5", "invalid_max_age"),
        ("x-max-age", "0s", "invalid_max_age"),
        ("x-max-age", "1h30m", "invalid_max_age"),
        ("x-max-age", 5, "{unacceptable_type,signedint}"),
        ("x-max-length-bytes", -1, "{value_negative,-1}"),
        ("x-stream-max-segment-size-bytes", -1, "{value_negative,-1}"),
        ("x-stream-max-segment-size-bytes", "a", '"expected integer, got longstr"'),
        ("x-initial-cluster-size", 0, "{value_zero,0}"),
        ("x-queue-leader-locator", "nope", "invalid_queue_locator_arg"),
    ],
)
def test_a_stream_checks_its_arguments(
    connect: Connect, name: Names, key: str, value: object, problem: str
) -> None:
    """streams: retention."""
    queue = name()

    refused = refusal(
        connect,
        lambda channel: channel.queue_declare(
            queue, durable=True, arguments={**STREAM, key: value}
        ),
    )

    text = f"invalid arg '{key}' for queue '{queue}' in vhost '/': {problem}"
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


def test_a_segment_has_a_largest_size(connect: Connect, name: Names) -> None:
    """streams: retention."""
    arguments = {**STREAM, "x-stream-max-segment-size-bytes": 3_000_000_001}

    refused = refusal(
        connect, lambda channel: channel.queue_declare(name(), durable=True, arguments=arguments)
    )

    text = "Exceeded max value for x-stream-max-segment-size-bytes"
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


def test_a_stream_is_declared_again_with_the_same_arguments(
    connect: Connect, channel: BlockingChannel, name: Names, stream: str
) -> None:
    """streams: declare."""
    queue = name()
    arguments = {
        **STREAM,
        "x-max-age": "1Y",
        "x-max-length-bytes": 1_000_000,
        "x-stream-max-segment-size-bytes": 100_000,
    }
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.queue_declare(queue, durable=True, arguments=arguments)

    refused = refusal(
        connect,
        lambda other: other.queue_declare(
            queue, durable=True, arguments={**arguments, "x-max-age": "2h"}
        ),
    )
    without = refusal(connect, lambda other: other.queue_declare(stream, durable=True))

    text = (
        f"inequivalent arg 'x-max-age' for queue '{queue}' in vhost '/': "
        "received '2h' but current is '1Y'"
    )
    assert refused == (406, f"PRECONDITION_FAILED - {text}")
    text = (
        f"inequivalent arg 'x-queue-type' for queue '{stream}' in vhost '/': "
        "received none but current is the value 'stream' of type 'longstr'"
    )
    assert without == (406, f"PRECONDITION_FAILED - {text}")


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("first", 0),
        ("last", 9),
        (0, 0),
        (4, 4),
        (9, 9),
        (-1, 0),
        ("1h", 0),
        ("7D", 0),
        ("1Y", 0),
        (datetime(2020, 1, 1, tzinfo=UTC), 0),
    ],
)
def test_a_reader_begins_where_it_likes(
    connect: Connect, stream: str, start: object, first: int
) -> None:
    """streams: offsets."""
    publish_all(connect(), stream, numbered(10))

    reader = reading(connect(), stream, start)

    assert reader.wait_for(10 - first) == expected(range(first, 10))
    assert reader.barrier() == expected(range(first, 10))


@pytest.mark.parametrize("start", [None, "next", 10, datetime.now(UTC) + timedelta(hours=1)])
def test_a_reader_begins_with_what_comes_next(connect: Connect, stream: str, start: object) -> None:
    """streams: offsets."""
    publish_all(connect(), stream, numbered(10))

    reader = reading(connect(), stream, start)
    publish_all(connect(), stream, numbered(3, 10))

    assert reader.wait_for(3) == expected(range(10, 13))


def test_a_reader_begins_at_an_offset_to_come(connect: Connect, stream: str) -> None:
    """streams: offsets."""
    publish_all(connect(), stream, numbered(10))

    reader = reading(connect(), stream, 12)
    publish_all(connect(), stream, numbered(5, 10))

    assert reader.wait_for(3) == expected(range(12, 15))


def test_a_reader_begins_at_a_time(connect: Connect, stream: str) -> None:
    """streams: offsets."""
    publish_all(connect(), stream, numbered(3))
    # Times are in whole seconds: the next one has none of the first messages.
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    connect().sleep(1.1)
    publish_all(connect(), stream, numbered(3, 3))

    reader = reading(connect(), stream, begin)

    assert reader.wait_for(3) == expected(range(3, 6))


@pytest.mark.parametrize("start", ["5", "0s", "1h30m", "1y"])
def test_what_is_no_offset_is_refused(connect: Connect, stream: str, start: str) -> None:
    """streams: offsets."""
    refused = refusal(connect, lambda channel: reading(channel.connection, stream, start))

    text = (
        f"invalid arg 'x-stream-offset' for queue '{stream}' in vhost '/': "
        f'{{invalid_stream_offset_arg,{{longstr,<<"{start}">>}}}}'
    )
    assert refused == (406, f"PRECONDITION_FAILED - {text}")


def test_many_readers_each_get_all(connect: Connect, stream: str) -> None:
    """streams: offsets."""
    publish_all(connect(), stream, numbered(50))
    connection = connect()
    channel = connection.channel()
    channel.basic_qos(prefetch_count=7)

    whole, late = Reader(channel, stream, "first"), Reader(channel, stream, 30)
    other = reading(connect(), stream, "first")

    assert whole.wait_for(50) == expected(range(50))
    assert late.wait_for(20) == expected(range(30, 50))
    assert other.wait_for(50) == expected(range(50))
    again = reading(connect(), stream, "first")
    assert again.wait_for(50) == expected(range(50))


def test_acknowledging_makes_room_and_nothing_else(connect: Connect, stream: str) -> None:
    """streams: consume."""
    publish_all(connect(), stream, numbered(10))
    channel = connect().channel()
    channel.basic_qos(prefetch_count=3)
    reader = Reader(channel, stream, "first", acks=False)
    assert reader.wait_for(3) == expected(range(3))
    assert reader.barrier() == expected(range(3))

    channel.basic_ack(reader.tags[0])
    assert reader.wait_for(4) == expected(range(4))
    assert reader.barrier() == expected(range(4))

    channel.basic_ack(0, multiple=True)
    assert reader.wait_for(7) == expected(range(7))
    channel.close()

    assert reading(connect(), stream, "first").wait_for(10) == expected(range(10))


def test_a_delivery_has_its_own_headers_too(connect: Connect, stream: str) -> None:
    """streams: consume."""
    publisher = connect().channel()
    publisher.confirm_delivery()
    for headers in (None, {"n": 7}, {"n": 8, "x-stream-offset": "mine"}):
        properties = pika.BasicProperties(
            headers=headers, message_id="m", expiration="1", delivery_mode=1
        )
        publisher.basic_publish("", stream, b"body", properties, mandatory=True)
    channel = connect().channel()
    channel.basic_qos(prefetch_count=10)
    seen: list[pika.BasicProperties] = []
    channel.basic_consume(
        stream, lambda *message: seen.append(message[2]), arguments={"x-stream-offset": "first"}
    )
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        channel.connection.process_data_events(time_limit=0.1)

    assert [
        {"x-stream-offset": 0},
        {"n": 7, "x-stream-offset": 1},
        {"n": 8, "x-stream-offset": 2},
    ] == [properties.headers for properties in seen]
    assert ["m"] * 3 == [properties.message_id for properties in seen]


def _consume(
    stream: str, *, prefetch: int, auto_ack: bool = False, per_channel: bool = False
) -> Act:
    def act(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=prefetch, global_qos=per_channel)
        channel.basic_consume(stream, lambda *_: None, auto_ack=auto_ack)

    return act


def test_a_reader_must_have_a_prefetch(connect: Connect, stream: str) -> None:
    """streams: consume."""
    text = f"consumer prefetch count is not set for 'queue '{stream}' in vhost '/''"
    for act in (
        _consume(stream, prefetch=0),
        _consume(stream, prefetch=10, per_channel=True),
        _consume(stream, prefetch=0, auto_ack=True),
    ):
        assert refusal(connect, act) == (406, f"PRECONDITION_FAILED - {text}")


def test_a_reader_has_no_priority(connect: Connect, stream: str) -> None:
    """streams: consume."""

    def act(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(stream, lambda *_: None, arguments={"x-priority": 5})

    text = (
        f"invalid arg 'x-priority' for queue '{stream}' in vhost '/' "
        "of queue type rabbit_stream_queue"
    )
    assert refusal(connect, act) == (406, f"PRECONDITION_FAILED - {text}")


def test_other_queues_have_no_offsets(connect: Connect, queue: str) -> None:
    """streams: consume."""
    refused = refusal(
        connect,
        lambda channel: Inbox(channel, queue, arguments={"x-stream-offset": "first"}),
    )

    code, text = refused
    assert code == 406
    assert text.startswith(
        f"PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{queue}' in vhost '/' "
        "of queue type rabbit_"
    )


def _reject(stream: str, method: str, *, requeue: bool) -> Act:
    def act(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=1)
        reader = Reader(channel, stream, "first", acks=False)
        reader.wait_for(1)
        getattr(channel, method)(reader.tags[0], requeue=requeue)
        channel.connection.process_data_events(time_limit=30)
        channel.connection.process_data_events(time_limit=30)

    return act


def test_what_streams_do_not_do_ends_the_connection(connect: Connect, stream: str) -> None:
    """streams: consume."""
    publish_all(connect(), stream, numbered(1))

    def text(what: str) -> tuple[int, str]:
        where = f"queue '{stream}' in vhost '/'"
        return 540, f"NOT_IMPLEMENTED - {what} not supported by stream queues {where}"

    assert text("basic.get") == refusal(connect, lambda channel: channel.basic_get(stream))
    assert text("queue.purge") == refusal(connect, lambda channel: channel.queue_purge(stream))
    assert text("automatic acknowledgement") == refusal(
        connect, _consume(stream, prefetch=10, auto_ack=True)
    )
    for method, requeue in itertools.product(("basic_nack", "basic_reject"), (True, False)):
        refused = refusal(connect, _reject(stream, method, requeue=requeue))
        assert text("basic.nack and basic.reject") == refused


def test_a_stream_is_bound_and_published_to_like_any_queue(
    connect: Connect, channel: BlockingChannel, stream: str, name: Names
) -> None:
    """streams: declare."""
    exchange = name()
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_bind(stream, exchange, "a.#")
    publisher = connect().channel()
    publisher.tx_select()
    publisher.basic_publish(exchange, "a.b", b"0")
    publisher.tx_rollback()
    publisher.basic_publish(exchange, "a.b", b"1")
    publisher.basic_publish(exchange, "b", b"2")
    publisher.tx_commit()

    reader = reading(connect(), stream, "first")

    assert reader.wait_for(1) == [(0, b"1")]
    channel.exchange_delete(exchange)
