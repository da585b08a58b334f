"""When the messages of a stream came: a row for each second in which some did. Pure.

By the stamps of the log's entries, so that all replicas have the same rows.  A column of times a
message would double what a message costs; clients ask by seconds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    ArrivalsWire = Sequence[bytes]

SECOND_MS = 1_000


class Arrivals:
    """See the module; times are in milliseconds since 1970."""

    __slots__ = ("_firsts", "_seconds")

    def __init__(self) -> None:
        self._firsts = array("Q")
        """The first message of each row; it reaches to the next row's."""
        self._seconds = array("Q")
        """Strictly ascending, though a new leader's clock may be behind the last one's."""

    def note(self, first: int, stamp_ms: int) -> None:
        """Note that message `first`, and those after it, came at `stamp_ms`."""
        second = stamp_ms // SECOND_MS
        if not self._seconds or second > self._seconds[-1]:
            self._firsts.append(first)
            self._seconds.append(second)

    def since(self, time_ms: int) -> int | None:
        """Return the first message of the second of `time_ms`, or a later one; None: none came."""
        row = bisect_left(self._seconds, time_ms // SECOND_MS)
        return self._firsts[row] if row < len(self._firsts) else None

    def until(self, time_ms: int) -> int | None:
        """Return the first message that may have come after `time_ms`; None: none did."""
        # Of the row's second, all is over when the next one begins.
        row = bisect_right(self._seconds, time_ms // SECOND_MS - 1)
        return self._firsts[row] if row < len(self._firsts) else None

    def over_ms(self, sequence: int) -> int:
        """Return when the second was over in which the message `sequence` came."""
        row = max(bisect_right(self._firsts, sequence) - 1, 0)
        return (self._seconds[row] + 1) * SECOND_MS

    def forget_before(self, sequence: int) -> None:
        """Drop the rows that have no message from `sequence` on, but for the last one."""
        rows = max(bisect_right(self._firsts, sequence) - 1, 0)
        if rows:
            del self._firsts[:rows], self._seconds[:rows]

    def to_wire(self) -> list[bytes]:
        """Return plain values for a snapshot."""
        return [self._firsts.tobytes(), self._seconds.tobytes()]

    @classmethod
    def from_wire(cls, wire: ArrivalsWire) -> Arrivals:
        """Rebuild what `to_wire` gave."""
        arrivals = cls()
        arrivals._firsts.frombytes(wire[0])
        arrivals._seconds.frombytes(wire[1])
        return arrivals
