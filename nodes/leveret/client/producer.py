"""Publishing for people: values in, confirms awaited, at a rate if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trio

from leveret.amqp import Properties

from . import tracing
from .errors import Misuse
from .serializers import JSON, Serializer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping
    from types import TracebackType

    from leveret.amqp.fields import Table, Value

    from .channel import Channel
    from .connection import Connection
    from .publisher import Publisher


@dataclass(frozen=True)
class ProducerStatistics:
    """Counters of a producer.

    Example:
        >>> ProducerStatistics(sent=3, confirmed=2, failed=0, in_flight=1).in_flight
        1
    """

    sent: int
    confirmed: int
    failed: int
    in_flight: int
    """Messages that were sent and are not confirmed yet."""


class Producer:
    """Publishes values to one exchange or queue; several tasks may use it together.

    connection: an open one; the producer has a channel of its own on it.
    routing_key, exchange: where to; a call may name another routing key.
    serializer: makes bodies of values, and says so in `content_type`.
    window: messages that may be under way before `send` waits: the larger, the faster.
    rate_per_s: at most so many messages a second; burst: as many at once after a pause.
    mandatory: a message that fits no queue is an error.
    propagates: OpenTelemetry's context goes with each message, if it is installed.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection:
        ...         async with connection.channel() as channel:
        ...             await channel.declare_queue("orders")
        ...         async with Producer(connection, "orders") as producer:
        ...             for number in range(100):
        ...                 await producer.send({"order": number})
        ...         print(producer.statistics().confirmed)
        >>> trio.run(main)
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
        if rate_per_s <= 0 or burst < 1:
            raise ValueError("a rate is above 0 messages a second, and a burst 1 or more")
        self._connection = connection
        self._routing_key = routing_key
        self._exchange = exchange
        self._serializer = serializer
        self._window = window
        self._interval_s = 1 / rate_per_s
        self._burst = burst
        self._mandatory = mandatory
        self._propagates = propagates and tracing.is_available
        self._plain = Properties(content_type=serializer.content_type, delivery_mode=2)
        self._next_at = float("-inf")
        self._sent = 0
        self._channel: Channel | None = None
        self._open: Publisher | None = None

    @property
    def _publisher(self) -> Publisher:
        if self._open is None:
            raise Misuse("the producer is not open yet: async with Producer(…) as producer")
        return self._open

    async def __aenter__(self) -> Self:
        self._channel = await self._connection.channel().__aenter__()
        self._open = self._channel.publisher(
            self._routing_key,
            exchange=self._exchange,
            properties=self._plain,
            mandatory=self._mandatory,
            window=self._window,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._channel is not None
        try:
            if error is None:
                await self.flush()
        finally:
            await self._channel.close()

    async def send(
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

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with Producer(connection, "nobody-has-this-one") as producer:
            ...             try:
            ...                 await producer.send("lost")
            ...                 await producer.flush()
            ...             except Unroutable as error:
            ...                 print(error.reply_text)
            >>> trio.run(main)
            NO_ROUTE
        """
        body = self._serializer.encode(value)
        await self._pace()
        self._sent += 1
        await self._publisher.send(
            body, routing_key, properties=properties or self._properties(headers)
        )

    async def send_all(self, values: Iterable[object] | AsyncIterable[object]) -> int:
        """Publish all values, and return how many they were when all are confirmed.

        Raises:
            ClientError: one of them failed.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel() as channel:
            ...             await channel.declare_queue("orders")
            ...         async with Producer(connection, "orders", serializer=MSGPACK) as producer:
            ...             print(await producer.send_all({"order": n} for n in range(10)))
            >>> trio.run(main)
            10
        """
        count = 0
        if hasattr(values, "__aiter__"):
            async for value in values:
                await self.send(value)
                count += 1
        else:
            for value in values:
                await self.send(value)
                count += 1
        await self.flush()
        return count

    async def flush(self) -> None:
        """Wait until everything that was sent is confirmed.

        Raises:
            ClientError: a message failed.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel() as channel:
            ...             await channel.declare_queue("orders")
            ...         async with Producer(connection, "orders") as producer:
            ...             await producer.send({"order": 1})
            ...             await producer.flush()
            ...             print(producer.statistics().in_flight)
            >>> trio.run(main)
            0
        """
        await self._publisher.flush()

    def statistics(self) -> ProducerStatistics:
        """What was sent, and what became of it.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel() as channel:
            ...             await channel.declare_queue("orders")
            ...         async with Producer(connection, "orders") as producer:
            ...             print(producer.statistics())
            >>> trio.run(main)
            ProducerStatistics(sent=0, confirmed=0, failed=0, in_flight=0)
        """
        publisher = self._publisher
        return ProducerStatistics(
            sent=self._sent,
            confirmed=publisher.confirmed,
            failed=len(publisher.failed),
            in_flight=publisher.in_flight,
        )

    async def _pace(self) -> None:
        """Wait for this message's turn."""
        if not self._interval_s:
            return
        now = trio.current_time()
        earliest = now - (self._burst - 1) * self._interval_s
        turn = max(self._next_at, earliest)
        self._next_at = turn + self._interval_s
        if turn > now:
            await trio.sleep_until(turn)

    def _properties(self, headers: Mapping[str, Value] | None) -> Properties | None:
        """The properties for one message; None stands for those that all have."""
        table: Table = dict(headers or {})
        if self._propagates:
            tracing.inject(table)
        if not table:
            return None
        return Properties(
            content_type=self._serializer.content_type, delivery_mode=2, headers=table
        )
