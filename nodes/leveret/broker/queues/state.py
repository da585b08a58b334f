"""The replicated state of one queue: which messages live, and where their bytes are.

Rule: everything here is a pure function of the log.  Who holds a message, in which order
consumers are served, what was written to a socket: all of that is the dispatcher's soft state.

A message is known by its sequence number, counted from 1 in each queue and never reused.
Its bytes stay in the log entry that brought it; memory holds 17 bytes a message, in columns
of up to `CHUNK_MESSAGES`, because a Python object a message would cost ten times as much.
What only some messages have (`TRAITS`) is in columns of its own, where there is one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from .arrivals import Arrivals
from .publishers import Publishers

CHUNK_MESSAGES: Final = 1024
DENSE: Final = 8
"""Messages an entry, from which on it is quicker to look for the next entry than at each."""

Trait = Literal["deadline", "due", "priority", "body"]

TRAITS: Final[dict[Trait, str]] = {"deadline": "Q", "due": "Q", "priority": "B", "body": "I"}
"""What a message may have besides its bytes, and how a column of it is kept; 0 is without.

deadline: when it expires (ms); due: before which it is not delivered (ms); priority;
body: bytes of its body, where the queue's are limited.
"""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .arrivals import ArrivalsWire

    ChunkWire = (
        tuple[int, bytes, bytes, bytes, bytes | None]
        | tuple[int, bytes, bytes, bytes, bytes | None, Mapping[Trait, bytes]]
    )
    PublisherWire = tuple[str, int, list[int]]
    MoreWire = tuple[list[tuple[int, int]], int, int, *tuple[object, ...]]
    ActionsWire = tuple[bool, int, int, "tuple[int, Intent | None] | None"]

Columns = dict[Trait, "array[int]"]
"""One value a message, of some messages that came together."""

Range = tuple[int, int]
"""Sequence numbers from the first to the second, both included."""


Intent = tuple[int, int, tuple[int, ...]]
"""The uid of the queue to which messages are on their way, the number before that of the first
under which they are published there, and the bounds of their ranges here."""


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

    __slots__ = ("dead", "entries", "first", "live", "offsets", "sizes", "traits")

    def __init__(self, first: int) -> None:
        self.first = first
        self.entries = array("Q")
        self.offsets = array("I")
        self.sizes = array("I")
        self.dead: bytearray | None = None
        self.traits: Columns = {}
        self.live = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def append(
        self, entry: int, offsets: Iterable[int], sizes: array[int], traits: Columns
    ) -> None:
        """Add messages of one entry; all but `entry` have one element a message."""
        for trait in traits.keys() | self.traits.keys():
            column = self.traits.get(trait)
            if column is None:
                column = self.traits[trait] = array(TRAITS[trait])
                column.extend((0,) * len(self.sizes))
            column.extend(traits[trait] if trait in traits else (0,) * len(sizes))
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

    __slots__ = (
        "_chunks",
        "_firsts",
        "arrivals",
        "body_bytes",
        "hold",
        "holds",
        "intent",
        "is_paused",
        "live",
        "mark",
        "moves",
        "next",
        "publishers",
        "returns",
        "size_bytes",
        "spared",
        "spared_bytes",
        "traits",
        "uid",
    )

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
        self.traits: set[Trait] = set()
        """Those that some message has, or had since this copy of the state was made."""
        self.body_bytes = 0
        """Bytes of the live messages' bodies, as far as they are counted."""
        self.returns: dict[int, int] = {}
        """How often live messages came back from consumers, where that is counted."""
        self.spared = 0
        """Live messages that do not count for the queue's limit: consumers hold them."""
        self.spared_bytes = 0
        """Bytes of their bodies."""
        self.is_paused = False
        """Nothing is delivered."""
        self.hold = 0
        """Which hold is in force; 0: none.  A leader that does something with messages on an
        operator's behalf takes one first.  The next leader replaces it before it delivers, and
        what the former one still had under way is void."""
        self.holds = 0
        """How many there were."""
        self.moves = 0
        """Numbers that were given to messages on their way to other queues."""
        self.intent: Intent | None = None
        """What is to be done with messages under the hold, should its leader be no more."""
        self.arrivals: Arrivals | None = None
        """When the messages came, of a stream."""
        self._chunks: list[Chunk] = []
        self._firsts: list[int] = []

    def append(
        self, entry: int, offset: int, sizes: array[int], traits: Columns | None = None
    ) -> int:
        """Add messages that lie one behind the other from `offset` of log entry `entry`.

        `sizes` holds the bytes of each.  Returns the first one's sequence number.
        """
        traits = traits or {}
        self.traits |= traits.keys()
        if "body" in traits:
            self.body_bytes += sum(traits["body"])
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
                chunk.append(entry, offsets, sizes, traits)
            else:
                part = slice(done, done + take)
                chunk.append(
                    entry,
                    offsets[part],
                    sizes[part],
                    {trait: column[part] for trait, column in traits.items()},
                )
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
                    bodies = chunk.traits.get("body")
                    if bodies is not None:
                        self.body_bytes -= sum(
                            sum(bodies[a - chunk.first : b - chunk.first + 1]) for a, b in gone
                        )
                if chunk.live == 0:
                    del self._chunks[position], self._firsts[position]
                else:
                    position += 1
        count = sum(high - low + 1 for low, high in killed)
        self.live -= count
        if self.spared:
            # Mostly it is what consumers held that is settled; the leader corrects the rest.
            self.spared = max(self.spared - count, 0)
        if self.returns:
            for low, high in killed:
                for sequence in self.returns.keys() & range(low, high + 1):
                    del self.returns[sequence]
        if self.arrivals is not None and killed:
            self.arrivals.forget_before(self.first)
        return killed

    @property
    def has_actions(self) -> bool:
        """Whether an operator did something with this queue that is remembered."""
        return self.is_paused or self.holds > 0

    @property
    def first(self) -> int:
        """The first live message; if there is none, the one to come."""
        if not self._chunks:
            return self.next
        chunk = self._chunks[0]
        return chunk.first + (0 if chunk.dead is None else chunk.dead.find(0))

    def first_of_last_entry(self) -> int:
        """Return the first live message that came with the last one; without any, the next."""
        first = self.next
        entry: int | None = None
        for chunk in reversed(self._chunks):
            for at in reversed(range(len(chunk))):
                if chunk.dead is not None and chunk.dead[at]:
                    continue
                if entry is None:
                    entry = chunk.entries[at]
                elif chunk.entries[at] != entry:
                    return first
                first = chunk.first + at
        return first

    @property
    def has_traits(self) -> bool:
        """Whether a column of some trait is part of the state now."""
        return any(chunk.traits for chunk in self._chunks)

    def trait(self, trait: Trait, sequence: int) -> int:
        """Return what message `sequence` has; 0 if it has none, or does not live."""
        position = bisect_right(self._firsts, sequence) - 1
        if position < 0:
            return 0
        chunk = self._chunks[position]
        column = chunk.traits.get(trait)
        at = sequence - chunk.first
        return column[at] if column is not None and at < len(column) else 0

    def set_trait(self, trait: Trait, sequence: int, value: int) -> None:
        """Give message `sequence`, which lives, something besides its bytes."""
        chunk = self._chunks[bisect_right(self._firsts, sequence) - 1]
        column = chunk.traits.get(trait)
        if column is None:
            column = chunk.traits[trait] = array(TRAITS[trait])
            column.extend((0,) * len(chunk))
        column[sequence - chunk.first] = value
        self.traits.add(trait)

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
        for place in range(position, len(self._chunks)):  # a slice would copy ten thousands
            chunk = self._chunks[place]
            start = max(sequence - chunk.first, 0)
            for at in range(start, len(chunk)):
                if chunk.dead is None or not chunk.dead[at]:
                    yield (
                        chunk.first + at,
                        Location(chunk.entries[at], chunk.offsets[at], chunk.sizes[at]),
                    )

    def unmeasured(self, sequence: int) -> Iterator[tuple[int, Location]]:
        """Yield the live messages from `sequence` on whose bodies are not known to have a size.

        The queue must not change while the iterator is in use.
        """
        position = max(bisect_right(self._firsts, sequence) - 1, 0)
        for place in range(position, len(self._chunks)):
            chunk = self._chunks[place]
            column = chunk.traits.get("body")
            if column is not None and 0 not in column:
                continue
            for at in range(max(sequence - chunk.first, 0), len(chunk)):
                if (column is None or not column[at]) and not (chunk.dead and chunk.dead[at]):
                    yield (
                        chunk.first + at,
                        Location(chunk.entries[at], chunk.offsets[at], chunk.sizes[at]),
                    )

    def measure(self, first: int, sizes: Iterable[int]) -> None:
        """Keep the sizes of the bodies of messages from `first` on, where none is known."""
        for sequence, size in enumerate(sizes, first):
            if not size or self.locate(sequence) is None:
                continue
            chunk = self._chunks[bisect_right(self._firsts, sequence) - 1]
            column = chunk.traits.get("body")
            if column is None:
                column = chunk.traits["body"] = array(TRAITS["body"], (0,) * len(chunk))
                self.traits.add("body")
            if not column[sequence - chunk.first]:
                column[sequence - chunk.first] = size
                self.body_bytes += size

    def nth_live(self, number: int) -> int:
        """Return the sequence number of live message `number`, the first being 0.

        With fewer messages it is `next`.  Costs a step a thousand messages.
        """
        for chunk in self._chunks:
            if number < chunk.live:
                alive = (at for at in range(len(chunk)) if not (chunk.dead and chunk.dead[at]))
                return chunk.first + next(islice(alive, number, None))
            number -= chunk.live
        return self.next

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

    def live_entries(self) -> list[int]:
        """Return the indexes of the log entries that hold a live message, ascending.

        One may be there several times.
        """
        entries: list[int] = []
        for chunk in self._chunks:
            column = chunk.entries
            if chunk.dead is not None:
                entries += (e for e, dead in zip(column, chunk.dead, strict=True) if not dead)
            elif column[-1] - column[0] > len(column) // DENSE:
                entries += column
            else:
                # Few entries with many messages each: from one to the next at a leap.
                at = 0
                while at < len(column):
                    entries.append(column[at])
                    at = bisect_right(column, column[at], at)
        return entries

    def _moves_to_wire(self) -> list[object] | None:
        return [self.moves, self.intent] if self.moves else None

    def to_wire(self) -> list[object]:
        """Return the state as plain values for a snapshot; equal states give equal values."""
        wire: list[object] = [
            self.uid,
            self.next,
            self.mark,
            [_chunk_to_wire(chunk) for chunk in self._chunks],
        ]
        more: list[object] = []
        has_actions = self.has_actions or self.arrivals is not None
        if self.returns or self.spared or has_actions:
            more = [sorted(self.returns.items()), self.spared, self.spared_bytes]
        if has_actions:
            more += [self.is_paused, self.hold, self.holds, self._moves_to_wire()]
        if self.arrivals is not None:
            more.append(self.arrivals.to_wire())
        if self.publishers is not None or more:
            wire.append(None if self.publishers is None else self.publishers.to_wire())
        if more:
            wire.append(more)
        return wire

    @classmethod
    def from_wire(cls, wire: Sequence[object]) -> QueueState:
        """Rebuild the state that `to_wire` gave."""
        uid, next_sequence, mark, chunks, publishers, more = (*wire, None, None)[:6]
        state = cls(cast("int", uid))
        if publishers is not None:
            state.publishers = Publishers.from_wire(cast("Sequence[PublisherWire]", publishers))
        state.next = cast("int", next_sequence)
        state.mark = cast("int", mark)
        for chunk_wire in cast("Sequence[ChunkWire]", chunks):
            chunk = _chunk_from_wire(*chunk_wire)
            state._chunks.append(chunk)
            state._firsts.append(chunk.first)
            state.live += chunk.live
            state.size_bytes += _sum_live(chunk, chunk.sizes)
            if "body" in chunk.traits:
                state.body_bytes += _sum_live(chunk, chunk.traits["body"])
            state.traits |= chunk.traits.keys()
        if more is not None:
            returns, state.spared, state.spared_bytes, *further = cast("MoreWire", more)
            state.returns = dict(returns)
            if further:
                state.is_paused, state.hold, state.holds, moves = cast("ActionsWire", further[:4])
                if moves is not None:
                    state.moves, state.intent = moves
            if len(further) > 4:
                state.arrivals = Arrivals.from_wire(cast("ArrivalsWire", further[4]))
        return state


def _chunk_to_wire(chunk: Chunk) -> list[object]:
    wire: list[object] = [
        chunk.first,
        chunk.entries.tobytes(),
        chunk.offsets.tobytes(),
        chunk.sizes.tobytes(),
        None if chunk.live == len(chunk) else bytes(chunk.dead or b""),
    ]
    if chunk.traits:
        wire.append({trait: chunk.traits[trait].tobytes() for trait in sorted(chunk.traits)})
    return wire


def _chunk_from_wire(
    first: int,
    entries: bytes,
    offsets: bytes,
    sizes: bytes,
    dead: bytes | None,
    traits: Mapping[Trait, bytes] | None = None,
) -> Chunk:
    chunk = Chunk(first)
    chunk.entries.frombytes(entries)
    chunk.offsets.frombytes(offsets)
    chunk.sizes.frombytes(sizes)
    chunk.live = len(chunk)
    if dead is not None:
        chunk.dead = bytearray(dead)
        chunk.live = chunk.dead.count(0)
    for trait, column in (traits or {}).items():
        chunk.traits[trait] = array(TRAITS[trait])
        chunk.traits[trait].frombytes(column)
    return chunk


def _sum_live(chunk: Chunk, column: array[int]) -> int:
    if chunk.dead is None:
        return sum(column)
    return sum(value for value, dead in zip(column, chunk.dead, strict=True) if not dead)
