"""How long a consumer may hold a message before it is returned and the consumer is cancelled.

A message costs nothing here: consumers are looked through when the oldest message that one holds
may be due, and what is handed out after that look cannot be due before the shortest timeout has
passed again.  A new leader counts from when the consumer came back to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .dispatch import Consumer


class ConsumerTimeouts:
    """The timeouts of one queue's consumers, in milliseconds; 0 is none."""

    def __init__(self, queue_ms: int | None) -> None:
        """Go by `queue_ms` for consumers without a timeout of their own; None: by their nodes'."""
        self._queue_ms = queue_ms
        self.next_look_ms: int | None = None
        """When `expired` should be called next; None: there is nothing to wait for."""

    def change(self, queue_ms: int | None, consumers: Iterable[Consumer], now_ms: int) -> None:
        """Go by another timeout of the queue."""
        self._queue_ms = queue_ms
        self.next_look_ms = None
        for consumer in consumers:
            self.came(consumer, now_ms)

    def came(self, consumer: Consumer, now_ms: int) -> None:
        """Note a new consumer."""
        timeout_ms = self._of(consumer)
        if timeout_ms:
            due_ms = now_ms + timeout_ms
            self.next_look_ms = min(self.next_look_ms or due_ms, due_ms)

    def expired(
        self, consumers: Collection[Consumer], now_ms: int
    ) -> list[tuple[Consumer, list[int]]]:
        """Return who holds messages for too long, and which, if it is time to look."""
        if self.next_look_ms is None or now_ms < self.next_look_ms:
            return []
        late: list[tuple[Consumer, list[int]]] = []
        times: list[int] = []
        for consumer in consumers:
            timeout_ms = self._of(consumer)
            if not timeout_ms:
                continue
            times.append(now_ms + timeout_ms)
            sequences = [s for s, since in consumer.held.items() if since + timeout_ms <= now_ms]
            if sequences:
                late.append((consumer, sequences))
            if len(sequences) < len(consumer.held):
                times.append(
                    timeout_ms
                    + min(since for since in consumer.held.values() if since + timeout_ms > now_ms)
                )
        self.next_look_ms = min(times, default=None)
        return late

    def _of(self, consumer: Consumer) -> int:
        if consumer.timeout_ms is not None:
            return consumer.timeout_ms
        return self._queue_ms or consumer.default_timeout_ms
