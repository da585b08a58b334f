"""The log of one Raft group: its laws, and where its entries lie.

In memory an entry is a row of 24 bytes; its command is in a segment, and for a while in the
journal's cache. Every change is buffered in the journal in the order of the calls and is valid in
memory at once; `durable_index` says how far a power loss leaves it.

Must not know: files, flushes, other groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from leveret.storage.cache import CommandCache
from leveret.storage.errors import LogViolation, NoSuchEntry
from leveret.storage.records import PAYLOAD_BYTES_MAX, Kind, Record
from leveret.storage.table import UNWRITTEN, EntryTable, Row

_TERM_MAX = (1 << 32) - 1


class Sink(Protocol):
    """What a log needs of the journal."""

    cache: CommandCache

    def buffer(self, records: Sequence[Record]) -> None:
        """Take records that are to be written in this order, and all of them or none."""

    def read(self, group: int, row: Row) -> bytes:
        """Return the command of an entry that was written."""


class Saved:
    """What the records *written* so far say of one group; replaying them ends with the same.

    It lags behind the log's own fields by what is buffered. A new segment begins with it, so that
    the older segments are not needed to know it.
    """

    __slots__ = ("commit", "first", "last", "term", "voted_for")

    def __init__(self) -> None:
        self.term = 0
        self.voted_for: int | None = None
        self.commit = 0
        self.first = 1
        self.last = 0

    def apply(self, kind: int, index: int, term: int) -> None:
        """Take in one record of the group."""
        if kind == Kind.ENTRY:
            self.last = index
        elif kind == Kind.COMMIT:
            self.commit = index
        elif kind == Kind.VOTE:
            self.term = term
            self.voted_for = index - 1 if index else None
        elif kind == Kind.TRUNCATE:
            self.last = index - 1
        elif kind in (Kind.TRIM, Kind.RESET):
            self.first = index
            # What a snapshot stands for is committed, though its own record may be lost.
            self.commit = max(self.commit, index - 1)
            if kind == Kind.RESET:
                self.last = index - 1

    def records(self, group: int) -> list[Record]:
        """Return the records that say all of this anew."""
        vote = 0 if self.voted_for is None else self.voted_for + 1
        return [
            Record(Kind.VOTE, group, vote, self.term),
            Record(Kind.TRIM, group, self.first, 0),
            Record(Kind.TRUNCATE, group, self.last + 1, 0),
            Record(Kind.COMMIT, group, self.commit, 0),
        ]


class GroupLog:
    """Entries, vote and commit index of one group on this node.

    first_index, last_index: the log holds exactly these; empty when last is first - 1.
    durable_index: entries up to this one survive a power loss.
    live: set by the machine's owner *after* the machine's state is restored: the indexes of
        entries whose commands are still needed. Those stay readable below `first_index` too.
        An index once left out must never come back. None: everything is needed.
    """

    def __init__(self, number: int, sink: Sink) -> None:
        self.number = number
        self.first_index = 1
        self.last_index = 0
        self.durable_index = 0
        self.term = 0
        self.voted_for: int | None = None
        self.commit_index = 0
        self.live: Callable[[], Iterable[int]] | None = None
        self.saved = Saved()
        self.table = EntryTable()
        # Fetched live entries that do not join the rows yet (see `keep`).
        self.fetched: dict[int, Row] = {}
        self._sink = sink
        # Commands that only the journal's buffer holds, by index.
        self._unwritten: dict[int, Record] = {}
        # Invariant: durable_index <= _written_index <= last_index (or first_index - 1).
        self._written_index = 0

    def restore(self, saved: Saved, table: EntryTable, fetched: dict[int, Row]) -> None:
        """Take over what recovery read; all of it is durable."""
        self.saved = saved
        self.table = table
        self.fetched = fetched
        self.term = saved.term
        self.voted_for = saved.voted_for
        self.commit_index = saved.commit
        self.first_index = saved.first
        self.last_index = self.durable_index = self._written_index = saved.last

    # What consensus does

    def append(self, command: bytes, index: int, term: int) -> None:
        """Add an entry at the end.

        Raises:
            LogViolation: `index` leaves a gap or is taken, or `term` is below the last entry's.
        """
        if index != self.last_index + 1:
            raise self._violation(f"append of {index} behind {self.last_index}")
        self._buffer(self._add(command, index, term))

    def truncate_from(self, index: int) -> None:
        """Forget the entries from `index` on (a new leader's log differs there).

        Raises:
            LogViolation: one of them is committed or was trimmed.
        """
        if index > self.last_index:
            return
        if index <= self.commit_index or index < self.first_index:
            raise self._violation(f"cut at {index}, committed up to {self.commit_index}")
        self._forget_from(index)
        self.last_index = index - 1
        self._buffer(Record(Kind.TRUNCATE, self.number, index, 0))

    def save_vote(self, term: int, voted_for: int | None) -> None:
        """Remember the current term and the vote given in it.

        Raises:
            LogViolation: the term falls, or a vote of this term is changed.
        """
        if (term, voted_for) == (self.term, self.voted_for):
            return
        if term < self.term or (term == self.term and self.voted_for is not None):
            was = (self.term, self.voted_for)
            raise self._violation(f"vote {(term, voted_for)} after {was}")
        self.term, self.voted_for = term, voted_for
        vote = 0 if voted_for is None else voted_for + 1
        self._buffer(Record(Kind.VOTE, self.number, vote, term))

    def save_commit(self, index: int) -> None:
        """Remember that entries up to `index` are committed; lower than before is ignored.

        Lazy: written with the next record of any group, never alone. It may be lost with a crash,
        which costs nothing: the leader tells it again.

        Raises:
            LogViolation: `index` is beyond the log's end.
        """
        if index > self.last_index:
            raise self._violation(f"commit of {index} behind {self.last_index}")
        self.commit_index = max(self.commit_index, index)

    def trim(self, index: int) -> None:
        """Let the log begin at `index`; earlier entries stay readable while they are live.

        Only after a snapshot of entry `index` - 1 or later was saved; they then count as committed.

        Raises:
            LogViolation: the log ends before `index` - 1.
        """
        if index <= self.first_index:
            return
        if index > self.last_index + 1:
            raise self._violation(f"trim to {index} behind {self.last_index}")
        self.first_index = index
        self.commit_index = max(self.commit_index, index - 1)
        self._buffer(Record(Kind.TRIM, self.number, index, 0))

    def reset(self, entries: Sequence[tuple[bytes, int, int]]) -> None:
        """Replace the log by `entries` (command, index, term), after a snapshot was installed.

        Atomic: after a crash all of it happened or none. Committed entries before the new ones
        stay readable while they are live, and so do those that `keep` brought.

        Raises:
            LogViolation: the new log has gaps or ends before the commit index.
        """
        base = entries[0][1] if entries else 1
        if base + len(entries) - 1 < self.commit_index:
            raise self._violation(f"reset to {base}, committed up to {self.commit_index}")
        self._forget_from(min(base, self.commit_index + 1))
        self.table.merge(row for index, row in self.fetched.items() if index < base)
        self.fetched = {}
        for index in [index for index in self._unwritten if index >= base]:
            del self._unwritten[index]
        records = [Record(Kind.RESET, self.number, base, self.commit_index)]
        self.first_index, self.last_index = base, base - 1
        self.commit_index = max(self.commit_index, base - 1)
        self.durable_index = self._written_index = base - 1
        for command, index, term in entries:
            if index != self.last_index + 1:
                raise self._violation(f"reset with {index} behind {self.last_index}")
            records.append(self._add(command, index, term))
        self._buffer(*records)

    def keep(self, command: bytes, index: int, term: int) -> None:
        """Store a live entry that a snapshot names, and that this log may have or not.

        For an install: fetch and `keep` the live entries, then save the snapshot, then `reset`.
        The entry is committed. So if the log has it, uncommitted as far as was known, all of the
        log before it is committed, too; `reset` leaves that readable.

        Raises:
            LogViolation: the log has another entry there.
        """
        if index in self:
            if self.table.find(index) >= 0 and self.term_at(index) != term:
                raise self._violation(f"entry {index} is of term {self.term_at(index)}, not {term}")
            if self.commit_index < index <= self.last_index:
                self.commit_index = index
                self._buffer(Record(Kind.COMMIT, self.number, index, 0))
            return
        record = Record(Kind.KEEP, self.number, index, term, command)
        self._unwritten[index] = record
        self._buffer(record)

    # What readers ask

    def __contains__(self, index: int) -> bool:
        """Whether `command_at(index)` has an answer."""
        return self.table.find(index) >= 0 or index in self._unwritten or index in self.fetched

    def term_at(self, index: int) -> int:
        """Return the term of an entry. Raises NoSuchEntry."""
        position = self.table.find(index)
        if position < 0:
            raise self._missing(index)
        return self.table.terms[position]

    def command_at(self, index: int) -> bytes:
        """Return the command of an entry, from memory or from its segment.

        Raises:
            NoSuchEntry: it is neither in the log nor live.
            CorruptJournal: the disk returned something else than was written.
        """
        unwritten = self._unwritten.get(index)
        if unwritten is not None:
            return unwritten.payload
        position = self.table.find(index)
        row = self.table.row(position) if position >= 0 else self.fetched.get(index)
        if row is None:
            raise self._missing(index)
        cache = self._sink.cache
        command = cache.get(row.segment, row.offset)
        if command is None:
            command = self._sink.read(self.number, row)
            cache.put(row.segment, row.offset, command)
        return command

    def entries(self, start: int, stop: int, *, bytes_max: int) -> list[tuple[bytes, int, int]]:
        """Return (command, index, term) of the entries in [start, stop) as far as the log goes.

        bytes_max: stop when the commands have this many bytes; the first one always comes.

        Raises:
            NoSuchEntry: `start` was trimmed: the reader needs a snapshot.
        """
        if start < self.first_index:
            raise self._missing(start)
        found: list[tuple[bytes, int, int]] = []
        size = 0
        for index in range(start, min(stop, self.last_index + 1)):
            size += self.table.lengths[self.table.find(index)]
            if found and size > bytes_max:
                break
            found.append((self.command_at(index), index, self.term_at(index)))
        return found

    # What the journal and the reclaimer do

    def written(self, record: Record, segment: int, offset: int) -> None:
        """Take note that a buffered record now lies at `offset` of `segment`."""
        kind, _, index, term, payload = record
        self.saved.apply(kind, index, term)
        if kind not in (Kind.ENTRY, Kind.KEEP):
            return
        is_waited_for = self._unwritten.get(index) is record
        if is_waited_for:
            del self._unwritten[index]
            self._sink.cache.put(segment, offset, payload)
        position = self.table.find(index)
        if kind == Kind.ENTRY:
            if is_waited_for:
                self.table.place(position, segment, offset)
                self._written_index = index
        elif position >= 0:
            # Moved by the reclaimer, unless the entry has been replaced since.
            if self.table.terms[position] == term:
                self.table.place(position, segment, offset)
        elif is_waited_for:
            self.fetched[index] = Row(index, term, segment, offset, len(payload))

    def synced(self) -> None:
        """Take note that all that was written is durable."""
        self.durable_index = self._written_index

    def commit_record(self) -> Record | None:
        """Return the record for a commit index that was not written yet.

        To be written behind all that is buffered, of which it may speak.
        """
        if self.commit_index == self.saved.commit:
            return None
        return Record(Kind.COMMIT, self.number, self.commit_index, 0)

    def move(self, index: int) -> int:
        """Have an entry written anew at the journal's end; return the bytes of its command."""
        command = self.command_at(index)
        self._buffer(Record(Kind.KEEP, self.number, index, self.term_at(index), command))
        return len(command)

    def join_fetched(self) -> None:
        """Put fetched entries below the log's start among the rows."""
        joining = [row for index, row in self.fetched.items() if index < self.first_index]
        if joining:
            self.table.merge(joining)
            for row in joining:
                del self.fetched[row.entry]

    def _add(self, command: bytes, index: int, term: int) -> Record:
        """Put an entry behind the last one; return its record."""
        position = len(self.table) - 1
        if self.last_index >= self.first_index and term < self.table.terms[position]:
            raise self._violation(f"term {term} of {index} below {self.table.terms[position]}")
        if term > _TERM_MAX or len(command) > PAYLOAD_BYTES_MAX:
            raise self._violation(f"entry {index} is beyond the format's limits")
        record = Record(Kind.ENTRY, self.number, index, term, command)
        if self.fetched:
            self.fetched.pop(index, None)
        self.table.append(index, term, UNWRITTEN, 0, len(command))
        self._unwritten[index] = record
        self.last_index = index
        return record

    def _forget_from(self, index: int) -> None:
        if self._unwritten:
            for at in [at for at in self._unwritten if at >= index and self.table.find(at) >= 0]:
                del self._unwritten[at]
        self.table.cut_from(index)
        self._written_index = min(self._written_index, index - 1)
        self.durable_index = min(self.durable_index, index - 1)

    def _buffer(self, *records: Record) -> None:
        self._sink.buffer(records)

    def _violation(self, what: str) -> LogViolation:
        return LogViolation(f"group {self.number}: {what}")

    def _missing(self, index: int) -> NoSuchEntry:
        log = f"{self.first_index}..{self.last_index}"
        return NoSuchEntry(f"group {self.number}: no entry {index}, the log is {log}")
