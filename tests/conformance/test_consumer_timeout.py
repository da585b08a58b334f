"""Consumers that acknowledge too late, as RabbitMQ 4.3 treats them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

WITHIN_S = 30.0


@pytest.fixture(params=[{"x-queue-type": "quorum"}, {}], ids=["quorum", "classic"])
def kind(request: pytest.FixtureRequest) -> dict[str, object]:
    return dict(request.param)


@pytest.fixture(autouse=True)
def _is_ours(connection: pika.BlockingConnection) -> None:
    if connection._impl.server_properties.get("broker") != "Leveret":
        pytest.skip("RabbitMQ closes the channel before 4.3, and looks at it once a minute")


class Held:
    """A consumer that acknowledges nothing by itself."""

    def __init__(self, channel: BlockingChannel, queue: str, **arguments: object) -> None:
        self.channel = channel
        self.got: list[tuple[bytes, bool, int]] = []
        self.is_cancelled = False
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_consume(
            queue,
            lambda _c, m, _p, body: self.got.append((body, m.redelivered, m.delivery_tag)),
            arguments=arguments,
        )

    def _cancelled(self, _: object) -> None:
        self.is_cancelled = True


def wait_for(connection: pika.BlockingConnection, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline
        connection.process_data_events(time_limit=0.05)


def test_what_is_held_for_too_long_is_returned_and_its_consumer_cancelled(
    connection: pika.BlockingConnection, name: Callable[[], str], kind: dict[str, object]
) -> None:
    """consuming: delivery timeout."""
    queue, channel = name(), connection.channel()
    channel.queue_declare(queue, durable=True, arguments={**kind, "x-consumer-timeout": 500})
    channel.basic_publish("", queue, b"slow")
    late = Held(channel, queue)
    wait_for(connection, lambda: late.is_cancelled)
    assert [(b"slow", False)] == [one[:2] for one in late.got]

    other = Held(connection.channel(), queue, **{"x-consumer-timeout": 0})
    wait_for(connection, lambda: bool(other.got))
    assert other.got[0][:2] == (b"slow", True)

    # Too late, and no reason to close the channel; nor does it take the message from the other.
    late.channel.basic_ack(late.got[0][2])
    assert late.channel.queue_declare(queue, passive=True).method.message_count == 0
    other.channel.close()
    wait_for(
        connection,
        lambda: channel.queue_declare(queue, passive=True).method.message_count == 1,
    )


def test_the_consumers_own_timeout_goes_before_that_of_its_queue(
    connection: pika.BlockingConnection, name: Callable[[], str], kind: dict[str, object]
) -> None:
    """consuming: delivery timeout."""
    queue, channel = name(), connection.channel()
    channel.queue_declare(queue, durable=True, arguments={**kind, "x-consumer-timeout": 600_000})
    channel.basic_publish("", queue, b"slow")

    late = Held(channel, queue, **{"x-consumer-timeout": 300})

    wait_for(connection, lambda: late.is_cancelled)


def test_a_consumer_that_acknowledges_in_time_stays(
    connection: pika.BlockingConnection, name: Callable[[], str], kind: dict[str, object]
) -> None:
    """consuming: delivery timeout."""
    queue, channel = name(), connection.channel()
    channel.queue_declare(queue, durable=True, arguments={**kind, "x-consumer-timeout": 20_000})
    consumer = Held(channel, queue)
    for number in range(5):
        channel.basic_publish("", queue, b"%d" % number)
        wait_for(connection, lambda: len(consumer.got) == number + 1)  # noqa: B023 - called at once
        channel.basic_ack(consumer.got[-1][2])

    assert not consumer.is_cancelled


@pytest.mark.parametrize(
    ("value", "text"), [("x", '"expected integer, got longstr"'), (-1, "{value_negative,-1}")]
)
def test_a_wrong_timeout_is_refused(
    channel: BlockingChannel, name: Callable[[], str], value: object, text: str
) -> None:
    """consuming: delivery timeout."""
    queue = name()
    channel.queue_declare(queue)

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
        channel.basic_consume(queue, print, arguments={"x-consumer-timeout": value})

    assert refusal.value.reply_code == 406
    assert refusal.value.reply_text.endswith(
        f"invalid arg 'x-consumer-timeout' for queue '{queue}' in vhost '/': {text}"
    )
