"""Reading the journal at boot.

The newest segment begins with the list of all older ones and their sizes, and names those that
were given up since; so a file that is missing or too short is noticed. The others are replayed in
order. Only the newest may end in a torn write (see `segments`).
"""

from __future__ import annotations

import logging
from bisect import bisect_left

import trio

from leveret.storage.disk import Disk
from leveret.storage.errors import CorruptJournal
from leveret.storage.log import Saved
from leveret.storage.records import Kind, Parsed, read_head
from leveret.storage.segments import SegmentReader, list_segments, segment_name
from leveret.storage.table import EntryTable, Row

log = logging.getLogger(__name__)


class RecoveredGroup:
    """One group's state while its records are replayed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.saved = Saved()
        self.table = EntryTable()
        self.fetched: dict[int, Row] = {}

    def replay(self, found: Parsed, segment: int) -> None:
        """Take in one record."""
        kind, _, index, term, offset, length = found
        saved = self.saved
        if kind == Kind.ENTRY:
            if index != saved.last + 1:
                self._refuse(found, segment, f"entry {index} behind {saved.last}")
            if self.fetched:
                self.fetched.pop(index, None)
            self.table.append(index, term, segment, offset, length)
            saved.last = index
            return
        if kind == Kind.KEEP:
            position = self.table.find(index)
            if position >= 0:
                self.table.merge([Row(index, term, segment, offset, length)])
            else:
                self.fetched[index] = Row(index, term, segment, offset, length)
        elif kind == Kind.TRUNCATE:
            self.table.cut_from(index)
        elif kind == Kind.RESET:
            self.table.cut_from(min(index, term + 1))
            self.fetched = {at: row for at, row in self.fetched.items() if at < index}
        elif kind == Kind.VOTE and term < saved.term:
            self._refuse(found, segment, f"vote of term {term} after {saved.term}")
        saved.apply(kind, index, term)

    def finish(self, name: str, end: int) -> None:
        """Join what was moved, and see that nothing is missing.

        name, end: where the journal ends, for the error.
        """
        saved = self.saved
        self.table.merge(row for index, row in self.fetched.items() if index <= saved.last)
        self.fetched = {at: row for at, row in self.fetched.items() if at > saved.last}
        rows = len(self.table) - bisect_left(self.table.indexes, saved.first)
        if rows != saved.last + 1 - saved.first:
            reason = f"group {self.number}: {rows} of the entries {saved.first} to {saved.last}"
            raise CorruptJournal(name, end, reason)
        if saved.commit > saved.last:
            reason = f"group {self.number}: ends at {saved.last}, committed up to {saved.commit}"
            raise CorruptJournal(name, end, reason)

    def _refuse(self, found: Parsed, segment: int, reason: str) -> None:
        name = segment_name(segment)
        raise CorruptJournal(name, found.offset, f"group {self.number}: {reason}")


class Recovered:
    """What the disk holds.

    sealed: the segments that exist and their sizes.
    last_number: the highest segment number ever used, 0 if none.
    """

    def __init__(self) -> None:
        self.groups: dict[int, RecoveredGroup] = {}
        self.sealed: dict[int, int] = {}
        self.last_number = 0


async def recover(disk: Disk) -> Recovered:
    """Read all segments, cut a torn tail, and leave everything that is returned durable.

    Raises:
        CorruptJournal: something that was durable is damaged or missing.
        SyncFailed: the disk failed.
    """
    recovered = Recovered()
    numbers = list_segments(disk)
    newest = _find_newest(disk, numbers)
    if newest is None:
        return recovered
    number, reader = newest
    recovered.last_number = number
    expected = _older_segments(reader)
    _check_present(expected, numbers)
    for leftover in numbers:
        if leftover < number and leftover not in expected:
            disk.remove(segment_name(leftover))
    for older, size in sorted(expected.items()):
        _replay(recovered, older, SegmentReader(disk, older), size=size)
        await trio.lowlevel.checkpoint()
    _replay(recovered, number, reader, size=None)
    for group in recovered.groups.values():
        group.finish(reader.name, reader.end)
    recovered.sealed = {**expected, number: reader.end}
    await _cut_tail(disk, reader)
    return recovered


def _find_newest(disk: Disk, numbers: list[int]) -> tuple[int, SegmentReader] | None:
    """Return the newest segment that has a flush; remove one that died while it was begun."""
    for number in reversed(numbers):
        reader = SegmentReader(disk, number)
        if next(reader.flushes(), None) is not None:
            return number, reader
        reader.check_tail()
        if number != numbers[-1]:
            # A segment is begun only when the one before has been written and synced.
            raise CorruptJournal(reader.name, 0, "nothing readable in a segment that was sealed")
        disk.remove(reader.name)
    return None


def _older_segments(newest: SegmentReader) -> dict[int, int]:
    """Return the segments before the newest one that must be there, and their sizes."""
    expected: dict[int, int] = {}
    is_first = True
    for records in newest.flushes():
        if is_first:
            if records[0].kind != Kind.HEAD:
                raise CorruptJournal(newest.name, 0, "does not begin with its head")
            expected = read_head(newest.view, records[0])
            is_first = False
        for record in records:
            if record.kind == Kind.DROP:
                expected.pop(record.number, None)
    return expected


def _check_present(expected: dict[int, int], numbers: list[int]) -> None:
    missing = sorted(set(expected) - set(numbers))
    if missing:
        raise CorruptJournal(segment_name(missing[0]), 0, "the file is missing")


def _replay(recovered: Recovered, number: int, reader: SegmentReader, *, size: int | None) -> None:
    groups = recovered.groups
    for records in reader.flushes(size=size):
        for record in records:
            if record.kind in (Kind.HEAD, Kind.DROP):
                continue
            group = groups.get(record.group)
            if group is None:
                group = groups[record.group] = RecoveredGroup(record.group)
            group.replay(record, number)
    if size is None:
        reader.check_tail()
    elif reader.end != size:
        raise CorruptJournal(reader.name, reader.end, f"damaged, but durable up to offset {size}")


async def _cut_tail(disk: Disk, reader: SegmentReader) -> None:
    """Cut off what is torn, and sync: what an ended process had written may not be durable yet.

    Without the sync a power loss now could take back what this process is about to promise. And
    if a failed sync was what ended that process, the system may show data that is not on the disk
    and count it as clean: so what no mark vouches for is written again, over itself.
    """
    size = len(reader.data)
    file = disk.append_file(reader.name)
    try:
        file.truncate(reader.end)
        file.write_again(reader.durable, reader.data[reader.durable : reader.end])
        await file.sync()
    finally:
        file.close()
    if reader.data[reader.end :].strip(b"\0"):
        log.warning(
            "torn tail cut off",
            extra={"file": reader.name, "offset": reader.end, "cut_bytes": size - reader.end},
        )
