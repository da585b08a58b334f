"""kombu, unmodified: what Celery and kombu's own users do with a broker."""

# kombu has no types: its names are resolved when they are first used.
# mypy: allow-untyped-calls, disable-error-code="attr-defined,name-defined"

from __future__ import annotations

from collections.abc import Callable

import kombu
import kombu.mixins
import pytest

from tests.conformance.conftest import Broker

Names = Callable[[], str]


def kombu_connection(broker: Broker) -> kombu.Connection:
    # pyamqp:// is what Celery takes for amqp:// too.
    return kombu.Connection(broker.url.replace("amqp://", "pyamqp://", 1))


def test_kombu_producer_and_consumer(broker: Broker, name: Names) -> None:
    """kombu: Producer, Consumer, serializer, compression, headers, ack, requeue."""
    exchange_name, queue_name = name(), name()
    exchange = kombu.Exchange(exchange_name, type="direct", durable=True)
    queue = kombu.Queue(queue_name, exchange, routing_key="k", durable=True)
    seen: list[tuple[object, bool]] = []

    def take(body: object, message: kombu.Message) -> None:
        seen.append((body, bool(message.delivery_info["redelivered"])))
        if len(seen) == 1:
            message.requeue()
        else:
            message.ack()

    with kombu_connection(broker) as connection:
        producer = connection.Producer(serializer="json")
        for number in (1, 2):
            producer.publish(
                {"n": number},
                exchange=exchange,
                routing_key="k",
                declare=[queue],
                headers={"h": 1},
                compression="zlib",
            )
        with connection.Consumer(queue, callbacks=[take], prefetch_count=1):
            while len(seen) < 3:
                connection.drain_events(timeout=10)

    assert seen == [({"n": 1}, False), ({"n": 1}, True), ({"n": 2}, False)]


def test_kombu_simple_queue(broker: Broker, name: Names) -> None:
    """kombu: SimpleQueue put, get, Empty."""
    queue_name = name()
    with kombu_connection(broker) as connection:
        queue = connection.SimpleQueue(queue_name)
        for number in range(3):
            queue.put({"n": number})
        for number in range(3):
            message = queue.get(timeout=10)
            assert message.payload == {"n": number}
            message.ack()
        with pytest.raises(queue.Empty):
            queue.get(block=False)
        queue.close()
        connection.default_channel.exchange_delete(queue_name)


def test_kombu_publishes_with_confirms(broker: Broker, name: Names) -> None:
    """kombu: confirm_publish, as Celery sets it; publishing: publisher confirms."""
    queue = kombu.Queue(name(), durable=True)
    with kombu.Connection(
        broker.url.replace("amqp://", "pyamqp://", 1),
        transport_options={"confirm_publish": True},
    ) as connection:
        producer = connection.Producer()
        for number in range(20):
            producer.publish(str(number), routing_key=queue.name, declare=[queue])

        ok = queue(connection.default_channel).queue_declare(passive=True)
        assert ok.message_count == 20


def test_kombu_changes_the_prefetch_of_running_consumers(broker: Broker, name: Names) -> None:
    """kombu: qos(apply_global=True) as Celery does it; consuming: prefetch per channel."""
    queue = kombu.Queue(name(), durable=True)
    seen: list[kombu.Message] = []
    with kombu_connection(broker) as connection:
        producer = connection.Producer()
        for number in range(5):
            producer.publish(str(number), routing_key=queue.name, declare=[queue])
        consumer = connection.Consumer(queue, on_message=seen.append)
        consumer.qos(prefetch_count=2, apply_global=True)
        with consumer:
            while len(seen) < 2:
                connection.drain_events(timeout=10)
            ok = queue(connection.default_channel).queue_declare(passive=True)
            assert (ok.message_count, len(seen)) == (3, 2)
            consumer.qos(prefetch_count=4, apply_global=True)
            while len(seen) < 4:
                connection.drain_events(timeout=10)
            ok = queue(connection.default_channel).queue_declare(passive=True)
            assert (ok.message_count, len(seen)) == (1, 4)


class Worker(kombu.mixins.ConsumerMixin):
    """A consumer in the shape that kombu's users write."""

    def __init__(self, connection: kombu.Connection, queue: kombu.Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.seen: list[object] = []

    def get_consumers(self, consumer: type, channel: object) -> list[object]:
        return [consumer([self.queue], callbacks=[self.take])]

    def take(self, body: object, message: kombu.Message) -> None:
        self.seen.append(body)
        message.ack()
        self.should_stop = True


def test_kombu_consumer_mixin(broker: Broker, name: Names) -> None:
    """kombu: ConsumerMixin.run."""
    queue = kombu.Queue(name(), durable=True)
    with kombu_connection(broker) as connection:
        connection.Producer().publish("hello", routing_key=queue.name, declare=[queue])
        worker = Worker(connection, queue)
        worker.run()

    assert worker.seen == ["hello"]
