"""Installs, stage by stage: what a member holds meanwhile, and what a crash leaves."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.simulation.memory_journal import MemoryJournal
from leveret.consensus import Configuration, SnapshotMark
from leveret.consensus.installs import Install, begin_log_anew, finish_install
from leveret.consensus.manifest import Manifest
from leveret.consensus.messages import EntriesPart, FetchEntries, StatePart
from leveret.consensus.sessions import SessionTable
from leveret.storage import GroupLog, Snapshot
from leveret.transport import NodeId

LEADER = NodeId(1)


def command(index: int, term: int) -> bytes:
    return b"%d/%d" % (index, term)


class Receiver:
    """A member with a log, and a leader whose log is `truth`: the term of each entry from 1 on."""

    def __init__(self, terms: Sequence[int], truth: Sequence[int], *, commit: int) -> None:
        self.truth = truth
        self.journal = MemoryJournal([])
        self.log = self.journal.log(0)
        for index, term in enumerate(terms, 1):
            self.log.append(command(index, term), index, term)
        self.log.save_commit(commit)
        self.journal.sync()
        self._others = 0
        self.install = Install(self.log, self.journal, LEADER, cut=self.log.truncate_from)

    def fetch_state(self, mark: SnapshotMark, live: Sequence[int]) -> None:
        members = Configuration({LEADER: 0})
        state = Manifest(1, members, SessionTable(), array("Q", live), b"machine").encode()
        self.install.take_state(
            StatePart(mark.index, mark.term, mark.previous_term, len(state), 0, state)
        )

    def sync(self) -> None:
        """Sync all that is buffered so far, while another group has more already.

        So no flush takes everything, and none has room for what is written with the last only.
        """
        self._others += 1
        self.journal.log(1).append(b"", self._others, 1)
        if self.journal.begin_sync(-1):
            self.journal.end_sync()

    def fetch_entries(self) -> None:
        self.sync()
        while (request := self.install.request(0.0)) is not None:
            assert isinstance(request, FetchEntries)
            entries = [
                (i, self.truth[i - 1], command(i, self.truth[i - 1])) for i in request.indexes
            ]
            self.install.take_entries(EntriesPart(tuple(entries[:3]), ()))
            self.sync()
        assert self.install.is_complete

    def mark(self, index: int) -> SnapshotMark:
        return SnapshotMark(index, self.truth[index - 1], self.truth[index - 2])


def matching(log: GroupLog, truth: Sequence[int]) -> int:
    """Up to which index a log is the leader's."""
    index, stop = log.first_index, min(log.last_index, len(truth))
    while index <= stop and log.term_at(index) == truth[index - 1]:
        index += 1
    return index - 1


def test_a_log_that_has_it_all_and_was_not_told_so_stays() -> None:
    it = Receiver([1] * 100, [1] * 200, commit=40)

    it.fetch_state(it.mark(90), [])

    assert 90 == it.install.needless_from(40)
    assert 100 == it.log.last_index


def test_appends_that_come_meanwhile_end_an_install() -> None:
    it = Receiver([1] * 100, [1] * 200, commit=40)

    assert it.install.needless_from(40) is None
    assert 41 == it.install.needless_from(41)


def test_what_was_acknowledged_stays_until_the_snapshot_takes_its_place() -> None:
    it = Receiver([1] * 100, [1] * 200, commit=40)

    it.fetch_state(it.mark(150), [10, 50, 120])
    it.fetch_entries()
    assert it.install.needless_from(40) is None
    assert 100 == it.log.last_index
    begin_log_anew(it.log, it.mark(150))

    assert (149, 150) == (it.log.first_index, it.log.last_index)
    assert [True] * 3 == [index in it.log for index in (10, 50, 120)]
    assert 99 not in it.log


@pytest.mark.parametrize(("terms", "last"), [([1] * 50 + [2] * 50, 59), ([1] * 100, 100)])
def test_what_differs_from_a_committed_entry_goes_at_once(terms: list[int], last: int) -> None:
    it = Receiver(terms, [1] * 50 + [2] * 9 + [3] * 141 if last < 100 else [1] * 200, commit=40)

    it.fetch_state(it.mark(150), [60])
    it.fetch_entries()

    assert last == it.log.last_index
    assert command(60, it.truth[59]) == it.log.command_at(60)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], int, int, list[int]]:
    """The member's terms, the leader's, the known commit index, the snapshot's, what lives."""
    length = draw(st.integers(4, 40))
    truth = sorted(draw(st.lists(st.integers(1, 4), min_size=length, max_size=length)))
    agreed = draw(st.integers(1, length))
    tail = sorted(draw(st.lists(st.integers(truth[agreed - 1], 6), max_size=10)))
    terms = truth[:agreed] + tail
    if tail and agreed < length and tail[0] == truth[agreed]:
        terms = truth[:agreed]  # two logs with the same entry agree before it, too
    mark = draw(st.integers(max(2, agreed // 2), length))
    commit = draw(st.integers(1, agreed))
    live = draw(st.lists(st.integers(1, mark), unique=True))
    return terms, truth, commit, mark, sorted(live)


@given(cases(), st.randoms(use_true_random=False))
def test_a_crash_at_any_moment_loses_nothing_that_is_committed(
    case: tuple[list[int], list[int], int, int, list[int]], rng: random.Random
) -> None:
    terms, truth, commit, index, live = case
    it = Receiver(terms, truth, commit=commit)
    right = matching(it.log, truth)
    mark = it.mark(index)
    is_saved = False
    if index > commit:
        it.fetch_state(mark, live)
        if it.install.needless_from(commit) is None:
            it.fetch_entries()
            is_saved = rng.random() < 0.8
            if is_saved and rng.random() < 0.7:
                begin_log_anew(it.log, mark)

    lost = it.journal.unsynced()
    again = MemoryJournal([*it.journal.disk, *lost[: rng.randint(0, len(lost))]])
    log = again.log(0)
    if is_saved:
        finish_install(log, Snapshot(0, mark.index, mark.term, mark.previous_term, b""))

    found = matching(log, truth)
    assert found >= right
    if is_saved:
        assert found >= index
        for entry in live:
            assert command(entry, truth[entry - 1]) == log.command_at(entry)
        again.sync()
        assert found <= matching(MemoryJournal(again.disk).log(0), truth)
