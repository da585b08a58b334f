"""One segment: an append-only file of flushes.

    segments/0000000000000007.log
        flush     mark (records.mark), then the flush's records; the first one begins with HEAD
        flush     …
        zeros     preallocated, not yet written

A flush is written by one write and followed by one sync, and the next flush is written only after
that sync. So of a flush that was not synced any sectors may be missing (the disk may reorder
them), but everything before it is durable, and its own mark says so. A flush counts whole or not
at all. That is how a torn tail is told from rot:

* damage behind which no mark vouches for it: a torn write, nobody was told that it was safe; cut;
* damage before the `durable` offset of a later mark: durable data was lost; `CorruptJournal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leveret.storage.disk import AppendFile, Disk
from leveret.storage.errors import CorruptJournal
from leveret.storage.records import (
    HEADER_BYTES,
    MARK_BYTES,
    MARK_MAGIC,
    Kind,
    Parsed,
    Record,
    encode_header,
    mark,
    parse,
    read_mark,
)

FOLDER = "segments"
SEGMENT_BYTES_MAX = 1 << 30  # read in one piece at boot, and an offset has 32 bits


def segment_name(number: int) -> str:
    """Return the file name of segment `number`."""
    return f"{FOLDER}/{number:016d}.log"


def list_segments(disk: Disk) -> list[int]:
    """Return the numbers of the segments on `disk`, ascending."""
    names = (name.removesuffix(".log") for name in disk.list(FOLDER) if name.endswith(".log"))
    return sorted(int(name) for name in names if name.isdigit())


class Tail:
    """The segment that is being written."""

    def __init__(self, number: int, file: AppendFile, capacity: int) -> None:
        self.number = number
        self.durable = 0  # offset; everything before it survives a power loss
        self._file = file
        self._capacity = capacity
        self._vouched = 0  # the durable offset of the last mark

    @classmethod
    def create(cls, disk: Disk, number: int, capacity: int) -> Tail:
        """Create segment `number` with room for `capacity` bytes.

        Raises:
            OSError: ENOSPC or EDQUOT when the disk is full; only here, because it is preallocated.
        """
        file = disk.append_file(segment_name(number), preallocate_bytes=capacity)
        return cls(number, file, capacity)

    @property
    def room(self) -> int:
        """Bytes of records that one more flush can hold."""
        return self._capacity - self._file.size - MARK_BYTES

    @property
    def is_vouched(self) -> bool:
        """Whether a mark covers all that is durable."""
        return self._vouched == self.durable

    def write(self, records: Sequence[Record]) -> list[int]:
        """Write one flush (not synced) and return the offset of each record.

        No records: a mark alone, which vouches for the last flush.

        Raises:
            OSError: nothing was written; the same flush may be tried again.
        """
        number = self.number
        buffers = [b""]
        offsets = []
        start = offset = self._file.size + MARK_BYTES
        for record in records:
            offsets.append(offset)
            offset += HEADER_BYTES + len(record.payload)
            buffers.append(encode_header(record, number))
            if record.payload:
                buffers.append(record.payload)
        buffers[0] = mark(number, durable=self.durable, length=offset - start)
        self._file.write(buffers)
        self._vouched = self.durable
        return offsets

    async def sync(self) -> None:
        """Make all that was written durable. Raises SyncFailed."""
        size = self._file.size
        await self._file.sync()
        self.durable = size

    def seal(self) -> None:
        """Give back what was not used, and close."""
        self._file.truncate(self.durable)
        self._file.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


class SegmentReader:
    """A whole segment in memory, taken apart.

    data: all of the file.
    end: after `flushes` ran out, the offset behind the last whole flush.
    durable: then, how far the segment is durable by its own account; the rest may not be.
    """

    def __init__(self, disk: Disk, number: int) -> None:
        self.name = segment_name(number)
        self._number = number
        file = disk.read_file(self.name)
        try:
            self.data = file.read(0, SEGMENT_BYTES_MAX)
        finally:
            file.close()
        self.view = memoryview(self.data)
        self.end = self.durable = 0

    def flushes(self, *, size: int | None = None) -> Iterator[list[Parsed]]:
        """Yield the records of each whole flush, from the start; stop at the first damage.

        size: read no further than this.
        """
        view = self.view if size is None else self.view[:size]
        number = self._number
        self.end = self.durable = 0
        while (found := parse(view, self.end, number)) is not None and found.kind == Kind.FLUSH:
            offset = self.end + MARK_BYTES
            durable, length = read_mark(view, found)
            end = offset + length
            records = []
            while offset < end and (record := parse(view, offset, number)) is not None:
                records.append(record)
                offset += HEADER_BYTES + record.length
            if offset != end:
                return
            self.end, self.durable = end, durable
            if records:
                yield records

    def check_tail(self) -> None:
        """Make sure that what follows `end` was never durable.

        Raises:
            CorruptJournal: a later mark says that it was.
        """
        at = self.data.find(MARK_MAGIC, self.end)
        while at >= 0:
            found = parse(self.view, max(at - HEADER_BYTES, 0), self._number)
            if found is not None and found.kind == Kind.FLUSH:
                durable, _ = read_mark(self.view, found)
                if durable > self.end:
                    raise CorruptJournal(
                        self.name, self.end, f"damaged, but durable up to offset {durable}"
                    )
            at = self.data.find(MARK_MAGIC, at + 1)
