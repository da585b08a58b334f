"""The laws of one group's log, and what its readers get."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.storage import GroupLog, Journal, LogViolation, NoSuchEntry
from tests.storage.support import SMALL, command, new_disk, running, settle


async def filled(count: int) -> GroupLog:
    """Return a log with entries 1 to `count` that nobody writes."""
    journal = await Journal.open(new_disk(), SMALL)
    log = journal.log(1)
    for index in range(1, count + 1):
        log.append(command(index), index, 1)
    return log


async def test_an_append_that_leaves_a_gap_is_refused() -> None:
    log = await filled(3)

    with pytest.raises(LogViolation, match="append of 5 behind 3"):
        log.append(b"", 5, 1)
    with pytest.raises(LogViolation):
        log.append(b"", 3, 1)


async def test_a_falling_term_is_refused() -> None:
    log = await filled(1)
    log.append(b"", 2, 4)

    with pytest.raises(LogViolation, match="term 3"):
        log.append(b"", 3, 3)


async def test_a_committed_entry_is_never_cut() -> None:
    log = await filled(5)
    log.save_commit(3)

    log.truncate_from(4)

    assert log.last_index == 3
    with pytest.raises(LogViolation, match="committed up to 3"):
        log.truncate_from(3)


async def test_a_vote_never_goes_back_and_never_changes() -> None:
    log = await filled(0)
    log.save_vote(4, None)
    log.save_vote(4, 2)
    log.save_vote(4, 2)

    for vote in [(3, 2), (4, 1), (4, None)]:
        with pytest.raises(LogViolation):
            log.save_vote(*vote)
    assert (log.term, log.voted_for) == (4, 2)


async def test_a_commit_beyond_the_end_is_refused_and_a_lower_one_ignored() -> None:
    log = await filled(5)
    log.save_commit(4)
    log.save_commit(2)

    assert log.commit_index == 4
    with pytest.raises(LogViolation):
        log.save_commit(6)


async def test_a_reset_below_the_commit_is_refused() -> None:
    log = await filled(5)
    log.save_commit(5)

    with pytest.raises(LogViolation):
        log.reset([(b"", 3, 1), (b"", 4, 1)])


async def test_entries_stop_at_the_byte_limit_but_give_at_least_one() -> None:
    log = await filled(5)

    assert [1] == [index for _, index, _ in log.entries(1, 6, bytes_max=10)]
    assert [2, 3] == [index for _, index, _ in log.entries(2, 6, bytes_max=299)]
    assert [4, 5] == [index for _, index, _ in log.entries(4, 99, bytes_max=9999)]
    assert [] == log.entries(6, 9, bytes_max=10)


async def test_trimmed_entries_are_not_offered_but_stay_readable_while_live() -> None:
    log = await filled(5)

    log.trim(4)

    assert (4, 5) == (log.first_index, log.last_index)
    assert command(2) == log.command_at(2)
    with pytest.raises(NoSuchEntry, match=r"the log is 4\.\.5"):
        log.entries(2, 5, bytes_max=100)


async def test_a_log_trimmed_to_its_end_goes_on_there() -> None:
    log = await filled(5)
    log.trim(6)

    log.append(b"six", 6, 2)

    assert (6, 6) == (log.first_index, log.last_index)
    assert [(b"six", 6, 2)] == log.entries(6, 7, bytes_max=10)


async def test_entries_that_were_cut_during_a_sync_are_not_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(new_disk()) as journal:
        log = journal.log(1)
        log.append(b"one", 1, 1)
        log.append(b"two", 2, 1)
        await trio.testing.wait_all_tasks_blocked()  # the sync is under way
        log.truncate_from(2)
        log.append(b"other", 2, 2)

        seen: list[int] = []
        journal.on_durable(lambda: seen.append(log.durable_index))
        await settle(journal)

        assert [1, 2] == seen


async def test_a_reset_keeps_committed_and_fetched_entries_before_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        log = journal.log(1)
        for index in range(1, 5):
            log.append(command(index), index, 1)
        log.save_commit(3)
        log.keep(command(7, 2), 7, 2)
        log.reset([(b"eight", 8, 2), (b"nine", 9, 2)])
        await settle(journal)

    async with running(disk.power_loss()) as journal:
        log = journal.log(1)

        assert (8, 9, 9) == (log.first_index, log.last_index, log.durable_index)
        assert [b"eight", b"nine"] == [log.command_at(index) for index in (8, 9)]
        assert [command(3), command(7, 2)] == [log.command_at(index) for index in (3, 7)]
        with pytest.raises(NoSuchEntry):  # it was not committed: the new leader's may differ
            log.command_at(4)


async def test_a_row_of_the_table_takes_24_bytes() -> None:
    log = await filled(100)
    table = log.table
    columns = (table.indexes, table.terms, table.segments, table.offsets, table.lengths)

    assert sum(column.itemsize for column in columns) == 24


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 300)),
        st.tuples(st.just("truncate"), st.integers(0, 5)),
        st.tuples(st.just("commit"), st.integers(0, 5)),
        st.tuples(st.just("trim"), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.integers(1, 5)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(changes=CHANGES, seed=st.integers(0, 99))
def test_a_log_is_like_a_list(changes: list[tuple[str, int]], seed: int) -> None:
    async def main() -> None:
        disk = new_disk(seed)
        first, entries, commit, term = 1, list[tuple[bytes, int, int]](), 0, 0
        todo = list(reversed(changes))
        while todo:
            async with running(disk) as journal:
                log = journal.log(3)
                assert (first, first + len(entries) - 1) == (log.first_index, log.last_index)
                commit = log.commit_index  # saved lazily, so it may have gone back
                while todo:
                    what, number = todo.pop()
                    last = first + len(entries) - 1
                    if what == "append":
                        body = random.Random(number).randbytes(number)
                        entries.append((body, last + 1, term))
                        log.append(*entries[-1])
                    elif what == "truncate" and last - number > commit and number < len(entries):
                        term += 1
                        del entries[len(entries) - 1 - number :]
                        log.truncate_from(last - number)
                    elif what == "commit":
                        commit = max(commit, min(last, commit + number))
                        log.save_commit(commit)
                    elif what == "trim" and first + number <= commit:
                        del entries[:number]
                        first += number
                        log.trim(first)
                    elif what == "reset":
                        first = last + number
                        entries = [(b"base", first, term), (b"top", first + 1, term)]
                        log.reset(entries)
                        commit = log.commit_index
                    elif what == "sync":
                        await settle(journal)
                    elif what == "restart":
                        await settle(journal)
                        break
                    stop = first + len(entries)
                    assert entries == log.entries(first, stop, bytes_max=1 << 30)
                    assert [term for _, _, term in entries] == [
                        log.term_at(index) for index in range(first, stop)
                    ]
            disk = disk.power_loss()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
