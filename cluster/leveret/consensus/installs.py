"""A snapshot on its way from one member to another that lacks what the others have trimmed.

The receiver asks, one request at a time, so that a slow disk or link slows nothing else down and
the sender keeps no state: any member may answer, and again after a break. Two stages: the state
of the newest snapshot, in parts; then the entries that it refers to and that are not here yet.
These are kept in the journal as they come. Only when all of it is durable is the snapshot saved
and the log begun anew behind it, so that a crash at any moment leaves the old log or the new one.

Entries never change once they are committed, and a snapshot covers only such. So entries that
were fetched for an older snapshot, or before a crash, are not fetched again.

The log as it is stays until then. What this member has acknowledged may be committed, though it
was not told so, and others count on it: nothing of it goes before the snapshot that covers it is
durable, but what is seen to differ from what is committed.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from leveret.consensus.engine import Durability, SnapshotMark
from leveret.consensus.manifest import Manifest
from leveret.consensus.messages import (
    FETCH_MAX,
    EntriesPart,
    FetchEntries,
    FetchState,
    Message,
    StatePart,
)
from leveret.storage import NoSuchEntry, Snapshot
from leveret.transport import NodeId

log = logging.getLogger(__name__)

PART_BYTES_MAX = 1024 * 1024
"""Of one answer, unless a single entry is larger: a few milliseconds of one link."""

LEND_S = 30.0
"""How long a snapshot stays in memory, and the log behind it on disk, after a member has asked for
a part of it. So a member that needs longer for it than the next two snapshots take gets there."""

AGAIN_S = 2.0
"""A request without an answer for so long is made again, perhaps to another member."""


class SnapshotStore(Protocol):
    """Where a group's snapshots are kept."""

    def newest(self) -> Snapshot | None:
        """Return the newest one that was saved."""
        ...

    async def save(self, mark: SnapshotMark, state: bytes) -> bool:
        """Save one durably; False when the disk has no room now."""
        ...


class KeepingLog(Protocol):
    """What an install needs of the group's log."""

    first_index: int
    last_index: int
    commit_index: int

    def __contains__(self, index: int) -> bool: ...
    def term_at(self, index: int) -> int: ...
    def keep(self, command: bytes, index: int, term: int) -> None: ...
    def command_at(self, index: int) -> bytes: ...
    def reset(self, entries: Sequence[tuple[bytes, int, int]]) -> None: ...


class Install:
    """The receiver's side, for one snapshot; or for a newer one, if the sender has it meanwhile.

    source: whom to ask; may be changed at any time.
    cut: drops the end of the log from an index on.
    """

    def __init__(
        self,
        log: KeepingLog,
        durability: Durability,
        source: NodeId,
        *,
        cut: Callable[[int], None],
    ) -> None:
        self.source = source
        self._cut = cut
        self._began_at = log.commit_index
        self.mark: SnapshotMark | None = None
        self.manifest: Manifest | None = None
        self.state = b""
        self._log = log
        self._durability = durability
        # The journal's count at which all is durable that was kept, or found here.
        self._kept_at = 0
        self._parts = bytearray()
        self._size = 0
        self._missing: array[int] = array("Q")
        self._at = 0  # how far in `_missing`
        self._asked_s = float("-inf")
        self._is_asked = False

    @property
    def is_complete(self) -> bool:
        """Whether all is here, and durable."""
        return self._is_here and self._is_durable

    @property
    def _is_here(self) -> bool:
        return self.manifest is not None and self._at == len(self._missing)

    @property
    def _is_durable(self) -> bool:
        return self._durability.durable >= self._kept_at

    def fetched(self) -> tuple[SnapshotMark, Manifest]:
        """Return what is complete."""
        assert self.mark is not None
        assert self.manifest is not None
        return self.mark, self.manifest

    def needless_from(self, commit_index: int) -> int | None:
        """Return up to where the log is right without the snapshot; None if it is needed.

        Either appends have brought it further than it was, or it has all that the snapshot covers,
        and was only not told that this is committed.
        """
        if commit_index > self._began_at:
            return commit_index
        mark = self.mark
        if (
            mark is not None
            and self._has(mark.index)
            and self._log.term_at(mark.index) == mark.term
        ):
            return mark.index
        return None

    def _has(self, index: int) -> bool:
        return self._log.first_index <= index <= self._log.last_index

    def _cut_what_differs(self, index: int, term: int) -> None:
        """Where the log has another entry than the committed one, nothing from there on counts."""
        if self._has(index) and self._log.term_at(index) != term:
            self._cut(index)

    def request(self, now_s: float) -> Message | None:
        """Return what to ask for now; None while an answer or the disk is awaited."""
        if (
            self._is_here
            or not self._is_durable
            or (self._is_asked and now_s - self._asked_s < AGAIN_S)
        ):
            return None
        self._asked_s, self._is_asked = now_s, True
        if self.manifest is None:
            return FetchState(self.mark.index if self.mark else 0, len(self._parts))
        assert self.mark is not None
        wanted = self._missing[self._at : self._at + FETCH_MAX]
        return FetchEntries(self.mark.index, tuple(wanted))

    def take(self, part: StatePart | EntriesPart) -> None:
        """Take an answer to a request.

        Raises:
            BadSnapshot: see `take_state`.
        """
        if isinstance(part, StatePart):
            self.take_state(part)
        else:
            self.take_entries(part)

    def take_state(self, part: StatePart) -> None:
        """Take a part of the state; a part of another snapshot begins anew.

        Raises:
            BadSnapshot: the whole state is none.
        """
        mark = SnapshotMark(part.snapshot_index, part.term, part.previous_term)
        if self.manifest is not None:
            return
        if mark != self.mark or part.size != self._size:
            self.mark, self._size = mark, part.size
            self._parts.clear()
        if part.offset != len(self._parts):
            return  # a late answer to a request that was made again
        self._parts += part.part
        self._is_asked = False
        if len(self._parts) == self._size:
            self.state = bytes(self._parts)
            self._parts.clear()
            self.manifest = manifest = Manifest.decode(self.state)
            # The log begins anew with the two last entries that the snapshot covers.
            needed = [*manifest.live, mark.index - 1, mark.index]
            self._missing = array("Q", sorted(filter(self._is_missing, set(needed))))
            self._kept_at = self._durability.appended
            log.info(
                "snapshot received, fetching its entries",
                extra={"index": mark.index, "bytes": self._size, "entries": len(self._missing)},
            )

    def _is_missing(self, index: int) -> bool:
        # What is not known to be committed is fetched all the same, to be compared.
        return index > self._log.commit_index or index not in self._log

    def take_entries(self, part: EntriesPart) -> None:
        """Keep the entries that were asked for, as far as they come in their order."""
        found = {index: (command, term) for index, term, command in part.entries}
        while self._at < len(self._missing):
            index = self._missing[self._at]
            if index in found:
                command, term = found[index]
                self._cut_what_differs(index, term)
                self._log.keep(command, index, term)
                self._kept_at = self._durability.appended
            elif index not in part.gone:
                break
            elif self.mark is not None and index >= self.mark.index - 1:
                self._begin_again()  # the sender has trimmed so far: it has a newer snapshot
                break
            self._at += 1
            self._is_asked = False

    def _begin_again(self) -> None:
        self.mark = self.manifest = None
        self._missing = array("Q")
        self._at = self._size = 0
        self._is_asked = False


def begin_log_anew(group_log: KeepingLog, mark: SnapshotMark) -> None:
    """Have the log begin with the two last entries that a saved snapshot covers, kept before."""
    group_log.reset(
        [
            (group_log.command_at(mark.index - 1), mark.index - 1, mark.previous_term),
            (group_log.command_at(mark.index), mark.index, mark.term),
        ]
    )


def finish_install(group_log: KeepingLog, snapshot: Snapshot) -> None:
    """At boot, end an install that a crash interrupted after its snapshot was saved.

    A snapshot is otherwise never newer than its log, so without the kept entries this does
    nothing, and the log that lost its end is found out by whoever joins the two.
    """
    index = snapshot.index
    if index > group_log.last_index and index in group_log and index - 1 in group_log:
        log.info("interrupted install finished", extra={"group": snapshot.group, "index": index})
        begin_log_anew(group_log, SnapshotMark(index, snapshot.term, snapshot.prev_term))


class LendingLog(Protocol):
    """What the sender's side needs of the group's log."""

    first_index: int

    def command_at(self, index: int) -> bytes: ...
    def term_at(self, index: int) -> int: ...


class Lender:
    """The sender's side: answers what receivers ask for.

    newest: returns the newest snapshot that is saved. It stays in memory while it is asked for.
    """

    def __init__(self, group_log: LendingLog, newest: Callable[[], Snapshot | None]) -> None:
        self._log = group_log
        self._newest = newest
        self._snapshot: Snapshot | None = None
        # The indexes of the snapshots that receivers have begun with, and until when they count.
        self._lent_s: dict[int, float] = {}

    def answer(
        self, request: FetchState | FetchEntries, applied_index: int, now_s: float
    ) -> Message | None:
        """Return the answer to a request; None if this member has none to give.

        applied_index: how far this member's machine is.
        """
        if isinstance(request, FetchState):
            return self._state(request, now_s)
        self.put_off(request, now_s)
        # Behind the snapshot, what is gone here was live then and has been settled by a later
        # entry, which the receiver gets as well. Before it, nobody here could tell.
        return self._entries(request) if applied_index >= request.snapshot_index else None

    def put_off(self, request: FetchState | FetchEntries, now_s: float) -> None:
        """Keep what is asked for, since it will be asked for again."""
        if request.snapshot_index in self._lent_s:
            self._lent_s[request.snapshot_index] = now_s + LEND_S

    @property
    def is_lending(self) -> bool:
        """Whether a snapshot is kept in memory for those who may go on asking."""
        return bool(self._lent_s)

    def spare(self, index: int) -> int:
        """Return where the log may be trimmed in place of `index`: not behind what is lent."""
        return min([index, *(lent - 1 for lent in self._lent_s)])

    def forget(self, now_s: float) -> None:
        """Give memory and log back if nobody has asked for a while."""
        for index in [index for index, until_s in self._lent_s.items() if now_s > until_s]:
            del self._lent_s[index]
        if not self._lent_s:
            self._snapshot = None

    def _state(self, request: FetchState, now_s: float) -> StatePart | None:
        snapshot = self._snapshot
        if (
            request.snapshot_index == 0  # who begins gets the newest
            or snapshot is None
            or snapshot.index <= self._log.first_index  # this log was replaced by a later one
        ):
            snapshot = self._snapshot = self._newest()
        if snapshot is None:
            return None
        self._lent_s[snapshot.index] = now_s + LEND_S
        # Who had begun with another one begins anew.
        offset = request.offset if request.snapshot_index == snapshot.index else 0
        part = snapshot.state[offset : offset + PART_BYTES_MAX]
        mark = snapshot.index, snapshot.term, snapshot.prev_term
        return StatePart(*mark, len(snapshot.state), offset, part)

    def _entries(self, request: FetchEntries) -> EntriesPart:
        entries: list[tuple[int, int, bytes]] = []
        gone: list[int] = []
        size = 0
        for index in request.indexes:
            try:
                command, term = self._log.command_at(index), self._log.term_at(index)
            except NoSuchEntry:
                gone.append(index)
                continue
            size += len(command)
            if entries and size > PART_BYTES_MAX:
                break
            entries.append((index, term, command))
        return EntriesPart(tuple(entries), tuple(gone))
