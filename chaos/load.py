"""A publisher and a consumer on pika, each a thread, for a broker that may die at any moment.

A foreign client on purpose: what it believes to be confirmed is what a user would.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import pika
from pika.channel import Channel

BODY_BYTES = 1024
WITHIN_S = 30.0
"""How long what is waited for may take; some seconds on a machine that has nothing else to do."""
_DIGITS = 12


class LoadEnded(Exception):
    """The connection is gone, or what was waited for did not come; says why."""


def body_of(number: int) -> bytes:
    """Return the body of message `number`: 1 KiB that begins with it."""
    return (b"%0*d" % (_DIGITS, number)).ljust(BODY_BYTES, b".")


def number_of(body: bytes) -> int:
    """Return the number in a body.

    Raises:
        ValueError: the body is not one of ours, or damaged.
    """
    number = int(body[:_DIGITS])
    if body != body_of(number):
        raise ValueError(f"a damaged body: {body[:40]!r} of {len(body)} bytes")
    return number


class PikaClient:
    """One pika connection in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.ended: str | None = None
        """Why the connection is over; None while it is not."""
        self._changed = threading.Condition()
        self._channel: Channel | None = None
        self._stopping = False
        self._connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=lambda _, error: self._end(f"cannot connect: {error!r}"),
            on_close_callback=lambda _, error: self._end(repr(error)),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Connect and begin."""
        self._thread.start()

    def wait(self, what: str, is_so: Callable[[], bool], *, within_s: float) -> None:
        """Wait until `is_so`, which is asked whenever something changed.

        Raises:
            LoadEnded: the connection is over, or the time is up.
        """
        with self._changed:
            self._changed.wait_for(lambda: is_so() or self.ended is not None, within_s)
            if not is_so():
                raise LoadEnded(f"no {what}: {self.ended or f'not within {within_s} s'}; {self}")

    def wait_ended(self, *, within_s: float = WITHIN_S) -> str:
        """Wait until the connection is over, and return why."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended is not None, within_s):
                raise LoadEnded(f"the connection is still open; {self}")
        self._thread.join(within_s)
        assert self.ended is not None
        return self.ended

    def close(self) -> None:
        """Close the connection in the protocol's words, and wait for its end."""
        if self.ended is None:
            self._connection.ioloop.add_callback_threadsafe(self._close)
        self.wait_ended()

    def abandon(self) -> None:
        """Hang up without a word; the last one of a blocked publisher would not be read."""
        if self.ended is None and self._thread.is_alive():
            self._connection.ioloop.add_callback_threadsafe(self._hang_up)
            self.wait_ended()

    def _hang_up(self) -> None:
        self._connection._terminate_stream(pika.exceptions.StreamLostError("abandoned"))  # noqa: SLF001

    def _close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _run(self) -> None:
        try:
            self._connection.ioloop.start()
        except Exception as error:  # noqa: BLE001 - whatever ends the thread is told to who waits
            self._end(repr(error))
        self._connection.ioloop.close()

    def _opened(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        self._begin(channel)

    def _channel_closed(self, _: Channel, error: Exception) -> None:
        # By us: it is the first step of closing the connection, whose end is yet to come.
        if not isinstance(error, pika.exceptions.ChannelClosedByClient):
            self._end(repr(error))

    def _begin(self, channel: Channel) -> None:
        raise NotImplementedError

    def _end(self, reason: str) -> None:
        with self._changed:
            self.ended = self.ended or reason
            self._changed.notify_all()
        # Not at once: pika closes its socket in a callback behind this one.
        self._connection.ioloop.call_later(0, self._connection.ioloop.stop)


class Publisher(PikaClient):
    """Publishes numbered persistent messages, with a window of unconfirmed ones."""

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        first: int = 0,
        count: int | None = None,
        window: int = 200,
    ) -> None:
        """Take what to publish; `start` begins.

        first: number of the first message.
        count: stop after so many; None: go on until `finish`.
        """
        super().__init__(url)
        self.next = first
        """The first number that was not published."""
        self.confirmed: list[int] = []
        self.nacked: list[int] = []
        self.gap_s = 0.0
        """The longest time without a confirm while one was owed."""
        self.is_blocked = False
        self.blocked_count = 0
        self._queue = queue
        self._stop_at = None if count is None else first + count
        self._window = window
        self._outstanding: OrderedDict[int, int] = OrderedDict()
        self._tag = 0
        self._heard_s = 0.0
        self._connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))

    def __str__(self) -> str:
        """Say how far it is."""
        return (
            f"{self.next} published, {len(self.confirmed)} confirmed, {len(self.nacked)} refused,"
            f" {len(self._outstanding)} outstanding, blocked: {self.is_blocked}"
        )

    def wait_confirmed(self, count: int, *, within_s: float = WITHIN_S) -> None:
        """Wait until so many messages are confirmed. Raises LoadEnded."""
        self.wait(f"{count} confirms", lambda: len(self.confirmed) >= count, within_s=within_s)

    def finish(self, *, within_s: float = WITHIN_S) -> None:
        """Publish no more, wait until all is confirmed, and close. Raises LoadEnded."""
        self._stopping = True
        self.wait("last confirm", self._is_done, within_s=within_s)
        self.close()

    def wait_all(self, *, within_s: float) -> None:
        """Wait until all `count` messages are published and confirmed. Raises LoadEnded."""
        self.wait("last confirm", self._is_done, within_s=within_s)

    def _is_done(self) -> bool:
        is_all = self._stopping or self.next == self._stop_at
        return is_all and not self._outstanding and not self.nacked

    def _begin(self, channel: Channel) -> None:
        channel.confirm_delivery(self._answered, callback=lambda _: self._fill())

    def _fill(self) -> None:
        channel = self._channel
        assert channel is not None
        if not self._outstanding:
            self._heard_s = time.monotonic()
        while (
            len(self._outstanding) < self._window
            and not self._stopping
            and self.next != self._stop_at
            and channel.is_open
        ):
            self._tag += 1
            self._outstanding[self._tag] = self.next
            self.next += 1
            channel.basic_publish(
                "",
                self._queue,
                body_of(self._outstanding[self._tag]),
                pika.BasicProperties(delivery_mode=2),
            )

    def _answered(self, frame: pika.frame.Method) -> None:
        answer = frame.method
        with self._changed:
            now_s = time.monotonic()
            self.gap_s = max(self.gap_s, now_s - self._heard_s)
            self._heard_s = now_s
            into = self.confirmed if isinstance(answer, pika.spec.Basic.Ack) else self.nacked
            if answer.multiple:
                while self._outstanding and next(iter(self._outstanding)) <= answer.delivery_tag:
                    into.append(self._outstanding.popitem(last=False)[1])
            else:
                into.append(self._outstanding.pop(answer.delivery_tag))
            self._changed.notify_all()
        self._fill()

    def _set_blocked(self, is_blocked: bool) -> None:  # noqa: FBT001 - a callback's one value
        with self._changed:
            self.is_blocked = is_blocked
            self.blocked_count += is_blocked
            self._changed.notify_all()


class Consumer(PikaClient):
    """Takes and acknowledges what comes, and keeps the numbers."""

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        prefetch: int = 100,
        acknowledges: bool = True,
    ) -> None:
        """Take where from; `start` begins.

        acknowledges: False holds on to everything it gets.
        """
        super().__init__(url)
        self.deliveries: list[tuple[int, bool]] = []
        self.distinct: set[int] = set()
        self._queue = queue
        self._prefetch = prefetch
        self._acknowledges = acknowledges
        self._consumes = False

    def __str__(self) -> str:
        """Say how far it is."""
        return f"{len(self.deliveries)} deliveries, {len(self.distinct)} different"

    def wait_consuming(self, *, within_s: float = WITHIN_S) -> None:
        """Wait for consume-ok. Raises LoadEnded."""
        self.wait("consume-ok", lambda: self._consumes, within_s=within_s)

    def wait_distinct(self, count: int, *, within_s: float = WITHIN_S) -> None:
        """Wait until so many different messages came. Raises LoadEnded."""
        self.wait(f"{count} messages", lambda: len(self.distinct) >= count, within_s=within_s)

    def _begin(self, channel: Channel) -> None:
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(self._queue, self._delivered, callback=self._consuming)

    def _consuming(self, _: pika.frame.Method) -> None:
        with self._changed:
            self._consumes = True
            self._changed.notify_all()

    def _delivered(
        self,
        channel: Channel,
        deliver: pika.spec.Basic.Deliver,
        _: pika.BasicProperties,
        body: bytes,
    ) -> None:
        number = number_of(body)
        if self._acknowledges:
            channel.basic_ack(deliver.delivery_tag)
        with self._changed:
            self.deliveries.append((number, bool(deliver.redelivered)))
            self.distinct.add(number)
            self._changed.notify_all()
