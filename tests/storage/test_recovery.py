"""A torn tail is cut off, everything else that is damaged keeps the node from starting."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import CorruptJournal, Journal, SyncFailed
from leveret.storage.segments import segment_name
from tests.storage.support import SMALL, command, new_disk, running, settle


async def written(disk: SimulatedDisk, count: int, *, idle_s: float = 0) -> int:
    """Write entries 1 to `count` in a flush each; return the number of the last segment."""
    async with running(disk) as journal:
        for index in range(1, count + 1):
            journal.log(1).append(command(index), index, 1)
            await settle(journal)
        await trio.sleep(idle_s)
        return max(journal.sealed, default=0) + 1


def find(disk: SimulatedDisk, number: int, text: bytes) -> int:
    return disk.read_file(segment_name(number)).read(0, 1 << 20).index(text)


async def test_an_empty_disk_is_an_empty_journal(autojump_clock: MockClock) -> None:
    journal = await Journal.open(new_disk(), SMALL)

    assert [] == journal.logs


async def test_damage_in_the_last_flush_is_a_torn_write_and_cut(autojump_clock: MockClock) -> None:
    disk = new_disk()
    await written(disk, 5)
    disk = disk.crash()
    disk.rot(name=segment_name(1), offset=find(disk, 1, b"5/1;"))

    journal = await Journal.open(disk, SMALL)

    assert 4 == journal.log(1).last_index


async def test_damage_in_the_last_flush_is_corruption_once_it_was_vouched_for(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    await written(disk, 5, idle_s=2)
    disk = disk.crash()
    disk.rot(name=segment_name(1), offset=find(disk, 1, b"5/1;"))

    with pytest.raises(CorruptJournal, match="durable up to"):
        await Journal.open(disk, SMALL)


async def test_damage_before_a_later_flush_is_corruption_and_named(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    await written(disk, 5)
    disk = disk.crash()
    disk.rot(name=segment_name(1), offset=find(disk, 1, b"3/1;"))

    with pytest.raises(CorruptJournal, match=segment_name(1)) as caught:
        await Journal.open(disk, SMALL)

    assert find(disk, 1, b"2/1;") < caught.value.offset < find(disk, 1, b"4/1;")


async def test_every_flipped_bit_of_a_sealed_segment_is_found(autojump_clock: MockClock) -> None:
    for seed in range(40):
        disk = new_disk(seed)
        await written(disk, 70)
        disk = disk.crash()
        name = segment_name(1)
        size = len(disk.read_file(name).read(0, 1 << 20))
        disk.rot(name=name, offset=seed * size // 40)

        with pytest.raises(CorruptJournal):
            await Journal.open(disk, SMALL)


async def test_a_missing_segment_is_found(autojump_clock: MockClock) -> None:
    disk = new_disk()
    last = await written(disk, 200)
    for number in range(1, last):
        lost = disk.crash()
        kept = lost.read_file(segment_name(number))
        data = kept.read(0, 1 << 20)
        lost.remove(segment_name(number))

        with pytest.raises(CorruptJournal, match="missing"):
            await Journal.open(lost, SMALL)

        disk = lost
        disk.append_file(segment_name(number)).write([data])


async def test_a_sealed_segment_that_became_shorter_is_found(autojump_clock: MockClock) -> None:
    disk = new_disk()
    await written(disk, 200)
    disk = disk.crash()
    disk.append_file(segment_name(2)).truncate(0)

    with pytest.raises(CorruptJournal, match=segment_name(2)):
        await Journal.open(disk, SMALL)


async def test_bytes_of_another_segment_never_parse(autojump_clock: MockClock) -> None:
    disk = new_disk()
    last = await written(disk, 200)
    disk = disk.crash()
    stale = disk.read_file(segment_name(1)).read(0, 1 << 20)
    disk.append_file(segment_name(last + 1)).write([stale])

    journal = await Journal.open(disk, SMALL)

    assert 200 == journal.log(1).last_index
    assert segment_name(last + 1).removeprefix("segments/") not in disk.list("segments")


async def test_a_client_cannot_forge_a_record_by_sending_its_bytes(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    await written(disk, 3)
    disk = disk.crash()
    copied = disk.read_file(segment_name(1)).read(0, 2000)
    async with running(disk) as journal:
        journal.log(1).append(copied, 4, 1)
        await settle(journal)

    async with running(disk.power_loss()) as journal:
        assert copied == journal.log(1).command_at(4)
        assert 4 == journal.log(1).last_index


async def test_boot_makes_durable_what_a_killed_process_had_only_written(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        journal.log(1).append(command(1), 1, 1)
        await trio.testing.wait_all_tasks_blocked()  # written, and the sync is under way
        disk = disk.crash()

    for _ in range(20):
        journal = await Journal.open(disk, SMALL)
        assert 1 == journal.log(1).durable_index
        disk = disk.power_loss()


async def test_damage_that_appears_while_running_is_found_by_the_read(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        for index in range(1, 41):
            journal.log(1).append(command(index), index, 1)
        await settle(journal)
        disk.rot(name=segment_name(1), offset=find(disk, 1, b"1/1;"))

        with pytest.raises(CorruptJournal, match="entry 1 is damaged"):
            journal.log(1).command_at(1)


async def test_what_a_failed_sync_lost_is_written_again_before_it_counts(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with running(disk) as journal:
        journal.log(1).append(command(1), 1, 1)
        await settle(journal)
    disk = disk.crash()
    journal = await Journal.open(disk, SMALL)
    disk.faults.failing_syncs = 1
    journal.log(1).append(command(2), 2, 1)
    with pytest.raises(SyncFailed):
        await journal.run()
    journal.close()

    # The process is started again. The system's cache shows what the disk has not.
    disk = disk.crash()
    (await Journal.open(disk, SMALL)).close()

    recovered = await Journal.open(disk.power_loss(), SMALL)
    assert 2 == recovered.log(1).last_index
    assert command(2) == recovered.log(1).command_at(2)
