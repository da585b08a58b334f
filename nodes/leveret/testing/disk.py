"""A disk in memory that never fails: the data folder of a node in a test.

What `leveret.storage.Disk` promises, without its price: a sync is a checkpoint. The files outlive a
killed node, as those of a real disk would, and go with the object.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.storage import AppendFile, ReadFile

ROOM_BYTES: Final = 1 << 40
"""What the disk says that it has left; memory ends first."""


class MemoryDisk:
    """One data folder. Whoever starts a node on it again finds what was written."""

    def __init__(self) -> None:
        self.syncs = 0
        """How many syncs there were, of files and of names."""
        self._files: dict[str, bytearray] = {}

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        # Reserving takes no memory: what was not written is not there, rather than zeros, and a
        # reader of the journal takes both for its end.
        return _MemoryAppendFile(self, self._files.setdefault(name, bytearray()))

    def read_file(self, name: str) -> ReadFile:
        return _MemoryReadFile(self._existing(name))

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        self._files[name] = bytearray().join(buffers)
        await self.sync()

    def list(self, folder: str) -> Sequence[str]:
        prefix = f"{folder}/"
        return sorted(name.removeprefix(prefix) for name in self._files if name.startswith(prefix))

    def remove(self, name: str) -> None:
        self._existing(name)
        del self._files[name]

    def rename(self, old: str, new: str) -> None:
        self._files[new] = self._existing(old)
        del self._files[old]

    def free_bytes(self) -> int:
        return ROOM_BYTES

    @property
    def is_short_of_files(self) -> bool:
        return False

    async def sync(self) -> None:
        """Count a sync, and let others run as during a real one."""
        self.syncs += 1
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Keep the files for the next start."""

    def _existing(self, name: str) -> bytearray:
        file = self._files.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        return file


class _MemoryAppendFile:
    def __init__(self, disk: MemoryDisk, file: bytearray) -> None:
        self._disk = disk
        self._file = file

    @property
    def size(self) -> int:
        return len(self._file)

    def write(self, buffers: Sequence[bytes]) -> None:
        for buffer in buffers:
            self._file += buffer

    async def sync(self) -> None:
        await self._disk.sync()

    def write_again(self, offset: int, data: bytes) -> None:
        self._file[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self._file[size:]

    def close(self) -> None:
        """Nothing is held."""


class _MemoryReadFile:
    def __init__(self, file: bytearray) -> None:
        self._file = file

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._file[offset : offset + size])

    def close(self) -> None:
        """Nothing is held."""
