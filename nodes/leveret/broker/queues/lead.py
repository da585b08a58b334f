"""The leader's side of a queue: who gets what, and what ends without being acknowledged.

It lives as long as this node leads the queue.  What it decides goes through the log: a message
that expires, is too many or was given back too often is first taken out of its place, then
buried (published to the dead-letter exchange, if there is one), and settled when that is done.
Should this node die on the way, the next leader begins again: a dead letter may come twice, and
none is lost.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from leveret.amqp.delivery import with_header
from leveret.amqp.fields import Long
from leveret.broker.messages import Wake, tell

from . import machine
from .consumer_timeouts import ConsumerTimeouts
from .dead_letters import DeadLetter
from .dispatch import Consumer, ConsumerKey, Delivery, Dispatcher
from .measuring import Measuring
from .outlet import Outlet, read_records
from .ranges import to_ranges
from .single_active import RECALL_MS
from .state import QueueState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leveret.actors import Ref
    from leveret.broker.messages import ConnectionMessage, QueueMessage

    from .dead_letters import Reason
    from .features import QueueFeatures
    from .moving import Destination
    from .outlet import Answer, HandOn, Parcel
    from .seams import Alarm, QueueContext, QueueLog
    from .state import Location

UNDER_WAY_MAX: Final = 1_000
"""Dead letters that are under way at a time: a million that expire together must not all be in
memory."""

BURY_AGAIN_MS: Final = 1_000
"""After this a dead letter that a queue could not take is published again."""

COUNT_HEADER: Final = "x-delivery-count"


class Lead:
    """See the module."""

    def __init__(
        self,
        uid: int,
        features: QueueFeatures,
        *,
        log: QueueLog,
        context: QueueContext,
        ref: Ref[QueueMessage],
        hand_on: HandOn,
        answer: Answer,
    ) -> None:
        """Lead queue `uid`, by what its log has now.

        ref: the queue's actor.
        """
        self.uid = uid
        self._features = features
        self._log = log
        self._context = context
        self._ref = ref
        self._outlet = Outlet(uid, context=context, ref=ref, hand_on=hand_on, answer=answer)
        self._reign = log.reign
        state = log.state(uid)
        self._state_known = state is not None
        self._state = QueueState(uid) if state is None else state
        self.dispatcher = Dispatcher(self._state, features=features)
        self.dispatcher.look(context.now_ms())
        self._marking = False
        """A move of the mark is on its way through the log."""
        self._after_mark: list[Callable[[], None]] = []
        self._sparing: tuple[int, int] | None = None
        """What `_spare` said last, while that is on its way through the log."""
        self._dead: deque[tuple[int, Reason]] = deque()
        """What is withdrawn, and waits for its dead letter."""
        self._under_way = 0
        """Dead letters that have not come home."""
        self._to_bury: list[tuple[int, int, Reason]] = []
        """Dead letters that were refused: when to try again (ms), which, and of what they died."""
        if features.single_active and self._state.mark > 1:  # somebody may have been active
            self.dispatcher.single.recall_until_ms = context.now_ms() + RECALL_MS
        self._timeouts = ConsumerTimeouts(features.consumer_timeout_ms)
        self._used_ms = context.now_ms()
        """When somebody had to do with the queue last."""
        self._measuring = Measuring(uid, log)
        if features.max_length_bytes is not None:
            self._measuring.begin(self._state)
        self._alarm: Alarm | None = None
        self._alarm_ms = 0
        self.is_acting = False
        """It does something on an operator's behalf, under a hold; one thing at a time."""

    @property
    def state(self) -> QueueState:
        """What the log says of the queue."""
        return self._state

    @property
    def is_current(self) -> bool:
        """Whether the log still says what it said when this lead was taken."""
        return self._reign == self._log.reign

    @property
    def unacked(self) -> int:
        """Messages that consumers hold."""
        return self.dispatcher.unacked

    def applied(self, effects: Iterable[machine.Effect]) -> None:
        """Follow what the log applied."""
        if not self._state_known:
            state = self._log.state(self.uid)
            if state is not None:
                self._state = state
                self.dispatcher.adopt(state)
                self._state_known = True
        for effect in effects:
            if isinstance(effect, machine.Settled):
                self.dispatcher.settled(effect.ranges)
            elif isinstance(effect, machine.Marked):
                self._marking = False
                waiting, self._after_mark = self._after_mark, []
                for go_on in waiting:
                    go_on()
            elif isinstance(effect, machine.Returned):
                self._returned(effect.ranges)

    def flush(self) -> None:
        """Hand out what is ready, and end what is at its end."""
        features, dispatcher = self._features, self.dispatcher
        has_lives = dispatcher.has_lives
        now_ms = dispatcher.now_ms = self._context.now_ms()
        if has_lives:
            # What came just now is delivered if it can be, however short it lives.
            self._end(dispatcher.alarms(now_ms), "expired")
            dispatcher.look(now_ms)
        if self._timeouts.next_look_ms is not None:
            self._time_out(now_ms)
        self._dispatch()
        if has_lives:
            self._end(dispatcher.alarms(now_ms), "expired")
        if features.max_length_bytes is not None:
            self._measuring.go_on(self._state)
        if features.drops_head and (excess := dispatcher.excess()):
            dispatcher.withdraw(excess)
            self._end(excess, "maxlen")
        if features.publish_limit is not None:
            self._spare()
        if (
            has_lives
            or features.expires_ms is not None
            or self._to_bury
            or dispatcher.single.recall_until_ms > now_ms
            or self._timeouts.next_look_ms is not None
        ):
            self._look_at_the_clock()

    def note_lives(self) -> None:
        """See that the dispatcher knows which messages are delayed, also those of just now."""
        if self.dispatcher.has_lives:
            self.dispatcher.look(self._context.now_ms())

    def change(self, features: QueueFeatures) -> None:
        """Go by other features from now on; `flush` follows.

        Messages keep the time that they were given to live when they came; the time in which
        nobody uses the queue begins anew.
        """
        if features.max_length_bytes is not None and self._features.max_length_bytes is None:
            self._measuring.begin(self._state)
        self._features = features
        self.dispatcher.change(features)
        self._used_ms = now_ms = self._context.now_ms()
        consumers = self.dispatcher.consumers.values()
        self._timeouts.change(features.consumer_timeout_ms, consumers, now_ms)
        self._bury()

    def woken(self) -> None:
        """Note that the time came which this lead wanted to be woken at; `flush` follows."""
        self._alarm = None

    def ask_again(self) -> None:
        """Note that a node that was congested may take deliveries now; `flush` follows."""
        self._outlet.ask_again()

    # Ends

    def buried(self, letter: DeadLetter) -> None:
        """Note that a dead letter came home, stored or refused, and let others go.

        Of one that an earlier lead sent, this one knows nothing: a consumer may hold the message.
        """
        if letter.lead is not self:
            return
        self._under_way -= 1
        if letter.refused and letter.sequence is not None:
            again_ms = self._context.now_ms() + BURY_AGAIN_MS
            self._to_bury.append((again_ms, letter.sequence, letter.reason))
        self._bury()

    def _end(self, sequences: Sequence[int], reason: Reason) -> None:
        """Bury messages that are withdrawn, or drop them if the queue does not bury."""
        if not sequences:
            return
        if self._features.dead_letter_exchange is None:
            self._drop(sequences)
        else:
            self._dead.extend((sequence, reason) for sequence in sequences)
            self._bury()

    def _drop(self, sequences: Iterable[int]) -> None:
        self._log.submit(machine.settle(self.uid, to_ranges(sequences)), _nothing)

    def _bury(self) -> None:
        """Publish dead letters, as many as may be under way; without an exchange they are lost."""
        features, context = self._features, self._context
        if not self._dead:
            return
        name = features.dead_letter_exchange
        exchange = None if name is None else context.exchange(features.vhost, name)
        lost = []
        while self._dead and self._under_way < UNDER_WAY_MAX:
            sequence, reason = self._dead.popleft()
            location = self._state.locate(sequence)
            if location is None:
                continue
            if name is not None:
                letter = DeadLetter(
                    self.uid,
                    sequence,
                    bytes(self.record(location)),
                    ref=cast("Ref[ConnectionMessage]", self._ref),
                    features=features,
                    reason=reason,
                    now_s=context.now_ms() // 1000,
                    lead=self,
                )
                if (exchange is not None and tell(exchange, letter)) or (
                    exchange is None and context.park(features.vhost, letter)
                ):
                    self._under_way += 1
                    continue
            lost.append(sequence)
        if lost:
            self._drop(lost)

    def _returned(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Make messages whose return is counted ready again, but for those that had enough."""
        limit = self._features.delivery_limit
        enough: list[int] = []
        back: list[int] = []
        for low, high in ranges:
            for sequence in range(low, high + 1):
                had_enough = limit is not None and self._state.returns.get(sequence, 0) > limit
                (enough if had_enough else back).append(sequence)
        self._end([s for s in enough if self.dispatcher.is_settling(s)], "delivery_limit")
        now_ms = self._context.now_ms()
        waiting = [s for s in back if self._state.trait("due", s) > now_ms]
        self.dispatcher.delay(waiting)
        self.dispatcher.bring_back(back, delivered=True)

    def _give_back(
        self, consumer: Consumer, sequences: Iterable[int], *, delivered: bool, failed: bool = False
    ) -> None:
        """Take messages from a consumer that returns them, or failed."""
        retry = self._features.delayed_retry
        if retry is not None and not retry.is_for(failed=failed):
            retry = None
        if delivered and (self._features.counts_returns or retry is not None):
            taken = self.dispatcher.take_back(consumer, sequences, returns=True)
            if taken:
                self._log.submit(machine.returned(self.uid, to_ranges(taken), retry), _nothing)
        else:
            self.dispatcher.give_back(consumer, sequences, delivered=delivered)

    def _spare(self) -> None:
        """Tell all replicas how much of the queue does not count for its limit."""
        state, dispatcher = self._state, self.dispatcher
        spared = (state.live - dispatcher.ready, 0)
        if self._features.max_length_bytes is not None:
            spared = (spared[0], state.body_bytes - dispatcher.ready_bytes)
        # A settlement changes the number in the state too.
        known = self._sparing or (state.spared, state.spared_bytes)
        if spared != known and self._state_known:
            self._sparing = spared
            self._log.submit(machine.spare(self.uid, *spared), partial(self._spare_said, spared))

    def _spare_said(self, spared: tuple[int, int], _: object) -> None:
        if self._sparing == spared:
            self._sparing = None

    def _look_at_the_clock(self) -> None:
        """Do what it is time for, and have this lead woken when there is more."""
        now_ms = self._context.now_ms()
        times = [self.dispatcher.next_alarm_ms, self._timeouts.next_look_ms]
        if self._to_bury:
            due = [(s, why) for at, s, why in self._to_bury if at <= now_ms]
            self._to_bury = [one for one in self._to_bury if one[0] > now_ms]
            for sequence, why in due:
                self._end([sequence], why)
            times.append(min((at for at, _, _ in self._to_bury), default=None))
        if self._features.expires_ms is not None and not self.dispatcher.active:
            ends_ms = self._used_ms + self._features.expires_ms
            if ends_ms <= now_ms:
                self._context.delete_queue(self.uid, _nothing)
                ends_ms = now_ms + BURY_AGAIN_MS
            times.append(ends_ms)
        if self.dispatcher.single.recall_until_ms > now_ms:
            times.append(self.dispatcher.single.recall_until_ms)
        next_ms = min((time for time in times if time is not None), default=None)
        if next_ms is None:
            return
        if self._alarm is not None:
            if self._alarm_ms <= next_ms:
                return
            self._alarm.cancel()
        self._alarm_ms = next_ms
        self._alarm = self._context.after(max(next_ms - now_ms, 1) / 1000, self._ref, Wake())

    def _time_out(self, now_ms: int) -> None:
        """Take from consumers what they hold for too long, and serve them no more."""
        consumers = self.dispatcher.consumers.values()
        for consumer, sequences in self._timeouts.expired(consumers, now_ms):
            was_active = self.dispatcher.active
            self.dispatcher.stop(consumer)
            self._outlet.reply(consumer.key[0], consumer.attachment, "timeout", sequences)
            self._give_back(consumer, sequences, delivered=True, failed=True)
            self._delete_if_unused(was_active, _nothing)

    # Deliveries

    def _dispatch(self) -> None:
        if self._state.is_paused:
            return
        dropped: list[int] = []
        is_more = True
        while is_more:
            for consumer, deliveries in self.dispatcher.dispatch(self._outlet.takes):
                if consumer.no_ack:
                    dropped += [delivery.sequence for delivery in deliveries]
                self._outlet.deliver(consumer, deliveries, partial(self._parcel, consumer))
            is_more = self.dispatcher.is_round_over
        if dropped:
            self._log.submit(
                machine.settle(self.uid, to_ranges(dropped)), _nothing, is_urgent=False
            )
        for consumer in self.dispatcher.single.news():
            self._outlet.reply(consumer.key[0], consumer.attachment, "active", consumer.activated)
        if self.dispatcher.active and self.dispatcher.wants_mark():
            self._move_mark()

    def _move_mark(self) -> None:
        if not self._marking:
            self._marking = True
            self._log.submit(machine.mark(self.uid, self.dispatcher.next_mark()), _nothing)

    def _parcel(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> Parcel:
        """Return the numbers of deliveries, their flags, and the messages as the client sees them.

        What these are larger than stored counts as unwritten, too.
        """
        records = self._records(deliveries)
        if self._features.counts_returns:
            stored = sum(delivery.location.size for delivery in deliveries)
            consumer.unwritten_bytes += sum(map(len, records)) - stored
        return (
            [delivery.sequence for delivery in deliveries],
            [delivery.redelivered for delivery in deliveries],
            records,
        )

    def _records(self, deliveries: Sequence[Delivery]) -> list[bytes | memoryview]:
        records = read_records(self._log, deliveries)
        if self._features.counts_returns:
            for at, delivery in enumerate(deliveries):
                count = self._state.returns.get(delivery.sequence, 0)
                records[at] = with_header(records[at], COUNT_HEADER, Long(count))
        return records

    def submit(self, command: bytes, done: Callable[[object], None]) -> None:
        """Have the log apply a command about this queue."""
        self._log.submit(command, done)

    def destination(self, uid: int) -> Destination | None:
        """Return a queue to which messages may go; None if there is none (any more)."""
        return self._context.destination(self.uid, uid)

    def wake(self) -> None:
        """Have this lead look at what is ready now."""
        tell(self._ref, Wake())

    def record(self, location: Location) -> memoryview:
        """Return a stored message."""
        entry = self._log.read(location.entry)
        return entry[location.offset : location.offset + location.size]

    # What actors ask

    def serve(self, node: int, body: Sequence[object]) -> None:
        """Do what the queue's actor on `node` asks."""
        match body:
            case ("written", int(number), int(attachment), int(count), int(size_bytes)):
                consumer = self.dispatcher.consumers.get((node, number))
                if consumer is not None and consumer.attachment == attachment:
                    self.dispatcher.written(consumer, count, size_bytes)
            case ("release", (list() | tuple()) as sequences):
                self.dispatcher.release(sequences)
            case ("back", int(number), (list() | tuple()) as sequences, bool(delivered)):
                consumer = self.dispatcher.consumers.get((node, number))
                if consumer is not None:
                    self._give_back(consumer, sequences, delivered=delivered)
            case ("reject", int(number), (list() | tuple()) as sequences):
                consumer = self.dispatcher.consumers.get((node, number))
                if consumer is not None:
                    taken = self.dispatcher.take_back(consumer, sequences, returns=False)
                    self._end(taken, "rejected")
            case ("adjust", int(number), int(prefetch), bool(paused)):
                consumer = self.dispatcher.consumers.get((node, number))
                if consumer is not None:
                    consumer.prefetch, consumer.paused = prefetch, paused
            case ("detach", int(number)):
                self._remove(self.dispatcher.consumers.get((node, number)))
            case ("cancel", int(request), int(number)):
                consumer = self.dispatcher.consumers.get((node, number))
                was_active = self.dispatcher.active
                if consumer is not None:
                    self.dispatcher.stop(consumer)
                # A client that cancelled the last consumer must not find the queue any more.
                self._delete_if_unused(
                    was_active, lambda _: self._outlet.reply(node, request, "ok")
                )
            case ("attach", int(request), int(number), bool(turns), *spec):
                self._used_ms = self.dispatcher.now_ms = self._context.now_ms()
                self._attach((node, number), request, spec, takes_turns=turns)
            case ("get", int(request), int(number), bool(no_ack)):
                self._freshen()
                self._get((node, number), request, no_ack=no_ack)
            case ("known", (list() | tuple()) as numbers):
                known = set(numbers)
                for consumer in [c for c in self.dispatcher.consumers.values() if c.key[0] == node]:
                    if consumer.key[1] not in known:
                        self._remove(consumer)
            case ("count", int(request)):
                self._freshen()
                lead = self.dispatcher
                self._outlet.reply(node, request, "count", lead.ready, lead.unacked, lead.active)
            case ("purge", int(request)):
                self._freshen()
                self._purge(node, request)

    def _freshen(self) -> None:
        """Note that the queue is used, and let nothing be seen that has expired or is too much."""
        now_ms = self._used_ms = self.dispatcher.now_ms = self._context.now_ms()
        if self.dispatcher.has_lives:
            self.dispatcher.look(now_ms)
            self._end(self.dispatcher.alarms(now_ms), "expired")

    def _attach(
        self,
        key: ConsumerKey,
        request: int,
        spec: Sequence[object],
        *,
        takes_turns: bool,
    ) -> None:
        match spec:
            case (
                int(prefetch),
                bool(no_ack),
                bool(exclusive),
                int(priority),
                int(active),
                (int() | None) as timeout_ms,
                int(default_timeout_ms),
                held,
            ):
                pass
            case _:
                return
        known = self.dispatcher.consumers.get(key)
        if known is not None:
            self.dispatcher.remove(known)
        refuses_exclusive = self.dispatcher.active or self._features.single_active
        if takes_turns and (self.dispatcher.has_exclusive() or (exclusive and refuses_exclusive)):
            self._outlet.reply(key[0], request, "exclusive")
            return
        consumer = Consumer(
            key,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            attachment=request,
            activated=active,
            timeout_ms=timeout_ms,
            default_timeout_ms=default_timeout_ms,
        )
        self._timeouts.came(consumer, self.dispatcher.now_ms)
        self.dispatcher.add(consumer, takes_turns=takes_turns)
        self.dispatcher.claim(consumer, held)  # type: ignore[arg-type]
        if self.dispatcher.ready and self.dispatcher.wants_mark():
            # A client may expect what is there to follow consume-ok at once.
            self._move_mark()
            self._after_mark.append(lambda: self._outlet.reply(key[0], request, "ok"))
        else:
            self._outlet.reply(key[0], request, "ok")

    def _get(self, key: ConsumerKey, request: int, *, no_ack: bool) -> None:
        holder = self.dispatcher.consumers.get(key)
        if holder is None:
            holder = Consumer(key, prefetch=0, no_ack=no_ack, exclusive=False)
            self.dispatcher.add(holder, takes_turns=False)
        self._take(holder, request)

    def _take(self, holder: Consumer, request: int) -> None:
        key, no_ack = holder.key, holder.no_ack
        if self.dispatcher.consumers.get(key) is not holder:
            return  # its channel has gone, or asks anew, while the mark was moved
        delivery = None if self._state.is_paused else self.dispatcher.take(holder)
        if delivery is not None:
            self.dispatcher.written(holder, 1, delivery.location.size)
            if no_ack:
                self._log.submit(
                    machine.settle(self.uid, [(delivery.sequence, delivery.sequence)]), _nothing
                )
            (record,) = self._records((delivery,))
            self._outlet.reply(
                key[0],
                request,
                "got",
                delivery.sequence,
                delivery.redelivered,
                record,
                self.dispatcher.ready,
            )
        elif self.dispatcher.ready and not self._state.is_paused:
            self._move_mark()
            self._after_mark.append(lambda: self._take(holder, request))
        else:
            self._outlet.reply(key[0], request, "empty")

    def _purge(self, node: int, request: int) -> None:
        ranges = self.dispatcher.ready_ranges()
        count = sum(high - low + 1 for low, high in ranges)
        if count == 0:
            self._outlet.reply(node, request, "purged", 0)
            return
        self._log.submit(
            machine.settle(self.uid, ranges),
            lambda _: self._outlet.reply(node, request, "purged", count),
        )

    def _remove(self, consumer: Consumer | None) -> None:
        if consumer is not None:
            was_active = self.dispatcher.active
            self._give_back(consumer, list(consumer.held), delivered=True, failed=True)
            self.dispatcher.remove(consumer)
            self._delete_if_unused(was_active, _nothing)

    def _delete_if_unused(self, was_active: int, then: Callable[[object], None]) -> None:
        self._used_ms = self._context.now_ms()
        if self._features.auto_delete and was_active and not self.dispatcher.active:
            self._context.delete_queue(self.uid, then)
        else:
            then(None)

    def forget_node(self, node: int) -> None:
        """Take out the consumers of a node that is not there any more."""
        for consumer in [c for c in self.dispatcher.consumers.values() if c.key[0] == node]:
            self._remove(consumer)
        self.dispatcher.lose_node(node)


def bury_refused(
    uid: int,
    records: Iterable[bytes],
    features: QueueFeatures,
    context: QueueContext,
    ref: Ref[QueueMessage],
) -> None:
    """Publish what a full queue did not take to its dead-letter exchange."""
    name = features.dead_letter_exchange
    exchange = None if name is None else context.exchange(features.vhost, name)
    if name is None:
        return
    for record in records:
        letter = DeadLetter(
            uid,
            None,
            record,
            ref=cast("Ref[ConnectionMessage]", ref),
            features=features,
            reason="maxlen",
            now_s=context.now_ms() // 1000,
        )
        if exchange is None:
            context.park(features.vhost, letter)
        else:
            tell(exchange, letter)


def _nothing(_: object) -> None:
    pass
