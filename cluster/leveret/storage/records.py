"""One record of the journal as bytes.

Rule: everything that fixes the file format is in this module and in `segments`; nothing here
knows files. The format is frozen by release: a change is a new file name pattern beside it.

A record is a header of 32 bytes and a payload:

    checksum  u64   xxh3_64 of the payload, seeded by the xxh3_64 of the rest of the header,
                    which is seeded by the segment's number
    length    u32   of the whole record, so a zero length is no record
    kind      u8    and one byte of zero
    group     u16
    number    u64   mostly an entry's index, see `Kind`
    term      u64

Hashing header and payload in a chain of two one-shot calls covers both without copying them
together. xxh3 instead of crc32: 4 against 53 µs for 100 KiB, and xxh3 of nothing is not zero.
The segment's number is the salt, so bytes that another segment left in a block never parse.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

HEADER_BYTES = 32
PAYLOAD_BYTES_MAX = (1 << 32) - 1 - HEADER_BYTES
MARK_MAGIC = b"\xf1\x8bLvrt\x91\xe6"

_CHECKSUM = struct.Struct("<Q")
_REST = struct.Struct("<IBxHQQ")
_HEADER = struct.Struct("<QIBxHQQ")
_MARK = struct.Struct("<8sQQ")
_HEAD = struct.Struct("<QQ")

MARK_BYTES = HEADER_BYTES + _MARK.size


class Kind(IntEnum):
    """What a record says; `number` and `term` are used as noted."""

    FLUSH = 1  # head of one flush; payload: see `mark`
    HEAD = 2  # first record of a segment; payload: the older segments and their sizes
    ENTRY = 3  # an entry (number: its index); payload: its command
    TRUNCATE = 4  # entries from `number` on are gone
    VOTE = 5  # current `term`; number: 0 for no vote, else the node voted for, plus one
    COMMIT = 6  # entries up to `number` are committed
    TRIM = 7  # the log begins at `number`
    RESET = 8  # the log is empty and begins at `number`; of the old one, up to `term` may be live
    KEEP = 9  # an entry as in ENTRY: a live one's copy, or one fetched from a peer
    DROP = 10  # segment `number` holds nothing of worth and may be missing


class Record(NamedTuple):
    """A record before it is written."""

    kind: Kind
    group: int
    number: int
    term: int
    payload: bytes = b""


class Parsed(NamedTuple):
    """A record found in a segment; `offset` is that of its header, `length` that of its payload."""

    kind: int
    group: int
    number: int
    term: int
    offset: int
    length: int


def encode_header(record: Record, segment: int) -> bytes:
    """Return the header that goes before `record.payload` in segment number `segment`."""
    kind, group, number, term, payload = record
    rest = _REST.pack(HEADER_BYTES + len(payload), kind, group, number, term)
    return _CHECKSUM.pack(xxh3_64_intdigest(payload, xxh3_64_intdigest(rest, segment))) + rest


def parse(data: memoryview, offset: int, segment: int) -> Parsed | None:
    """Return the record at `offset` of `data`, or None if no whole and undamaged one is there."""
    start = offset + HEADER_BYTES
    if start > len(data):
        return None
    checksum, length, kind, group, number, term = _HEADER.unpack_from(data, offset)
    end = offset + length
    if length < HEADER_BYTES or end > len(data):
        return None
    seed = xxh3_64_intdigest(data[offset + 8 : start], segment)
    if xxh3_64_intdigest(data[start:end], seed) != checksum:
        return None
    return Parsed(kind, group, number, term, offset, length - HEADER_BYTES)


def mark(segment: int, *, durable: int, length: int) -> bytes:
    """Return the record that opens a flush.

    durable: everything before this offset of the segment survived a sync before this mark was
        written, so damage there is no torn write.
    length: bytes of the records that follow and belong to the flush.
    """
    payload = _MARK.pack(MARK_MAGIC, durable, length)
    return encode_header(Record(Kind.FLUSH, 0, 0, 0, payload), segment) + payload


def read_mark(data: memoryview, found: Parsed) -> tuple[int, int]:
    """Return (durable, length) of a parsed FLUSH record."""
    _, durable, length = _MARK.unpack_from(data, found.offset + HEADER_BYTES)
    return durable, length


def head(segments: dict[int, int]) -> Record:
    """Return the HEAD record that lists the older `segments` (number to size)."""
    payload = b"".join(_HEAD.pack(number, size) for number, size in sorted(segments.items()))
    return Record(Kind.HEAD, 0, 0, 0, payload)


def read_head(data: memoryview, found: Parsed) -> dict[int, int]:
    """Return the older segments (number to size) that a parsed HEAD record lists."""
    start = found.offset + HEADER_BYTES
    return dict(_HEAD.iter_unpack(data[start : start + found.length]))
