"""Which messages were sent, and which came, how often, in which order: the judgement. Pure.

Messages are numbered by each producer from 0. Those that a broker marked as redelivered may come
again, and out of order: that is what the mark is for.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable

import msgspec


class Bits:
    """A set of numbers from 0 on, a bit for each up to the largest.

    Example:
        >>> bits = Bits()
        >>> bits.add(3), bits.add(3), len(bits)
        (True, False, 1)
    """

    __slots__ = ("_count", "_octets")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, number: int) -> bool:
        """Put a number in; False if it was."""
        place, bit = number >> 3, 1 << (number & 7)
        octets = self._octets
        if place >= len(octets):
            octets.extend(bytes(place + 1 - len(octets)))
        if octets[place] & bit:
            return False
        octets[place] |= bit
        self._count += 1
        return True

    def packed(self) -> bytes:
        """All of it, compressed; `unpacked` reads it."""
        return zlib.compress(self._octets, 1)


def unpacked(octets: bytes) -> int:
    """A packed set, as a number with a bit for each."""
    return int.from_bytes(zlib.decompress(octets), "little")


class Sent(msgspec.Struct, frozen=True):
    """What one producer sent."""

    producer: int
    attempted: int
    """The messages below this number were sent; the last may have been, when it was stopped."""
    expected: bytes
    """Packed: those confirmed, or without confirms all that were sent."""


class Came(msgspec.Struct, frozen=True):
    """What came of one producer to one queue, in one process."""

    queue: int
    producer: int
    fresh: bytes
    """Packed: those that came without a mark."""
    marked: bytes
    """Packed: those that came marked as redelivered."""
    repeated: int
    """How often one came without a mark that had come so before."""


class Faults(msgspec.Struct):
    """What a process saw at once."""

    unordered: int = 0
    """Messages without a mark that came behind a later one of the same producer."""
    corrupt: int = 0
    redelivered: int = 0
    foreign: int = 0
    """Messages that are not of this run."""

    def add(self, other: Faults) -> None:
        self.unordered += other.unordered
        self.corrupt += other.corrupt
        self.redelivered += other.redelivered
        self.foreign += other.foreign


class Receipts:
    """What the consumers of one process got."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._fresh: defaultdict[tuple[int, int], Bits] = defaultdict(Bits)
        self._marked: defaultdict[tuple[int, int], Bits] = defaultdict(Bits)
        self._repeated: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._last: dict[tuple[int, int], int] = {}

    def take(
        self, *, queue: int, consumer: int, producer: int, sequence: int, is_redelivered: bool
    ) -> None:
        """Note a message that came to a consumer of a queue."""
        key = (queue, producer)
        if is_redelivered:
            self.faults.redelivered += 1
            self._marked[key].add(sequence)
            return
        if not self._fresh[key].add(sequence):
            self._repeated[key] += 1
            return
        place = (consumer, producer)
        if sequence < self._last.get(place, -1):
            self.faults.unordered += 1
        else:
            self._last[place] = sequence

    def came(self) -> list[Came]:
        """All that came, to be sent to the judge."""
        keys = sorted(self._fresh.keys() | self._marked.keys())
        return [
            Came(*key, self._fresh[key].packed(), self._marked[key].packed(), self._repeated[key])
            for key in keys
        ]


class Verdict(msgspec.Struct, frozen=True):
    """What became of the messages, counted once for each queue they were to come to."""

    expected: int
    received: int
    """Different messages that came."""
    lost: int
    """Expected ones that did not come."""
    duplicated: int
    """Deliveries without a mark of what had come before."""
    unordered: int
    corrupt: int
    invented: int
    """Different messages that came, and were not sent."""
    redelivered: int
    """Deliveries marked so: no fault."""
    foreign: int
    """Messages of others, found in the queues: no fault."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.lost + self.duplicated + self.unordered + self.corrupt + self.invented
        return wrong == 0


def judge(
    sent: Iterable[tuple[Sent, tuple[int, ...]]], came: Iterable[Came], faults: Faults
) -> Verdict:
    """Compare what came with what was sent: each producer's, with the queues it reaches."""
    fresh: dict[tuple[int, int], int] = {}
    marked: dict[tuple[int, int], int] = {}
    duplicated = 0
    for one in came:
        key = (one.queue, one.producer)
        bits = unpacked(one.fresh)
        duplicated += one.repeated + (bits & fresh.get(key, 0)).bit_count()
        fresh[key] = fresh.get(key, 0) | bits
        marked[key] = marked.get(key, 0) | unpacked(one.marked)
    expected = lost = received = invented = 0
    known: set[tuple[int, int]] = set()
    for of_producer, queues in sent:
        wanted = unpacked(of_producer.expected)
        for queue in queues:
            key = (queue, of_producer.producer)
            known.add(key)
            here = fresh.get(key, 0) | marked.get(key, 0)
            expected += wanted.bit_count()
            lost += (wanted & ~here).bit_count()
            received += here.bit_count()
            invented += (here >> of_producer.attempted).bit_count()
    for key in (fresh.keys() | marked.keys()) - known:
        strays = (fresh.get(key, 0) | marked.get(key, 0)).bit_count()
        received += strays
        invented += strays
    return Verdict(
        expected=expected,
        received=received,
        lost=lost,
        duplicated=duplicated,
        unordered=faults.unordered,
        corrupt=faults.corrupt,
        invented=invented,
        redelivered=faults.redelivered,
        foreign=faults.foreign,
    )
