"""The replicated state of one queue: which messages live, and where their bytes are.

Rule: everything here is a pure function of the log.  Who holds a message, in which order
consumers are served, what was written to a socket: all of that is the dispatcher's soft state.

A message is known by its sequence number, counted from 1 in each queue and never reused.
Its bytes stay in the log entry that brought it; memory holds 17 bytes a message, in columns
of up to `CHUNK_MESSAGES`, because a Python object a message would cost ten times as much.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from .publishers import Publishers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    ChunkWire = tuple[int, bytes, bytes, bytes, bytes | None]
    PublisherWire = tuple[str, int, list[int]]
    Wire = (
        tuple[int, int, int, list[ChunkWire]]
        | tuple[int, int, int, list[ChunkWire], list[PublisherWire]]
    )

CHUNK_MESSAGES: Final = 1024

Range = tuple[int, int]
"""Sequence numbers from the first to the second, both included."""


class Location(NamedTuple):
    """Where a stored message's bytes are."""

    entry: int
    """Index of the log entry."""
    offset: int
    """First byte within the entry."""
    size: int
    """Bytes."""


class Chunk:
    """Consecutive messages of one queue in columns; `dead` is None while all of them live."""

    __slots__ = ("dead", "entries", "first", "live", "offsets", "sizes")

    def __init__(self, first: int) -> None:
        self.first = first
        self.entries = array("Q")
        self.offsets = array("I")
        self.sizes = array("I")
        self.dead: bytearray | None = None
        self.live = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def append(self, entry: int, offsets: Iterable[int], sizes: array[int]) -> None:
        """Add messages of one entry; `offsets` and `sizes` have one element a message."""
        self.entries.extend((entry,) * len(sizes))
        self.offsets.extend(offsets)
        self.sizes.extend(sizes)
        if self.dead is not None:
            self.dead.extend(bytes(len(sizes)))
        self.live += len(sizes)

    def kill(self, start: int, stop: int) -> tuple[list[Range], int]:
        """End the messages at positions `start` to `stop` (exclusive).

        Returns the ranges of sequence numbers that lived until now, and their bytes.
        """
        if self.dead is None:
            self.dead = bytearray(len(self.sizes))
        alive = self.dead.count(0, start, stop)
        if alive == 0:
            return [], 0
        if alive == stop - start:
            self.dead[start:stop] = b"\x01" * alive
            self.live -= alive
            return [(self.first + start, self.first + stop - 1)], sum(self.sizes[start:stop])
        ranges: list[Range] = []
        size = 0
        position = start
        while (position := self.dead.find(0, position, stop)) >= 0:
            end = self.dead.find(1, position, stop)
            end = stop if end < 0 else end
            killed, freed = self.kill(position, end)
            ranges += killed
            size += freed
            position = end
        return ranges, size


class QueueState:
    """What every replica knows of one queue."""

    __slots__ = ("_chunks", "_firsts", "live", "mark", "next", "publishers", "size_bytes", "uid")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.next = 1
        """The sequence number that the next message gets."""
        self.live = 0
        """Messages that are not settled, held by consumers or not."""
        self.size_bytes = 0
        """Bytes of the live messages as stored."""
        self.mark = 1
        """No message from here on was ever delivered; below it one may have been."""
        self.publishers: Publishers | None = None
        """Who numbers their messages, and which are stored; None while nobody did."""
        self._chunks: list[Chunk] = []
        self._firsts: list[int] = []

    def append(self, entry: int, offset: int, sizes: array[int]) -> int:
        """Add messages that lie one behind the other from `offset` of log entry `entry`.

        `sizes` holds the bytes of each.  Returns the first one's sequence number.
        """
        first = self.next
        total = len(sizes)
        offsets = list(accumulate(sizes, initial=offset))
        self.size_bytes += offsets.pop() - offset
        done = 0
        while done < total:
            chunk = self._chunks[-1] if self._chunks else None
            if (
                chunk is None
                or len(chunk) >= CHUNK_MESSAGES
                or chunk.first + len(chunk) != self.next
            ):
                chunk = Chunk(self.next)
                self._chunks.append(chunk)
                self._firsts.append(self.next)
            take = min(total - done, CHUNK_MESSAGES - len(chunk))
            if take == total:
                chunk.append(entry, offsets, sizes)
            else:
                chunk.append(entry, offsets[done : done + take], sizes[done : done + take])
            done += take
            self.next += take
        self.live += total
        return first

    def settle(self, ranges: Iterable[Range]) -> list[Range]:
        """End the messages in `ranges`; what is not there is passed over.

        Returns the ranges that lived until now.
        """
        killed: list[Range] = []
        for low, high in ranges:
            position = max(bisect_right(self._firsts, low) - 1, 0)
            while position < len(self._chunks):
                chunk = self._chunks[position]
                if chunk.first > high:
                    break
                start = max(low - chunk.first, 0)
                stop = min(high - chunk.first + 1, len(chunk))
                if start < stop:
                    gone, freed = chunk.kill(start, stop)
                    killed += gone
                    self.size_bytes -= freed
                if chunk.live == 0:
                    del self._chunks[position], self._firsts[position]
                else:
                    position += 1
        self.live -= sum(high - low + 1 for low, high in killed)
        return killed

    def locate(self, sequence: int) -> Location | None:
        """Return where message `sequence` lies, or None if it does not live."""
        position = bisect_right(self._firsts, sequence) - 1
        if position < 0:
            return None
        chunk = self._chunks[position]
        at = sequence - chunk.first
        if at >= len(chunk) or (chunk.dead is not None and chunk.dead[at]):
            return None
        return Location(chunk.entries[at], chunk.offsets[at], chunk.sizes[at])

    def live_from(self, sequence: int) -> Iterator[tuple[int, Location]]:
        """Yield the live messages from `sequence` on, in order, with their places.

        The queue must not change while the iterator is in use.
        """
        position = max(bisect_right(self._firsts, sequence) - 1, 0)
        for chunk in self._chunks[position:]:
            start = max(sequence - chunk.first, 0)
            for at in range(start, len(chunk)):
                if chunk.dead is None or not chunk.dead[at]:
                    yield (
                        chunk.first + at,
                        Location(chunk.entries[at], chunk.offsets[at], chunk.sizes[at]),
                    )

    def live_count_from(self, sequence: int) -> int:
        """Return how many messages live from `sequence` on."""
        position = max(bisect_right(self._firsts, sequence) - 1, 0)
        count = sum(chunk.live for chunk in self._chunks[position:])
        if position < len(self._chunks):
            chunk = self._chunks[position]
            before = min(max(sequence - chunk.first, 0), len(chunk))
            count -= before if chunk.dead is None else chunk.dead.count(0, 0, before)
        return count

    def live_ranges(self, low: int, high: int) -> list[Range]:
        """Return the live sequence numbers from `low` to `high` (included) as ranges."""
        ranges: list[Range] = []
        for sequence, _ in self.live_from(low):
            if sequence > high:
                break
            if ranges and ranges[-1][1] == sequence - 1:
                ranges[-1] = (ranges[-1][0], sequence)
            else:
                ranges.append((sequence, sequence))
        return ranges

    def live_entries(self) -> set[int]:
        """Return the indexes of the log entries that hold a live message."""
        entries: set[int] = set()
        for chunk in self._chunks:
            if chunk.dead is None:
                entries.update(chunk.entries)
            else:
                entries.update(
                    e for e, dead in zip(chunk.entries, chunk.dead, strict=True) if not dead
                )
        return entries

    def to_wire(self) -> list[object]:
        """Return the state as plain values for a snapshot; equal states give equal values."""
        wire: list[object] = [
            self.uid,
            self.next,
            self.mark,
            [
                [
                    chunk.first,
                    chunk.entries.tobytes(),
                    chunk.offsets.tobytes(),
                    chunk.sizes.tobytes(),
                    None if chunk.live == len(chunk) else bytes(chunk.dead or b""),
                ]
                for chunk in self._chunks
            ],
        ]
        if self.publishers is not None:
            wire.append(self.publishers.to_wire())
        return wire

    @classmethod
    def from_wire(cls, wire: Wire) -> QueueState:
        """Rebuild the state that `to_wire` gave."""
        uid, next_sequence, mark, chunks, *publishers = wire
        state = cls(uid)
        if publishers:
            state.publishers = Publishers.from_wire(publishers[0])
        state.next = next_sequence
        state.mark = mark
        for first, entries, offsets, sizes, dead in chunks:
            chunk = Chunk(first)
            chunk.entries.frombytes(entries)
            chunk.offsets.frombytes(offsets)
            chunk.sizes.frombytes(sizes)
            chunk.live = len(chunk)
            if dead is not None:
                chunk.dead = bytearray(dead)
                chunk.live = chunk.dead.count(0)
            state._chunks.append(chunk)
            state._firsts.append(first)
            state.live += chunk.live
            state.size_bytes += sum(
                size
                for at, size in enumerate(chunk.sizes)
                if chunk.dead is None or not chunk.dead[at]
            )
        return state
