"""The actor of one queue: its face on this node, and its heart on the node that leads it.

Every node that uses a queue has an actor for it.  All of them gather what is published here and
what is settled here into one command a batch.  What needs the queue's order (consumers, get,
purge, counts) is served by the actor on the leading node; the others pass it on over the link,
and hand what comes back to the connections of their own node.

After a change of leader nothing is assumed: connections attach their consumers again with what
their channels still hold, and requests without an answer are sent again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from leveret.actors import Actor

from . import machine
from .dispatch import Consumer, ConsumerKey, Delivery, Dispatcher
from .messages import (
    Adjust,
    Applied,
    Attach,
    Cancel,
    ConsumerCancelled,
    Count,
    Deleted,
    Deliver,
    Detach,
    ExclusiveUse,
    Get,
    GiveBack,
    Got,
    LeaderChanged,
    LocalConsumer,
    PeerDown,
    PeerMessage,
    PeerUp,
    PublishRun,
    Purge,
    QueueCounts,
    QueueGone,
    QueueMessage,
    RoleChanged,
    Settle,
    Written,
    tell,
)
from .queue_state import QueueState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .queue_state import Range

_LeaderRequest = Attach | Cancel | Get | Count | Purge

COMMAND_BYTES_MAX: Final = 1 << 20
"""Messages of one batch beyond this go into a further command, so that no entry grows huge."""

DISPATCH_BYTES_MAX: Final = 1 << 20
"""Bodies in one message to another node."""

UNREACHABLE: Final = "unreachable"
"""Reply of a log: the one node that could apply the command is gone."""


class QueueLog(Protocol):
    """Where a queue's commands go: a replicated shard, or the home node of a transient queue."""

    @property
    def leader(self) -> int | None:
        """The node that serves the queue, if known."""

    @property
    def is_leader(self) -> bool:
        """Whether that is this node, and it has applied all that came before."""

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Have `command` applied once, in order of submission; `done` gets the reply.

        is_urgent: False if nobody waits for it, so that it may go with what comes later.
        """

    def state(self, uid: int) -> QueueState | None:
        """Return this node's copy of the queue's state; None before its first message."""

    def read(self, entry: int) -> memoryview:
        """Return the bytes of log entry `entry`, which holds a live message."""


class QueueContext(Protocol):
    """What the actor needs of its node."""

    node: int

    def send(self, node: int, uid: int, body: tuple[object, ...]) -> bool:
        """Tell the same queue's actor on another node; False when the link is down."""

    def last_consumer_gone(self, uid: int, done: Callable[[object], None]) -> None:
        """Delete the queue, which is auto-delete and had consumers; then call `done`."""


class QueueActor(Actor[QueueMessage]):
    """See the module."""

    def __init__(
        self, uid: int, *, auto_delete: bool, log: QueueLog, context: QueueContext
    ) -> None:
        self.uid = uid
        self._auto_delete = auto_delete
        self._log = log
        self._context = context
        self._incoming: list[PublishRun] = []
        self._settling: list[int] = []
        self._consumers: dict[int, LocalConsumer] = {}
        self._pending: dict[int, _LeaderRequest] = {}
        """Requests that the leader has not answered, by their number."""
        self._requests = 0
        self._lead: Dispatcher | None = None
        self._state_known = False
        self._marking = False
        """A move of the mark is on its way through the log."""
        self._after_mark: list[Callable[[], None]] = []
        self._early: list[tuple[int, Sequence[object]]] = []
        """What was asked of this leader before it was ready."""
        self._gone = False

    async def start(self) -> None:
        """Take the lead if this node has it; there may be nothing yet to tell it otherwise."""
        self._take_role()

    def receive(self, message: QueueMessage) -> None:
        """Handle one message; effects are performed by `flush`."""
        match message:
            case PublishRun():
                if self._gone:
                    message.answer()
                else:
                    self._incoming.append(message)
            case Settle():
                self._settling += message.sequences
                # The log will say so too, but later than a detach of the consumer may come.
                self._to_leader("release", message.sequences)
            case Applied():
                self._applied(message)
            case Written():
                self._to_leader(
                    "written", message.consumer.number, message.count, message.size_bytes
                )
            case GiveBack():
                self._to_leader(
                    "back", message.consumer.number, list(message.sequences), message.delivered
                )
            case Adjust():
                self._to_leader(
                    "adjust", message.consumer.number, message.consumer.prefetch, message.paused
                )
            case Attach() | Get() | Cancel() | Count() | Purge():
                self._request(message)
            case Detach():
                self._consumers.pop(message.consumer.number, None)
                self._to_leader("detach", message.consumer.number)
            case PeerMessage():
                self._peer_says(message.node, message.body)
            case RoleChanged():
                self._take_role()
                self._attach_again()
            case PeerUp():
                if message.node == self._log.leader:
                    self._attach_again()
            case PeerDown():
                self._forget_node(message.node)
            case Deleted():
                self._end()

    async def flush(self) -> None:
        """Submit what the batch brought, and hand out what is ready."""
        if self._incoming:
            self._submit_incoming()
        if self._settling:
            self._submit_settled()
        if self._lead is not None:
            self._dispatch(self._lead)

    # Into the log

    def _submit_incoming(self) -> None:
        runs: list[PublishRun] = []
        records: list[bytes] = []
        size = 0
        for run in self._incoming:
            runs.append(run)
            records += run.records
            size += run.size_bytes
            if size >= COMMAND_BYTES_MAX:
                self._log.submit(machine.enqueue(self.uid, records), partial(_answer, runs))
                runs, records, size = [], [], 0
        if runs:
            self._log.submit(machine.enqueue(self.uid, records), partial(_answer, runs))
        self._incoming = []

    def _submit_settled(self) -> None:
        sequences, self._settling = self._settling, []
        # No client hears of it; should it be lost with this node, the messages come again.
        self._log.submit(
            machine.settle(self.uid, to_ranges(sequences)), _nothing, is_urgent=False
        )

    # The front: what this node's connections ask

    def _request(self, request: _LeaderRequest) -> None:
        if self._gone:
            request.fail(QueueGone())
            return
        self._requests += 1
        self._pending[self._requests] = request
        if isinstance(request, Attach | Get):
            self._consumers[request.consumer.number] = request.consumer
        self._send_request(self._requests, request)

    def _send_request(self, number: int, request: _LeaderRequest) -> None:
        match request:
            case Attach():
                consumer = request.consumer
                self._to_leader(
                    "attach",
                    number,
                    consumer.number,
                    consumer.takes_turns,
                    consumer.prefetch,
                    consumer.no_ack,
                    consumer.exclusive,
                    consumer.priority,
                    tuple(request.held),
                )
            case Cancel():
                request.consumer.takes_turns = False
                self._to_leader("cancel", number, request.consumer.number)
            case Get():
                self._to_leader("get", number, request.consumer.number, request.consumer.no_ack)
            case Count():
                self._to_leader("count", number)
            case Purge():
                self._to_leader("purge", number)

    def _to_leader(self, *body: object) -> None:
        """Have the leader do `body`; without one, what matters is sent again when there is."""
        leader = self._log.leader
        if leader == self._context.node:
            self._serve(leader, body)
        elif leader is not None:
            self._context.send(leader, self.uid, body)

    def _attach_again(self) -> None:
        """Tell a new leader (or one that lost sight of us) all that it must know."""
        if self._log.leader is None:
            return
        for consumer in self._consumers.values():
            tell(consumer.connection, LeaderChanged(self.uid, consumer))
        for number, request in list(self._pending.items()):
            self._send_request(number, request)

    def _answered(self, number: int, kind: str, values: Sequence[object]) -> None:
        request = self._pending.pop(number, None)
        match request, kind, values:
            case None, _, _:
                return  # answered by an earlier leader already
            case ((Attach() | Cancel()), "ok", _):
                request.reply(None)
            case Attach(), "exclusive", _:
                self._consumers.pop(request.consumer.number, None)
                request.fail(ExclusiveUse())
            case Get(), "empty", _:
                request.reply(None)
            case Get(), "got", (sequence, redelivered, record, ready):
                request.reply(
                    Got(sequence, record, redelivered=redelivered, ready=ready)  # type: ignore[arg-type]
                )
            case Count(), "count", (ready, unacked, consumers):
                request.reply(QueueCounts(ready, unacked, consumers))  # type: ignore[arg-type]
            case Purge(), "purged", (count,):
                request.reply(count)  # type: ignore[arg-type]

    def _hand_on(
        self,
        number: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        consumer = self._consumers.get(number)
        if consumer is not None:
            tell(
                consumer.connection,
                Deliver(self.uid, consumer, sequences, redelivered, records),
            )

    def _peer_says(self, node: int, body: tuple[object, ...]) -> None:
        match body:
            case ("deliver", int(number), sequences, redelivered, records):
                # Deliveries of a leader that has been replaced are void: its successor hands
                # those messages out again.
                if node == self._log.leader:
                    self._hand_on(number, sequences, redelivered, records)  # type: ignore[arg-type]
            case ("reply", int(number), str(kind), *values):
                self._answered(number, kind, values)
            case _:
                self._serve(node, body)

    def _end(self) -> None:
        """The queue is deleted: nobody waits for it any more."""
        self._gone = True
        self._lead = None
        for request in self._pending.values():
            if isinstance(request, Cancel):
                request.reply(None)
            else:
                request.fail(QueueGone())
        self._pending.clear()
        for consumer in self._consumers.values():
            if consumer.takes_turns:
                tell(consumer.connection, ConsumerCancelled(self.uid, consumer))
        self._consumers.clear()
        _answer(self._incoming, machine.GONE)
        self._incoming = []

    # The leader's side

    def _take_role(self) -> None:
        self._lead = None
        self._marking = False
        self._after_mark = []
        if self._log.leader != self._context.node:
            self._early = []
        if self._log.is_leader and not self._gone:
            self._state_known = self._log.state(self.uid) is not None
            self._lead = Dispatcher(self._log.state(self.uid) or QueueState(self.uid))
            early, self._early = self._early, []
            for node, body in early:
                self._serve(node, body)

    def _applied(self, message: Applied) -> None:
        lead = self._lead
        if lead is None:
            return
        if not self._state_known:
            state = self._log.state(self.uid)
            if state is not None:
                lead.adopt(state)
                self._state_known = True
        for effect in message.effects:
            if isinstance(effect, machine.Settled):
                lead.settled(effect.ranges)
            elif isinstance(effect, machine.Marked):
                self._marking = False
                waiting, self._after_mark = self._after_mark, []
                for go_on in waiting:
                    go_on()

    def _dispatch(self, lead: Dispatcher) -> None:
        if lead.active and lead.wants_mark():
            self._move_mark(lead)
        dropped: list[int] = []
        for consumer, deliveries in lead.dispatch():
            if consumer.no_ack:
                dropped += [delivery.sequence for delivery in deliveries]
            self._deliver(consumer, deliveries)
        if dropped:
            self._log.submit(
                machine.settle(self.uid, to_ranges(dropped)), _nothing, is_urgent=False
            )

    def _move_mark(self, lead: Dispatcher) -> None:
        if not self._marking:
            self._marking = True
            self._log.submit(machine.mark(self.uid, lead.next_mark()), _nothing)

    def _deliver(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        node, number = consumer.key
        if node == self._context.node:
            self._hand_on(
                number,
                [delivery.sequence for delivery in deliveries],
                [delivery.redelivered for delivery in deliveries],
                self._records(deliveries),
            )
            return
        start, size = 0, 0
        for position, delivery in enumerate(deliveries, 1):
            size += delivery.location.size
            if size >= DISPATCH_BYTES_MAX or position == len(deliveries):
                part = deliveries[start:position]
                self._context.send(
                    node,
                    self.uid,
                    (
                        "deliver",
                        number,
                        [delivery.sequence for delivery in part],
                        [delivery.redelivered for delivery in part],
                        self._records(part),
                    ),
                )
                start, size = position, 0

    def _records(self, deliveries: Iterable[Delivery]) -> list[memoryview]:
        records = []
        last, entry = -1, memoryview(b"")
        for delivery in deliveries:
            index, offset, size = delivery.location
            if index != last:
                last, entry = index, self._log.read(index)
            records.append(entry[offset : offset + size])
        return records

    def _serve(self, node: int, body: Sequence[object]) -> None:
        """Do what the actor on `node` asks of the leader.

        If this node does not lead (any more), the other one learns so from the log, and asks
        the new leader.  If it leads but has not applied yet what came before, that waits.
        """
        lead = self._lead
        if lead is None:
            if self._log.leader == self._context.node and not self._gone:
                self._early.append((node, body))
            return
        match body:
            case ("written", int(number), int(count), int(size_bytes)):
                consumer = lead.consumers.get((node, number))
                if consumer is not None:
                    lead.written(consumer, count, size_bytes)
            case ("release", (list() | tuple()) as sequences):
                lead.release(sequences)
            case ("back", int(number), (list() | tuple()) as sequences, bool(delivered)):
                consumer = lead.consumers.get((node, number))
                if consumer is not None:
                    lead.give_back(consumer, sequences, delivered=delivered)
            case ("adjust", int(number), int(prefetch), bool(paused)):
                consumer = lead.consumers.get((node, number))
                if consumer is not None:
                    consumer.prefetch, consumer.paused = prefetch, paused
            case ("detach", int(number)):
                self._remove(lead, lead.consumers.get((node, number)))
            case ("cancel", int(request), int(number)):
                consumer = lead.consumers.get((node, number))
                was_active = lead.active
                if consumer is not None:
                    lead.stop(consumer)
                # A client that cancelled the last consumer must not find the queue any more.
                self._delete_if_unused(lead, was_active, lambda _: self._reply(node, request, "ok"))
            case ("attach", int(request), int(number), bool(turns), *spec):
                self._attach(lead, (node, number), request, spec, takes_turns=turns)
            case ("get", int(request), int(number), bool(no_ack)):
                self._get(lead, (node, number), request, no_ack=no_ack)
            case ("count", int(request)):
                self._reply(node, request, "count", lead.ready, lead.unacked, lead.active)
            case ("purge", int(request)):
                self._purge(lead, node, request)

    def _attach(
        self,
        lead: Dispatcher,
        key: ConsumerKey,
        request: int,
        spec: Sequence[object],
        *,
        takes_turns: bool,
    ) -> None:
        match spec:
            case (int(prefetch), bool(no_ack), bool(exclusive), int(priority), held):
                pass
            case _:
                return
        known = lead.consumers.get(key)
        if known is not None:
            lead.remove(known)
        if takes_turns and (lead.has_exclusive() or (exclusive and lead.active)):
            self._reply(key[0], request, "exclusive")
            return
        consumer = Consumer(
            key, prefetch=prefetch, no_ack=no_ack, exclusive=exclusive, priority=priority
        )
        lead.add(consumer, takes_turns=takes_turns)
        lead.claim(consumer, held)  # type: ignore[arg-type]
        if lead.ready and lead.wants_mark():
            # A client may expect what is there to follow consume-ok at once.
            self._move_mark(lead)
            self._after_mark.append(lambda: self._reply(key[0], request, "ok"))
        else:
            self._reply(key[0], request, "ok")

    def _get(self, lead: Dispatcher, key: ConsumerKey, request: int, *, no_ack: bool) -> None:
        holder = lead.consumers.get(key)
        if holder is None:
            holder = Consumer(key, prefetch=0, no_ack=no_ack, exclusive=False)
            lead.add(holder, takes_turns=False)
        delivery = lead.take(holder)
        if delivery is not None:
            lead.written(holder, 1, delivery.location.size)
            if no_ack:
                self._log.submit(
                    machine.settle(self.uid, [(delivery.sequence, delivery.sequence)]), _nothing
                )
            (record,) = self._records((delivery,))
            self._reply(
                key[0],
                request,
                "got",
                delivery.sequence,
                delivery.redelivered,
                record,
                lead.ready,
            )
        elif lead.ready:
            self._move_mark(lead)
            self._after_mark.append(lambda: self._get(lead, key, request, no_ack=no_ack))
        else:
            self._reply(key[0], request, "empty")

    def _purge(self, lead: Dispatcher, node: int, request: int) -> None:
        ranges = lead.ready_ranges()
        count = sum(high - low + 1 for low, high in ranges)
        if count == 0:
            self._reply(node, request, "purged", 0)
            return
        self._log.submit(
            machine.settle(self.uid, ranges),
            lambda _: self._reply(node, request, "purged", count),
        )

    def _reply(self, node: int, request: int, kind: str, *values: object) -> None:
        if node == self._context.node:
            self._answered(request, kind, values)
        else:
            self._context.send(node, self.uid, ("reply", request, kind, *values))

    def _remove(self, lead: Dispatcher, consumer: Consumer | None) -> None:
        if consumer is not None:
            was_active = lead.active
            lead.remove(consumer)
            self._delete_if_unused(lead, was_active, _nothing)

    def _delete_if_unused(
        self, lead: Dispatcher, was_active: int, then: Callable[[object], None]
    ) -> None:
        if self._auto_delete and was_active and not lead.active:
            self._context.last_consumer_gone(self.uid, then)
        else:
            then(None)

    def _forget_node(self, node: int) -> None:
        self._early = [(asker, body) for asker, body in self._early if asker != node]
        lead = self._lead
        if lead is not None:
            for consumer in [c for c in lead.consumers.values() if c.key[0] == node]:
                self._remove(lead, consumer)


def to_ranges(sequences: Iterable[int]) -> list[Range]:
    """Return the sequence numbers as ascending ranges without repeats."""
    ranges: list[Range] = []
    low = high = -1
    for sequence in sorted(sequences):
        if sequence == high + 1 and low >= 0:
            high = sequence
        elif sequence != high:
            if low >= 0:
                ranges.append((low, high))
            low = high = sequence
    if low >= 0:
        ranges.append((low, high))
    return ranges


def _answer(runs: list[PublishRun], reply: object) -> None:
    for run in runs:
        run.answer(refused=reply == UNREACHABLE)


def _nothing(_: object) -> None:
    pass
