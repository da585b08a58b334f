"""The actor of one queue: its face on this node, and its heart on the node that leads it.

Every node that uses a queue has an actor for it.  All of them gather what is published here and
what is settled here into one command a batch.  What needs the queue's order (consumers, get,
purge, counts) is served by the actor on the leading node; the others pass it on over the link,
and hand what comes back to the connections of their own node.

After a change of leader, a break of the link to it, or a crash of an actor, nothing is assumed:
connections attach their consumers again with what their channels still hold, and requests without
an answer are sent again.  Each attaching has a number of its own (its request's), which deliveries
and news of what was written carry, so that those of an earlier one count nowhere.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

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
from .numbering import origins_of
from .queue_seams import UNREACHABLE
from .queue_state import QueueState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .queue_seams import Desk, QueueContext, QueueLog
    from .queue_state import Range

_LeaderRequest = Attach | Cancel | Get | Count | Purge

COMMAND_BYTES_MAX: Final = 1 << 20
"""Messages of one batch beyond this go into a further command, so that no entry grows huge."""

DISPATCH_BYTES_MAX: Final = 1 << 20
"""Bodies in one message to another node."""


class QueueActor(Actor[QueueMessage]):
    """See the module."""

    def __init__(
        self, uid: int, *, auto_delete: bool, log: QueueLog, context: QueueContext, desk: Desk
    ) -> None:
        """Serve queue `uid`; `desk` is the one of the instance before, if that crashed."""
        self.uid = uid
        self._auto_delete = auto_delete
        self._log = log
        self._context = context
        self._desk = desk
        self._unsettled: list[int] = []
        """What the home node was not there to be told of; see `_submit_settled`."""
        self._consumers = desk.consumers
        self._attachments: dict[int, int] = {}
        """Consumers that are attached, or about to be: by which request."""
        self._pending: dict[int, _LeaderRequest] = {}
        """Requests that the leader has not answered, by their number."""
        self._asked: dict[int, int] = {}
        """Those among them that somebody waits for and that are about a consumer, by consumer.
        A channel asks one thing at a time, so there is one."""
        self._lead: Dispatcher | None = None
        self._reign = -1
        """The log's, when `_lead` was made."""
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
        if self._desk.was_open:
            self._recover()
        self._desk.was_open = True

    def receive(self, message: QueueMessage) -> None:
        """Handle one message; effects are performed by `flush`."""
        match message:
            case PublishRun():
                if self._gone:
                    message.answer()
                else:
                    self._desk.incoming.append(message)
            case Settle():
                self._desk.settling += message.sequences
                # The log will say so too, but later than a detach of the consumer may come.
                self._to_leader("release", message.sequences)
            case Applied():
                self._applied(message)
            case Written():
                self._to_leader(
                    "written",
                    message.consumer.number,
                    message.attachment,
                    message.count,
                    message.size_bytes,
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
                self._forget(message.consumer.number)
                self._to_leader("detach", message.consumer.number)
            case PeerMessage():
                self._peer_says(message.node, message.body)
            case RoleChanged():
                self._take_role()
                self._attach_again()
            case PeerUp():
                if message.node == self._log.leader:
                    self._desk.settling += self._unsettled
                    self._unsettled.clear()
                    self._attach_again()
            case PeerDown():
                self._forget_node(message.node)
            case Deleted():
                self._end()

    async def flush(self) -> None:
        """Submit what the batch brought, and hand out what is ready."""
        if self._desk.incoming:
            self._submit_incoming()
        if self._desk.settling:
            self._submit_settled()
        lead = self._leading()
        if lead is not None:
            self._dispatch(lead)
        self._desk.unacked = 0 if lead is None else lead.unacked

    # Into the log

    def _submit_incoming(self) -> None:
        runs: list[PublishRun] = []
        size = 0
        incoming, self._desk.incoming = self._desk.incoming, []
        for run in incoming:
            runs.append(run)
            size += run.size_bytes
            if size >= COMMAND_BYTES_MAX:
                self._submit_runs(runs)
                runs, size = [], 0
        if runs:
            self._submit_runs(runs)

    def _submit_runs(self, runs: list[PublishRun]) -> None:
        records: list[bytes] = []
        is_numbered = False
        for run in runs:
            records += run.records
            is_numbered = is_numbered or run.numbering is not None
        if is_numbered:
            command = machine.enqueue_numbered(self.uid, records, origins_of(runs))
        else:
            command = machine.enqueue(self.uid, records)
        self._log.submit(command, partial(_answer, runs))

    def _submit_settled(self) -> None:
        sequences, self._desk.settling = self._desk.settling, []

        def done(reply: object) -> None:
            if reply == UNREACHABLE:
                self._unsettled.extend(sequences)

        # No client hears of it; should it be lost with this node, the messages come again.
        self._log.submit(machine.settle(self.uid, to_ranges(sequences)), done, is_urgent=False)

    # The front: what this node's connections ask

    def _request(self, request: _LeaderRequest) -> None:
        if self._gone:
            request.fail(QueueGone())
            return
        if isinstance(request, Count | Purge):
            self._send_request(request)
            return
        number = request.consumer.number
        if isinstance(request, Attach) and request.again:
            asked = self._pending.pop(self._asked.get(number, 0), None)
            if isinstance(asked, Attach):
                asked.held = request.held
                request, asked = asked, None
            self._send_request(request)
            if asked is not None:  # behind it, under a new number: an old answer is void
                self._send_request(asked)
            return
        self._send_request(request)

    def _send_request(self, request: _LeaderRequest) -> None:
        self._desk.requests = number = self._desk.requests + 1
        self._pending[number] = request
        if not isinstance(request, Count | Purge):
            consumer = request.consumer
            if isinstance(request, Attach):
                self._attachments[consumer.number] = number
            if not (isinstance(request, Attach) and request.again):
                self._asked[consumer.number] = number
            self._consumers[consumer.number] = consumer
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
        """Tell a new leader (or one that lost sight of us) all that it must know.

        What is about a consumer follows when its channel has attached it again.
        """
        self._attachments.clear()
        waiting, self._pending = self._pending, {}
        for number, request in waiting.items():
            if isinstance(request, Count | Purge):
                if not request.is_withdrawn:
                    self._pending[number] = request
            elif self._asked.get(request.consumer.number) == number:
                self._pending[number] = request
        if self._log.leader is None:
            return
        # Whom it still knows of those that are gone since, it must not wait for.
        self._to_leader("known", list(self._consumers))
        for consumer in self._consumers.values():
            tell(consumer.connection, LeaderChanged(self.uid, consumer))
        for number, request in list(self._pending.items()):
            if isinstance(request, Count | Purge):
                del self._pending[number]
                self._send_request(request)

    def _forget(self, number: int) -> None:
        """Forget a consumer with what was asked for it."""
        self._consumers.pop(number, None)
        self._attachments.pop(number, None)
        asked = self._pending.pop(self._asked.pop(number, 0), None)
        if asked is not None:
            asked.fail(QueueGone())

    def _recover(self) -> None:
        """Go on after a crash: whoever is owed something is answered, or asked again."""
        incoming, self._desk.incoming = self._desk.incoming, []
        for run in incoming:
            # Whether it is in the log is not known, so it is not confirmed.
            run.answer(refused=True)
        if self._lead is not None:
            for node in self._context.peers():
                self._context.send(node, self.uid, ("again",))
        self._attach_again()

    def _answered(self, number: int, kind: str, values: Sequence[object]) -> None:
        request = self._pending.pop(number, None)
        if request is None:
            return  # answered by an earlier leader already, or not wanted any more
        if (
            not isinstance(request, Count | Purge)
            and self._asked.get(request.consumer.number) == number
        ):
            del self._asked[request.consumer.number]
        match request, kind, values:
            case ((Attach() | Cancel()), "ok", _):
                request.reply(None)
            case Attach(), "exclusive", _:
                self._forget(request.consumer.number)
                request.fail(ExclusiveUse())
                if request.again:
                    # Another one was quicker with the new leader.
                    tell(
                        request.consumer.connection,
                        ConsumerCancelled(self.uid, request.consumer),
                    )
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
        attachment: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        # By an earlier attachment it is void: the leader learns from the next one what this
        # consumer holds, and hands the rest out again.
        if self._attachments.get(number) == attachment:
            consumer = self._consumers[number]
            message = Deliver(self.uid, consumer, attachment, sequences, redelivered, records)
            if not tell(consumer.connection, message):
                # It has ended in a crash, without a word.
                self._forget(number)
                self._to_leader("detach", number)

    def _peer_says(self, node: int, body: tuple[object, ...]) -> None:
        match body:
            case ("deliver", int(number), int(attachment), sequences, redelivered, records):
                self._hand_on(
                    number,
                    attachment,
                    sequences,  # type: ignore[arg-type]
                    redelivered,  # type: ignore[arg-type]
                    records,  # type: ignore[arg-type]
                )
            case ("again",):
                if node == self._log.leader:
                    self._attach_again()
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
        self._asked.clear()
        self._attachments.clear()
        for consumer in self._consumers.values():
            tell(consumer.connection, ConsumerCancelled(self.uid, consumer))
        self._consumers.clear()
        incoming, self._desk.incoming = self._desk.incoming, []
        _answer(incoming, machine.GONE)

    # The leader's side

    def _leading(self) -> Dispatcher | None:
        """Return the dispatcher if this node leads, by the log's latest word.

        The state may be ahead of the mailbox: with a mark that was applied under the next leader,
        who does not know of it yet, an earlier one would deliver what that one does, too.
        """
        return self._lead if self._reign == self._log.reign else None

    def _take_role(self) -> None:
        reign = self._log.reign
        if self._lead is not None and self._reign == reign:
            # The news is older than what the log said when this lead was taken: consumers of
            # other nodes that attached since must not be forgotten.
            return
        self._reign = reign
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
        dropped: list[int] = []
        for consumer, deliveries in lead.dispatch():
            if consumer.no_ack:
                dropped += [delivery.sequence for delivery in deliveries]
            self._deliver(consumer, deliveries)
        if dropped:
            self._log.submit(
                machine.settle(self.uid, to_ranges(dropped)), _nothing, is_urgent=False
            )
        if lead.active and lead.wants_mark():
            self._move_mark(lead)

    def _move_mark(self, lead: Dispatcher) -> None:
        if not self._marking:
            self._marking = True
            self._log.submit(machine.mark(self.uid, lead.next_mark()), _nothing)

    def _deliver(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        node, number = consumer.key
        if node == self._context.node:
            self._hand_on(
                number,
                consumer.attachment,
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
                        consumer.attachment,
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
        lead = self._leading()
        if lead is None:
            if self._log.leader == self._context.node and not self._gone:
                self._early.append((node, body))
            return
        match body:
            case ("written", int(number), int(attachment), int(count), int(size_bytes)):
                consumer = lead.consumers.get((node, number))
                if consumer is not None and consumer.attachment == attachment:
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
            case ("known", (list() | tuple()) as numbers):
                known = set(numbers)
                for consumer in [c for c in lead.consumers.values() if c.key[0] == node]:
                    if consumer.key[1] not in known:
                        self._remove(lead, consumer)
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
            key,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            attachment=request,
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
        self._take(lead, holder, request)

    def _take(self, lead: Dispatcher, holder: Consumer, request: int) -> None:
        key, no_ack = holder.key, holder.no_ack
        if lead.consumers.get(key) is not holder:
            return  # its channel has gone, or asks anew, while the mark was moved
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
            self._after_mark.append(lambda: self._take(lead, holder, request))
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
            lead.lose_node(node)


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
