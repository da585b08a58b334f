"""Boot, replay, snapshots and failure of one engine."""

from __future__ import annotations

from typing import cast

import pytest

from leveret.consensus import BadSnapshot, MachineFailed, Role, SnapshotMark
from leveret.consensus.journal import SLICE_BYTES_MAX, CoreEntry, CoreJournal
from leveret.consensus.membership import Configuration, Configurations
from tests.consensus.harness import Cluster, Member, three


def single() -> Cluster:
    cluster = Cluster(1)
    cluster[1].tick(0.0)
    cluster[1].sync()
    assert Role.LEADER is cluster[1].engine.role
    return cluster


def test_a_member_alone_leads_at_once() -> None:
    cluster = single()

    assert 0.0 == cluster.now_s
    assert cluster[1].engine.is_ready


def test_a_member_alone_commits_nothing_that_is_not_durable() -> None:
    cluster = single()
    cluster.propose(1, b"a")
    cluster.propose(1, b"b")

    assert [] == cluster[1].payloads
    cluster[1].sync()
    cluster[1].sync()
    assert [b"a", b"b"] == cluster[1].payloads


def test_a_restarted_member_replays_what_it_knows_to_be_committed() -> None:
    cluster = single()
    cluster.propose(1, b"a", b"b")
    cluster[1].sync()
    cluster.propose(1, b"c")  # carries the commit index of the others to the disk
    cluster[1].sync()

    again = Member(cluster, 1, disk=cluster[1].journal.disk)

    assert [b"a", b"b"] == again.payloads[:2]


def test_what_was_not_known_to_be_committed_is_committed_by_the_next_term() -> None:
    cluster = single()
    cluster.propose(1, b"a")
    cluster[1].sync()

    again = Member(cluster, 1, disk=cluster[1].journal.disk)
    again.tick(0.0)
    again.sync()

    assert [b"a"] == again.payloads
    assert again.engine.is_ready


def test_a_snapshot_spares_the_replay_and_keeps_the_log() -> None:
    cluster = single()
    cluster.propose(1, *[b"%d" % number for number in range(10)])
    cluster[1].sync()
    cluster.propose(1, b"last")
    cluster[1].sync()
    log = cluster[1].log
    mark = SnapshotMark(7, log.term_at(7), log.term_at(6))

    again = Member(cluster, 1, disk=cluster[1].journal.disk, snapshot=mark)
    again.tick(0.0)
    again.sync()

    assert 8 == again.applied[0][0]
    assert b"last" == again.payloads[-1]
    assert 1 == again.log.first_index
    assert again.engine.is_ready


def test_a_member_with_a_snapshot_serves_one_that_lags_behind_it() -> None:
    cluster = three()
    cluster.isolate(3)
    cluster.propose(1, *[b"%d" % number for number in range(20)])
    cluster.settle(1, 2)
    log = cluster[1].log
    mark = SnapshotMark(15, log.term_at(15), log.term_at(14))
    cluster.isolate(1)
    cluster.members[cluster[1].node] = Member(
        cluster, 1, disk=cluster[1].journal.disk, snapshot=mark
    )

    cluster.connect(1, 3)
    cluster.now_s += 2.0
    cluster.elect(1, 3)

    assert 20 == len(cluster[3].payloads)


@pytest.mark.parametrize(
    "mark",
    [SnapshotMark(50, 1, 1), SnapshotMark(5, 9, 1), SnapshotMark(5, 1, 9), SnapshotMark(1, 0, 0)],
    ids=["log ends before", "other term", "other previous term", "nothing before"],
)
def test_a_log_that_does_not_continue_its_snapshot_is_refused(mark: SnapshotMark) -> None:
    cluster = single()
    cluster.propose(1, *[b"%d" % number for number in range(10)])
    cluster[1].sync()

    with pytest.raises(BadSnapshot):
        Member(cluster, 1, disk=cluster[1].journal.disk, snapshot=mark)


def test_a_trimmed_log_without_its_snapshot_is_refused() -> None:
    cluster = single()
    cluster.propose(1, *[b"%d" % number for number in range(10)])
    cluster[1].sync()
    cluster[1].log.trim(5)
    cluster[1].sync()

    with pytest.raises(BadSnapshot):
        Member(cluster, 1, disk=cluster[1].journal.disk)


def test_a_machine_that_raises_ends_the_process_and_is_not_tried_again() -> None:
    cluster = single()
    tries: list[int] = []

    def fail(member: Member, index: int, payload: bytes) -> None:
        tries.append(index)
        raise ZeroDivisionError

    cluster.apply = fail
    cluster.propose(1, b"a")

    with pytest.raises(MachineFailed) as raised:
        cluster[1].sync()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(MachineFailed):
        cluster[1].engine.advance()
    assert [3] == tries


def test_an_entry_is_applied_under_its_own_index() -> None:
    cluster = three()
    cluster.propose(1, b"a", b"b")
    cluster.settle()

    assert [(3, b"a"), (4, b"b")] == cluster[2].applied


def test_a_slice_of_the_journal_is_bounded_but_reaches_its_second_entry() -> None:
    cluster = single()
    large = bytes(SLICE_BYTES_MAX)
    cluster.propose(1, large, b"small", b"smaller", large, b"end")
    cluster[1].sync()
    journal = CoreJournal(cluster[1].log, None, Configurations(0, Configuration()))

    sizes = [
        [len(command) > 100 for command, _, _ in cast("list[CoreEntry]", journal[start:])]
        for start in range(2, 7)
    ]

    # An append handler takes a slice of one entry for the end of the log.
    assert [[True, False], [False, False], [False, True], [True, False], [False]] == sizes
    assert (b"", 7, 1) == journal[-1]
    assert 7 == len(journal)


def test_a_member_that_lacks_trimmed_entries_is_told_apart_and_harms_nobody() -> None:
    cluster = three()
    cluster.propose(1, *[b"%d" % number for number in range(10)])
    cluster.settle()
    for node in (1, 2):
        cluster[node].log.trim(8)
    cluster.isolate(3)
    cluster.members[cluster[3].node] = Member(cluster, 3)
    cluster[3].sync()
    cluster.connect(1, 2, 3)
    cluster.propose(1, b"on")
    cluster.settle()

    assert [] == cluster[3].payloads
    assert b"on" == cluster[2].payloads[-1]
