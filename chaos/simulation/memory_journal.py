"""A node's journal in memory, with the promises of the real one and a power switch.

The logs are the real ones, and so is the replay at boot; this takes the place of the journal that
writes for them. Changes are buffered in order and become durable in order, a batch at a time. A
crash keeps everything durable and any prefix of the rest: what a SIGKILL or a power cut leaves of
a write-ahead log whose torn tail is cut off. Deterministic; knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from leveret.storage import GroupLog
from leveret.storage.cache import CommandCache
from leveret.storage.records import Parsed, Record
from leveret.storage.recovery import RecoveredGroup
from leveret.storage.table import Row

SEGMENT = 1
"""All records lie in one segment, which is a list: an offset is a position in it."""

Change = Sequence[Record]
"""Records that are written whole or not at all."""


class MemoryJournal:
    """All groups of one node; the sink of their logs, and `leveret.consensus.engine.Durability`.

    disk: the durable changes; give them to the next process.
    """

    def __init__(self, disk: list[Change]) -> None:
        self.disk = disk
        self.cache = CommandCache(1 << 30)
        self.appended = 0
        self.durable = 0
        self._buffered: list[Change] = []
        self._payloads: list[bytes] = []
        self._logs: dict[int, GroupLog] = {}
        self._syncing: tuple[list[Change], int] | None = None
        recovered: dict[int, RecoveredGroup] = {}
        for change in disk:
            for record in change:
                kind, group, number, term, payload = record
                parsed = Parsed(kind, group, number, term, self._place(record), len(payload))
                if group not in recovered:
                    recovered[group] = RecoveredGroup(group)
                recovered[group].replay(parsed, SEGMENT)
        for group, found in recovered.items():
            found.finish("memory", len(self._payloads))
            self.log(group).restore(found.saved, found.table, found.fetched)

    def log(self, group: int) -> GroupLog:
        if group not in self._logs:
            self._logs[group] = GroupLog(group, self)
        return self._logs[group]

    # For the logs.

    def buffer(self, records: Change) -> None:
        self._buffered.append(records)
        self.appended += len(records)

    def read(self, group: int, row: Row) -> bytes:  # the place says it all
        return self._payloads[row.offset]

    def _place(self, record: Record) -> int:
        self._payloads.append(record.payload)
        return len(self._payloads) - 1

    # The disk.

    def begin_sync(self, changes_max: int | None = None) -> bool:
        """Take what is buffered to the disk; False if one is under way or nothing is there.

        changes_max: take so many changes only, as a flush that is full does; a negative number
            leaves so many.
        """
        if self._syncing is not None or not self._buffered:
            return False
        taken = self._buffered[:changes_max]
        del self._buffered[:changes_max]
        if not self._buffered:
            commits = [log.commit_record() for log in self._logs.values()]
            taken += [[record] for record in commits if record is not None]
        for change in taken:
            for record in change:
                self._logs[record.group].written(record, SEGMENT, self._place(record))
        self._syncing = taken, self.appended - sum(map(len, self._buffered))
        return True

    def end_sync(self) -> None:
        assert self._syncing is not None
        (taken, self.durable), self._syncing = self._syncing, None
        self.disk += taken
        for log in self._logs.values():
            log.synced()

    def sync(self) -> None:
        """Make everything durable at once."""
        if self.begin_sync():
            self.end_sync()

    def unsynced(self) -> list[Change]:
        """Return what a crash may or may not keep, oldest first."""
        return [*(self._syncing[0] if self._syncing else ()), *self._buffered]
