"""Giving disk space back.

A sealed segment can go when it holds no entry of a log and no live entry: votes and the like
stand at the head of every newer segment. A segment of which less than a quarter is live has the
rest moved: copied to the journal's end, so that the next call can give it up. Nothing is ever
changed in place, so a crash at any point leaves either the old copy or both.

A copy costs room before it gives any back. So where room is short a segment is emptied only if
all that is live in it fits into half of what is left: the rest is for what is settled.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from leveret.storage.journal import Journal
from leveret.storage.log import GroupLog
from leveret.storage.records import HEADER_BYTES

_MOVE_BELOW = 0.25
_ROWS_A_SLICE = 20_000  # about 3 ms on the loop


@dataclass(frozen=True)
class Reclaimed:
    """What one call did."""

    dropped: tuple[int, ...]
    moved_bytes: int


async def reclaim(journal: Journal, *, bytes_max: int = 16 << 20) -> Reclaimed:
    """Drop the segments that hold nothing of worth, and move live entries out of poor ones.

    To be called by one task, now and then, while `journal.run` runs. Returns when all is durable.

    bytes_max: move about as much as this, at most; what is left is for the next call.

    Raises:
        CorruptJournal: a live entry is damaged.
    """
    # Only what is sealed now: the counts below cannot rise for these while we yield to the loop,
    # because new entries and copies go to the tail.
    candidates = dict(journal.sealed)
    usage = _Usage()
    for log in journal.logs:
        await usage.add(log)
    dropped = tuple(number for number in sorted(candidates) if not usage.bytes.get(number))
    if dropped:
        await journal.drop(dropped)
    moved_bytes = 0
    is_short = journal.room_bytes // 2 < bytes_max
    if is_short:
        bytes_max = journal.room_bytes // 2
    for number in sorted(candidates, key=lambda number: usage.bytes.get(number, 0)):
        used = usage.bytes.get(number, 0)
        is_poor = used < candidates[number] * _MOVE_BELOW
        if is_short and moved_bytes + used > bytes_max:
            break
        if used and is_poor and number not in usage.pinned and moved_bytes < bytes_max:
            moved_bytes += await _move_out(journal, number, bytes_max - moved_bytes)
    await journal.wait_durable(journal.appended)
    return Reclaimed(dropped, moved_bytes)


class _Usage:
    """How much of each segment is still needed.

    bytes: of entries that are in a log or live, by segment.
    pinned: segments with an entry that may not be moved, because it may yet be cut off (or
        because it waits for a reset to find its place).
    """

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self.pinned: set[int] = set()

    async def add(self, log: GroupLog) -> None:
        """Count one group's entries, and forget its rows that are dead."""
        log.join_fetched()
        # First, because a reset meanwhile may put them among rows that were counted already.
        for row in log.fetched.values():
            self.bytes[row.segment] = self.bytes.get(row.segment, 0) + HEADER_BYTES + row.length
            self.pinned.add(row.segment)
        await _forget_dead(log)
        table = log.table
        position = 0
        while position < len(table):
            # Rows appended meanwhile are counted too; none is removed but by us and by a cut or
            # a reset, which take from the end, where the counts may then be too high.
            stop = position + _ROWS_A_SLICE
            for segment, length in zip(
                table.segments[position:stop], table.lengths[position:stop], strict=True
            ):
                self.bytes[segment] = self.bytes.get(segment, 0) + HEADER_BYTES + length
            position = stop
            await trio.lowlevel.checkpoint()
        uncommitted = table.find(log.commit_index + 1)
        if uncommitted >= 0:
            self.pinned.update(table.segments[uncommitted:])


async def _forget_dead(log: GroupLog) -> None:
    if log.live is None:
        return
    live = frozenset(log.live())
    indexes = log.table.indexes
    older = indexes[: bisect_left(indexes, log.first_index)]
    chosen: list[bool] = []
    for start in range(0, len(older), _ROWS_A_SLICE):
        chosen += [index in live for index in older[start : start + _ROWS_A_SLICE]]
        await trio.lowlevel.checkpoint()
    # A reset meanwhile may have put rows between these; then the next call will do.
    if not all(chosen) and indexes[: len(older)] == older:
        log.table.select(chosen)


async def _move_out(journal: Journal, number: int, bytes_max: int) -> int:
    """Copy entries that are in segment `number` to the journal's end; return their bytes."""
    moved_bytes = 0
    for log in journal.logs:
        table = log.table
        for index in [table.indexes[at] for at in _positions(table.segments, number)]:
            if moved_bytes >= bytes_max:
                return moved_bytes
            if index in log:
                moved_bytes += HEADER_BYTES + log.move(index)
            await trio.lowlevel.checkpoint()
    return moved_bytes


def _positions(column: array[int], value: int) -> Iterator[int]:
    """Yield where `value` stands in `column`; at C speed, for columns of a million rows."""
    at = -1
    while True:
        try:
            at = column.index(value, at + 1)
        except ValueError:
            return
        yield at
