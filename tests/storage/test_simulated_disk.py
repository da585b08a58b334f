"""The simulated disk is as bad as a disk may be, and no worse."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from chaos.simulation.disk import SECTOR_BYTES, DiskGone, SimulatedDisk
from leveret.storage import SyncFailed
from tests.storage.support import new_disk


def content(disk: SimulatedDisk, name: str = "a/file") -> bytes:
    return disk.read_file(name).read(0, 1 << 20)


async def test_what_was_synced_survives_a_power_loss(autojump_clock: MockClock) -> None:
    for seed in range(20):
        disk = new_disk(seed)
        file = disk.append_file("a/file")
        file.write([b"one", b"two"])
        await file.sync()
        file.write([b"three"])

        assert content(disk.power_loss()).startswith(b"onetwo")


async def test_what_was_not_synced_may_be_there_torn_or_lost(autojump_clock: MockClock) -> None:
    found = set()
    for seed in range(200):
        disk = new_disk(seed)
        file = disk.append_file("a/file", preallocate_bytes=4 * SECTOR_BYTES)
        await file.sync()
        file.write([b"x" * 3 * SECTOR_BYTES])
        found.add(content(disk.power_loss())[::SECTOR_BYTES])

    assert {b"\0\0\0\0", b"x\0\0\0", b"\0x\0\0", b"x\0x\0", b"xxx\0"} <= found


async def test_unsynced_writes_may_survive_out_of_order(autojump_clock: MockClock) -> None:
    found = set()
    for seed in range(200):
        disk = new_disk(seed)
        file = disk.append_file("a/file", preallocate_bytes=3)
        await file.sync()
        for letter in (b"x", b"y", b"z"):
            file.write([letter])
        found.add(content(disk.power_loss()))

    assert {b"\0\0\0", b"x\0\0", b"xyz", b"\0y\0", b"\0\0z"} <= found


def test_a_killed_process_loses_nothing_that_it_wrote() -> None:
    disk = new_disk()
    disk.append_file("a/file").write([b"data"])

    assert b"data" == content(disk.crash())


def test_a_dead_life_can_do_nothing_more() -> None:
    disk = new_disk()
    file = disk.append_file("a/file")
    after = disk.crash()

    with pytest.raises(DiskGone):
        file.write([b"late"])
    with pytest.raises(DiskGone):
        disk.remove("a/file")
    assert b"" == content(after)


async def test_a_name_is_durable_only_with_its_folder(autojump_clock: MockClock) -> None:
    lost = 0
    for seed in range(30):
        disk = new_disk(seed)
        disk.append_file("a/file").write([b"data"])
        lost += "file" not in disk.power_loss().list("a")

    assert 0 < lost < 30


async def test_a_file_written_aside_is_old_or_new(autojump_clock: MockClock) -> None:
    disk = new_disk()
    for number in range(50):
        await disk.write_aside("a/file", [b"version", bytes([number])])
        disk = disk.power_loss()

        assert b"version" + bytes([number]) == content(disk)


async def test_a_failed_sync_loses_the_data_though_the_next_one_succeeds(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    file = disk.append_file("a/file")
    await file.sync()
    disk.faults.failing_syncs = 1
    file.write([b"data"])

    with pytest.raises(SyncFailed):
        await file.sync()
    await file.sync()

    assert b"data" == content(disk)
    assert b"" == content(disk.power_loss())


def test_a_full_disk_refuses_and_changes_nothing() -> None:
    disk = new_disk()
    disk.faults.capacity_bytes = 10
    file = disk.append_file("a/file")
    file.write([b"12345678"])

    with pytest.raises(OSError, match="No space"):
        file.write([b"90a"])
    with pytest.raises(OSError, match="No space"):
        disk.append_file("a/other", preallocate_bytes=3)

    assert (8, b"12345678", ["file"]) == (file.size, content(disk), disk.list("a"))


def test_rot_flips_one_bit() -> None:
    disk = new_disk()
    disk.append_file("a/file").write([bytes(100)])

    _, offset = disk.rot()

    after = content(disk)
    assert 1 == after[offset].bit_count() == int.from_bytes(after, "big").bit_count()
