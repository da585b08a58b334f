"""Consuming for people: values to a handler, so many at a time, again if it fails, and a clean end.

What becomes of a failed message is said in `handling`.
"""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING

import trio

from . import tracing
from .errors import ClientError, NotFound
from .handling import (
    ConsumerStatistics,
    Retry,
    Undecodable,
    dead_letter,
    failures_of,
    once_more,
    value_of,
)
from .serializers import ALL, Serializer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .channel import Channel
    from .connection import Connection
    from .message import Message

    Handler = Callable[[object, Message], Awaitable[None]]

log = logging.getLogger("leveret.client")


class Consumer:
    """Has the messages of a queue handled; `run` does it.

    handler: `async def handle(value, message)`. When it returns the message is acknowledged, when
        it raises an Exception it is retried; a handler that settles the message itself is left to.
    concurrency: handlings at a time. held_max: failed messages that wait at a time.
    retry: see `Retry`. dead_letter: the queue for what failed for good; "" rejects it.
    serializers: by the content type of a message; one of an unknown type is given as it is. A
        body that cannot be decoded is given up at once.
    drain_s: seconds that handlings under way have to end when `run` is cancelled.
    rng: for tests: the jitter of the delays.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection:
        ...         async with connection.channel() as channel:
        ...             await channel.declare_queue("orders.new")
        ...         async with Producer(connection, "orders.new") as producer:
        ...             await producer.send({"order": 7})
        ...         async with trio.open_nursery() as nursery:
        ...             async def handle(order: object, message: Message) -> None:
        ...                 print(order)
        ...                 nursery.cancel_scope.cancel()
        ...             await Consumer(connection, "orders.new", handle, concurrency=10).run()
        >>> trio.run(main)
        {'order': 7}
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        handler: Handler,
        *,
        concurrency: int = 10,
        held_max: int = 100,
        retry: Retry | None = None,
        dead_letter: str = "",
        serializers: Sequence[Serializer] = ALL,
        drain_s: float = 30.0,
        rng: Random | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"a concurrency is 1 or more, not {concurrency}")
        self._connection = connection
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._held_max = held_max
        self._retry = retry or Retry()
        self._dead_letter = dead_letter
        self._serializers = {one.content_type: one for one in serializers}
        self._drain_s = drain_s
        self._rng = rng or Random()  # noqa: S311 - for the jitter
        self._slots = trio.Semaphore(concurrency)
        self._stopping = trio.Event()
        self._received = self._succeeded = self._failed = self._retried = self._dead = 0
        self._held = 0

    async def run(self) -> None:
        """Handle messages until cancelled, then end in order.

        At the end the consumer is cancelled, what was not begun returns to the queue, and what is
        being handled has `drain_s` to end; then it is cancelled too, and its message returns.

        Raises:
            ClientError: the queue is missing or was deleted, or the connection is closed.

        Example:
            >>> async def main() -> None:
            ...     async def handle(value: object, message: Message) -> None:
            ...         print(value)
            ...     async with connect(url) as connection:
            ...         try:
            ...             await Consumer(connection, "nobody-has-this-one", handle).run()
            ...         except NotFound as error:
            ...             print(error.reply_code)
            >>> trio.run(main)
            404
        """
        self._stopping = trio.Event()
        failure: ClientError | None = None
        async with self._connection.channel() as channel:
            await self._prepare(channel)
            shelter = trio.CancelScope(shield=True)
            async with trio.open_nursery() as nursery:
                handlings = await nursery.start(self._shelter, shelter)
                try:
                    await self._consume(channel, handlings)
                except ClientError as error:
                    failure = error  # raised outside, where no nursery puts it into a group
                finally:
                    self._stopping.set()
                    shelter.deadline = trio.current_time() + self._drain_s
        if failure is not None:
            raise failure

    async def _prepare(self, channel: Channel) -> None:
        """Have the queue for dead letters, however it was declared."""
        if self._dead_letter:
            try:
                await channel.declare_queue(self._dead_letter, passive=True)
            except NotFound:
                await channel.declare_queue(self._dead_letter)

    async def _shelter(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[trio.Nursery]
    ) -> None:
        """Where the handlings live: out of reach of the cancellation that ends `run`."""
        with scope:
            async with trio.open_nursery() as handlings:
                task_status.started(handlings)
                await self._stopping.wait()

    async def _consume(self, channel: Channel, handlings: trio.Nursery) -> None:
        prefetch = self._concurrency + self._held_max
        async with channel.consume(self._queue, prefetch=prefetch) as deliveries:
            async for message in deliveries:
                self._received += 1
                await self._slots.acquire()
                handlings.start_soon(self._handle, channel, message)

    def statistics(self) -> ConsumerStatistics:
        """What was handled, and how it went.

        Example:
            >>> async def main() -> None:
            ...     async def handle(value: object, message: Message) -> None:
            ...         print(value)
            ...     async with connect(url) as connection:
            ...         print(Consumer(connection, "orders", handle).statistics().running)
            >>> trio.run(main)
            0
        """
        return ConsumerStatistics(
            received=self._received,
            succeeded=self._succeeded,
            failed=self._failed,
            retried=self._retried,
            dead=self._dead,
            running=self._concurrency - self._slots.value,
            held=self._held,
        )

    async def _handle(self, channel: Channel, message: Message) -> None:
        """Handle one message and settle it."""
        try:
            error = await self._attempt(message)
        finally:
            self._slots.release()
        try:
            if error is None:
                self._succeeded += 1
                if not message.is_settled:
                    await message.ack()
                return
            self._failed += 1
            failures = failures_of(message) + 1
            log.warning(
                "message not handled",
                extra={"queue": self._queue, "failures": failures, "error": error},
            )
            if message.is_settled:
                return
            if isinstance(error, Undecodable) or failures >= self._retry.attempts:
                await self._give_up(channel, message, failures, error)
            else:
                await self._try_again(channel, message, failures)
        except ClientError as failed:
            # It is not settled, so it comes again, to us or to another consumer.
            log.warning("message not settled", extra={"queue": self._queue, "error": str(failed)})

    async def _attempt(self, message: Message) -> Exception | None:
        """Run the handler; what it raised."""
        try:
            value = value_of(message, self._serializers)
        except Undecodable as error:
            return error
        try:
            with tracing.extracted(message.headers):
                await self._handler(value, message)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, it is retried
            return error
        return None

    async def _try_again(self, channel: Channel, message: Message, failures: int) -> None:
        self._held += 1
        with trio.move_on_after(self._retry.delay(failures, self._rng)):
            await self._stopping.wait()
        self._held -= 1
        if self._stopping.is_set():
            await message.nack()
            return
        await channel.publish(message.body, self._queue, properties=once_more(message, failures))
        await message.ack()
        self._retried += 1

    async def _give_up(
        self, channel: Channel, message: Message, failures: int, error: Exception
    ) -> None:
        self._dead += 1
        if not self._dead_letter:
            await message.reject()
            return
        properties = dead_letter(message, failures, error, self._queue)
        await channel.publish(
            message.body, self._dead_letter, properties=properties, mandatory=True
        )
        await message.ack()
