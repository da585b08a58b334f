"""Brokers in a thread, for clients that know nothing of trio."""

from __future__ import annotations

import threading

import pika
import pytest

from leveret.client.blocking import connect
from leveret.node.definitions import DefinitionsError
from leveret.testing.blocking import broker, cluster


def test_pika_talks_to_a_broker_in_a_thread() -> None:
    with broker() as b:
        connection = pika.BlockingConnection(pika.URLParameters(b.url))
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"one")
        _, _, body = channel.basic_get("orders", auto_ack=True)
        connection.close()

    assert body == b"one"


def test_a_robust_connection_goes_on_when_its_broker_was_killed() -> None:
    with broker() as b, connect(b.url) as connection:
        channel = connection.channel()
        channel.declare_queue("orders", durable=True)
        channel.publish(b"one", "orders")
        b.kill()
        b.start()
        channel.publish(b"two", "orders")

        bodies = []
        for message in channel.consume("orders"):
            bodies.append(message.body)
            message.ack()
            if message.body == b"two":
                break
        assert bodies == [b"one", b"two"]


def test_a_cluster_goes_on_without_one_of_its_nodes() -> None:
    with cluster(3) as c, connect(c.url) as connection:
        channel = connection.channel()
        channel.declare_queue("orders", durable=True)
        c.kill(1)
        channel.publish(b"one", "orders")

        assert c.running == [2, 3]
        c.start(1)
        assert c.running == [1, 2, 3]
        assert len(c.urls) == 3


def test_the_thread_ends_with_the_broker() -> None:
    with broker():
        assert any(thread.name == "leveret broker" for thread in threading.enumerate())

    assert not any(thread.name == "leveret broker" for thread in threading.enumerate())


def test_what_the_broker_fails_with_is_raised_in_the_test() -> None:
    with (
        pytest.raises(DefinitionsError),
        broker(settings={"node.definitions": "there/is/none.json"}),
    ):
        raise AssertionError("it did not start")


def test_what_the_test_raises_comes_out_and_the_broker_ends() -> None:
    with pytest.raises(ZeroDivisionError), broker():
        raise ZeroDivisionError

    assert not any(thread.name == "leveret broker" for thread in threading.enumerate())
