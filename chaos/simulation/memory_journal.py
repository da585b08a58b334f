"""A node's journal in memory, with the promises of the real one and a power switch.

Records are buffered in order and become durable in order, a batch at a time. A crash keeps
everything durable and any prefix of the rest: what a SIGKILL or a power cut leaves of a
write-ahead log whose torn tail is cut off. Deterministic; knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Record = tuple[int, str, int, int, bytes]
"""Group, kind, index, term (or vote), command."""


@dataclass
class MemoryLog:
    """One group's entries; `leveret.consensus.engine.Log`."""

    journal: MemoryJournal
    group: int
    first_index: int = 1
    term: int = 0
    voted_for: int | None = None
    commit_index: int = 0
    held: list[tuple[bytes, int, int]] = field(default_factory=list)
    synced_index: int = 0

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.held) - 1

    @property
    def durable_index(self) -> int:
        return min(self.synced_index, self.last_index)

    def append(self, command: bytes, index: int, term: int) -> None:
        if not self.held:
            self.first_index = index
        assert index == self.last_index + 1, "a gap in the log"
        self.held.append((command, index, term))
        self.journal.write((self.group, "entry", index, term, command))

    def truncate_from(self, index: int) -> None:
        del self.held[index - self.first_index :]
        self.synced_index = min(self.synced_index, index - 1)
        self.journal.write((self.group, "truncate", index, 0, b""))

    def save_vote(self, term: int, voted_for: int | None) -> None:
        self.term, self.voted_for = term, voted_for
        self.journal.write((self.group, "vote", term, voted_for or 0, b""))

    def save_commit(self, index: int) -> None:
        self.commit_index = index
        self.journal.lazy_commits[self.group] = index

    def term_at(self, index: int) -> int:
        assert index >= self.first_index
        return self.held[index - self.first_index][2]

    def command_at(self, index: int) -> bytes:
        assert index >= self.first_index
        return self.held[index - self.first_index][0]

    def entries(self, start: int, stop: int, *, bytes_max: int) -> Sequence[tuple[bytes, int, int]]:
        assert start >= self.first_index
        found: list[tuple[bytes, int, int]] = []
        size = 0
        for entry in self.held[start - self.first_index : stop - self.first_index]:
            size += len(entry[0])
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def trim(self, index: int) -> None:
        if index > self.first_index:
            del self.held[: index - self.first_index]
            self.first_index = index
            self.journal.write((self.group, "trim", index, 0, b""))

    def replay(self, record: Record) -> None:
        """Take one record of the disk, at boot."""
        _, kind, index, term, command = record
        if kind == "entry":
            if not self.held:
                self.first_index = index
            self.held.append((command, index, term))
        elif kind == "truncate":
            del self.held[index - self.first_index :]
        elif kind == "vote":
            self.term, self.voted_for = index, term or None
        elif kind == "commit":
            self.commit_index = index
        elif kind == "trim":
            del self.held[: index - self.first_index]
            self.first_index = index
        self.synced_index = self.last_index


class MemoryJournal:
    """All groups of one node; `leveret.consensus.engine.Durability`.

    disk: the durable records; give them to the next incarnation.
    """

    def __init__(self, disk: list[Record]) -> None:
        self.disk = disk
        self.buffered: list[Record] = []
        self.lazy_commits: dict[int, int] = {}
        self.appended = 0
        self.durable = 0
        self._logs: dict[int, MemoryLog] = {}
        self._syncing: tuple[list[Record], int, dict[int, int]] | None = None
        for record in disk:
            self.log(record[0]).replay(record)

    def log(self, group: int) -> MemoryLog:
        if group not in self._logs:
            self._logs[group] = MemoryLog(self, group)
        return self._logs[group]

    def write(self, record: Record) -> None:
        self.buffered.append(record)
        self.appended += 1

    def begin_sync(self) -> bool:
        """Take what is buffered to the disk; False if one is under way or nothing is there."""
        if self._syncing is not None or not self.buffered:
            return False
        records, self.buffered = self.buffered, []
        records += [(group, "commit", i, 0, b"") for group, i in self.lazy_commits.items()]
        self.lazy_commits.clear()
        marks = {number: log.last_index for number, log in self._logs.items()}
        self._syncing = records, self.appended, marks
        return True

    def end_sync(self) -> None:
        assert self._syncing is not None
        records, appended, marks = self._syncing
        self._syncing = None
        self.disk += records
        self.durable = appended
        later = {(record[0], record[2]) for record in self.buffered if record[1] == "truncate"}
        for number, index in marks.items():
            log = self._logs[number]
            cut = min((i for group, i in later if group == number), default=index + 1)
            log.synced_index = max(log.synced_index, min(index, cut - 1))

    def sync(self) -> None:
        """Make everything durable at once."""
        if self.begin_sync():
            self.end_sync()

    def unsynced(self) -> list[Record]:
        """Return what a crash may or may not keep, oldest first."""
        return [*(self._syncing[0] if self._syncing else ()), *self.buffered]
