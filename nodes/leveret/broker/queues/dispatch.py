"""Who gets the next message: the soft state of a queue's leader.

Pure bookkeeping: ready messages in order, consumers with their credit, who holds what.  It is
built anew from the replicated state whenever this node becomes the queue's leader, and nothing
in it needs to survive.

Every live message is in exactly one place: *fresh* (from the cursor on, not handed out in this
leadership), *returned* (handed out and given back), *held* by a consumer, *delayed*, or *settling*:
a node said that its end is on the way through the log.  What is fresh is not counted here but read
from the state: that one may be ahead of the effects told so far.

A queue with priorities has nothing fresh: what comes is filed among the returned ones at once.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush, nsmallest
from typing import TYPE_CHECKING, Final

from .features import PLAIN
from .single_active import SingleActive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .features import QueueFeatures
    from .state import Location, QueueState, Range

ConsumerKey = tuple[int, int]
"""Node of the consumer's channel, and the consumer's number on that node."""

WINDOW: Final = 2_000
WINDOW_BYTES: Final = 2 << 20
"""Messages, and their bytes, handed to a consumer and not yet written to its socket: bounds what
a client that never reads can make the broker buffer.  One message may go over."""

ROUND_BYTES: Final = 4 << 20
"""Messages handed out before it is asked again which nodes take any.  One message may go over."""

MARK_AHEAD: Final = 500
"""When fewer messages than this may still be delivered below the mark, it is moved on."""

MARK_STEP: Final = 1_000
"""How far ahead of the cursor the mark is put: after a change of leader at most this many
messages count as redelivered that never were delivered."""


HERE: Final = 0
"""In the place of a node: the leader itself says that a message is settling."""


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
        "activated",
        "attachment",
        "default_timeout_ms",
        "exclusive",
        "held",
        "key",
        "newest",
        "no_ack",
        "paused",
        "prefetch",
        "priority",
        "timeout_ms",
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
        activated: int = 0,
        timeout_ms: int | None = None,
        default_timeout_ms: int = 0,
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
        self.activated = activated
        """A number that grows with each choice of a single active consumer, if it was chosen."""
        self.timeout_ms = timeout_ms
        """How long it may hold a message; 0: for ever; None: it goes by its queue, or by its node's
        `default_timeout_ms`."""
        self.default_timeout_ms = default_timeout_ms
        self.held: dict[int, int] = {}
        """What it got and did not settle, and when it got that (ms)."""
        self.newest = 0
        """The highest unmarked message that was handed to it, and not given back unseen."""
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

    def __init__(self, state: QueueState, *, features: QueueFeatures = PLAIN) -> None:
        self._state = state
        self._features = features
        self._looked = 1
        """Before this, what has a life of its own is noted."""
        self._alarms: list[tuple[int, int, bool]] = []
        """A heap of when (ms) a message is due or expires, its number, and whether it expires."""
        self._delayed: set[int] = set()
        self._cursor = next((sequence for sequence, _ in state.live_from(1)), state.next)
        """All live messages from here on are fresh, but for those in `_ahead`."""
        self._ahead: set[int] = set()
        """Live messages from the cursor on that are held, delayed or settling, not fresh."""
        self._suspect_below = state.mark
        """An earlier leader may have delivered messages below this: they count as redelivered."""
        self._returned: dict[int, bool] = {}
        """Messages before the cursor that are ready again, and whether a client saw them."""
        self._returned_order: list[tuple[int, int]] = []
        """A heap of the keys of `_returned`, by rank, with some that are no longer in it."""
        self._unseen: set[int] = set()
        """Some of `_returned` that were handed to a consumer whose client never saw them."""
        self._holders: dict[int, Consumer] = {}
        self._settling: dict[int, int] = {}
        """The node whose word is awaited for each settling message."""
        self._returning: dict[int, Consumer] = {}
        """Who gave a settling message back, and keeps its credit for it."""
        self._turns: deque[Consumer] = deque()
        self.is_round_over = False
        """The last `dispatch` ended for `ROUND_BYTES`: there may be more to hand out."""
        self.single = SingleActive()
        self.consumers: dict[ConsumerKey, Consumer] = {}
        self.now_ms = 0
        """The time of the leader's clock, for who asks since when a consumer holds a message."""

    @property
    def ready(self) -> int:
        """Messages that no consumer holds.  Costs a step a thousand messages."""
        fresh = self._state.live_count_from(self._cursor) - len(self._ahead)
        return max(fresh, 0) + len(self._returned)

    @property
    def unacked(self) -> int:
        """Messages that consumers hold."""
        return len(self._holders)

    def change(self, features: QueueFeatures) -> None:
        """Go by other features; the priorities of messages and consumers are as they were."""
        self._features = features

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

    def _served(self) -> Iterable[Consumer]:
        """Return who may get messages: all, or the single active one."""
        if not self._features.single_active:
            return self._turns
        turns = set(self._turns)
        waiting = (consumer for consumer in self.consumers.values() if consumer in turns)
        active = self.single.choose(waiting, self.now_ms)
        return () if active is None else (active,)

    # Messages with a life of their own

    @property
    def has_lives(self) -> bool:
        """Whether a message may expire, be delayed or have a priority."""
        return bool(self._state.traits or self._features.max_priority or self._alarms)

    def look(self, now_ms: int) -> None:
        """Note what came since the last look: when it is due, when it expires, how it ranks."""
        state, features = self._state, self._features
        if self._looked < state.next and (state.traits or features.max_priority):
            has_due, has_deadline = "due" in state.traits, "deadline" in state.traits
            for sequence, _ in state.live_from(self._looked):
                if has_deadline and (deadline := state.trait("deadline", sequence)):
                    heappush(self._alarms, (deadline, sequence, True))
                if has_due and (due := state.trait("due", sequence)) > now_ms:
                    heappush(self._alarms, (due, sequence, False))
                    self._delayed.add(sequence)
                    self._ahead.add(sequence)
                elif features.max_priority:
                    self._file(sequence, delivered=False)
        self._looked = state.next
        if features.max_priority:
            self._pass_to(state.next)

    def alarms(self, now_ms: int) -> list[int]:
        """Let what is due be ready; take out, as settling, and return what has expired."""
        expired = []
        while self._alarms and self._alarms[0][0] <= now_ms:
            _, sequence, expires = heappop(self._alarms)
            if self._state.locate(sequence) is None:
                self._delayed.discard(sequence)
            elif not expires:
                if sequence in self._delayed and self._state.trait("due", sequence) <= now_ms:
                    self._delayed.remove(sequence)
                    self._return(sequence, delivered=sequence in self._state.returns)
            elif self.is_ready(sequence):
                self.withdraw((sequence,))  # at once: it may have several alarms
                expired.append(sequence)
        return expired

    @property
    def next_alarm_ms(self) -> int | None:
        """When `alarms` should be called next; None: there is nothing to wait for."""
        return self._alarms[0][0] if self._alarms else None

    def is_ready(self, sequence: int) -> bool:
        """Say whether a live message is in nobody's hands."""
        if sequence >= self._cursor:
            return sequence not in self._ahead
        return sequence in self._returned

    def delayed(self, count: int) -> list[int]:
        """Return the `count` messages that will be due first."""
        return nsmallest(count, self._delayed, key=lambda s: (self._state.trait("due", s), s))

    def is_delayed(self, sequence: int) -> bool:
        """Say whether a live message waits until it is due."""
        return sequence in self._delayed

    def holder(self, sequence: int) -> Consumer | None:
        """Return who holds a message; None if nobody does."""
        return self._holders.get(sequence)

    def is_redelivered(self, sequence: int) -> bool:
        """Say whether a ready message will be delivered with the mark that it may be known."""
        return self._returned.get(sequence, sequence < self._suspect_below)

    def is_settling(self, sequence: int) -> bool:
        """Say whether the end, or the return, of a message is on its way through the log."""
        return sequence in self._settling

    def withdraw(self, sequences: Iterable[int]) -> None:
        """Take ready messages out: their end is decided, and on its way."""
        for sequence in sequences:
            if self._returned.pop(sequence, None) is None and sequence >= self._cursor:
                self._ahead.add(sequence)
            self._settling[sequence] = HERE

    def withdraw_delayed(self, sequences: Iterable[int]) -> None:
        """Take out delayed messages: they will not be due, for their end is on its way."""
        for sequence in sequences:
            self._delayed.discard(sequence)
            self._settling[sequence] = HERE

    def bring_back(self, sequences: Iterable[int], *, delivered: bool) -> None:
        """Make messages ready again whose end was not reached, or whose return is counted."""
        for sequence in sequences:
            if self._settling.pop(sequence, None) is not None:
                self._decided(sequence)
                self._return(sequence, delivered=delivered)

    def delay(self, sequences: Iterable[int]) -> None:
        """Let messages whose return is counted wait until they are due."""
        for sequence in sequences:
            if self._settling.pop(sequence, None) is not None:
                self._decided(sequence)
                self._delayed.add(sequence)
                heappush(self._alarms, (self._state.trait("due", sequence), sequence, False))

    def excess(self) -> list[int]:
        """Return the first ready messages that are too many for the queue."""
        count_max, bytes_max = self._features.max_length, self._features.max_length_bytes
        count = 0 if count_max is None else self.ready - count_max
        size = 0 if bytes_max is None else self.ready_bytes - bytes_max
        excess: list[int] = []
        if count <= 0 and size <= 0:
            return excess
        for sequence in self.in_order():
            if len(excess) >= count and size <= 0:
                break
            excess.append(sequence)
            size -= self._state.trait("body", sequence)
        return excess

    @property
    def ready_bytes(self) -> int:
        """Bytes of the bodies of ready messages, where they are counted.

        Costs a step for each message that is not ready.
        """
        others = {*self._holders, *self._settling, *self._delayed}
        return self._state.body_bytes - sum(self._state.trait("body", s) for s in others)

    def in_order(self) -> Iterator[int]:
        """Yield all ready messages in the order in which they would be delivered."""
        for _, sequence in sorted(set(self._returned_order)):
            if sequence in self._returned and self._state.locate(sequence) is not None:
                yield sequence
        for sequence, _ in self._state.live_from(self._cursor):
            if sequence not in self._ahead:
                yield sequence

    # Messages

    def adopt(self, state: QueueState) -> None:
        """Go on with `state`, which came to be after this dispatcher of a queue without any."""
        self._state = state
        self._looked = 1

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
                holder.held.pop(sequence, None)
                self._settling[sequence] = holder.key[0]

    def settled(self, ranges: Iterable[Range]) -> None:
        """Note that these messages, alive until now, are gone."""
        for low, high in ranges:
            gone = range(low, high + 1)
            # Intersections, not a loop over all that went: mostly `release` was there before.
            self.release(self._holders.keys() & gone)
            for sequence in self._settling.keys() & gone:
                del self._settling[sequence]
                self._decided(sequence)
            for sequence in self._returned.keys() & gone if self._returned else ():
                del self._returned[sequence]
            if self._ahead:
                self._ahead.difference_update(gone)
            if self._delayed:
                self._delayed.difference_update(gone)
            if self._unseen:
                self._unseen.difference_update(gone)

    def written(self, consumer: Consumer, count: int, size_bytes: int) -> None:
        """Note that so much left for the consumer's socket."""
        consumer.unwritten -= count
        consumer.unwritten_bytes -= size_bytes

    def give_back(
        self, consumer: Consumer, sequences: Iterable[int], *, delivered: bool = True
    ) -> None:
        """Return messages that `consumer` holds to their original places.

        `delivered` is False when the client never saw them: they are not marked redelivered, unless
        they go to a consumer that has a later one by then. What was handed counts as
        unwritten until `written` is told, given back or not.
        """
        unseen: list[int] = []
        for sequence in sequences:
            if self._holders.get(sequence) is not consumer:
                continue
            del self._holders[sequence]
            consumer.held.pop(sequence, None)
            self._return(sequence, delivered=delivered)
            if not delivered:
                self._unseen.add(sequence)
                if sequence <= consumer.newest:
                    unseen.append(sequence)
        if consumer.newest in unseen:
            consumer.newest = min(unseen) - 1

    def take_back(
        self, consumer: Consumer, sequences: Iterable[int], *, returns: bool
    ) -> list[int]:
        """Take from `consumer` what it holds of these; they are settling until it is decided.

        returns: they will be ready again, as a rule: then the consumer gets no others meanwhile.
        """
        taken = [s for s in sequences if self._holders.get(s) is consumer]
        for sequence in taken:
            del self._holders[sequence]
            self._settling[sequence] = HERE
            if returns:
                self._returning[sequence] = consumer
            else:
                consumer.held.pop(sequence, None)
        return taken

    def _decided(self, sequence: int) -> None:
        consumer = self._returning.pop(sequence, None)
        if consumer is not None:
            consumer.held.pop(sequence, None)

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
        if "deadline" in self._state.traits and (
            deadline := self._state.trait("deadline", sequence)
        ):
            heappush(self._alarms, (deadline, sequence, True))
        if sequence >= self._cursor:
            self._ahead.discard(sequence)
        else:
            self._file(sequence, delivered=delivered)

    def _file(self, sequence: int, *, delivered: bool) -> None:
        """File a message among those that are ready out of the order in which they came."""
        self._returned[sequence] = delivered or sequence < self._suspect_below
        rank = 0
        if self._features.max_priority:
            rank = -self._state.trait("priority", sequence)
        heappush(self._returned_order, (rank, sequence))

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

    def dispatch(
        self, takes: Callable[[int], bool] = lambda _: True
    ) -> list[tuple[Consumer, list[Delivery]]]:
        """Hand ready messages to consumers with room: in turns, the highest priority first.

        To be called again if `is_round_over`.

        takes: whether a node may get any now.
        """
        rooms = {
            consumer: room
            for consumer in self._served()
            if (room := consumer.room()) > 0 and takes(consumer.key[0])
        }
        handed: dict[Consumer, list[Delivery]] = {}
        deliverable = self._deliverable()
        last: Consumer | None = None
        left_bytes = ROUND_BYTES
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
                left_bytes -= delivery.location.size
                if left_bytes <= 0:
                    rooms.clear()
                    break
        self.is_round_over = left_bytes <= 0
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
            sequence = self._returned_order[0][1]
            redelivered = self._returned.get(sequence)
            if redelivered is None:
                heappop(self._returned_order)
                continue
            location = self._state.locate(sequence)
            if location is None:
                # Gone, and the effect that says so is still in the mailbox.
                heappop(self._returned_order)
                continue
            if sequence >= self._state.mark:
                return  # of a queue with priorities: nothing of it was delivered before
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
            if sequence in self._unseen:
                self._unseen.remove(sequence)
                # Unmarked, it would be out of order there; by priorities there is no such order.
                is_passed = sequence < consumer.newest and not self._features.max_priority
                delivery.redelivered = delivery.redelivered or is_passed
        else:
            self._pass_to(sequence)
            self._cursor = sequence + 1
        if not delivery.redelivered:
            consumer.newest = max(consumer.newest, sequence)
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
        consumer.held[sequence] = self.now_ms
