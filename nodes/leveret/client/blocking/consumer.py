"""Consuming for people: values to a handler in threads, again if it fails, and a clean end.

What becomes of a failed message is said in `leveret.client.handling`.  The threads of a `run`: so
many that handle messages and settle them; one that holds the failed ones until their next attempt;
and the caller's own, which waits for the end and takes care that it is a clean one.  They talk by
queues alone, so that `stop` may come from anywhere, a signal's handler included.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from queue import Empty, SimpleQueue
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from leveret.client import tracing
from leveret.client.errors import ClientError, NotFound
from leveret.client.handling import (
    ConsumerStatistics,
    Retry,
    Undecodable,
    dead_letter,
    failures_of,
    once_more,
    value_of,
)
from leveret.client.serializers import ALL, Serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .channel import Channel
    from .connection import Connection
    from .deliveries import Deliveries
    from .message import Message

    Handler = Callable[[object, Message], None]

log = logging.getLogger("leveret.client")

T = TypeVar("T")


class Consumer:
    """Has the messages of a queue handled in threads; `run` does it, until `stop`.

    handler: `def handle(value, message)`, called from several threads. When it returns the message
        is acknowledged, when it raises an Exception it is retried; a handler that settles the
        message itself is left to.
    concurrency: handlings at a time, each in a thread. held_max: failed messages that wait at a
        time.
    retry: see `Retry`. dead_letter: the queue for what failed for good; "" rejects it.
    serializers: by the content type of a message; one of an unknown type is given as it is. A
        body that cannot be decoded is given up at once.
    drain_s: seconds that handlings under way have to end after `stop`.
    rng: for tests: the jitter of the delays.

    Example:
        >>> with connect(url) as connection:
        ...     queue = connection.channel().declare_queue("orders.threads")
        ...     with Producer(connection, "orders.threads") as producer:
        ...         producer.send({"order": 7})
        ...     def handle(order, message):
        ...         print(order)
        ...         consumer.stop()
        ...     consumer = Consumer(connection, "orders.threads", handle, concurrency=4)
        ...     consumer.run()
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
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        """Why `run` ends; None for `stop`."""
        self._counting = threading.Lock()
        self._received = self._succeeded = self._failed = self._retried = self._dead = 0
        self._running = self._held = 0

    def run(self) -> None:
        """Handle messages until `stop`, or an exception such as KeyboardInterrupt, then end.

        At the end the consumer is cancelled, what was not begun returns to the queue, and what is
        being handled has `drain_s` to end. A thread cannot be cancelled: what takes longer goes
        on, but its message returns to the queue.

        Raises:
            ClientError: the queue is missing or was deleted, or the connection is closed.
            BaseException: what a handler raised that is no Exception, such as SystemExit.

        Example:
            >>> with connect(url) as connection:
            ...     try:
            ...         Consumer(connection, "nobody-has-this-one", print).run()
            ...     except NotFound as error:
            ...         print(error.reply_code)
            404
        """
        with self._connection.channel() as channel:
            self._prepare(channel)
            held: SimpleQueue[_Held | None] = SimpleQueue()
            prefetch = self._concurrency + self._held_max
            deliveries = channel.consume(self._queue, prefetch=prefetch)
            handlers = [
                _started("handler", self._work, channel, deliveries, held)
                for _ in range(self._concurrency)
            ]
            holder = _started("holder", self._hold, channel, held)
            failure: BaseException | None = None
            try:
                failure = _get(self._ends, float("inf"))
            finally:
                deadline = time.monotonic() + self._drain_s
                deliveries.cancel()
                _join(handlers, deadline)
                held.put(None)
                _join([holder], deadline)
                while not self._ends.empty():
                    self._ends.get()  # of several reasons the first one counts
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Have `run` end, now or as soon as it begins; from any thread, or a signal's handler.

        Example:
            >>> with connect(url) as connection:
            ...     queue = connection.channel().declare_queue("orders.threads")
            ...     consumer = Consumer(connection, "orders.threads", print)
            ...     consumer.stop()
            ...     consumer.run()
        """
        self._ends.put(None)

    def statistics(self) -> ConsumerStatistics:
        """What was handled, and how it went.

        Example:
            >>> with connect(url) as connection:
            ...     print(Consumer(connection, "orders.threads", print).statistics().running)
            0
        """
        with self._counting:
            return ConsumerStatistics(
                received=self._received,
                succeeded=self._succeeded,
                failed=self._failed,
                retried=self._retried,
                dead=self._dead,
                running=self._running,
                held=self._held,
            )

    def _prepare(self, channel: Channel) -> None:
        """Have the queue for dead letters, however it was declared."""
        if self._dead_letter:
            try:
                channel.declare_queue(self._dead_letter, passive=True)
            except NotFound:
                channel.declare_queue(self._dead_letter)

    # The threads that handle

    def _work(
        self, channel: Channel, deliveries: Deliveries, held: SimpleQueue[_Held | None]
    ) -> None:
        """Handle one message after the other, until there are no more."""
        try:
            for message in deliveries:
                with self._counting:
                    self._received += 1
                    self._running += 1
                try:
                    error = self._attempt(message)
                finally:
                    with self._counting:
                        self._running -= 1
                self._settle(channel, message, error, held)
        except BaseException as error:  # noqa: BLE001 - it is raised by `run`
            self._ends.put(error)

    def _attempt(self, message: Message) -> Exception | None:
        """Run the handler; what it raised."""
        try:
            value = value_of(message, self._serializers)
        except Undecodable as error:
            return error
        try:
            with tracing.extracted(message.headers):
                self._handler(value, message)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, it is retried
            return error
        return None

    def _settle(
        self,
        channel: Channel,
        message: Message,
        error: Exception | None,
        held: SimpleQueue[_Held | None],
    ) -> None:
        try:
            if error is None:
                with self._counting:
                    self._succeeded += 1
                if not message.is_settled:
                    message.ack()
                return
            with self._counting:
                self._failed += 1
            failures = failures_of(message) + 1
            log.warning(
                "message not handled",
                extra={"queue": self._queue, "failures": failures, "error": error},
            )
            if message.is_settled:
                return
            if isinstance(error, Undecodable) or failures >= self._retry.attempts:
                self._give_up(channel, message, failures, error)
                return
            with self._counting:
                self._held += 1
                delay_s = self._retry.delay(failures, self._rng)
            held.put(_Held(time.monotonic() + delay_s, next(_order), message, failures))
        except ClientError as failed:
            self._log_unsettled(failed)

    def _give_up(self, channel: Channel, message: Message, failures: int, error: Exception) -> None:
        with self._counting:
            self._dead += 1
        if not self._dead_letter:
            message.reject()
            return
        properties = dead_letter(message, failures, error, self._queue)
        channel.publish(message.body, self._dead_letter, properties=properties, mandatory=True)
        message.ack()

    # The thread that holds what failed

    def _hold(self, channel: Channel, held: SimpleQueue[_Held | None]) -> None:
        """Publish each message once more when it is due; at the end return those that are not."""
        waiting: list[_Held] = []
        while True:
            due_s = waiting[0].at_s - time.monotonic() if waiting else float("inf")
            try:
                arrived = _get(held, due_s)
            except Empty:
                self._release(heapq.heappop(waiting), channel)
                continue
            if arrived is None:
                break
            heapq.heappush(waiting, arrived)
        for one in waiting:
            self._release(one, None)

    def _release(self, held: _Held, channel: Channel | None) -> None:
        """Publish a message once more; without a channel it returns to its queue as it is."""
        message = held.message
        with self._counting:
            self._held -= 1
        try:
            if channel is None:
                message.nack()
                return
            properties = once_more(message, held.failures)
            channel.publish(message.body, self._queue, properties=properties)
            message.ack()
        except ClientError as failed:
            self._log_unsettled(failed)
        else:
            with self._counting:
                self._retried += 1

    def _log_unsettled(self, error: ClientError) -> None:
        # It comes again, to us or to another consumer.
        log.warning("message not settled", extra={"queue": self._queue, "error": str(error)})


class _Held(NamedTuple):
    """A failed message, and when it is due."""

    at_s: float
    order: int
    message: Message
    failures: int


_order = itertools.count()


def _get(source: SimpleQueue[T], timeout_s: float) -> T:
    """Take the next of a queue whose `put` may be called by a signal's handler meanwhile.

    Raises:
        Empty: none came in time.
    """
    return source.get(timeout=None if timeout_s == float("inf") else max(timeout_s, 0))


def _started(role: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(
        target=target, args=arguments, name=f"leveret.client {role}", daemon=True
    )
    thread.start()
    return thread


def _join(threads: Iterable[threading.Thread], deadline_s: float) -> None:
    for thread in threads:
        thread.join(max(deadline_s - time.monotonic(), 0))
