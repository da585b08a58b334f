"""The messages of a queue, one after the other, for `async for`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from .core.consumer import UNACKED_AHEAD_MAX
from .errors import ClientError, Misuse, again
from .message import Message
from .waiting import Parking, wait_for

if TYPE_CHECKING:
    from types import TracebackType

    from leveret.amqp.fields import Table

    from .channel import Channel
    from .core.consumer import ConsumerCore

CANCEL_WITHIN_S: Final = 3.0
"""How long the broker may take to answer a basic.cancel."""
_RESUME_AT: Final = UNACKED_AHEAD_MAX // 2


class Deliveries:
    """Made by `Channel.consume`. Iterated by one task at a time.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection, connection.channel() as channel:
        ...         queue = await channel.declare_queue(exclusive=True)
        ...         for text in (b"one", b"two"):
        ...             await channel.publish(text, queue.name)
        ...         async with channel.consume(queue) as deliveries:
        ...             async for message in deliveries:
        ...                 print(message.body)
        ...                 await message.ack()
        ...                 if message.body == b"two":
        ...                     break
        >>> trio.run(main)
        b'one'
        b'two'
    """

    def __init__(
        self,
        channel: Channel,
        queue: str,
        *,
        prefetch: int,
        no_ack: bool,
        exclusive: bool,
        arguments: Table,
        tag: str,
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._prefetch = prefetch
        self._no_ack = no_ack
        self._exclusive = exclusive
        self._arguments = arguments
        self._tag = tag
        self._consumer: ConsumerCore | None = None
        self._parking = Parking()
        self._is_entered = False

    @property
    def buffered(self) -> int:
        """Messages that have come and were not taken yet."""
        return 0 if self._consumer is None else len(self._consumer.ready)

    async def __aenter__(self) -> Self:
        await self._start()
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.cancel()

    async def cancel(self) -> None:
        """End the consumer; what it was given and the program did not take returns.

        Done by itself at the end of `async with`. Shielded, for `CANCEL_WITHIN_S` at most.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         deliveries = channel.consume(queue)
            ...         with trio.move_on_after(0.1):
            ...             await anext(deliveries)
            ...         await deliveries.cancel()
            >>> trio.run(main)
        """
        consumer = self._consumer
        if consumer is not None and not consumer.is_over:
            with trio.move_on_after(CANCEL_WITHIN_S, shield=True):
                # If the channel or the connection is gone, the consumer is, too.
                with suppress(ClientError):
                    await wait_for(self._channel._core.cancel(consumer))

    async def _start(self) -> ConsumerCore:
        if self._consumer is not None:
            raise Misuse("a consumer is begun once: call channel.consume() for another one")
        consumer = self._consumer = self._channel._core.consume(
            self._queue,
            no_ack=self._no_ack,
            exclusive=self._exclusive,
            prefetch=self._prefetch,
            arguments=self._arguments,
            tag=self._tag,
        )
        try:
            await wait_for(consumer.started)
        except BaseException:
            self._leave()
            raise
        return consumer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message. A checkpoint when there is none yet, else a point of cancellation.

        If it is cancelled the consumer ends, unless it is in an `async with`: there a timeout
        around `anext` is just that.
        """
        consumer = self._consumer or await self._start()
        ready = consumer.ready
        try:
            if ready:
                await trio.lowlevel.checkpoint_if_cancelled()
            while not ready:
                if consumer.is_over:
                    if consumer.error is None:
                        raise StopAsyncIteration
                    raise again(consumer.error) from None
                if self._parking.is_taken:
                    raise Misuse(
                        "another task waits for a message of this consumer: give each task a "
                        "consumer of its own, or have one task hand the messages out"
                    )
                consumer.notify = self._parking.wake
                await self._parking.wait()
        except trio.Cancelled:
            if not self._is_entered:
                # Nothing else would tell that the loop is over.
                self._leave()
            raise
        message = ready.popleft()
        if self._no_ack and len(ready) == _RESUME_AT:
            self._channel._connection._resume_reading()
        return message  # type: ignore[return-value]  # the connection's core makes this kind

    def _leave(self) -> None:
        """Have the consumer end without waiting for it."""
        consumer = self._consumer
        if consumer is not None and not consumer.is_over:
            self._channel._core.cancel(consumer)

    def __del__(self) -> None:
        # Left by `break` or an exception without `async with`: nobody takes the messages any more.
        consumer = self._consumer
        if consumer is not None and not consumer.is_over:
            # Collected by another thread, or after the loop's end: the channel's end is its end.
            with suppress(ClientError, RuntimeError):
                self._leave()
