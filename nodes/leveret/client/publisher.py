"""Publishing in a window: many messages under way, each one's confirm awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import trio

from .core.templates import template_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from leveret.amqp import Properties

    from .channel import Channel
    from .core.bodies import Body
    from .core.outcome import Outcome
    from .core.window import PendingPublish


class Publisher:
    """Made by `Channel.publisher`. Several tasks may use it together.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection, connection.channel() as channel:
        ...         await channel.declare_queue("many")
        ...         async with channel.publisher("many") as publisher:
        ...             for number in range(10):
        ...                 await publisher.send(b"message %d" % number)
        ...         print(publisher.confirmed)
        >>> trio.run(main)
        10
    """

    def __init__(
        self,
        channel: Channel,
        *,
        routing_key: str,
        exchange: str,
        properties: Properties | None,
        mandatory: bool,
        window: int,
        on_settled: Callable[[bytes, Exception | None], None] | None,
    ) -> None:
        if window < 1:
            raise ValueError(f"a window has room for one message or more, not {window}")
        self._channel = channel
        self._connection = channel._connection
        self._routing_key = routing_key
        self._exchange = exchange
        self._template = template_of(properties)
        self._mandatory = mandatory
        self._window = window
        self._on_settled = on_settled
        self._senders = trio.lowlevel.ParkingLot()
        self._flushers = trio.lowlevel.ParkingLot()
        self._done = self._settled
        self.in_flight = 0
        """Messages whose confirm has not come yet."""
        self.confirmed = 0
        """Messages that the broker has."""
        self.failed: list[tuple[bytes, Exception]] = []
        """Bodies that were not published, each with the reason, in the order of the answers; empty
        if they are told to `on_settled`."""
        self._told = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.flush()

    async def send(
        self,
        body: Body,
        routing_key: str | None = None,
        *,
        properties: Properties | None = None,
    ) -> None:
        """Publish a message as soon as there is room in the window; a point of cancellation.

        Raises:
            ClientError: an earlier message failed, see `failed`; this one was not sent.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         async with channel.publisher(queue.name) as publisher:
            ...             await publisher.send(b"one")
            ...             text = Properties(content_type="text/plain")
            ...             await publisher.send(b"two", properties=text)
            >>> trio.run(main)
        """
        await self.ready()
        template = self._template if properties is None else template_of(properties)
        octets = body if type(body) is bytes else bytes(body)
        pending = self._channel._core.publish(
            self._exchange,
            self._routing_key if routing_key is None else routing_key,
            template.encode(len(octets)),
            octets,
            mandatory=self._mandatory,
        )
        self.in_flight += 1
        pending.notify = self._done

    async def ready(self) -> None:
        """Wait until `send` would not: room in the window, and a broker that takes publishes.

        For a body that says when it was sent. A point of cancellation.

        Raises:
            ClientError: an earlier message failed, see `failed`.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         async with channel.publisher(queue.name, window=1) as publisher:
            ...             for _ in range(2):
            ...                 await publisher.ready()
            ...                 await publisher.send(b"%r" % trio.current_time())
            ...         print(publisher.confirmed)
            >>> trio.run(main)
            2
        """
        if len(self.failed) > self._told:
            self._raise()
        blocked = self._connection._core.blocked is not None
        if blocked:
            await self._connection._until_unblocked()
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.in_flight >= self._window:
            await self._senders.park()

    async def flush(self) -> None:
        """Wait until every message is confirmed. A checkpoint.

        Raises:
            ClientError: one of them failed; its notes say how many more.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         async with channel.publisher(queue.name) as publisher:
            ...             await publisher.send(b"one")
            ...             await publisher.flush()
            ...             print(publisher.in_flight)
            >>> trio.run(main)
            0
        """
        while self.in_flight:
            await self._flushers.park()
        if len(self.failed) > self._told:
            self._raise()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _settled(self, pending: Outcome[None]) -> None:
        """The core's word that a message is confirmed, or failed."""
        self.in_flight -= 1
        if pending.error is None:
            self.confirmed += 1
        publish: PendingPublish = pending  # type: ignore[assignment]  # we gave it to no other
        if self._on_settled is not None:
            self._on_settled(publish.body, pending.error)
        elif pending.error is not None:
            self.failed.append((publish.body, pending.error))
        if self._senders:
            self._senders.unpark()
        if not self.in_flight and self._flushers:
            self._flushers.unpark_all()

    def _raise(self) -> None:
        errors = [error for _, error in self.failed[self._told :]]
        self._told = len(self.failed)
        if len(errors) > 1:
            errors[0].add_note(f"and {len(errors) - 1} more of the publisher's messages failed")
        raise errors[0]
