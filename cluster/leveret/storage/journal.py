"""The journal: one stream of records for all groups of a node, made durable in flushes.

`run` is the one writer. A turn takes everything that was buffered, writes it with one call, syncs
once, and tells the listeners once. While a sync runs the next batch gathers by itself, so the
batch size follows the load and nobody waits for a timer.

A full disk shows only where a segment is created (segments are preallocated). Then a smaller one
is tried, and when there is no room even for that, the reserve becomes the next segment: what
consumers settle must be written to make room again, and stands behind what was published before.
Until a reserve is held again the journal is `blocked`. When the reserve is used up too, it keeps
what it has, promises nothing, tries again twice a second, and goes on unaided.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from leveret.storage.cache import CommandCache
from leveret.storage.disk import Disk, ReadFile
from leveret.storage.errors import CorruptJournal, SyncFailed
from leveret.storage.log import GroupLog
from leveret.storage.records import HEADER_BYTES, MARK_BYTES, Kind, Record, head, parse
from leveret.storage.recovery import recover
from leveret.storage.reserve import Reserve, is_full
from leveret.storage.segments import FOLDER, SEGMENT_BYTES_MAX, Tail, segment_name
from leveret.storage.table import Row

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_SEGMENT_BYTES_MIN = 1 << 16  # on a disk that is nearly full; a file takes some room of its own
_VOUCH_AFTER_S = 1.0
_OPEN_FILES_MAX = 64


@dataclass(frozen=True)
class JournalConfig:
    """The journal's limits.

    segment_bytes: size of a segment; larger ones hold more garbage before it can go, smaller ones
        are created (and synced into their folder) more often. An entry that is larger gets a
        segment of its own size.
    flush_bytes_max: a turn takes no more than this, if it is more than one change.
    cache_bytes: commands kept in memory, for all groups together.
    reserve_bytes: room that is held for a full disk. What publishers have under way when they are
        held back must fit, and then what makes room again; 0 for none.
    """

    segment_bytes: int = 64 << 20
    flush_bytes_max: int = 8 << 20
    cache_bytes: int = 64 << 20
    reserve_bytes: int = 0

    def __post_init__(self) -> None:
        if not 1 << 12 <= self.segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes must be 4 KiB to 1 GiB, not {self.segment_bytes}")
        if not 0 <= self.reserve_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"reserve_bytes must be 0 to 1 GiB, not {self.reserve_bytes}")


class Journal:
    """Every group's log, in one sequence of segments.

    appended: records buffered so far, as a running number.
    durable: the records up to this number survive a power loss.
    blocked: the disk is full: publishers are to be held back, so that the rest of the reserve is
        there for what makes room.
    sealed: the older segments and their sizes in bytes.
    """

    def __init__(self, disk: Disk, config: JournalConfig) -> None:
        """Use `open`."""
        self._reserve = Reserve(disk, FOLDER, config.reserve_bytes)
        self.appended = 0
        self.durable = 0
        self.blocked = not self._reserve.is_whole
        self.sealed: dict[int, int] = {}
        self.cache = CommandCache(config.cache_bytes)
        self._disk = disk
        self._config = config
        self._logs: dict[int, GroupLog] = {}
        # Changes in the order of the calls; each is written whole or not at all.
        self._buffered: deque[Sequence[Record]] = deque()
        self._tail: Tail | None = None
        self._last_number = 0
        self._written = 0  # running number of the last record handed to the kernel
        self._failed: SyncFailed | None = None
        self._is_stuck = False  # not even the reserve has room for the next change
        self._has_work = trio.lowlevel.ParkingLot()
        self._has_synced = trio.lowlevel.ParkingLot()
        self._gave_reserve = trio.lowlevel.ParkingLot()
        self._durable_listeners: list[Callable[[], None]] = []
        self._blocked_listeners: list[Callable[[bool], None]] = []
        self._segment_listeners: list[Callable[[], None]] = []
        self._open_files: OrderedDict[int, ReadFile] = OrderedDict()

    @classmethod
    async def open(cls, disk: Disk, config: JournalConfig) -> Journal:
        """Read what `disk` holds; all of it is durable afterwards.

        Raises:
            CorruptJournal: durable data is damaged; see there.
            SyncFailed: the disk failed.
        """
        recovered = await recover(disk)
        journal = cls(disk, config)
        journal.sealed = recovered.sealed
        journal._last_number = recovered.last_number
        for number, group in recovered.groups.items():
            journal.log(number).restore(group.saved, group.table, group.fetched)
        return journal

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written here."""
        return self._last_number == 0 and not self._buffered

    @property
    def logs(self) -> Sequence[GroupLog]:
        """The logs of all groups seen so far."""
        return list(self._logs.values())

    def log(self, group: int) -> GroupLog:
        """Return the log of a group, empty if the group is new."""
        found = self._logs.get(group)
        if found is None:
            found = self._logs[group] = GroupLog(group, self)
        return found

    def on_durable(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the loop after each sync, with all numbers up to date."""
        self._durable_listeners.append(listener)

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with the new value when `blocked` changes."""
        self._blocked_listeners.append(listener)

    def on_segment(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a segment has taken its room; nothing else here takes any."""
        self._segment_listeners.append(listener)

    @property
    def room_bytes(self) -> int:
        """What can be written behind all that is buffered, without the reserve."""
        tail_bytes = 0 if self._tail is None else self._tail.room
        return tail_bytes + self._disk.free_bytes() - sum(map(_size, self._buffered))

    async def wait_durable(self, number: int) -> None:
        """Wait until the records up to `number` (as in `appended`) are durable.

        Raises:
            SyncFailed: they never will be.
        """
        while self.durable < number:
            if self._failed is not None:
                raise self._failed
            await self._has_synced.park()

    async def run(self) -> None:
        """Write and sync for ever. On Cancelled nothing is lost that was promised.

        Raises:
            SyncFailed: end the process. Running again raises it again.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._vouch)
                nursery.start_soon(self._keep_reserve)
                await self._write_and_sync()
        except BaseExceptionGroup:
            if self._failed is not None:
                raise self._failed from None
            raise

    def close(self) -> None:
        """Close all files; what is buffered is dropped."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        for file in self._open_files.values():
            file.close()
        self._open_files.clear()
        self._reserve.close()

    # For the logs

    def buffer(self, records: Sequence[Record]) -> None:
        """Take the records of one change, to be written whole or not at all."""
        self._buffered.append(records)
        self.appended += len(records)
        self._has_work.unpark_all()

    def read(self, group: int, row: Row) -> bytes:
        """Return the command of an entry from its segment.

        Raises:
            CorruptJournal: the segment holds something else there.
        """
        size = HEADER_BYTES + row.length
        data = self._open_file(row.segment).read(row.offset, size)
        found = parse(memoryview(data), 0, row.segment)
        if (
            found is None
            or found.kind not in (Kind.ENTRY, Kind.KEEP)
            or (found.group, found.number, found.term) != (group, row.entry, row.term)
        ):
            reason = f"group {group}: entry {row.entry} is damaged"
            raise CorruptJournal(segment_name(row.segment), row.offset, reason)
        return data[HEADER_BYTES:]

    # For the reclaimer

    async def drop(self, numbers: Sequence[int]) -> None:
        """Give up sealed segments that hold nothing of worth, and remove their files.

        The records that made them worthless were buffered before, so once the DROP is durable
        they are too: after a crash the journal is whole without the files.
        """
        self.buffer([Record(Kind.DROP, 0, number, 0) for number in numbers])
        await self.wait_durable(self.appended)
        for number in numbers:
            file = self._open_files.pop(number, None)
            if file is not None:
                file.close()
            self._disk.remove(segment_name(number))

    # The writer

    async def _write_and_sync(self) -> None:
        while self._failed is None:
            if self._written > self.durable:  # perhaps from a run that was cancelled in its sync
                await self._sync()
            elif self._buffered:
                await self._write()
            else:
                await self._has_work.park()
        raise self._failed

    async def _write(self) -> None:
        """Write one flush into the page cache, or wait a while if there is no room for it."""
        try:
            tail, opening = self._tail_with_room()
            changes, records = self._next_flush(tail, opening)
            offsets = tail.write(records)
        except OSError as error:
            if not is_full(error):
                raise
            if not self._is_stuck:
                self._is_stuck = True
                log.warning("journal has no room left: nothing is stored until the disk has some")
            self._note_blocked()
            await trio.sleep(_RETRY_S)
            return
        self._is_stuck = False
        self._note_blocked()
        for _ in range(changes):
            self._written += len(self._buffered.popleft())
        first = len(opening)
        for record, offset in zip(records[first:], offsets[first:], strict=True):
            if record.kind == Kind.DROP:
                self.sealed.pop(record.number, None)
            else:
                self._logs[record.group].written(record, tail.number, offset)
        if opening:
            for listener in self._segment_listeners:
                listener()

    def _tail_with_room(self) -> tuple[Tail, Sequence[Record]]:
        """Return a tail that takes the next change, and what a new one must begin with.

        Raises:
            OSError: no segment could be created.
        """
        size = _size(self._buffered[0]) + self._commits_bytes()
        tail = self._tail
        if tail is not None and size <= tail.room and tail.durable:
            return tail, ()
        opening = [head(self._sealed_with_tail())]
        for group, found in self._logs.items():
            opening += found.saved.records(group)
        if tail is None or tail.durable:
            tail = self._create_tail(MARK_BYTES + _size(opening) + size)
            if self._tail is not None:
                self._tail.seal()
                self.sealed[self._tail.number] = self._tail.durable
            self._tail = tail
            self._last_number = tail.number
        return tail, opening

    def _create_tail(self, needed_bytes: int) -> Tail:
        """Create the next segment: a smaller one where there is no room for a whole one.

        What consumers settle is written too, and is what makes room again: it must not wait for
        as much room as a whole segment takes.
        """
        number = self._last_number + 1
        capacity = max(self._config.segment_bytes, needed_bytes)
        while True:
            try:
                return Tail.create(self._disk, number, capacity)
            except OSError as error:
                if not is_full(error):
                    raise
                smaller = max(capacity // 4, needed_bytes, _SEGMENT_BYTES_MIN)
                if smaller < capacity:
                    capacity = smaller
                elif self._has_reserve(needed_bytes):
                    file = self._reserve.turn_into(segment_name(number))
                    self._gave_reserve.unpark_all()
                    return Tail(number, file, self._reserve.size_bytes)
                else:
                    raise

    def _has_reserve(self, needed_bytes: int) -> bool:
        return 0 < self._reserve.size_bytes >= needed_bytes and self._reserve.is_whole

    def _sealed_with_tail(self) -> dict[int, int]:
        if self._tail is None or not self._tail.durable:
            return self.sealed
        return {**self.sealed, self._tail.number: self._tail.durable}

    def _next_flush(self, tail: Tail, opening: Sequence[Record]) -> tuple[int, list[Record]]:
        """Return how many changes fit into the next flush, and all its records."""
        records = list(opening)
        room = min(tail.room - _size(opening), self._config.flush_bytes_max)
        size = self._commits_bytes()
        changes = 0
        for change in self._buffered:
            size += _size(change)
            if changes and size > room:
                break
            records += change
            changes += 1
        if changes == len(self._buffered):
            # Only behind everything else: a commit index may speak of an entry still buffered.
            records += filter(None, map(GroupLog.commit_record, self._logs.values()))
        return changes, records

    def _commits_bytes(self) -> int:
        return len(self._logs) * HEADER_BYTES

    async def _sync(self) -> None:
        assert self._tail is not None
        written = self._written
        try:
            await self._tail.sync()
        except SyncFailed as error:
            self._failed = error
            self._has_synced.unpark_all()
            raise
        self.durable = written
        for found in self._logs.values():
            found.synced()
        self._has_synced.unpark_all()
        for listener in self._durable_listeners:
            listener()

    async def _vouch(self) -> None:
        """After a second without writes, write a mark that vouches for the last flush.

        The next flush's mark would do it; without either, rot in the last flush would look like a
        torn write. Not synced: it costs the disk nothing now, and the kernel writes it soon.
        """
        while True:
            await self._has_synced.park()
            seen = -1
            while seen != self.durable:
                seen = self.durable
                await trio.sleep(_VOUCH_AFTER_S)
            tail = self._tail
            idle = self._written == self.durable and not self._buffered
            if idle and tail is not None and not tail.is_vouched and tail.room >= 0:
                tail.write(())

    async def _keep_reserve(self) -> None:
        """Take the reserve back when there is room for it, and for as much again.

        Else it would be given up again at the next segment, and publishers held back and let go
        in turn.
        """
        while True:
            if self._reserve.is_whole:
                await self._gave_reserve.park()
            await trio.sleep(_RETRY_S)
            self._reserve.take(spare_bytes=self._reserve.size_bytes)
            self._note_blocked()

    def _note_blocked(self) -> None:
        """See whether publishers are to be held back, and say so if that is new."""
        blocked = self._is_stuck or not self._reserve.is_whole
        if blocked == self.blocked:
            return
        self.blocked = blocked
        log.warning("journal's disk is full" if blocked else "journal's disk has room again")
        for listener in self._blocked_listeners:
            listener(blocked)

    def _open_file(self, segment: int) -> ReadFile:
        file = self._open_files.get(segment)
        if file is None:
            file = self._open_files[segment] = self._disk.read_file(segment_name(segment))
            # What is kept open to be read again must not use up what a next segment needs.
            while len(self._open_files) > 1 and (
                len(self._open_files) > _OPEN_FILES_MAX or self._disk.is_short_of_files
            ):
                _, oldest = self._open_files.popitem(last=False)
                oldest.close()
        return file


def _size(records: Sequence[Record]) -> int:
    return sum(HEADER_BYTES + len(record.payload) for record in records)
