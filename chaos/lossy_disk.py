"""A disk that forgets what was not synced when its power is cut: a FUSE file system on trio.

`python -m chaos.lossy_disk ROOT MOUNT` passes everything through to the folder ROOT, and remembers
each change until an fsync makes it durable: of a file its writes, of a folder its names. Commands
on standard input, one a line, answered by one line each:

    cut SEED    take back what was not synced, unmount and end: all writes up to one by chance stay,
                of those behind it some, and the last of them is torn
    fail N      the next N syncs of files fail with EIO
    slow MS     each sync takes so long
    end         unmount and end, nothing is lost
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from random import Random
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from chaos.unsynced import ROOT_INODE, Changes, Named, inode_of

_COPIED: Final = (
    "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size",
    "st_atime_ns", "st_mtime_ns", "st_ctime_ns",
)  # fmt: skip
_ROOM: Final = (
    "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail",
)  # fmt: skip


class LossyDisk(pyfuse3.Operations):
    """The file system. Its operations are those of FUSE."""

    enable_writeback_cache = False

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.changes = Changes(root)
        self.failing = 0
        self.sync_s = 0.0
        self._root = str(root)
        self._inodes: dict[int, int] = {}
        """Of the open files, by descriptor."""

    def _path(self, inode: int, name: bytes | None = None) -> str:
        path = self.changes.paths[inode]
        return path if name is None else os.path.join(path, os.fsdecode(name))  # noqa: PTH118

    def _entry(self, path: str) -> EntryAttributes:
        try:
            found = os.lstat(path)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        entry = EntryAttributes()
        for name in _COPIED:
            setattr(entry, name, getattr(found, name))
        is_root = path == self._root
        entry.st_ino = ROOT_INODE if is_root else inode_of(path)
        entry.st_blksize, entry.st_blocks = 4096, (found.st_size + 511) // 512
        entry.generation, entry.entry_timeout, entry.attr_timeout = 0, 0, 0
        self.changes.paths[entry.st_ino] = path
        return entry

    async def lookup(self, parent: int, name: bytes, _: RequestContext) -> EntryAttributes:
        if name in {b".", b".."}:
            raise FUSEError(errno.ENOENT)
        return self._entry(self._path(parent, name))

    async def getattr(self, inode: int, _: RequestContext) -> EntryAttributes:
        return self._entry(self._path(inode))

    async def setattr(
        self,
        inode: int,
        wanted: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        _fd: int | None,
        _: RequestContext,
    ) -> EntryAttributes:
        path = self._path(inode)
        if fields.update_size:
            cut = max(os.lstat(path).st_size - wanted.st_size, 0)
            self.changes.before(inode, wanted.st_size, None, cut)
            os.truncate(path, wanted.st_size)
        if fields.update_mode:
            os.chmod(path, stat.S_IMODE(wanted.st_mode))  # noqa: PTH101
        return self._entry(path)

    async def opendir(self, inode: int, _: RequestContext) -> int:
        return inode

    async def readdir(self, inode: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        for at, name in enumerate(sorted(os.listdir(self._path(inode)))):  # noqa: PTH208
            if at < start:
                continue
            encoded = os.fsencode(name)
            entry = self._entry(self._path(inode, encoded))
            if not pyfuse3.readdir_reply(token, encoded, entry, at + 1):
                return

    async def mkdir(
        self, parent: int, name: bytes, mode: int, _: RequestContext
    ) -> EntryAttributes:
        path = self._path(parent, name)
        os.mkdir(path, mode & 0o7777)  # noqa: PTH102
        self.changes.names.append(Named(self._path(parent), "made", path))
        return self._entry(path)

    async def mknod(
        self, parent: int, name: bytes, mode: int, device: int, _: RequestContext
    ) -> EntryAttributes:
        path = self._path(parent, name)
        os.mknod(path, mode, device)
        return self._entry(path)

    async def rmdir(self, parent: int, name: bytes, _: RequestContext) -> None:
        try:
            os.rmdir(self._path(parent, name))  # noqa: PTH106
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None

    async def unlink(self, parent: int, name: bytes, _: RequestContext) -> None:
        path = self._path(parent, name)
        try:
            kept = self.changes.keep(path)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        self.changes.names.append(Named(self._path(parent), "gone", path, kept=kept))
        os.unlink(path)  # noqa: PTH108

    async def rename(
        self, parent: int, name: bytes, to_parent: int, to_name: bytes, _flags: int,
        _: RequestContext,
    ) -> None:  # fmt: skip
        path, to = self._path(parent, name), self._path(to_parent, to_name)
        kept = self.changes.keep(to)
        self.changes.names.append(Named(self._path(to_parent), "moved", path, to, kept))
        os.rename(path, to)  # noqa: PTH104
        self.changes.moved(path, to)

    async def open(self, inode: int, flags: int, _: RequestContext) -> FileInfo:
        try:
            fd = os.open(self._path(inode), flags & ~(os.O_APPEND | os.O_CREAT | os.O_TRUNC))
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        self._inodes[fd] = inode
        return FileInfo(fh=fd)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, _: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        path = self._path(parent, name)
        try:
            fd = os.open(path, flags & ~os.O_APPEND | os.O_CREAT, mode & 0o7777)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        self.changes.names.append(Named(self._path(parent), "made", path))
        entry = self._entry(path)
        self._inodes[fd] = entry.st_ino
        return FileInfo(fh=fd), entry

    async def read(self, fd: int, offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    async def write(self, fd: int, offset: int, data: bytes) -> int:
        self.changes.before(self._inodes[fd], offset, bytes(data), len(data))
        try:
            return os.pwrite(fd, data, offset)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None

    async def fsync(self, fd: int, _datasync: bool) -> None:  # noqa: FBT001 - FUSE's own
        inode = self._inodes[fd]
        # What is written while it takes its time is not part of it.
        under_way = [write for write in self.changes.writes if write.inode == inode]
        await trio.sleep(self.sync_s)
        if self.failing:
            self.failing -= 1
            raise FUSEError(errno.EIO)
        done = set(map(id, under_way))
        self.changes.writes = [w for w in self.changes.writes if id(w) not in done]

    async def fsyncdir(self, fd: int, _datasync: bool) -> None:  # noqa: FBT001 - FUSE's own
        self.changes.synced_folder(self._path(fd), used=set(self._inodes.values()))

    async def flush(self, _fd: int) -> None:
        """Have nothing to do: only a sync makes durable."""

    async def release(self, fd: int) -> None:
        os.close(fd)
        del self._inodes[fd]

    async def releasedir(self, _fd: int) -> None:
        """Have nothing to do."""

    async def statfs(self, _: RequestContext) -> pyfuse3.StatvfsData:
        found, answer = os.statvfs(self._root), pyfuse3.StatvfsData()
        for name in _ROOM:
            setattr(answer, name, getattr(found, name))
        return answer


async def _serve(root: Path, mount: str) -> None:
    disk = LossyDisk(root)
    pyfuse3.init(disk, mount, {*pyfuse3.default_options, "fsname=lossy"})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            print("mounted", flush=True)
            await _obey(disk)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


async def _obey(disk: LossyDisk) -> None:
    """Do what is said on standard input, until it is to end, or its end."""
    while True:
        # Whoever waits for a line does not hold up an end by an error.
        line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        match line.split():
            case ["cut", seed]:
                print("lost", disk.changes.cut(Random(seed)), flush=True)
                return
            case ["fail", count]:
                disk.failing = int(count)
            case ["slow", milliseconds]:
                disk.sync_s = float(milliseconds) / 1000
            case _:
                return
        print("done", flush=True)


if __name__ == "__main__":
    trio.run(_serve, Path(sys.argv[1]), sys.argv[2])
