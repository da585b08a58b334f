"""A consumer of pika's blocking connection that keeps what it gets."""

from __future__ import annotations

import time
from typing import NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel


class Delivery(NamedTuple):
    tag: int
    body: bytes
    redelivered: bool
    exchange: str
    routing_key: str


class Inbox:
    """Consumes a queue from its creation on; `got` grows only while `wait_for` or `barrier` run."""

    def __init__(
        self,
        channel: BlockingChannel,
        queue: str,
        *,
        auto_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, object] | None = None,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.got: list[Delivery] = []
        self.cancelled = False
        channel.add_on_cancel_callback(self._on_cancel)
        self.tag: str = channel.basic_consume(
            queue, self._on_message, auto_ack=auto_ack, exclusive=exclusive, arguments=arguments
        )

    def _on_message(
        self,
        channel: BlockingChannel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        key, exchange = method.routing_key, method.exchange
        self.got.append(Delivery(method.delivery_tag, body, method.redelivered, exchange, key))

    def _on_cancel(self, frame: object) -> None:
        self.cancelled = True

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.got]

    def wait_for(self, count: int, *, within_s: float = 10.0) -> list[Delivery]:
        """Wait until `count` messages came in all; return them.

        Raises:
            AssertionError: more came, or the time was up.
        """
        deadline = time.monotonic() + within_s
        while len(self.got) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.got)} of {count} came: {self.bodies}"
            self.channel.connection.process_data_events(time_limit=left)
        assert len(self.got) == count, self.bodies
        return self.got

    def wait_for_cancel(self, *, within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not self.cancelled:
            left = deadline - time.monotonic()
            assert left > 0, "no basic.cancel came"
            self.channel.connection.process_data_events(time_limit=left)

    def barrier(self, queue: str | None = None) -> int:
        """Return the queue's count of ready messages, and take in what was sent before it.

        What a queue sent before it answers has arrived now. RabbitMQ's queue answers this ahead
        of what else is waiting for it, unconfirmed publishes say: settle those first.
        """
        ok = self.channel.queue_declare(queue or self.queue, passive=True)
        self.channel.connection.process_data_events(time_limit=0)
        count: int = ok.method.message_count
        return count


def publish_all(connection: pika.BlockingConnection, queue: str, bodies: list[bytes]) -> None:
    """Publish to a queue, and return when the broker has confirmed them all."""
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish("", queue, body, mandatory=True)
    channel.close()


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [str(number).encode() for number in range(start, start + count)]


def take(channel: BlockingChannel, queue: str, count: int) -> list[tuple[bytes, bool]]:
    """Get `count` messages without acknowledging them: body and redelivered."""
    taken: list[tuple[bytes, bool]] = []
    for _ in range(count):
        method, _, body = channel.basic_get(queue)
        assert method is not None, taken
        taken.append((body, method.redelivered))
    return taken
