"""A group's log in the shape in which PySyncObj wants its journal.

Owns the translation only: positions to indexes, slices to bounded reads. Everything it is
told lands in the group's log, whose owner decides what is durable; what of it is a configuration
is noted, since that is in force as soon as it is in the log.

How `syncobj.py` 0.3.17 (pinned by hash) uses its journal, and what follows:

- `[0][1]`, `[-1][1]`, `[-1][2]`, `[1][1]`: index and term of single entries, some of it on each
  message. So an integer gives an entry *without its command*; else a follower would read bodies
  from disk to learn its own last index.
- `[d:]` and `[d:d+n]`: entries to send, to apply, or to look for a conflict. SyncObj slices the
  whole rest and cuts it afterwards, so slices are capped here by bytes. All callers cope with
  less than they asked for, except one: an append handler takes "one entry or none after the
  previous one" as "nothing to truncate". So a slice never ends before its second entry.
- `clear` is called for a dump that does not match or an installed snapshot; either would drop
  acknowledged entries (holes H2, H4), and neither happens behind the guard. It ends the process.
- `deleteEntriesTo` is compaction by SyncObj (H3), which is off.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysyncobj.journal import Journal

from leveret.consensus.engine import Log, SnapshotMark
from leveret.consensus.entries import configuration_in
from leveret.consensus.errors import BadSnapshot, SafetyViolation
from leveret.consensus.membership import Configurations

SLICE_BYTES_MAX = 1024 * 1024

CoreEntry = tuple[bytes, int, int]
"""Command, index, term: PySyncObj's order."""


def check_continues(log: Log, snapshot: SnapshotMark | None) -> None:
    """Make sure that the log continues the snapshot, before a core sees either (hole H2).

    A snapshot is saved only once the log is durable up to it and the log is trimmed below it, so
    a log that does not fit has lost acknowledged entries. Such a member must not vote on.

    Raises:
        BadSnapshot: the log begins after the snapshot, ends before it, or differs at its end.
    """
    if snapshot is None:
        if log.last_index and log.first_index > 1:
            raise BadSnapshot(f"the log begins at {log.first_index} and there is no snapshot")
        return
    index = snapshot.index
    if not log.first_index < index <= log.last_index:
        have = f"{log.first_index} to {log.last_index}"
        raise BadSnapshot(f"the log has entries {have}, the snapshot ends at {index}")
    if (log.term_at(index - 1), log.term_at(index)) != (snapshot.previous_term, snapshot.term):
        raise BadSnapshot(f"entry {index} is not the one that the snapshot was taken at")


class CoreJournal(Journal):  # type: ignore[misc]  # the base class is untyped
    """`pysyncobj.journal.Journal` over a `Log` that continues its snapshot."""

    def __init__(
        self, log: Log, snapshot: SnapshotMark | None, configurations: Configurations
    ) -> None:
        self._log = log
        self._configurations = configurations
        # SyncObj wants its dump's last two entries to be the first two of its journal, and clears
        # the journal otherwise. Ours keeps older entries for members that lag behind, so they are
        # hidden until the dump is loaded.
        self._hidden_below = snapshot.index - 1 if snapshot is not None else 0
        # The first and the last entry, which SyncObj looks at dozens of times a message.
        # Each is good as long as it has that index: the log grows and is cut through this object.
        self._ends: dict[int, CoreEntry] = {}

    def reveal(self) -> None:
        """Show the whole log: the core has loaded its dump."""
        self._hidden_below = 0

    def _first(self) -> int:
        return max(self._log.first_index, self._hidden_below)

    def __len__(self) -> int:
        return max(self._log.last_index - self._first() + 1, 0)

    def __getitem__(self, key: int | slice) -> CoreEntry | Sequence[CoreEntry]:
        log = self._log
        if isinstance(key, slice):
            return self._slice(key)
        first, last = self._first(), log.last_index
        index = last + 1 + key if key < 0 else first + key
        found = self._ends.get(key)
        if found is None or found[1] != index:
            if not first <= index <= last:
                raise IndexError(key)
            found = b"", index, log.term_at(index)
            if key in (0, -1):
                self._ends[key] = found
        return found

    def _slice(self, key: slice) -> Sequence[CoreEntry]:
        log, first = self._log, self._first()
        assert key.start >= 0, "a slice that SyncObj does not make"
        start = first + key.start
        stop = log.last_index + 1
        if key.stop is not None:
            stop = min(stop, first + key.stop)
        if start >= stop:
            return []
        entries = log.entries(start, stop, bytes_max=SLICE_BYTES_MAX)
        if len(entries) == 1 and stop - start > 1:
            entries = [*entries, *log.entries(start + 1, start + 2, bytes_max=SLICE_BYTES_MAX)]
        return entries

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._ends.clear()
        self._log.append(command, idx, term)
        configuration = configuration_in(command)
        if configuration is not None:
            self._configurations.add(idx, configuration)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        index = self._first() + entryFrom
        if index <= self._log.commit_index:
            raise SafetyViolation(f"the core wanted to drop committed entry {index}")
        self._ends.clear()
        self._log.truncate_from(index)
        self._configurations.cut_from(index)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        raise SafetyViolation(f"the core wanted to compact its journal up to {entryTo}")

    def clear(self) -> None:
        raise SafetyViolation("the core wanted to clear its journal")

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        if raftCommitIndex > self._log.commit_index:
            self._log.save_commit(raftCommitIndex)

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        # Entry 1 is the same no-op in every log, and what a snapshot covers is committed.
        committed = max(self._log.commit_index, self._hidden_below + 1, 1)
        return min(committed, self._log.last_index)

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803
        self._log.save_vote(term, votedForNodeId)

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._log.term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802
        return self._log.voted_for

    def _destroy(self) -> None:
        """The log outlives its core and is closed by its owner."""


def within(entries: Sequence[CoreEntry], bytes_max: int) -> Sequence[CoreEntry]:
    """Return the first entries up to so many bytes, but at least one if any.

    The core takes whatever a slice of its journal holds, two entries of any size at least.
    """
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry[0])
        if count and size > bytes_max:
            return entries[:count]
    return entries
