"""The event exchange: what happens in the broker, as messages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Names = Callable[[], str]
Next = Callable[..., dict[str, Any]]

WITHIN_S = 30.0


@pytest.fixture
def event(broker: Broker, connect: Callable[..., pika.BlockingConnection]) -> Next:
    """Waits for the next event with this key and these headers; gives its headers."""
    channel = connect().channel()
    if broker.vhost != "/":
        pytest.skip("the event exchange is in virtual host / alone")
    try:
        channel.exchange_declare("amq.rabbitmq.event", passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        pytest.skip("there is no event exchange: RabbitMQ needs a plugin for it")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.rabbitmq.event", "#")

    # One consumer for all of them: one that is cancelled takes what it has not shown with it.
    events = channel.consume(queue, auto_ack=True, inactivity_timeout=WITHIN_S)

    def take(key: str, **headers: object) -> dict[str, Any]:
        came: list[tuple[str, dict[str, Any]]] = []
        for method, properties, body in events:
            assert method is not None, f"no {key} with {headers} among {came}"
            came.append((method.routing_key, properties.headers))
            if method.routing_key == key and headers.items() <= properties.headers.items():
                assert (method.exchange, body) == ("amq.rabbitmq.event", b"")
                assert properties.headers["timestamp_in_ms"] // 1000 == properties.timestamp
                return dict(properties.headers)
        raise AssertionError("the consumer was cancelled")

    return take


def test_queues_exchanges_and_bindings_come_and_go(
    event: Next, channel: BlockingChannel, name: Names
) -> None:
    """exchanges: event exchange."""
    queue, exchange = name(), name()
    channel.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange, "k", {"a": 1})

    created = event("queue.created", name=queue, vhost="/")
    assert created["durable"]
    assert not created["auto_delete"]
    assert ['{<<"x-max-length">>,signedint,5}'] == created["arguments"]
    assert "fanout" == event("exchange.created", name=exchange)["type"]
    bound = event("binding.created", source_name=exchange, destination_name=queue)
    assert ("queue", "k") == (bound["destination_kind"], bound["routing_key"])
    assert ['{<<"a">>,signedint,1}'] == bound["arguments"]

    channel.queue_unbind(queue, exchange, "k", {"a": 1})
    channel.queue_delete(queue)
    channel.exchange_delete(exchange)

    event("binding.deleted", source_name=exchange, destination_name=queue)
    event("queue.deleted", name=queue, vhost="/")
    event("exchange.deleted", name=exchange, vhost="/")


def test_connections_channels_and_consumers_come_and_go(
    broker: Broker, event: Next, queue: str
) -> None:
    """exchanges: event exchange."""
    connection = broker.connect(client_properties={"connection_name": "mine"})

    assert "PLAIN" == event("user.authentication.success", name=broker.user)["auth_mechanism"]
    opened = event("connection.created", user_provided_name="mine")
    assert (broker.user, "/", False) == (opened["user"], opened["vhost"], opened["ssl"])
    assert opened["peer_port"]
    channel = connection.channel()
    made = event("channel.created", connection=opened["pid"])
    assert (1, broker.user) == (made["number"], made["user"])
    channel.basic_consume(queue, lambda *_: None, consumer_tag="t")
    consumer = event("consumer.created", consumer_tag="t", queue=queue)
    assert (True, False) == (consumer["ack_required"], consumer["exclusive"])
    assert made["pid"] == consumer["channel"]

    channel.basic_cancel("t")
    event("consumer.deleted", consumer_tag="t", queue=queue)
    channel.close()
    event("channel.closed", pid=made["pid"])
    connection.close()
    assert opened["name"] == event("connection.closed", pid=opened["pid"])["name"]


def test_a_refused_login_is_told(broker: Broker, event: Next) -> None:
    """exchanges: event exchange."""
    with contextlib.suppress(pika.exceptions.AMQPError):
        broker.connect(credentials=pika.PlainCredentials("nobody", "pw"))

    assert event("user.authentication.failure", name="nobody")["error"]


def test_users_permissions_and_virtual_hosts_come_and_go(
    broker: Broker, event: Next, name: Names
) -> None:
    """exchanges: event exchange."""
    one = name()
    broker.ctl("add_vhost", one)
    broker.ctl("add_user", one, "pw")
    broker.ctl("set_user_tags", one, "monitoring")
    broker.ctl("set_permissions", "-p", one, one, "a", "b", "c")
    broker.ctl("set_topic_permissions", "-p", one, one, "amq.topic", "b", "c")
    broker.ctl("set_policy", "-p", one, "pol", "^x", '{"max-length": 3}')
    broker.ctl("delete_user", one)
    broker.ctl("delete_vhost", one)

    event("vhost.created", name=one)
    event("user.created", name=one)
    assert ["monitoring"] == event("user.tags.set", name=one)["tags"]
    allowed = event("permission.created", user=one, vhost=one)
    assert ("a", "b", "c") == (allowed["configure"], allowed["write"], allowed["read"])
    assert "amq.topic" == event("topic.permission.created", user=one)["exchange"]
    policy = event("policy.set", name="pol", vhost=one)
    assert ({"max-length": 3}, "^x") == (policy["definition"], policy["pattern"])
    event("user.deleted", name=one)
    event("vhost.deleted", name=one)


def test_nobody_publishes_to_the_event_exchange(event: Next, channel: BlockingChannel) -> None:
    """exchanges: event exchange."""
    channel.confirm_delivery()

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.basic_publish("amq.rabbitmq.event", "queue.created", b"")

    assert caught.value.reply_code == 403
