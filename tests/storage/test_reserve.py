"""A disk with no room at all: what is settled is still written, and gives the room back."""

from __future__ import annotations

import errno
import random
from dataclasses import replace

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import AppendFile, Journal, Snapshots, reclaim
from tests.storage.support import SMALL, command, new_disk, running, settle

RESERVE_BYTES = 1 << 14
CONFIG = replace(SMALL, reserve_bytes=RESERVE_BYTES)
DISK_BYTES = 10 * SMALL.segment_bytes


def disk_of(size_bytes: int, seed: int = 0) -> SimulatedDisk:
    disk = new_disk(seed)
    disk.faults.capacity_bytes = size_bytes
    return disk


class ScarceDisk(SimulatedDisk):
    """A disk of a process that has descriptors for nothing but segments."""

    is_scarce = True

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        if self.is_scarce and name.endswith("reserve"):
            raise OSError(errno.EMFILE, "Too many open files", name)
        return super().append_file(name, preallocate_bytes=preallocate_bytes)


async def fill(journal: Journal) -> None:
    """Append to the log of group 1, until publishers are held back."""
    log = journal.log(1)
    with trio.fail_after(10):
        while not journal.blocked:
            log.append(command(log.last_index + 1), log.last_index + 1, 1)
            await settle(journal)
    log.save_commit(log.last_index)


async def give_all_back(journal: Journal, snapshots: Snapshots) -> None:
    """Settle all that is in the log of group 1, as consumers and the node do."""
    log = journal.log(1)
    log.append(b"settled", log.last_index + 1, 1)
    log.save_commit(log.last_index)
    await settle(journal)
    log.live = list
    await snapshots.save(1, log.last_index, 1, 1, b"state")
    log.trim(log.last_index)
    await reclaim(journal)


async def test_a_full_disk_takes_what_is_settled_and_goes_on(autojump_clock: MockClock) -> None:
    disk = disk_of(DISK_BYTES)
    snapshots = Snapshots(disk, reserve_bytes=1000)
    async with running(disk, CONFIG) as journal:
        told: list[bool] = []
        journal.on_blocked(told.append)
        for _ in range(3):
            await fill(journal)
            with trio.fail_after(10):
                await give_all_back(journal, snapshots)
            await trio.sleep(1)

            assert not journal.blocked
            assert disk.holds("segments/reserve")
        assert [True, False] * 3 == told
        count = journal.log(1).last_index
        await settle(journal)

    async with running(disk.power_loss(), CONFIG) as journal:
        assert count == journal.log(1).last_index


async def test_what_somebody_else_filled_to_the_last_byte_takes_what_is_settled(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(1 << 20)
    snapshots = Snapshots(disk, reserve_bytes=1000)
    async with running(disk, CONFIG) as journal:
        log = journal.log(1)
        for index in range(1, 301):
            log.append(command(index), index, 1)
            await settle(journal)
        log.save_commit(300)
        before = disk.used_bytes()
        disk.faults.capacity_bytes = before
        await fill(journal)
        with trio.fail_after(10):
            await give_all_back(journal, snapshots)
        await trio.sleep(1)

        assert not journal.blocked
        assert disk.used_bytes() < before


async def test_the_reserve_is_not_taken_back_before_there_is_room_for_more(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(DISK_BYTES)
    async with running(disk, CONFIG) as journal:
        await fill(journal)
        for spare in (RESERVE_BYTES, 2 * RESERVE_BYTES - 1):
            disk.faults.capacity_bytes = disk.used_bytes() + spare
            await trio.sleep(1)
            assert journal.blocked

        disk.faults.capacity_bytes = disk.used_bytes() + 2 * RESERVE_BYTES
        await trio.sleep(1)

        assert not journal.blocked
        assert RESERVE_BYTES == disk.free_bytes()


async def test_a_change_larger_than_the_reserve_waits_and_goes_on_unaided(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(SMALL.segment_bytes + RESERVE_BYTES)
    async with running(disk, CONFIG) as journal:
        log = journal.log(1)
        log.append(b"small", 1, 1)
        await settle(journal)
        log.append(bytes(RESERVE_BYTES), 2, 1)
        await trio.sleep(10)

        assert journal.blocked
        assert 1 == log.durable_index
        assert disk.holds("segments/reserve")

        disk.faults.capacity_bytes = None
        await trio.sleep(1)

        assert not journal.blocked
        assert 2 == log.durable_index


async def test_what_does_not_fit_into_the_reserve_any_more_waits(autojump_clock: MockClock) -> None:
    disk = disk_of(SMALL.segment_bytes + RESERVE_BYTES)
    async with running(disk, CONFIG) as journal:
        log = journal.log(1)
        for index in range(1, 401):
            log.append(command(index), index, 1)
        await trio.sleep(10)

        assert journal.blocked
        assert 0 < log.durable_index < 400

        disk.faults.capacity_bytes = None
        await trio.sleep(1)

        assert not journal.blocked
        assert 400 == log.durable_index


async def test_a_node_starts_without_a_reserve_and_takes_one_when_there_is_room(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(RESERVE_BYTES - 1)
    async with running(disk, CONFIG) as journal:
        assert journal.blocked
        journal.log(1).append(b"stored all the same", 1, 1)
        await settle(journal)
        assert journal.blocked

        disk.faults.capacity_bytes = None
        await trio.sleep(1)

        assert not journal.blocked


@pytest.mark.parametrize("ends", ["crash", "power_loss"])
async def test_no_end_of_a_process_loses_what_was_written_into_the_reserve(
    ends: str, autojump_clock: MockClock
) -> None:
    for seed in range(5):
        disk = disk_of(DISK_BYTES, seed)
        async with running(disk, CONFIG) as journal:
            await fill(journal)
            count = journal.log(1).last_index
        disk = getattr(disk, ends)()
        disk.faults.capacity_bytes = None
        async with running(disk, CONFIG) as journal:
            assert not journal.blocked
            assert count == journal.log(1).last_index
            assert command(count) == journal.log(1).command_at(count)


async def test_the_reserve_of_an_earlier_process_serves_the_next_on_a_full_disk(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(1 << 20)
    async with running(disk, CONFIG) as journal:
        journal.log(1).append(b"entry", 1, 1)
        await settle(journal)
    disk = disk.crash()
    disk.faults.capacity_bytes = disk.used_bytes()

    async with running(disk, CONFIG) as journal:
        assert not journal.blocked
        assert RESERVE_BYTES == disk.read_file("segments/reserve").read(0, 1 << 20).count(0)


async def test_what_is_live_is_not_moved_where_the_copies_would_use_up_the_room(
    autojump_clock: MockClock,
) -> None:
    disk = disk_of(DISK_BYTES)
    async with running(disk, CONFIG) as journal:
        await fill(journal)
        log = journal.log(1)
        sealed = dict(journal.sealed)
        log.live = lambda: range(5, log.last_index, 5)
        log.trim(log.last_index)
        await settle(journal)
        room = journal.room_bytes

        done = await reclaim(journal)

        assert 0 < done.moved_bytes <= room // 2
        assert sealed.keys() & set((await reclaim(journal)).dropped)
        assert all(command(index) == log.command_at(index) for index in log.live())


async def test_a_reserve_that_cannot_be_opened_is_taken_later(autojump_clock: MockClock) -> None:
    disk = ScarceDisk(random.Random(0))
    async with running(disk, CONFIG) as journal:
        journal.log(1).append(b"stored all the same", 1, 1)
        await settle(journal)
        assert journal.blocked

        disk.is_scarce = False
        await trio.sleep(1)

        assert not journal.blocked


async def test_listeners_hear_of_each_segment(autojump_clock: MockClock) -> None:
    async with running(new_disk()) as journal:
        heard: list[int] = []
        journal.on_segment(lambda: heard.append(len(journal.sealed) + 1))
        for index in range(1, 201):
            journal.log(1).append(command(index), index, 1)
            await settle(journal)

    assert list(range(1, len(journal.sealed) + 2)) == heard


async def test_a_snapshot_is_saved_on_a_full_disk(autojump_clock: MockClock) -> None:
    disk = new_disk()
    snapshots = Snapshots(disk, reserve_bytes=1000)
    await snapshots.save(1, 10, 1, 1, bytes(500))
    disk.faults.capacity_bytes = disk.used_bytes()
    for index in range(11, 20):
        await snapshots.save(1, index, 1, 1, bytes(500))

    found = snapshots.newest(1, log_first_index=1)
    assert found is not None
    assert 19 == found.index
    assert disk.holds("snapshots/reserve")


async def test_a_snapshot_larger_than_the_reserve_leaves_the_older_one_and_the_reserve(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    snapshots = Snapshots(disk, reserve_bytes=1000)
    await snapshots.save(1, 10, 1, 1, bytes(500))
    disk.faults.capacity_bytes = disk.used_bytes()
    with pytest.raises(OSError) as refused:  # noqa: PT011 - which one is asked below
        await snapshots.save(1, 11, 1, 1, bytes(1500))

    assert errno.ENOSPC == refused.value.errno
    found = snapshots.newest(1, log_first_index=1)
    assert found is not None
    assert 10 == found.index
    assert disk.holds("snapshots/reserve")
