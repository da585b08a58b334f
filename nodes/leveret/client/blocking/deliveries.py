"""The messages of a queue, one after the other, for `for`."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from leveret.client.errors import ClientError, again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from leveret.client.core.consumer import ConsumerCore

    from .channel import Channel
    from .message import Message

CLOSE_WITHIN_S: Final = 3.0
"""How long the broker may take to answer a channel.close or basic.cancel."""
_FLUSH_AT: Final = 32
"""Acknowledgements that are told at once, though there are more messages to take."""


class Deliveries:
    """Made by `Channel.consume`.

    Example:
        >>> with connect(url) as connection, connection.channel() as channel:
        ...     queue = channel.declare_queue(exclusive=True)
        ...     channel.publish(b"one", queue.name)
        ...     with channel.consume(queue) as deliveries:
        ...         message = next(deliveries)
        ...         print(message.body, message.ack())
        b'one' True
    """

    def __init__(self, channel: Channel, core: ConsumerCore, timeout_s: float) -> None:
        self._channel = channel
        self._core = core
        self._timeout_s = timeout_s
        self._connection = channel._connection
        self._waiters: list[threading.Lock] = []

    @property
    def buffered(self) -> int:
        """Messages that have come and were not taken yet."""
        return len(self._core.ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the consumer, and the loops over it; what nobody took returns to the queue.

        May be called from any thread.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     deliveries = channel.consume(channel.declare_queue(exclusive=True))
            ...     deliveries.cancel()
            ...     print(list(deliveries))
            []
        """
        with self._connection._lock:
            if self._core.is_over:
                return
            call = self._channel._core.cancel(self._core)
            self._connection._flush()
        with suppress(ClientError):
            self._connection._wait(call, CLOSE_WITHIN_S)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        """The next message; waits for it."""
        ready = self._core.ready
        deadline: float | None = None
        while True:
            try:
                message = ready.popleft()
            except IndexError:
                pass
            else:
                if len(self._channel._core.life.acks) >= _FLUSH_AT:
                    with self._connection._lock:
                        self._connection._flush()
                return message  # type: ignore[return-value]  # the core makes this kind
            if deadline is None:
                deadline = time.monotonic() + self._timeout_s
            woken = threading.Lock()
            woken.acquire()
            with self._connection._lock:
                self._connection._flush()
                if ready:
                    continue
                if self._core.is_over:
                    if self._core.error is None:
                        raise StopIteration
                    raise again(self._core.error)
                self._waiters.append(woken)
                self._core.notify = self._wake
            left_s = deadline - time.monotonic()
            if left_s == float("inf"):
                woken.acquire()
            elif not woken.acquire(timeout=max(left_s, 0)):
                with self._connection._lock:
                    if not ready:
                        raise StopIteration

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for woken in waiters:
            woken.release()
