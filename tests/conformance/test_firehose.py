"""The firehose: copies of what is published and delivered in a virtual host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Names = Callable[[], str]

WITHIN_S = 30.0


@pytest.fixture
def traced(broker: Broker) -> Iterator[None]:
    broker.ctl("trace_on", "-p", broker.vhost)
    yield
    broker.ctl("trace_off", "-p", broker.vhost)


@pytest.fixture
def copies(
    traced: None, connect: Callable[..., pika.BlockingConnection], exchange: str, queue: str
) -> Callable[[int], list[tuple[str, dict[str, Any], bytes]]]:
    """Waits for so many copies; gives their keys, headers and bodies."""
    connection = connect()
    channel = connection.channel()
    tap = channel.queue_declare("", exclusive=True).method.queue
    for key in (f"publish.{exchange}", "publish.", f"deliver.{queue}"):
        channel.queue_bind(tap, "amq.rabbitmq.trace", key)

    def take(count: int) -> list[tuple[str, dict[str, Any], bytes]]:
        taken: list[tuple[str, dict[str, Any], bytes]] = []
        for method, properties, body in channel.consume(
            tap, auto_ack=True, inactivity_timeout=WITHIN_S
        ):
            assert method is not None, f"{len(taken)} copies came"
            taken.append((method.routing_key, properties.headers, body))
            if len(taken) == count:
                break
        channel.cancel()
        return taken

    return take


@pytest.fixture
def exchange(channel: BlockingChannel, name: Names) -> str:
    made = name()
    channel.exchange_declare(made, "direct")
    return made


@pytest.fixture
def queue(channel: BlockingChannel, name: Names, exchange: str) -> str:
    made = name()
    channel.queue_declare(made, durable=True)
    channel.queue_bind(made, exchange, "k")
    return made


Copies = Callable[[int], list[tuple[str, dict[str, Any], bytes]]]


def test_a_publish_is_copied_with_where_it_goes(
    broker: Broker, copies: Copies, channel: BlockingChannel, exchange: str, queue: str
) -> None:
    """observability: firehose."""
    properties = pika.BasicProperties(
        "text/plain", headers={"CC": ["other"], "hare": 1}, priority=3, message_id="m", timestamp=5
    )
    channel.basic_publish(exchange, "k", b"body", properties)
    channel.basic_publish(exchange, "nowhere", b"unroutable")

    (key, headers, body), (_, unroutable, _) = copies(2)

    assert (key, body) == (f"publish.{exchange}", b"body")
    assert headers.pop("node")
    assert " -> " in headers.pop("connection")
    assert headers == {
        "exchange_name": exchange,
        "routing_keys": ["k", "other"],
        "properties": {
            "content_type": "text/plain",
            "headers": {"CC": ["other"], "hare": 1},
            "priority": 3,
            "message_id": "m",
            "timestamp": 5,
        },
        "vhost": broker.vhost,
        "channel": channel.channel_number,
        "user": broker.user,
        "routed_queues": [queue],
    }
    assert (unroutable["routed_queues"], unroutable["properties"]) == ([], {})


def test_deliveries_are_copied_with_whether_they_come_again(
    broker: Broker, copies: Copies, channel: BlockingChannel, exchange: str, queue: str
) -> None:
    """observability: firehose."""
    channel.confirm_delivery()
    channel.basic_publish(exchange, "k", b"body")
    method, _, _ = channel.basic_get(queue)
    channel.basic_nack(method.delivery_tag)
    next(channel.consume(queue, auto_ack=True))
    channel.cancel()

    first, second = copies(3)[1:]

    assert [f"deliver.{queue}"] * 2 == [first[0], second[0]]
    assert [0, 1] == [headers["redelivered"] for _, headers, _ in (first, second)]
    assert (first[1]["exchange_name"], first[1]["routing_keys"]) == (exchange, ["k"])
    assert (first[1]["user"], first[2]) == (broker.user, b"body")


def test_the_default_exchange_has_the_empty_name(
    copies: Copies, channel: BlockingChannel, queue: str
) -> None:
    """observability: firehose."""
    channel.basic_publish("", queue, b"")

    ((key, headers, _),) = copies(1)

    assert ("publish.", "") == (key, headers["exchange_name"])
    assert [queue] == headers["routed_queues"]


def test_what_is_not_traced_is_not_copied(
    broker: Broker, copies: Copies, channel: BlockingChannel, exchange: str
) -> None:
    """observability: firehose."""
    channel.confirm_delivery()
    broker.ctl("trace_off", "-p", broker.vhost)
    channel.basic_publish(exchange, "k", b"not copied")
    broker.ctl("trace_on", "-p", broker.vhost)
    channel.basic_publish(exchange, "k", b"copied")

    assert [b"copied"] == [body for _, _, body in copies(1)]
