"""Back-pressure on one publisher: its socket is not read while the broker has enough of it.

It stops for three reasons: an alarm, too much of this publisher under way, and too much of all
publishers together (see `budget`).  For the last one nobody stops in the middle of a message that
was begun while there was room: its bytes are counted already, and only its end makes them go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leveret.broker.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_FLIGHT_BYTES_MAX: Final = 8 << 20
"""The default of `limits.in_flight_bytes`."""

SILENT_BEATS_MAX: Final = 5
"""Half heartbeat intervals without a sign of life after which a client is given up."""


class Flow:
    """What a connection published and the queues have not taken, and whether to read on."""

    def __init__(
        self, in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX, *, budget: Budget | None = None
    ) -> None:
        """Stop reading above so many bytes under way, and go on at half of it.

        budget: that of all connections; None: one of its own.
        """
        self.in_flight_bytes_max = in_flight_bytes_max
        self.budget = Budget() if budget is None else budget
        self.in_flight_bytes = 0
        self.publishes = False
        """Whether it is a publisher; others are read however much is under way."""
        self._counted_bytes = 0
        """What of the budget is given back here, and not by a run that comes home."""
        self._unfinished: Mapping[int, int] = {}
        """Sizes of the messages that are not whole yet, by growing numbers."""
        self._granted = 0
        """The last of them that was begun while there was room."""
        self._granted_bytes = 0
        """What they are counted as in the budget."""
        self._held_bytes = 0
        self._is_blocked = False
        self._is_waiting = False
        self._silent_beats = 0
        self._go = trio.Event()
        self._go.set()

    def published(self, size_bytes: int) -> None:
        """Count what came in."""
        self._counted_bytes += size_bytes
        self.budget.take(size_bytes)
        self.sent(size_bytes)

    def taken(self, size_bytes: int) -> None:
        """Count what was handled of it."""
        self._counted_bytes -= size_bytes
        self.budget.give(size_bytes)
        self.came_home(size_bytes)

    def sent(self, size_bytes: int) -> None:
        """Count a run that is sent; it counts itself in the budget."""
        self.in_flight_bytes += size_bytes
        if self.in_flight_bytes > self.in_flight_bytes_max and self._go.is_set():
            self._go = trio.Event()

    def came_home(self, size_bytes: int) -> None:
        """Count a run that the queues have."""
        self.in_flight_bytes -= size_bytes
        self._look()

    @property
    def held_bytes(self) -> int:
        """Bytes in transactions. They do not stop the reading: behind them comes the commit."""
        return self._held_bytes

    def held(self, size_bytes: int) -> None:
        """Count what a transaction holds; a negative number is not held any more."""
        self._held_bytes += size_bytes
        self.budget.held_bytes += size_bytes

    def announced(self, unfinished: Mapping[int, int]) -> None:
        """Note the messages that are begun and not whole yet (see `amqp.Connection`)."""
        self._unfinished = unfinished
        if not self.budget.is_spent:
            self._granted = max(unfinished, default=0)
        self._count_unfinished()

    def block(self, *, blocked: bool) -> None:
        """Stop reading from a publisher while an alarm lasts."""
        self._is_blocked = blocked
        if blocked and self._go.is_set():
            self._go = trio.Event()
        self._look()

    async def go(self) -> None:
        """Wait until the socket may be read; a checkpoint only if it may not."""
        while not (self._go.is_set() and self._has_room()):
            self._is_waiting = True
            await self._go.wait()
            if not self._has_room():
                await self.budget.room()
        if self._is_waiting:
            self._is_waiting = False
            self.announced(self._unfinished)

    def close(self) -> None:
        """Give back what no run will: the connection is at its end."""
        self.announced({})
        self.held(-self._held_bytes)
        self.budget.give(self._counted_bytes)
        self._counted_bytes = 0

    def heard(self) -> None:
        """Note that the client sent something."""
        self._silent_beats = 0

    def is_silent(self) -> bool:
        """Say whether the client missed its heartbeats; asked twice an interval.

        While its socket is not read, nothing can be heard of it, and it is given the time.
        """
        is_read = self._go.is_set() and not self._is_waiting
        self._silent_beats = self._silent_beats + 1 if is_read else 0
        return self._silent_beats > SILENT_BEATS_MAX

    def _has_room(self) -> bool:
        if not self.budget.is_spent or self._is_in_the_middle():
            return True
        return not (self.publishes or self._unfinished)

    def _is_in_the_middle(self) -> bool:
        """Whether a message is not whole that was begun while there was room."""
        return bool(self._unfinished) and next(iter(self._unfinished)) <= self._granted

    def _count_unfinished(self) -> None:
        size_bytes = sum(self._unfinished.values()) if self._is_in_the_middle() else 0
        if size_bytes != self._granted_bytes:
            self.budget.give(self._granted_bytes)
            self.budget.take(size_bytes)
            self._granted_bytes = size_bytes

    def _look(self) -> None:
        if not self._is_blocked and self.in_flight_bytes <= self.in_flight_bytes_max // 2:
            self._go.set()
