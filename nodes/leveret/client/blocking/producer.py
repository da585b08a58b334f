"""Publishing for people: values in, confirms awaited, at a rate if wanted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from leveret.client.errors import Misuse
from leveret.client.outgoing import Form, Pace, ProducerStatistics
from leveret.client.serializers import JSON, Serializer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from leveret.amqp import Properties
    from leveret.amqp.fields import Value

    from .channel import Channel
    from .connection import Connection
    from .publisher import Publisher


class Producer:
    """Publishes values to one exchange or queue; any number of threads may use it together.

    connection: an open one; the producer has a channel of its own on it.
    routing_key, exchange: where to; a call may name another routing key.
    serializer: makes bodies of values, and says so in `content_type`.
    window: messages that may be under way before `send` waits: the larger, the faster.
    rate_per_s: at most so many messages a second; burst: as many at once after a pause.
    mandatory: a message that fits no queue is an error.
    propagates: OpenTelemetry's context goes with each message, if it is installed.

    Example:
        >>> with connect(url) as connection:
        ...     queue = connection.channel().declare_queue("orders.blocking")
        ...     with Producer(connection, "orders.blocking") as producer:
        ...         for number in range(100):
        ...             producer.send({"order": number})
        ...     print(producer.statistics().confirmed)
        100
    """

    def __init__(
        self,
        connection: Connection,
        routing_key: str = "",
        *,
        exchange: str = "",
        serializer: Serializer = JSON,
        window: int = 200,
        rate_per_s: float = float("inf"),
        burst: int = 1,
        mandatory: bool = True,
        propagates: bool = True,
    ) -> None:
        self._connection = connection
        self._routing_key = routing_key
        self._exchange = exchange
        self._window = window
        self._mandatory = mandatory
        self._form = Form(serializer, propagates=propagates)
        self._pace = Pace(rate_per_s, burst)
        self._sent = 0
        self._pacing = threading.Lock()
        self._sending = threading.Lock()
        """A publisher is for one thread at a time: who waits for its window has it."""
        self._channel: Channel | None = None
        self._open: Publisher | None = None

    @property
    def _publisher(self) -> Publisher:
        if self._open is None:
            raise Misuse("the producer is not open yet: with Producer(…) as producer")
        return self._open

    def __enter__(self) -> Self:
        self._channel = self._connection.channel()
        self._open = self._channel.publisher(
            self._routing_key,
            exchange=self._exchange,
            properties=self._form.plain,
            mandatory=self._mandatory,
            window=self._window,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._channel is not None
        try:
            if error is None:
                self.flush()
        finally:
            self._channel.close()

    def send(
        self,
        value: object,
        routing_key: str | None = None,
        *,
        headers: Mapping[str, Value] | None = None,
        properties: Properties | None = None,
    ) -> None:
        """Publish a value as soon as rate and window allow; its confirm is awaited by `flush`.

        headers: those of the application; properties: all of them, in place of our own.

        Raises:
            TypeError, ValueError: the serializer cannot take the value.
            ClientError: an earlier message failed; this one was not sent.
            TimedOut: there was no room in the window in time.

        Example:
            >>> with connect(url) as connection:
            ...     with Producer(connection, "nobody-has-this-one") as producer:
            ...         try:
            ...             producer.send("lost")
            ...             producer.flush()
            ...         except Unroutable as error:
            ...             print(error.reply_text)
            NO_ROUTE
        """
        publisher = self._publisher
        body = self._form.encode(value)
        if self._pace.is_limited:
            now = time.monotonic()
            with self._pacing:
                turn = self._pace.turn(now)
            time.sleep(max(turn - now, 0))
        properties = properties or self._form.properties(headers)
        with self._sending:
            self._sent += 1
            publisher.send(body, routing_key, properties=properties)

    def send_all(self, values: Iterable[object]) -> int:
        """Publish all values, and return how many they were when all are confirmed.

        Raises:
            ClientError: one of them failed.

        Example:
            >>> with connect(url) as connection:
            ...     queue = connection.channel().declare_queue("orders.blocking")
            ...     with Producer(connection, "orders.blocking", serializer=MSGPACK) as producer:
            ...         print(producer.send_all({"order": number} for number in range(10)))
            10
        """
        count = 0
        for value in values:
            self.send(value)
            count += 1
        self.flush()
        return count

    def flush(self) -> None:
        """Wait until everything that was sent is confirmed.

        Raises:
            ClientError: a message failed. TimedOut: some are not confirmed in time.

        Example:
            >>> with connect(url) as connection:
            ...     queue = connection.channel().declare_queue("orders.blocking")
            ...     with Producer(connection, "orders.blocking") as producer:
            ...         producer.send({"order": 1})
            ...         producer.flush()
            ...         print(producer.statistics().in_flight)
            0
        """
        publisher = self._publisher
        with self._sending:
            publisher.flush()

    def statistics(self) -> ProducerStatistics:
        """What was sent, and what became of it.

        Example:
            >>> with connect(url) as connection:
            ...     with Producer(connection, "orders.blocking") as producer:
            ...         print(producer.statistics())
            ProducerStatistics(sent=0, confirmed=0, failed=0, in_flight=0)
        """
        publisher = self._publisher
        with self._connection._lock:
            return ProducerStatistics(
                sent=self._sent,
                confirmed=publisher.confirmed,
                failed=len(publisher.failed),
                in_flight=publisher.in_flight,
            )
