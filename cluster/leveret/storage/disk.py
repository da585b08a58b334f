"""The seam to the disk: what the journal and the snapshots ask of it, and the real one.

Names are relative to one data folder, '/' separated, at most one folder deep.
The simulator puts its own disk behind the same three protocols.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import trio

from leveret.storage.descriptors import Descriptors
from leveret.storage.errors import FolderInUse, SyncFailed
from leveret.storage.syncers import Syncer, pick_syncer

TEMPORARY = ".tmp"
_IOV_MAX = 1024  # POSIX's and Linux's limit of buffers in one writev
_SLICE_BYTES = 1 << 20
_LOCK = "lock"


class AppendFile(Protocol):
    """A file that grows at its end only."""

    @property
    def size(self) -> int:
        """End of the written data (a preallocated file is longer)."""

    def write(self, buffers: Sequence[bytes]) -> None:
        """Write `buffers` at the end, into the page cache only.

        Raises:
            OSError: nothing counts as written, `size` is as it was, the same write may be
                tried again.
        """

    async def sync(self) -> None:
        """Wait until all that was written when this was called survives a power loss.

        That includes the file's name in its folder. A checkpoint; does not block the loop.

        Raises:
            SyncFailed: fatal, never to be retried.
        """

    def write_again(self, offset: int, data: bytes) -> None:
        """Write what stands at `offset` already, so that the next sync takes it to the disk.

        For what an earlier sync may have lost: reads still show it, and nothing else would ever
        write it, since the system takes it for clean.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes; later writes go there."""

    def close(self) -> None:
        """Close the file; what was not synced stays in the page cache."""


class ReadFile(Protocol):
    """A file that is read anywhere."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""

    def close(self) -> None:
        """Close the file."""


class Disk(Protocol):
    """One data folder."""

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        """Create a file, or continue one at its end.

        preallocate_bytes: reserve this much for a new file, so that writes inside it cannot meet
            a full disk; the reserved part reads as zeros.

        Raises:
            OSError: for instance ENOSPC; then there is no new file.
        """

    def read_file(self, name: str) -> ReadFile:
        """Open a file for reading.

        Raises:
            FileNotFoundError: there is none.
        """

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        """Replace the whole file `name`; after a crash it is the old one or the new one.

        Written to a temporary name, synced, renamed, folder synced. Checkpoints.

        Raises:
            OSError: the old file stands; a temporary file may be left over.
            SyncFailed: fatal.
        """

    def list(self, folder: str) -> Sequence[str]:
        """Return the names (without the folder) in `folder`, sorted; empty if there is none."""

    def remove(self, name: str) -> None:
        """Remove a file; it may come back after a power loss."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file; the old name may come back after a power loss."""

    def free_bytes(self) -> int:
        """Return how much room the disk has left for us."""

    @property
    def is_short_of_files(self) -> bool:
        """Whether hardly a file more can be opened: what need not be open should be closed."""


class RealDisk:
    """A folder of the operating system, held by one process at a time.

    Raises:
        FolderInUse: another process (or another `RealDisk`) holds the folder.
    """

    def __init__(self, folder: str | Path, *, syncer: Syncer | None = None) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _lock(self._folder / _LOCK)
        self._syncer = syncer if syncer is not None else pick_syncer(str(self._folder))
        self._descriptors = Descriptors()

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        path = self._path(name)
        try:
            fd = self._descriptors.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            fd = self._descriptors.open(path, os.O_RDWR)
            return _RealAppendFile(
                fd, path, self._syncer, self._descriptors, size=os.fstat(fd).st_size
            )
        if preallocate_bytes:
            try:
                _preallocate(fd, preallocate_bytes)
            except OSError:
                self._descriptors.close(fd)
                os.unlink(path)
                raise
        return _RealAppendFile(fd, path, self._syncer, self._descriptors, size=0)

    def read_file(self, name: str) -> ReadFile:
        fd = self._descriptors.open(self._folder / name, os.O_RDONLY)
        return _RealReadFile(fd, self._descriptors)

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        path = self._path(name)
        temporary = path.with_name(path.name + TEMPORARY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with self._descriptors.opened(temporary, flags, 0o600) as fd:
            offset = 0
            for buffer in buffers:
                view = memoryview(buffer)
                # In slices, so that a large state does not hold the loop up.
                for start in range(0, len(view), _SLICE_BYTES):
                    part = view[start : start + _SLICE_BYTES]
                    _write_all(fd, [part], offset)
                    offset += len(part)
                    await trio.lowlevel.checkpoint()
            await _sync(self._syncer, fd, temporary)
        os.rename(temporary, path)
        await _sync_folder(self._syncer, self._descriptors, path.parent)

    def list(self, folder: str) -> Sequence[str]:
        try:
            with self._descriptors.one_free():
                return sorted(os.listdir(self._folder / folder))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        os.unlink(self._folder / name)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._folder / old, self._path(new))

    def free_bytes(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    @property
    def is_short_of_files(self) -> bool:
        return self._descriptors.are_scarce

    def close(self) -> None:
        """Let go of the folder and of the syncer."""
        self._syncer.close()
        self._descriptors.close_all()
        os.close(self._lock_fd)

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700)
            # Once in a folder's life, so in line.
            with self._descriptors.opened(self._folder, os.O_RDONLY) as fd:
                os.fsync(fd)
        return path


class _RealAppendFile:
    def __init__(
        self, fd: int, path: Path, syncer: Syncer, descriptors: Descriptors, *, size: int
    ) -> None:
        self._fd = fd
        self._path = path
        self._syncer = syncer
        self._descriptors = descriptors
        self._size = size
        # Also when continuing: whoever created it may have died before the folder was synced.
        self._is_name_durable = False

    @property
    def size(self) -> int:
        return self._size

    def write(self, buffers: Sequence[bytes]) -> None:
        self._size += _write_all(self._fd, buffers, self._size)

    async def sync(self) -> None:
        await _sync(self._syncer, self._fd, self._path)
        if not self._is_name_durable:
            await _sync_folder(self._syncer, self._descriptors, self._path.parent)
            self._is_name_durable = True

    def write_again(self, offset: int, data: bytes) -> None:
        _write_all(self._fd, [data], offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size

    def close(self) -> None:
        self._descriptors.close(self._fd)


class _RealReadFile:
    def __init__(self, fd: int, descriptors: Descriptors) -> None:
        self._fd = fd
        self._descriptors = descriptors

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size:
            # A short read in mid-file needs a signal or a size beyond 2 GiB.
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        self._descriptors.close(self._fd)


def _write_all(fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
    """Write all of `buffers` at `offset` and return their size."""
    start = offset
    for at in range(0, len(buffers), _IOV_MAX):
        part = buffers[at : at + _IOV_MAX]
        wanted = sum(map(len, part))
        written = os.pwritev(fd, part, offset)
        if written < wanted:
            rest = memoryview(b"".join(part))[written:]
            while rest:
                count = os.pwrite(fd, rest, offset + written)
                rest = rest[count:]
                written += count
        offset += wanted
    return offset - start


async def _sync(syncer: Syncer, fd: int, path: Path, *, whole: bool = False) -> None:
    try:
        await syncer.sync(fd, whole=whole)
    except OSError as error:
        raise SyncFailed(f"{path}: {error}") from error


async def _sync_folder(syncer: Syncer, descriptors: Descriptors, folder: Path) -> None:
    with descriptors.opened(folder, os.O_RDONLY) as fd:
        await _sync(syncer, fd, folder, whole=True)


def _preallocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    zeros = bytes(_SLICE_BYTES)  # macOS
    for start in range(0, size, _SLICE_BYTES):
        _write_all(fd, [memoryview(zeros)[: size - start]], start)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise FolderInUse(f"{path.parent} is used by another process") from error
    return fd
