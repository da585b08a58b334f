"""Streams: every reader sees the one order that there is, all of it from where it began.

What is promised: a confirmed message has one offset, which is its own for ever; messages of one
publisher's connection, or of one that numbers them, are there once and in their order; a reader
gets the offsets from where it began on, one after the other. What no answer came for may be there
or not, and a stream with a limit may have ended its oldest messages: those before the first one
that a reader of the calm, after all faults, was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chaos.checkers.messages import complaint, shown
from chaos.history import (
    CaughtUp,
    Event,
    Fault,
    Following,
    MessageId,
    Outcome,
    Publish,
    Read,
    Recovered,
    Settle,
    StreamDeclared,
)

OVERHEAD_BYTES = 100
"""A message is stored with its properties and its routing key: so much more than its body."""


@dataclass
class _Reading:
    """One session of a reader."""

    began: Following
    reads: list[Read] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    most_open: int = 0
    is_caught_up: bool = False


@dataclass
class _Book:
    """What a history says of one stream."""

    max_bytes: int | None
    readings: dict[str, _Reading] = field(default_factory=dict)
    published: dict[MessageId, float] = field(default_factory=dict)
    confirmed: dict[MessageId, float] = field(default_factory=dict)
    at: dict[int, Read] = field(default_factory=dict)
    """The first read of each offset."""
    offsets: dict[MessageId, int] = field(default_factory=dict)
    """The lowest one at which each message is."""
    calm_since: float = 0.0
    """The last fault is over, and all nodes have served the queues again."""

    @property
    def end(self) -> int:
        """The highest offset that anybody read; -1: none."""
        return max(self.at, default=-1)

    def whole(self) -> list[_Reading]:
        """Return the readings of all that is left after the faults."""
        return [
            reading
            for reading in self.readings.values()
            if reading.is_caught_up
            and reading.began.start == "first"
            and reading.began.asked >= self.calm_since
        ]

    @property
    def kept(self) -> int:
        """The first offset that is left at the end; without a limit that is 0."""
        if self.max_bytes is None:
            return 0
        return max((one.reads[0].offset for one in self.whole() if one.reads), default=0)

    def may_follow(self, offset: int, expected: int) -> bool:
        """Whether a reader that is to get `expected` may get `offset`."""
        return offset == expected or expected < offset <= self.kept


def streams(events: Iterable[Event]) -> Iterator[str]:
    """Complain of whatever is wrong with the streams of a history."""
    for queue, book in _books(events).items():
        for what, check in CHECKS.items():
            yield from complaint(f"stream {what}", [f"{one} of {queue}" for one in check(book)])


def _books(events: Iterable[Event]) -> dict[str, _Book]:
    books: dict[str, _Book] = {}
    queues: dict[MessageId, tuple[str, ...]] = {}
    calm_since = 0.0
    for event in events:
        match event:
            case StreamDeclared():
                books[event.queue] = _Book(event.max_bytes)
            case Publish():
                queues[event.id] = event.queues
                for queue in books.keys() & set(event.queues):
                    books[queue].published.setdefault(event.id, event.t)
            case Outcome(type="ok"):
                for queue in books.keys() & set(queues.get(event.id, ())):
                    books[queue].confirmed.setdefault(event.id, event.t)
            case Following():
                books[event.queue].readings[event.session] = _Reading(event)
            case Read():
                _note_read(books[event.queue], event)
            case Settle() if event.queue in books:
                books[event.queue].readings[event.session].open.discard(event.tag)
            case CaughtUp():
                books[event.queue].readings[event.session].is_caught_up = True
            case Fault():
                calm_since = max(calm_since, event.until)
            case Recovered():
                calm_since = max(calm_since, event.t)
    for book in books.values():
        book.calm_since = calm_since
    return books


def _note_read(book: _Book, read: Read) -> None:
    reading = book.readings[read.session]
    reading.reads.append(read)
    reading.open.add(read.tag)
    reading.most_open = max(reading.most_open, len(reading.open))
    book.at.setdefault(read.offset, read)
    if read.id is not None:
        before = book.offsets.setdefault(read.id, read.offset)
        book.offsets[read.id] = min(before, read.offset)


def _phantoms(book: _Book) -> Iterator[str]:
    """Messages that nobody published there, or that are damaged."""
    for reading in book.readings.values():
        for read in reading.reads:
            if read.id is None:
                yield f"damaged at {read.offset}, read at {read.t:.3f}"
            elif read.id not in book.published:
                yield f"{shown(read.id)} at {read.offset}, read at {read.t:.3f}"


def _changes(book: _Book) -> Iterator[str]:
    """Offsets that had one message and then another."""
    for reading in book.readings.values():
        for read in reading.reads:
            first = book.at[read.offset]
            if first.id is not None and read.id is not None and first.id != read.id:
                yield (
                    f"{read.offset} is {shown(first.id)} for {first.session} at {first.t:.3f} and"
                    f" {shown(read.id)} for {read.session} at {read.t:.3f}"
                )


def _repeats(book: _Book) -> Iterator[str]:
    """Messages that are at two offsets."""
    for offset, read in sorted(book.at.items()):
        if read.id is not None and book.offsets[read.id] != offset:
            yield f"{shown(read.id)} at {book.offsets[read.id]} and {offset}"


def _disorder(book: _Book) -> Iterator[str]:
    """Messages that are before an earlier one of the same publisher's connection."""
    newest: dict[tuple[str, int], MessageId] = {}
    for id_, offset in sorted(book.offsets.items(), key=lambda pair: pair[1]):
        before = newest.setdefault((id_.publisher, id_.epoch), id_)
        if id_.number < before.number:
            yield f"{shown(id_)} at {offset} behind {before.number}"
        else:
            newest[id_.publisher, id_.epoch] = id_


def _starts(book: _Book) -> Iterator[str]:
    """Readers that began elsewhere than they asked for."""
    for reading in book.readings.values():
        if reading.reads:
            offset = reading.reads[0].offset
            least, most = _bounds(book, reading.began)
            if not (least <= offset <= max(most, book.kept)):
                yield (
                    f"{reading.began.session} asked for {reading.began.start} at"
                    f" {reading.began.asked:.3f} and got {offset}, not {least} to {most}"
                )


def _bounds(book: _Book, began: Following) -> tuple[int, int]:
    """Return the least and the highest offset that a reader may get first, but for the limit.

    What was published after its answer came, it must get. What was confirmed before it asked it
    may get with "next" during faults alone: a leader that is none any more says where it begins.
    """
    if isinstance(began.start, int):
        return began.start, began.start
    if began.start == "first":
        return 0, 0
    later = [offset for id_, offset in book.offsets.items() if book.published.get(id_, 0) > began.t]
    is_strict = began.start == "next" and began.asked >= book.calm_since
    return _newest(book, began) + 1 if is_strict else 0, min(later, default=book.end + 1)


def _newest(book: _Book, began: Following) -> int:
    """Return the highest offset that was confirmed before a reader asked; -1: none."""
    earlier = [
        offset
        for id_, offset in book.offsets.items()
        if id_ in book.confirmed and book.confirmed[id_] < began.asked
    ]
    return max(earlier, default=-1)


def _gaps(book: _Book) -> Iterator[str]:
    """Readers that were not given one offset after the other."""
    for reading in book.readings.values():
        for before, read in zip(reading.reads, reading.reads[1:], strict=False):
            if not book.may_follow(read.offset, before.offset + 1):
                yield (f"{read.offset} behind {before.offset} for {read.session} at {read.t:.3f}")


def _stuck(book: _Book) -> Iterator[str]:
    """Readers that had time to read all there was, and did not get it."""
    for session, reading in book.readings.items():
        if not reading.is_caught_up:
            continue
        following = _bounds(book, reading.began)[1]
        if reading.began.start == "last" and (newest := _newest(book, reading.began)) >= 0:
            following = newest
        if reading.reads:
            following = reading.reads[-1].offset + 1
        if following <= book.end:
            yield f"{session} got nothing from {following} on, and {book.end} is there"


def _greedy(book: _Book) -> Iterator[str]:
    """Readers that held more than they had room for; what a limit ended makes room unasked."""
    for session, reading in book.readings.items():
        if book.max_bytes is None and reading.most_open > reading.began.prefetch:
            yield f"{session} held {reading.most_open} with room for {reading.began.prefetch}"


def _lost(book: _Book) -> Iterator[str]:
    """Confirmed messages that are not there at the end."""
    wholes = book.whole()
    if not wholes:
        yield "nobody could read all of it at the end"
    for whole in wholes:
        left = {read.id for read in whole.reads}
        missing = [
            id_
            for id_ in book.confirmed
            if id_ not in left and book.offsets.get(id_, book.kept) >= book.kept
        ]
        # What a limit ended before anybody saw it was among these, but no more than that.
        unseen = book.kept - sum(offset < book.kept for offset in book.at)
        never = [id_ for id_ in missing if id_ not in book.offsets]
        seen = [id_ for id_ in missing if id_ in book.offsets]
        for id_ in (*seen, *(never if len(never) > unseen else ())):
            yield (
                f"{shown(id_)}, confirmed at {book.confirmed[id_]:.3f}, for {whole.began.session}"
            )


def _limit(book: _Book) -> Iterator[str]:
    """Limits that were not kept at the end, or took more than they should."""
    if book.max_bytes is None:
        return
    kept, end = book.kept, book.end
    bodies = sum(book.at[offset].size for offset in range(kept, end + 1) if offset in book.at)
    if kept < end and bodies > book.max_bytes:
        yield f"{bodies} bytes are left from {kept} to {end}, {book.max_bytes} at most"
    if kept and kept - 1 in book.at:
        most = book.at[kept - 1].size + bodies + OVERHEAD_BYTES * (end - kept + 2)
        if most <= book.max_bytes:
            yield f"{kept - 1} is gone, though {most} bytes are no more than {book.max_bytes}"


CHECKS: Final[dict[str, Callable[[_Book], Iterator[str]]]] = {
    "phantom": _phantoms,
    "changed": _changes,
    "twice": _repeats,
    "order": _disorder,
    "start": _starts,
    "gap": _gaps,
    "stuck": _stuck,
    "prefetch": _greedy,
    "lost": _lost,
    "limit": _limit,
}
"""Which finding means which complaint."""
