"""Messages that come back wait before they are delivered again, as in RabbitMQ 4.3."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest

WITHIN_S = 30.0


@pytest.fixture(params=[{"x-queue-type": "quorum"}, {}], ids=["quorum", "classic"])
def kind(request: pytest.FixtureRequest) -> dict[str, object]:
    return dict(request.param)


@pytest.fixture(autouse=True)
def _is_ours(connection: pika.BlockingConnection) -> None:
    if connection._impl.server_properties.get("broker") != "Leveret":
        pytest.skip("RabbitMQ has it from 4.3 on")


def wait_get(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str) -> bool:
    """Get the message that must come; return whether it is marked as redelivered."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        method, _, _ = channel.basic_get(queue)
        if method is not None:
            return bool(method.redelivered)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def arguments(kind: dict[str, object], retry: str, *, min_ms: int) -> dict[str, object]:
    return {**kind, "x-delayed-retry-type": retry, "x-delayed-retry-min": min_ms}


def test_a_returned_message_waits_longer_each_time(
    connection: pika.BlockingConnection, name: Callable[[], str], kind: dict[str, object]
) -> None:
    """consuming: delayed retry."""
    queue, channel = name(), connection.channel()
    channel.queue_declare(queue, durable=True, arguments=arguments(kind, "returned", min_ms=200))
    channel.basic_publish("", queue, b"x")
    assert wait_get(channel, queue) is False

    for waited_s in (0.2, 0.4):
        returned_s = time.monotonic()
        channel.basic_nack(0, multiple=True)
        assert wait_get(channel, queue) is True
        # The broker's clock counts in milliseconds.
        assert time.monotonic() - returned_s >= waited_s - 0.002


def test_only_failures_wait_where_the_type_is_failed(
    connection: pika.BlockingConnection, name: Callable[[], str], kind: dict[str, object]
) -> None:
    """consuming: delayed retry."""
    queue, channel = name(), connection.channel()
    channel.queue_declare(queue, durable=True, arguments=arguments(kind, "failed", min_ms=600_000))
    channel.basic_publish("", queue, b"x")
    failing = connection.channel()
    wait_get(failing, queue)
    failing.basic_nack(0, multiple=True)
    assert wait_get(failing, queue) is True

    failing.close()
    time_s = time.monotonic()
    while channel.queue_declare(queue, passive=True).method.message_count:
        assert time.monotonic() < time_s + WITHIN_S
    assert channel.basic_get(queue)[0] is None


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("x-delayed-retry-type", "sometimes", "invalid_delayed_retry_type"),
        ("x-delayed-retry-min", -1, "{value_negative,-1}"),
    ],
)
def test_a_wrong_argument_is_refused(
    connection: pika.BlockingConnection,
    name: Callable[[], str],
    argument: str,
    value: object,
    text: str,
) -> None:
    """consuming: delayed retry."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
        connection.channel().queue_declare(name(), arguments={argument: value})

    assert refusal.value.reply_code == 406
    assert refusal.value.reply_text.endswith(text)
