"""Publishing in a window: many messages under way, each one's confirm awaited."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from leveret.client.core.templates import template_of
from leveret.client.errors import TimedOut

if TYPE_CHECKING:
    from types import TracebackType

    from leveret.amqp import Properties
    from leveret.client.core.bodies import Body
    from leveret.client.core.outcome import Outcome
    from leveret.client.core.window import PendingPublish

    from .channel import Channel


class Publisher:
    """Made by `Channel.publisher`. Used by one thread at a time.

    Example:
        >>> with connect(url) as connection, connection.channel() as channel:
        ...     queue = channel.declare_queue(exclusive=True)
        ...     with channel.publisher(queue.name) as publisher:
        ...         for number in range(10):
        ...             publisher.send(b"message %d" % number)
        ...     print(publisher.confirmed)
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
        self._woken = threading.Semaphore(0)
        self._wakes_at = -1
        self._done = self._settled
        self.in_flight = 0
        """Messages whose confirm has not come yet."""
        self.confirmed = 0
        """Messages that the broker has."""
        self.failed: list[tuple[bytes, Exception]] = []
        """Bodies that were not published, each with the reason, in the order of the answers."""
        self._told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.flush()

    def send(
        self,
        body: Body,
        routing_key: str | None = None,
        *,
        properties: Properties | None = None,
    ) -> None:
        """Publish a message as soon as there is room in the window.

        Messages leave together: when the window is full or at `flush`, and at the latest after
        some milliseconds.

        Raises:
            ClientError: an earlier message failed, see `failed`; this one was not sent.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue(exclusive=True)
            ...     with channel.publisher(queue.name) as publisher:
            ...         publisher.send(b"one")
            ...         publisher.send(b"two", properties=Properties(content_type="text/plain"))
        """
        if len(self.failed) > self._told:
            self._raise()
        connection = self._connection
        if connection._core.blocked is not None:
            connection._wait_unblocked()
        if self.in_flight >= self._window:
            self._wait_until(self._window - 1)
        octets = body if type(body) is bytes else bytes(body)
        template = self._template if properties is None else template_of(properties)
        with connection._lock:
            pending = self._channel._core.publish(
                self._exchange,
                self._routing_key if routing_key is None else routing_key,
                template.encode(len(octets)),
                octets,
                mandatory=self._mandatory,
            )
            self.in_flight += 1
            pending.notify = self._done

    def flush(self) -> None:
        """Wait until every message is confirmed.

        Raises:
            ClientError: one of them failed; its notes say how many more. TimedOut: some are not
                confirmed in time.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue(exclusive=True)
            ...     with channel.publisher(queue.name) as publisher:
            ...         publisher.send(b"one")
            ...         publisher.flush()
            ...         print(publisher.in_flight)
            0
        """
        self._wait_until(0)
        if len(self.failed) > self._told:
            self._raise()

    def _wait_until(self, in_flight: int) -> None:
        """Write what there is, and wait until no more than `in_flight` messages are under way."""
        with self._connection._lock:
            self._connection._flush()
            if self.in_flight <= in_flight:
                return
            self._wakes_at = in_flight
        limit_s = self._connection.timeout_s
        if not self._woken.acquire(timeout=None if limit_s == float("inf") else limit_s):
            self._wakes_at = -1
            raise TimedOut(f"{self.in_flight} messages are not confirmed within {limit_s:g} s")

    def _settled(self, pending: Outcome[None]) -> None:
        """The core's word, under the lock, that a message is confirmed, or failed."""
        self.in_flight -= 1
        if pending.error is None:
            self.confirmed += 1
        else:
            publish: PendingPublish = pending  # type: ignore[assignment]  # we gave it to no other
            self.failed.append((publish.body, pending.error))
        if self.in_flight == self._wakes_at:
            self._wakes_at = -1
            self._woken.release()

    def _raise(self) -> None:
        errors = [error for _, error in self.failed[self._told :]]
        self._told = len(self.failed)
        if len(errors) > 1:
            errors[0].add_note(f"and {len(errors) - 1} more of the publisher's messages failed")
        raise errors[0]
