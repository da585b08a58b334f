"""Snapshots: one file a group, holding its state at one entry of its log.

    snapshots/003-00000000000000004711.state      group 3, state after entry 4711

Saved aside (see `Disk.write_aside`), so a file under its name is whole unless the disk rots; the
checksum finds that. The order that keeps a node whole: save, then trim the log (or reset it).

On a full disk a snapshot must still be saved, or the log could not be trimmed and would never give
room back: a reserve is given up for it, and taken again from what the older snapshot leaves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from leveret.storage.disk import TEMPORARY, Disk
from leveret.storage.errors import CorruptSnapshot
from leveret.storage.reserve import Reserve, is_full

FOLDER = "snapshots"
_SUFFIX = ".state"
_FILE = re.compile(rf"([0-9]{{3}})-([0-9]{{20}}){re.escape(_SUFFIX)}")
_MAGIC = b"LvrtSnp1"
_CHECKSUM = struct.Struct("<Q")
_HEADER = struct.Struct("<8sQQQQQ")  # magic, group, index, term, previous term, size of the state
_STATE_AT = _CHECKSUM.size + _HEADER.size


@dataclass(frozen=True)
class Snapshot:
    """The state of a group after entry `index`.

    term, prev_term: those of the entries `index` and `index` - 1.
    damaged: names of newer snapshots that could not be read; worth an error in the node's log.
    """

    group: int
    index: int
    term: int
    prev_term: int
    state: bytes
    damaged: tuple[str, ...] = ()


class Snapshots:
    """All groups' snapshots on one disk."""

    def __init__(self, disk: Disk, *, reserve_bytes: int = 0) -> None:
        """Take over the folder.

        reserve_bytes: room that is held for a full disk; 0 for none.
        """
        self._disk = disk
        # Left over by an earlier process.
        for name in disk.list(FOLDER):
            if name.endswith(TEMPORARY):
                disk.remove(f"{FOLDER}/{name}")
        self._reserve = Reserve(disk, FOLDER, reserve_bytes)

    async def save(self, group: int, index: int, term: int, prev_term: int, state: bytes) -> None:
        """Make `state` the newest snapshot of `group`, durably; then remove the older ones.

        Raises:
            OSError: for instance ENOSPC; the older snapshot stands, try again later.
            SyncFailed: fatal.
        """
        rest = _HEADER.pack(_MAGIC, group, index, term, prev_term, len(state))
        checksum = _CHECKSUM.pack(xxh3_64_intdigest(state, xxh3_64_intdigest(rest)))
        try:
            await self._write(group, index, [checksum + rest, state])
            for older in self._indexes(group):
                if older < index:
                    self._disk.remove(_name(group, older))
        finally:
            self._reserve.take()

    def newest(self, group: int, *, log_first_index: int) -> Snapshot | None:
        """Return the newest undamaged snapshot of `group`, or None if its log has everything.

        log_first_index: where the group's log begins.

        Raises:
            CorruptSnapshot: what there is does not reach the beginning of the log; the group's
                state must come from another node.
        """
        damaged: list[str] = []
        for index in reversed(self._indexes(group)):
            found = self._read(group, index)
            if found is None:
                damaged.append(_name(group, index))
            elif index + 1 < log_first_index:
                break
            else:
                return Snapshot(group, index, *found, damaged=tuple(damaged))
        if damaged or log_first_index > 1:
            what = ", ".join(damaged) if damaged else "no snapshot"
            raise CorruptSnapshot(
                f"group {group}: the log begins at {log_first_index}, damaged: {what}"
            )
        return None

    def close(self) -> None:
        """Close what is open; the reserve stays held."""
        self._reserve.close()

    async def _write(self, group: int, index: int, buffers: Sequence[bytes]) -> None:
        """Write a file aside, at the reserve's expense if it must be."""
        while True:
            try:
                await self._disk.write_aside(_name(group, index), buffers)
            except OSError as error:
                self._remove_temporary(group)
                if not (is_full(error) and self._reserve.give_up()):
                    raise
            else:
                return

    def _read(self, group: int, index: int) -> tuple[int, int, bytes] | None:
        """Return (term, previous term, state), or None if the file is damaged."""
        file = self._disk.read_file(_name(group, index))
        try:
            header = file.read(0, _STATE_AT)
            if len(header) < _STATE_AT:
                return None
            magic, *numbers, size = _HEADER.unpack_from(header, _CHECKSUM.size)
            if (magic, *numbers[:2]) != (_MAGIC, group, index):
                return None
            # Not `size` as it stands there: a flipped bit could ask for more than there is memory.
            state = file.read(_STATE_AT, min(size, 1 << 40)) if size < 1 << 40 else b""
        finally:
            file.close()
        (checksum,) = _CHECKSUM.unpack_from(header)
        seed = xxh3_64_intdigest(header[_CHECKSUM.size :])
        if len(state) != size or xxh3_64_intdigest(state, seed) != checksum:
            return None
        return numbers[2], numbers[3], state

    def _indexes(self, group: int) -> list[int]:
        """Return the indexes of the group's snapshots, ascending; other files are not ours."""
        found = map(_FILE.fullmatch, self._disk.list(FOLDER))
        return sorted(int(file[2]) for file in found if file and int(file[1]) == group)

    def _remove_temporary(self, group: int) -> None:
        for name in self._disk.list(FOLDER):
            if name.startswith(f"{group:03d}-") and name.endswith(TEMPORARY):
                self._disk.remove(f"{FOLDER}/{name}")


def _name(group: int, index: int) -> str:
    return f"{FOLDER}/{group:03d}-{index:020d}{_SUFFIX}"
