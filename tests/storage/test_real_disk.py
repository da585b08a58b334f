"""The operating system's files behind the seam, and the two ways of syncing them."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from leveret.storage import (
    FolderInUse,
    KernelSyncer,
    RealDisk,
    Snapshots,
    Syncer,
    SyncFailed,
    ThreadSyncer,
    pick_syncer,
)
from tests.storage.support import SMALL, command, running, settle


def kernel_syncer(folder: Path) -> Syncer:
    try:
        return KernelSyncer(str(folder))
    except OSError as error:
        pytest.skip(f"no kernel AIO here: {error}")


def thread_syncer(_: Path) -> Syncer:
    return ThreadSyncer()


@pytest.fixture(params=[kernel_syncer, thread_syncer])
def syncer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Syncer]:
    make: Callable[[Path], Syncer] = request.param
    made = make(tmp_path)
    yield made
    made.close()


async def test_many_syncs_at_a_time_all_come_back(syncer: Syncer, tmp_path: Path) -> None:
    finished = []

    async def sync(number: int) -> None:
        fd = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
        os.write(fd, b"data")
        await syncer.sync(fd)
        finished.append(number)
        os.close(fd)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(sync, number)

    assert set(range(20)) == set(finished)


async def test_a_folder_can_be_synced(syncer: Syncer, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    with trio.fail_after(30):
        await syncer.sync(fd, whole=True)

    os.close(fd)


async def test_an_error_of_the_sync_is_raised(syncer: Syncer) -> None:
    reader, writer = os.pipe()  # a pipe cannot be synced

    with trio.fail_after(30), pytest.raises(OSError, match="Invalid argument") as caught:
        await syncer.sync(writer)

    assert errno.EINVAL == caught.value.errno
    os.close(reader)
    os.close(writer)


async def test_a_cancelled_sync_does_not_disturb_the_next(syncer: Syncer, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with trio.fail_after(30):
        for _ in range(20):
            os.write(fd, bytes(1 << 16))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(syncer.sync, fd)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await syncer.sync(fd)
    os.close(fd)


def test_without_kernel_aio_a_thread_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")

    picked = pick_syncer(str(tmp_path))

    assert isinstance(picked, ThreadSyncer)
    picked.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    disk = RealDisk(tmp_path / "data")
    yield disk
    disk.close()


async def test_a_journal_is_found_again_on_the_real_disk(disk: RealDisk) -> None:
    async with running(disk) as journal:
        for index in range(1, 201):
            journal.log(1).append(command(index), index, 1)
        journal.log(1).save_vote(3, 2)
        await settle(journal)

    async with running(disk) as journal:
        log = journal.log(1)

        assert [command(index) for index in range(1, 201)] == [
            log.command_at(index) for index in range(1, 201)
        ]
        assert (3, 2, 200) == (log.term, log.voted_for, log.durable_index)
        log.append(b"and on", 201, 3)
        await settle(journal)


async def test_a_snapshot_is_found_again_on_the_real_disk(disk: RealDisk) -> None:
    state = os.urandom(3 << 20)
    await Snapshots(disk).save(3, 40, 7, 6, state)

    found = Snapshots(disk).newest(3, log_first_index=40)

    assert found is not None
    assert state == found.state


def test_a_preallocated_file_has_its_size_and_is_empty(disk: RealDisk, tmp_path: Path) -> None:
    file = disk.append_file("segments/x", preallocate_bytes=SMALL.segment_bytes)

    assert 0 == file.size
    assert SMALL.segment_bytes == (tmp_path / "data/segments/x").stat().st_size
    file.write([b"one", b"two"])
    assert 6 == file.size
    assert b"onetwo\0\0" == disk.read_file("segments/x").read(0, 8)
    file.close()


def test_a_write_of_thousands_of_buffers_is_whole(disk: RealDisk) -> None:
    buffers = [bytes([number % 256]) * (number % 7) for number in range(5000)]
    file = disk.append_file("segments/x")

    file.write(buffers)

    assert b"".join(buffers) == disk.read_file("segments/x").read(0, 1 << 20)
    file.close()


async def test_an_error_of_the_disk_is_named_sync_failed(tmp_path: Path) -> None:
    class BrokenSyncer:
        async def sync(self, fd: int, *, whole: bool = False) -> None:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def close(self) -> None:
            pass

    disk = RealDisk(tmp_path, syncer=BrokenSyncer())
    file = disk.append_file("segments/x")

    with pytest.raises(SyncFailed, match="segments/x"):
        await file.sync()
    with pytest.raises(SyncFailed):
        await disk.write_aside("snapshots/x", [b"state"])
    assert ["x.tmp"] == list(disk.list("snapshots"))
    file.close()
    disk.close()


def test_a_folder_is_used_by_one_process_at_a_time(disk: RealDisk, tmp_path: Path) -> None:
    with pytest.raises(FolderInUse):
        RealDisk(tmp_path / "data")


def test_files_are_for_the_owner_only(disk: RealDisk, tmp_path: Path) -> None:
    disk.append_file("segments/x").close()

    assert 0o600 == (tmp_path / "data/segments/x").stat().st_mode & 0o777
    assert 0o700 == (tmp_path / "data/segments").stat().st_mode & 0o777
