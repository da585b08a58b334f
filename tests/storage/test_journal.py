"""The writer: flushes, what a full or failing disk does, what is lazy."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from leveret.storage import Journal, JournalConfig, SyncFailed
from tests.storage.support import SMALL, command, new_disk, running, settle


async def test_one_sync_makes_all_groups_durable(autojump_clock: MockClock) -> None:
    async with running(new_disk()) as journal:
        syncs: list[int] = []
        journal.on_durable(lambda: syncs.append(journal.durable))
        for group in range(5):
            journal.log(group).append(b"first", 1, 1)
        await trio.testing.wait_all_tasks_blocked()
        for group in range(5):
            journal.log(group).append(b"second", 2, 1)
        await settle(journal)

        assert [5, 10] == syncs
        assert [2] * 5 == [journal.log(group).durable_index for group in range(5)]


async def test_nothing_is_durable_before_its_sync_returned(autojump_clock: MockClock) -> None:
    async with running(new_disk()) as journal:
        log = journal.log(1)
        log.append(b"entry", 1, 1)
        await trio.testing.wait_all_tasks_blocked()

        assert (1, 0) == (journal.appended, journal.durable)
        assert (1, 0) == (log.last_index, log.durable_index)


async def test_a_failed_sync_ends_the_journal_for_good(autojump_clock: MockClock) -> None:
    disk = new_disk()
    journal = await Journal.open(disk, SMALL)
    disk.faults.failing_syncs = 1
    journal.log(1).append(b"entry", 1, 1)

    for _ in range(2):  # a second sync would succeed, and the data would still be gone
        with pytest.raises(SyncFailed):
            await journal.run()
    with pytest.raises(SyncFailed):
        await settle(journal)
    assert (0, 0) == (journal.durable, journal.log(1).durable_index)


async def test_a_cancelled_run_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    journal = await Journal.open(new_disk(), SMALL)
    journal.log(1).append(b"entry", 1, 1)
    with trio.move_on_after(0.0001):  # shorter than a sync
        await journal.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await settle(journal)
        nursery.cancel_scope.cancel()

    assert 1 == journal.log(1).durable_index


async def test_a_full_disk_blocks_and_goes_on_unaided(autojump_clock: MockClock) -> None:
    disk = new_disk()
    disk.faults.capacity_bytes = SMALL.segment_bytes
    async with running(disk) as journal:
        log = journal.log(1)
        told: list[bool] = []
        journal.on_blocked(told.append)
        for index in range(1, 101):
            log.append(command(index), index, 1)
        await trio.sleep(10)

        assert journal.blocked
        assert 0 < log.durable_index < 100
        assert command(100) == log.command_at(100)

        disk.faults.capacity_bytes = None
        await trio.sleep(0.6)

        assert not journal.blocked
        assert 100 == log.durable_index
        assert [True, False] == told


async def test_a_full_disk_at_boot_blocks_and_does_not_fail(autojump_clock: MockClock) -> None:
    disk = new_disk()
    disk.faults.capacity_bytes = 100
    async with running(disk) as journal:
        journal.log(1).save_vote(3, 1)
        await trio.sleep(1)
        assert journal.blocked
        disk.faults.capacity_bytes = None
        await settle(journal)

    async with running(disk.power_loss()) as journal:
        assert (3, 1) == (journal.log(1).term, journal.log(1).voted_for)


async def test_a_commit_is_never_written_alone_but_with_the_next_record_of_any_group(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        journal.log(1).append(b"entry", 1, 1)
        await settle(journal)
        journal.log(1).save_commit(1)
        await trio.testing.wait_all_tasks_blocked()

    async with running(disk := disk.crash()) as journal:
        assert 0 == journal.log(1).commit_index
        journal.log(1).save_commit(1)
        journal.log(2).append(b"entry", 1, 1)
        await settle(journal)

    async with running(disk.power_loss()) as journal:
        assert 1 == journal.log(1).commit_index


async def test_an_entry_larger_than_a_segment_gets_one_of_its_own(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    large = bytes(5 * SMALL.segment_bytes)
    async with running(disk) as journal:
        log = journal.log(1)
        for index, body in enumerate([b"small", large, b"small again"], start=1):
            log.append(body, index, 1)
        await settle(journal)

    async with running(disk.power_loss()) as journal:
        assert large == journal.log(1).command_at(2)
        assert b"small again" == journal.log(1).command_at(3)


async def test_old_commands_are_read_from_disk_and_recent_ones_from_memory(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        log = journal.log(1)
        for index in range(1, 51):
            log.append(command(index), index, 1)
        await settle(journal)

        assert journal.cache.bytes <= SMALL.cache_bytes
        assert [command(index) for index in range(1, 51)] == [
            log.command_at(index) for index in range(1, 51)
        ]
        assert journal.cache.bytes <= SMALL.cache_bytes


def test_a_segment_size_that_offsets_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="segment_bytes"):
        JournalConfig(segment_bytes=1 << 40)
