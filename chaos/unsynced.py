"""What a disk has not made durable yet, and what is left of it when its power is cut.

It follows a folder through which all changes pass (`chaos/lossy_disk.py`). A name is durable when
its folder was synced, not before: stricter than most file systems.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

ROOT_INODE: Final = 1
"""The folder's own inode, as FUSE has it."""
SURVIVES: Final = 0.2
"""How often a write behind the first lost one is there nevertheless."""
SECTOR: Final = 512


@dataclass(frozen=True)
class Written:
    """A write, or with data of None a truncation, of a file; and what stood there before."""

    inode: int
    offset: int
    data: bytes | None
    old_data: bytes
    old_size: int
    size: int


@dataclass(frozen=True)
class Named:
    """A name that came, went or moved. kept: a link to the file that lost its name."""

    folder: str
    kind: str
    path: str
    to: str = ""
    kept: str = ""


def inode_of(path: str) -> int:
    """Return what the kernel is told as a file's inode; it is the same for all its names."""
    return os.lstat(path).st_ino + (1 << 32)


class Changes:
    """What is not durable yet, in the order in which it was done, below one folder."""

    def __init__(self, root: Path) -> None:
        self.paths: dict[int, str] = {ROOT_INODE: str(root)}
        """Where the files are, by their inodes as the kernel knows them."""
        self.writes: list[Written] = []
        self.names: list[Named] = []
        self._lost = root.with_name(root.name + ".lost")
        self._lost.mkdir(exist_ok=True)
        self._count = 0

    def before(self, inode: int, offset: int, data: bytes | None, size: int) -> None:
        """Remember what a write of `size` octets will change."""
        with Path(self.paths[inode]).open("rb") as file:
            old_size = file.seek(0, os.SEEK_END)
            file.seek(offset)
            old_data = file.read(size) if offset < old_size else b""
        self.writes.append(Written(inode, offset, data, old_data, old_size, size))

    def keep(self, path: str) -> str:
        """Return a second name for a file that is about to lose its own; none for others.

        Who has it open goes on with it by that name.
        """
        if not os.path.lexists(path) or not stat.S_ISREG(os.lstat(path).st_mode):
            return ""
        self._count += 1
        kept = str(self._lost / str(self._count))
        os.link(path, kept)
        self.paths[inode_of(kept)] = kept
        return kept

    def synced(self, inode: int) -> None:
        """Take a file's writes for durable."""
        self.writes = [write for write in self.writes if write.inode != inode]

    def synced_folder(self, folder: str, *, used: Collection[int]) -> None:
        """Take a folder's names for durable; used: inodes of files that are open."""
        for name in self.names:
            if name.folder == folder and name.kept and inode_of(name.kept) not in used:
                os.unlink(name.kept)  # noqa: PTH108
        self.names = [name for name in self.names if name.folder != folder]

    def moved(self, old: str, new: str) -> None:
        """Follow a rename."""
        for inode, path in self.paths.items():
            if path == old or path.startswith(old + "/"):
                self.paths[inode] = new + path[len(old) :]

    def cut(self, rng: Random) -> int:
        """Take back what is not durable, but for some by chance; return how much is lost."""
        kept_names = rng.randint(0, len(self.names))
        for name in reversed(self.names[kept_names:]):
            self._unname(name)
        lost = len(self.names) - kept_names
        for inode in {write.inode for write in self.writes}:
            lost += self._unwrite([w for w in self.writes if w.inode == inode], rng)
        self.writes, self.names = [], []
        return lost

    def _unname(self, name: Named) -> None:
        match name.kind:
            case "made":
                if os.path.isdir(name.path) and not os.path.islink(name.path):  # noqa: PTH112, PTH114
                    return  # what is in it may be older; an empty folder harms nobody
                if os.path.lexists(name.path):
                    os.unlink(name.path)  # noqa: PTH108
            case "moved":
                if os.path.lexists(name.to):
                    os.rename(name.to, name.path)  # noqa: PTH104
                    self.moved(name.to, name.path)
                if name.kept:
                    self._name_again(name.kept, name.to)
            case _ if name.kept and not os.path.lexists(name.path):
                self._name_again(name.kept, name.path)

    def _name_again(self, kept: str, path: str) -> None:
        os.link(kept, path)
        self.paths[inode_of(path)] = path

    def _unwrite(self, writes: Sequence[Written], rng: Random) -> int:
        """Take back the writes to one file, then do those again that stay."""
        path = self.paths.get(writes[0].inode, "")
        if not os.path.lexists(path):
            return len(writes)
        first_lost = rng.randint(0, len(writes))
        stay = [
            write for at, write in enumerate(writes) if at < first_lost or rng.random() < SURVIVES
        ]
        with Path(path).open("r+b") as file:
            for write in reversed(writes):
                file.truncate(write.old_size)
                file.seek(write.offset)
                file.write(write.old_data)
            for at, write in enumerate(stay):
                if write.data is None:
                    file.truncate(write.offset)
                    continue
                data = write.data
                if at == len(stay) - 1 and len(stay) < len(writes):
                    data = data[: rng.randint(0, len(data) // SECTOR) * SECTOR]
                file.seek(write.offset)
                file.write(data)
        return len(writes) - len(stay)
