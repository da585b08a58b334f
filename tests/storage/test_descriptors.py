"""Files are opened although clients hold every descriptor that the process may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from leveret.storage.disk import RealDisk
from tests.storage.support import command, running, settle
from tests.support.descriptors import no_descriptor_left, open_now


async def test_files_are_opened_written_and_synced_with_no_descriptor_left(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    old = disk.append_file("log/1")
    await old.sync()  # the syncer's threads are there
    with no_descriptor_left():
        new = disk.append_file("log/2", preallocate_bytes=100)
        new.write([b"kept"])
        await new.sync()
        await disk.write_aside("vote", [b"7"])
        read = disk.read_file("log/2")

        assert b"kept" == read.read(0, 4)
        assert ["1", "2"] == disk.list("log")
        for file in (old, new, read):
            file.close()
    disk.close()


async def test_what_is_closed_is_held_back_for_the_next_file_again(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    disk.append_file("log/0").close()
    with no_descriptor_left():
        for number in range(1, 100):
            disk.append_file(f"log/{number}").close()

        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        assert 100 == len(disk.list("log"))
    disk.close()


async def test_segments_that_were_read_leave_room_for_the_next_segment(tmp_path: Path) -> None:
    async with running(RealDisk(tmp_path)) as journal:
        log = journal.log(1)
        for index in range(1, 3001):
            log.append(command(index), index, 1)
        await settle(journal)
        with no_descriptor_left():
            for index in range(1, 3001):
                log.entries(index, index + 1, bytes_max=1)
            for index in range(3001, 3201):
                log.append(command(index), index, 1)
            await settle(journal)

        assert 3200 == log.durable_index


async def test_a_closed_disk_holds_nothing_back(tmp_path: Path) -> None:
    before = len(open_now())
    disk = RealDisk(tmp_path)
    disk.append_file("log/1").close()
    disk.close()

    assert before == len(open_now())


async def test_files_are_synced_side_by_side_with_no_descriptor_left(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    log = disk.append_file("log/1")
    with no_descriptor_left():
        log.write([b"kept"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.sync)
            for number in range(5):
                nursery.start_soon(disk.write_aside, f"snapshots/{number}", [b"state"])

        assert ["0", "1", "2", "3", "4"] == disk.list("snapshots")
        log.close()
    disk.close()
