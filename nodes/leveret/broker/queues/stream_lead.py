"""The leader's side of a stream: every consumer reads all of it, from where it likes.

Nothing leaves a stream by being consumed, so nothing is held, marked or given back here: each
reader has a position, and an acknowledgement is room for one more message.  Readers are soft
state.  After a change of leader their channels attach them again, with the position behind what
they have written to their clients: nothing is left out, and nothing comes twice.

What retention ends goes through the log, oldest first, in steps.  A reader that has fallen behind
goes on with the first message that there is.

Clients count from 0 (offsets), the log from 1 (sequences).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.messages import Wake

from . import machine
from .dispatch import WINDOW_BYTES, Consumer, Delivery
from .outlet import Outlet, read_records
from .state import QueueState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leveret.actors import Ref
    from leveret.broker.messages import QueueMessage

    from .dispatch import ConsumerKey
    from .features import QueueFeatures, Retention
    from .outlet import Answer, HandOn, Parcel
    from .seams import Alarm, QueueContext, QueueLog
    from .state import Location

RETENTION_STEP: Final = 20_000
"""Messages that one command ends at most: a stream that is cut by millions takes its time."""


class Reader(Consumer):
    """A consumer of the stream."""

    __slots__ = ("position",)

    def __init__(self, key: ConsumerKey, position: int, *, prefetch: int, attachment: int) -> None:
        super().__init__(
            key, prefetch=prefetch, no_ack=False, exclusive=False, attachment=attachment
        )
        self.position = position
        """The message that it gets next, or the first one that there is behind that."""


class StreamLead:
    """See the module."""

    unacked: Final = 0
    """Messages that are not ready because consumers hold them."""

    def __init__(
        self,
        uid: int,
        retention: Retention,
        *,
        log: QueueLog,
        context: QueueContext,
        ref: Ref[QueueMessage],
        hand_on: HandOn,
        answer: Answer,
    ) -> None:
        """Lead stream `uid`, by what its log has now.  ref: the queue's actor."""
        self.uid = uid
        self._retention = retention
        self._log = log
        self._context = context
        self._ref = ref
        self._outlet = Outlet(uid, context=context, ref=ref, hand_on=hand_on, answer=answer)
        self._reign = log.reign
        self._readers: dict[ConsumerKey, Reader] = {}
        self._cut = 0
        """What retention ends last, as far as it is on its way through the log."""
        self._alarm: Alarm | None = None

    @property
    def state(self) -> QueueState:
        """What the log says of the stream."""
        return self._log.state(self.uid) or QueueState(self.uid)

    def submit(self, command: bytes, done: Callable[[object], None]) -> None:
        """Have the log apply `command`."""
        self._log.submit(command, done)

    def record(self, location: Location) -> memoryview:
        """Return a stored message."""
        entry = self._log.read(location.entry)
        return entry[location.offset : location.offset + location.size]

    @property
    def is_current(self) -> bool:
        """Whether the log still says what it said when this lead was taken."""
        return self._reign == self._log.reign

    def applied(self, effects: Iterable[machine.Effect]) -> None:
        """Note that the log applied something; `flush` looks at the state itself."""

    def change(self, features: QueueFeatures) -> None:
        """Go by another retention from now on; `flush` follows."""
        assert features.stream is not None
        self._retention = features.stream
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def woken(self) -> None:
        """Note that the time came which this lead wanted to be woken at; `flush` follows."""
        self._alarm = None

    def ask_again(self) -> None:
        """Note that a node that was congested may take deliveries now; `flush` follows."""
        self._outlet.ask_again()

    def flush(self) -> None:
        """Hand out what is new to its readers, and end what is at its end."""
        state = self.state
        for reader in () if state.is_paused else self._readers.values():
            if not self._outlet.takes(reader.key[0]):
                continue
            deliveries = _next_of(reader, state)
            if deliveries:
                self._outlet.deliver(reader, deliveries, self._parcel)
        self._retain(state)

    def serve(self, node: int, body: Sequence[object]) -> None:
        """Do what the queue's actor on `node` asks."""
        match body:
            case ("credit", int(number), (list() | tuple()) as sequences):
                reader = self._readers.get((node, number))
                if reader is not None:
                    for sequence in sequences:
                        reader.held.pop(sequence, None)
            case ("written", int(number), int(attachment), int(count), int(size_bytes)):
                reader = self._readers.get((node, number))
                if reader is not None and reader.attachment == attachment:
                    reader.unwritten -= count
                    reader.unwritten_bytes -= size_bytes
            case ("follow", int(request), int(number), bool(turns), int(prefetch), start, held):
                # One that is cancelled takes no turns, and gets no room for what it settles.
                self._readers.pop((node, number), None)
                position = self._resolve(start)
                if turns:
                    reader = Reader((node, number), position, prefetch=prefetch, attachment=request)
                    reader.held.update(dict.fromkeys(held, 0))  # type: ignore[call-overload]
                    self._readers[node, number] = reader
                self._outlet.reply(node, request, "following", position)
            case ("cancel", int(request), int(number)):
                self._readers.pop((node, number), None)
                self._outlet.reply(node, request, "ok")
            case ("detach", int(number)):
                self._readers.pop((node, number), None)
            case ("known", (list() | tuple()) as numbers):
                known = set(numbers)
                for key in [k for k in self._readers if k[0] == node and k[1] not in known]:
                    del self._readers[key]
            case ("count", int(request)):
                live = self.state.live
                self._outlet.reply(node, request, "count", live, 0, len(self._readers))
            case ("purge", int(request)):
                self._purge(node, request)

    def forget_node(self, node: int) -> None:
        """Take out the readers of a node that is not there any more."""
        for key in [key for key in self._readers if key[0] == node]:
            del self._readers[key]

    # Reading

    def _resolve(self, start: object) -> int:
        """Return the position that a reader means by `start` (see `stream_arguments`)."""
        state = self.state
        found: int | None = state.next
        match start:
            case ("first", _):
                found = state.first
            case ("last", _):
                found = state.first_of_last_entry()
            case ("offset", int(offset)):
                found = max(offset, 0) + 1
            case ("sequence", int(sequence)):
                found = sequence
            case ("time", int(time_ms)) if state.arrivals is not None:
                found = state.arrivals.since(time_ms)
            case ("ago", int(span_ms)) if state.arrivals is not None:
                found = state.arrivals.since(max(self._context.now_ms() - span_ms, 0))
        return state.next if found is None else found

    def _parcel(self, deliveries: Sequence[Delivery]) -> Parcel:
        return (
            [delivery.sequence for delivery in deliveries],
            [False] * len(deliveries),
            read_records(self._log, deliveries),
        )

    # Retention

    def _retain(self, state: QueueState) -> None:
        """Have the log end what is too old, or too much."""
        if self._cut >= state.first or not state.live:
            return
        behind = max(self._behind_too_old(state), self._behind_too_much(state))
        if behind > state.first:
            self._cut = min(behind, state.first + RETENTION_STEP) - 1
            command = machine.settle(self.uid, [(state.first, self._cut)])
            self._log.submit(command, _nothing, is_urgent=False)
        elif self._retention.max_age_ms is not None and state.arrivals is not None:
            self._wake_at(state.arrivals.over_ms(state.first) + self._retention.max_age_ms)

    def _behind_too_old(self, state: QueueState) -> int:
        if self._retention.max_age_ms is None or state.arrivals is None:
            return 0
        until = state.arrivals.until(self._context.now_ms() - self._retention.max_age_ms)
        return state.next if until is None else until

    def _behind_too_much(self, state: QueueState) -> int:
        """Return the first message that the limit of bytes leaves: the newest one in any case."""
        if self._retention.max_bytes is None:
            return 0
        excess = state.size_bytes - self._retention.max_bytes
        first = behind = state.first
        for sequence, location in state.live_from(first) if excess > 0 else ():
            behind = sequence
            if excess <= 0 or behind - first >= RETENTION_STEP:
                break
            excess -= location.size
        return behind

    def _wake_at(self, time_ms: int) -> None:
        if self._alarm is None:
            delay_s = max(time_ms - self._context.now_ms(), 1) / 1000
            self._alarm = self._context.after(delay_s, self._ref, Wake())

    def _purge(self, node: int, request: int) -> None:
        """End all there is; an operator's order, since no client may."""
        state = self.state
        count = state.live
        if not count:
            self._outlet.reply(node, request, "purged", 0)
            return
        self._log.submit(
            machine.settle(self.uid, [(state.first, state.next - 1)]),
            lambda _: self._outlet.reply(node, request, "purged", count),
        )


def _next_of(reader: Reader, state: QueueState) -> list[Delivery]:
    """Take for `reader` what it has room for."""
    room = reader.room()
    deliveries: list[Delivery] = []
    if room <= 0 or reader.position >= state.next:
        return deliveries
    for sequence, location in state.live_from(reader.position):
        deliveries.append(Delivery(sequence, location, redelivered=False))
        reader.held[sequence] = 0
        reader.position = sequence + 1
        reader.unwritten += 1
        reader.unwritten_bytes += location.size
        if len(deliveries) == room or reader.unwritten_bytes >= WINDOW_BYTES:
            break
    return deliveries


def _nothing(_: object) -> None:
    pass
