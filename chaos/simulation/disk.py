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
from dataclasses import dataclass

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


@dataclass
class DiskFaults:
    """What is wrong with a disk; may be changed at any time, and outlasts the node's lives.

    capacity_bytes: what fits; None is endless.
    sync_s: shortest and longest time that a sync takes.
    failing_syncs: so many of the next syncs fail with EIO.
    """

    capacity_bytes: int | None = None
    sync_s: tuple[float, float] = (0.0005, 0.004)
    failing_syncs: int = 0


class _Folder:
    """The files of one disk; it outlives the node's lives until the power is lost."""

    def __init__(self, rng: random.Random, faults: DiskFaults, files: dict[str, _File]) -> None:
        self.rng = rng
        self.faults = faults
        self.files = files
        # The names as they are on the platter, and the changes to them that are not there yet.
        self._durable_names = dict(files)
        self._changes: list[dict[str, _File | None]] = []
        self._settled = 0

    def change(self, change: dict[str, _File | None]) -> None:
        """Set names or remove them: all of `change`, or after a power loss perhaps none of it."""
        _set_names(self.files, change)
        self._changes.append(change)

    def after_power_loss(self) -> _Folder:
        """Return what is found when the power is back."""
        names = dict(self._durable_names)
        for change in self._changes[: self.rng.randint(0, len(self._changes))]:
            _set_names(names, change)
        # One file has one content, under however many names the changes left it.
        contents = {
            id(file): file.after_power_loss(self.rng)
            for _, file in sorted(names.items(), key=lambda item: item[0])
        }
        files = {name: contents[id(file)] for name, file in names.items()}
        return _Folder(self.rng, self.faults, files)

    def used_bytes(self) -> int:
        """Return how much the files take."""
        return sum(len(file.now) for file in self.files.values())

    def free_bytes(self) -> int:
        """Return how much more fits."""
        capacity = self.faults.capacity_bytes
        return 1 << 40 if capacity is None else max(0, capacity - self.used_bytes())

    def reserve(self, more_bytes: int) -> None:
        """Raise ENOSPC if the files cannot grow by `more_bytes`."""
        if more_bytes > self.free_bytes():
            raise OSError(errno.ENOSPC, "No space left on device")

    async def sync(self, life: _Life, name: str, file: _File | None) -> None:
        """Sync one file, or the names if it is None; what was changed before this was called."""
        life.check()
        names = self._settled + len(self._changes)
        changes = file.changed if file is not None else 0
        await trio.sleep(self.rng.uniform(*self.faults.sync_s))
        life.check()
        if self.faults.failing_syncs:
            self.faults.failing_syncs -= 1
            if file is not None:
                file.settle(changes, is_lost=True)
            raise SyncFailed(f"{name}: Input/output error")
        if file is not None:
            file.settle(changes)
            return
        count = max(0, names - self._settled)
        for change in self._changes[:count]:
            _set_names(self._durable_names, change)
        del self._changes[:count]
        self._settled += count


class _Life:
    """One life of a node; nothing that it holds works after its end."""

    def __init__(self) -> None:
        self._is_over = False

    def check(self) -> None:
        """Raise DiskGone if the life has ended."""
        if self._is_over:
            raise DiskGone(errno.EIO, "this life of the node has ended")

    def end(self) -> None:
        """Cut the node off from the disk."""
        self.check()
        self._is_over = True


class SimulatedDisk:
    """A disk of one node in one of its lives. Time passes on trio's clock, in syncs only."""

    def __init__(
        self,
        rng: random.Random,
        *,
        faults: DiskFaults | None = None,
        folder: _Folder | None = None,
    ) -> None:
        self.faults = faults if faults is not None else DiskFaults()
        self._folder = folder if folder is not None else _Folder(rng, self.faults, {})
        self._rng = rng
        self._life = _Life()

    # The node's side: leveret.storage.Disk

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        self._life.check()
        file = self._folder.files.get(name)
        if file is not None:
            return _SimulatedAppendFile(self._folder, self._life, name, file, len(file.now))
        self._folder.reserve(preallocate_bytes)
        file = _File()
        self._folder.change({name: file})
        if preallocate_bytes:
            file.change(_Resize(preallocate_bytes))
        return _SimulatedAppendFile(self._folder, self._life, name, file, 0)

    def read_file(self, name: str) -> ReadFile:
        return _SimulatedReadFile(self._life, self._existing(name))

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        self._life.check()
        temporary = name + _TEMPORARY
        file = _File()
        self._folder.change({temporary: file})
        data = b"".join(buffers)
        self._folder.reserve(len(data))
        file.change(_Write(0, data))
        await self._folder.sync(self._life, temporary, file)
        self.rename(temporary, name)
        await self._folder.sync(self._life, name, None)

    def list(self, folder: str) -> Sequence[str]:
        self._life.check()
        prefix = f"{folder}/"
        names = self._folder.files
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def remove(self, name: str) -> None:
        self._existing(name)
        self._folder.change({name: None})

    def rename(self, old: str, new: str) -> None:
        self._folder.change({old: None, new: self._existing(old)})

    def free_bytes(self) -> int:
        return self._folder.free_bytes()

    @property
    def is_short_of_files(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to give back."""

    # The world's side

    def crash(self) -> SimulatedDisk:
        """Kill the process: what was written stays, durable or not."""
        self._life.end()
        return SimulatedDisk(self._rng, faults=self.faults, folder=self._folder)

    def power_loss(self) -> SimulatedDisk:
        """Cut the power: what was not synced stays in part, torn and out of order."""
        self._life.end()
        folder = self._folder.after_power_loss()
        return SimulatedDisk(self._rng, faults=self.faults, folder=folder)

    def rot(self, *, name: str | None = None, offset: int | None = None) -> tuple[str, int]:
        """Flip one bit on the platter; return where. Without arguments anywhere in any file.

        name: a file, or a folder with '/' at its end for any file in it.
        """
        files = self._folder.files
        if name is None or name.endswith("/"):
            name = self._rng.choice(
                sorted(at for at, file in files.items() if file.now and at.startswith(name or ""))
            )
        if offset is None:
            offset = self._rng.randrange(len(files[name].now))
        bit = 1 << self._rng.randrange(8)
        for image in (files[name].now, files[name].durable):
            if offset < len(image):
                image[offset] ^= bit
        return name, offset

    def holds(self, name: str) -> bool:
        """Whether there is such a file, for whoever looks from outside."""
        return name in self._folder.files

    def used_bytes(self) -> int:
        """Return how much the files take."""
        return self._folder.used_bytes()

    def _existing(self, name: str) -> _File:
        self._life.check()
        file = self._folder.files.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, name)
        return file


class _SimulatedAppendFile:
    def __init__(self, folder: _Folder, life: _Life, name: str, file: _File, size: int) -> None:
        self._folder = folder
        self._life = life
        self._name = name
        self._file = file
        self._size = size
        self._is_name_durable = False

    @property
    def size(self) -> int:
        return self._size

    def write(self, buffers: Sequence[bytes]) -> None:
        self._life.check()
        data = b"".join(buffers)
        self._folder.reserve(max(0, self._size + len(data) - len(self._file.now)))
        self._file.change(_Write(self._size, data))
        self._size += len(data)

    async def sync(self) -> None:
        await self._folder.sync(self._life, self._name, self._file)
        if not self._is_name_durable:
            await self._folder.sync(self._life, self._name, None)
            self._is_name_durable = True

    def write_again(self, offset: int, data: bytes) -> None:
        self._life.check()
        assert self._file.now[offset : offset + len(data)] == data
        self._file.change(_Write(offset, data))

    def truncate(self, size: int) -> None:
        self._life.check()
        self._file.change(_Resize(size))
        self._size = size

    def close(self) -> None:
        """Nothing to give back."""


class _SimulatedReadFile:
    def __init__(self, life: _Life, file: _File) -> None:
        self._life = life
        self._file = file

    def read(self, offset: int, size: int) -> bytes:
        self._life.check()
        return bytes(self._file.now[offset : offset + size])

    def close(self) -> None:
        """Nothing to give back."""


def _set_names(names: dict[str, _File], change: dict[str, _File | None]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file
