"""Where each entry of one log lies, in 24 bytes an entry.

The rows are sorted by index. The newest ones have no gaps (the log itself); before them there may
be older ones with gaps (entries below the trim that are still live). Parallel arrays instead of
objects: a row as a tuple of ints would take about 200 bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

UNWRITTEN = 0  # segment numbers begin at 1


class Row(NamedTuple):
    """Entry number `entry`: where its record begins, and how long its command is."""

    entry: int
    term: int
    segment: int
    offset: int
    length: int


class EntryTable:
    """The rows of one group's entries, ascending by index."""

    __slots__ = ("indexes", "lengths", "offsets", "segments", "terms")

    def __init__(self) -> None:
        self.indexes = array("Q")
        self.terms = array("I")
        self.segments = array("I")
        self.offsets = array("I")
        self.lengths = array("I")

    def __len__(self) -> int:
        return len(self.indexes)

    def row(self, position: int) -> Row:
        """Return the row at `position`."""
        return Row(
            self.indexes[position],
            self.terms[position],
            self.segments[position],
            self.offsets[position],
            self.lengths[position],
        )

    def find(self, index: int) -> int:
        """Return the position of the row of entry `index`, or -1."""
        indexes = self.indexes
        count = len(indexes)
        if not count:
            return -1
        # The log itself has no gaps, so that its rows are found by counting from the end.
        position = count - 1 - (indexes[-1] - index)
        if 0 <= position < count and indexes[position] == index:
            return position
        position = bisect_left(indexes, index)
        if position < count and indexes[position] == index:
            return position
        return -1

    def append(self, entry: int, term: int, segment: int, offset: int, length: int) -> None:
        """Add a row behind all others; its fields as in `Row`, which need not be made for it."""
        assert not self.indexes or self.indexes[-1] < entry
        self.indexes.append(entry)
        self.terms.append(term)
        self.segments.append(segment)
        self.offsets.append(offset)
        self.lengths.append(length)

    def place(self, position: int, segment: int, offset: int) -> None:
        """Say where the entry at `position` is now."""
        self.segments[position] = segment
        self.offsets[position] = offset

    def cut_from(self, index: int) -> None:
        """Forget all rows of entries from `index` on."""
        position = bisect_left(self.indexes, index)
        for column in self._columns():
            del column[position:]

    def select(self, chosen: Sequence[bool]) -> None:
        """Keep the first `len(chosen)` rows only where `chosen` is true, and all others."""
        count = len(chosen)
        for column in self._columns():
            column[:count] = array(column.typecode, compress(column[:count], chosen))

    def merge(self, rows: Iterable[Row]) -> None:
        """Add `rows` where they belong; a row of the same index is replaced."""
        added = {row.entry: row for row in rows}
        for index in list(added):
            position = self.find(index)
            if position >= 0:
                row = added.pop(index)
                self.terms[position] = row.term
                self.lengths[position] = row.length
                self.place(position, row.segment, row.offset)
        if not added:
            return
        whole = sorted([*added.values(), *(self.row(at) for at in range(len(self)))])
        for column in self._columns():
            del column[:]
        for row in whole:
            self.append(*row)

    def _columns(self) -> tuple[array[int], ...]:
        return (self.indexes, self.terms, self.segments, self.offsets, self.lengths)
