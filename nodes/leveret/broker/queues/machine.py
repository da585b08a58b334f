"""The replicated state machine of one shard: its queues' messages.

Rule: total and pure.  Any sequence of commands gives the same state, replies and effects on
every replica; time comes from the entry's stamp alone; input that makes no sense is answered,
never raised.  An exception here is a bug and ends the node.

A command is `<I` length of the head | head (MessagePack array) | raw bytes:

====================================  =====================================================
``(ENQUEUE, uid, sizes)``             raw = the messages one behind the other; `sizes` is an
                                      array of little-endian u32
``(ENQUEUE_NUMBERED, uid, sizes,      the same, of messages that publishers numbered: by turns
publishers, origins)``                the place in `publishers` of who numbered the next, the
                                      first number and how many; publisher "" is nobody
``(SETTLE, uid, [first, last, …])``   these messages are done with (acknowledged, dropped)
``(MARK, uid, sequence)``             messages below `sequence` may be delivered from now on
``(DROP, uid)``                       the queue was deleted
``(ENQUEUE_LIVES, uid, sizes,         as ENQUEUE_NUMBERED, of messages that have a life of their
publishers, origins, lives, limit)``  own: `lives` by name, see `message_life`; `limit` is the
                                      most messages and body bytes that are not spared, or None
``(RETURNED, uid, [first, last, …])`` consumers gave these messages back: it is counted
``(RETURNED, uid, [first, last, …],   likewise; besides, each waits `min` ms for each time that it
min, max)``                           came back, `max` ms at most (None: any)
``(SPARE, uid, count, bytes)``        so many live messages do not count for the limit
``(PAUSE, uid, is_paused)``           nothing is to be delivered, or again
``(HOLD, uid, way)``                  the leader begins to do something with messages; `way` is
                                      what its successor is to finish: the uid of another queue, and
                                      the bounds of what goes there; None: as the last hold says
``(LET_GO, uid, hold)``               that is done
``(CANCEL, uid, hold, [first, …])``   end these messages, if the hold is still in force
``(ENQUEUE_STREAM, uid, sizes,        as ENQUEUE_NUMBERED, and the queue keeps when they came: it
publishers, origins)``                is a stream
``(MOVE, uid, hold, [first, last, …], likewise put them into another queue of the shard, with the
destination, lives, limit)``          lives that they have there, until it is full
``(MEASURE, uid, first, sizes)``      these are the sizes of the bodies of messages from `first`
                                      on, where they are not known
====================================  =====================================================

What a leader must do about it comes out as effects, collected until `take_effects`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgpack

from .arrivals import Arrivals
from .incoming import Incoming, Limit, Origin
from .message_life import Lives
from .moved import move_messages
from .state import QueueState, Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .features import DelayedRetry

Way = tuple[int, list[int]]
"""The uid of a queue, and the bounds of the ranges of messages that go there."""

VERSION: Final = 5
"""Of a snapshot; older ones differ in what they leave out: 4 knew no streams, 3 no pauses and
holds, 2 no lives, 1 no publishers."""

ENQUEUE: Final = 1
SETTLE: Final = 2
MARK: Final = 3
DROP: Final = 4
ENQUEUE_NUMBERED: Final = 5
ENQUEUE_LIVES: Final = 6
RETURNED: Final = 7
SPARE: Final = 8
PAUSE: Final = 9
HOLD: Final = 10
LET_GO: Final = 11
CANCEL: Final = 12
ENQUEUE_STREAM: Final = 13
MOVE: Final = 14
MEASURE: Final = 15

OK: Final = "ok"
GONE: Final = "gone"
"""Reply: the queue was deleted; its messages are gone with it."""
INVALID: Final = "invalid"
ABSENT: Final = "absent"
"""Reply: the queue to which messages should go was deleted."""
STALE: Final = "stale"
"""Reply: the hold is not in force any more; nothing was done."""

TOMBSTONE_MS: Final = 600_000
"""How long a dropped queue refuses what was still under way to it (see `ShardMachine.dropped`)."""

_LENGTH = struct.Struct("<I")


class Enqueued:
    """Effect: messages `first` to `first + count - 1` are in the queue."""

    __slots__ = ("count", "first", "uid")

    def __init__(self, uid: int, first: int, count: int) -> None:
        self.uid, self.first, self.count = uid, first, count


class Settled:
    """Effect: the messages of `ranges` lived until now, and are gone."""

    __slots__ = ("ranges", "uid")

    def __init__(self, uid: int, ranges: list[Range]) -> None:
        self.uid, self.ranges = uid, ranges


class Marked:
    """Effect: messages below `sequence` may be delivered."""

    __slots__ = ("sequence", "uid")

    def __init__(self, uid: int, sequence: int) -> None:
        self.uid, self.sequence = uid, sequence


class Returned:
    """Effect: messages of `ranges` were given back, and it is counted."""

    __slots__ = ("ranges", "uid")

    def __init__(self, uid: int, ranges: list[Range]) -> None:
        self.uid, self.ranges = uid, ranges


class Paused:
    """Effect: the queue is paused, or not any more."""

    __slots__ = ("uid",)

    def __init__(self, uid: int) -> None:
        self.uid = uid


class Measured:
    """Effect: the sizes of some bodies are known that were not."""

    __slots__ = ("uid",)

    def __init__(self, uid: int) -> None:
        self.uid = uid


Effect = Enqueued | Settled | Marked | Returned | Paused | Measured


def full(taken: int) -> tuple[str, int]:
    """Reply: only the first `taken` messages of the command were taken."""
    return "full", taken


def enqueue(uid: int, records: Sequence[bytes]) -> bytes:
    """Return the command that appends `records` to queue `uid`."""
    head = msgpack.packb((ENQUEUE, uid, _packed_sizes(records)))
    return b"".join((_LENGTH.pack(len(head)), head, *records))


def enqueue_numbered(uid: int, records: Sequence[bytes], origins: Iterable[Origin]) -> bytes:
    """Return the command that appends those of `records` to queue `uid` that it has not yet.

    origins: whose numbers the records have, in their order; nobody's are all appended.
    """
    head = msgpack.packb((ENQUEUE_NUMBERED, uid, _packed_sizes(records), *_packed_origins(origins)))
    return b"".join((_LENGTH.pack(len(head)), head, *records))


def enqueue_stream(uid: int, records: Sequence[bytes], origins: Iterable[Origin]) -> bytes:
    """Return the command that appends those of `records` to stream `uid` that it has not yet."""
    head = msgpack.packb((ENQUEUE_STREAM, uid, _packed_sizes(records), *_packed_origins(origins)))
    return b"".join((_LENGTH.pack(len(head)), head, *records))


def enqueue_lives(
    uid: int,
    records: Sequence[bytes],
    origins: Iterable[Origin],
    lives: Lives,
    limit: Limit | None = None,
) -> bytes:
    """Return the command that appends those of `records` that are new, until the queue is full.

    lives: what the records have besides their bytes. limit: None: the queue takes any number.
    """
    head = msgpack.packb(
        (
            ENQUEUE_LIVES,
            uid,
            _packed_sizes(records),
            *_packed_origins(origins),
            lives.to_wire(),
            limit,
        )
    )
    return b"".join((_LENGTH.pack(len(head)), head, *records))


def _packed_origins(origins: Iterable[Origin]) -> tuple[list[str], list[int]]:
    places: dict[str, int] = {}
    flat: list[int] = []
    for publisher, first, stop in origins:
        flat += places.setdefault(publisher, len(places)), first, stop - first
    return list(places), flat


def _packed_sizes(records: Sequence[bytes]) -> bytes:
    return _packed(array("I", map(len, records)))


def _packed(sizes: array[int]) -> bytes:
    if sys.byteorder == "big":
        sizes.byteswap()
    return sizes.tobytes()


def _unpacked_sizes(packed: bytes) -> array[int]:
    sizes = array("I")
    sizes.frombytes(packed)
    if sys.byteorder == "big":
        sizes.byteswap()
    return sizes


def settle(uid: int, ranges: Iterable[Range]) -> bytes:
    """Return the command that ends the messages of `ranges`."""
    return _headed((SETTLE, uid, [bound for pair in ranges for bound in pair]))


def returned(uid: int, ranges: Iterable[Range], retry: DelayedRetry | None = None) -> bytes:
    """Return the command that counts a return of the messages of `ranges`.

    retry: how long they wait; None: they do not.
    """
    wait = () if retry is None else (retry.min_ms, retry.max_ms)
    return _headed((RETURNED, uid, [bound for pair in ranges for bound in pair], *wait))


def spare(uid: int, count: int, body_bytes: int) -> bytes:
    """Return the command that says how many live messages do not count for the limit."""
    return _headed((SPARE, uid, count, body_bytes))


def pause(uid: int, *, is_paused: bool) -> bytes:
    """Return the command that stops the queue's deliveries, or lets them go on."""
    return _headed((PAUSE, uid, is_paused))


def hold(uid: int, way: Way | None) -> bytes:
    """Return the command that puts a new hold in force.

    way: what its successor is to finish. The reply is ("held", its number, how many messages were
    on their way before).
    """
    return _headed((HOLD, uid, way))


def let_go(uid: int, number: int) -> bytes:
    """Return the command that ends a hold."""
    return _headed((LET_GO, uid, number))


def cancel(uid: int, number: int, ranges: Iterable[Range]) -> bytes:
    """Return the command that ends messages under a hold; the reply is ("done", how many)."""
    return _headed((CANCEL, uid, number, [bound for pair in ranges for bound in pair]))


def move(
    uid: int, number: int, ranges: Iterable[Range], destination: int, lives: Lives, limit: Limit
) -> bytes:
    """Return the command that moves messages under a hold; the reply is ("done", how many).

    lives: of all messages in `ranges`, as `destination` sees them.
    """
    bounds = [bound for pair in ranges for bound in pair]
    return _headed((MOVE, uid, number, bounds, destination, lives.to_wire(), limit))


def mark(uid: int, sequence: int) -> bytes:
    """Return the command that permits deliveries below `sequence`."""
    return _headed((MARK, uid, sequence))


def drop(uid: int) -> bytes:
    """Return the command that removes queue `uid` with its messages."""
    return _headed((DROP, uid))


def measure(uid: int, first: int, sizes: array[int]) -> bytes:
    """Return the command that says how large the bodies of messages from `first` on are."""
    return _headed((MEASURE, uid, first, _packed(sizes)))


def _headed(head: tuple[object, ...]) -> bytes:
    packed = msgpack.packb(head)
    return bytes(_LENGTH.pack(len(packed)) + packed)


class ShardMachine:
    """The queues of one shard.  A queue comes to be by its first message."""

    def __init__(self) -> None:
        self.queues: dict[int, QueueState] = {}
        self.dropped: dict[int, int] = {}
        """Deleted queues with the time (ms), so that a late message does not bring one back.
        Kept for `TOMBSTONE_MS`; what comes later still is swept up by the shard's leader."""
        self._effects: list[Effect] = []

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        """Apply one command of log entry `index`, found at byte `offset` of that entry."""
        (length,) = _LENGTH.unpack_from(command)
        head = msgpack.unpackb(memoryview(command)[4 : 4 + length], use_list=False)
        operation, uid = head[0], head[1]
        if operation == ENQUEUE:
            if uid in self.dropped:
                return GONE
            sizes = _unpacked_sizes(head[2])
            first = self._queue(uid).append(index, offset + 4 + length, sizes)
            self._effects.append(Enqueued(uid, first, len(sizes)))
            return OK
        if operation in {ENQUEUE_NUMBERED, ENQUEUE_LIVES, ENQUEUE_STREAM}:
            if uid in self.dropped:
                return GONE
            sizes, publishers, flat = _unpacked_sizes(head[2]), head[3], head[4]
            if sum(flat[2::3]) != len(sizes):
                return INVALID
            numbered = self._queue(uid)
            first = numbered.next
            origins = [
                Origin(publishers[place], number, number + count)
                for place, number, count in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            ]
            incoming = Incoming(index, offset + 4 + length, sizes, stamp_ms)
            taken = len(sizes)
            if operation == ENQUEUE_LIVES:
                incoming.traits = Lives.from_wire(head[5]).traits(stamp_ms)
                if any(len(column) != taken for column in incoming.traits.values()):
                    return INVALID
                if head[6] is not None:
                    taken = incoming.append_limited(numbered, origins, head[6])
                else:
                    incoming.append(numbered, origins)
            else:
                incoming.append(numbered, origins)
            if operation == ENQUEUE_STREAM:
                if numbered.arrivals is None:
                    numbered.arrivals = Arrivals()
                if numbered.next > first:
                    numbered.arrivals.note(first, stamp_ms)
            if numbered.next > first:
                self._effects.append(Enqueued(uid, first, numbered.next - first))
            return OK if taken == len(sizes) else full(taken)
        if operation == RETURNED:
            queue = self.queues.get(uid)
            if queue is None:
                return GONE
            bounds = head[2]
            ranges = [
                pair
                for low, high in zip(bounds[::2], bounds[1::2], strict=True)
                for pair in queue.live_ranges(low, high)
            ]
            for low, high in ranges:
                for sequence in range(low, high + 1):
                    count = queue.returns[sequence] = queue.returns.get(sequence, 0) + 1
                    if len(head) > 3:
                        wait_ms = (
                            head[3] * count if head[4] is None else min(head[3] * count, head[4])
                        )
                        queue.set_trait("due", sequence, stamp_ms + wait_ms)
            if ranges:
                self._effects.append(Returned(uid, ranges))
            return OK
        if operation == SPARE:
            queue = self.queues.get(uid)
            if queue is None:
                return GONE
            queue.spared, queue.spared_bytes = head[2], head[3]
            return OK
        if operation == MEASURE:
            queue = self.queues.get(uid)
            if queue is None:
                return GONE
            queue.measure(head[2], _unpacked_sizes(head[3]))
            self._effects.append(Measured(uid))
            return OK
        if operation in {PAUSE, HOLD, LET_GO, CANCEL, MOVE}:
            if uid in self.dropped:
                return GONE
            return self._act(self._queue(uid), operation, head[2:], stamp_ms)
        if operation == SETTLE:
            queue = self.queues.get(uid)
            if queue is None:
                return GONE
            bounds = head[2]
            killed = queue.settle(zip(bounds[::2], bounds[1::2], strict=True))
            if killed:
                self._effects.append(Settled(uid, killed))
            return OK
        if operation == MARK:
            if uid in self.dropped:
                return GONE
            marked = self._queue(uid)
            marked.mark = max(marked.mark, head[2])
            self._effects.append(Marked(uid, marked.mark))
            return OK
        if operation == DROP:
            queue = self.queues.pop(uid, None)
            for old in [u for u, at in self.dropped.items() if at < stamp_ms - TOMBSTONE_MS]:
                del self.dropped[old]
            self.dropped[uid] = stamp_ms
            return OK if queue is None else queue.live
        return INVALID

    def _act(
        self, queue: QueueState, operation: int, values: Sequence[Any], stamp_ms: int
    ) -> object:
        """Do what an operator wants of a queue."""
        if operation == PAUSE:
            queue.is_paused = values[0]
            self._effects.append(Paused(queue.uid))
            return OK
        if operation == HOLD:
            queue.holds += 1
            queue.hold = queue.holds
            before = queue.moves
            if values[0] is not None:
                destination, bounds = values[0]
                queue.intent = destination, before, bounds
                queue.moves += sum(bounds[1::2]) - sum(bounds[::2]) + len(bounds) // 2
            return "held", queue.hold, before
        if values[0] != queue.hold:
            return STALE
        if operation == LET_GO:
            queue.hold, queue.intent = 0, None
            return OK
        bounds = values[1]
        ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
        if operation == MOVE:
            uid = values[2]
            if uid in self.dropped:
                return ABSENT
            target = self._queue(uid)
            first = target.next
            traits = Lives.from_wire(values[3]).traits(stamp_ms)
            ranges = move_messages(queue, target, ranges, traits, values[4])
            if ranges:
                self._effects.append(Enqueued(uid, first, target.next - first))
        killed = queue.settle(ranges)
        if killed:
            self._effects.append(Settled(queue.uid, killed))
        return "done", sum(high - low + 1 for low, high in killed)

    def _queue(self, uid: int) -> QueueState:
        queue = self.queues.get(uid)
        if queue is None:
            queue = self.queues[uid] = QueueState(uid)
        return queue

    def take_effects(self) -> list[Effect]:
        """Return the effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def live_entries(self) -> list[int]:
        """Return the indexes of the log entries that hold a live message, ascending."""
        entries: list[int] = []
        for queue in self.queues.values():
            entries += queue.live_entries()
        # Ascending runs: for the sort that is little work, and for a set it would be much.
        entries.sort()
        return [entry for entry, _ in groupby(entries)]

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        queues = self.queues.values()
        version = 1
        if any(queue.arrivals is not None for queue in queues):
            version = VERSION
        elif any(queue.has_actions for queue in queues):
            version = 4
        elif any(queue.has_traits or queue.returns or queue.spared for queue in queues):
            version = 3
        elif any(queue.publishers is not None for queue in queues):
            version = 2
        return bytes(
            msgpack.packb(
                [
                    version,
                    sorted(self.dropped.items()),
                    [self.queues[uid].to_wire() for uid in sorted(self.queues)],
                ]
            )
        )

    def restore(self, state: bytes) -> None:
        """Take over what `snapshot` returned.

        Raises:
            ValueError: the state has a version that this program does not know.
        """
        version, dropped, queues = msgpack.unpackb(state, use_list=False)
        if not 1 <= version <= VERSION:
            message = f"shard snapshot has version {version}, this program reads up to {VERSION}"
            raise ValueError(message)
        self.dropped = dict(dropped)
        self.queues = {wire[0]: QueueState.from_wire(wire) for wire in queues}
        self._effects = []
