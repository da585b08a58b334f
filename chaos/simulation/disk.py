"""A disk that loses power, tears, reorders, fills up, fails and rots, as one seed decides.

It has the same interface as the real one (`leveret.storage.Disk`). What the model allows is at
least what POSIX allows a file system to do:

* written data reaches the disk for sure only by a sync of the file that returned;
* before that any of its sectors may be there or not, in any order, holes read as zeros;
* a file's name, and its removal, reach the disk for sure only by a sync of the folder, but in the
  order in which they were done;
* a failed sync has lost the data for good, though reads still show it, and the next one succeeds.

A `SimulatedDisk` is a disk as one life of a node sees it. `crash` (the process is killed) and
`power_loss` end that life and return the disk for the next one; whatever the dead life still
tries finds it gone and has no effect.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

import trio

from leveret.storage import AppendFile, ReadFile, SyncFailed

SECTOR_BYTES = 512
_TEMPORARY = ".tmp"


class DiskGone(OSError):
    """The life of the node that this disk belonged to has ended."""


class _Write:
    """Data on its way to the disk."""

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = data

    def apply(self, image: bytearray) -> None:
        end = self.offset + len(self.data)
        if len(image) < end:
            image.extend(bytes(end - len(image)))
        image[self.offset : end] = self.data

    def torn(self, rng: random.Random) -> list[_Write]:
        """Return the parts of this write that reach the disk: a prefix, or any sectors."""
        parts = self._sectors()
        if rng.random() < 0.5:
            return parts[: rng.randint(0, len(parts))]
        share = rng.random()
        return [part for part in parts if rng.random() < share]

    def _sectors(self) -> list[_Write]:
        first = -(self.offset % SECTOR_BYTES)
        starts = range(first, len(self.data), SECTOR_BYTES)
        return [
            _Write(self.offset + max(at, 0), self.data[max(at, 0) : at + SECTOR_BYTES])
            for at in starts
        ]


class _Resize:
    """A change of a file's size, on its way to the disk."""

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, image: bytearray) -> None:
        if len(image) < self.size:
            image.extend(bytes(self.size - len(image)))
        del image[self.size :]


class _File:
    """Content of one file: what reads see, and what is on the platter."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.durable = bytearray()
        self.changes: list[_Write | _Resize] = []
        self._settled = 0

    @property
    def changed(self) -> int:
        """Running number of the last change."""
        return self._settled + len(self.changes)

    def change(self, change: _Write | _Resize) -> None:
        change.apply(self.now)
        self.changes.append(change)

    def settle(self, number: int, *, is_lost: bool = False) -> None:
        """Bring the changes up to `number` onto the platter, or lose them."""
        count = max(0, number - self._settled)
        for change in self.changes[:count]:
            if not is_lost:
                change.apply(self.durable)
        del self.changes[:count]
        self._settled += count

    def after_power_loss(self, rng: random.Random) -> _File:
        """Return the file with a part of its unsynced changes, as the disk pleases."""
        kept = rng.randint(0, len(self.changes))
        for at, change in enumerate(self.changes):
            if at < kept - 1 or (at != kept - 1 and rng.random() < 0.1):
                change.apply(self.durable)
            elif at == kept - 1:
                parts = change.torn(rng) if isinstance(change, _Write) else [change]
                for part in parts:
                    part.apply(self.durable)
        file = _File()
        file.durable = self.durable
        file.now = bytearray(self.durable)
        return file


class SimulatedDisk:
    """A disk of one node in one of its lives. Time passes on trio's clock, in syncs only.

    capacity_bytes: what fits; None is endless. May be changed at any time.
    sync_s: shortest and longest time that a sync takes.
    failing_syncs: so many of the next syncs fail with EIO.
    syncs: so many have finished.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        capacity_bytes: int | None = None,
        sync_s: tuple[float, float] = (0.0005, 0.004),
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.sync_s = sync_s
        self.failing_syncs = 0
        self.syncs = 0
        self._rng = rng
        self._files: dict[str, _File] = {}
        # The folder as it is on the platter, and the changes to it that are not there yet.
        self._durable_names: dict[str, _File] = {}
        self._name_changes: list[dict[str, _File | None]] = []
        self._names_settled = 0
        self._is_gone = False

    # The node's side: leveret.storage.Disk

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        self._check()
        file = self._files.get(name)
        if file is not None:
            return _SimulatedAppendFile(self, name, file, len(file.now))
        self._reserve(preallocate_bytes)
        file = _File()
        self._set_names({name: file})
        if preallocate_bytes:
            file.change(_Resize(preallocate_bytes))
        return _SimulatedAppendFile(self, name, file, 0)

    def read_file(self, name: str) -> ReadFile:
        self._check()
        file = self._files.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, name)
        return _SimulatedReadFile(self, file)

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        self._check()
        temporary = name + _TEMPORARY
        file = _File()
        self._set_names({temporary: file})
        data = b"".join(buffers)
        self._reserve(len(data))
        file.change(_Write(0, data))
        await self._sync(name, file)
        self.rename(temporary, name)
        await self._sync(name, None)

    def list(self, folder: str) -> Sequence[str]:
        self._check()
        prefix = f"{folder}/"
        return sorted(name.removeprefix(prefix) for name in self._files if name.startswith(prefix))

    def remove(self, name: str) -> None:
        self._check()
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, name)
        self._set_names({name: None})

    def rename(self, old: str, new: str) -> None:
        self._check()
        if old not in self._files:
            raise FileNotFoundError(errno.ENOENT, old)
        self._set_names({old: None, new: self._files[old]})

    def free_bytes(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 40
        return max(0, self.capacity_bytes - self.used_bytes())

    # The world's side

    def crash(self) -> SimulatedDisk:
        """The process is killed: what was written stays, durable or not."""
        after = self._next_life()
        after._files = self._files
        after._durable_names = self._durable_names
        after._name_changes = self._name_changes
        after._names_settled = self._names_settled
        return after

    def power_loss(self) -> SimulatedDisk:
        """The power fails: what was not synced stays in part, torn and out of order."""
        after = self._next_life()
        names = dict(self._durable_names)
        count = self._rng.randint(0, len(self._name_changes))
        for change in self._name_changes[:count]:
            _set_names(names, change)
        # One file has one content, under however many names the folder's changes left it.
        contents = {
            id(file): file.after_power_loss(self._rng)
            for _, file in sorted(names.items(), key=lambda item: item[0])
        }
        after._files = {name: contents[id(file)] for name, file in names.items()}
        after._durable_names = dict(after._files)
        return after

    def rot(self, *, name: str | None = None, offset: int | None = None) -> tuple[str, int]:
        """Flip one bit on the platter; return where. Without arguments anywhere in any file."""
        if name is None:
            name = self._rng.choice(sorted(name for name, file in self._files.items() if file.now))
        file = self._files[name]
        if offset is None:
            offset = self._rng.randrange(len(file.now))
        bit = 1 << self._rng.randrange(8)
        for image in (file.now, file.durable):
            if offset < len(image):
                image[offset] ^= bit
        return name, offset

    def used_bytes(self) -> int:
        """Return how much the files take."""
        return sum(len(file.now) for file in self._files.values())

    def _next_life(self) -> SimulatedDisk:
        self._check()
        self._is_gone = True
        return SimulatedDisk(self._rng, capacity_bytes=self.capacity_bytes, sync_s=self.sync_s)

    # For the open files

    def _check(self) -> None:
        if self._is_gone:
            raise DiskGone(errno.EIO, "this life of the node has ended")

    def _reserve(self, more_bytes: int) -> None:
        if more_bytes > self.free_bytes():
            raise OSError(errno.ENOSPC, "No space left on device")

    def _set_names(self, change: dict[str, _File | None]) -> None:
        """Change the folder: all of `change`, or after a power loss perhaps none of it."""
        _set_names(self._files, change)
        self._name_changes.append(change)

    async def _sync(self, name: str, file: _File | None) -> None:
        """Sync one file, or the folder; what was changed before this was called."""
        self._check()
        names = self._names_settled + len(self._name_changes)
        changes = file.changed if file is not None else 0
        await trio.sleep(self._rng.uniform(*self.sync_s))
        self._check()
        self.syncs += 1
        if self.failing_syncs:
            self.failing_syncs -= 1
            if file is not None:
                file.settle(changes, is_lost=True)
            raise SyncFailed(f"{name}: Input/output error")
        if file is not None:
            file.settle(changes)
            return
        count = max(0, names - self._names_settled)
        for change in self._name_changes[:count]:
            _set_names(self._durable_names, change)
        del self._name_changes[:count]
        self._names_settled += count


class _SimulatedAppendFile:
    def __init__(self, disk: SimulatedDisk, name: str, file: _File, size: int) -> None:
        self._disk = disk
        self._name = name
        self._file = file
        self._size = size
        self._is_name_durable = False

    @property
    def size(self) -> int:
        return self._size

    def write(self, buffers: Sequence[bytes]) -> None:
        self._disk._check()
        data = b"".join(buffers)
        self._disk._reserve(max(0, self._size + len(data) - len(self._file.now)))
        self._file.change(_Write(self._size, data))
        self._size += len(data)

    async def sync(self) -> None:
        await self._disk._sync(self._name, self._file)
        if not self._is_name_durable:
            await self._disk._sync(self._name, None)
            self._is_name_durable = True

    def truncate(self, size: int) -> None:
        self._disk._check()
        self._file.change(_Resize(size))
        self._size = size

    def close(self) -> None:
        """Nothing to give back."""


class _SimulatedReadFile:
    def __init__(self, disk: SimulatedDisk, file: _File) -> None:
        self._disk = disk
        self._file = file

    def read(self, offset: int, size: int) -> bytes:
        self._disk._check()
        return bytes(self._file.now[offset : offset + size])

    def close(self) -> None:
        """Nothing to give back."""


def _set_names(names: dict[str, _File], change: dict[str, _File | None]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file
