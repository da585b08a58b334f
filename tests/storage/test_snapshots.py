"""The newest undamaged snapshot wins, unless the log cannot go on from it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from leveret.storage import CorruptSnapshot, Snapshot, Snapshots, SyncFailed
from tests.storage.support import new_disk

FILE = "snapshots/003-00000000000000000040.state"


async def test_a_saved_snapshot_survives_a_power_loss(autojump_clock: MockClock) -> None:
    disk = new_disk()
    await Snapshots(disk).save(3, 40, 7, 6, b"state")

    found = Snapshots(disk.power_loss()).newest(3, log_first_index=39)

    assert Snapshot(3, 40, 7, 6, b"state") == found


async def test_the_newest_one_replaces_the_older(autojump_clock: MockClock) -> None:
    disk = new_disk()
    snapshots = Snapshots(disk)
    await snapshots.save(3, 9, 1, 1, b"old")
    await snapshots.save(4, 5, 1, 1, b"another group's")
    await snapshots.save(3, 40, 7, 6, b"new")

    found = snapshots.newest(3, log_first_index=1)

    assert found is not None
    assert b"new" == found.state
    assert 2 == len(disk.list("snapshots"))


async def test_a_file_that_is_no_snapshot_is_let_lie(autojump_clock: MockClock) -> None:
    disk = new_disk()
    await Snapshots(disk).save(3, 40, 7, 6, b"state")
    name = "snapshots/003-copy of 40.state"
    await disk.write_aside(name, [b"an operator's"])

    found = Snapshots(disk).newest(3, log_first_index=39)

    assert Snapshot(3, 40, 7, 6, b"state") == found
    assert name.removeprefix("snapshots/") in disk.list("snapshots")


async def test_no_snapshot_is_fine_while_the_log_has_everything(autojump_clock: MockClock) -> None:
    assert Snapshots(new_disk()).newest(3, log_first_index=1) is None


async def test_a_log_that_begins_later_needs_a_snapshot(autojump_clock: MockClock) -> None:
    with pytest.raises(CorruptSnapshot, match="begins at 2"):
        Snapshots(new_disk()).newest(3, log_first_index=2)


async def test_a_damaged_one_is_passed_over_and_named_if_the_log_reaches_back(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    snapshots = Snapshots(disk)
    await snapshots.save(3, 40, 7, 6, b"new")
    # As a crash between the new one's rename and the old one's removal leaves it.
    await Snapshots(disk).save(3, 9, 1, 1, b"old")
    disk.rot(name=FILE)

    found = snapshots.newest(3, log_first_index=10)

    assert found is not None
    assert (9, b"old", (FILE,)) == (found.index, found.state, found.damaged)
    with pytest.raises(CorruptSnapshot, match="000040"):
        snapshots.newest(3, log_first_index=11)


async def test_every_flipped_bit_is_found(autojump_clock: MockClock) -> None:
    for offset in range(60):
        disk = new_disk(offset)
        await Snapshots(disk).save(3, 40, 7, 6, b"state")
        disk.rot(name=FILE, offset=offset)

        with pytest.raises(CorruptSnapshot):
            Snapshots(disk).newest(3, log_first_index=30)


async def test_a_full_disk_leaves_the_older_one_and_no_litter(autojump_clock: MockClock) -> None:
    disk = new_disk()
    snapshots = Snapshots(disk)
    await snapshots.save(3, 9, 1, 1, b"old")
    disk.faults.capacity_bytes = disk.used_bytes() + 100

    with pytest.raises(OSError, match="No space"):
        await snapshots.save(3, 40, 7, 6, bytes(1000))

    assert 1 == len(disk.list("snapshots"))
    found = snapshots.newest(3, log_first_index=1)
    assert found is not None
    assert b"old" == found.state


async def test_a_failed_sync_is_fatal_and_the_older_one_stands(autojump_clock: MockClock) -> None:
    disk = new_disk()
    await Snapshots(disk).save(3, 9, 1, 1, b"old")
    disk.faults.failing_syncs = 1

    with pytest.raises(SyncFailed):
        await Snapshots(disk).save(3, 40, 7, 6, b"new")

    found = Snapshots(disk.power_loss()).newest(3, log_first_index=1)
    assert found is not None
    assert b"old" == found.state
