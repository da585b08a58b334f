"""Room on the disk that is held for the time when there is none: a preallocated file.

A full disk must still take what is settled, or nothing could ever be given back. So the journal
and the snapshots hold a file each. The journal's is renamed to be its next segment, so that its
blocks are in nobody else's reach for a moment; a snapshot's is removed before the snapshot is
written again.

    segments/reserve      the journal's
    snapshots/reserve     the snapshots'

Neither is read or synced, and nothing depends on it after a crash: whoever opens the folder
removes what an earlier process left and takes it anew.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final

from leveret.storage.disk import AppendFile, Disk

RESERVE_FILE: Final = "reserve"
"""Its name in the folder of those it is held for."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk, or the quota, has no room."""
    return error.errno in _FULL


class Reserve:
    """The file that holds the room, if there was any to hold.

    size_bytes: as much as is held, and always all of it; 0 to hold nothing.
    """

    def __init__(self, disk: Disk, folder: str, size_bytes: int) -> None:
        """Take the reserve, if there is room; what an earlier process left is used for it."""
        self.size_bytes = size_bytes
        self._disk = disk
        self._name = f"{folder}/{RESERVE_FILE}"
        self._file: AppendFile | None = None
        if RESERVE_FILE in disk.list(folder):
            disk.remove(self._name)
        self.take()

    @property
    def is_whole(self) -> bool:
        """Whether all is held that is to be held."""
        return self._file is not None or not self.size_bytes

    def take(self, *, spare_bytes: int = 0) -> bool:
        """Hold the room from now on, if it is not held yet; return whether it is.

        spare_bytes: leave this much for others, or take nothing.
        """
        if self.is_whole:
            return True
        if self._disk.free_bytes() < self.size_bytes + spare_bytes:
            return False
        # Full all the same, or no descriptor is left: what is only held must not end a node.
        with contextlib.suppress(OSError):
            self._file = self._disk.append_file(self._name, preallocate_bytes=self.size_bytes)
        return self.is_whole

    def turn_into(self, name: str) -> AppendFile:
        """Rename the file, in its folder, and return it: empty, with all the room."""
        assert self._file is not None
        self._disk.rename(self._name, name)
        file, self._file = self._file, None
        return file

    def give_up(self) -> bool:
        """Make the room free; return whether any was held."""
        if self._file is None:
            return False
        self.close()
        self._disk.remove(self._name)
        return True

    def close(self) -> None:
        """Close the file; the room stays held."""
        if self._file is not None:
            self._file.close()
            self._file = None
