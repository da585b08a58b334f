"""What the clients of one process count, until the next report takes it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .reports import Interval


class Clock:
    """The wall clock as it was at the start, going on evenly: comparable between processes.

    wall_ns: the wall clock; it is read once, since it may be set meanwhile.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._offset_ns = wall_ns() - self._elapsed_ns()

    @staticmethod
    def _elapsed_ns() -> int:
        return int(trio.current_time() * 1e9)

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._elapsed_ns() + self._offset_ns

    def trio_time(self, at_ns: int) -> float:
        """A time of this clock, on trio's."""
        return (at_ns - self._offset_ns) / 1e9


class Tally:
    """The interval that is going on, in one process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.interval = Interval(1)
        self.began_at_ns = 0
        self.last_consumed_at_ns = 0

    def seconds_of(self, at_ns: int) -> float:
        """A time, in seconds since the beginning of the run."""
        return (at_ns - self.began_at_ns) / 1e9

    def now_s(self) -> float:
        """Seconds since the beginning of the run."""
        return self.seconds_of(self.clock.now_ns())

    def take(self) -> Interval:
        """The interval that has ended; the next one begins."""
        ended = self.interval
        self.interval = Interval(ended.number + 1)
        return ended
