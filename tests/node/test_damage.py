"""What is put aside of a damaged folder."""

from __future__ import annotations

from leveret.node.damage import put_aside
from leveret.storage import Journal, JournalConfig, Snapshots
from leveret.testing.disk import MemoryDisk


async def test_damaged_files_are_put_aside_and_the_room_of_the_reserves_is_given_back() -> None:
    disk = MemoryDisk()
    journal = await Journal.open(disk, JournalConfig(reserve_bytes=1000))
    await Snapshots(disk, reserve_bytes=1000).save(3, 40, 7, 6, b"state")
    disk.append_file("segments/0000000000000001.log").close()
    journal.close()

    put_aside(disk, ValueError("rot"))

    assert disk.list("damaged") == [
        "segments-0000000000000001.log",
        "snapshots-003-00000000000000000040.state",
    ]
    assert not disk.list("segments")
    assert not disk.list("snapshots")
