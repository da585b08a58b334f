"""Back-pressure on one publisher: its socket is not read while the broker has enough of it."""

from __future__ import annotations

from typing import Final

import trio

IN_FLIGHT_BYTES_MAX: Final = 8 << 20
"""The default of `limits.in_flight_bytes`."""

SILENT_BEATS_MAX: Final = 5
"""Half heartbeat intervals without a sign of life after which a client is given up."""


class Flow:
    """What a connection published and the queues have not taken, and whether to read on."""

    def __init__(self, in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX) -> None:
        """Stop reading above so many bytes under way, and go on at half of it."""
        self.in_flight_bytes_max = in_flight_bytes_max
        self.in_flight_bytes = 0
        self.held_bytes = 0
        """In transactions. They do not stop the reading: behind them comes the commit."""
        self._is_blocked = False
        self._silent_beats = 0
        self._go = trio.Event()
        self._go.set()

    def published(self, size_bytes: int) -> None:
        """Count what came in."""
        self.in_flight_bytes += size_bytes
        if self.in_flight_bytes > self.in_flight_bytes_max and self._go.is_set():
            self._go = trio.Event()

    def taken(self, size_bytes: int) -> None:
        """Count what the queues have."""
        self.in_flight_bytes -= size_bytes
        self._look()

    def block(self, *, blocked: bool) -> None:
        """Stop reading from a publisher while an alarm lasts."""
        self._is_blocked = blocked
        if blocked and self._go.is_set():
            self._go = trio.Event()
        self._look()

    async def go(self) -> None:
        """Wait until the socket may be read; a checkpoint only if it may not."""
        while not self._go.is_set():
            await self._go.wait()

    def heard(self) -> None:
        """Note that the client sent something."""
        self._silent_beats = 0

    def is_silent(self) -> bool:
        """Say whether the client missed its heartbeats; asked twice an interval.

        While its socket is not read, nothing can be heard of it, and it is given the time.
        """
        self._silent_beats = self._silent_beats + 1 if self._go.is_set() else 0
        return self._silent_beats > SILENT_BEATS_MAX

    def _look(self) -> None:
        if not self._is_blocked and self.in_flight_bytes <= self.in_flight_bytes_max // 2:
            self._go.set()
