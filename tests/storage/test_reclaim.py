"""Space comes back, and never that of an entry that somebody needs."""

from __future__ import annotations

import pytest
import trio.testing
from trio.testing import MockClock

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import Journal, NoSuchEntry, reclaim
from tests.storage.support import command, new_disk, running, settle


async def fill(journal: Journal, *, first: int = 1, last: int) -> None:
    log = journal.log(1)
    for index in range(first, last + 1):
        log.append(command(index), index, 1)
    log.save_commit(last)
    await settle(journal)


async def test_a_segment_goes_when_nothing_in_it_is_live_or_untrimmed(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        await fill(journal, last=300)
        log = journal.log(1)
        log.live = list
        before = sorted(journal.sealed)

        assert () == (await reclaim(journal)).dropped

        log.trim(300)
        done = await reclaim(journal)

        assert tuple(before) == done.dropped
        assert len(disk.list("segments")) == 1
        with pytest.raises(NoSuchEntry):
            log.command_at(5)
        assert command(300) == log.command_at(300)


async def test_while_nobody_says_what_is_live_everything_is(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        await fill(journal, last=300)
        journal.log(1).trim(300)

        assert () == (await reclaim(journal)).dropped
        assert command(5) == journal.log(1).command_at(5)


async def test_few_live_entries_are_moved_and_then_their_segments_go(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    live = [5, 100, 101, 280]
    async with running(disk) as journal:
        await fill(journal, last=300)
        log = journal.log(1)
        log.live = lambda: live
        log.trim(300)

        first = await reclaim(journal)
        second = await reclaim(journal)

        assert first.moved_bytes > 0
        assert second.dropped
        assert len(disk.list("segments")) <= 2
        assert [command(index) for index in live] == [log.command_at(index) for index in live]

    async with running(disk.power_loss()) as journal:
        log = journal.log(1)
        log.live = lambda: live
        await reclaim(journal)

        assert [command(index) for index in live] == [log.command_at(index) for index in live]
        assert (300, 300) == (log.first_index, log.last_index)


async def test_a_quiet_group_does_not_hold_its_old_segment(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        quiet = journal.log(0)
        quiet.append(b"the only entry", 1, 1)
        quiet.save_commit(1)
        await fill(journal, last=300)
        journal.log(1).live = list
        journal.log(1).trim(300)

        await reclaim(journal)
        await reclaim(journal)

        assert len(disk.list("segments")) <= 2
        assert [(b"the only entry", 1, 1)] == quiet.entries(1, 2, bytes_max=99)

    async with running(disk.power_loss()) as journal:
        assert [(b"the only entry", 1, 1)] == journal.log(0).entries(1, 2, bytes_max=99)


async def test_an_uncommitted_entry_is_not_moved(autojump_clock: MockClock) -> None:
    async with running(new_disk()) as journal:
        journal.log(0).append(b"may yet be cut off", 1, 1)
        await fill(journal, last=300)
        journal.log(1).live = list
        journal.log(1).trim(300)

        await reclaim(journal)
        await reclaim(journal)

        assert 1 in journal.sealed


async def test_one_call_moves_a_bounded_amount(autojump_clock: MockClock) -> None:
    async with running(new_disk()) as journal:
        await fill(journal, last=600)
        log = journal.log(1)
        log.live = lambda: range(10, 600, 10)
        log.trim(600)

        moved = [(await reclaim(journal, bytes_max=500)).moved_bytes for _ in range(3)]

        assert all(500 <= size < 700 for size in moved)


async def test_votes_and_commits_of_all_groups_outlive_the_segments_they_were_written_in(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        journal.log(7).save_vote(9, 2)
        journal.log(8).append(b"entry", 1, 3)
        journal.log(8).save_commit(1)
        journal.log(8).trim(2)
        journal.log(8).live = list
        await fill(journal, last=300)
        journal.log(1).live = list
        journal.log(1).trim(300)
        assert 1 in (await reclaim(journal)).dropped

    async with running(disk.power_loss()) as journal:
        assert (9, 2) == (journal.log(7).term, journal.log(7).voted_for)
        assert (2, 1, 1) == (
            journal.log(8).first_index,
            journal.log(8).last_index,
            journal.log(8).commit_index,
        )


async def test_a_removed_file_that_comes_back_is_removed_again(autojump_clock: MockClock) -> None:
    for seed in range(10):
        disk: SimulatedDisk = new_disk(seed)
        async with running(disk) as journal:
            await fill(journal, last=300)
            journal.log(1).live = list
            journal.log(1).trim(300)
            await reclaim(journal)
        disk = disk.power_loss()  # the removal was not synced
        came_back = len(disk.list("segments"))
        async with running(disk) as journal:
            assert (300, 300) == (journal.log(1).first_index, journal.log(1).last_index)
            assert len(disk.list("segments")) == 1
        if came_back > 1:
            return
    pytest.fail("no removed file ever came back: the test proves nothing")


async def test_entries_appended_while_it_runs_are_safe(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        await fill(journal, last=300)
        log = journal.log(1)
        log.live = list
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reclaim, journal)
            log.trim(250)
            await fill(journal, first=301, last=600)

        assert [command(index) for index in range(250, 601)] == [
            log.command_at(index) for index in range(250, 601)
        ]
