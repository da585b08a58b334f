"""Publishing for people: values in, confirms awaited, at a rate if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import trio

from .errors import Misuse
from .outgoing import Form, Pace, ProducerStatistics
from .serializers import JSON, Serializer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping
    from types import TracebackType

    from leveret.amqp import Properties
    from leveret.amqp.fields import Value

    from .channel import Channel
    from .connection import Connection
    from .publisher import Publisher


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
        self._connection = connection
        self._routing_key = routing_key
        self._exchange = exchange
        self._window = window
        self._mandatory = mandatory
        self._form = Form(serializer, propagates=propagates)
        self._pace = Pace(rate_per_s, burst)
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
            properties=self._form.plain,
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
        body = self._form.encode(value)
        if self._pace.is_limited:
            await trio.sleep_until(self._pace.turn(trio.current_time()))
        self._sent += 1
        await self._publisher.send(
            body, routing_key, properties=properties or self._form.properties(headers)
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
