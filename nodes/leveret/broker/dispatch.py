"""Who gets the next message: the soft state of a queue's leader.

Pure bookkeeping: ready messages in order, consumers with their credit, who holds what.  It is
built anew from the replicated state whenever this node becomes the queue's leader, and nothing
in it needs to survive.

Every live message is in exactly one place: *fresh* (from the cursor on, not handed out in this
leadership), *returned* (handed out and given back), *held* by a consumer, or *settling*: a node
said that its end is on the way through the log.  What is fresh is not counted here but read from
the state: that one may be ahead of the effects told so far.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .queue_state import Location, QueueState, Range

ConsumerKey = tuple[int, int]
"""Node of the consumer's channel, and the consumer's number on that node."""

WINDOW: Final = 2_000
WINDOW_BYTES: Final = 2 << 20
"""Messages, and their bytes, handed to a consumer and not yet written to its socket: bounds what
a client that never reads can make the broker buffer.  One message may go over."""

MARK_AHEAD: Final = 500
"""When fewer messages than this may still be delivered below the mark, it is moved on."""

MARK_STEP: Final = 1_000
"""How far ahead of the cursor the mark is put: after a change of leader at most this many
messages count as redelivered that never were delivered."""


class Delivery:
    """One message on its way to a consumer."""

    __slots__ = ("location", "redelivered", "sequence")

    def __init__(self, sequence: int, location: Location, *, redelivered: bool) -> None:
        self.sequence = sequence
        self.location = location
        self.redelivered = redelivered


class Consumer:
    """A consumer as the leader sees it."""

    __slots__ = (
        "attachment",
        "exclusive",
        "held",
        "key",
        "no_ack",
        "paused",
        "prefetch",
        "priority",
        "unwritten",
        "unwritten_bytes",
    )

    def __init__(
        self,
        key: ConsumerKey,
        *,
        prefetch: int,
        no_ack: bool,
        exclusive: bool,
        priority: int = 0,
        attachment: int = 0,
    ) -> None:
        self.key = key
        self.attachment = attachment
        """Which registration of it this is, as its own node counts them: deliveries and what is
        written are told with it, so that those of an earlier one do not count."""
        self.prefetch = prefetch
        """Unacknowledged messages it may hold; 0 is unlimited."""
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.held: set[int] = set()
        self.unwritten = 0
        self.unwritten_bytes = 0
        self.paused = False
        """Its channel is at a limit of its own."""

    def room(self) -> int:
        """Return how many messages may be handed to it now."""
        if self.paused or self.unwritten_bytes >= WINDOW_BYTES:
            return 0
        room = WINDOW - self.unwritten
        if self.prefetch and not self.no_ack:
            room = min(room, self.prefetch - len(self.held))
        return max(room, 0)


class Dispatcher:
    """Ready messages and consumers of one queue on its leader."""

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._cursor = next((sequence for sequence, _ in state.live_from(1)), state.next)
        """All live messages from here on are fresh, but for those in `_ahead`."""
        self._ahead: set[int] = set()
        """Live messages from the cursor on that are held or settling, not fresh."""
        self._suspect_below = state.mark
        """An earlier leader may have delivered messages below this: they count as redelivered."""
        self._returned: dict[int, bool] = {}
        """Messages before the cursor that are ready again, and whether a client saw them."""
        self._returned_order: list[int] = []
        """A heap of the keys of `_returned`, with some that are no longer in it."""
        self._holders: dict[int, Consumer] = {}
        self._settling: dict[int, int] = {}
        """The node whose word is awaited for each settling message."""
        self._turns: deque[Consumer] = deque()
        self.consumers: dict[ConsumerKey, Consumer] = {}

    @property
    def ready(self) -> int:
        """Messages that no consumer holds.  Costs a step a thousand messages."""
        fresh = self._state.live_count_from(self._cursor) - len(self._ahead)
        return max(fresh, 0) + len(self._returned)

    @property
    def unacked(self) -> int:
        """Messages that consumers hold."""
        return len(self._holders)

    # Consumers

    def add(self, consumer: Consumer, *, takes_turns: bool = True) -> None:
        """Register `consumer`; one that takes no turns only holds what `take` gives it."""
        self.consumers[consumer.key] = consumer
        if takes_turns:
            self._turns.append(consumer)

    def stop(self, consumer: Consumer) -> None:
        """Give the consumer nothing more.  What it holds stays with its channel."""
        if consumer in self._turns:
            self._turns.remove(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Forget the consumer; what it holds is ready again."""
        self.stop(consumer)
        self.give_back(consumer, list(consumer.held))
        self.consumers.pop(consumer.key, None)

    @property
    def active(self) -> int:
        """How many consumers take turns."""
        return len(self._turns)

    def has_exclusive(self) -> bool:
        """Say whether a consumer has this queue for itself."""
        return any(consumer.exclusive for consumer in self._turns)

    # Messages

    def adopt(self, state: QueueState) -> None:
        """Go on with `state`, which came to be after this dispatcher of a queue without any."""
        self._state = state

    def claim(self, consumer: Consumer, sequences: Iterable[int]) -> None:
        """Let `consumer` hold messages that it got from an earlier leader, where they are ready."""
        for sequence in sequences:
            if sequence >= self._cursor:
                if sequence in self._ahead or self._state.locate(sequence) is None:
                    continue
                self._ahead.add(sequence)
            elif self._returned.pop(sequence, None) is None:
                continue
            self._hold(consumer, sequence)

    def release(self, sequences: Iterable[int]) -> None:
        """Note that the end of these messages is on its way: their holders get credit."""
        for sequence in sequences:
            holder = self._holders.pop(sequence, None)
            if holder is not None:
                holder.held.discard(sequence)
                self._settling[sequence] = holder.key[0]

    def settled(self, ranges: Iterable[Range]) -> None:
        """Note that these messages, alive until now, are gone."""
        for low, high in ranges:
            gone = range(low, high + 1)
            # Intersections, not a loop over all that went: mostly `release` was there before.
            self.release(self._holders.keys() & gone)
            for sequence in self._settling.keys() & gone:
                del self._settling[sequence]
            for sequence in self._returned.keys() & gone if self._returned else ():
                del self._returned[sequence]
            if self._ahead:
                self._ahead.difference_update(gone)

    def written(self, consumer: Consumer, count: int, size_bytes: int) -> None:
        """Note that so much left for the consumer's socket."""
        consumer.unwritten -= count
        consumer.unwritten_bytes -= size_bytes

    def give_back(
        self, consumer: Consumer, sequences: Iterable[int], *, delivered: bool = True
    ) -> None:
        """Return messages that `consumer` holds to their original places.

        `delivered` is False when the client never saw them: they are not marked redelivered.
        What was handed counts as unwritten until `written` is told, given back or not.
        """
        for sequence in sequences:
            if self._holders.get(sequence) is not consumer:
                continue
            del self._holders[sequence]
            consumer.held.discard(sequence)
            self._return(sequence, delivered=delivered)

    def lose_node(self, node: int) -> None:
        """Note that nothing that `node` said last is sure to reach the log: it may be no more.

        What it said to be settling is ready again, as what its consumers held is.  If it lives and
        the log does say so, `settled` takes the message from wherever it is then.
        """
        for sequence in [at for at, whose in self._settling.items() if whose == node]:
            del self._settling[sequence]
            self._return(sequence, delivered=True)

    def _return(self, sequence: int, *, delivered: bool) -> None:
        """Make a message that nobody holds any more ready, at its original place."""
        if sequence >= self._cursor:
            self._ahead.discard(sequence)
        else:
            self._returned[sequence] = delivered or sequence < self._suspect_below
            heappush(self._returned_order, sequence)

    def ready_ranges(self) -> list[Range]:
        """Return all ready messages as ranges, for a purge."""
        ranges = [(sequence, sequence) for sequence in sorted(self._returned)]
        for low, high in self._state.live_ranges(self._cursor, self._state.next - 1):
            start = low
            for claimed in sorted(s for s in self._ahead if low <= s <= high):
                if start < claimed:
                    ranges.append((start, claimed - 1))
                start = claimed + 1
            if start <= high:
                ranges.append((start, high))
        return ranges

    def take(self, holder: Consumer) -> Delivery | None:
        """Hand one message to `holder` out of turn, as basic.get asks; None if none is ready."""
        for delivery in self._deliverable():
            self._hand(holder, delivery)
            return delivery
        return None

    def dispatch(self) -> list[tuple[Consumer, list[Delivery]]]:
        """Hand ready messages to consumers with room: in turns, the highest priority first."""
        rooms = {consumer: room for consumer in self._turns if (room := consumer.room()) > 0}
        handed: dict[Consumer, list[Delivery]] = {}
        deliverable = self._deliverable()
        last: Consumer | None = None
        while rooms:
            top = max(consumer.priority for consumer in rooms)
            circle = deque(consumer for consumer in rooms if consumer.priority == top)
            while circle:
                delivery = next(deliverable, None)
                if delivery is None:
                    rooms.clear()
                    break
                last = circle[0]
                self._hand(last, delivery)
                handed.setdefault(last, []).append(delivery)
                rooms[last] -= 1
                if rooms[last] and last.unwritten_bytes < WINDOW_BYTES:
                    circle.rotate(-1)
                else:
                    circle.popleft()
                    del rooms[last]
        if last is not None:
            self._turns.rotate(-1 - self._turns.index(last))
        return list(handed.items())

    def wants_mark(self) -> bool:
        """Say whether the mark (see `QueueState.mark`) should move on before it is reached."""
        return self._cursor + MARK_AHEAD > self._state.mark

    def next_mark(self) -> int:
        """Return where the mark should be put."""
        return self._cursor + MARK_STEP

    def _deliverable(self) -> Iterator[Delivery]:
        """Yield ready messages in order; what was yielded last is ready until it is handed."""
        while self._returned_order:
            sequence = self._returned_order[0]
            redelivered = self._returned.get(sequence)
            if redelivered is None:
                heappop(self._returned_order)
                continue
            location = self._state.locate(sequence)
            if location is None:
                # Gone, and the effect that says so is still in the mailbox.
                heappop(self._returned_order)
                continue
            yield Delivery(sequence, location, redelivered=redelivered)
        for sequence, location in self._state.live_from(self._cursor):
            if sequence in self._ahead:
                continue
            if sequence >= self._state.mark:
                # All below is handed out or gone, perhaps by another leader's doing: if the
                # cursor stayed there, the mark would seem to be far ahead, and never be moved.
                self._pass_to(sequence)
                return
            yield Delivery(sequence, location, redelivered=sequence < self._suspect_below)

    def _hand(self, consumer: Consumer, delivery: Delivery) -> None:
        sequence = delivery.sequence
        if sequence < self._cursor:
            del self._returned[sequence]
        else:
            self._pass_to(sequence)
            self._cursor = sequence + 1
        consumer.unwritten += 1
        consumer.unwritten_bytes += delivery.location.size
        if not consumer.no_ack:
            self._hold(consumer, sequence)

    def _pass_to(self, sequence: int) -> None:
        """Move the cursor to `sequence`: nothing before it is fresh."""
        if self._ahead:
            # What the cursor passes is in no structure from now on but `_holders`.
            self._ahead.difference_update(range(self._cursor, sequence))
        self._cursor = sequence

    def _hold(self, consumer: Consumer, sequence: int) -> None:
        self._holders[sequence] = consumer
        consumer.held.add(sequence)
